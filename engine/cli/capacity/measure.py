"""`citycard capacity measure`: this machine, its disk, token and readers, measured into a capacity profile."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from engine.cli import output
from engine.cli.capacity.fit import PARTS
from engine.cli.capacity.probes import Asked, open_bench, probes
from engine.cli.job import Json
from engine.cli.token import SOFTHSM, Module, PinFile, Serial
from keys.custody.token import TokenConfig
from keys.errors import InvalidInput
from keys.hardening import harden

if TYPE_CHECKING:
    from engine.capacity.evidence.fit import Fitted
    from engine.capacity.profile import CapacityProfile, Measurement

PROFILE: Final = "zhengzhou-citizen-card"
STATIONS: Final = "1,10,50,200"
MOST_STATIONS: Final = 1000
STATIONS_QUICK: Final = "1,10"
# Seconds of each probe when there is time, and with --quick: together about two minutes, and a quarter of one.
_FULL: Final = {"kernels": 6.0, "images": 6.0, "segments": 6.0, "custody": 8.0, "disk": 12.0, "window": 3.0, "chips": 12.0, "reader": 6.0}
_QUICK: Final = {"kernels": 0.6, "images": 0.6, "segments": 0.6, "custody": 0.8, "disk": 1.6, "window": 1.5, "chips": 5.0, "reader": 1.0}
_UNITS: Final = ((1.0, 1.0, "s"), (1e-3, 1e3, "ms"), (0.0, 1e6, "us"))


def measure(
    out: Annotated[Path, typer.Option("--out", help="The capacity profile to write.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Data directory of an engine, running or not: its disk is measured; default: that of --out."),
    ] = None,
    profile: Annotated[list[str] | None, typer.Option("--profile", help="Card profiles; may be given more than once.")] = None,
    stations: Annotated[
        str,
        typer.Option("--stations", help=f"Numbers of stations for the gRPC streams; default {STATIONS}, with --quick {STATIONS_QUICK}."),
    ] = "",
    quick: Annotated[bool, typer.Option("--quick", help="A quarter of a minute instead of two, and wider ranges.")] = False,
    label: Annotated[str, typer.Option("--label", help="Measure calls to the PKCS#11 token with this label too.")] = "",
    module: Module = SOFTHSM,
    serial: Serial = None,
    pin_file: PinFile = None,
    softhsm: Annotated[bool, typer.Option("--softhsm", help="Measure calls to a SoftHSM token made for it too.")] = False,
    pcsc: Annotated[bool, typer.Option("--pcsc", help="Make virtual chips through a private pcscd.")] = False,
    reader: Annotated[
        str, typer.Option("--reader", help="Measure this PC/SC reader with the card in it, which is only read: SELECT and GET DATA.")
    ] = "",
    from_ledger: Annotated[Path | None, typer.Option("--from-ledger", help="Fit times and failures from the jobs of this ledger.")] = None,
    job: Annotated[list[str] | None, typer.Option("--job", help="With --from-ledger: these jobs only.")] = None,
    merge: Annotated[
        Path | None, typer.Option("--merge", help="Keep what this profile of the same machine has and is not measured now.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure this machine for `capacity plan`: kernels, images, streams, the ledger's disk, token, readers.

    Whatever cannot be measured is named in the file, with the reason; nothing is guessed.
    """
    from engine.capacity.machine import Machine
    from engine.capacity.measure.merge import merged
    from engine.capacity.measure.probe import run_all
    from engine.capacity.profile import FORMAT, CapacityProfile, load, save

    here = Machine.here()
    asked = Asked(
        out=out,
        place=data or out.absolute().parent,
        profiles=list(dict.fromkeys(profile or [PROFILE])),
        stations=_station_counts(stations or (STATIONS_QUICK if quick else STATIONS)),
        seconds=_QUICK if quick else _FULL,
        windows=1 if quick else 2,
        reader=reader,
        pcsc=pcsc,
        token=TokenConfig(module, label, serial) if label else None,
        pin_file=pin_file,
        softhsm=softhsm,
        ledger=from_ledger,
        jobs=job or [],
        earlier=load(merge) if merge else None,
    )
    _check(asked, here)
    # told to stop, it stops what it started
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    harden(production=False)
    fitted = _fitted(asked)
    found: list[Measurement] = []
    with open_bench(asked) as bench:
        wanted = probes(bench)
        total = sum(probe.seconds for probe in wanted)
        say = (lambda _: None) if as_json else output.say
        say(f"{len(wanted)} measurements, about {total:.0f} seconds; the ledger's disk is that of {asked.place}")
        began = time.monotonic()
        for number, probe in enumerate(wanted, 1):
            say(f"{number}/{len(wanted)}  {probe.what} …")
            (_, measured), *_ = run_all([probe])
            found += measured
        say(f"measured in {time.monotonic() - began:.0f} seconds")
    jobs = [*(asked.earlier.jobs if asked.earlier else []), *(fitted.jobs if fitted else [])]
    measurements = merged(
        asked.earlier.measurements if asked.earlier else [], [*found, *(fitted.measurements if fitted else [])], _not_asked(asked)
    )
    made = CapacityProfile(FORMAT, datetime.now(UTC).isoformat(timespec="seconds"), here, measurements, list(dict.fromkeys(jobs)))
    save(made, out)
    _print(made, out, fitted.notes if fitted else [], as_json=as_json)


