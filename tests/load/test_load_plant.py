"""Load against a real server: its cards are real, its books close, and what cannot be is said in plain words."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
from citycard.v1 import jobs_pb2, station_pb2, stock_pb2
from citycard.v1.jobs_pb2_grpc import JobServiceStub
from citycard.v1.station_pb2_grpc import StationServiceStub
from citycard.v1.stock_pb2_grpc import StockServiceStub

from engine.cli import client
from engine.cli.plant import Plant
from engine.cli.teststore import create_test_store
from engine.load.desk import Desk
from engine.load.run import drive
from engine.load.settings import Settings
from engine.orders.columns import COLUMNS
from engine.profiles.masters import master_specs
from engine.profiles.model import load
from keys.custody.software import SoftwareCustody
from keys.errors import Denied, Precondition, Unavailable

PROFILE = "zhengzhou-citizen-card"
ROOT = Path(__file__).parent.parent.parent
PASSPHRASE = "a passphrase that is long enough for a production store"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A server with TEST keys for both shipped profiles, shared by the runs: each brings its own stock and stations."""
    with Plant(tmp_path_factory.mktemp("load") / "plant") as plant:
        plant.data.mkdir(parents=True)
        plant.passphrase_file.write_text(PASSPHRASE + "\n")
        create_test_store(plant.server_data, PASSPHRASE, [PROFILE, f"{PROFILE}-scp02"], scrypt_n=1 << 14)
        yield plant.start_server()


def run(address, **asked):
    asked = {"steps": (3,), "readers": 2, "chip_s": 0.02, **asked}
    return asyncio.run(drive(address, Settings(**asked)))


async def connected(channel, station):
    """Whether the server has the station on the line."""
    answer = await StationServiceStub(channel).ListStations(station_pb2.ListStationsRequest(), timeout=10)
    return station in {found["station"] for found in json.loads(answer.stations_json)["stations"]}


