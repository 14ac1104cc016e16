"""Cards on a real SoftHSM token: the same as on the software custody, and none of them lost when the token is."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.cli.plant import Plant
from engine.orders.synthetic import order_file
from engine.production.keyroom import KeyRoom
from engine.profiles.compile import channel_derivations
from engine.virtual.birth import TEST_KMC
from keys.custody.software import SoftwareCustody
from keys.custody.token import TokenConfig, unlock
from keys.custody.working import KeySpec
from keys.errors import InvalidInput
from keys.secrets import SecretBytes
from tests.custody.conftest import MODULE
from tests.plant.conftest import UNHURRIED, Works
from tests.plant.key_tools import NOT_SERVING, SERVING, command, compiled, fill_token, health, keys, known_masters, status, until

NEW_PIN = b"97531086420"
SHIM = Path(__file__).parents[1] / "custody" / "hardware_like.c"


@pytest.fixture
def token_works(tmp_path: Path) -> Iterator[Works]:
    with Plant(tmp_path / "plant", "token") as plant:
        works = Works(plant)
        works.up()
        yield works


class Away:
    """The token's files, moved away from under a running server and back."""

    def __init__(self, works: Works) -> None:
        assert works.plant.token is not None
        self._here = works.plant.token.tokens
        self._there = self._here.with_name("away")

    def take(self) -> None:
        self._here.rename(self._there)

    def back(self) -> None:
        self._there.rename(self._here)


def waits(works: Works, job_id: str, words: str) -> None:
    job = works.wait(job_id, lambda j: words in j.waiting_for)
    assert job.state == "RUNNING"
    assert health(works) == NOT_SERVING


def all_good(works: Works, job_id: str, *stations: str) -> None:
    """Every line has its card, at the first try: no piece was scrapped, rejected or returned, and the sensors agree."""
    done = works.wait(job_id, lambda j: j.state == "COMPLETE")
    assert (done.good, done.scrapped, done.blanks_rejected) == (done.accepted, 0, 0)
    assert [works.count(name) for name in stations] == [[] for _ in stations]
    report = works.report(job_id)
    assert (report["reconciliation"]["agrees"], report["blanks_drawn"]) == (True, done.accepted)


def test_the_same_masters_make_the_same_cards(tmp_path: Path) -> None:
    masters, profile = known_masters(), compiled()
    plant = Plant(tmp_path / "plant", "token")
    assert plant.token is not None
    fill_token(plant, masters)
    channel = profile.loaded.profile.channel
    masters[channel.transport.master] = SecretBytes(TEST_KMC)
    factors = [np.frombuffer(os.urandom(8 * 5), np.uint8).reshape(5, 8)] * len(profile.keys)
    kdds = [np.frombuffer(os.urandom(10 * 5), np.uint8).reshape(5, 10)] * 3
    with (
        SoftwareCustody.create(tmp_path / "soft", "x", test=True, scrypt_n=1024) as store,
        plant.token.in_this_process(),
        KeyRoom(plant.server_data, mode="test") as room,
    ):
        room.unseal(SecretBytes(plant.token.pin()))
        for entry in room.entries():
            record = entry.record
            spec = KeySpec(record.key_id, record.domain, record.algorithm, record.purpose, record.level)
            store.import_key(spec, masters[record.key_id].reveal(), expected_kcv=bytes.fromhex(record.kcv))
            assert entry.policy.custody == ("sealed" if record.algorithm == "sm4" else "host-clear")
        for derivations, given in (
            (profile.derivations, factors),
            (channel_derivations(channel.transport), kdds),
            (channel_derivations(channel.issuer), kdds),
        ):
            with room.derive(derivations, given) as here, store.derive(derivations, given) as there:
                assert np.array_equal(here.array, there.array)


def test_demo_on_a_token(tmp_path: Path) -> None:
    orders = tmp_path / "orders.csv"
    orders.write_bytes(b"".join(order_file(24)))
    code, text = command("demo", "--custody", "token", "--orders", orders, "--stations", "2", "--data", tmp_path / "demo", "--json")
    made = json.loads(text)
    assert (code, made["custody"], made["good"], made["reconciled"], made["state"]) == (0, "token", 24, True, "COMPLETE")
    home = tmp_path / "demo"
    environment = {**os.environ, "SOFTHSM2_CONF": str(home / "token" / "softhsm2.conf")}
    given = ["--data", home / "server", "--pin-file", home / "token" / "pin", "--json"]
    code, text = command("keys", "inventory", *given, environment=environment)
    entries = json.loads(text)["keys"]
    holders = {(entry["algorithm"], entry["custody"]) for entry in entries}
    assert holders == {("3des", "host-clear"), ("aes", "host-clear"), ("sm4", "sealed")}
    assert all(entry["test"] and entry["kcv"] for entry in entries)


def test_a_lost_token_stops_a_job_and_its_return_continues_it(token_works: Works, orders: Callable[..., Path]) -> None:
    works, away = token_works, Away(token_works)
    for name in ("one", "two"):
        works.add_station(name, 40, faults=UNHURRIED)
    server = works.plant.pid("server")
    job = works.submit(orders(60))
    for made in (5, 25):
        works.wait(job.job_id, lambda j, made=made: j.good >= made)
        away.take()
        waits(works, job.job_id, "does not answer")
        before = works.wait(job.job_id, lambda j: j.state == "RUNNING")
        assert before.good < before.accepted
        assert status(works)["parts"][0]["state"] == "gone"
        away.back()
        works.wait(job.job_id, lambda j, made=made: j.good > made and not j.waiting_for.startswith("token"))
    all_good(works, job.job_id, "one", "two")
    assert health(works) == SERVING
    assert works.plant.pid("server") == server
    assert works.plant.dead() == []


