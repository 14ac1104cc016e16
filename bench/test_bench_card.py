"""One card's work in the engine by phase, one core, no wire and no ledger: CPU from a chip's first answer to the last proof.

    python -m pytest bench/test_bench_card.py --benchmark-only

`extra_info` states the median CPU microseconds of each phase beside CPU, the kernels' level and the commit. The chip answers in this
process too, outside of what is measured.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.test_bench_personalize import SERIALS, facts, order
from engine.personalize.segment import Segment, to_slab
from engine.production.card import CardInMaking, lease_commands
from engine.production.context import attempt_columns
from engine.profiles.compile import CompiledProfile, compile_profile
from engine.profiles.masters import master_specs
from engine.profiles.model import load
from engine.virtual.birth import TEST_KMC
from engine.virtual.factory import make_blank
from keys.custody import Custody
from keys.custody.software import SoftwareCustody, provision_test_keys

PROFILES = ("zhengzhou-citizen-card", "zhengzhou-citizen-card-scp02")
CARDS = 60


class Phases:
    """CPU nanoseconds of each phase, a figure a card."""

    def __init__(self) -> None:
        self.taken: dict[str, list[int]] = defaultdict(list)
        self._card: dict[str, int] = defaultdict(int)

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        start = time.thread_time_ns()
        yield
        self._card[name] += time.thread_time_ns() - start

    def card_done(self) -> None:
        for name, taken in self._card.items():
            self.taken[name].append(taken)
        self.taken["card"].append(sum(self._card.values()))
        self._card.clear()

    def medians(self) -> dict[str, float]:
        """Microseconds."""
        return {name: round(median(taken) / 1000, 1) for name, taken in self.taken.items()}


def make(compiled: CompiledProfile, custody: Custody, directory: Path, phases: Phases) -> None:
    """One card from INITIALIZE UPDATE to the end of its proofs."""
    profile = compiled.loaded.profile
    chip = make_blank(directory, lot=b"\x0a\x01", serial=os.urandom(8), chip_type=profile.chip.chip_type.encode())
    chip.power_on()
    challenge = os.urandom(8)
    response = [chip.transmit(command) for command in lease_commands(compiled, challenge)][-1][:-2]
    columns = attempt_columns(profile, order(1), SERIALS, 0, response[2:10])

    def play(segment: Segment) -> bytes:
        return to_slab([chip.transmit(command) for command in segment.commands])

    with phases.of("open"):
        card = CardInMaking(compiled, custody, 1)
        card.open(challenge, response)
    with phases.of("prepare"):
        card.prepare(columns)
    with phases.of("personalization"):
        segment = card.personalization()
    slab = play(segment)
    with phases.of("accept"):
        card.accept_personalization(slab)
    with phases.of("first proof"):
        proof: Segment | None = card.first_proof(slab)
    while proof is not None:
        slab = play(proof)
        with phases.of("proofs"):
            proof = card.next_proof(slab)
    with phases.of("close"):
        card.close()
    phases.card_done()


@pytest.mark.parametrize("name", PROFILES)
def test_one_card(benchmark: BenchmarkFixture, tmp_path: Path, name: str) -> None:
    compiled = compile_profile(load(name))
    phases, numbers = Phases(), iter(range(1 << 20))
    with SoftwareCustody.create(tmp_path / "custody", "bench", test=True, scrypt_n=1024) as custody:
        specs = {spec.key_id: spec for spec in master_specs(compiled.loaded.profile)}
        for key_id in [key_id for key_id in specs if key_id.startswith("maker.kmc")]:
            custody.import_key(specs.pop(key_id), TEST_KMC, origin="TEST maker key")
        provision_test_keys(custody, specs.values())

        def work() -> None:
            make(compiled, custody, tmp_path / f"chip-{next(numbers)}", phases)

        work()
        phases.taken.clear()
        for _ in range(CARDS):
            work()
        benchmark(work)
    taken = phases.medians()
    benchmark.extra_info |= facts() | {"profile": name, "keys_per_card": len(compiled.keys), "cpu_us": taken}
    assert set(taken) == {"open", "prepare", "personalization", "accept", "first proof", "proofs", "close", "card"}