def command(*arguments, server):
    environment = {**os.environ, "CITYCARD_SERVER": server, "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    return subprocess.run(
        [sys.executable, "-m", "engine.cli.main", "load", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("profile", [PROFILE, f"{PROFILE}-scp02"])
def test_every_card_is_good_and_every_blank_counted(address, profile):
    result = run(address, cards=24, profile=profile, name=f"good-{profile[-1]}", chip_spread=0.1, print_s=0.01)
    books, window = result.books, result.windows[0]
    assert (books.job_states, books.lines, books.good, books.rejected) == (["COMPLETE"], 24, 24, 0)
    assert books.reconciled
    assert books.issued == books.drawn + books.left
    assert 0 < window.good <= 24
    assert window.connected == 3
    # the server and the stations measured the same thing, each on its side
    assert 0 < window.server_stream_s.p50 < window.station_stream_s.most
    assert len(window.streams) >= window.good - 6
    assert window.server_cpu_per_card_s > 0
    assert window.ledger_transitions_per_second > window.cards_per_second
    assert window.server_memory_bytes > 1 << 24
    assert any("few" in doubt for doubt in window.doubts)


def test_the_server_says_the_same_of_the_job(address):
    result = run(address, cards=12, name="books")

    async def look(channel):
        job = await Desk(channel).job(result.books.jobs[0])
        return job.good, job.scrapped, job.in_flight, job.remaining

    assert client.run(address, look) == (12, 0, 0, 0)


def test_torn_cards_are_scrap_and_made_again(address):
    result = run(address, steps=(6,), cards=60, fail=0.15, name="torn")
    books = result.books
    assert books.job_states == ["COMPLETE"]
    assert books.good == 60
    assert books.rejected > 0
    assert books.drawn == 60 + books.rejected
    assert books.reconciled


def test_instant_lines_go_first(address):
    result = run(address, cards=20, kind="mixed", name="mixed")
    assert result.books.job_states == ["COMPLETE", "COMPLETE"]
    assert result.books.lines == 20
    assert result.books.reconciled

    async def ends(channel):
        desk = Desk(channel)
        return [((await desk.job(job)).kind, (await desk.job(job)).ended_us) for job in result.books.jobs]

    (bulk, bulk_end), (instant, instant_end) = client.run(address, ends)
    assert (bulk, instant) == (1, 2)
    assert instant_end < bulk_end


def test_a_run_by_time_leaves_no_lines_behind(address):
    """Lines that are left when the time is over are cancelled, cards in hand finished, and nothing is missing."""
    result = run(address, duration_s=1.0, chip_s=0.1, name="timed")
    assert result.books.job_states == ["CANCELLED"]
    assert result.books.reconciled
    window = result.windows[0]
    assert 0 < window.good < result.books.good < result.books.lines
    assert window.seconds >= 1.0


def test_a_rate_is_kept_to(address):
    """Two stations of 18,000 cards an hour are ten cards a second, however fast chips would be."""
    result = run(address, steps=(2,), rate=18_000.0, duration_s=2.0, name="rate")
    assert result.windows[0].cards_per_second <= 10.0 * 1.15
    assert result.books.reconciled


def test_a_ramp_says_where_its_limit_is_passed(address):
    slow = run(address, steps=(1, 2, 3, 4), duration_s=0.5, p99_limit_s=1e-6, name="never")
    assert slow.limit_stations == 1
    assert slow.held is None
    assert [w.stations for w in slow.windows] == [1, 2]  # twice above the limit is enough
    fine = run(address, steps=(1, 3), duration_s=0.5, p99_limit_s=30.0, name="always")
    assert fine.limit_stations is None
    assert fine.held is max(fine.windows, key=lambda w: w.cards_per_second)
    assert fine.windows[1].heads == 6


def test_two_runs_on_one_server_close_their_books(address):
    """Stations of either run make whatever line comes: together all lines, and every blank where it was issued to."""

    async def both():
        asked = {"steps": (3,), "readers": 2, "chip_s": 0.02, "cards": 20}
        return await asyncio.gather(*(drive(address, Settings(**asked, name=name)) for name in ("left", "right")))

    results = asyncio.run(both())
    assert sum(result.books.good for result in results) == 40
    assert all(result.books.reconciled for result in results)


def test_stations_of_one_name_cannot_work_twice(address):
    """The second run is refused in the server's words, and leaves the first alone."""

    async def both():
        first = asyncio.create_task(drive(address, Settings(steps=(3,), readers=2, chip_s=0.2, cards=60, name="twice")))
        async with grpc.aio.insecure_channel(address) as channel:
            while not await connected(channel, "twice-1"):
                assert not first.done()
                await asyncio.sleep(0.05)
        with pytest.raises((Unavailable, grpc.aio.AioRpcError)) as caught:
            await drive(address, Settings(steps=(1,), cards=5, name="twice"))
        return caught.value, await first

    refusal, result = asyncio.run(both())
    assert "already connected" in str(refusal)
    assert result.books.good >= 60
    assert result.books.job_states == ["COMPLETE"]


def test_the_command_prints_what_json_holds(address, tmp_path):
    out = tmp_path / "load.json"
    done = command("--stations", "2", "--chip-time", "30ms", "--cards", "10", "--name", "cli", "--out", str(out), server=address)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["books"]["reconciled"] is True
    assert "streams" not in found["windows"][0]
    assert "the ledger and what feeders and bins counted agree" in done.stdout
    assert f"{found['books']['issued']} = {found['books']['good']} + 0 + 0 + {found['books']['left']}" in done.stdout
    assert "not to be trusted" in done.stdout  # ten cards
    again = command("--stations", "1", "--chip-time", "10ms", "--cards", "4", "--name", "cli-json", "--json", server=address)
    assert json.loads(again.stdout)["books"]["good"] == 4


@pytest.mark.parametrize(
    ("arguments", "reason", "words"),
    [
        (["--chip-time", "6"], "TIME_INVALID", "--chip-time '6'"),
        (["--duration", "soon"], "TIME_INVALID", "--duration"),
        (["--p99-limit", "20"], "TIME_INVALID", "--p99-limit"),
        (["--fail", "2"], "SHARE_INVALID", "percent sign"),
        (["--ramp", "50-400"], "RAMP_INVALID", "50:400:50"),
        (["--ramp", "1:4:1", "--cards", "5"], "LOAD_INVALID", "--duration of a step"),
        (["--stations", "0", "--readers", "99"], "LOAD_INVALID", "--readers is 1 to 64"),
        (["--rate-of", "1000", "--chip-time", "6s"], "LOAD_INVALID", "follows from it"),
        (["--orders", "no-such-file.csv"], "ORDERS_UNREADABLE", "no-such-file.csv"),
        (["--profile", "no-such-profile"], "PROFILE_UNKNOWN", "no-such-profile"),
        (["--cards", "1"], "SERVER_UNREACHABLE", "citycard serve"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(arguments, reason, words):
    done = command(*arguments, server="127.0.0.1:9")
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"[{reason}]" in done.stderr
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_order_file_without_a_good_line_is_no_load(address, tmp_path):
    orders = tmp_path / "orders.csv"
    orders.write_text(",".join(column.headings[0] for column in COLUMNS) + "\r\n" + "," * (len(COLUMNS) - 1) + "\r\n")
    with pytest.raises(Precondition) as caught:
        run(address, cards=1, orders=orders, name="empty")
    assert caught.value.reason == "NO_LINES"


def test_production_keys_are_refused_before_anything_is_done(tmp_path):
    """A server with a production store: no stock, no job, no station of a load run ever reaches it."""
    with Plant(tmp_path / "plant") as plant:
        plant.data.mkdir(parents=True)
        plant.passphrase_file.write_text(PASSPHRASE + "\n")
        specs = {spec.key_id: spec for spec in master_specs(load(PROFILE).profile)}
        with SoftwareCustody.create(plant.server_data, PASSPHRASE, test=False, scrypt_n=1 << 14) as store:
            store.generate_all(list(specs.values()))
        plant.start_server()
        with pytest.raises(Denied) as caught:
            run(plant.address, cards=1)
        assert caught.value.reason == "PRODUCTION_KEYS"

        async def look(channel):
            listed = await JobServiceStub(channel).ListJobs(jobs_pb2.ListJobsRequest(), timeout=10)
            stock = await StockServiceStub(channel).GetStock(stock_pb2.GetStockRequest(), timeout=10)
            return len(listed.jobs), json.loads(stock.stock_json)["lots"]

        assert client.run(plant.address, look) == (0, [])


def test_a_server_that_dies_under_the_load_is_said(tmp_path):
    with Plant(tmp_path / "plant") as plant:
        plant.make_keys(PROFILE)
        plant.start_server()
        threading.Timer(2.0, lambda: plant.kill("server")).start()
        with pytest.raises((Unavailable, grpc.aio.AioRpcError)):
            run(plant.address, duration_s=30.0, chip_s=0.2)
