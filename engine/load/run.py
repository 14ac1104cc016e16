"""A whole load run against a running server: keys looked at, stock and jobs made, stations connected, windows measured, books closed."""

from __future__ import annotations

import asyncio
import math
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import grpc

from engine.load.chips import Recording
from engine.load.desk import JOB_ENDED, Desk
from engine.load.exposition import Change, Reading
from engine.load.gauge import Gauge, spread
from engine.load.head import Tally, Times
from engine.load.rehearsal import RehearsedChip
from engine.load.result import Books, LoadResult, Spread, Window
from engine.load.settings import Settings
from engine.load.station import Magazine, Station, all_failures
from engine.orders.synthetic import MOST_ROWS, order_file
from engine.profiles.model import load
from keys.errors import Precondition, Unavailable

Say = Callable[[str], None]

# A run that is as fast as it can be needs lines for as many cards a second as this.
MOST_PER_SECOND: Final = 400.0
INSTANT_SHARE: Final = 0.1
REHEARSAL_S: Final = 30.0
# So long without work at any head: there is none.
STARVED_S: Final = 2.0
# After the last line: how long cards in hand may take beyond their own cycle.
SETTLE_S: Final = 60.0
_NOT_STEADY: Final = "the lines were gone before every station had made its first card: start and end are in the figures"
_POLL_S: Final = 0.1
# A window of fewer cards says little about a 99th percentile.
FEW: Final = 200


async def drive(address: str, settings: Settings, say: Say = lambda _: None) -> LoadResult:
    """Runs the load. `say` is told in words what happens.

    Raises InvalidInput LOAD_INVALID, NotFound PROFILE_UNKNOWN, Denied PRODUCTION_KEYS, Unavailable (NO_KEYS, NOTHING_MADE, SERVER_GONE,
    STREAM_ENDED), Precondition NO_LINES, Corrupt (RECORDING_DIFFERS, COMMAND_MAC), Unsupported (LEVEL_NOT_RECORDED, NOT_RECORDED), and
    grpc.aio.AioRpcError for what the server refuses.
    """
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", 8 << 20)]) as channel:
        return await _Run(address, channel, settings.checked(), say).make()


def lines_for(settings: Settings) -> int:
    """Order lines a run by time can need at most: every head at its full speed for all of it, and a tenth more."""
    if settings.cards is not None:
        return settings.cards
    needed = 0.0
    for stations in settings.steps:
        heads = stations * settings.readers
        rate = min(heads / settings.cycle_s if settings.cycle_s else math.inf, MOST_PER_SECOND)
        needed += rate * ((settings.duration_s or 0.0) + 2 * settings.cycle_s + 2.0) + heads
    return int(needed * 1.1) + 10


