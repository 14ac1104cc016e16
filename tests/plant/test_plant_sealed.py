"""A server that starts sealed: it answers and waits, says so in plain words, and goes on once its keys are open."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from citycard.v1 import jobs_pb2, keys_pb2
from citycard.v1.jobs_pb2_grpc import JobServiceStub
from citycard.v1.keys_pb2_grpc import CeremonyServiceStub, KeyServiceStub

from engine.cli.plant import Plant
from engine.production.keygate import KeyGate
from engine.production.keyroom import KeyRoom
from engine.production.keysetup import Setup, write_setup
from engine.profiles.masters import master_specs
from engine.profiles.model import load
from engine.rpc.unsealbox import UnsealBox, close_letter
from engine.virtual.birth import TEST_KMC
from keys.custody.policy import KeyPolicy
from keys.custody.sealed import RebuiltKey, SealedCustody
from keys.errors import Denied, InvalidInput, Precondition
from keys.secrets import SecretBytes
from keys.shares import split
from tests.ceremony.test_ceremony_record import write
from tests.plant.conftest import PROFILE, UNHURRIED, Works
from tests.plant.key_tools import NOT_SERVING, SERVING, fill_token, health, keys, leaves, refused, status

WORDS = "sealed: `citycard keys unseal` opens them"


@pytest.fixture(params=["software", "token"])
def sealed_works(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Works]:
    with Plant(tmp_path / "plant", request.param) as plant:
        works = Works(plant)
        plant.make_keys(PROFILE)
        plant.start_server("--sealed")
        yield works


def unseal(works: Works, by: str = "chen") -> None:
    code, text = keys(works, "unseal", "--by", by, "--pin-file", works.plant.secret_file)
    assert (code, text) == (0, "the keys are open\n")


def create(works: Works) -> str:
    request = jobs_pb2.CreateJobRequest(idempotency_key="k", profile=PROFILE, submitted_by="t", file_name="f")
    return refused(works, lambda c: JobServiceStub(c).CreateJob(request, timeout=10))


def test_a_sealed_server_answers_waits_and_goes_on(sealed_works: Works, orders: Callable[..., Path], tmp_path: Path) -> None:
    works = sealed_works
    assert health(works) == NOT_SERVING
    before = status(works)
    assert (before["state"], WORDS in before["trouble"]) == ("sealed", True)
    assert before["needs"] == (["passphrase"] if before["custody"] == "software" else ["pin"])
    assert create(works) == "SEALED"
    code, text = keys(works, "inventory")
    assert (code, "[SEALED]" in text) == (1, True)
    works.add_station("one", 12)
    works.all_connected("one")
    wrong = tmp_path / "wrong"
    wrong.write_text("999999\n")
    code, text = keys(works, "unseal", "--by", "chen", "--pin-file", wrong)
    reason = "WRONG_PASSPHRASE" if before["custody"] == "software" else "TOKEN_PIN_WRONG"
    assert (code, f"[{reason}]" in text, status(works)["state"]) == (1, True, "sealed")
    unseal(works)
    assert (status(works)["state"], health(works)) == ("unsealed", SERVING)
    job = works.submit(orders(8))
    done = works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    assert (done.good, done.scrapped) == (8, 0)
    assert [facts["by"] for facts in leaves(works, "keys.unseal")] == ["chen", "chen"]  # the refused one too


def test_a_job_goes_on_after_a_sealed_restart(sealed_works: Works, orders: Callable[..., Path]) -> None:
    works = sealed_works
    unseal(works)
    works.add_station("one", 60, faults=UNHURRIED)
    job = works.submit(orders(40))
    works.wait(job.job_id, lambda j: j.good >= 4)
    works.plant.kill("server")
    works.plant.start_server("--sealed", port=int(works.address.rpartition(":")[2]))
    waiting = works.wait(job.job_id, lambda j: WORDS in j.waiting_for)
    assert waiting.state == "RUNNING"
    works.all_connected("one")
    time.sleep(2.5)  # some rounds of upkeep: nothing is begun, and nothing is given up
    still = works.job(job.job_id)
    # the card in the head may have been proven already: it is printed without a key
    assert (still.good - waiting.good <= 1, still.scrapped) == (True, waiting.scrapped)
    unseal(works)
    done = works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    # the one card in the head may have been cut off in the midst of its personalization
    assert (done.good, done.scrapped <= 1) == (40, True)
    assert works.count("one") == []
    assert works.report(job.job_id)["reconciliation"]["agrees"]


def test_seal_stops_new_cards_and_finishes_those_in_hand(works: Works, orders: Callable[..., Path]) -> None:
    works.add_station("one", 60, faults=UNHURRIED)
    job = works.submit(orders(40))
    works.wait(job.job_id, lambda j: j.good >= 4)
    assert keys(works, "seal", "--by", "li") == (0, "the keys are sealed\n")
    waiting = works.wait(job.job_id, lambda j: WORDS in j.waiting_for)
    assert (waiting.good < 40, create(works), health(works)) == (True, "SEALED", NOT_SERVING)
    unseal(works, "li")
    done = works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    assert (done.good, done.scrapped, done.blanks_rejected) == (40, 0, 0)
    assert [facts["by"] for facts in leaves(works, "keys.seal")] == ["li"]


def test_custodians_open_a_store_with_their_shares(tmp_path: Path, orders: Callable[..., Path]) -> None:
    with Plant(tmp_path / "plant") as plant, SecretBytes(os.urandom(32)) as key:
        works = Works(plant)
        plant.data.mkdir(parents=True)
        plant.passphrase_file.write_text("unused\n")
        write_setup(plant.server_data, Setup(custody="sealed"))
        profile = load(PROFILE).profile
        with SealedCustody.create(plant.server_data, RebuiltKey(SecretBytes(key.reveal())), test=True) as store:
            for spec in {spec.key_id: spec for spec in master_specs(profile)}.values():
                if spec.key_id == profile.channel.transport.master:
                    store.import_key(spec, TEST_KMC, KeyPolicy(custody="sealed"))
                else:
                    store.generate(spec, KeyPolicy(custody="sealed"))
        shares = [bytes(share.reveal()).decode() for share in split(key, 2, 3)]
        plant.start_server("--sealed")
        assert status(works)["needs"] == ["store-key"]
        wrong = shares[0].rsplit(" ", 1)[0] + " zero"
        shown = at_a_terminal(works, [wrong, shares[0], shares[0], shares[2]])
        assert "this custodian enters it again" in shown
        assert not any(word in shown for word in shares[0].split()[3:])
        assert shown.endswith("the keys are open\r\n")
        works.add_station("one", 6)
        job = works.submit(orders(3))
        assert works.wait(job.job_id, lambda j: j.state == "COMPLETE").good == 3


def at_a_terminal(works: Works, lines: list[str]) -> str:
    """`citycard keys unseal` in a pseudo-terminal, a line for each question; everything that stood on the screen."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.cli.main", "keys", "unseal", "--server", works.address, "--by", "chen"],
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - a terminal of its own needs it
    )
    os.close(side)
    shown, asked = b"", 0
    while True:
        try:
            chunk = os.read(main, 4096)
        except OSError:
            break
        shown += chunk
        while shown.count(b"all words: ") > asked and asked < len(lines):
            time.sleep(0.05)
            os.write(main, lines[asked].encode() + b"\n")
            asked += 1
    assert process.wait(30) == 0, shown
    os.close(main)
    return shown.decode()


