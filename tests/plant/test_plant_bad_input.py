"""What an operator gets wrong, through the real command: one line that names place and rule, the right exit status, nothing half-done."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine.cli import main
from engine.cli.plant import Plant
from engine.ledger import lines
from engine.ledger.store import Ledger
from engine.orders.columns import COLUMNS
from engine.orders.synthetic import order_file
from engine.profiles.model import SHIPPED

if TYPE_CHECKING:
    from conftest import Works

PROFILE = "zhengzhou-citizen-card"
HEADING = ",".join(column.headings[0] for column in COLUMNS)
ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "tests" / "data"
MIB = 1 << 20
HUGE = 64 * MIB


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    status: int
    out: str
    err: str


def run(command: str, *, stdin: str = "", server: str = "", cwd: Path | None = None) -> Ran:
    environment = {**os.environ, "CITYCARD_SERVER": server or "127.0.0.1:9", "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    arguments = [sys.executable, "-m", "engine.cli.main", *shlex.split(command)]
    done = subprocess.run(arguments, input=stdin.encode(), capture_output=True, env=environment, cwd=cwd or ROOT, timeout=120, check=False)
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def run_here(command: str, *, stdin: str = "", server: str = "") -> Ran:
    """The same in this process, for commands that only ask: a new Python each, 80 times, would prove nothing more."""
    streams = [io.TextIOWrapper(io.BytesIO(content), "utf-8", write_through=True) for content in (stdin.encode(), b"", b"")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CITYCARD_SERVER", server)
        patch.setattr(sys, "argv", ["citycard", *shlex.split(command)])
        for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
            patch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as ended:
            main.run()
    out, err = (stream.buffer.getvalue().decode() for stream in streams[1:])
    assert isinstance(ended.value.code, int)
    return Ran(ended.value.code, out, err)


@dataclass(frozen=True)
class Case:
    """A command with something wrong in it, the reason it must be refused with, and words its message must hold."""

    name: str
    command: str
    reason: str
    words: str = ""
    status: int = 1


SUBMIT = "job submit {files}/"
SERVE = "serve --dev --bind 127.0.0.1:0 --passphrase-file {passphrase} --data {dirs}/"
CASES = [
    Case("no-file", SUBMIT + "nothing.csv", "ORDERS_UNREADABLE", "nothing.csv: No such file"),
    Case("unreadable-file", "job submit /proc/self/mem", "ORDERS_UNREADABLE", "/proc/self/mem: Input/output error"),
    Case("unreadable-on-the-way", "job submit /proc/self/mem --idempotency-key way", "ORDERS_UNREADABLE", "/proc/self/mem: Input/output"),
    Case("directory", "job submit {files}", "ORDERS_UNREADABLE", "directory"),
    Case("empty-file", SUBMIT + "empty.csv", "ORDERS_EMPTY", "empty.csv: "),
    Case("heading-only", SUBMIT + "heading.csv", "ORDERS_NO_ROWS", "heading.csv: "),
    Case("neither-encoding", SUBMIT + "encoding.csv", "ORDERS_ENCODING", "line 2, byte"),
    Case("utf-16", SUBMIT + "utf16.csv", "ORDERS_ENCODING", "UTF-16"),
    Case("unknown-encoding", SUBMIT + "good.csv --encoding big5", "ENCODING_UNKNOWN", "'big5'"),
    Case("missing-column", SUBMIT + "column.csv", "ORDERS_HEADING_MISSING", "line 1: there is no column name"),
    Case("column-twice", SUBMIT + "twice.csv", "ORDERS_HEADING_DUPLICATE", "line 1"),
    Case("all-rows-bad", SUBMIT + "allbad.csv", "JOB_EMPTY", "rejects"),
    Case("heading-of-64-mib", SUBMIT + "hugehead.csv", "ORDERS_HEADING_TOO_LONG", "line 1"),
    Case("due", SUBMIT + "good.csv --due tomorrow", "DUE_INVALID", "'tomorrow'"),
    Case("unknown-profile", SUBMIT + "good.csv --profile nix", "PROFILE_UNKNOWN", PROFILE),
    Case("profile-lint", SUBMIT + "good.csv --profile {files}/lint.toml", "PROFILE_LINT", "channel.level"),
    Case("unreachable", "job list --server 127.0.0.1:9", "SERVER_UNREACHABLE", "127.0.0.1:9"),
    Case("server-elsewhere", "job list --server 192.0.2.1:7443", "SERVER_ADDRESS", "loopback"),
    Case("server-no-port", "job list --server localhost", "SERVER_ADDRESS", "'localhost'"),
    *(Case(f"unknown-job-{verb}", f"job {verb} J0", "JOB_UNKNOWN", "J0") for verb in ("show", "watch")),
    Case("unknown-lot", "stock issue L9 s1 1", "LOT_UNKNOWN", "L9"),
    Case("more-than-in-store", "stock issue L1 s1 51", "NO_BLANKS", "50 blanks of lot L1, not 51"),
    Case("more-back-than-given", "stock return L1 s1 1", "NO_BLANKS", "s1"),
    Case("count-of-nobody", "stock count nobody --feeder 0 --good 0 --reject 0", "STATION_UNKNOWN", "nobody"),
    Case("destroy-alone", "scrap destroy 1 --first Li --second li", "DUAL_CONTROL", "two different people"),
    Case("no-command", "nonsense", "USAGE", "'nonsense'", 2),
    Case("no-argument", "job show", "USAGE", "citycard job show --help", 2),
    Case("bad-option", SUBMIT + "good.csv --bogus", "USAGE", "--bogus", 2),
    Case("log-level", SERVE + "good --log-level loud", "LOG_LEVEL", "'loud'"),
    Case("port-taken", SERVE + "good --bind {server}", "PORT_TAKEN", "{server}"),
    Case("not-loopback", SERVE + "good --bind 0.0.0.0:7443", "BIND_REFUSED", "mutual TLS"),
    Case("locked", "serve --dev --bind 127.0.0.1:0 --passphrase-file {passphrase} --data {locked}", "DATA_LOCKED", "process {pid}"),
    Case("no-data", SERVE + "nowhere", "DATA_MISSING", "nowhere"),
    Case("ledger-newer", SERVE + "newer", "LEDGER_NEWER", "newer version"),
    Case("ledger-damaged", SERVE + "damaged", "LEDGER_CORRUPT", "damaged"),
    Case("ledger-of-others", SERVE + "foreign", "LEDGER_FOREIGN", "no ledger"),
    Case("keystore-damaged", SERVE + "badkeys", "KEYSTORE_CORRUPT", "damaged"),
    Case("passphrase-wrong", SERVE + "good --passphrase-file {files}/wrong", "WRONG_PASSPHRASE", "does not open"),
    Case("passphrase-unreadable", SERVE + "good --passphrase-file {files}", "PASSPHRASE_UNREADABLE", "directory"),
    Case("passphrase-missing", "serve --dev --data {dirs}/good", "PASSPHRASE_MISSING", "--passphrase-file"),
    Case("test-keys", (SERVE + "good").replace(" --dev", ""), "TEST_KEYS_REFUSED", "TEST"),
    Case("keys-exist", "keys init --test --data {dirs}/good --passphrase-file {passphrase}", "KEYSTORE_EXISTS", "never overwritten"),
    Case("keys-production", "keys init --data {dirs}/fresh --passphrase-file {passphrase}", "CEREMONY_NEEDED", "--test"),
    Case("station-lot", "station s --data {dirs}/s1 --lot xyz", "LOT_INVALID", "'xyz'"),
    Case("station-rig", "station s --data {dirs}/s2 --rig here", "RIG_INVALID", "'here'"),
    Case("station-busy-directory", "station s --data {locked}", "DATA_LOCKED", "process {pid}"),
    Case("virtual-address", "virtual serve --vpcd here", "VPCD_ADDRESS", "'here'"),
    Case("demo-no-orders", "demo --orders {files}/nothing.csv --data {dirs}/demo", "ORDERS_UNREADABLE", "nothing.csv"),
    Case("demo-not-fresh", "demo --orders {files}/good.csv --data {dirs}/good", "DATA_NOT_FRESH", "not empty"),
    Case("demo-profile", "demo --orders {files}/good.csv --data {dirs}/demo2 --profile nix", "PROFILE_UNKNOWN", "nix"),
]
JSON_CASES = (
    "no-file",
    "profile-lint",
    "unknown-job-show",
    "more-than-in-store",
    "bad-option",
)


# What these begin takes hold of its process: memory is locked, logs are set up, signals are heard.
LASTING = ("serve", "station ", "demo", "virtual")


class Site:
    """One running server, bad files, and broken data directories; runs commands in this process, or processes four at a time."""

    def __init__(self, plant: Plant, home: Path) -> None:
        self.plant = plant
        self.places = {
            "files": home / "files",
            "dirs": home / "dirs",
            "passphrase": plant.passphrase_file,
            "locked": plant.server_data,
            "server": plant.address,
            "pid": plant.pid("server"),
        }
        self._files(home / "files")
        self._directories(home / "dirs")
        self._pool = ThreadPoolExecutor(4)
        self._runs: dict[str, Future[Ran]] = {}
        self._here: dict[str, Ran] = {}

    def run(self, command: str, stdin: str = "") -> Ran:
        return run_here(command.format(**self.places), server=self.plant.address, stdin=stdin)

    def _process(self, command: str) -> Ran:
        return run(command.format(**self.places), server=self.plant.address)

    def begin(self, cases: dict[str, str]) -> None:
        """Starts commands as processes of their own, whose `result` is asked for later."""
        for name, command in cases.items():
            self._runs[name] = self._pool.submit(self._process, self._apart(command))

    def _apart(self, command: str) -> str:
        """Cases run side by side, and a data directory has one user: each server gets a copy of its own."""
        found = re.search(r"\{dirs\}/(\w+)", command) if command.startswith("serve") else None
        if found is None or not (self.places["dirs"] / found[1]).exists():
            return command
        own = f"{found[1]}-{len(self._runs)}"
        shutil.copytree(self.places["dirs"] / found[1], self.places["dirs"] / own)
        return command.replace(f"{{dirs}}/{found[1]}", f"{{dirs}}/{own}")

    def result(self, name: str) -> Ran:
        """What the case came to: as a process if it was begun as one, else in this process, once."""
        if name in self._runs:
            return self._runs[name].result()
        if name not in self._here:
            self._here[name] = self.run(next(case.command for case in CASES if case.name == name))
        return self._here[name]

    def jobs(self) -> list[dict[str, Any]]:
        return list(json.loads(self.run("job list --json").out)["jobs"])

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    @staticmethod
    def _files(files: Path) -> None:
        files.mkdir()
        good = b"".join(order_file(3))
        heading, _, rows = good.partition(b"\r\n")
        (files / "good.csv").write_bytes(good)
        (files / "empty.csv").touch()
        (files / "heading.csv").write_bytes(heading + b"\r\n")
        (files / "encoding.csv").write_bytes(heading + b"\r\n1,\xff\xff\x80,x\r\n")
        (files / "utf16.csv").write_bytes(good.decode().encode("utf-16"))
        (files / "column.csv").write_bytes(good.replace("姓名,".encode(), b"", 1))
        (files / "twice.csv").write_bytes(good.replace("性别,".encode(), "姓名,".encode(), 1))
        (files / "allbad.csv").write_bytes(heading + b"\r\nx\r\ny\r\nz\r\n")
        (files / "wrong").write_text("another passphrase\n")
        text = (SHIPPED / f"{PROFILE}.toml").read_text()
        (files / "lint.toml").write_text(re.sub(r'^i = "70"', 'i = "00"', text, flags=re.MULTILINE))
        with (files / "hugehead.csv").open("wb") as file:
            file.truncate(HUGE)
        with (files / "huge.csv").open("wb") as file:
            file.write(heading + b"\r\n")
            file.seek(HUGE, os.SEEK_CUR)
            file.write(b"\r\n" + rows)

    def _directories(self, dirs: Path) -> None:
        for name in ("good", "newer", "damaged", "foreign", "badkeys"):
            (dirs / name).mkdir(parents=True)
            shutil.copy(self.plant.server_data / "keystore.json", dirs / name)
        Ledger.open(dirs / "newer" / "ledger.sqlite").close()
        shutil.copy(dirs / "newer" / "ledger.sqlite", dirs / "damaged")
        with sqlite3.connect(dirs / "newer" / "ledger.sqlite") as database:
            database.execute("update alembic_version set version_num = 'v9999'")
        with (dirs / "damaged" / "ledger.sqlite").open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * 40960)
        with sqlite3.connect(dirs / "foreign" / "ledger.sqlite") as database:
            database.execute("create table notes (text)")
        keys = dirs / "badkeys" / "keystore.json"
        keys.write_text(re.sub(r'"test": ?true', '"test":false', keys.read_text(), count=1))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("bad-input")
    with Plant(home / "plant") as plant:
        plant.make_keys(PROFILE)
        plant.start_server()
        made = Site(plant, home)
        assert made.run("stock receive L1 50 --by test").status == 0
        made.begin({case.name: case.command for case in CASES if case.command.startswith(LASTING)})
        made.begin({f"{case.name} --json": f"{case.command} --json" for case in CASES if case.name in JSON_CASES})
        yield made
        made.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_line_says_what_is_wrong_and_where(site: Site, case: Case) -> None:
    ran = site.result(case.name)
    assert ran.status == case.status, ran
    assert ran.out == ""
    assert re.fullmatch(rf"error: [^\n]+ \[{case.reason}\w*\]\n", ran.err), ran.err
    assert case.words.format(**site.places) in ran.err


@pytest.mark.parametrize("name", JSON_CASES)
def test_with_json_the_error_is_one_object_on_stdout(site: Site, name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    ran = site.result(f"{name} --json")
    assert (ran.status, ran.err) == (case.status, "")
    assert ran.out.count("\n") == 1
    error = json.loads(ran.out)["error"]
    assert error["reason"] == case.reason
    assert error["message"]


def test_no_arguments_shows_the_help(site: Site) -> None:
    for command in ("", "job"):
        ran = site.run(command)
        assert (ran.status, ran.err) == (2, "")
        assert "Commands" in ran.out


def test_afterwards_nothing_is_half_done(site: Site) -> None:
    for case in CASES:
        site.result(case.name)
    stock = json.loads(site.run("stock show --json").out)
    assert stock["lots"][0]["in_store"] == 50
    # other tests cancel every job of theirs
    jobs = [j for j in site.jobs() if j["state"] != "CANCELLED"]
    assert {(j["state"], j["accepted"], j["rejected"]) for j in jobs} == {("STAGING", 0, 0), ("READY", 0, 3)}
    assert {j["waiting_for"] for j in jobs if j["state"] == "STAGING"} == {"an order file that can be taken in: none has arrived yet"}
    assert list((site.plant.server_data / "uploads").iterdir()) == []
    made = {path.name for path in Path(str(site.places["dirs"])).iterdir()}
    assert not made & {"nowhere", "fresh", "demo"}
    log = site.plant.log_file("server").read_text()
    assert "Traceback" not in log
    assert "unexpected" not in log


def test_every_bad_row_is_told_by_line_field_and_rule(site: Site) -> None:
    site.result("all-rows-bad")
    job = next(j["job_id"] for j in site.jobs() if j["state"] == "READY")
    rejects = json.loads(site.run(f"job rejects {job} --json").out)["rejects"]
    assert {reject["line"] for reject in rejects} == {2, 3, 4}
    assert all(reject["rule"] and reject["message"] for reject in rejects)


def peak_memory(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", text)[0]) * 1024


def test_a_line_of_64_mib_costs_one_line_and_little_memory(site: Site) -> None:
    before = peak_memory(site.plant.pid("server"))
    began = time.monotonic()
    ran = site.run("job submit {files}/huge.csv --no-start --json")
    assert ran.status == 0, ran.err
    assert time.monotonic() - began < 30
    job = json.loads(ran.out)
    assert (job["lines"], job["accepted"], job["rejected"]) == (4, 3, 1)
    rejects = json.loads(site.run(f"job rejects {job['job_id']} --json").out)["rejects"]
    assert [(reject["line"], reject["rule"]) for reject in rejects] == [(2, "line-too-long")]
    assert peak_memory(site.plant.pid("server")) - before < HUGE
    site.run(f"job cancel {job['job_id']}")


def test_submitted_twice_is_one_job_and_says_so(site: Site) -> None:
    first = json.loads(site.run("job submit {files}/good.csv --no-start --json --idempotency-key twice").out)
    second = json.loads(site.run("job submit {files}/good.csv --no-start --json --idempotency-key twice").out)
    assert first == second
    other = site.run("job submit {files}/good.csv --no-start --idempotency-key twice --priority 2")
    assert "IDEMPOTENCY_MISMATCH" in other.err
    assert first["job_id"] in other.err
    assert site.run(f"job cancel {first['job_id']}").status == 0
    again = site.run("job submit {files}/good.csv --no-start --idempotency-key twice")
    assert "CANCELLED" in again.out
    assert "--idempotency-key" in again.out


def test_with_json_every_command_that_reports_prints_one_object(site: Site) -> None:
    moves = ["receive L7 5", "issue L7 s7 5", "return L7 s7 1", "count s7 --feeder 4 --good 0 --reject 0"]
    commands = [f"stock {move} --by test" for move in moves]
    job = json.loads(site.run("job submit {files}/good.csv --json --idempotency-key json").out)["job_id"]
    commands += [f"job pause {job}", f"job resume {job}", f"job cancel {job}", f"job results {job}", f"job destroy-data {job}"]
    ran = [site.run(f"{command} --json") for command in commands]
    looks = (
        "stations",
        "profile list",
        f"profile show {PROFILE}",
        f"profile lint {PROFILE}",
        "keys list --data {dirs}/good --passphrase-file {passphrase}",
    )
    ran += [site.run(f"{look} --json") for look in looks]
    for one in ran:
        assert (one.status, one.err, one.out.count("\n")) == (0, "", 1)
        assert isinstance(json.loads(one.out), dict)


def test_calc_answers_every_line_and_exits_2_when_one_was_wrong(site: Site) -> None:
    good = '{"id":1,"op":"kcv","algorithm":"aes","key":"00112233445566778899AABBCCDDEEFF"}'
    ran = site.run("calc", f"{good}\n[]\n{{\n\xff\n{{}}\n" + '{"op":"kcv","algorithm":"aes","key":"zz"}\n' + f"{good}\n")
    answers = [json.loads(line) for line in ran.out.splitlines()]
    assert (ran.status, ran.err, len(answers)) == (2, "", 7)
    assert ["error" in answer for answer in answers] == [False, True, True, True, True, True, False]
    assert site.run("calc", good).status == 0


def test_a_job_whose_profile_is_gone_stops_nobody_else(works: Works, tmp_path: Path, orders: Callable[..., Path]) -> None:
    profile = tmp_path / "own.toml"
    shutil.copy(SHIPPED / f"{PROFILE}.toml", profile)
    submitted = run(f"job submit {orders(2)} --json --profile own.toml", server=works.address, cwd=tmp_path)
    assert submitted.status == 0, submitted
    job = json.loads(submitted.out)["job_id"]
    text = profile.read_text()
    profile.write_text(text + "\n# changed\n")
    changed = run(f"job submit {orders(2)} --idempotency-key k --profile {profile}", server=works.address)
    assert "PROFILE_CHANGED" in changed.err
    for content, word in ((text + "\n# changed\n", "not the one"), (None, "No such file")):
        works.plant.stop("server")
        profile.unlink() if content is None else profile.write_text(content)
        works.restart_server()
        assert word in works.job(job).waiting_for
    works.add_station("one", 4)
    other = works.submit(orders(2, first=10))
    works.wait(other.job_id, lambda j: j.state == "COMPLETE")
    assert works.job(job).good == 0
    works.plant.stop("server")
    profile.write_text(text)
    works.restart_server()
    works.wait(job, lambda j: j.state == "COMPLETE" and j.good == 2)


def mounted(directory: Path, size: str) -> bool:
    """A file system of a few megabytes, where this process may mount one."""
    directory.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(directory)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_full_disk_leaves_nothing_half_done(tmp_path: Path, orders: Callable[..., Path]) -> None:
    """A real small disk where one can be mounted; elsewhere a limit on the size of files, which a ledger meets as a failing disk."""
    small = tmp_path / "plant" / "server"
    is_disk = mounted(small, "2m")
    try:
        with Plant(tmp_path / "plant") as plant:
            plant.make_keys(PROFILE)
            plant.start_server()
            if not is_disk:
                resource.prlimit(plant.pid("server"), resource.RLIMIT_FSIZE, (MIB, resource.RLIM_INFINITY))
            path = orders(3500)
            ran = run(f"job submit {path}", server=plant.address)
            assert ran.status == 1
            assert re.fullmatch(rf"error: [^\n]+ \[{'DISK_FULL' if is_disk else 'LEDGER_IO'}\]\n", ran.err), ran.err
            [job] = json.loads(run("job list --json", server=plant.address).out)["jobs"]
            assert (job["state"], job["lines"]) == ("STAGING", 0)
            assert list((small / "uploads").iterdir()) == []
            if is_disk:
                subprocess.run(["mount", "-o", "remount,size=16m", str(small)], check=True)
            else:
                assert "LEDGER_STOPPED" in run("stock receive L1 1", server=plant.address).err
                plant.stop("server")
                plant.start_server()
            again = json.loads(run(f"job submit {path} --json", server=plant.address).out)
            assert (again["job_id"], again["state"], again["accepted"]) == (job["job_id"], "RUNNING", 3500)
    finally:
        if is_disk:
            subprocess.run(["umount", str(small)], check=True)


def test_lines_left_by_a_killed_intake_do_not_block_the_next_try(works: Works, orders: Callable[..., Path]) -> None:
    path = orders(5)
    content = path.read_bytes()
    path.write_bytes(b"")
    run(f"job submit {path} --idempotency-key left", server=works.address)
    job_id = json.loads(run("job list --json", server=works.address).out)["jobs"][0]["job_id"]
    path.write_bytes(content)
    works.plant.stop("server")
    with Ledger.open(works.plant.server_data / "ledger.sqlite") as ledger:
        ledger.run(lambda tx: lines.add_batch(tx, job_id, [(2, bytes(16), bytes(16), b"half"), (9, bytes(16), bytes(16), b"done")]))
    works.restart_server()
    ran = run(f"job submit {path} --idempotency-key left --json", server=works.address)
    assert ran.status == 0, ran.err
    assert (json.loads(ran.out)["job_id"], json.loads(ran.out)["accepted"]) == (job_id, 5)


def test_the_defects_sample_through_the_demo(tmp_path: Path) -> None:
    """Bad rows are no failure: what is left is made, the rejects are told, and the status is 0."""
    ran = run(f"demo --orders {DATA / 'orders-defects.gb18030.csv'} --data {tmp_path / 'demo'} --stations 3 --json")
    assert ran.status == 0, ran
    result = json.loads(ran.out.splitlines()[-1])
    wanted = [line.split(",") for line in (DATA / "orders-defects.expected.csv").read_text().splitlines()[1:]]
    assert {reject["line"] for reject in result["rejects"]} == {int(line) for line, _ in wanted}
    found = {(reject["line"], reject["rule"]) for reject in result["rejects"]}
    assert {(int(line), rule) for line, rule in wanted} <= found
    assert len(found) == len(result["rejects"])
    assert all(set(reject) == {"line", "field", "rule", "message"} for reject in result["rejects"])
    assert result["rejected"] == len(wanted)
    assert result["lines"] == result["accepted"] + result["rejected"]
    assert (result["good"], result["reconciled"], result["scrapped"]) == (result["accepted"], True, 0)
    assert result["blanks_drawn"] >= result["good"]
    assert result["cards_per_second"] > 0


def test_a_demo_told_to_stop_stops_all_its_processes(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "engine.cli.main", "demo", "--data", str(tmp_path / "d"), "--stations", "1", "--json"]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    log = tmp_path / "d" / "log" / "server.log"
    deadline = time.monotonic() + 30
    while not (log.exists() and "station connected" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    server = json.loads(log.read_text().splitlines()[0])["pid"]
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"Traceback" not in out + err
    assert not Path(f"/proc/{server}").exists()
