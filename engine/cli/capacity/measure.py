"""`citycard capacity measure`: this machine, its disk, token and readers, measured into a capacity profile."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from engine.cli import output
from engine.cli.job import Json
from engine.cli.softhsm import SoftHsm
from engine.cli.token import SOFTHSM, Module, PinFile, Serial, read_pin
from keys.custody import Custody
from keys.custody.token import TokenConfig
from keys.errors import CitycardError, InvalidInput
from keys.hardening import harden
from keys.secrets import SecretBytes

if TYPE_CHECKING:
    from engine.capacity.evidence.fit import Fitted
    from engine.capacity.measure.probe import Probe
    from engine.capacity.profile import CapacityProfile, Measurement
    from engine.chip.transport import Transport
    from engine.personalize.columns import Column
    from engine.personalize.segment import Segment
    from engine.profiles.compile import CompiledProfile

PROFILE: Final = "zhengzhou-citizen-card"
STATIONS: Final = "1,10,50,200"
MOST_STATIONS: Final = 1000
STATIONS_QUICK: Final = "1,10"
# Seconds of each probe when there is time, and with --quick: together about two minutes, and a quarter of one.
_FULL: Final = {"kernels": 6.0, "images": 6.0, "segments": 6.0, "custody": 8.0, "disk": 12.0, "window": 3.0, "chips": 12.0, "reader": 6.0}
_QUICK: Final = {"kernels": 0.6, "images": 0.6, "segments": 0.6, "custody": 0.8, "disk": 1.6, "window": 1.5, "chips": 5.0, "reader": 1.0}
# A station makes so many cards an hour; few stations make more, so that there are enough cards a second to measure.
_STATION_RATE: Final = 1000.0
_LEAST_CARDS_PER_S: Final = 20.0
_PLANT_S: Final = 3.0
_RUN_S: Final = 2.5
_READER_S: Final = 5.0
_UNITS: Final = ((1.0, 1.0, "s"), (1e-3, 1e3, "ms"), (0.0, 1e6, "us"))


@dataclass(frozen=True)
class _Asked:
    """The command's options after they were checked."""

    out: Path
    place: Path
    profiles: list[str]
    stations: list[int]
    seconds: dict[str, float]
    windows: int
    reader: str
    pcsc: bool
    token: TokenConfig | None
    pin_file: Path | None
    softhsm: bool
    ledger: Path | None
    jobs: list[str]
    earlier: CapacityProfile | None


