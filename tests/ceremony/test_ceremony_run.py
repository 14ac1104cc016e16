"""Ceremonies of every kind from plan to record: what they leave in the vault, and what faults at the desk lead to."""

import json
from dataclasses import replace

import pytest

from keys import shares
from keys.ceremony.custodians import RECORD_NAME
from keys.ceremony.desk import Topic
from keys.ceremony.plan import PlannedKey
from keys.ceremony.receive import receive
from keys.ceremony.record import verify_record
from keys.ceremony.run import Ceremony
from keys.components import combine, make_component, parse_hex
from keys.errors import CitycardError, Conflict, Denied, InvalidInput, NotFound, Precondition
from keys.hierarchy import Domain, KeyState, Level, Purpose
from keys.kcv import kcv
from keys.keyblock.handover import Agreed, verify_set
from keys.secrets import SecretBytes
from tests.ceremony.ceremony_tools import KEY, NAMES, Clock, Desk, components, make_vault, plan

SM4 = {**KEY, "id": "ss.sm4", "algorithm": "sm4"}


class Room:
    """A vault, a place for ceremonies, and one ceremony at a time."""

    def __init__(self, directory):
        self.vault = make_vault(directory / "vault")
        self.place = directory / "ceremonies"
        self.place.mkdir()

    def hold(self, wanted, desk):
        ceremony = Ceremony.start(wanted, self.vault, desk, desk, self.place, clock=Clock())
        self.directory = self.place / ceremony.ceremony_id
        ceremony.run()

    def resume(self, wanted, desk):
        Ceremony.resume(self.directory, self.vault, desk, lambda _: desk, clock=Clock()).run()

    def entries(self, complete=True):
        content = (self.directory / RECORD_NAME).read_bytes()
        return verify_record(content, public_key=self.vault.clerk.public_key().hex(), complete=complete).entries

    def types(self, complete=True):
        return [entry["type"] for entry in self.entries(complete)]

    def secret(self, key_id="ss.dks1", version=1):
        return bytes(self.vault._store.reveal_master(key_id, version).reveal())

    def have(self, raw, exportable=True, **fields):
        key = PlannedKey(
            **{
                "key_id": "ss.dks1",
                "domain": Domain.SOCIAL_SECURITY,
                "purpose": Purpose.APPLICATION,
                "level": Level.CITY,
                "algorithm": "3des",
                "exportable": exportable,
                **fields,
            }
        )
        self.vault.install(key, SecretBytes(raw), "before")
        return self.vault.activate(key.key_id, key.version)

    def no_key_and_no_pause(self):
        assert all(record.state is KeyState.DESTROYED for record in self.vault._store.inventory())
        assert not list(self.vault._directory.glob("ceremony-*"))
        assert not (self.directory / "pause").exists()


@pytest.fixture
def room(tmp_path):
    made = Room(tmp_path)
    yield made
    made.vault.close()


@pytest.mark.parametrize("custodians", [2, 5, 9])
def test_generated_components_in_the_envelopes_make_the_installed_key(room, custodians):
    wanted = plan(custodians=custodians, keys=(KEY, SM4))
    desk = Desk(wanted)
    room.hold(wanted, desk)
    assert list(desk.printed) == list(range(1001, 1001 + 2 * custodians))
    for at, key in enumerate((KEY, SM4)):
        texts = [desk.printed[serial] for serial in desk.printed if (serial - 1001) % 2 == at]
        pieces = [parse_hex(text.encode(), 16) for text in texts]
        assert bytes(combine(key["algorithm"], pieces).reveal()) == room.secret(key["id"])
        record = room.vault.find(key["id"], 1)
        assert record.state is KeyState.ACTIVE
        result = next(entry for entry in room.entries() if entry["type"] == "result" and entry["key_id"] == key["id"])
        assert result["kcv"] == record.kcv == kcv(key["algorithm"], room.secret(key["id"])).hex().upper()
    assert not (room.directory / "pause").exists()
    assert not list(room.vault._directory.glob("ceremony-*"))


@pytest.mark.parametrize("kind", ["generate", "backup"])
def test_any_threshold_of_the_shares_rebuilds_the_key(room, kind):
    raw = bytes(make_component("3des", 16).reveal())
    key = KEY
    if kind == "backup":
        key = {**KEY, "kcv": room.have(raw).kcv}
    wanted = plan(kind=kind, scheme="slip39", custodians=4, threshold=3, keys=(key,))
    desk = Desk(wanted)
    room.hold(wanted, desk)
    texts = [shares.parse_share(text.encode()) for text in desk.printed.values()]
    for chosen in (texts[:3], texts[1:], [texts[0], texts[2], texts[3]]):
        assert bytes(shares.combine_shares(chosen).reveal()) == room.secret()


