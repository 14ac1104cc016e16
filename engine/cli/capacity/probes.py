"""What `citycard capacity measure` runs, one probe after the other: kernels, images, token, disk, streams over gRPC, readers."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine.cli.softhsm import SoftHsm
from engine.cli.token import read_pin
from keys.custody import Custody
from keys.custody.token import TokenConfig
from keys.errors import CitycardError
from keys.secrets import SecretBytes

if TYPE_CHECKING:
    from engine.capacity.measure.probe import Probe
    from engine.capacity.profile import CapacityProfile, Measurement
    from engine.chip.transport import Transport
    from engine.personalize.columns import Column
    from engine.personalize.segment import Segment
    from engine.profiles.compile import CompiledProfile

# A station makes so many cards an hour; few stations make more, so that there are enough cards a second to measure.
_STATION_RATE: Final = 1000.0
_LEAST_CARDS_PER_S: Final = 20.0
_PLANT_S: Final = 3.0
_RUN_S: Final = 2.5
_READER_S: Final = 5.0


@dataclass(frozen=True)
class Asked:
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
class Bench:
    """What probes work with; lives as long as they do."""

    asked: Asked
    work: Path
    compiled: dict[str, CompiledProfile]
    software: Custody


@contextmanager
def open_bench(asked: Asked) -> Iterator[Bench]:
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
            yield Bench(asked, Path(directory), {name: compile_profile(one) for name, one in loaded.items()}, software)


def probes(bench: Bench) -> list[Probe]:
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


def _streams(bench: Bench, profile: str) -> list[Measurement]:
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


def _stream(asked: Asked, address: str, profile: str, stations: int) -> list[Measurement]:
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


def _chip_probes(bench: Bench, each: dict[str, float]) -> list[Probe]:
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


def _tokens(bench: Bench) -> list[tuple[str, Callable[[], AbstractContextManager[Custody]]]]:
    found: list[tuple[str, Callable[[], AbstractContextManager[Custody]]]] = []
    if bench.asked.softhsm:
        found.append(("softhsm", partial(_softhsm, bench)))
    if bench.asked.token is not None:
        found.append((f"token {bench.asked.token.label}", partial(_token, bench.asked.token, bench.asked.pin_file)))
    return found


@contextmanager
def _softhsm(bench: Bench) -> Iterator[Custody]:
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


def _virtual_cards(bench: Bench, compiled: CompiledProfile, seconds: float) -> list[Measurement]:
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
