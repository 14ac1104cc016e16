"""The line: leases lines to stations, walks each card through its states, and lets a card be good only after every proof.

Every step is in the ledger before the next message leaves. Whatever goes wrong after INTENT ends as scrap with a reason; before it, the
blank goes back or is rejected. The class holds what is under way; what is true is in the ledger, and a restarted server finds it there.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Final

import structlog

from engine.dispatch.dispatcher import ALL_BUSY, Assignment, Dispatcher, StationInfo
from engine.ledger import attempts, jobs
from engine.ledger.attempts import Attempt
from engine.ledger.events import Gone
from engine.ledger.states import BEFORE_INTENT, JOB_ENDED, ScrapReason
from engine.ledger.timings import Timings
from engine.ledger.timings import record as record_timings
from engine.ledger.tx import Tx
from engine.production.card import lease_commands
from engine.production.cardroom import CardRoom
from engine.production.context import Context
from engine.production.judging import Judging
from engine.production.keygate import OUT_OF_REACH, KeyGate, keys_to_blame
from engine.production.leasing import Leasing
from engine.production.metrics import Metrics
from engine.production.outcomes import Outcomes
from engine.production.settlement import Settlement
from engine.production.stationlink import Link, Run, StationHello, no_blank, station_view
from engine.production.stationlog import StationLog
from keys.errors import CitycardError, Conflict, Corrupt, Denied, NotFound, Precondition

log = structlog.get_logger("line")

IDLE_S: Final = 1.0
# How long a step of a card may wait for others to share its commit, and how many cards there must be for others to come along.
STEP_S: Final = 0.02
CROWD: Final = 32
# How long a write that nobody waits for may wait for others to share its commit.
STACKED_S: Final = 0.05


class Line:
    """All stations, all cards under way."""

    def __init__(self, context: Context, dispatcher: Dispatcher, metrics: Metrics) -> None:
        self._context = context
        self._ledger = context.ledger
        self._dispatch = dispatcher
        self._links: dict[str, tuple[Link, StationHello]] = {}
        self._station_log = StationLog(self._ledger)
        links = self._links
        self._outcomes = Outcomes(
            dispatcher, lambda name: links[name][0] if name in links else None, metrics, self._station_log, self._ledger, self.job_stopped
        )
        self._runs: dict[int, Run] = {}
        self._leasing = Leasing(context, dispatcher)
        self._cards = CardRoom(context)
        self.keys = KeyGate(context.custody)
        self.judging = Judging(self, self._ledger, self._outcomes)
        self._settlement = Settlement(self, context, self._cards)
        self.draining = False
        self._moved = 0.0  # when a station last asked for work
        # Why no new card may be begun, in plain words; empty while all is well. Cards in hand go on as far as they can.
        self.trouble = ""

    # -- jobs ----------------------------------------------------------------------------------------------------------

    async def job_running(self, job: jobs.JobRow) -> None:
        """A job may be worked on from now on: started, resumed, a line given back, the server restarted. Precondition PROFILE_CHANGED."""
        self._leasing.open(job)
        await self.pump()

    async def job_stopped(self, job_id: str, released: Sequence[Attempt], *, gone: bool) -> None:
        """No new cards: paused, or gone for good. The ledger has released what had not reached INTENT; those blanks go back.

        One whose INTENT is being prepared right now is refused it, and goes back from there. The others run to their end.
        """
        if gone:
            self._leasing.close(job_id)
        else:
            self._leasing.pause(job_id)
        for attempt in released:
            run = self._runs.get(attempt.token)
            if run is not None and not run.lock.locked():
                run.over = True
                self._give_back(run)
                self._eject(run, attempt.token, "returned", "the job was stopped")

    async def pump(self) -> None:
        """Hands out whatever can be handed out now."""
        if self.draining or self.trouble:
            return
        assignments = await self._leasing.assign()
        # reserved side by side: the ledger makes one commit of all that wait
        if len(assignments) == 1:
            await self._lease(assignments[0])
        elif assignments:
            await asyncio.gather(*(self._lease(a) for a in assignments))

    async def _lease(self, assignment: Assignment) -> None:
        reserved = await self._leasing.reserve(assignment, self.patience_s())
        held = self._links.get(assignment.station_id)
        if reserved is None:
            if held is not None:
                self._dispatch.credit(assignment.station_id, 1)
            return
        attempt, name = reserved
        run = Run(attempt, name, assignment.station_id, timings=None if held is None else Timings(transport=held[1].transport))
        if held is None:
            await self.release(run, attempt.token, "station-gone")
            return
        self._runs[attempt.token] = run
        compiled = self._context.compiled_for(name, 19)
        lease_ms = compiled.loaded.profile.chip.lease_s * 1000
        held[0].lease(attempt.token, lease_commands(compiled, attempt.host_challenge), lease_ms)

    # -- stations ------------------------------------------------------------------------------------------------------

    async def connected(self, link: Link, hello: StationHello) -> None:
        """A station's stream began. Settles every attempt the ledger has open there before anything new is leased."""
        if hello.station_id in self._links:
            raise Precondition("STATION_TWICE", f"station {hello.station_id} is already connected; two of one name cannot work")
        self._links[hello.station_id] = (link, hello)
        self._dispatch.station_on(StationInfo(hello.station_id, frozenset(hello.profiles), frozenset(hello.chip_types), hello.heads))
        found = {piece.token: piece for piece in hello.found if piece.token}
        for attempt in await self._ledger.aread(lambda conn: attempts.open_attempts(conn, hello.station_id)):
            await self._settlement.settle(link, attempt, found.pop(attempt.token, None))
        for piece in hello.found:
            if piece.token == 0 or piece.token in found:
                await self._settlement.unknown_piece(link, piece)
        self._station_log.connected(hello)
        log.info("station connected", station=hello.station_id, heads=hello.heads, transport=hello.transport, found=len(hello.found))

    async def disconnected(self, station_id: str, link: Link) -> None:
        """The stream ended. Cards past INTENT stay held until the station comes back or their time is over."""
        held = self._links.get(station_id)
        if held is None or held[0] is not link:
            return
        del self._links[station_id]
        self._dispatch.station_off(station_id)
        for token, run in list(self._runs.items()):
            if run.station_id == station_id:
                self._forget(token)
        self._station_log.disconnected(station_id, Gone.SERVER if self.draining else Gone.LEFT if link.left else Gone.LOST)
        log.info("station disconnected", station=station_id)

    async def credit(self, station_id: str, count: int) -> None:
        """The station can take more cards."""
        self._moved = time.monotonic()
        self._dispatch.credit(station_id, count)
        await self.pump()

    # -- one card ------------------------------------------------------------------------------------------------------

    async def presented(self, token: int, atr: bytes, cplc: bytes, response: bytes) -> None:
        """A chip answered the lease: who is it, is it fresh, build its image, INTENT, and the personalization leaves."""
        run = self._runs.get(token)
        if run is None:
            await self.stray(token)
            return
        if run.over:
            return
        async with run.lock:
            while True:
                try:
                    self._outcomes.admit(run, response)
                    run.card = card = await self._cards.prepare(run, atr, cplc, response)
                    break
                except CitycardError as error:
                    if await self.keys.passed(error, partial(self.wanted, run)):
                        continue
                    # a card that is not under way any more was given up meanwhile
                    await (self._not_begun(run, token, error) if token in self._runs else self.stray(token))
                    return
            if self.keys.zeroized:
                await self._end_zeroized(run, token)
            else:
                self.link_of(run).segment(token, card.personalization())

    async def _not_begun(self, run: Run, token: int, error: CitycardError) -> None:
        """INTENT was not reached: the keys are to blame, or the chip is, or neither."""
        job_id = run.attempt.job_id
        if keys_to_blame(error) and error.reason not in OUT_OF_REACH and self._dispatch.has_job(job_id):
            self._leasing.pause(job_id, error.message)
            log.error("job stopped", job=job_id, reason=error.reason, detail=error.message)
        if isinstance(error, Denied | Corrupt | Conflict) and not keys_to_blame(error):
            await self._reject_blank(run, token, error)
        else:
            await self.release(run, token, error.reason.lower(), error.message)

    async def not_presented(self, token: int, reason: str, detail: str) -> None:
        """No chip answered as a blank does: an empty feeder and a broken reader cost nothing, a dead chip is rejected."""
        run = self._runs.get(token)
        if run is None:
            await self.stray(token)
        elif reason in ("no-blank", "reader"):
            await self.release(run, token, reason, detail)
            if reason == "reader":
                self._outcomes.note(run, reason)
        else:
            await self._reject_blank(run, token, no_blank(reason, detail))

    def stacked(self, token: int, bin_name: str) -> Coroutine[Any, Any, None]:
        """The piece was seen falling: the attempt's last word, whatever the bin. What is left to be waited for.

        Queued for the ledger when this returns, so that no lease given afterwards is durable before it: a head with a new blank in it
        can no longer tell of the piece before.
        """
        run = self._runs.get(token)
        seen = self._ledger.submit(_seen(token, bin_name, None if run is None else run.timings), patience_s=STACKED_S)
        return self._stacked(run, token, bin_name, seen)

    async def _stacked(self, run: Run | None, token: int, bin_name: str, seen: Awaitable[object]) -> None:
        await self._in_time(seen)
        if run is not None:
            self._forget(token)
            if bin_name == "good":
                self._dispatch.line_done(run.attempt.job_id, run.attempt.line_no)
            self._note_end(run.attempt.job_id)

    async def note_piece(self, token: int, bin_name: str) -> None:
        """A piece of which nothing else is known here was seen in a bin."""
        await self.quietly(_seen(token, bin_name, None))

    # -- ends ----------------------------------------------------------------------------------------------------------

    async def release(self, run: Run, token: int, why: str, detail: str = "", *, eject: bool = True) -> None:
        """Before INTENT: the line waits again, the blank goes back to stock. `why` is a short fixed word."""
        if await self._ended(run, token, lambda tx: attempts.release(tx, token, why, detail), eject=eject):
            self._eject(run, token, "returned", detail or why, eject=eject)

    async def _reject_blank(self, run: Run, token: int, error: CitycardError) -> None:
        if await self._ended(run, token, lambda tx: attempts.blank_rejected(tx, token, error.reason, error.message), eject=True):
            log.warning("blank rejected", station=run.station_id, reason=error.reason, detail=error.message)
            self._outcomes.note(run, "blank-rejected", error.reason)
            self._eject(run, token, "reject", error.message)

    async def scrap(self, run: Run, token: int, reason: ScrapReason, detail: str, *, eject: bool = True) -> None:
        """After INTENT: not a card. The piece goes to the reject bin, the line is made again on another blank."""
        if await self._ended(run, token, lambda tx: attempts.scrap(tx, token, reason, detail), eject=eject):
            log.warning("card scrapped", station=run.station_id, token=token, reason=reason, detail=detail)
            self._outcomes.note(run, reason.value)
            self._eject(run, token, "reject", f"{reason}: {detail}", eject=eject)

    async def _ended(self, run: Run, token: int, write: Callable[[Tx], object], *, eject: bool) -> bool:
        """Ends an attempt and gives its line back. False when somebody else ended it before: the ledger then says where the piece goes."""
        if run.over:  # whoever ended it tells the station
            return False
        run.over = True
        try:
            ended = await self.quietly(write)
        except BaseException:
            run.over = False
            raise
        self._give_back(run)
        if not ended and eject:
            await self.stray(token)
        return ended

    def _eject(self, run: Run, token: int, bin_name: str, reason: str, *, eject: bool = True) -> None:
        if run.card is not None:
            run.card.close()
        held = self._links.get(run.station_id)
        if eject and held is not None:
            self._runs[token] = run
            held[0].eject(token, bin_name, reason)
        else:
            self._forget(token)

    def _give_back(self, run: Run) -> None:
        self._leasing.line_back(run.attempt.job_id, run.attempt.line_no)

    async def stray(self, token: int) -> None:
        """A message for a card that is not under way here: given up meanwhile. The piece goes to the reject bin."""
        attempt = await self._ledger.aread(lambda conn: attempts.by_token(conn, token))
        if attempt is None:
            log.error("message for an unknown token", token=token)
            return
        held = self._links.get(attempt.station_id)
        if held is not None:
            untouched = attempt.state == "RELEASED"
            held[0].eject(token, "returned" if untouched else "reject", "this card was given up meanwhile")

    async def quietly(self, function: Callable[[Tx], object]) -> bool:
        """A write that may come too late: the ledger's state then already says what happened. Whether it came in time."""
        return await self._in_time(self._ledger.submit(function))

    @staticmethod
    async def _in_time(write: Awaitable[object]) -> bool:
        try:
            await write
        except (Precondition, NotFound) as error:
            log.info("came too late", reason=error.reason, detail=error.message)
            return False
        return True

    def _note_end(self, job_id: str) -> None:
        """Lets go of a job that the ledger found at its end: it is not there while another card of the job is under way."""
        if any(run.attempt.job_id == job_id and not run.over for run in self._runs.values()):
            return
        job = self._ledger.read(lambda conn: jobs.get(conn, job_id))
        if job.state in JOB_ENDED and job_id in self._leasing:
            self._leasing.close(job_id)
            self._cards.forget_job(job_id)
            log.info("job ended", job=job_id, state=job.state.value)

    async def line_back(self, job_id: str, line_no: int) -> None:
        """A line of a finished card wants another one: its card was taken as a sample, or the scrap it waited for is destroyed."""
        if job_id not in self._leasing:
            await self.job_running(await self._ledger.aread(lambda conn: jobs.get(conn, job_id)))
        self._dispatch.line_back(job_id, line_no)
        await self.pump()

    def wanted(self, run: Run) -> bool:
        """Whether the card is still wanted: it was not given up, the server goes on, and its station is there."""
        held = self._links.get(run.station_id)
        return run.attempt.token in self._runs and not self.draining and held is not None and not held[0].gone

    def link_of(self, run: Run) -> Link:
        held = self._links.get(run.station_id)
        if held is None:
            raise Precondition("STATION_GONE", f"station {run.station_id} is not connected")
        return held[0]

    def _forget(self, token: int) -> None:
        run = self._runs.pop(token, None)
        if run is not None and run.card is not None:
            run.card.close()

    def given_up(self, ended: Iterable[Attempt], failure: str) -> None:
        """Attempts that the ledger ended because their time was over."""
        for attempt in ended:
            self._leasing.line_back(attempt.job_id, attempt.line_no)
            if (run := self._runs.pop(attempt.token, None)) is not None:
                self._outcomes.note(run, failure)

    async def zeroized(self, error: CitycardError) -> None:
        """The keys are gone for good: cards that still need some end as scrap, blanks go back, proven cards are finished."""
        self.keys.shut(error)
        self.trouble = error.message
        self._cards.forget_jobs()
        for token, run in list(self._runs.items()):
            # one that is being prepared, or whose answers are being judged, ends where that is done
            if not run.lock.locked():
                await self._end_zeroized(run, token)

    async def _end_zeroized(self, run: Run, token: int) -> None:
        if run.card is None and run.attempt.state in BEFORE_INTENT:
            await self.release(run, token, "zeroized")
        elif run.card is not None and not run.proven:
            await self.scrap(run, token, ScrapReason.TORN, "the keys were zeroized before the card was finished")

    def patience_s(self) -> float:
        """How long a step of a card may wait for others to share its commit: with few cards under way it would wait in vain."""
        return STEP_S if len(self._runs) >= CROWD else 0.0

    def prints(self, run: Run) -> bool:
        """Whether the card's station has a printer."""
        held = self._links.get(run.station_id)
        return held is None or held[1].prints

    def under_way(self, run: Run) -> None:
        """Takes a card into hand again."""
        self._runs[run.attempt.token] = run

    def forget_job(self, job_id: str) -> None:
        """The job's personal data is destroyed: its key leaves memory too."""
        self._cards.forget_job(job_id)

    def has_job(self, job_id: str) -> bool:
        """Whether lines of the job can be leased here."""
        return job_id in self._leasing

    def why_idle(self, job_id: str) -> str:
        """Why no station takes a line of a job, in plain words."""
        if self.draining:
            return "the server is stopping"
        if known := self.trouble or self._leasing.why_stuck(job_id):
            return known
        if not self._links:
            return "no station is connected"
        reason = self._dispatch.waiting_for(job_id)
        if reason and reason != ALL_BUSY:
            return reason
        if time.monotonic() - self._moved < IDLE_S:
            return ""
        # a station asks for work when it has a blank: one that holds no card and asks for none has an empty feeder
        return reason if self._runs else "no station asks for work: their feeders are empty"

    def run(self, token: int) -> Run | None:
        """A card under way; None for a token that is not."""
        return self._runs.get(token)

    def jobs_running(self) -> int:
        """Jobs whose lines may be leased here."""
        return len(self._leasing)

    def shares(self) -> dict[str, float]:
        """For every job leased here, the share of all leases it would get now (see `Dispatcher.shares`)."""
        return self._dispatch.shares()

    @property
    def outcomes(self) -> Outcomes:
        """What is stopped, and why."""
        return self._outcomes

    def in_flight(self) -> int:
        """Cards in heads of connected stations."""
        return len(self._runs)

    def stations(self) -> list[dict[str, object]]:
        """Connected stations and what stops them."""
        held = Counter(run.station_id for run in self._runs.values())
        return [station_view(hello, held[name], self._outcomes.stopped(name)) for name, (_, hello) in sorted(self._links.items())]

    async def reset_station(self, station_id: str, by: str) -> None:
        """An operator mended what stopped a station."""
        held = self._links.get(station_id)
        if held is None:
            raise NotFound("STATION_UNKNOWN", f"no station {station_id} is connected")
        self._outcomes.reset(station_id)
        await self._ledger.write(lambda tx: tx.audit("station-reset", station_id, by=by))
        self._station_log.reset(station_id, by)
        held[0].hold("", resume=True)
        await self.pump()

    async def stop_leasing(self) -> None:
        """Nothing more is leased; cards that are not begun go back."""
        self.draining = True
        for token, run in list(self._runs.items()):
            if run.card is None and run.attempt.state in BEFORE_INTENT and not run.lock.locked():
                await self.release(run, token, "server-stops")

    def let_go(self) -> None:
        """Ends the streams of all stations."""
        for link, _ in list(self._links.values()):
            link.close()


def _seen(token: int, bin_name: str, timings: Timings | None) -> Callable[[Tx], None]:
    """A piece was seen falling, with what its station measured of it."""

    def seen(tx: Tx) -> None:
        attempt = attempts.stacked(tx, token, bin_name)
        if timings is not None and timings.measured:
            record_timings(tx, attempt.attempt_id, timings)

    return seen
