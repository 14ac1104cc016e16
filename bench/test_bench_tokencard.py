"""A card whose keys never leave the token, beside the same card with its keys in the host; SoftHSM, one station's worth of work.

    python -m pytest bench/test_bench_tokencard.py -s

What is timed is the host's work from the chip's answer to the end of the proof; the virtual chip's own time is not. `calls` are those of
the PKCS#11 interface for one card.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.test_bench_personalize import SERIALS, facts, order
from engine.personalize.segment import to_slab
from engine.production.card import CardInMaking, lease_commands
from engine.production.context import attempt_columns
from engine.production.tokencard import TokenCard, card_in_making
from engine.profiles.compile import compile_profile
from engine.profiles.masters import master_specs
from engine.profiles.model import load
from engine.virtual.birth import TEST_KMC
from engine.virtual.chip import VirtualChip
from engine.virtual.factory import make_blank
from keys.custody import Custody
from keys.custody.policy import KeyPolicy
from keys.custody.software import SoftwareCustody
from keys.custody.token import TokenConfig, TokenCustody, initialize
from keys.custody.token.cryptoki import Cryptoki
from keys.secrets import SecretBytes

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PROFILE = load(str(Path(__file__).parent.parent / "tests" / "custody" / "token_only_card.toml"))
COMPILED = compile_profile(PROFILE)
ROUNDS = 15
# Calls of the interface behind each method of `Cryptoki`.
CALLS = {"encrypt": 2, "decrypt": 2, "sign": 2, "derive": 1, "wrap": 1, "destroy": 1, "read": 1, "create": 1}


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenCustody]:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\nobjectstore.backend = file\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    config = TokenConfig(MODULE, "bench")
    initialize(config, SecretBytes(b"12345678"), SecretBytes(b"123456"))
    with TokenCustody.create(config, SecretBytes(b"123456"), test=True) as custody:
        for spec in dict.fromkeys(master_specs(PROFILE.profile)):
            policy = KeyPolicy(custody="token-only")
            if spec.key_id == PROFILE.profile.channel.transport.master:
                custody.import_key(spec, TEST_KMC, policy)
            else:
                custody.generate(spec, policy)
        yield custody


@pytest.fixture
def software(tmp_path: Path) -> Iterator[SoftwareCustody]:
    with SoftwareCustody.create(tmp_path / "software", "bench", test=True, scrypt_n=1024) as custody:
        for spec in dict.fromkeys(master_specs(PROFILE.profile)):
            if spec.key_id == PROFILE.profile.channel.transport.master:
                custody.import_key(spec, TEST_KMC)
            else:
                custody.generate(spec)
        yield custody


def make(custody: Custody, directory: Path) -> float:
    """One card made and proven; seconds of the host."""
    chip = make_blank(directory, lot=b"\x0a\x01", serial=os.urandom(8))
    chip.power_on()
    challenge = os.urandom(8)
    response = [chip.transmit(command) for command in lease_commands(COMPILED, challenge)][-1][:-2]
    card = card_in_making(COMPILED, custody, 1)
    seconds = 0.0

    def timed(work: Callable[[], object]) -> None:
        nonlocal seconds
        start = time.perf_counter()
        work()
        seconds += time.perf_counter() - start

    timed(lambda: _prepare(card, challenge, response))
    slab = _played(chip, card)
    timed(lambda: card.accept_personalization(slab))
    timed(lambda: card.first_proof(slab))
    last = card.sequence - 1
    while card.sequence > last:
        last = card.sequence
        answers = _played(chip, card)
        timed(lambda answers=answers: card.next_proof(answers))  # type: ignore[misc] # bound where it is made
    timed(card.close)
    return seconds


def _prepare(card: CardInMaking, challenge: bytes, response: bytes) -> None:
    identity = card.open(challenge, response)
    card.prepare(attempt_columns(PROFILE.profile, order(1), SERIALS, 0, identity.serial))
    card.personalization()


def _played(chip: VirtualChip, card: CardInMaking) -> bytes:
    segment = card.segment
    return to_slab([chip.transmit(command) for command in segment.commands] if segment is not None else [])


def calls_of_a_card(custody: TokenCustody, directory: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    counted: Counter[str] = Counter()
    with monkeypatch.context() as patch:
        for name, cost in CALLS.items():
            patch.setattr(Cryptoki, name, _counting(getattr(Cryptoki, name), counted, name, cost))
        make(custody, directory)
    return dict(counted)


def _counting(right: Callable[..., object], counted: Counter[str], name: str, cost: int) -> Callable[..., object]:
    def call(*arguments: object) -> object:
        counted[name] += cost
        return right(*arguments)

    return call


def test_a_card_made_in_the_token(
    benchmark: BenchmarkFixture, token: TokenCustody, software: SoftwareCustody, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chips = tmp_path / "chips"
    assert isinstance(card_in_making(COMPILED, token, 1), TokenCard)
    for custody in (token, software):
        make(custody, chips)  # keys between masters and cards
    calls = calls_of_a_card(token, chips, monkeypatch)
    times = [(make(token, chips), make(software, chips)) for _ in range(ROUNDS)]
    inside, host = (statistics.median(column) for column in zip(*times, strict=True))
    benchmark.extra_info |= facts() | {
        "batch": 1,
        "keys_per_card": len(COMPILED.keys),
        "calls_per_card": sum(calls.values()),
        "calls": calls,
        "ms_in_token": round(1000 * inside, 2),
        "ms_in_host": round(1000 * host, 2),
        "cards_per_second_in_token": round(1 / inside, 1),
        "ratio": round(inside / host, 1),
    }
    print(dict(benchmark.extra_info))
    benchmark(make, token, chips)
