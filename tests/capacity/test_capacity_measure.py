"""Probes measure what they say, leave nothing behind, and say in words what they could not measure."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from cext.cpu import kernel_level
from engine.capacity.distribution import Distribution
from engine.capacity.machine import Machine
from engine.capacity.measure import cards, chips, custody, disk, kernels, merge, probe
from engine.capacity.measure.probe import NOT_MEASURED, Probe
from engine.capacity.profile import FORMAT, CapacityProfile, Measurement, load, save
from engine.cli.capacity import measure as command
from engine.cli.capacity import probes
from engine.cli.teststore import create_test_store
from engine.ledger.store import Ledger
from engine.load.result import Spread, Window
from engine.load.settings import Settings
from engine.personalize.image import build_images, derive_keys, pin_blocks
from engine.profiles.compile import CompiledProfile, compile_profile
from engine.profiles.model import load as load_profile
from keys.custody.software import SoftwareCustody
from keys.errors import InvalidInput, NotFound, Precondition, Unavailable

PROFILES = ("zhengzhou-citizen-card", "zhengzhou-citizen-card-scp02")
BRIEF = 0.01


@pytest.fixture(scope="module")
def software(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareCustody]:
    place = tmp_path_factory.mktemp("keys")
    create_test_store(place, "TEST", list(PROFILES), scrypt_n=1024)
    with SoftwareCustody.open(place, "TEST", mode="test") as opened:
        yield opened


@pytest.fixture(params=PROFILES)
def compiled(request: pytest.FixtureRequest) -> CompiledProfile:
    return compile_profile(load_profile(request.param))


def sound(measured: list[Measurement], quantity: str, unit: str = "s") -> list[dict[str, str]]:
    """Every figure positive and in order; the labels."""
    for one in measured:
        assert (one.quantity, one.unit) == (quantity, unit)
        assert one.distribution is not None
        assert one.distribution.n >= probe.LEAST_ROUNDS
        assert 0 < one.distribution.quantiles[0] <= one.distribution.mean <= one.distribution.quantiles[-1]
    return [one.labels for one in measured]


def test_kernels_are_measured_at_the_level_that_runs() -> None:
    labels = sound(kernels.kernel_keys(BRIEF, batch=512), "kernel_keys", "keys/s")
    assert {(one["algorithm"], one["operation"]) for one in labels} == {(a, o) for a in ("3des", "sm4", "aes") for o in ("derive", "full")}
    assert {one["level"] for one in labels} == {kernel_level()}


def test_images_and_segments_are_measured_per_card(compiled: CompiledProfile, software: SoftwareCustody) -> None:
    for quantity, work in (("image_seconds", cards.image_seconds), ("segment_seconds", cards.segment_seconds)):
        labels = sound(work(compiled, software, BRIEF, (1, 8)), quantity)
        assert labels == [{"profile": compiled.loaded.profile.name, "batch": batch} for batch in ("1", "8")]


def test_the_cards_that_are_measured_are_cards_that_could_be_made(compiled: CompiledProfile, software: SoftwareCustody) -> None:
    columns = cards.card_columns(compiled, 5)
    pins = pin_blocks(software.hmac_key("pin"), range(5), compiled.loaded.profile.pin.digits)
    with derive_keys(compiled, columns, software) as keys, build_images(compiled, columns, keys, pins) as images:
        assert images.array.shape == (5, compiled.image_len)
        assert len(np.unique(images.array, axis=0)) == 5


def test_calls_to_a_custody_name_how_many_keys_they_make(compiled: CompiledProfile, software: SoftwareCustody) -> None:
    before = software.inventory()
    labels = sound(custody.hsm_call_seconds(software, "software", compiled, BRIEF, (1,)), "hsm_call_seconds")
    assert [(one["operation"], one["keys"]) for one in labels] == [("channel-keys", "3"), ("card-keys", str(len(compiled.keys)))]
    assert software.inventory() == before


def test_a_custody_without_the_profiles_keys_is_said_to_have_none(compiled: CompiledProfile, tmp_path: Path) -> None:
    with SoftwareCustody.create(tmp_path, "TEST", test=True, scrypt_n=1024) as empty, pytest.raises(NotFound) as caught:
        custody.hsm_call_seconds(empty, "token city", compiled, BRIEF, (1,))
    assert "token city holds no key" in caught.value.message


def test_commits_are_measured_on_the_disk_named_and_leave_nothing(tmp_path: Path) -> None:
    labels = sound(disk.ledger_commit_seconds(tmp_path, BRIEF, (1, 3)), "ledger_commit_seconds")
    assert labels == [{"batch": "1"}, {"batch": "3"}]
    assert list(tmp_path.iterdir()) == []


def test_a_probe_that_cannot_run_leaves_its_reason_and_no_figure(tmp_path: Path) -> None:
    def gone() -> list[Measurement]:
        raise Unavailable("PCSCD_MISSING", "the PC/SC rig needs pcscd:\ninstall it")

    probes = [
        Probe("chip_seconds", "virtual chips", 1.0, gone),
        Probe("ledger_commit_seconds", "commits", 1.0, lambda: disk.ledger_commit_seconds(tmp_path / "nowhere", BRIEF)),
    ]
    found = [one for _, measured in probe.run_all(probes) for one in measured]
    assert [one.distribution for one in found] == [None, None]
    profile = CapacityProfile(FORMAT, "2026-11-23T00:00:00+00:00", Machine.here(), found)
    (chip, why), (commits, no_disk) = probe.missing_of(profile)
    assert (chip, why) == ("virtual chips", "the PC/SC rig needs pcscd: install it")
    assert commits == "commits"
    assert "nowhere" in no_disk


def test_rounds_end_with_their_time_and_slow_ones_before_it_is_far_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(probe.time, "perf_counter", lambda: now[0])

    def takes(seconds: float) -> Callable[[], None]:
        return lambda: now.__setitem__(0, now[0] + seconds)

    assert probe.rounds(takes(0.25), 10.0) == [0.25] * 41
    assert probe.rounds(takes(0.25), 0.0) == [0.25] * probe.LEAST_ROUNDS
    assert probe.rounds(takes(3.0), 1.0) == [3.0] * 2


class Reader:
    """A transport that notes what it was sent."""

    name = "Some Reader 00"

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.powered = 0

    def connect(self) -> bytes:
        self.powered += 1
        return b"\x3b\x00"

    def transmit(self, apdu: bytes) -> bytes:
        self.sent.append(apdu)
        return b"\x6a\x88"

    def disconnect(self) -> None:
        self.powered -= 1


def test_a_true_card_is_asked_only_what_changes_nothing() -> None:
    reader = Reader()
    measured = chips.apdu_seconds(reader, bytes.fromhex("A000000151000000"), BRIEF)
    assert {apdu[1] for apdu in reader.sent} == {0xA4, 0xCA}
    assert reader.powered == 0
    assert {one.labels["command"] for one in measured} == {"select", "get-data"}
    assert "chip_seconds" not in {one.quantity for one in measured}


def test_a_reader_that_fails_is_let_go() -> None:
    reader = Reader()

    def refuse(_: bytes) -> bytes:
        raise Unavailable("CHIP_GONE", "gone")

    reader.transmit = refuse  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        chips.apdu_seconds(reader, bytes(8), BRIEF)
    assert reader.powered == 0


def measurement(quantity: str, value: float, **labels: str) -> Measurement:
    return Measurement(quantity, "s", labels, Distribution.constant(value))


def test_merging_keeps_what_was_not_measured_again() -> None:
    earlier = [
        measurement("image_seconds", 1.0, batch="1"),
        measurement("chip_seconds", 6.0),
        probe.missing("cycle_seconds", "cycles", "old"),
    ]
    earlier += [probe.missing("image_seconds", "images", "old trouble")]
    new = [measurement("image_seconds", 2.0, batch="1"), probe.missing("stream_seconds", "streams", "too busy")]
    made = merge.merged(
        earlier, new, [probe.missing("chip_seconds", "chips", "not asked"), probe.missing("cycle_seconds", "cycles", "not asked")]
    )
    assert [(m.quantity, m.distribution.mean) for m in made if m.distribution] == [("image_seconds", 2.0), ("chip_seconds", 6.0)]
    assert [(m.labels["what"], m.labels["why"]) for m in made if m.quantity == NOT_MEASURED] == [("streams", "too busy"), ("cycles", "old")]


def test_a_failure_now_is_told_although_the_quantity_was_measured_elsewhere() -> None:
    new = [measurement("stream_seconds", 0.01, stations="1"), probe.missing("stream_seconds", "streams, 200 stations", "overloaded")]
    assert [m.quantity for m in merge.merged([], new)] == ["stream_seconds", NOT_MEASURED]


def test_figures_of_another_machine_are_not_merged() -> None:
    here = Machine.here()
    other = msgspec.structs.replace(here, host="0" * 16, cpu="another CPU")
    merge.check(CapacityProfile(FORMAT, "", here, []), here)
    with pytest.raises(InvalidInput, match="another machine") as caught:
        merge.check(CapacityProfile(FORMAT, "", other, []), here)
    assert caught.value.reason == "CAPACITY_MERGE"


def test_a_measured_profile_survives_its_file_and_warns_elsewhere(tmp_path: Path) -> None:
    made = CapacityProfile(FORMAT, "2026-11-23T00:00:00+00:00", Machine.here(), kernels.kernel_keys(BRIEF, batch=64))
    save(made, tmp_path / "p.json")
    again = load(tmp_path / "p.json")
    assert again == made
    assert again.warnings(Machine.here()) == []
    other = msgspec.structs.replace(Machine.here(), host="0" * 16, kernel_level="portable", cores=99)
    assert len(again.warnings(other)) >= 1


def test_the_command_says_everything_that_is_wrong_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        command.measure(
            out=tmp_path / "no" / "p.json", data=tmp_path / "none", pcsc=True, reader="ACS", job=["J1"], stations="1", module=Path("/none")
        )
    message = caught.value.message
    assert caught.value.reason == "MEASURE_OPTIONS"
    assert all(word in message for word in ("--out", "--data", "--pcsc and --reader", "--job goes with --from-ledger"))
    for wrong in ("0", "1,,2", "ten", "1,100000", "٣"):
        with pytest.raises(InvalidInput) as caught:
            command.measure(out=tmp_path / "p.json", stations=wrong, module=Path("/none"))
        assert caught.value.reason == "STATIONS_INVALID"


def window(**changes: Any) -> Window:
    """A window of a load run in which all went well."""
    values: dict[str, Any] = {field.name: 0 for field in dataclasses.fields(Window)}
    spreads = {name: Spread() for name in ("server_stream_s", "station_stream_s", "station_answer_s", "server_lag_s", "ledger_commit_s")}
    sound = {"lag_s": Spread(0.0001, 0.001, 0.002), "generator_core_share": 0.2, "streams": [0.004, 0.006], "server_cpu_per_card_s": 0.002}
    return Window(**(values | spreads | sound | {"doubts": []} | changes))


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[Measurement]]:
    """Measures streams of two stations against load runs that give the windows told."""
    asked = probes.Asked(tmp_path / "p.json", tmp_path, [PROFILES[0]], [2], command._QUICK, 1, "", False, None, None, False, None, [], None)

    def measure(*windows: Window) -> list[Measurement]:
        async def drive(_address: str, settings: Settings) -> Any:
            assert settings.checked().stations == 2
            return SimpleNamespace(windows=list(windows))

        monkeypatch.setattr("engine.load.run.drive", drive)
        return probes._stream(asked, "127.0.0.1:1", PROFILES[0], 2)

    return measure


def test_streams_of_all_windows_make_one_distribution(streams: Callable[..., list[Measurement]]) -> None:
    found = {m.quantity: m for m in streams(window(), window(streams=[0.008], server_cpu_per_card_s=0.004))}
    assert found.keys() == {"stream_seconds", "server_cpu_seconds"}
    assert [found["stream_seconds"].distribution.n, found["server_cpu_seconds"].distribution.n] == [3, 2]
    assert found["server_cpu_seconds"].distribution.mean == pytest.approx(0.003)


@pytest.mark.parametrize("trouble", [{"generator_core_share": 0.99}, {"lag_s": Spread(0.01, 0.5, 0.9)}])
def test_an_overloaded_generator_voids_its_figures(streams: Callable[..., list[Measurement]], trouble: dict[str, Any]) -> None:
    (found,) = streams(window(doubts=["the generator is the bottleneck"], **trouble))
    assert found.quantity == NOT_MEASURED
    assert "the generator is the bottleneck" in found.labels["why"]
    half = streams(window(), window(doubts=["the generator is the bottleneck"], **trouble))
    assert [m.distribution.n for m in half] == [2, 1]


def test_a_ledger_that_tells_nothing_is_said_before_anything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "harden", lambda **_: None)
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    with Ledger.open(tmp_path / "ledger.sqlite"):
        pass
    with pytest.raises(Precondition) as caught:
        command.measure(out=tmp_path / "p.json", from_ledger=tmp_path / "ledger.sqlite", module=Path("/none"))
    assert caught.value.reason == "NO_TIMINGS"
    assert not (tmp_path / "p.json").exists()


# The command with less time for each part.
RUN = """
import typer
from engine.cli.capacity import measure
measure._QUICK.update({name: 0.5 if name == "window" else 0.05 for name in measure._QUICK})
app = typer.Typer()
app.command()(measure.measure)
app()
"""


def test_the_whole_command_measures_streams_and_virtual_chips_into_a_file(tmp_path: Path) -> None:
    out = tmp_path / "p.json"
    arguments = [
        "--out",
        str(out),
        "--quick",
        "--stations",
        "2",
        "--pcsc",
        "--label",
        "no-such-token",
        "--pin-file",
        str(tmp_path / "pin"),
        "--json",
    ]
    (tmp_path / "pin").write_text("0000\n")
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, timeout=200, check=False, env=os.environ.copy()
    )
    assert done.returncode == 0, done.stderr
    made = load(out)
    assert json.loads(done.stdout) == json.loads(out.read_text())
    have = {m.quantity for m in made.measurements}
    assert have >= {
        *("kernel_keys", "image_seconds", "segment_seconds", "hsm_call_seconds", "ledger_commit_seconds"),
        *("stream_seconds", "server_cpu_seconds", "chip_seconds"),
    }, probe.missing_of(made)
    assert made.one("stream_seconds", profile=PROFILES[0], stations="2").distribution is not None
    assert made.one("chip_seconds", profile=PROFILES[0]).labels == {"profile": PROFILES[0], "transport": "pcsc", "chip": "virtual"}
    assert any("no-such-token" in what for what, _ in probe.missing_of(made))
    assert made.warnings(Machine.here()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.json", "pin"]
