"""Ceremonies on a sealed store: its store key made, rebuilt and lost; keys in, backed up, restored, handed over and taken in."""

import subprocess
import sys
from datetime import date

import numpy as np
import pytest

from keys import shares
from keys.ceremony.clerk import TokenClerk
from keys.ceremony.custodians import RECORD_NAME
from keys.ceremony.desk import Topic
from keys.ceremony.plan import PlannedKey
from keys.ceremony.receive import receive
from keys.ceremony.record import verify_record
from keys.ceremony.run import Ceremony
from keys.ceremony.sealed import SealedVault
from keys.ceremony.token import TokenVault
from keys.ceremony.unseal import unseal_at_desk
from keys.components import combine, make_component, parse_hex
from keys.custody import Derivation
from keys.custody.policy import KeyPolicy, working_for
from keys.custody.sealed import RebuiltKey, SealedCustody, SealState
from keys.custody.token import TokenSealer
from keys.errors import CitycardError, Conflict, Denied, InvalidInput, NotFound, Precondition
from keys.hierarchy import Domain, KeyState, Level, Purpose
from keys.keyblock.handover import Agreed, verify_set
from keys.secrets import SecretBytes
from tests.ceremony.ceremony_tools import KEY, NAMES, Clock, Desk, components, make_vault, plan, plan_text
from tests.ceremony.terminal_tools import SILENCE, Screen
from tests.ceremony.test_ceremony_terminal import Office
from tests.ceremony.test_ceremony_token import token_office
from tests.custody.conftest import LABEL, MODULE

SM4 = {**KEY, "id": "ss.sm4", "algorithm": "sm4"}
POLICY = {
    "exportable": True,
    "methods": ["pboc"],
    "profiles": ["city-card"],
    "not_before": date(2026, 1, 1),
    "not_after": date(2036, 12, 31),
}
SHARED = bytes(range(32))


class Room:
    """A clerk, a directory with or without a sealed store, and one ceremony at a time."""

    def __init__(self, directory, *, store=True):
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.store = make_vault(directory)
        self.clerk = self.store.clerk
        self.place = directory / "ceremonies"
        self.place.mkdir()
        key = RebuiltKey(SecretBytes(SHARED))
        self.vault = SealedVault.create(self.clerk, directory, key) if store else SealedVault(self.clerk, directory)

    def hold(self, desk):
        ceremony = Ceremony.start(desk.plan, self.vault, desk, desk, self.place, clock=Clock())
        self.last = self.place / ceremony.ceremony_id
        ceremony.run()

    def types(self):
        return [entry["type"] for entry in verify_record((self.last / RECORD_NAME).read_bytes(), complete=False).entries]

    def install(self, key_id, raw, *, algorithm="sm4", purpose=Purpose.APPLICATION, exportable=True):
        key = PlannedKey(
            key_id=key_id,
            domain=Domain.SOCIAL_SECURITY,
            purpose=purpose,
            level=Level.CITY,
            algorithm=algorithm,
            exportable=exportable,
        )
        self.vault.install(key, SecretBytes(raw), "before")
        return self.vault.activate(key_id, 1)

    def secret(self, key_id="ss.sm4"):
        return bytes(self.vault._holder.reveal_master(key_id, 1).reveal())

    def close(self):
        self.vault.close()
        self.store.close()


@pytest.fixture
def room(tmp_path):
    made = Room(tmp_path / "room")
    yield made
    made.close()


@pytest.fixture
def empty(tmp_path):
    made = Room(tmp_path / "empty", store=False)
    yield made
    made.close()


def store_key(room, scheme="slip39", custodians=3):
    """The ceremony that makes a store; the texts in the envelopes."""
    desk = Desk(plan(keys=(), store_key=True, scheme=scheme, custodians=custodians))
    room.hold(desk)
    return [(text, desk.checks[serial]) for serial, text in sorted(desk.printed.items())]


def unsealing(pieces, names=NAMES, scheme="slip39"):
    custodians = len(pieces)
    return Desk(plan(kind="unseal", keys=(), scheme=scheme, custodians=custodians, names=names), {0: pieces})