class _Run:
    """One run, from an empty lot to closed books."""

    def __init__(self, address: str, channel: grpc.aio.Channel, settings: Settings, say: Say) -> None:
        self._address = address
        self._settings = settings
        self._say = say
        self._desk = Desk(channel)
        self._recording = Recording(load(settings.profile))
        self._gauge = Gauge()
        self._tally = Tally()
        # a lot of its own, and numbers that no chip of another run has
        self._lot = bytes([0xF0 | secrets.randbelow(16), secrets.randbelow(256)])
        self._numbers = secrets.randbits(31) << 32
        self._stations = [self._station(at) for at in range(settings.stations)]
        self._jobs: list[str] = []
        self._entering: list[asyncio.Task[None]] = []
        self._lines = 0
        self._busy_at = math.inf
        self._times = Times()

    def _station(self, at: int) -> Station:
        settings = self._settings
        each = self._blanks_each(lines_for(settings))
        magazine = Magazine(self._recording, self._lot, self._numbers + at * each, each)
        profile = self._recording.loaded.profile
        return Station(
            f"{settings.name}-{at + 1}", magazine, settings.readers, profile.chip.chip_type, profile.name, prints=settings.print_s > 0
        )

    def _blanks_each(self, lines: int) -> int:
        """Blanks for each feeder: stations pull, so one may draw more than its share, and torn cards take a blank each."""
        smallest = min(self._settings.steps)
        return math.ceil(1.5 * lines / (1.0 - self._settings.fail) / smallest) + 20 * self._settings.readers

    async def make(self) -> LoadResult:
        """The run."""
        settings = self._settings
        await self._desk.require_test_keys()
        issues = [(station.name, station.magazine.counted().issued) for station in self._stations]
        await self._desk.stock(self._lot.hex().upper(), self._recording.loaded.profile.chip.chip_type, issues)
        await self._submit()
        gauging = asyncio.create_task(self._gauge.run())
        try:
            await self._rehearse()
            windows = []
            for step in settings.steps:
                windows.append(await self._window(step))
                self._say(f"{step} stations: {windows[-1].cards_per_second:.1f} cards/s")
                if self._passed(windows):
                    break
            await self._settle()
        finally:
            gauging.cancel()
            for task in self._entering:
                task.cancel()
            await asyncio.gather(*self._entering, return_exceptions=True)
            await asyncio.gather(*(station.close() for station in self._stations))
        books = await self._close_books()
        return LoadResult(
            profile=settings.profile,
            protocol=self._recording.protocol,
            readers=settings.readers,
            chip_s=settings.chip_wait_s * settings.time_scale,
            print_s=settings.print_s,
            time_scale=settings.time_scale,
            windows=windows,
            books=books,
            p99_limit_s=settings.p99_limit_s,
            stopped_stations={station.name: station.stopped for station in self._stations if station.stopped},
        )

    # -- before --------------------------------------------------------------------------------------------------------

    async def _submit(self) -> None:
        settings = self._settings
        for instant, orders, name in await asyncio.to_thread(lambda: list(self._files())):
            job = await self._desk.submit(orders, profile=settings.profile, instant=instant, name=name)
            if not job.accepted:
                raise Precondition("NO_LINES", f"no line of {name} was accepted: see `citycard job rejects {job.job_id}`")
            self._jobs.append(job.job_id)
            self._lines += job.accepted
            self._say(f"job {job.job_id}: {job.accepted} lines, {'instant' if instant else 'bulk'}")
        for job_id in self._jobs:
            await self._desk.start(job_id)

    def _files(self) -> Iterator[tuple[bool, Iterable[bytes], str]]:
        """Order files: instant or not, their bytes, their name."""
        settings = self._settings
        if settings.orders is not None:
            yield settings.kind == "instant", _pieces(settings.orders), settings.orders.name
            return
        lines = lines_for(settings)
        first = secrets.randbelow(MOST_ROWS - lines)
        instant = {"bulk": 0, "instant": lines, "mixed": max(1, round(INSTANT_SHARE * lines))}[settings.kind]
        if lines - instant:
            yield False, list(order_file(lines - instant, first=first)), "load-bulk.csv"
        if instant:
            yield True, list(order_file(instant, first=first + lines - instant)), "load-instant.csv"

    async def _rehearse(self) -> None:
        """The first card: a true virtual chip, recorded; all others answer as it did."""
        station = self._stations[0]
        station.equip(self._times, self._tally, seed=0, fail=0.0)
        with tempfile.TemporaryDirectory(prefix="citycard-load-") as place:
            station.magazine.insert(lambda kdd: RehearsedChip(self._recording, kdd, Path(place)))
            await station.connect(self._address)
            head = station.heads[0]
            ended: list[str] = []

            def end(bin_name: str) -> None:
                ended.append(bin_name)
                head.stopping = True

            head.on_end = end
            head.begin(0.0)
            await self._until(lambda: bool(ended), REHEARSAL_S)
        if ended != ["good"]:
            end_text = f"ended in the {ended[0]} bin" if ended else "did not end"
            raise Unavailable("NOTHING_MADE", f"the first card, a true virtual chip, {end_text}: {await self._why()}")
        settings = self._settings
        self._times = Times(settings.chip_wait_s, settings.chip_spread, settings.print_wait_s, settings.pace_s, head.moved)

    async def _why(self) -> str:
        waiting = [(await self._desk.job(job_id)).waiting_for for job_id in self._jobs]
        return next((reason for reason in waiting if reason), "the server does not say why; its log may")

    async def _until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Waits; False when the time is over. Raises what went wrong at a station."""
        deadline = time.monotonic() + seconds
        while not done():
            failure = all_failures(self._stations)
            if failure is not None:
                raise failure
            for task in self._entering:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    # -- windows -------------------------------------------------------------------------------------------------------

    async def _window(self, step: int) -> Window:
        """Brings `step` stations to work, lets one cycle pass, and measures."""
        settings = self._settings
        fresh = self._stations[:step]
        new = [s for at, s in enumerate(fresh) if not s.connected or (at == 0 and s.heads[0].stopping)]
        for station in new:
            station.equip(self._times, self._tally, seed=settings.seed, fail=settings.fail)
        reading, began = await self._start()
        self._entering = [asyncio.create_task(self._enter(station, at, len(new))) for at, station in enumerate(new)]
        # heads begin spread over one cycle, and the first cycle of the last is over after two
        if await self._until(self._lines_over, 2 * settings.cycle_s or 0.5):
            await self._work_off()
            return await self._measured(step, began, reading, [_NOT_STEADY])
        doubts = []
        reading, began = await self._start()
        over = await self._until(self._lines_over, settings.duration_s or math.inf)
        if over and (settings.duration_s is not None or self._starved()):
            doubts.append("the stations ran out of work: the time without any is left out")
        return await self._measured(step, began, reading, doubts)

    async def _enter(self, station: Station, at: int, of: int) -> None:
        """Station `at` of `of` comes when its first head has something to do: one that is there without asking would pass for idle."""
        step = self._settings.cycle_s / of
        await asyncio.sleep(step * at)
        if not station.connected:
            await station.connect(self._address)
        for number, head in enumerate(station.heads):
            head.begin(step * number / len(station.heads))

    async def _start(self) -> tuple[Reading, float]:
        """A window begins: the server's metrics now, and when that was."""
        reading = Reading.of(await self._desk.metrics())
        self._reset()
        return reading, time.monotonic()

    def _lines_over(self) -> bool:
        """Whether every line is made or in a head, or all heads have long been asking in vain: another run's stations may make lines of
        this one, and a server may have stopped.
        """
        heads = [head for station in self._stations if station.connected for head in station.heads]
        busy = sum(not head.idle for head in heads)
        now = time.monotonic()
        if busy or not heads or not all(head.asked for head in heads):
            self._busy_at = now
        return self._made() + busy >= self._lines or self._starved()

    def _starved(self) -> bool:
        return time.monotonic() - self._busy_at > STARVED_S

    def _made(self) -> int:
        return sum(station.magazine.good for station in self._stations)

    def _passed(self, windows: list[Window]) -> bool:
        """Whether a ramp has seen enough: two steps in a row above the limit."""
        limit = self._settings.p99_limit_s
        return limit is not None and len(windows) > 1 and all((w.stream_p99_s or 0.0) > limit for w in windows[-2:])

    def _reset(self) -> None:
        self._tally = Tally()
        for station in self._stations:
            for head in station.heads:
                head.tally = self._tally
        self._gauge.start()

    async def _measured(self, step: int, began: float, reading: Reading, doubts: list[str]) -> Window:
        settings = self._settings
        seconds = (self._busy_at if self._starved() else time.monotonic()) - began
        tally, gauge = self._tally, self._gauge
        cpu, core, lag, own = gauge.cpu_s(), gauge.core_share(), gauge.lag(), gauge.doubts()
        good, streams, answers = tally.good, list(tally.streams), spread(tally.answers)
        change = Change(reading, Reading.of(await self._desk.metrics()))
        server_cpu, transitions = change.count("process_cpu_seconds_total"), change.count("citycard_ledger_transitions_total")
        if good < FEW:
            own = [*own, f"{good} cards are few for a 99th percentile"]
        rate = good / seconds
        return Window(
            stations=step,
            heads=step * settings.readers,
            connected=sum(station.connected for station in self._stations),
            seconds=seconds,
            good=good,
            scrapped=tally.scrapped,
            rejected=tally.rejected,
            cards_per_second=rate,
            cards_per_hour_and_station=3600.0 * rate / step,
            server_stream_s=_server(change, "citycard_segment_seconds"),
            station_stream_s=spread(streams),
            station_answer_s=answers,
            server_cpu_per_card_s=None if server_cpu is None or not good else server_cpu / good,
            server_core_share=None if server_cpu is None else server_cpu / seconds,
            server_memory_bytes=change.last("process_resident_memory_bytes"),
            server_lag_s=_server(change, "citycard_event_loop_lag_seconds"),
            ledger_transitions_per_second=None if transitions is None else transitions / seconds,
            ledger_commit_s=_server(change, "citycard_ledger_commit_seconds"),
            generator_cpu_per_card_s=cpu / good if good else 0.0,
            generator_core_share=core,
            lag_s=lag,
            streams=streams,
            doubts=[*doubts, *own],
        )

    # -- after ---------------------------------------------------------------------------------------------------------

    async def _work_off(self) -> None:
        """Waits until every line is made: torn cards are made again on other blanks. Says so when nothing moves any more."""
        made, moved = -1, time.monotonic()
        patience = SETTLE_S + 4 * self._settings.cycle_s
        while not await self._jobs_ended():
            if self._made() != made:
                made, moved = self._made(), time.monotonic()
            elif time.monotonic() - moved > patience:
                self._say(f"nothing moves any more: {await self._why()}")
                return
            await self._until(lambda: False, 0.3)

    async def _jobs_ended(self) -> bool:
        return all([(await self._desk.job(job_id)).state in JOB_ENDED for job_id in self._jobs])

    async def _settle(self) -> None:
        """Finishes what is in hand; lines that are left over are cancelled."""
        if self._settings.cards is not None:
            await self._work_off()
        heads = [head for station in self._stations for head in station.heads]
        for head in heads:
            head.stopping = True
        for job_id in self._jobs:
            if (await self._desk.job(job_id)).state not in JOB_ENDED:
                await self._desk.cancel(job_id)
        patience = SETTLE_S + 4 * self._settings.cycle_s
        if not await self._until(lambda: all(head.idle for head in heads), patience):
            self._say(f"{sum(not head.idle for head in heads)} cards are still in heads: the server does not end them")

    async def _close_books(self) -> Books:
        """Counts every station, and compares with the ledger."""
        counts = [station.magazine.counted() for station in self._stations]
        differences: list[str] = []
        for station, counted in zip(self._stations, counts, strict=True):
            differences += await self._desk.count(station.name, counted)
        jobs = [await self._desk.job(job_id) for job_id in self._jobs]
        return Books(
            jobs=self._jobs,
            job_states=[job.state for job in jobs],
            lines=self._lines,
            issued=sum(c.issued for c in counts),
            drawn=sum(c.drawn for c in counts),
            good=sum(c.good for c in counts),
            rejected=sum(c.reject for c in counts),
            returned=sum(c.returned for c in counts),
            left=sum(c.issued - c.drawn for c in counts),
            differences=differences,
        )


def _server(change: Change, name: str) -> Spread:
    return Spread(change.quantile(name, 0.5), change.quantile(name, 0.99), change.most(name))


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece
