"""The maker: blanks, one by one or by the lot, and the way back to a chip by its id.

A directory of chips holds one memory file per chip that ever had power, `<chip_id>.nvm`, and `blanks.log`, which says what was
made. A blank of a lot gets its memory file at its first power-on, so a thousand of them cost one record.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from engine.virtual.birth import CHIP_TYPE, ISD_AID, MAX_FAILURES, TEST_KMC, TRANSPORT_KVN, Birth
from engine.virtual.chip import VirtualChip
from engine.virtual.faults import Faults
from engine.virtual.recordlog import RecordLog
from keys.errors import Corrupt, InvalidInput, NotFound

LOT_BYTES, SERIAL_BYTES = 2, 8
_KDD_HEX = 2 * (LOT_BYTES + SERIAL_BYTES)


class _Made(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A run of blanks: `count` serial numbers from `first`."""

    lot: bytes
    first: int
    count: int
    kmc: bytes
    chip_type: bytes
    max_failures: int

    def __repr__(self) -> str:
        return f"_Made(lot={self.lot.hex().upper()}, first={self.first}, count={self.count})"


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(_Made).decode


def make_blank(
    directory: Path,
    *,
    lot: bytes,
    serial: bytes,
    kmc: bytes = TEST_KMC,
    chip_type: bytes = CHIP_TYPE,
    isd_aid: bytes = ISD_AID,
    kvn: int = TRANSPORT_KVN,
    max_failures: int = MAX_FAILURES,
    faults: Faults | None = None,
) -> VirtualChip:
    """Makes one blank with its memory file; a chip that exists already is left as it is and opened.

    lot: 2 bytes; serial: 8; kmc: 16; chip_type: 5. Raises InvalidInput BLANK_INVALID.
    """
    _check(lot, serial, kmc, chip_type)
    birth = Birth(lot, serial, kmc, chip_type, isd_aid, kvn, max_failures)
    Path(directory).mkdir(parents=True, exist_ok=True)
    chip = VirtualChip(_memory(directory, birth.chip_id), birth.chip_id, birth, faults)
    chip.power_on()
    chip.power_off()
    return chip


def make_blanks(
    directory: Path,
    lot: bytes,
    first_serial: int,
    count: int,
    *,
    kmc: bytes = TEST_KMC,
    chip_type: bytes = CHIP_TYPE,
    max_failures: int = MAX_FAILURES,
) -> list[str]:
    """Makes a run of blanks with consecutive serial numbers, in constant time but for the list of their chip ids."""
    if count < 0 or first_serial < 0 or first_serial + count > 1 << (8 * SERIAL_BYTES):
        raise InvalidInput("BLANK_INVALID", f"{count} serial numbers from {first_serial} do not fit in {SERIAL_BYTES} bytes")
    _check(lot, bytes(SERIAL_BYTES), kmc, chip_type)
    declare(directory, [_Made(lot, first_serial, count, kmc, chip_type, max_failures)])
    prefix = lot.hex().upper()
    return [f"{prefix}{serial:016X}" for serial in range(first_serial, first_serial + count)]


def declare(directory: Path, made: Iterable[_Made]) -> None:
    """Notes runs of blanks, so that `open_chip` finds them."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    log = RecordLog(Path(directory) / "blanks.log")
    try:
        with log.locked():
            log.read_new()
            for run in made:
                log.append(_ENCODE(run))
    finally:
        log.close()


def open_chip(directory: Path, chip_id: str, faults: Faults | None = None) -> VirtualChip:
    """The chip with this id, new or used. `faults` replaces those it was made with.

    Raises InvalidInput CHIP_ID_INVALID, NotFound CHIP_UNKNOWN.
    """
    try:
        kdd = bytes.fromhex(chip_id)
    except ValueError:
        kdd = b""
    if len(chip_id) != _KDD_HEX or chip_id != kdd.hex().upper():
        raise InvalidInput("CHIP_ID_INVALID", f"chip id {chip_id!r} is not {_KDD_HEX} upper-case hex digits")
    memory = _memory(directory, chip_id)
    if memory.exists() and memory.stat().st_size:
        return VirtualChip(memory, chip_id, None, faults)
    lot, serial = kdd[:LOT_BYTES], kdd[LOT_BYTES:]
    run = _find(directory, lot, int.from_bytes(serial, "big"))
    if run is None:
        raise NotFound("CHIP_UNKNOWN", f"no chip {chip_id} was made in {directory}")
    birth = Birth(lot, serial, run.kmc, run.chip_type, max_failures=run.max_failures)
    return VirtualChip(memory, chip_id, birth, faults)


def _find(directory: Path, lot: bytes, serial: int) -> _Made | None:
    path = Path(directory) / "blanks.log"
    if not path.exists():
        return None
    log = RecordLog(path, writable=False)
    try:
        runs = [_DECODE(payload) for payload in log.read_new(repair=False)]
    except msgspec.DecodeError as error:
        raise Corrupt("LOG_DAMAGED", f"{path.name}: a record does not decode: {error}") from None
    finally:
        log.close()
    return next((run for run in reversed(runs) if run.lot == lot and run.first <= serial < run.first + run.count), None)


def _memory(directory: Path, chip_id: str) -> Path:
    return Path(directory) / f"{chip_id}.nvm"


def _check(lot: bytes, serial: bytes, kmc: bytes, chip_type: bytes) -> None:
    sizes = (("lot", lot, LOT_BYTES), ("serial", serial, SERIAL_BYTES), ("KMC", kmc, 16), ("chip type", chip_type, 5))
    for name, value, size in sizes:
        if len(value) != size:
            raise InvalidInput("BLANK_INVALID", f"{name} has {len(value)} bytes, it needs {size}")