@pytest.mark.parametrize("scheme", ["slip39", "xor"])
def test_the_store_key_makes_the_store_and_its_custodians_open_it(empty, scheme):
    pieces = store_key(empty, scheme)
    assert empty.vault._holder.state is SealState.UNSEALED
    assert empty.last.name in empty.vault._holder.sealed_by
    desk = Desk(plan(custody="sealed", keys=(SM4,)))
    empty.hold(desk)
    before = empty.secret()
    again = SealedCustody.open(empty.directory, mode="test")
    assert again.state is SealState.SEALED
    brought, names = ([pieces[2], pieces[0]], [NAMES[2], NAMES[0]]) if scheme == "slip39" else (pieces, NAMES)
    desk = unsealing(brought, names, scheme)
    unseal_at_desk(desk.plan, desk, empty.clerk, empty.place, lambda key: again.unseal(RebuiltKey(SecretBytes(key.reveal()))))
    assert again.state is SealState.UNSEALED
    with again.derive([Derivation("ss.sm4", "pboc", "sm4")], [np.zeros((1, 8), np.uint8)]) as made:
        again.close()
        assert made.array.any()
    assert before != bytes(16)


def test_a_second_store_key_is_refused_before_any_envelope(empty):
    store_key(empty)
    desk = Desk(plan(keys=(), store_key=True, scheme="slip39", custodians=3))
    with pytest.raises(Conflict) as refused:
        empty.hold(desk)
    assert refused.value.reason == "KEY_EXISTS"
    assert not desk.printed


def test_wrong_shares_and_the_wrong_custodian_leave_it_sealed(empty):
    texts = store_key(empty)
    empty.vault.close()
    theirs = unsealing([texts[0], texts[2]])
    with pytest.raises(Denied) as refused:
        unseal_at_desk(theirs.plan, theirs, empty.clerk, empty.place, empty.vault.unseal)
    assert refused.value.reason == "DUAL_CONTROL", "wang.fang took share 2 and now brings share 3"
    other = [(bytes(share.reveal()).decode(), "") for share in shares.split(SecretBytes(SHARED), 2, 2)]
    wrong = unsealing(other, NAMES[5:])
    with pytest.raises(Denied) as refused:
        unseal_at_desk(wrong.plan, wrong, empty.clerk, empty.place, empty.vault.unseal)
    assert refused.value.reason == "STORE_KEY_WRONG"
    assert empty.vault._holder.state is SealState.SEALED
    for directory in empty.place.iterdir():
        assert not (directory / "pause").exists()
        verify_record((directory / RECORD_NAME).read_bytes())
    with pytest.raises(InvalidInput) as refused:
        unseal_at_desk(plan(), wrong, empty.clerk, empty.place, empty.vault.unseal)
    assert refused.value.reason == "PLAN_KIND"


@pytest.mark.parametrize("stop", range(1, 6))
def test_an_interrupted_unsealing_is_aborted_and_no_share_rests(empty, stop):
    texts = store_key(empty)
    empty.vault.close()
    desk = unsealing([texts[0], texts[1]])
    desk.stop_at = stop
    with pytest.raises(Precondition) as paused:
        unseal_at_desk(desk.plan, desk, empty.clerk, empty.place, empty.vault.unseal)
    assert paused.value.reason == "CEREMONY_PAUSED"
    assert not list(empty.place.glob("*/pause"))
    assert not list(empty.directory.glob("ceremony-*"))
    desk = unsealing([texts[0], texts[1]])
    unseal_at_desk(desk.plan, desk, empty.clerk, empty.place, empty.vault.unseal)
    assert empty.vault._holder.state is SealState.UNSEALED


def test_nothing_begins_on_a_store_that_is_sealed_or_not_there(room, empty):
    room.vault.close()
    for where, error, reason in ((room, Precondition, "SEALED"), (empty, NotFound, "KEYSTORE_MISSING")):
        for kind in ("generate", "import"):
            desk = Desk(plan(kind=kind, custody="sealed", keys=(SM4,)))
            with pytest.raises(error) as refused:
                where.hold(desk)
            assert refused.value.reason == reason
        assert not desk.asked
        assert not list(where.place.iterdir())


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_store_key_ceremony_interrupted_and_resumed_makes_one_store(empty, stop):
    desk = Desk(plan(keys=(), store_key=True, scheme="slip39", custodians=2))
    desk.stop_at = stop
    if stop > 7:
        empty.hold(desk)
    else:
        with pytest.raises(Precondition):
            empty.hold(desk)
        assert not (empty.directory / "sealed.json").exists()
        Ceremony.resume(empty.last, empty.vault, desk, lambda _: desk, clock=Clock()).run()
    good = {e["envelope"] for e in verify_record((empty.last / RECORD_NAME).read_bytes()).entries if e["type"] == "component"}
    key = shares.combine_shares([shares.parse_share(desk.printed[serial].encode()) for serial in sorted(good)])
    empty.vault.close()
    empty.vault.unseal(key)


