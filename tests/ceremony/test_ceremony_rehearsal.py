"""A rehearsal goes the same way as the real thing and differs only where it must."""

import re

import pytest

from keys.ceremony.plan import Kind
from keys.ceremony.record import verify_record
from keys.ceremony.rehearsal import UNSEEN, rehearse
from keys.ceremony.run import Ceremony
from keys.components import make_component
from keys.hierarchy import Purpose
from tests.ceremony.ceremony_tools import KEY, Clock, Desk, components, make_vault, plan
from tests.ceremony.test_ceremony_run import Room

EXPORT = {"kek": "kek.bank", "scheme": "x9.143-d", "recipient": "bank", "file": "/nonexistent/set.json"}
KNOWN = {**KEY, "kcv": "08D7B4"}
PLANS = [
    {},
    {"custodians": 3, "keys": (KEY, {**KEY, "id": "ss.sm4", "algorithm": "sm4"})},
    {"scheme": "slip39", "custodians": 3},
    {"scheme": "none"},
    {"keys": (), "store_key": True, "scheme": "slip39"},
    {"kind": "import", "custodians": 3},
    {"kind": "import", "scheme": "slip39", "keys": (KNOWN,)},
    {"kind": "restore", "keys": (KNOWN,)},
    {"kind": "backup", "keys": (KNOWN,)},
    {"kind": "backup", "scheme": "slip39", "keys": (KNOWN,)},
    {"kind": "destroy", "scheme": "none", "keys": (KNOWN,)},
    {"kind": "export", "scheme": "none", "keys": (KNOWN,), "export": EXPORT},
    {"kind": "export", "scheme": "none", "keys": (KNOWN,), "export": {**EXPORT, "scheme": "x9.143-b"}},
    {"kind": "unseal", "scheme": "slip39", "keys": ()},
    {"kind": "unseal", "keys": ()},
]


@pytest.mark.parametrize("fields", PLANS, ids=str)
def test_every_kind_of_plan_can_be_rehearsed(fields):
    done = rehearse(plan(**fields), clock=Clock())
    record = verify_record(done.record)
    assert record.entries[-1]["type"] == "closed"
    assert (record.entries[0]["mode"], record.entries[0]["test"]) == ("rehearsal", True)
    assert done.transcript[-1].endswith("is closed.")


def test_nothing_is_kept_and_no_device_is_touched(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", None)
    rehearse(plan(device="/nonexistent/printer"))
    assert not list(tmp_path.iterdir())


def without(text):
    """A line or an entry without what must differ: random check digits, the ceremony's number."""
    text = re.sub(r"zz-2026-[0-9a-f]{8}", "ID", text)
    return re.sub(r"\b[0-9A-F]{6}\b", "KCV", text)


@pytest.mark.parametrize("fields", [{"custodians": 3}, {"scheme": "slip39", "custodians": 3}, {"kind": "import"}], ids=str)
def test_rehearsal_and_run_differ_only_where_they_must(tmp_path, fields):
    wanted = plan(**fields)
    texts, digits, _ = components(2)
    desk = Recorder(wanted, {0: list(zip(texts, digits, strict=True))})
    room = Room(tmp_path)
    room.hold(wanted, desk)
    rehearsed = rehearse(wanted, clock=Clock())
    assert [without(line) for line in desk.lines] == [without(line) for line in rehearsed.transcript]
    real, practised = room.entries(), verify_record(rehearsed.record).entries
    assert len(real) == len(practised)
    different = {field for one, other in zip(real, practised, strict=True) for field in one if one[field] != other.get(field)}
    assert all(one.keys() == other.keys() for one, other in zip(real, practised, strict=True))
    must = {"mode", "ceremony", "public_key", "prev"}
    # random values: check digits, key check value; shares also carry the random number of their set
    random = {"check", "kcv", "piece", "scheme"}
    assert must <= different <= must | random
    room.vault.close()


class Recorder(Desk):
    """Writes down the screen as the rehearsal does."""

    def secret(self, question):
        self.lines.append(f"{question.text} {UNSEEN}")
        return super().secret(question)

    def ask(self, question):
        answer = super().ask(question)
        self.lines.append(f"{question.text} {answer}".rstrip())
        return answer


def test_rehearsed_records_give_nobody_a_history(tmp_path):
    """Practice pieces are no pieces: whoever rehearsed may hold the real ones."""
    from keys.ceremony.custodians import Division, Holdings

    entries = verify_record(rehearse(plan()).record).entries
    holdings = Holdings.of_records([entries])
    for entry in entries:
        if entry["type"] == "component":
            holdings.saw(
                Division("ss.dks1", 1, entry["scheme"], 2), "li.wei" if entry["custodian"] != "li.wei" else "wang.fang", entry["piece"], "x"
            )


def test_the_kinds_are_all_rehearsed():
    assert {fields.get("kind", "generate") for fields in PLANS} == set(Kind)


def test_a_real_vault_is_not_needed_for_what_it_would_hold(tmp_path):
    """The rehearsal of an export makes its own practice key-encryption key; the real one must have it."""
    vault = make_vault(tmp_path / "v")
    from keys.ceremony.plan import PlannedKey
    from keys.errors import NotFound
    from keys.hierarchy import Domain, Level

    key = PlannedKey(key_id="ss.dks1", domain=Domain.CITY, purpose=Purpose.APPLICATION, level=Level.CITY, algorithm="3des", exportable=True)
    record = vault.install(key, make_component("3des", 16), "before")
    vault.activate("ss.dks1", 1)
    wanted = plan(kind="export", scheme="none", keys=({**KEY, "kcv": record.kcv},), export={**EXPORT, "file": str(tmp_path / "set.json")})
    desk = Desk(wanted)
    (tmp_path / "c").mkdir()
    with pytest.raises(NotFound):
        Ceremony.start(wanted, vault, desk, desk, tmp_path / "c").run()
    vault.close()
