"""A re-key gives every card exactly the keys that the custody derives, wrapped so that an outside line can open them; it can be stopped
anywhere and goes on; and it stops by itself when kernels and witness disagree.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from pyarrow import parquet

from engine.personalize.image import card_factors
from engine.profiles.compile import compile_profile
from engine.profiles.masters import master_specs
from engine.profiles.model import load
from engine.rekey import manifest
from engine.rekey.population import MadeUp
from engine.rekey.request import FileFormat, Request, build
from engine.rekey.run import WITNESS_CARDS, Outcome, Rekey
from keys.custody.software import KeySpec, SoftwareCustody, provision_test_keys
from keys.custody.wrapping import WrapScheme
from keys.errors import CitycardError, Conflict, Corrupt, Denied, InvalidInput, NotFound
from keys.hierarchy import Domain, Level, Purpose

COMPILED = compile_profile(load("zhengzhou-citizen-card"))
KEKS = {"3des": bytes.fromhex("0123456789ABCDEFFEDCBA9876543210"), "sm4": bytes(range(16)), "aes": bytes(range(16, 32))}
SOME = ["transport/*", "finance/*", "social-security/*/irk*"]


@pytest.fixture(scope="module")
def custody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareCustody]:
    with SoftwareCustody.create(tmp_path_factory.mktemp("store"), "rekey", test=True, scrypt_n=1024) as store:
        provision_test_keys(store, master_specs(COMPILED.loaded.profile))
        for algorithm, key in KEKS.items():
            spec = KeySpec(f"kek.{algorithm}", Domain.CITY, algorithm, Purpose.KEY_ENCRYPTION, Level.CITY)  # type: ignore[arg-type]
            store.import_key(spec, key)
        yield store


def request(
    custody: SoftwareCustody,
    cards: int = 1000,
    *,
    patterns: list[str] | None = None,
    scheme: WrapScheme = "aes-kw",
    file_format: FileFormat = "parquet",
    part_rows: int = 400,
) -> Request:
    return build(
        COMPILED,
        MadeUp(COMPILED.loaded.profile, cards),
        custody,
        patterns=SOME if patterns is None else patterns,
        scheme=scheme,
        file_format=file_format,
        keks=[],
        part_rows=part_rows,
    )


def run(wanted: Request, custody: SoftwareCustody, out: Path, progress: Callable[[int], None] = lambda _: None) -> Outcome:
    return Rekey(wanted, custody, out, test=True, workers=2, progress=progress).run()


def clear_keys(wanted: Request, custody: SoftwareCustody) -> dict[str, list[bytes]]:
    columns = wanted.population.columns(0, wanted.population.cards)
    factors = [np.ascontiguousarray(card_factors(key, columns)) for key in wanted.keys]
    with custody.derive(wanted.derivations, factors) as keys:
        return {key.label: [row.tobytes() for row in keys.array[at]] for at, key in enumerate(wanted.keys)}


def opened(scheme: str, algorithm: str, cryptogram: bytes) -> bytes:
    if scheme == "aes-kw":
        return aes_key_unwrap(KEKS["aes"], cryptogram)
    kek = KEKS[algorithm]
    cipher = SM4(kek) if algorithm == "sm4" else TripleDES(kek + kek[:8])
    mode = ECB() if scheme == "ecb" else CBC(bytes(16 if algorithm == "sm4" else 8))
    return Cipher(cipher, mode).decryptor().update(cryptogram)


def check_value(algorithm: str, key: bytes) -> bytes:
    cipher = SM4(key) if algorithm == "sm4" else TripleDES(key + key[:8])
    return Cipher(cipher, ECB()).encryptor().update(bytes(16 if algorithm == "sm4" else 8))[:3]


@pytest.mark.parametrize("scheme", ["aes-kw", "ecb", "cbc"])
def test_every_key_of_every_card_opens_to_what_the_custody_derives(scheme: WrapScheme, custody: SoftwareCustody, tmp_path: Path) -> None:
    wanted = request(custody, scheme=scheme)
    outcome = run(wanted, custody, tmp_path)
    table = parquet.read_table(sorted(tmp_path.glob("part-*.parquet")))
    assert table.column("card").to_pylist() == list(range(1000))
    assert "pan" not in table.column_names
    expected = clear_keys(wanted, custody)
    for key in wanted.keys:
        cryptograms = table.column(key.label).to_pylist()
        assert [opened(scheme, key.algorithm, item) for item in cryptograms] == expected[key.label], key.label
        kcvs = table.column(f"{key.label}.kcv").to_pylist()
        assert kcvs == [check_value(key.algorithm, item) for item in expected[key.label]], key.label
    assert outcome.made_keys == 1000 * len(wanted.keys)
    assert [part.cards for part in outcome.manifest.parts] == [400, 400, 200]
    assert all(part.witnessed == WITNESS_CARDS * len(wanted.keys) for part in outcome.manifest.parts)


def tunion_cards(octets: bytes) -> Iterator[tuple[int, dict[str, bytes]]]:
    """A reader of the T-Union layout of its own: every length is followed, none is assumed."""
    assert octets[8:12] == b"V01-"
    assert octets[12:27] == b"TUnionDPGCTYV01"
    total, count, at = int.from_bytes(octets[27:35], "big"), int.from_bytes(octets[35:39], "big"), 39
    names = []
    for _ in range(count):
        size = int.from_bytes(octets[at : at + 2], "big")
        names.append(octets[at + 2 : at + 2 + size].decode())
        at += 2 + size
    assert len(octets) - at == total
    while at < len(octets):
        number, size = int.from_bytes(octets[at : at + 4], "big"), int.from_bytes(octets[at + 4 : at + 6], "big")
        at, end = at + 6, at + 6 + size
        found = {}
        for name in names:
            assert octets[at] == 0x86
            size, at = octets[at + 1], at + 2
            if size & 0x80:
                size, at = int.from_bytes(octets[at : at + (size & 0x7F)], "big"), at + (size & 0x7F)
            dgi = octets[at : at + size]
            at += size
            assert "DGI" + dgi[:2].hex().upper() == name
            head = 3 if dgi[2] == len(dgi) - 3 else 4
            assert int.from_bytes(dgi[2:head], "big") == len(dgi) - head
            found[name] = dgi[head:]
        assert at == end
        yield number, found


def test_the_tunion_layout_read_back_by_a_reader_of_its_own(custody: SoftwareCustody, tmp_path: Path) -> None:
    wanted = request(custody, 500, patterns=[], scheme="ecb", file_format="tunion")
    outcome = run(wanted, custody, tmp_path)
    expected = clear_keys(wanted, custody)
    cards = [card for part in outcome.manifest.parts for card in tunion_cards((tmp_path / part.name).read_bytes())]
    assert [number for number, _ in cards] == [*range(1, 401), *range(1, 101)]
    sets = {"DGIB0A0": ("des", "3des", 285), "DGIB1A0": ("sm", "sm4", 285)}
    for row, (_, found) in enumerate(cards):
        for name, (keyset, algorithm, size) in sets.items():
            value = found[name]
            assert len(value) == size
            keys = [key for key in wanted.keys if (key.application, key.keyset) == ("transport", keyset)]
            for at, key in enumerate(keys):
                clear = opened("ecb", algorithm, value[19 * at : 19 * at + 16])
                assert clear == expected[key.label][row]
                assert value[19 * at + 16 : 19 * at + 19] == check_value(algorithm, clear)


def test_a_stopped_run_goes_on_and_damaged_parts_are_made_again(custody: SoftwareCustody, tmp_path: Path) -> None:
    wanted = request(custody)

    class Stop(Exception):
        pass

    def stop(_: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        run(wanted, custody, tmp_path, stop)
    assert not list(tmp_path.glob("*.new"))
    first = run(wanted, custody, tmp_path)
    again = run(wanted, custody, tmp_path)
    assert (again.made_keys, again.resumed_parts) == (0, 3)
    assert again.manifest == first.manifest
    victim = tmp_path / first.manifest.parts[1].name
    octets = bytearray(victim.read_bytes())
    octets[len(octets) // 2] ^= 1
    victim.write_bytes(octets)
    (tmp_path / first.manifest.parts[2].name).unlink()
    mended = run(wanted, custody, tmp_path)
    assert mended.resumed_parts == 1
    assert [part.sha256 for part in mended.manifest.parts] == [part.sha256 for part in first.manifest.parts]


def test_another_run_in_the_same_directory_is_refused(custody: SoftwareCustody, tmp_path: Path) -> None:
    run(request(custody, 100), custody, tmp_path)
    with pytest.raises(Conflict, match="cards differ"):
        run(request(custody, 101), custody, tmp_path)
    with pytest.raises(Conflict, match="wrap"):
        run(request(custody, 100, scheme="ecb"), custody, tmp_path)
    (tmp_path / manifest.NAME).write_text("{")
    with pytest.raises(Corrupt, match="damaged"):
        run(request(custody, 100), custody, tmp_path)


@pytest.mark.parametrize("flip", ["cryptogram", "kcv"])
def test_one_wrong_bit_of_a_kernel_stops_the_run(
    flip: str, custody: SoftwareCustody, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = SoftwareCustody.derive_wrapped

    def faulty(self: SoftwareCustody, derivations, factors, keks, scheme, cryptograms, kcvs) -> None:  # type: ignore[no-untyped-def]
        honest(self, derivations, factors, keks, scheme, cryptograms, kcvs)
        (cryptograms if flip == "cryptogram" else kcvs)[3, :, 2] ^= 4

    monkeypatch.setattr(SoftwareCustody, "derive_wrapped", faulty)
    with pytest.raises(Corrupt, match="disagree") as caught:
        run(request(custody), custody, tmp_path)
    assert caught.value.reason == "DERIVATION_WITNESS"
    assert not list(tmp_path.glob("part-*"))


def test_what_cannot_be_done_is_said_before_anything_is_made(custody: SoftwareCustody) -> None:
    def reason(error: type[CitycardError], **options: object) -> str:
        with pytest.raises(error) as caught:
            request(custody, **options)  # type: ignore[arg-type]
        return caught.value.reason

    assert reason(InvalidInput, patterns=["nothing/*"]) == "KEYS_NONE"
    assert reason(InvalidInput, file_format="tunion", patterns=[]) == "TUNION_WRAP"
    assert reason(InvalidInput, file_format="tunion", scheme="ecb", patterns=["finance/*"]) == "TUNION_KEYS"
    assert reason(InvalidInput, part_rows=0) == "PART_ROWS"


def test_only_a_key_encryption_key_wraps_and_it_derives_nothing(custody: SoftwareCustody, tmp_path: Path) -> None:
    wanted = request(custody, 10)
    out, kcvs = np.empty((1, 10, 24), np.uint8), np.empty((1, 10, 3), np.uint8)
    factors = [np.zeros((10, 8), np.uint8)]
    with pytest.raises(Denied) as denied:
        custody.derive_wrapped(wanted.derivations[:1], factors, [wanted.derivations[1].key_id], "aes-kw", out, kcvs)
    assert denied.value.reason == "KEY_PURPOSE"
    with pytest.raises(InvalidInput) as caught:
        custody.derive_wrapped(wanted.derivations[:1], factors, ["kek.sm4"], "aes-kw", out, kcvs)
    assert caught.value.reason == "KEK_ALGORITHM"
    with SoftwareCustody.create(tmp_path / "bare", "rekey", test=True, scrypt_n=1024) as bare:
        provision_test_keys(bare, master_specs(COMPILED.loaded.profile))
        with pytest.raises(NotFound, match="there is none"):
            request(bare)


def citycard(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "engine.cli.main", "keys", "rekey", *arguments]


def test_the_command_survives_being_killed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = citycard("--cards", "6000", "--part-cards", "500", "--workers", "1", "--out", str(out), "--json")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(out.glob("part-*.parquet"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    summary = json.loads(result.stdout)
    assert summary["parts_from_before"] >= 1
    assert (summary["cards"], len(summary["parts"]), summary["test_keys"]) == (6000, 12, True)
    table = parquet.read_table(sorted(out.glob("part-*.parquet")), columns=["card"])
    assert table.column("card").to_pylist() == list(range(6000))


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    def reason(*arguments: str) -> str:
        result = subprocess.run(citycard(*arguments, "--json"), capture_output=True, text=True, check=False)
        assert result.returncode in (1, 2)
        return str(json.loads(result.stdout)["error"]["reason"])

    assert reason("--out", str(tmp_path)) == "POPULATION_MISSING"
    assert reason("--out", str(tmp_path), "--cards", "5", "--wrap", "rot13") == "WRAP_UNKNOWN"
    assert reason("--out", str(tmp_path), "--cards", "5", "--format", "xls") == "FORMAT_UNKNOWN"
    assert reason("--out", str(tmp_path), "--cards", "5", "--profile", "atlantis") == "PROFILE_UNKNOWN"
    assert reason("--out", str(tmp_path), "--cards", "0") == "USAGE"
    (tmp_path / "file").write_text("x")
    assert reason("--out", str(tmp_path / "file" / "below"), "--cards", "5") in ("FILE_ERROR", "FILE_WRITE")