def test_a_store_made_right_before_a_crash_is_taken_for_what_it_is(empty):
    """Killed between the store and its entry in the record: resuming finds the store and its own key."""
    with SecretBytes(SHARED) as key:
        empty.vault.install_store_key(key, "ceremony x")
        empty.vault.close()
        again = SealedVault(empty.clerk, empty.directory)
        again.install_store_key(key, "ceremony x")
        assert again._holder.state is SealState.UNSEALED
        again.close()
    with SecretBytes(bytes(32)) as other, pytest.raises(Conflict):
        SealedVault(empty.clerk, empty.directory).install_store_key(other, "ceremony y")


def test_the_policy_of_the_plan_is_the_policy_of_the_key(room):
    desk = Desk(plan(custody="sealed", keys=({**SM4, **POLICY},)))
    room.hold(desk)
    assert room.vault._holder.policy("ss.sm4") == KeyPolicy(
        custody="sealed",
        exportable=True,
        methods=("pboc",),
        profiles=("city-card",),
        not_before=POLICY["not_before"],
        not_after=POLICY["not_after"],
    )
    wanted = [Derivation("ss.sm4", "pboc", "sm4")], [np.zeros((1, 8), np.uint8)]
    with pytest.raises(Denied) as refused:
        room.vault._holder.derive(*wanted)
    assert refused.value.reason == "KEY_PROFILE"
    with working_for("city-card"):
        room.vault._holder.derive(*wanted).close()


@pytest.mark.parametrize("scheme", ["xor", "slip39"])
def test_backed_up_by_two_and_restored_in_another_store(room, tmp_path, scheme):
    raw = bytes(make_component("sm4", 16).reveal())
    key = {**SM4, "kcv": room.install("ss.sm4", raw).kcv}
    desk = Desk(plan(kind="backup", custody="sealed", scheme=scheme, keys=(key,)))
    room.hold(desk)
    pieces = [(text, desk.checks[serial]) for serial, text in sorted(desk.printed.items())]
    other = Room(tmp_path / "other")
    restored = Desk(plan(kind="restore", custody="sealed", scheme=scheme, keys=({**key, "exportable": True},)), {0: pieces})
    other.hold(restored)
    assert other.secret() == raw
    assert other.vault.find("ss.sm4", 1).origin == f"ceremony {other.last.name}"
    assert other.vault._holder.policy("ss.sm4").exportable
    other.close()


def test_what_may_not_leave_is_neither_backed_up_nor_exported(room):
    record = room.install("ss.sm4", bytes(range(16)), exportable=False)
    room.install("kek", bytes(range(16)), algorithm="aes", purpose=Purpose.KEY_ENCRYPTION)
    key = {**SM4, "kcv": record.kcv}
    export = {"kek": "kek", "scheme": "aes-kw", "recipient": "bank", "file": str(room.place / "set.json")}
    for desk in (
        Desk(plan(kind="backup", custody="sealed", keys=(key,))),
        Desk(plan(kind="export", scheme="none", custody="sealed", keys=(key,), export=export)),
    ):
        with pytest.raises(Denied) as refused:
            room.hold(desk)
        assert refused.value.reason == "KEY_NOT_EXPORTABLE"
        assert not desk.printed
    assert not (room.place / "set.json").exists()


def test_an_export_that_one_of_the_two_does_not_agree_to_does_not_happen(room):
    desk = exporting(room)
    desk.script(Topic.CONFIRM, "no", "no", "no", custodian=1)
    with pytest.raises(Denied):
        room.hold(desk)
    assert room.types()[-1] == "paused"
    assert not (room.place / "set.json").exists()


def exporting(room, kek=bytes(range(16)), keys=("ss.sm4",)):
    room.install("kek", kek, algorithm="aes", purpose=Purpose.KEY_ENCRYPTION)
    planned = []
    for key_id in keys:
        algorithm = "sm4" if "sm4" in key_id else "3des"
        record = room.install(key_id, bytes(make_component(algorithm, 16).reveal()), algorithm=algorithm)
        planned.append({**KEY, "id": key_id, "algorithm": algorithm, "kcv": record.kcv})
    export = {"kek": "kek", "scheme": "aes-kw", "recipient": "city", "file": str(room.place / "set.json")}
    return Desk(plan(kind="export", scheme="none", custody="sealed", keys=tuple(planned), export=export))