def _station_counts(text: str) -> list[int]:
    """`1,10,50,200`; InvalidInput STATIONS_INVALID."""
    counts = [int(part) if part.strip().isascii() and part.strip().isdigit() else 0 for part in text.split(",")]
    if not all(1 <= count <= MOST_STATIONS for count in counts):
        raise InvalidInput("STATIONS_INVALID", f"--stations {text!r}: whole numbers from 1 to {MOST_STATIONS} with commas between them")
    return sorted(set(counts))


def _check(asked: Asked, here: Any) -> None:  # noqa: ANN401 - a Machine, whose module is loaded late
    """Everything that cannot be, at once; InvalidInput MEASURE_OPTIONS, CAPACITY_MERGE."""
    wrong = []
    if not asked.out.absolute().parent.is_dir():
        wrong.append(f"--out {asked.out}: there is no directory {asked.out.absolute().parent}")
    if not asked.place.is_dir():
        wrong.append(f"--data {asked.place} is no directory")
    if asked.pcsc and asked.reader:
        wrong.append("--pcsc and --reader need two PC/SC services, and a process has one: measure twice and join them by --merge")
    if asked.jobs and asked.ledger is None:
        wrong.append("--job goes with --from-ledger")
    if asked.ledger is not None and not asked.ledger.is_file():
        wrong.append(f"--from-ledger {asked.ledger}: there is no such file")
    if wrong:
        raise InvalidInput("MEASURE_OPTIONS", "; ".join(wrong))
    if asked.earlier is not None:
        from engine.capacity.measure.merge import check

        check(asked.earlier, here)


def _fitted(asked: Asked) -> Fitted | None:
    """What the ledger tells, before anything is measured: a ledger that tells nothing is said at once. Raises as `fit`."""
    if asked.ledger is None:
        return None
    from engine.capacity.evidence.fit import fit

    return fit(asked.ledger, asked.jobs)


def _not_asked(asked: Asked) -> list[Measurement]:
    from engine.capacity.measure.probe import missing

    found = []
    if not (asked.pcsc or asked.reader):
        found.append(missing("chip_seconds", "chip time of a card", "neither --from-ledger, --reader nor --pcsc was given"))
    if asked.ledger is None:
        found.append(
            missing("cycle_seconds", "cycles, printing, failures, repairs", "no --from-ledger: they are fitted from real jobs only")
        )
    return found


def _print(made: CapacityProfile, out: Path, notes: Sequence[str], *, as_json: bool) -> None:
    import msgspec

    from engine.capacity.measure.probe import NOT_MEASURED, missing_of

    if as_json:
        output.emit_json(msgspec.to_builtins(made))
        return
    known = [m for m in made.measurements if m.quantity != NOT_MEASURED]
    # the table is of whole jobs; each station, reader and lot stands in the file
    rows = [_row(m) for m in known if not PARTS & m.labels.keys()]
    output.table(("quantity", "of", "P50", "P95", "unit", "samples"), rows, "nothing could be measured")
    machine = made.machine
    facts = (machine.cpu, f"{machine.cores} cores", f"{machine.kernel_level} kernels", f"Python {machine.python}")
    output.say(f"\n{', '.join(facts)}, commit {machine.commit or 'unknown'}")
    for line in (*notes, *(f"not measured: {what}: {why}" for what, why in missing_of(made))):
        output.say(line)
    output.say(f"{out}: {len(known)} measurements")


def _row(m: Measurement) -> tuple[str, ...]:
    of = ", ".join(f"{name} {value}" for name, value in m.labels.items())
    if m.distribution is None:
        return m.quantity, of, f"{m.events}", "", f"of {m.trials}", f"{m.trials}"
    middle, high = m.distribution.quantile(0.5), m.distribution.quantile(0.95)
    factor, unit = (1.0, m.unit) if m.unit != "s" else next((factor, unit) for least, factor, unit in _UNITS if middle >= least)
    return m.quantity, of, _figure(middle * factor), _figure(high * factor), unit, f"{m.distribution.n}"


def _figure(value: float) -> str:
    """Three digits that count, whole numbers whole."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