@dataclass
class _Bench:
    """What probes work with; lives as long as they do."""

    asked: _Asked
    work: Path
    compiled: dict[str, CompiledProfile]
    software: Custody


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
    asked = _Asked(
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
    with _bench(asked) as bench:
        probes = _probes(bench)
        total = sum(probe.seconds for probe in probes)
        say = (lambda _: None) if as_json else output.say
        say(f"{len(probes)} measurements, about {total:.0f} seconds; the ledger's disk is that of {asked.place}")
        began = time.monotonic()
        for number, probe in enumerate(probes, 1):
            say(f"{number}/{len(probes)}  {probe.what} …")
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


def _check(asked: _Asked, here: Any) -> None:  # noqa: ANN401 - a Machine, whose module is loaded late
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


@contextmanager
def _bench(asked: _Asked) -> Iterator[_Bench]:
    """TEST keys for every profile, in a directory that is gone afterwards."""
    from engine.cli.teststore import create_test_store
    from engine.profiles import lint
    from engine.profiles.compile import compile_profile
    from engine.profiles.model import load
    from keys.custody.software import SoftwareCustody

    loaded = {name: load(name) for name in asked.profiles}
    for one in loaded.values():
        lint.require_clean(one)
    with tempfile.TemporaryDirectory(prefix="citycard-measure-") as directory:
        create_test_store(Path(directory), "TEST", asked.profiles)
        with SoftwareCustody.open(Path(directory), "TEST", mode="test") as software:
            yield _Bench(asked, Path(directory), {name: compile_profile(one) for name, one in loaded.items()}, software)


def _probes(bench: _Bench) -> list[Probe]:
    """Everything that was asked for, in the order of the table."""
    from engine.capacity.measure.cards import image_seconds, segment_seconds
    from engine.capacity.measure.custody import hsm_call_seconds
    from engine.capacity.measure.disk import ledger_commit_seconds
    from engine.capacity.measure.kernels import kernel_keys
    from engine.capacity.measure.probe import Probe

    asked = bench.asked
    each = {what: seconds / len(asked.profiles) for what, seconds in asked.seconds.items()}
    made = [Probe("kernel_keys", "kernels, one core", asked.seconds["kernels"], partial(kernel_keys, asked.seconds["kernels"]))]
    for name, compiled in bench.compiled.items():
        work = partial(image_seconds, compiled, bench.software, each["images"])
        made.append(Probe("image_seconds", f"images, {name}", each["images"], work))
        work = partial(segment_seconds, compiled, bench.software, each["segments"])
        made.append(Probe("segment_seconds", f"segments, {name}", each["segments"], work))
        work = partial(hsm_call_seconds, bench.software, "software", compiled, each["custody"])
        made.append(Probe("hsm_call_seconds", f"calls to the software custody, {name}", each["custody"], work))
        for custody, opened in _tokens(bench):
            work = partial(_token_calls, opened, custody, compiled, each["custody"])
            made.append(Probe("hsm_call_seconds", f"calls to {custody}, {name}", each["custody"], work))
    seconds = asked.seconds["disk"]
    made.append(Probe("ledger_commit_seconds", "ledger commits with fsync", seconds, partial(ledger_commit_seconds, asked.place, seconds)))
    for name in asked.profiles:
        seconds = _PLANT_S + sum(_RUN_S + asked.windows * (2 * _cycle_s(count) + asked.seconds["window"]) for count in asked.stations)
        made.append(Probe("stream_seconds", f"gRPC streams, {name}", seconds, partial(_streams, bench, name)))
    return made + _chip_probes(bench, each)


def _cycle_s(stations: int) -> float:
    """Seconds from one card of a station to its next."""
    return min(3600.0 / _STATION_RATE, stations / _LEAST_CARDS_PER_S)


def _streams(bench: _Bench, profile: str) -> list[Measurement]:
    """What stations wait for and what it costs the server, by the number of stations, on a plant of its own on loopback."""
    from engine.capacity.measure.probe import missing
    from engine.cli.plant import Plant

    found = []
    with tempfile.TemporaryDirectory(dir=bench.work) as directory, Plant(Path(directory)) as plant:
        plant.make_keys(profile)
        plant.start_server()
        for stations in bench.asked.stations:
            try:
                found += _stream(bench.asked, plant.address, profile, stations)
            except CitycardError as error:
                found.append(missing("stream_seconds", f"gRPC streams, {profile}, {stations} stations", error.message))
    return found


def _stream(asked: _Asked, address: str, profile: str, stations: int) -> list[Measurement]:
    import grpc

    from engine.capacity.distribution import Distribution
    from engine.capacity.measure.probe import missing
    from engine.capacity.profile import Measurement
    from engine.cli import client
    from engine.load.gauge import CORE_SHARE, LAG_S
    from engine.load.run import drive
    from engine.load.settings import Settings

    rate = 3600.0 / _cycle_s(stations)
    settings = Settings(
        (stations,) * asked.windows, rate=rate, duration_s=asked.seconds["window"], profile=profile, name=f"measure-{stations}"
    )
    try:
        windows = asyncio.run(drive(address, settings)).windows
    except grpc.aio.AioRpcError as error:
        raise client.translated(error, address) from None
    sound = [w for w in windows if w.generator_core_share <= CORE_SHARE and (w.lag_s.p99 or 0.0) <= LAG_S]
    streams = [seconds for window in sound for seconds in window.streams]
    cpu = [window.server_cpu_per_card_s for window in sound if window.server_cpu_per_card_s is not None]
    labels = {"profile": profile, "stations": str(stations), "cards_per_hour": f"{rate * stations:.0f}"}
    found = [
        Measurement(quantity, "s", labels, Distribution.of(samples))
        for quantity, samples in (("stream_seconds", streams), ("server_cpu_seconds", cpu))
        if samples
    ]
    if not streams:
        why = "; ".join(dict.fromkeys(doubt for window in windows for doubt in window.doubts)) or "no card was made"
        found.append(missing("stream_seconds", f"gRPC streams, {profile}, {stations} stations", why))
    return found


def _chip_probes(bench: _Bench, each: dict[str, float]) -> list[Probe]:
    """Whole virtual cards through a private pcscd, a real reader with a card that is only read, or what is lacking without them."""
    from engine.capacity.measure.probe import Probe

    made = []
    for name, compiled in bench.compiled.items():
        if bench.asked.pcsc:
            work = partial(_virtual_cards, bench, compiled, each["chips"])
            made.append(Probe("chip_seconds", f"virtual chips through pcscd, {name}", each["chips"], work))
    if bench.asked.reader:
        aid = bytes.fromhex(next(iter(bench.compiled.values())).loaded.profile.chip.isd_aid)
        work = partial(_reader, bench.asked.reader, aid, bench.asked.seconds["reader"])
        made.append(Probe("apdu_seconds", f"APDUs in {bench.asked.reader}", bench.asked.seconds["reader"], work))
    return made


def _tokens(bench: _Bench) -> list[tuple[str, Callable[[], AbstractContextManager[Custody]]]]:
    found: list[tuple[str, Callable[[], AbstractContextManager[Custody]]]] = []
    if bench.asked.softhsm:
        found.append(("softhsm", partial(_softhsm, bench)))
    if bench.asked.token is not None:
        found.append((f"token {bench.asked.token.label}", partial(_token, bench.asked.token, bench.asked.pin_file)))
    return found


@contextmanager
def _softhsm(bench: _Bench) -> Iterator[Custody]:
    from engine.cli.teststore import create_test_token_store
    from keys.custody.token import TokenCustody

    with tempfile.TemporaryDirectory(dir=bench.work) as directory:
        hsm = SoftHsm(Path(directory))
        config = hsm.make()
        with hsm.in_this_process():
            create_test_token_store(Path(directory) / "store", config, SecretBytes(hsm.pin()), bench.asked.profiles)
            with TokenCustody.open(config, SecretBytes(hsm.pin()), mode="test") as custody:
                yield custody


@contextmanager
def _token(config: TokenConfig, pin_file: Path | None) -> Iterator[Custody]:
    from keys.custody.token import TokenCustody

    with TokenCustody.open(config, read_pin(pin_file, "token's user"), mode="test") as custody:
        yield custody


def _token_calls(
    opened: Callable[[], AbstractContextManager[Custody]], name: str, compiled: CompiledProfile, seconds: float
) -> list[Measurement]:
    from engine.capacity.measure.custody import hsm_call_seconds

    with opened() as custody:
        return hsm_call_seconds(custody, name, compiled, seconds)


def _reader(name: str, isd_aid: bytes, seconds: float) -> list[Measurement]:
    """The reader's APDU times, and why no card's time is among them."""
    from engine.capacity.measure.chips import apdu_seconds
    from engine.capacity.measure.probe import missing
    from engine.chip.pcsc import PcscTransport

    found = apdu_seconds(PcscTransport(name, wait_s=_READER_S), isd_aid, seconds)
    why = "a measurement personalizes no true card: --from-ledger fits it from cards that were made"
    return [*found, missing("chip_seconds", f"a card's chip time in {name}", why)]


def _virtual_cards(bench: _Bench, compiled: CompiledProfile, seconds: float) -> list[Measurement]:
    """Whole cards, each on a virtual blank of its own, through a pcscd of our own."""
    from engine.capacity.measure.cards import card_columns
    from engine.capacity.measure.chips import chip_seconds
    from engine.chip.pcsc import PcscTransport
    from engine.virtual.factory import make_blank
    from engine.virtual.pcscd_rig import PcscdRig

    columns = card_columns(compiled, 1)
    chip_type = compiled.loaded.profile.chip.chip_type.encode()
    with PcscdRig() as rig:
        # libpcsclite reads its socket's name once in a process: this command talks to no other pcscd
        os.environ.update(rig.environment)
        made = count(1)

        def make() -> float:
            chip = make_blank(bench.work / "chips", lot=b"\xde\x40", serial=next(made).to_bytes(8, "big"), chip_type=chip_type)
            transport = PcscTransport(rig.readers[0])
            rig.insert(chip)
            try:
                return _personalize(transport, compiled, bench.software, columns)
            finally:
                transport.disconnect()
                rig.remove()

        labels = {"profile": compiled.loaded.profile.name, "transport": "pcsc", "chip": "virtual"}
        return chip_seconds(make, labels, seconds)


def _personalize(transport: Transport, compiled: CompiledProfile, custody: Custody, columns: Mapping[str, Column]) -> float:
    """One card from SELECT to the last proof, as the engine and a station make it; the sum of its APDU times in seconds."""
    import numpy as np

    from engine.personalize.segment import to_slab
    from engine.production.card import CardInMaking, lease_commands

    spent = 0.0

    def play(commands: Sequence[bytes]) -> list[bytes]:
        nonlocal spent
        start = time.perf_counter()
        answers = [transport.transmit(command) for command in commands]
        spent += time.perf_counter() - start
        return answers

    transport.connect()
    card = CardInMaking(compiled, custody, 1)
    try:
        challenge = os.urandom(8)
        identity = card.open(challenge, play(lease_commands(compiled, challenge))[-1][:-2])
        card.prepare({**columns, "chip_serial": np.frombuffer(identity.serial, np.uint8).reshape(1, 8)})
        slab = to_slab(play(card.personalization().commands))
        card.accept_personalization(slab)
        proof: Segment | None = card.first_proof(slab)
        while proof is not None:
            proof = card.next_proof(to_slab(play(proof.commands)))
        return spent
    finally:
        card.close()


def _fitted(asked: _Asked) -> Fitted | None:
    """What the ledger tells, before anything is measured: a ledger that tells nothing is said at once. Raises as `fit`."""
    if asked.ledger is None:
        return None
    from engine.capacity.evidence.fit import fit

    return fit(asked.ledger, asked.jobs)


def _not_asked(asked: _Asked) -> list[Measurement]:
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
    rows = [_row(m) for m in made.measurements if m.quantity != NOT_MEASURED]
    output.table(("quantity", "of", "P50", "P95", "unit", "samples"), rows, "nothing could be measured")
    machine = made.machine
    facts = (machine.cpu, f"{machine.cores} cores", f"{machine.kernel_level} kernels", f"Python {machine.python}")
    output.say(f"\n{', '.join(facts)}, commit {machine.commit or 'unknown'}")
    for line in (*notes, *(f"not measured: {what}: {why}" for what, why in missing_of(made))):
        output.say(line)
    output.say(f"{out}: {len(rows)} measurements")


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