def test_backup_by_components_and_restore_in_another_vault(room, tmp_path):
    raw = bytes(make_component("3des", 16).reveal())
    key = {**KEY, "kcv": room.have(raw).kcv}
    desk = Desk(plan(kind="backup", custodians=3, keys=(key,)))
    room.hold(desk.plan, desk)
    other = Room(tmp_path / "other") if (tmp_path / "other").mkdir() is None else None
    pieces = {0: [(text, desk.checks[serial]) for serial, text in desk.printed.items()]}
    restored = Desk(plan(kind="restore", custodians=3, keys=(key,)), pieces)
    other.hold(restored.plan, restored)
    assert other.secret() == raw
    other.vault.close()


def test_components_entered_make_the_known_key(room):
    texts, digits, raw = components(3)
    key = {**KEY, "kcv": kcv("3des", raw).hex().upper()}
    desk = Desk(plan(kind="import", custodians=3, keys=(key,)), {0: list(zip(texts, digits, strict=True))})
    room.hold(desk.plan, desk)
    assert room.secret() == raw


def test_shares_entered_make_the_known_key(room):
    raw = bytes(make_component("sm4", 16).reveal())
    made = [bytes(share.reveal()).decode() for share in shares.split(SecretBytes(raw), 2, 3)]
    desk = Desk(plan(kind="import", scheme="slip39", custodians=2, keys=(SM4,)), {0: [(made[2], ""), (made[0], "")]})
    room.hold(desk.plan, desk)
    assert room.secret("ss.sm4") == raw


def test_a_key_made_inside_is_never_seen(room):
    desk = Desk(plan(scheme="none"))
    room.hold(desk.plan, desk)
    assert room.vault.find("ss.dks1", 1).state is KeyState.ACTIVE
    assert not desk.printed
    with pytest.raises(Denied) as refused:
        room.vault.reveal("ss.dks1", 1)
    assert refused.value.reason == "KEY_NOT_EXPORTABLE"


def test_destroying_needs_every_custodian_and_leaves_only_the_record(room):
    key = {**KEY, "kcv": room.have(bytes(make_component("3des", 16).reveal())).kcv}
    desk = Desk(plan(kind="destroy", scheme="none", keys=(key,)))
    room.hold(desk.plan, desk)
    assert room.vault.find("ss.dks1", 1).state is KeyState.DESTROYED
    with pytest.raises(NotFound):
        room.secret()
    assert room.types().count("confirmed") == 2


def test_a_custodian_who_does_not_agree_stops_it(room):
    key = {**KEY, "kcv": room.have(bytes(make_component("3des", 16).reveal())).kcv}
    desk = Desk(plan(kind="destroy", scheme="none", keys=(key,)))
    desk.script(Topic.CONFIRM, "no", "", "000000", custodian=1)
    with pytest.raises(Denied):
        room.hold(desk.plan, desk)
    assert room.vault.find("ss.dks1", 1).state is KeyState.ACTIVE
    assert room.types(complete=False)[-1] == "paused"


def export_plan(room, scheme="x9.143-d", exportable=True, purpose=Purpose.KEY_ENCRYPTION):
    record = room.have(bytes(make_component("3des", 16).reveal()), exportable=exportable)
    kek = make_component("aes", 16)
    room.have(bytes(kek.reveal()), key_id="kek.bank", algorithm="aes", purpose=purpose)
    export = {"kek": "kek.bank", "scheme": scheme, "recipient": "bank", "file": str(room.place / "set.json")}
    return plan(kind="export", scheme="none", keys=({**KEY, "kcv": record.kcv},), export=export), bytes(kek.reveal())


@pytest.mark.parametrize("scheme", ["x9.143-d", "aes-kw"])
def test_an_export_is_signed_and_the_other_side_takes_it_in(room, tmp_path, scheme):
    wanted, kek = export_plan(room, scheme)
    room.hold(wanted, Desk(wanted))
    found = verify_set((room.place / "set.json").read_bytes(), room.vault.clerk.public_key())
    (tmp_path / "other").mkdir()
    other = Room(tmp_path / "other")
    other.have(kek, key_id="kek.city", algorithm="aes", purpose=Purpose.KEY_ENCRYPTION)
    way = {"under": other.vault, "into": other.vault, "origin": "received"}
    (taken,) = receive(found.keys, found.scheme, "kek.city", Agreed(Level.CITY), **way)
    assert (taken.state, taken.kcv) == (KeyState.ACTIVE, room.vault.find("ss.dks1", 1).kcv)
    assert other.secret() == room.secret()
    with pytest.raises(Denied):
        receive([replace_key(found.keys[0], version=2)], found.scheme, "ss.dks1", Agreed(Level.CITY), **way)
    with pytest.raises(Conflict):
        receive(found.keys, found.scheme, "kek.city", Agreed(Level.CITY), **way)
    other.vault.close()


def replace_key(key, **fields):
    return type(key)(**{name: fields.get(name, getattr(key, name)) for name in key.__struct_fields__})


@pytest.mark.parametrize(
    ("options", "reason"), [({"exportable": False}, "KEY_NOT_EXPORTABLE"), ({"purpose": Purpose.APPLICATION}, "KEY_PURPOSE")], ids=str
)
def test_what_may_not_leave_is_not_exported(room, options, reason):
    wanted, _ = export_plan(room, **options)
    with pytest.raises(Denied) as refused:
        room.hold(wanted, Desk(wanted))
    assert refused.value.reason == reason
    assert not (room.place / "set.json").exists()


def test_a_backup_of_a_key_that_may_not_leave_is_refused(room):
    key = {**KEY, "kcv": room.have(bytes(make_component("3des", 16).reveal()), exportable=False).kcv}
    desk = Desk(plan(kind="backup", keys=(key,)))
    with pytest.raises(Denied) as refused:
        room.hold(desk.plan, desk)
    assert refused.value.reason == "KEY_NOT_EXPORTABLE"
    assert not desk.printed


def importing(count=3, **fields):
    texts, digits, raw = components(count)
    desk = Desk(plan(kind="import", custodians=count, **fields), {0: list(zip(texts, digits, strict=True))})
    return desk, raw


@pytest.mark.parametrize(
    ("typed", "digits", "reason"),
    [
        ("0123", "000000", "COMPONENT_LENGTH"),
        ("G" * 32, "000000", "COMPONENT_NOT_HEX"),
        ("00" * 16, "000000", "COMPONENT_ZERO"),
        ("0123456789ABCDEFFEDCBA9876543210", "08D7B5", "COMPONENT_KCV"),
        ("0123456789ABCDEFFEDCBA9876543210", "nonsense", "COMPONENT_KCV"),
        ("0023456789ABCDEFFEDCBA9876543210", None, "COMPONENT_PARITY"),
        ("0123456789ABCDEF0123456789ABCDEF", None, "COMPONENT_WEAK"),
        ("earlier", None, "COMPONENT_REPEATED"),
    ],
)
def test_a_bad_component_is_found_at_once_and_its_custodian_tries_again(room, typed, digits, reason):
    """The second custodian types something wrong first; the name and the rule are said, no digit of it, and then it goes on."""
    desk, raw = importing()
    if typed == "earlier":
        typed, digits = desk.pieces[0][0]
    elif digits is None:
        digits = kcv("3des", bytes.fromhex(typed)).hex().upper()
    desk.script(Topic.COMPONENT, typed, custodian=1)
    desk.script(Topic.CHECK_DIGITS, digits, custodian=1)
    if reason in ("COMPONENT_LENGTH", "COMPONENT_NOT_HEX"):
        desk.answers[Topic.CHECK_DIGITS, 1, 0].clear()
        desk.script(Topic.CHECK_DIGITS, digits, custodian=1)
    room.hold(desk.plan, desk)
    assert room.secret() == raw
    (refused,) = [entry for entry in room.entries() if entry["type"] == "refused"]
    assert (refused["person"], refused["reason"]) == ("wang.fang", reason)
    (said,) = [line for line in desk.lines if "more tries" in line]
    assert said.startswith("王芳: ss.dks1 version 1: ")
    assert typed not in " ".join(desk.lines)


def test_three_wrong_entries_pause_and_the_next_day_goes_on(room):
    desk, raw = importing()
    desk.script(Topic.COMPONENT, "1", "2", "3", custodian=1)
    with pytest.raises(Denied) as refused:
        room.hold(desk.plan, desk)
    assert refused.value.reason == "ENTRY_ATTEMPTS"
    assert room.vault.find("ss.dks1", 1) is None
    room.resume(desk.plan, desk)
    assert room.secret() == raw
    assert [question.custodian for question in desk.asked if question.topic is Topic.CALL] == [0, 1, 1, 2]


