"""The ledger alone: what the transitions of one good card cost in CPU and in time, with every commit's fsync, in groups of 1, 8 and 64.

A group is what several stations have waiting when the writer comes to it; one commit makes all of it durable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from engine.ledger import attempts, jobs, lines, serials
from engine.ledger.attempts import Attempt
from engine.ledger.serials import SerialAllocator
from engine.ledger.store import Ledger
from engine.ledger.tx import Tx

JOB = "BENCH"
PROFILE_HASH = "AB" * 32
POOLS = ("city", "transport")
CARDS = 512
ROUNDS = 5
STATIONS = 200

Step = Callable[[Tx], Any]


def running_job(ledger: Ledger, count: int) -> None:
    """A job of `count` ready lines, each with a sealed record of a usual size."""

    def make(tx: Tx) -> None:
        jobs.create(
            tx,
            job_id=JOB,
            idempotency_key=JOB,
            profile="bench",
            profile_hash=PROFILE_HASH,
            priority=5,
            kind="bulk",
            due_us=None,
            submitted_by="bench",
            pii_key_wrapped=bytes(60),
            options={},
        )
        lines.add_batch(tx, JOB, [(n, b"%016d" % n, b"%016d" % n, bytes(700)) for n in range(1, count + 1)])
        for state in ("READY", "RUNNING"):
            jobs.set_state(tx, JOB, state)
        for pool in POOLS:
            serials.define_pool(tx, pool, 1, 1 << 40)

    ledger.run(make)


def card(ledger: Ledger, numbers: SerialAllocator, line: int) -> Generator[Step, Any, None]:
    """The six transactions of one good card as the line makes them, and what it reads between them."""
    reserved: Attempt = yield lambda tx: attempts.reserve(tx, JOB, line, f"S{line % STATIONS}", 60_000_000, bytes(8))
    token, chip, response = reserved.token, f"{line:020X}", bytes(29)
    psn = ledger.read(lambda conn: (lines.get_blob(conn, JOB, line), attempts.chip_tries(conn, chip), attempts.psn_for(conn, JOB, line)))[2]
    drawn = numbers.draw_each(*POOLS)

    def begin(tx: Tx) -> None:
        if not attempts.chip_seen(tx, chip, reserved.station_id).usable:
            raise RuntimeError("the chip is not fresh")
        attempts.present(tx, token, chip_id=chip, atr=bytes(20), cplc=bytes(42), initialize_update_response=response)
        attempts.intent(
            tx,
            token,
            chip_id=chip,
            host_challenge=reserved.host_challenge,
            initialize_update_response=response,
            kvn=1,
            profile_hash=PROFILE_HASH,
            image_digest=bytes(32),
            serials=drawn,
            psn=psn,
            max_chip_us=120_000_000,
        )

    def finish(tx: Tx) -> None:
        attempts.printed(tx, token)
        attempts.good(tx, token)

    yield begin
    yield lambda tx: attempts.encoded(tx, token)
    yield lambda tx: attempts.verified(tx, token, {"kcv-only": 136, "proven-by-use": 19, "sample-due": 2})
    yield finish
    yield lambda tx: attempts.stacked(tx, token, "good")


def make_cards(ledger: Ledger, numbers: SerialAllocator, first: int, count: int, group: int) -> None:
    """`count` cards in groups that go through their steps together."""
    for start in range(first, first + count, group):
        under_way = [card(ledger, numbers, line) for line in range(start, start + group)]
        answers: list[Any] = [None] * group
        while under_way:
            try:
                waiting = [ledger.transact(one.send(answer)) for one, answer in zip(under_way, answers, strict=True)]
            except StopIteration:
                break
            answers = [future.result() for future in waiting]


@pytest.mark.parametrize("group", [1, 8, 64])
def test_transitions_of_a_good_card(benchmark: Any, tmp_path: Path, group: int) -> None:
    """CPU milliseconds per card, of all threads with the kernel's part, and commits per second with fsync."""
    commits: list[tuple[int, float]] = []
    spent: list[float] = []
    first = 1
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        running_job(ledger, (ROUNDS + 1) * CARDS)
        numbers = SerialAllocator(ledger)
        ledger.watch(lambda transitions, seconds: commits.append((transitions, seconds)))

        def make() -> None:
            nonlocal first
            began = time.process_time()
            make_cards(ledger, numbers, first, CARDS, group)
            spent.append(time.process_time() - began)
            first += CARDS

        benchmark.pedantic(make, rounds=ROUNDS, iterations=1, warmup_rounds=1)
        counts = ledger.read(lambda conn: jobs.counts(conn, JOB))
    seconds = sorted(seconds for _transitions, seconds in commits)
    benchmark.extra_info |= {
        "batch": group,
        "cpu_ms_per_card": round(min(spent) / CARDS * 1000, 3),
        "transactions_per_second": round(6 * CARDS / benchmark.stats["min"]),
        "commits_per_second": round(len(seconds) / sum(seconds)),
        "commit_p50_ms": round(seconds[len(seconds) // 2] * 1000, 3),
        "commit_p99_ms": round(seconds[len(seconds) * 99 // 100] * 1000, 3),
    }
    assert counts.attempts == {attempts.AttemptState.STACKED: (ROUNDS + 1) * CARDS}
