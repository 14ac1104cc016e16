"""The mechanics beside one station: feeder, heads and bins, with pieces of plastic that stay where they are when software dies.

Two files, kept apart as mechanics and sensors are:
  pieces.log    where every piece physically lies: magazine, head, bin, or taken out by hand
  sensors.log   what feeder and bins counted as it went by
Neither knows the ledger or the station's journal. A move is noted by the sensor first and then happens; a move cut short by
kill -9 is completed by whoever looks next, so a piece never lies nowhere. A blank that vanishes by hand passes no sensor,
so `remaining` (pieces that are there) and `loaded - drawn` (what was counted) then differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from engine.virtual.birth import CHIP_TYPE, TEST_KMC
from engine.virtual.chip import VirtualChip
from engine.virtual.factory import make_blanks, open_chip
from engine.virtual.faults import GOOD_PLAN, Faults, Plan
from engine.virtual.recordlog import RecordLog
from engine.virtual.speed import Speed
from keys.errors import Conflict, Corrupt, Exhausted, InvalidInput, NotFound, Precondition

BINS = ("good", "reject", "returned", "sample")
_MAGAZINE, _HAND = "magazine", "hand"


class _Move(msgspec.Struct, frozen=True):
    """Pieces that go to one place. `number` counts moves that passed a sensor; 0: by hand, seen by none."""

    number: int
    place: str
    chips: list[str]


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(_Move).decode


class Hopper:
    """Feeder, heads and bins of one station directory. Several processes may look and load; every move is one step for all.

    `chips_dir` holds the chips' memories (default: `chips` below the directory). `plan` says which pieces are faulty, `speed` how fast
    the heads' readers and the chips in them are (default: as fast as this machine).
    """

    def __init__(
        self, directory: Path, heads: int = 1, *, chips_dir: Path | None = None, plan: Plan = GOOD_PLAN, speed: Speed | None = None
    ) -> None:
        if heads < 1:
            raise InvalidInput("HEADS_INVALID", f"a station has at least one head, not {heads}")
        self.directory = Path(directory)
        self.heads = heads
        self.chips_dir = Path(chips_dir) if chips_dir is not None else self.directory / "chips"
        self.plan = plan
        self.speed = speed or plan.speed
        self.chips_dir.mkdir(parents=True, exist_ok=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._pieces = RecordLog(self.directory / "pieces.log")
        self._sensors = RecordLog(self.directory / "sensors.log")
        self._state = _State()
        self.feeder = Feeder(self)
        self.bins = Bins(self)

    def head(self, number: int = 0) -> str | None:
        """The chip id of the piece in a head, or None."""
        self._check_head(number)
        with self.looking() as state:
            return state.in_head(number)

    def slot(self, number: int = 0) -> HeadSlot:
        """The contacts of a head: power and bytes for whatever chip lies in it."""
        self._check_head(number)
        return HeadSlot(self, number)

    def counts(self) -> dict[str, int]:
        """loaded, drawn, good, reject, returned, sample as the sensors counted; remaining and in_heads as pieces lie there."""
        with self.looking() as state:
            return state.counts()

    def hide_blank(self) -> str:
        """For tests: the next blank disappears from the magazine without passing a sensor. Exhausted NO_BLANKS."""
        with self.looking() as state:
            chip_id = state.next_blank()
            if chip_id is None:
                raise Exhausted("NO_BLANKS", f"{self.directory.name}: the magazine is empty")
            self._lay(_Move(0, _HAND, [chip_id]))
            return chip_id

    def close(self) -> None:
        self._pieces.close()
        self._sensors.close()

    # For Feeder, Bins and HeadSlot

    @contextmanager
    def looking(self) -> Iterator[_State]:
        """The state as it is now, held against other processes; completes a move that was cut short."""
        with self._sensors.locked():
            for move in _read(self._sensors, repair=True):
                self._state.sense(move)
            for move in _read(self._pieces, repair=True):
                self._state.lay(move)
            unfinished = self._state.unfinished
            if unfinished is not None:
                self._lay(unfinished)
            yield self._state

    def move(self, place: str, chips: list[str]) -> None:
        """Sensor first, then the piece. Only inside `looking`."""
        move = _Move(self._state.sensed + 1, place, chips)
        self._sensors.append(_ENCODE(move))
        self._state.sense(move)
        self._lay(move)

    def _lay(self, move: _Move) -> None:
        self._pieces.append(_ENCODE(move))
        self._state.lay(move)

    def _check_head(self, number: int) -> None:
        if not 0 <= number < self.heads:
            raise InvalidInput("HEAD_UNKNOWN", f"head {number}: the station has heads 0 to {self.heads - 1}")


class Feeder:
    """The magazine of blanks."""

    def __init__(self, hopper: Hopper) -> None:
        self._hopper = hopper

    def load(self, lot: bytes, serials: Iterable[int | bytes], *, kmc: bytes = TEST_KMC, chip_type: bytes = CHIP_TYPE) -> list[str]:
        """Puts blanks of a lot into the magazine, in this order; gives their chip ids. Conflict PIECE_TWICE."""
        numbers = [int.from_bytes(serial, "big") if isinstance(serial, bytes) else serial for serial in serials]
        runs = list(_runs(numbers))
        chips = [f"{lot.hex().upper()}{number:016X}" for number in numbers]
        if len(set(chips)) != len(chips):
            raise Conflict("PIECE_TWICE", f"{self._hopper.directory.name}: a serial number is given twice")
        with self._hopper.looking() as state:
            for chip_id in chips:
                if state.place(chip_id) not in (None, _HAND):
                    raise Conflict("PIECE_TWICE", f"{self._hopper.directory.name}: chip {chip_id} is here already")
            for first, count in runs:
                make_blanks(self._hopper.chips_dir, lot, first, count, kmc=kmc, chip_type=chip_type)
            self._hopper.move(_MAGAZINE, chips)
        return chips

    def draw(self, head: int = 0) -> str | None:
        """Moves the next blank into a head; None when the magazine is empty. Precondition HEAD_OCCUPIED."""
        with self._hopper.looking() as state:
            self._hopper._check_head(head)  # noqa: SLF001 - one mechanism in three classes
            if state.in_head(head) is not None:
                raise Precondition("HEAD_OCCUPIED", f"head {head} of {self._hopper.directory.name} holds a piece already")
            chip_id = state.next_blank()
            if chip_id is not None:
                self._hopper.move(f"head:{head}", [chip_id])
            return chip_id

    @property
    def remaining(self) -> int:
        """Pieces lying in the magazine."""
        return self._hopper.counts()["remaining"]


class Bins:
    """good, reject, returned (blanks on their way back to stock) and sample."""

    def __init__(self, hopper: Hopper) -> None:
        self._hopper = hopper

    def drop(self, name: str, chip_id: str) -> None:
        """Lets a piece fall from its head into a bin. A piece from the good bin may go on into sample.

        Raises InvalidInput BIN_UNKNOWN, NotFound PIECE_NOT_HERE.
        """
        self._check(name)
        with self._hopper.looking() as state:
            place = state.place(chip_id)
            if place is None or not (place.startswith("head:") or (place == "bin:good" and name == "sample")):
                raise NotFound("PIECE_NOT_HERE", f"{self._hopper.directory.name}: chip {chip_id} lies in no head")
            self._hopper.move(f"bin:{name}", [chip_id])

    def contents(self, name: str) -> list[str]:
        """Chip ids of the pieces lying in a bin, oldest first."""
        self._check(name)
        with self._hopper.looking() as state:
            return state.lying(f"bin:{name}")

    def empty(self, name: str) -> list[str]:
        """Takes the pieces out by hand; the bin's counter stays. Returned blanks can then be loaded again."""
        self._check(name)
        with self._hopper.looking() as state:
            chips = state.lying(f"bin:{name}")
            if chips:
                self._hopper._lay(_Move(0, _HAND, chips))  # noqa: SLF001 - one mechanism in three classes
            return chips

    @staticmethod
    def _check(name: str) -> None:
        if name not in BINS:
            raise InvalidInput("BIN_UNKNOWN", f"bin {name!r}: there are {', '.join(BINS)}")


