"""No clear secret outside locked memory: known names, numbers and keys go through a whole run, and every file is searched for them."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest
from citycard.v1 import jobs_pb2 as pb
from citycard.v1.jobs_pb2_grpc import JobServiceStub

from engine.cli import client
from engine.ledger import attempts, audit
from engine.ledger.attempts import Attempt
from engine.ledger.jobs import get
from engine.ledger.serials import SerialAllocator
from engine.ledger.states import AttemptState
from engine.ledger.store import Ledger
from engine.orders.columns import COLUMNS
from engine.orders.pii import JobSeal
from engine.orders.synthetic import order_file, row
from engine.personalize.image import pin_blocks
from engine.production.card import CardInMaking, static_keys
from engine.production.cardroom import CardRoom
from engine.production.context import Context
from engine.production.stationlink import Run
from engine.virtual.birth import TEST_KMC
from keys.custody.software import SoftwareCustody
from keys.errors import CitycardError
from keys.secrets import SecretBytes

if TYPE_CHECKING:
    from conftest import Works

ROOT = Path(__file__).parent.parent.parent
NAMES = [column.headings[0] for column in COLUMNS]
# a person's data, column by column; issue dates, banks and the like are nobody's secret
PERSONAL = [NAMES.index(n) for n in ("社会保障号码", "姓名", "社保卡卡号", "银行账号", "联系电话", "通讯地址", "照片文件")]
CARDS = 8
# numbers without runs of zeros, which chip numbers have too; among the names is one that is too long for its field
FIRST = 31_415_993


def number_forms(digits: str) -> set[bytes]:
    packed = bytes.fromhex(digits + "F" * (len(digits) % 2)) if digits.isdecimal() else b""
    return {digits.encode(), digits.encode("utf-16le"), *byte_forms(packed or digits.encode())}


def byte_forms(secret: bytes) -> set[bytes]:
    text = secret.hex()
    # base64 of three alignments: what surrounds the secret shifts it
    coded = {base64.b64encode(bytes(n) + secret)[4 if n else 0 : (len(secret) + n) * 4 // 3 - 2] for n in range(3)}
    return {secret, text.encode(), text.upper().encode(), secret[::-1], *coded}


def personal_needles(rows: Iterable[tuple[str, ...]]) -> set[bytes]:
    found: set[bytes] = set()
    for values in rows:
        for at in PERSONAL:
            value = values[at]
            found |= number_forms(value) if value.isascii() else {value.encode(), value.encode("gb18030"), value.encode("utf-16le")}
            if not value.isascii():
                found.add(json.dumps(value)[1:-1].encode())
    return {needle for needle in found if len(needle) >= 6}


class Searcher:
    """Many needles in many bytes: the first six bytes of every position are looked up among those of the needles."""

    def __init__(self, needles: set[bytes]) -> None:
        self._by_head: dict[int, list[bytes]] = {}
        for needle in needles:
            self._by_head.setdefault(int.from_bytes(needle[:6], "little"), []).append(needle)
        self._heads = np.array(sorted(self._by_head), np.uint64)

    def hits(self, content: bytes) -> list[tuple[int, int]]:
        """(offset, length of the needle) of every hit; never the needle itself."""
        array = np.frombuffer(content, np.uint8).astype(np.uint64)
        if len(array) < 6:
            return []
        heads = np.zeros(len(array) - 5, np.uint64)
        for place in range(6):
            heads |= array[place : len(array) - 5 + place] << np.uint64(8 * place)
        found = np.flatnonzero(np.isin(heads, self._heads))
        pairs = ((int(at), needle) for at in found for needle in self._by_head[int(heads[at])])
        return [(at, len(needle)) for at, needle in pairs if content.startswith(needle, at)]

    def search(self, home: Path, excepted: Callable[[Path], bool]) -> dict[str, list[tuple[int, int]]]:
        files = [path for path in sorted(home.rglob("*")) if path.is_file() and not excepted(path)]
        assert len(files) > 10
        return {str(path.relative_to(home)): hits for path in files if (hits := self.hits(path.read_bytes()))}


def not_searched(path: Path) -> bool:
    """The chips' own memories are the cards; the passphrase is the operator's file; the orders are the issuer's."""
    return path.suffix == ".nvm" or path.name == "passphrase"


