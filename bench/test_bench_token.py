"""A PKCS#11 token's own speed, and what is left of it: SoftHSM, ours and the raw calls interleaved in one run.

    python -m pytest bench/test_bench_token.py -s

Bulk diversification against C_Encrypt of the same bytes in one call; derive, check and wrap in the token against the same calls from C;
the SM4 path of the sealed custody against the kernel writing to locked memory; the whole demo against the one on the software custody.
Results are compared before anything is timed. Each ratio is the median over rounds in which both sides take their turn.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from pkcs11 import Mechanism
from pytest_benchmark.fixture import BenchmarkFixture

import cext
from engine.cli.demo import run_demo
from engine.orders.synthetic import order_file
from keys.custody import Derivation
from keys.custody.policy import KeyPolicy
from keys.custody.sealed import SealedCustody
from keys.custody.token import TokenConfig, TokenCustody, TokenSealer, initialize, objects
from keys.custody.token.cryptoki import MechanismCall
from keys.custody.token.session import Live
from keys.custody.working import KeySpec
from keys.hierarchy import Domain, Purpose
from keys.secrets import SecretArray, SecretBytes

ByteArray = npt.NDArray[np.uint8]

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
TDES = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
ROUNDS = 21


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenCustody]:
    place = tmp_path_factory.mktemp("softhsm")
    (place / "tokens").mkdir()
    (place / "softhsm2.conf").write_text(f"directories.tokendir = {place}/tokens\nobjectstore.backend = file\n")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(place / "softhsm2.conf")
    config = TokenConfig(MODULE, "bench")
    initialize(config, SecretBytes(b"12345678"), SecretBytes(b"123456"))
    with TokenCustody.create(config, SecretBytes(b"123456"), test=True) as custody:
        for name, algorithm, purpose, holder in (
            ("bulk", "3des", Purpose.APPLICATION, "host-clear"),
            ("inside", "3des", Purpose.APPLICATION, "token-only"),
            ("kek", "aes", Purpose.KEY_ENCRYPTION, "token-only"),
        ):
            spec = KeySpec(name, Domain.TRANSPORT, "3des" if algorithm == "3des" else "aes", purpose)
            policy = KeyPolicy(custody="host-clear" if holder == "host-clear" else "token-only")
            custody.import_key(spec, TDES, policy)
        yield custody
    if before is None:
        del os.environ["SOFTHSM2_CONF"]
    else:
        os.environ["SOFTHSM2_CONF"] = before


def _compare(benchmark: BenchmarkFixture, operation: str, n: int, ours: Callable[[], object], raw: Callable[[], object]) -> None:
    """Our rate as a part of the raw rate: the median over rounds in which both take their turn, so that both meet the same noise."""
    ours_s: list[float] = []
    raw_s: list[float] = []
    for number in range(ROUNDS):
        turns = [(raw_s, raw), (ours_s, ours)]
        for times, call in turns if number % 2 else reversed(turns):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    ratio = statistics.median(raw_time / our_time for raw_time, our_time in zip(raw_s, ours_s, strict=True))
    benchmark.extra_info |= {
        "operation": operation,
        "batch": n,
        "ours_per_second": round(n / statistics.median(ours_s)),
        "raw_per_second": round(n / statistics.median(raw_s)),
        "ratio": round(ratio, 3),
    }
    print(dict(benchmark.extra_info))
    benchmark(ours)


@pytest.mark.parametrize("n", [4096, 32_768, 131_072])
@pytest.mark.parametrize("parity", ["none", "odd"])
def test_bulk_diversification(benchmark: BenchmarkFixture, token: TokenCustody, n: int, parity: str) -> None:
    factors = np.random.default_rng(1).integers(0, 256, (n, 8), np.uint8)
    blocks = np.concatenate([factors, ~factors], axis=1)
    out = np.empty_like(blocks)
    wanted = [Derivation("bulk", "pboc", "3des", (), "odd" if parity == "odd" else "none")]
    ecb = MechanismCall(Mechanism.DES3_ECB)

    def raw() -> None:
        def work(live: Live) -> int:
            handle = live.handle("bulk", objects.ident(1))
            return live.cryptoki.encrypt(live.session, handle, ecb, blocks.ctypes.data, blocks.nbytes, out.ctypes.data, out.nbytes)

        token.session.run(work)

    def ours() -> None:
        token.derive(wanted, [factors]).close()

    raw()
    with token.derive(wanted, [factors]) as made:
        assert np.array_equal(made.array[0] & 0xFE, out & 0xFE)
    _compare(benchmark, f"bulk diversification, parity {parity}", n, ours, raw)


def test_derive_check_and_wrap_in_the_token(benchmark: BenchmarkFixture, token: TokenCustody, tmp_path: Path) -> None:
    library = tmp_path / "raw.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, Path(__file__).parent / "raw_pkcs11.c"], check=True)
    raw_c = ctypes.CDLL(str(library)).raw_derive_wrap
    ulong, address = ctypes.c_ulong, ctypes.c_void_p
    raw_c.argtypes = (address, ulong, ulong, ulong, address, ulong, address, address)
    raw_c.restype = ulong
    functions = ctypes.c_void_p()
    ctypes.CDLL(str(MODULE)).C_GetFunctionList(ctypes.byref(functions))
    n = 2048
    factors = np.random.default_rng(2).integers(0, 256, (n, 8), np.uint8)
    blocks = np.concatenate([factors, ~factors], axis=1)
    wrapped, checks = np.empty((n, 24), np.uint8), np.empty((n, 8), np.uint8)
    cryptograms, kcvs = np.empty((1, n, 24), np.uint8), np.empty((1, n, 3), np.uint8)
    wanted = [Derivation("inside", "pboc", "3des", (), "odd")]

    def raw() -> None:
        def work(live: Live) -> int:
            base, kek = live.handle("inside", objects.ident(1)), live.handle("kek", objects.ident(1))
            return int(raw_c(functions, live.session, base, kek, blocks.ctypes.data, n, wrapped.ctypes.data, checks.ctypes.data))

        assert token.session.run(work) == 0

    def ours() -> None:
        token.derive_wrapped(wanted, [factors], ["kek"], "aes-kw", cryptograms, kcvs)

    raw()
    ours()
    assert np.array_equal(cryptograms[0], wrapped)
    assert np.array_equal(kcvs[0], checks[:, :3])
    _compare(benchmark, "derive, check and wrap in the token", n, ours, raw)


def test_sm4_in_the_sealed_custody(benchmark: BenchmarkFixture, token: TokenCustody, tmp_path: Path) -> None:
    n = 262_144
    factors = np.random.default_rng(3).integers(0, 256, (n, 8), np.uint8)
    master = np.frombuffer(TDES, np.uint8)
    wanted = [Derivation("sm4", "pboc", "sm4")]
    with SealedCustody.create(tmp_path, TokenSealer(token.session), test=True) as sealed:
        sealed.import_key(KeySpec("sm4", Domain.TRANSPORT, "sm4"), TDES, KeyPolicy(custody="sealed"))
        with sealed.derive(wanted, [factors]) as made:
            assert np.array_equal(made.array[0], cext.sm4_pboc(master, factors))

        def raw() -> None:
            # card keys belong in locked memory that is wiped: so does the kernel's yardstick
            with SecretArray.empty((n, 16)) as out:
                cext.sm4_pboc(master, factors, out=out.array)

        _compare(benchmark, "SM4, sealed", n, lambda: sealed.derive(wanted, [factors]).close(), raw)


@pytest.mark.timeout(900)
def test_demo_on_a_token(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """How much longer the same cards take with masters in a token: production and the whole demo, each the median over paired rounds."""
    cards, rounds = 600, 5
    orders = tmp_path / "orders.csv"
    orders.write_bytes(b"".join(order_file(cards)))
    seconds: dict[str, list[tuple[float, float]]] = {"software": [], "token": []}

    def demo(custody: Literal["software", "token"], name: str) -> None:
        made = run_demo(orders, 4, "zhengzhou-citizen-card", tmp_path / name, custody=custody, pcsc=False, quiet=True, time_limit=600)
        assert made["good"] == cards
        assert made["reconciled"]
        seconds[custody].append((made["production_seconds"], made["seconds"]))

    for number in range(rounds):
        turns: list[Literal["software", "token"]] = ["software", "token"]
        for custody in turns if number % 2 else reversed(turns):
            demo(custody, f"{custody}-{number}")
    pairs = list(zip(seconds["token"], seconds["software"], strict=True))
    production = statistics.median(token[0] / software[0] for token, software in pairs)
    whole = statistics.median(token[1] / software[1] for token, software in pairs)
    benchmark.extra_info |= {
        "operation": "demo on a token",
        "batch": cards,
        "token_seconds": statistics.median(token[0] for token, _ in pairs),
        "software_seconds": statistics.median(software[0] for _, software in pairs),
        "ratio": round(production, 3),
        "whole_ratio": round(whole, 3),
    }
    print(dict(benchmark.extra_info))
    benchmark.pedantic(demo, ("token", "last"), rounds=1, iterations=1)  # type: ignore[no-untyped-call]