def test_the_screen_is_cleared_before_and_after_each_custodian(room):
    desk, _ = importing(2)
    room.hold(desk.plan, desk)
    assert desk.lines.count("[screen cleared]") == 4
    assert desk.lines.index("Accepted.") > desk.lines.index("[screen cleared]")


@pytest.mark.parametrize("stop", range(1, 9))
def test_an_interrupted_import_goes_on_where_it_stopped_or_leaves_nothing(room, stop):
    desk, raw = importing(2)
    desk.stop_at = stop
    if stop > 7:
        room.hold(desk.plan, desk)
        assert room.secret() == raw
        return
    with pytest.raises(Precondition) as paused:
        room.hold(desk.plan, desk)
    assert paused.value.reason == "CEREMONY_PAUSED"
    assert room.vault.find("ss.dks1", 1) is None
    if stop % 2:
        room.resume(desk.plan, desk)
        assert room.secret() == raw
        assert room.types()[-1] == "closed"
    else:
        Ceremony.resume(room.directory, room.vault, desk, lambda _: None).abort("tired")
        room.no_key_and_no_pause()
        assert room.types()[-1] == "aborted"
        with pytest.raises(Precondition) as ended:
            room.resume(desk.plan, desk)
        assert ended.value.reason == "CEREMONY_ENDED"


def test_pause_between_two_custodians(room):
    desk, raw = importing()
    desk.script(Topic.CALL, "pause", custodian=1)
    with pytest.raises(Precondition):
        room.hold(desk.plan, desk)
    assert len(list((room.directory / "pause").iterdir())) == 1
    for path in room.directory.rglob("*"):
        assert path.is_dir() or bytes.fromhex(desk.pieces[0][0][0]) not in path.read_bytes()
    room.resume(desk.plan, desk)
    assert room.secret() == raw