def chosen_rows() -> list[tuple[str, ...]]:
    return [row(i) for i in range(FIRST, FIRST + CARDS)]


def defective_rows() -> list[tuple[str, ...]]:
    """Rows that are rejected, and must not be told in full by what rejects them."""
    made = []
    for i, column in enumerate(("社会保障号码", "银行账号", "社保卡卡号", "照片文件")):
        values = list(row(FIRST + 500 + i))
        at = NAMES.index(column)
        values[at] = values[at][:-5] + ("00000" if values[at][-5:] != "00000" else "11111")
        made.append(tuple(values))
    return [*made, row(FIRST)]


async def cards_of(works: Works, custody: SoftwareCustody) -> tuple[list[CardInMaking], list[Attempt]]:
    """Every card that reached its image, made again from the ledger with the very keys it had."""
    with Ledger.open(works.plant.server_data / "ledger.sqlite") as ledger:
        context = Context(ledger, custody, SerialAllocator(ledger))
        room = CardRoom(context)
        states = {AttemptState.STACKED, AttemptState.SCRAP_PENDING}
        found = ledger.read(lambda conn: attempts.in_states(conn, states))
        runs = [Run(a, ledger.read(lambda conn, a=a: get(conn, a.job_id)).profile, a.station_id) for a in found]
        return [await room.rebuild(run) for run in runs], found


def key_needles(custody: SoftwareCustody, cards: list[CardInMaking], found: list[Attempt], wrapped: Iterable[bytes]) -> set[bytes]:
    secrets = [bytes(key.reveal()) for (key_id, _), key in custody._masters.items() if bytes(key.reveal()) != TEST_KMC]
    secrets += [bytes(custody._root.reveal()), *(bytes(custody.unwrap_data_key(w).reveal()) for w in wrapped)]
    secrets += [bytes(custody.hmac_key(purpose).reveal()) for purpose in ("duplicates", "pin", "image-digest")]
    assert len(secrets) > 120
    for card, attempt in zip(cards, found, strict=True):
        assert card._keys is not None
        assert card._issuer is not None
        secrets += [key.tobytes() for key in card._keys.array[:, 0]] + [key.tobytes() for key in card._issuer.array[:, 0]]
        with static_keys(custody, card.profile.channel.transport, bytes.fromhex(attempt.chip_id or "")) as keys:
            secrets += [key.tobytes() for key in keys.array[:, 0]]
        secrets.append(pin_blocks(custody.hmac_key("pin"), [attempt.token], card.profile.pin.digits)[0].tobytes())
    return {form for secret in secrets for form in byte_forms(secret)}


def capture(works: Works, *commands: str) -> None:
    """Runs commands as an operator does, and keeps what they print beside the plant's logs."""

    def one(command: str) -> bytes:
        arguments = [sys.executable, "-m", "engine.cli.main", *command.split(), "--server", works.address]
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, check=False, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"})
        assert done.returncode == 0, done.stderr
        if command.endswith("--json"):
            assert done.stderr == b""
            assert [isinstance(json.loads(line), dict) for line in done.stdout.splitlines()] == [True]
        return done.stdout + done.stderr

    with ThreadPoolExecutor(4) as pool:
        for at, text in enumerate(pool.map(one, commands)):
            (works.plant.data / f"printed-{at}.txt").write_bytes(text)


def test_searcher_finds_every_form() -> None:
    secret, card = bytes(range(200, 216)), row(FIRST)
    searcher = Searcher(byte_forms(secret) | personal_needles([card]))
    forms = [secret, secret.hex().encode(), secret.hex().upper().encode(), *(base64.b64encode(b"x" * n + secret) for n in range(3))]
    forms += [card[NAMES.index("姓名")].encode("gb18030"), bytes.fromhex(card[NAMES.index("银行账号")] + "F")]
    for form in forms:
        assert searcher.hits(b"before" + form + b"after"), form
    assert searcher.hits(bytes(100)) == []