# -- parts, without a server ----------------------------------------------------------------------------------------------


def test_a_letter_hides_its_secrets_and_opens_once() -> None:
    box = UnsealBox()
    public = box.public_key()
    letter = close_letter(public, SecretBytes(b"246810-246810"), SecretBytes(bytes(range(32))))
    assert b"246810" not in letter
    assert bytes(range(8)) not in letter
    secret, store_key = box.open(public, letter)
    assert secret == SecretBytes(b"246810-246810")
    assert store_key == SecretBytes(bytes(range(32)))
    with pytest.raises(Precondition) as error:
        box.open(public, letter)
    assert error.value.reason == "UNSEAL_STALE"


def test_a_changed_letter_is_refused_whatever_byte() -> None:
    box = UnsealBox()
    for at in range(32 + 12 + 4 + 6 + 16):
        public = box.public_key()
        letter = bytearray(close_letter(public, SecretBytes(b"246810"), None))
        letter[at] ^= 0x01
        with pytest.raises(Denied) as error:
            box.open(public, bytes(letter))
        assert error.value.reason == "UNSEAL_LETTER"
    public = box.public_key()
    with pytest.raises(InvalidInput):
        box.open(public, b"short")


def test_unseal_takes_what_it_needs(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "plant", "token")
    assert plant.token is not None
    fill_token(plant)
    with plant.token.in_this_process(), KeyRoom(plant.server_data, mode="test") as room:
        with pytest.raises(InvalidInput, match="the pin must be given"):
            room.unseal(None, SecretBytes(bytes(32)))
        room.unseal(SecretBytes(plant.token.pin()))
        room.unseal(SecretBytes(b"a wrong one: a token that works is left alone"))
        assert len(room.inventory()) == len(room.entries()) > 100
        room.seal()
        with pytest.raises(Precondition) as error:
            room.hmac_key("pin")
        assert error.value.reason == "SEALED"
    with plant.token.in_this_process(), pytest.raises(Precondition) as refusal:
        KeyRoom(plant.server_data, mode="production")
    assert refusal.value.reason == "TEST_KEYS_REFUSED"