class HeadSlot:
    """Power and bytes for the piece in one head; an empty head answers nothing."""

    def __init__(self, hopper: Hopper, number: int) -> None:
        self._hopper = hopper
        self._number = number
        self._chip: VirtualChip | None = None

    def power_on(self) -> bytes:
        chip_id = self._hopper.head(self._number)
        if chip_id is None:
            self._chip = None
            return b""
        if self._chip is None or self._chip.chip_id != chip_id:
            # The same object for as long as the piece lies here: APDU indexes of faults count across resets.
            self.power_off()
            self._chip = open_chip(self._hopper.chips_dir, chip_id, self._faults(chip_id))
        return self._chip.power_on()

    def transmit(self, apdu: bytes) -> bytes:
        if self._chip is None:
            return b""
        speed = self._hopper.speed
        return self._chip.transmit(apdu) if speed is None else speed.paced(self._chip.transmit, apdu)

    def power_off(self) -> None:
        if self._chip is not None:
            self._chip.power_off()

    def _faults(self, chip_id: str) -> Faults | None:
        return None if self._hopper.plan is GOOD_PLAN else self._hopper.plan.for_chip(chip_id)


def read_counts(directory: Path) -> dict[str, int]:
    """`Hopper.counts` for an onlooker: changes nothing, needs no lock. NotFound HOPPER_UNKNOWN."""
    state = _State()
    for name, take in (("sensors.log", state.sense), ("pieces.log", state.lay)):
        try:
            log = RecordLog(Path(directory) / name, writable=False)
        except FileNotFoundError:
            raise NotFound("HOPPER_UNKNOWN", f"{directory} has no feeder") from None
        try:
            for move in _read(log, repair=False):
                take(move)
        finally:
            log.close()
    return state.counts()