def test_a_set_goes_into_another_sealed_store_all_or_none(room, tmp_path):
    kek = bytes(make_component("aes", 16).reveal())
    room.hold(exporting(room, kek, ("ss.sm4", "ss.dks1")))
    found = verify_set((room.place / "set.json").read_bytes(), room.clerk.public_key())
    other = Room(tmp_path / "other")
    other.install("kek.up", kek, algorithm="aes", purpose=Purpose.KEY_ENCRYPTION)
    agreed = Agreed(Level.CITY)
    way = {"under": other.vault, "into": other.vault, "origin": f"received {found.set_id}"}
    damaged = [found.keys[0], type(found.keys[1])(**{**as_dict(found.keys[1]), "kcv": "000000"})]
    with pytest.raises(Denied):
        receive(damaged, found.scheme, "kek.up", agreed, **way)
    assert [record.key_id for record in other.vault._holder.inventory()] == ["kek.up"]
    taken = receive(found.keys, found.scheme, "kek.up", agreed, **way)
    assert {(r.key_id, r.state, r.origin) for r in taken} == {
        (key_id, KeyState.ACTIVE, f"received {found.set_id}") for key_id in ("ss.sm4", "ss.dks1")
    }
    for key_id in ("ss.sm4", "ss.dks1"):
        assert other.secret(key_id) == room.secret(key_id)
        assert not other.vault._holder.policy(key_id).exportable
    other.close()


def as_dict(struct):
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


# -- with a token -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_token(token, tmp_path):
    clerk = TokenClerk(token)
    vault = SealedVault.create(clerk, tmp_path / "sealed", TokenSealer(token.session))
    (tmp_path / "ceremonies").mkdir()
    yield vault
    vault.close()


def test_a_store_under_a_token_takes_sm4_keys_from_components(with_token, token, tmp_path):
    texts, digits, raw = components(2, "sm4")
    desk = Desk(plan(kind="import", custody="sealed", keys=(SM4,)), {0: list(zip(texts, digits, strict=True))})
    Ceremony.start(desk.plan, with_token, desk, None, tmp_path / "ceremonies").run()
    with_token.close()
    with_token.open(TokenSealer(token.session))
    assert bytes(with_token._holder.reveal_master("ss.sm4", 1).reveal()) == raw
    assert with_token.sealed_by_token


def test_a_set_goes_into_the_token_and_what_the_token_cannot_hold_stops_all(room, with_token, token):
    kek = bytes(make_component("aes", 16).reveal())
    room.hold(exporting(room, kek, ("ss.dks1", "ss.sm4")))
    found = verify_set((room.place / "set.json").read_bytes(), room.clerk.public_key())
    key = PlannedKey(
        key_id="kek.up", domain=Domain.CITY, purpose=Purpose.KEY_ENCRYPTION, level=Level.CITY, algorithm="aes", not_after=date(2036, 1, 1)
    )
    with_token.install(key, SecretBytes(kek), "before")
    with_token.activate("kek.up", 1)
    into = TokenVault(token, "host-clear")
    way = {"under": with_token, "into": into, "origin": f"received {found.set_id}"}
    with pytest.raises(CitycardError) as refused:
        receive(found.keys, found.scheme, "kek.up", Agreed(Level.CITY), **way)
    assert refused.value.reason == "TOKEN_ALGORITHM"
    assert into.find("ss.dks1", 1).state is KeyState.DESTROYED
    with pytest.raises(CitycardError) as refused:
        into.unwrap(found.keys[0], found.scheme, "kek.up", Agreed(Level.CITY))
    assert refused.value.reason == "KEK_CUSTODY"
    fresh = type(found.keys[0])(**{**as_dict(found.keys[0]), "version": 2})
    (taken,) = receive([fresh], found.scheme, "kek.up", Agreed(Level.CITY), **way)
    assert (taken.state, taken.origin) == (KeyState.ACTIVE, f"received {found.set_id}")
    factor = np.arange(8, dtype=np.uint8).reshape(1, 8)
    wanted = [Derivation("ss.dks1", "pboc", "3des")]
    with token.derive(wanted, [factor]) as ours, room.vault._holder.derive(wanted, [factor]) as theirs:
        assert ours.array.tobytes() == theirs.array.tobytes()


