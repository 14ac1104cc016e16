"""Zeroized: a second later the whole memory of a real server holds no copy of a key, every key operation says so, and no card hangs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from citycard.v1 import jobs_pb2, keys_pb2
from citycard.v1.jobs_pb2_grpc import JobServiceStub
from citycard.v1.keys_pb2_grpc import KeyServiceStub

from engine.cli.plant import Plant
from engine.production.context import Context
from engine.production.keydesk import KeyDesk
from engine.production.keyroom import KeyRoom
from keys.custody.sealed import SealedCustody
from keys.custody.software import SoftwareCustody
from keys.custody.token import TokenSealer
from keys.custody.working import WorkingKeys
from keys.errors import CitycardError, Denied, Exhausted
from keys.secrets import SecretBytes
from tests.plant.conftest import PROFILE, UNHURRIED, Works
from tests.plant.key_tools import NOT_SERVING, compiled, fill_token, health, keys, known_masters, leaves, refused, status, until
from tests.plant.test_plant_memory import PURPOSES, Keys, Region, regions

WORDS = "zeroized: start it anew"


class Watched:
    """A plant whose every key this test knows."""

    def __init__(self, works: Works, named: dict[str, bytes]) -> None:
        self.works = works
        self.keys = Keys(named)

    def memory(self) -> list[Region]:
        return list(regions(self.works.plant.pid("server")))

    def found(self, memory: list[Region]) -> list[str]:
        return sorted({hit for region in memory for hit in self.keys.hits(region)})


def upper_keys(working: WorkingKeys) -> dict[str, bytes]:
    return {f"upper {n}": bytes(key.reveal()) for n, key in enumerate(working._upper.values())}


def derive_all(custody: KeyRoom | SoftwareCustody) -> None:
    """After this the keys between masters and cards are there."""
    profile = compiled()
    factor = np.frombuffer(os.urandom(8), np.uint8).reshape(1, 8)
    custody.derive(profile.derivations, [factor] * len(profile.keys)).close()


def software_plant(plant: Plant) -> dict[str, bytes]:
    plant.make_keys(PROFILE)
    with SoftwareCustody.open(plant.server_data, plant.passphrase_file.read_text().strip(), mode="test") as custody:
        derive_all(custody)
        named = {f"master {key_id}": bytes(key.reveal()) for (key_id, _), key in custody._masters.items()}
        named["root"] = bytes(custody._root.reveal())
        named |= {f"hmac {purpose}": bytes(custody.hmac_key(purpose).reveal()) for purpose in PURPOSES}
        return named | upper_keys(custody._working)


def token_plant(plant: Plant) -> dict[str, bytes]:
    masters = known_masters()
    fill_token(plant, masters)
    named = {f"master {key_id}": bytes(key.reveal()) for key_id, key in masters.items()}
    assert plant.token is not None
    with plant.token.in_this_process(), KeyRoom(plant.server_data, mode="test") as room:
        room.unseal(SecretBytes(plant.token.pin()))
        derive_all(room)
        assert isinstance(room._sealed, SealedCustody)
        named["root"] = bytes(room._sealed._root.reveal())
        named |= {f"hmac {purpose}": bytes(room.hmac_key(purpose).reveal()) for purpose in PURPOSES}
        named |= upper_keys(room._sealed._working)
        named |= {f"token {name}": key for name, key in upper_keys(room._token._working).items()}
        assert TokenSealer(room._token.session).name in room._sealed.sealed_by
    return named


@pytest.fixture(params=["software", "token"])
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watched]:
    with Plant(tmp_path / "plant", request.param) as plant:
        named = (software_plant if request.param == "software" else token_plant)(plant)
        plant.start_server()
        yield Watched(Works(plant), named)


def running(watched: Watched, orders: Callable[..., Path], lines: int) -> jobs_pb2.Job:
    """A job in full swing on two stations."""
    works = watched.works
    for name in ("one", "two"):
        works.add_station(name, lines, faults=UNHURRIED)
    job = works.submit(orders(lines))
    return works.wait(job.job_id, lambda j: j.good >= 5)


def by_command(works: Works) -> None:
    code, text = keys(works, "zeroize", "--by", "Chen", "--second", "Li")
    assert (code, text) == (0, "zeroized: no key is left in the server's memory\n")


def by_signal(works: Works) -> None:
    os.kill(works.plant.pid("server"), signal.SIGUSR1)


@pytest.mark.parametrize("way", [by_command, by_signal])
def test_no_key_is_left_and_no_card_hangs(watched: Watched, orders: Callable[..., Path], way: Callable[[Works], None]) -> None:
    assert os.geteuid() == 0
    works = watched.works
    job = running(watched, orders, 300)
    before = watched.found(watched.memory())
    # the search finds what is there
    assert any(name.startswith("master ") for name in before)
    assert any("upper" in name for name in before)
    assert "root" in before
    way(works)
    time.sleep(1.0)
    assert watched.found(watched.memory()) == []
    ended = works.wait(job.job_id, lambda j: not j.in_flight and WORDS in j.waiting_for, 30)
    assert (ended.state, ended.good < ended.accepted, health(works)) == ("RUNNING", True, NOT_SERVING)
    assert watched.found(watched.memory()) == []
    assert [works.count(name) for name in ("one", "two")] == [[], []]
    assert works.report(job.job_id)["reconciliation"]["agrees"]
    facts = leaves(works, "keys.zeroize")
    assert [fact["by"] for fact in facts] == [["Chen", "Li"] if way is by_command else ["SIGUSR1"]]
    every_operation_is_refused(works, job.job_id)
    assert works.plant.stop("one") == works.plant.stop("two") == works.plant.stop("server") == 0


def every_operation_is_refused(works: Works, job_id: str) -> None:
    """Each with its reason; what needs no key still answers."""
    stub, wire = JobServiceStub, jobs_pb2
    create = wire.CreateJobRequest(idempotency_key="k", profile=PROFILE, submitted_by="t", file_name="f")
    works.ask(lambda c: stub(c).PauseJob(wire.PauseJobRequest(job_id=job_id), timeout=10))
    for call in (
        lambda c: stub(c).CreateJob(create, timeout=10),
        lambda c: stub(c).ResumeJob(wire.ResumeJobRequest(job_id=job_id), timeout=10),
        lambda c: KeyServiceStub(c).GetInventory(keys_pb2.GetInventoryRequest(), timeout=10),
        lambda c: KeyServiceStub(c).Seal(keys_pb2.SealRequest(by="x"), timeout=10),
    ):
        assert refused(works, call) == "ZEROIZED"
    code, text = keys(works, "unseal", "--by", "chen", "--pin-file", works.plant.secret_file)
    assert (code, "[ZEROIZED]" in text, status(works)["state"]) == (1, True, "zeroized")


def test_cards_go_on_after_the_server_is_started_anew(watched: Watched, orders: Callable[..., Path]) -> None:
    works = watched.works
    job = running(watched, orders, 60)
    by_signal(works)
    works.wait(job.job_id, lambda j: not j.in_flight and WORDS in j.waiting_for, 30)
    works.plant.stop("server")
    works.restart_server()
    done = works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    assert done.good == done.accepted == 60
    assert [works.count(name) for name in ("one", "two")] == [[], []]
    assert works.report(job.job_id)["reconciliation"]["agrees"]


def test_zeroizing_while_the_token_is_away(tmp_path: Path) -> None:
    with Plant(tmp_path / "plant", "token") as plant:
        watched = Watched(Works(plant), token_plant(plant))
        plant.start_server()
        assert plant.token is not None
        plant.token.tokens.rename(plant.token.home / "away")
        by_signal(watched.works)
        time.sleep(1.0)
        assert watched.found(watched.memory()) == []
        until(lambda: status(watched.works)["state"] == "zeroized")


def test_one_person_cannot_zeroize(works: Works) -> None:
    for by, second in (("", "Li"), ("Chen", ""), ("Chen", " chen "), ("Ｃhen", "chen")):
        request = keys_pb2.ZeroizeRequest(by=by, second=second)
        assert refused(works, lambda c, request=request: KeyServiceStub(c).Zeroize(request, timeout=10)) == "DUAL_CONTROL"
    assert (status(works)["state"], leaves(works, "keys.zeroize")) == ("unsealed", [])


# -- parts, without a server ----------------------------------------------------------------------------------------------


class FullDisk:
    """A ledger that cannot write."""

    async def write(self, function: object) -> None:
        raise Exhausted("DISK_FULL", "the disk is full")


class NoLine:
    """A line without stations."""

    trouble = ""

    async def zeroized(self, error: CitycardError) -> None:
        self.trouble = error.message


class NoUpkeep:
    async def look(self) -> None:
        return


@pytest.fixture
def desk(tmp_path: Path) -> tuple[KeyDesk, KeyRoom]:
    plant = Plant(tmp_path / "plant")
    plant.make_keys(PROFILE)
    room = KeyRoom(plant.server_data, mode="test")
    room.unseal(SecretBytes(plant.passphrase_file.read_bytes().strip()))
    return KeyDesk(room, Context(FullDisk(), room, None), NoLine(), NoUpkeep()), room


async def test_without_audit_nothing_is_done(desk: tuple[KeyDesk, KeyRoom]) -> None:
    counter, room = desk
    secret = SecretBytes(b"246810")
    for work in (counter.seal("chen"), counter.zeroize("chen", "li"), counter.unseal(secret, None, "chen")):
        with pytest.raises(Exhausted):
            await work
        assert room.state == "unsealed"
    with pytest.raises(CitycardError):
        secret.reveal()  # wiped all the same


async def test_a_signal_needs_no_ledger(desk: tuple[KeyDesk, KeyRoom]) -> None:
    counter, room = desk
    await counter.zeroize_now("SIGUSR1")
    assert room.state == "zeroized"
    with pytest.raises(CitycardError) as error:
        room.derive((), ())
    assert error.value.reason == "ZEROIZED"
    with pytest.raises(Denied):
        await counter.zeroize("chen", "chen")