class _State:
    """What the two logs say, brought up to date record by record."""

    def __init__(self) -> None:
        self.sensed = 0
        self._laid = 0
        self._last: _Move | None = None
        self._counted: Counter[str] = Counter()
        self._sensed_place: dict[str, str] = {}
        # place -> pieces in the order in which they came; a dict is an ordered set with quick removal.
        self._lying: dict[str, dict[str, None]] = {_MAGAZINE: {}}
        self._places: dict[str, str] = {}

    @property
    def unfinished(self) -> _Move | None:
        """The move a sensor saw begin and nobody saw end."""
        return self._last if self._laid < self.sensed else None

    def sense(self, move: _Move) -> None:
        self.sensed, self._last = move.number, move
        count = len(move.chips)
        if move.place == _MAGAZINE:
            self._counted["loaded"] += count
        elif move.place.startswith("head:"):
            self._counted["drawn"] += count
        else:
            for chip_id in move.chips:
                before = self._sensed_place.get(chip_id, "")
                if before.startswith("bin:"):
                    self._counted[before[4:]] -= 1
            self._counted[move.place[4:]] += count
        for chip_id in move.chips:
            self._sensed_place[chip_id] = move.place

    def lay(self, move: _Move) -> None:
        if move.number:
            self._laid = move.number
        target = self._lying.setdefault(move.place, {})
        for chip_id in move.chips:
            before = self._places.get(chip_id)
            if before is not None:
                self._lying[before].pop(chip_id, None)
            target[chip_id] = None
            self._places[chip_id] = move.place

    def place(self, chip_id: str) -> str | None:
        return self._places.get(chip_id)

    def lying(self, place: str) -> list[str]:
        return list(self._lying.get(place, ()))

    def next_blank(self) -> str | None:
        return next(iter(self._lying[_MAGAZINE]), None)

    def in_head(self, number: int) -> str | None:
        return next(iter(self._lying.get(f"head:{number}", ())), None)

    def counts(self) -> dict[str, int]:
        counted = {name: self._counted[name] for name in ("loaded", "drawn", *BINS)}
        in_heads = sum(len(chips) for place, chips in self._lying.items() if place.startswith("head:"))
        return counted | {"remaining": len(self._lying[_MAGAZINE]), "in_heads": in_heads}


def _read(log: RecordLog, *, repair: bool) -> Iterator[_Move]:
    for payload in log.read_new(repair=repair):
        try:
            yield _DECODE(payload)
        except msgspec.DecodeError as error:
            raise Corrupt("LOG_DAMAGED", f"{log.path.name}: a record does not decode: {error}") from None


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Consecutive numbers as (first, count)."""
    at = 0
    while at < len(numbers):
        end = at + 1
        while end < len(numbers) and numbers[end] == numbers[end - 1] + 1:
            end += 1
        yield numbers[at], end - at
        at = end