def test_a_paused_component_that_was_changed_or_moved_is_refused(room):
    desk, _ = importing()
    desk.script(Topic.CALL, "pause", custodian=2)
    with pytest.raises(Precondition):
        room.hold(desk.plan, desk)
    first, second = sorted((room.directory / "pause").iterdir())
    whole = first.read_bytes()
    for content in (second.read_bytes(), whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        first.write_bytes(content)
        with pytest.raises(CitycardError) as refused:
            room.resume(desk.plan, desk)
        assert refused.value.reason == "PAUSE_CORRUPT"
        assert room.vault.find("ss.dks1", 1) is None


def test_components_of_another_key_end_it_without_a_key(room):
    desk, _ = importing(2, keys=({**KEY, "kcv": "123456"},))
    with pytest.raises(Denied) as refused:
        room.hold(desk.plan, desk)
    assert refused.value.reason == "KCV_MISMATCH"
    room.no_key_and_no_pause()
    assert room.types()[-1] == "aborted"


def test_an_envelope_that_cannot_be_read_is_void_and_replaced(room):
    desk = Desk(plan())
    desk.script(Topic.ENVELOPE_READ, "?", "000000", "")
    room.hold(desk.plan, desk)
    assert list(desk.printed) == [1001, 1002, 1003]
    assert desk.printed[1001] != desk.printed[1002], "a component of a void envelope is not used"
    (void,) = [entry for entry in room.entries() if entry["type"] == "void"]
    assert void["envelope"] == 1001
    pieces = [parse_hex(desk.printed[serial].encode(), 16) for serial in (1002, 1003)]
    assert bytes(combine("3des", pieces).reveal()) == room.secret()


@pytest.mark.parametrize("stop", range(1, 8))
def test_an_interrupted_generation_voids_the_open_envelope(room, stop):
    desk = Desk(plan())
    desk.stop_at = stop
    with pytest.raises(Precondition):
        room.hold(desk.plan, desk)
    open_envelopes = set(desk.printed) - {e["envelope"] for e in room.entries(complete=False) if e["type"] == "component"}
    room.resume(desk.plan, desk)
    assert {entry["envelope"] for entry in room.entries() if entry["type"] == "void"} == open_envelopes
    good = [entry["envelope"] for entry in room.entries() if entry["type"] == "component"]
    pieces = [parse_hex(desk.printed[serial].encode(), 16) for serial in good]
    assert bytes(combine("3des", pieces).reveal()) == room.secret()


def test_a_plan_that_names_an_existing_key_is_refused_before_anything(room):
    room.have(bytes(make_component("3des", 16).reveal()))
    for kind in ("generate", "import"):
        desk = Desk(plan(kind=kind))
        with pytest.raises(Conflict) as refused:
            room.hold(desk.plan, desk)
        assert refused.value.reason == "KEY_EXISTS"
    assert not list(room.place.iterdir())


@pytest.mark.parametrize(
    ("kind", "key", "error"),
    [("backup", {**KEY, "kcv": "123456"}, Denied), ("destroy", {**KEY, "id": "other", "kcv": "123456"}, NotFound)],
    ids=str,
)
def test_a_plan_for_another_key_than_the_vault_has_is_refused(room, kind, key, error):
    room.have(bytes(make_component("3des", 16).reveal()))
    wanted = plan(kind=kind, scheme="xor" if kind == "backup" else "none", keys=(key,))
    with pytest.raises(error):
        room.hold(wanted, Desk(wanted))


def test_a_plan_changed_meanwhile_is_not_resumed(room):
    desk, _ = importing()
    desk.script(Topic.CALL, "pause")
    with pytest.raises(Precondition):
        room.hold(desk.plan, desk)
    (room.directory / "plan.toml").write_text(desk.plan.text + "\n# later\n")
    with pytest.raises(Denied) as refused:
        room.resume(desk.plan, desk)
    assert refused.value.reason == "PLAN_CHANGED"


def test_a_second_process_waits(room):
    desk, _ = importing()
    desk.script(Topic.CALL, "pause")
    with pytest.raises(Precondition):
        room.hold(desk.plan, desk)
    one = Ceremony.resume(room.directory, room.vault, desk, lambda _: None)
    with one._alone(), pytest.raises(Conflict) as refused:
        one.run()
    assert refused.value.reason == "CEREMONY_BUSY"


def test_who_witnessed_or_held_before_is_refused_in_a_new_ceremony(room):
    desk, _ = importing(2)
    desk.script(Topic.CALL, "pause", custodian=1)
    with pytest.raises(Precondition):
        room.hold(desk.plan, desk)
    again = Desk(plan(kind="import", names=[NAMES[1], NAMES[0]]), {0: desk.pieces[0]})
    again.pieces = {0: [desk.pieces[0][0], desk.pieces[0][1]]}
    with pytest.raises(Denied) as refused:
        room.hold(again.plan, again)
    assert refused.value.reason == "DUAL_CONTROL", "li.wei had the first component and now brings the second"
    text = plan(kind="import").text.replace('"sun.wei"', '"li.wei"').replace('"孙伟"', '"李大伟"').replace('"李伟"', '"周杰"')
    text = text.replace('[[custodians]]\nid = "li.wei"', '[[custodians]]\nid = "zhou.jie"')
    from keys.ceremony.planfile import require_plan

    third = require_plan(text, "plan.toml")
    with pytest.raises(Denied):
        room.hold(third, Desk(third))


def test_no_secret_in_anything_a_ceremony_leaves(room):
    """Canaries: components as typed, their bytes, and the key, in files, lines, errors and reprs."""
    desk, raw = importing(3)
    desk.script(Topic.COMPONENT, desk.pieces[0][1][0][:-1] + "0", custodian=1)
    room.hold(desk.plan, desk)
    canaries = [raw, raw.hex().encode(), raw.hex().upper().encode()]
    for text, _ in desk.pieces[0]:
        canaries += [text.encode(), text.lower().encode(), bytes.fromhex(text)]
    seen = [path.read_bytes() for path in [*room.directory.rglob("*"), *room.vault._directory.rglob("*")] if path.is_file()]
    seen += [repr(desk.lines).encode(), json.dumps(room.entries(), ensure_ascii=False).encode()]
    assert len(seen) > 4
    for content in seen:
        for canary in canaries:
            assert canary not in content


def test_a_plan_without_a_printer_stops_before_any_component(room):
    wanted = replace(plan(), output=None)
    with pytest.raises(Precondition) as refused:
        Ceremony.start(wanted, room.vault, Desk(wanted), None, room.place).run()
    assert refused.value.reason == "OUTPUT_DEVICE"


def test_weak_keys_out_of_good_components_leave_no_key(room):
    texts = ["0123456789ABCDEFFEDCBA9876543210", "FEDCBA98765432100123456789ABCDEF"]
    digits = [kcv("3des", bytes.fromhex(text)).hex() for text in texts]
    desk = Desk(plan(kind="import"), {0: list(zip(texts, digits, strict=True))})
    with pytest.raises(InvalidInput) as refused:
        room.hold(desk.plan, desk)
    assert refused.value.reason == "WEAK_KEY"
    room.no_key_and_no_pause()
