"""Who the breaker finds guilty: the one suspect that explains the failures, and nobody where nothing does."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dispatch.breaker import UNSURE, Breaker, Verdict
from engine.dispatch.evidence import EVERYTHING, Evidence, Kind, Seen, Suspect


def cards(
    number: int, fails: Callable[[Seen], str | None], *, stations: int = 4, readers: int = 2, lots: int = 3, jobs: int = 3, seed: int = 7
) -> Iterator[Seen]:
    """Cards on all readers in turn, lots and jobs well mixed."""
    draw = random.Random(seed)
    for at in range(number):
        place = at % (stations * readers)
        seen = Seen(
            f"station-{place // readers + 1}",
            f"{place % readers + 1}",
            f"0A1{draw.randrange(lots)}",
            f"J{draw.randrange(jobs)}",
            f"profile-{draw.randrange(2)}",
        )
        yield seen._replace(failure=fails(seen))


def first_verdict(breaker: Breaker, seen: Iterator[Seen]) -> Verdict | None:
    return next((verdict for one in seen if (verdict := breaker.note(one)) is not None), None)


def fail(word: str, **where: str) -> Callable[[Seen], str | None]:
    return lambda seen: word if all(getattr(seen, name) == value for name, value in where.items()) else None


def test_a_bad_reader_is_told_from_its_station():
    verdict = first_verdict(Breaker(), cards(200, fail("torn", station="station-3", reader="2")))
    assert verdict == Verdict(
        Kind.STATION,
        "station-3",
        "reader",
        "reader 2 of station-3: 5 of 5 cards failed (torn), the station's other readers 0 of 5: "
        "clean or replace the reader, then reset the station",
    )


def test_a_bad_station_is_told_from_its_readers_and_from_other_stations():
    verdict = first_verdict(Breaker(), cards(200, fail("print-failed", station="station-2")))
    assert (verdict.kind, verdict.name, verdict.cause) == (Kind.STATION, "station-2", "station")
    assert "other stations 0 of" in verdict.words


def test_with_one_reader_the_station_is_named():
    verdict = first_verdict(Breaker(), cards(200, fail("torn", station="station-2"), readers=1))
    assert (verdict.name, verdict.cause) == ("station-2", "station")


def test_a_bad_lot_is_found_across_stations_and_stops_no_station():
    breaker = Breaker()
    verdict = first_verdict(breaker, cards(200, fail("card-cryptogram", lot="0A11")))
    assert (verdict.kind, verdict.name, verdict.cause) == (Kind.LOT, "0A11", "lot")
    assert "other lots 0 of" in verdict.words
    assert verdict.words.endswith("quarantine the lot; wrong maker keys?")
    assert breaker.stopped_lots() == {"0A11": verdict.words}
    # what was in heads of it meanwhile speaks against nobody else
    for at in range(40):
        assert breaker.note(Seen("station-1", "1", "0A11", "J1", "p", "card-cryptogram")) is None, at
    assert breaker.stopped("station-1") is None
    assert breaker.reset_lot("0A11")
    assert not breaker.reset_lot("0A11")
    assert breaker.stopped_lots() == {}


def test_a_bad_job_is_found_across_lots_and_stations():
    verdict = first_verdict(Breaker(), cards(200, fail("verify-failed", job="J2")))
    assert (verdict.kind, verdict.name, verdict.cause) == (Kind.JOB, "J2", "job")
    assert "look at the job's data and keys" in verdict.words


def test_everything_at_once_is_the_keys_or_the_server():
    breaker = Breaker()
    # good cards of before, so that it is not the only thing ever seen
    assert first_verdict(breaker, cards(80, lambda _: None)) is None
    verdict = first_verdict(breaker, cards(200, lambda _: "torn", seed=8))
    assert verdict.kind is Kind.JOB
    assert "the keys or the server" in verdict.words
    assert "10 of 20 cards failed" in verdict.words
    assert not any(breaker.stopped(f"station-{number}") for number in range(1, 5))


def test_what_cannot_be_told_apart_is_named_together_and_a_pause_covers_it():
    verdict = first_verdict(Breaker(), cards(200, lambda _: "torn", lots=1, jobs=1))
    assert (verdict.kind, verdict.name, verdict.cause) == (Kind.JOB, "J0", UNSURE)
    assert "lot 0A10 or job J0 or the keys or the server" in verdict.words.replace("profile ", "")


def test_one_station_alone_cannot_tell_and_stops_as_ever():
    breaker = Breaker(3)
    seen = Seen("S", "1", "0A01", "J1", "p")
    for kind in ("torn", "chip-no-answer"):
        assert breaker.note(seen._replace(failure=kind)) is None
    assert breaker.note(seen) is None
    for kind in ("torn", "torn"):
        assert breaker.note(seen._replace(failure=kind)) is None
    verdict = breaker.note(seen._replace(failure="refused"))
    assert (verdict.kind, verdict.cause, verdict.words) == (Kind.STATION, UNSURE, breaker.stopped("S"))
    assert verdict.words.startswith("3 cards in a row failed (2 x torn, 1 x refused): mend the cause, then reset the station")
    assert breaker.note(seen._replace(failure="torn")) is None
    assert breaker.stopped("S") == verdict.words
    assert breaker.counts("S") == {"torn": 4, "chip-no-answer": 1, "refused": 1}
    assert (breaker.stopped("T"), breaker.counts("T")) == (None, {})
    breaker.note(seen)
    assert breaker.stopped("S") == verdict.words
    breaker.reset("S")
    assert breaker.stopped("S") is None
    assert breaker.note(seen._replace(failure="torn")) is None


def test_a_feeder_full_of_a_stopped_lot_stops_its_station():
    breaker = Breaker(3)
    breaker.stop_lot("0A01", "bad")
    assert [breaker.lot_refused("S", "0A01") for _ in range(2)] == [None, None]
    breaker.note(Seen("S"))
    assert [breaker.lot_refused("S", "0A01") for _ in range(2)] == [None, None]
    verdict = breaker.lot_refused("S", "0A01")
    assert (verdict.kind, verdict.name, verdict.cause) == (Kind.STATION, "S", "lot")
    assert "blanks of lot 0A01, which is stopped" in breaker.stopped("S")


def test_rare_failures_here_and_there_are_nobodys():
    """A hundred thousand cards of 200 stations of which one in fifty fails for no reason: nothing is ever stopped."""
    draw = random.Random(1)
    breaker = Breaker()
    for _ in range(100_000):
        seen = Seen(f"S{draw.randrange(200)}", f"{draw.randrange(2)}", f"L{draw.randrange(5)}", f"J{draw.randrange(5)}", "p")
        assert breaker.note(seen._replace(failure="torn" if draw.random() < 0.02 else None)) is None


@pytest.mark.parametrize("noise", range(5))
def test_a_bad_lot_is_found_among_other_failures(noise: int):
    draw = random.Random(noise)
    breaker, verdicts = Breaker(), []
    for seen in cards(2000, lambda _: None, stations=20):
        bad = seen.lot == "0A12" and draw.random() < 0.7
        if seen.lot not in breaker.stopped_lots():
            verdicts.append(breaker.note(seen._replace(failure="card-cryptogram" if bad else "torn" if draw.random() < 0.02 else None)))
    assert [one.name for one in verdicts if one is not None] == ["0A12"]


# ---- evidence

MEMORY = 10
_seen = st.builds(
    Seen, st.sampled_from("ST"), st.sampled_from(["", "1", "2"]), st.sampled_from(["", "A", "B"]), st.sampled_from("JK"),
    st.just("p"), st.sampled_from([None, None, "torn", "refused"]),
)  # fmt: skip


@given(st.lists(_seen, max_size=80), st.lists(st.integers(0, 79), max_size=4))
def test_tallies_are_those_of_the_last_cards_of_every_reader(seen: list[Seen], forgotten: list[int]):
    evidence, kept = Evidence(MEMORY), list[Seen]()
    for at, one in enumerate(seen):
        evidence.add(one, one.suspects())
        same = [other for other in kept if (other.station, other.reader) == (one.station, one.reader)]
        if len(same) == MEMORY:
            kept.remove(same[0])
        kept.append(one)
        if at in forgotten:
            suspect = Suspect(Kind.LOT, "A")
            evidence.forget(suspect)
            kept = [other for other in kept if suspect not in other.suspects()]
    for suspect in {suspect for one in seen for suspect in one.suspects()}:
        cards_of = [one for one in kept if suspect in one.suspects()]
        assert evidence.cards(suspect) == len(cards_of)
        assert evidence.failed(suspect, ("torn",)) == sum(one.failure == "torn" for one in cards_of)
    if kept and kept[-1].failure:
        findings = evidence.judge(kept[-1].suspects(), (kept[-1].failure,))
        assert [one.probability for one in findings] == sorted((one.probability for one in findings), reverse=True)
        assert 0 <= sum(one.probability for one in findings) < 1
        of_all = next(one for one in findings if one.suspect == EVERYTHING)
        assert (of_all.others, of_all.failed) == (0, sum(one.failure == kept[-1].failure for one in kept))


def test_cards_of_a_reader_beyond_memory_are_forgotten():
    evidence = Evidence(MEMORY)
    for number in range(1000):
        seen = Seen("S", "1", f"{number:04X}", "J", "p", "torn")
        evidence.add(seen, seen.suspects())
    assert evidence.cards(EVERYTHING) == MEMORY
    assert evidence.cards(Suspect(Kind.LOT, "0000")) == 0
    assert evidence.number(Kind.LOT, EVERYTHING) == MEMORY
    assert len(evidence._tallies) == MEMORY + 5