@pytest.mark.timeout(120)
def test_no_file_and_no_message_holds_a_clear_secret(works: Works, tmp_path: Path) -> None:
    """Cards made, cards scrapped, rows refused, a station killed with a card in hand: nothing of it anywhere in clear."""
    orders = tmp_path / "orders.csv"
    lines = [",".join(NAMES), *(",".join(values) for values in (*chosen_rows(), *defective_rows()))]
    orders.write_text("\r\n".join(lines) + "\r\n")
    works.add_station("liar", 12, faults={"chips": {f"0A01{2:016X}": {"lies": ["generate-ac"]}}})
    works.add_station("killed", 12, faults={"chips": {f"0A01{14:016X}": {"die": {"at": 60, "when": "after"}}}})
    job = works.submit(orders)
    assert (job.accepted, job.rejected) == (CARDS, len(defective_rows()))
    works.wait(job.job_id, lambda j: j.good >= 2)
    works.plant.kill("killed")
    personal = Searcher(personal_needles([*chosen_rows(), *defective_rows()]))
    assert personal.search(works.plant.data, not_searched) == {}
    works.start_station("killed")
    done = works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    assert (done.good, done.scrapped >= 1) == (CARDS, True)
    verbs = [f"job {verb} {job.job_id}" for verb in ("show", "report", "rejects", "watch")]
    capture(works, *verbs, *(f"{verb} --json" for verb in verbs), "job list --json", "stock show --json", "scrap list --json", "scrap list")
    capture_results(works, job.job_id, tmp_path)
    for name in ("liar", "killed"):
        assert works.plant.stop(name) == 0
    (works.plant.data / "report.json").write_text(json.dumps(works.report(job.job_id)))
    assert personal.search(works.plant.data, not_searched) == {}

    works.plant.stop("server")
    with SoftwareCustody.open(works.plant.server_data, works.plant.passphrase_file.read_text().strip(), mode="test") as custody:
        cards, found = asyncio.run(cards_of(works, custody))
        assert len(cards) > CARDS
        with sqlite3.connect(works.plant.server_data / "ledger.sqlite") as database:
            wrapped = [bytes(w) for (w,) in database.execute("select pii_key_wrapped from jobs")]
        keys = Searcher(key_needles(custody, cards, found, wrapped))
        check_what_objects_say(custody, cards, Searcher(key_needles(custody, cards, found, wrapped)), personal)
    with Ledger.open(works.plant.server_data / "ledger.sqlite") as ledger:
        ledger.read(lambda conn: audit.export(conn, works.plant.data / "audit.jsonl"))
    for searcher in (personal, keys):
        assert searcher.search(works.plant.data, not_searched) == {}


def capture_results(works: Works, job_id: str, place: Path) -> None:
    """The return file names the cards, as the issuer needs them, and nothing else of their holders."""
    arguments = [
        sys.executable,
        "-m",
        "engine.cli.main",
        "job",
        "results",
        job_id,
        "--server",
        works.address,
        "--out",
        str(place / "results.csv"),
    ]
    subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True)
    content = (place / "results.csv").read_bytes()
    numbers = {values[NAMES.index("社保卡卡号")] for values in chosen_rows()}
    assert {line.split(",")[1] for line in content.decode().splitlines()[1:]} == numbers
    for number in numbers:
        content = content.replace(number.encode(), b"")
    assert Searcher(personal_needles(chosen_rows())).hits(content) == []


def check_what_objects_say(custody: SoftwareCustody, cards: list[CardInMaking], keys: Searcher, personal: Searcher) -> None:
    """repr of everything that holds a secret, and the errors it raises when it is fed nonsense."""
    card = cards[0]
    said: list[object] = [custody, custody.hmac_key("pin"), SecretBytes(bytes(range(32))), card, *vars(card).values()]
    said += [vars(custody), card._session, card.material(), JobSeal(custody.hmac_key("pin").reveal(), "J1")]
    segment = card.personalization()
    nonsense: list[Callable[[], object]] = [
        lambda: card.accept_personalization(b""),
        lambda: card.accept_personalization(b"\x00\x02\x90\x00" * len(segment.commands)),
        lambda: card.first_proof(b"\x00\x02\x90\x00" * len(segment.commands)),
        lambda: card.next_proof(b""),
        lambda: card.rebuild(bytes(8), bytes(32), {}, b""),
        lambda: JobSeal(custody.hmac_key("pin").reveal(), "J1").open_row(1, bytes(60)),
        lambda: custody.unwrap_data_key(bytes(40)),
        lambda: custody.derive([], [np.zeros((1, 8), np.uint8)]),
    ]
    for mistake in nonsense:
        with pytest.raises(CitycardError) as caught:
            mistake()
        said += [caught.value, caught.value.args, vars(caught.value)]
    assert "32 bytes" in repr(SecretBytes(bytes(32)))
    assert "array" not in repr(card.material())
    for thing in said:
        text = f"{thing!r} {thing!s}".encode()
        assert keys.hits(text) == [], type(thing)
        assert personal.hits(text) == [], type(thing)
        # bytes printed as Python or numpy print them
        spelled = b"".join(int(n).to_bytes(1, "big") for n in re.findall(rb"\b\d{1,3}\b", text) if int(n) < 256)
        assert keys.hits(spelled) == [], type(thing)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("not reached")