async def test_who_waits_for_keys_goes_on_when_they_are_back(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "plant")
    plant.make_keys(PROFILE)
    room = KeyRoom(plant.server_data, mode="test")
    gate = KeyGate(room)
    await gate.look()
    assert gate.trouble is not None
    assert await gate.passed(Denied("CARD_CRYPTOGRAM", "the chip's own fault")) is False
    waiting = [asyncio.create_task(gate.passed(gate.trouble)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    room.unseal(SecretBytes(plant.passphrase_file.read_bytes().strip()))
    await gate.look()
    assert await asyncio.gather(*waiting) == [True] * 3
    room.zeroize()
    await gate.look()
    assert gate.zeroized
    assert await gate.passed(Precondition("SEALED", "it was so before")) is False


def test_ceremony_records_on_the_wire(works: Works) -> None:
    home = works.plant.server_data / "ceremonies"
    for name in ("whole-1", "damaged-2"):
        (home / name).mkdir(parents=True)
        content = write(home / name / "record.jsonl", end="closed" if name == "whole-1" else None)
    (home / "damaged-2" / "record.jsonl").write_bytes(content.replace(b"sitting", b"sittinh", 1))
    found = works.ask(lambda c: CeremonyServiceStub(c).ListCeremonies(keys_pb2.ListCeremoniesRequest(), timeout=10))
    damaged, whole = json.loads(found.ceremonies_json)["ceremonies"]
    assert (whole["ceremony"], whole["state"], whole["fault"]) == ("whole-1", "closed", "")
    assert (damaged["ceremony"], damaged["state"], "line 2" in damaged["fault"]) == ("damaged-2", "damaged", True)
    request = keys_pb2.GetCeremonyRequest(ceremony_id="whole-1")
    one = json.loads(works.ask(lambda c: CeremonyServiceStub(c).GetCeremony(request, timeout=10)).ceremony_json)
    assert [entry["type"] for entry in one["entries"]] == ["opened", "sitting", "sitting", "closed"]
    for name in ("../../etc", "", "none", "whole-1/../whole-1"):
        unknown = keys_pb2.GetCeremonyRequest(ceremony_id=name)
        assert refused(works, lambda c, r=unknown: CeremonyServiceStub(c).GetCeremony(r, timeout=10)) == "CEREMONY_UNKNOWN"


def test_what_changes_keys_is_done_in_somebodys_name(works: Works) -> None:
    assert refused(works, lambda c: KeyServiceStub(c).Seal(keys_pb2.SealRequest(by=" "), timeout=10)) == "BY_MISSING"
    assert status(works)["state"] == "unsealed"