def test_the_policy_of_the_plan_is_in_the_token_too(token, tmp_path):
    (tmp_path / "ceremonies").mkdir()
    policy = {name: value for name, value in POLICY.items() if name != "exportable"}
    desk = Desk(plan(custody="host-clear", keys=({**KEY, **policy},)))
    Ceremony.start(desk.plan, TokenVault(token, "host-clear"), desk, desk, tmp_path / "ceremonies").run()
    found = token.policy("ss.dks1")
    assert (found.methods, found.profiles, found.not_after) == (("pboc",), ("city-card",), POLICY["not_after"])
    pieces = [parse_hex(text.encode(), 16) for text in desk.printed.values()]
    with working_for("city-card"), token.derive([Derivation("ss.dks1", "pboc", "3des")], [np.zeros((1, 8), np.uint8)]) as made:
        assert made.array.any()
    combine("3des", pieces).close()


# -- at a terminal, by the command ---------------------------------------------------------------------------------------------


def words(office, serial):
    """The share in an envelope, as its custodian types it."""
    text = (office.envelopes / f"{serial}.txt").read_bytes()
    return " ".join(text.split(b"\r\n\r\n")[1].decode().split())


def test_from_the_store_key_to_a_key_in_the_store_opened_by_shares(tmp_path):
    office = Office(tmp_path, "generate", custodians=3, keys=(), store_key=True, scheme="slip39")
    run = ["ceremony", "run", *office.options]
    screen = Screen.command(*run, office.plan)
    assert office.play(screen)[0] == 0, screen.output
    office.texts = [words(office, 1001), words(office, 1002)]
    unseal, key = tmp_path / "unseal.toml", tmp_path / "key.toml"
    unseal.write_text(plan_text(kind="unseal", keys=(), scheme="slip39"))
    key.write_text(plan_text(custody="sealed", scheme="none", keys=(SM4,), names=NAMES[2:]))
    screen = Screen.command(*run, key)
    assert office.play(screen)[0] == 1
    assert b"custodians' shares" in screen.output, "it says who opens the store"
    assert b"SEALED" in screen.output
    screen = Screen.command(*run, key, "--unseal", unseal)
    assert office.play(screen)[0] == 0, screen.output
    for text in office.texts:
        assert text.encode() not in screen.output
    (record,) = SealedCustody.open(office.data, mode="test").inventory()
    assert (record.key_id, record.state) == ("ss.sm4", KeyState.ACTIVE)
    for directory in office.ceremonies.iterdir():
        verify_record((directory / RECORD_NAME).read_bytes())


def test_a_store_under_a_token_is_made_filled_and_takes_a_set(rig, room, tmp_path):
    office = token_office(rig, tmp_path, kind="import")
    token = ["--token", LABEL, "--module", MODULE, "--data", office.data, "--pin-file", office.passphrase]
    made = command("ceremony", "init", *token)
    assert f"opened by token {LABEL}" in made.stdout, made.stderr
    texts, digits, _ = components(2, "aes")
    office.texts, office.digits = texts, digits
    kek = combine("aes", [parse_hex(text.encode(), 16) for text in texts])
    office.plan.write_text(
        plan_text(kind="import", custody="sealed", keys=({**KEY, "id": "kek.up", "purpose": "key-encryption", "algorithm": "aes"},))
    )
    screen = Screen.command("ceremony", "run", office.plan, "--ceremonies", office.ceremonies, *token)
    assert office.play(screen)[0] == 0, screen.output
    with kek.reveal() as raw:
        room.hold(exporting(room, raw))
    received = ["keyblock", "receive", room.place / "set.json", "--public-key", room.clerk.public_key().hex(), *token, "--kek", "kek.up"]
    refused = command(*received, "--level", "province", "--into", "sealed")
    assert "LEVEL_NOT_AGREED" in refused.stderr
    taken = command(*received, "--level", "city", "--into", "sealed")
    assert taken.stdout.startswith("ss.sm4 version 1: "), taken.stderr
    found = {(r.key_id, r.origin.split(" ")[0]) for r in SealedCustody.open(office.data, mode="test").inventory()}
    assert found == {("kek.up", "ceremony"), ("ss.sm4", "received")}


def command(*arguments):
    run = [sys.executable, "-m", "engine.cli.main", *map(str, arguments)]
    return subprocess.run(run, capture_output=True, text=True, check=False, timeout=SILENCE)