@pytest.mark.timeout(60)
def test_an_upload_rests_encrypted(works: Works) -> None:
    """While a file is still arriving, and when it was cut off, its spool holds nothing of it in clear; it goes with its job."""
    content = b"".join(order_file(14_000))
    searcher = Searcher(personal_needles(row(i) for i in range(0, 14_000, 500)))
    uploads = works.plant.server_data / "uploads"

    async def work(channel: grpc.aio.Channel) -> pb.Job:
        stub = JobServiceStub(channel)
        request = pb.CreateJobRequest(idempotency_key="half", profile="zhengzhou-citizen-card")
        job = (await stub.CreateJob(request)).job
        gone = asyncio.Event()

        async def half() -> AsyncIterator[pb.UploadOrdersRequest]:
            yield pb.UploadOrdersRequest(job_id=job.job_id)
            for at in range(0, len(content), 1 << 18):
                yield pb.UploadOrdersRequest(chunk=content[at : at + (1 << 18)])
            await gone.wait()

        call = stub.UploadOrders(half())
        await until(lambda: any(path.stat().st_size > 1 << 20 for path in uploads.glob("*.spool")))
        assert {path: searcher.hits(path.read_bytes()) for path in uploads.iterdir()} == {path: [] for path in uploads.iterdir()}
        call.cancel()
        gone.set()
        get = pb.GetJobRequest(job_id=job.job_id)
        while not (job := (await stub.GetJob(get)).job).waiting_for.startswith("the rest"):  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.02)
        assert {path: searcher.hits(path.read_bytes()) for path in uploads.iterdir()} == {path: [] for path in uploads.iterdir()}
        await stub.CancelJob(pb.CancelJobRequest(job_id=job.job_id))
        assert list(uploads.iterdir()) == []
        return job

    assert searcher.hits(content)
    job = client.run(works.address, lambda c: asyncio.wait_for(work(c), 30))
    assert (job.state, job.lines) == ("STAGING", 0)


def stored(database: Path) -> Iterator[bytes]:
    """What of a job is personal data, or opens it: sealed records, the sealed key, messages about refused rows."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as reading:
        yield from (bytes(blob) for (blob,) in reading.execute("select blob from lines") if blob is not None)
        yield from (bytes(key) for (key,) in reading.execute("select pii_key_wrapped from jobs") if key is not None)
        yield from (message.encode() for (message,) in reading.execute("select message from rejects") if message)


def test_destroyed_data_is_gone_from_the_file(works: Works, tmp_path: Path) -> None:
    orders = tmp_path / "orders.csv"
    rows = [*chosen_rows()[:3], *defective_rows()[:1]]
    orders.write_text("\r\n".join([",".join(NAMES), *(",".join(values) for values in rows)]) + "\r\n")
    works.add_station("one", 5)
    job = works.submit(orders)
    works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    assert works.plant.stop("one") == 0
    ledger = works.plant.server_data / "ledger.sqlite"
    secrets = list(stored(ledger))
    assert len(secrets) > 3 + 1
    before = b"".join(path.read_bytes() for path in sorted(ledger.parent.glob("ledger.sqlite*")))
    assert all(secret in before for secret in secrets)
    capture(works, f"job destroy-data {job.job_id} --json")
    assert list(stored(ledger)) == []
    for path in works.plant.server_data.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert [len(secret) for secret in secrets if secret in content] == [], path
    assert {r["card_number"] for r in works.results(job.job_id)} == {""}
    assert works.report(job.job_id)["counts"]["good"] == 3
    assert audit.verify(ledger).count > 0