def test_another_pin_after_the_token_was_away(token_works: Works, orders: Callable[..., Path], tmp_path: Path) -> None:
    works, away = token_works, Away(token_works)
    token = works.plant.token
    assert token is not None
    works.add_station("one", 40, faults=UNHURRIED)
    job = works.submit(orders(30))
    works.wait(job.job_id, lambda j: j.good >= 3)
    away.take()
    waits(works, job.job_id, "does not answer")
    away.back()
    change_pin(works)
    away.take()
    until(lambda: status(works)["parts"][0]["state"] == "gone")
    away.back()
    waits(works, job.job_id, "refuses the PIN")
    assert status(works)["parts"][0]["state"] == "pin-wrong"
    code, text = keys(works, "unseal", "--by", "chen", "--pin-file", token.pin_file)
    assert (code, "[TOKEN_PIN_WRONG]" in text) == (1, True)
    enter(works, tmp_path, NEW_PIN)
    all_good(works, job.job_id, "one")


def change_pin(works: Works) -> None:
    """The security officer sets another PIN, in another process than the server's."""
    token = works.plant.token
    assert token is not None
    with token.in_this_process():
        unlock(TokenConfig(MODULE, "citycard-demo"), SecretBytes(token.so_pin_file.read_bytes().strip()), SecretBytes(NEW_PIN))


def enter(works: Works, place: Path, pin: bytes, expected: int = 0) -> str:
    file = place / "entered"
    file.write_bytes(pin + b"\n")
    code, text = keys(works, "unseal", "--by", "chen", "--pin-file", file)
    assert code == expected, text
    assert pin.decode() not in text
    return text


def test_a_locked_pin_is_unlocked_by_the_officer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orders: Callable[..., Path]) -> None:
    library, unlocked = tmp_path / "hardware_like.so", tmp_path / "unlocked"
    subprocess.run(["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, SHIM, "-ldl"], check=True)
    monkeypatch.setenv("CITYCARD_TEST_MODULE", str(MODULE))
    monkeypatch.setenv("CITYCARD_TEST_UNLOCKED", str(unlocked))
    with Plant(tmp_path / "plant", "token") as plant:
        works = Works(plant)
        fill_token(plant, module=library)
        plant.start_server()
        away = Away(works)
        works.add_station("one", 30, faults=UNHURRIED)
        job = works.submit(orders(20))
        works.wait(job.job_id, lambda j: j.good >= 2)
        away.take()
        waits(works, job.job_id, "does not answer")
        for _ in range(3):
            # with its token away the server keeps the last PIN it was given, and tries it once when the token is back
            enter(works, tmp_path, b"999999", expected=1)
            away.back()
            until(lambda: status(works)["parts"][0]["state"] in ("pin-wrong", "pin-locked"))
            away.take()
        away.back()
        assert "[TOKEN_PIN_LOCKED]" in enter(works, tmp_path, b"999999", expected=1)
        waits(works, job.job_id, "is locked")
        assert status(works)["parts"][0]["state"] == "pin-locked"
        change_pin(works)
        unlocked.touch()
        enter(works, tmp_path, NEW_PIN)
        all_good(works, job.job_id, "one")


def test_serve_refuses_another_custody_than_it_was_told(token_works: Works) -> None:
    data = token_works.plant.server_data
    token_works.plant.stop("server")
    code, text = command("serve", "--data", data, "--dev", "--custody", "software", "--bind", "127.0.0.1:0")
    assert (code, "[CUSTODY_OTHER]" in text) == (1, True)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('custody = "tokn"', "tokn"),
        ('custody = "token"\nlabel = "x"', "module"),
        ('custody = "token"\npin = "1"', "pin"),
        ("custody", "custody"),
    ],
)
def test_a_wrong_custody_file_is_named(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "custody.toml").write_text(text)
    with pytest.raises(InvalidInput, match=part) as error:
        KeyRoom(tmp_path, mode="test")
    assert error.value.reason == "CUSTODY_SETUP"
    assert str(tmp_path / "custody.toml") in error.value.message


def test_rekey_on_a_token(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "plant", "token")
    assert plant.token is not None
    fill_token(plant)
    environment = {**os.environ, **plant.token.environment}
    given = ["--data", plant.server_data, "--pin-file", plant.token.pin_file, "--cards", "40", "--out", tmp_path / "out", "--json"]
    code, text = command("keys", "rekey", *given, environment=environment)
    assert code == 0, text
    made = json.loads(text)
    assert (made["cards"], made["test_keys"]) == (40, True)
    assert made["witnessed"] == 2 * made["keys_per_card"]


def test_a_server_stops_while_its_token_is_away_and_loses_no_card(token_works: Works, orders: Callable[..., Path]) -> None:
    works, away = token_works, Away(token_works)
    for name in ("one", "two"):
        works.add_station(name, 40, faults=UNHURRIED)
    job = works.submit(orders(30))
    works.wait(job.job_id, lambda j: j.good >= 4)
    away.take()
    waits(works, job.job_id, "does not answer")
    assert works.plant.stop("server", grace_s=15) == 0
    away.back()
    works.restart_server()
    done = works.wait(job.job_id, lambda j: j.state == "COMPLETE")
    assert (done.good, done.scrapped, done.blanks_rejected) == (30, 0, 0)
    assert [works.count(name) for name in ("one", "two")] == [[], []]
