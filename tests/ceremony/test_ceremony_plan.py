"""Plans: a sound one is read, every fault of a bad one is found at once, each at its line."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.ceremony.plan import Kind, SchemeType
from keys.ceremony.planfile import read_plan, require_plan
from keys.errors import InvalidInput
from tests.ceremony.ceremony_tools import KEY, NAMES, plan, plan_text

EXPORT = {"kek": "kek.bank", "scheme": "x9.143-d", "recipient": "bank", "file": "/tmp/set.json"}
KNOWN = {**KEY, "kcv": "08D7B4"}
CRYPTOPERIOD = ("keys[0].not_after", "cryptoperiod")


def rules(text):
    found, findings = read_plan(text)
    assert (found is None) == bool(findings)
    return {(finding.field, finding.rule) for finding in findings}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"scheme": "slip39", "custodians": 5, "threshold": 3},
        {"scheme": "none"},
        {"custodians": 9},
        {"kind": "import", "custodians": 3},
        {"kind": "import", "keys": (KNOWN, {**KNOWN, "version": 2})},
        {"kind": "restore", "scheme": "slip39", "custodians": 2, "threshold": 2, "keys": (KNOWN,)},
        {"kind": "backup", "keys": (KNOWN,)},
        {"kind": "destroy", "scheme": "none", "keys": (KNOWN,)},
        {"kind": "export", "scheme": "none", "keys": (KNOWN,), "export": EXPORT},
        {"kind": "unseal", "scheme": "slip39", "keys": ()},
        {"keys": (), "store_key": True},
    ],
    ids=str,
)
def test_sound_plans_are_read(fields):
    made = plan(**fields)
    assert made.kind == fields.get("kind", "generate")
    assert made.threshold == fields.get("threshold", 2 if fields.get("scheme") == "slip39" else fields.get("custodians", 2))


def test_what_a_plan_says():
    made = plan(scheme="slip39", custodians=3)
    assert (made.kind, made.scheme, made.place, made.witness.name) == (Kind.GENERATE, SchemeType.SLIP39, "密钥室 2", "孙伟")
    assert [person.person_id for person in made.custodians] == NAMES[:3]
    assert made.keys[0].name == "ss.dks1 version 1"
    assert made.output.first_envelope == 1001
    assert len(made.sha256) == 64


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"custodians": 1}, ("custodians", "custodians")),
        ({"scheme": "slip39", "custodians": 1}, ("custodians", "custodians")),
        ({"scheme": "slip39", "custodians": 2, "threshold": 3}, ("custodians", "custodians")),
        ({"kind": "restore", "scheme": "slip39", "custodians": 3, "keys": (KNOWN,)}, ("custodians", "custodians")),
        ({"kind": "destroy", "scheme": "none", "custodians": 1, "keys": (KNOWN,)}, ("custodians", "custodians")),
        ({"kind": "destroy", "keys": (KNOWN,)}, ("scheme.type", "scheme")),
        ({"kind": "import", "scheme": "none"}, ("scheme.type", "scheme")),
        ({"kind": "unseal", "keys": (), "scheme": "none"}, ("scheme.type", "scheme")),
        ({"keys": (), "store_key": True, "scheme": "none"}, ("scheme.type", "store-key")),
        ({"kind": "import", "keys": (), "store_key": True}, ("store_key", "store-key")),
        ({"store_key": True}, ("keys", "store-key")),
        ({"keys": (), "store_key": True, "custody": "software"}, ("custody", "store-key")),
        ({"kind": "unseal", "keys": (), "custody": "host-clear"}, ("custody", "store-key")),
        ({"keys": ({**KEY, "methods": ["pboc"]},)}, ("keys[0].methods", "policy")),
        ({"keys": ({**KEY, "methods": ["xor"]},), "custody": "sealed"}, ("keys[0].methods", "choice")),
        ({"keys": ({**KEY, "methods": []},), "custody": "sealed"}, ("keys[0].methods", "type")),
        ({"keys": ({**KEY, "methods": "pboc"},), "custody": "sealed"}, ("keys[0].methods", "type")),
        ({"keys": ({**KEY, "profiles": ["City Card"]},), "custody": "sealed"}, ("keys[0].profiles", "form")),
        ({"keys": ({**KEY, "not_after": "2027-01-01"},), "custody": "sealed"}, ("keys[0].not_after", "type")),
        ({"keys": ({**KEY, "not_before": date(2028, 1, 1), "not_after": date(2027, 1, 1)},), "custody": "sealed"}, CRYPTOPERIOD),
        ({"kind": "destroy", "scheme": "none", "keys": ({**KNOWN, "exportable": True},)}, ("keys[0].exportable", "unused")),
        ({"keys": ()}, ("keys", "missing")),
        ({"keys": (KEY, KEY)}, ("keys[1].id", "key-twice")),
        ({"keys": ({**KEY, "algorithm": "sm4"},), "custody": "token-only"}, ("keys[0].algorithm", "token-sm4")),
        ({"keys": ({**KEY, "exportable": True},), "custody": "host-clear"}, ("keys[0].exportable", "token-exportable")),
        ({"kind": "backup", "keys": (KNOWN,), "custody": "host-clear"}, ("kind", "token-exportable")),
        ({"keys": (KNOWN,)}, ("keys[0].kcv", "unused")),
        ({"kind": "backup"}, ("keys[0].kcv", "missing")),
        ({"output": False}, ("output", "missing")),
        ({"kind": "export", "scheme": "none", "keys": (KNOWN,)}, ("export", "missing")),
        ({"export": EXPORT}, ("export", "unused")),
        ({"names": [NAMES[0], NAMES[0]]}, ("custodians[1].id", "custodian-twice")),
        ({"names": ["li.wei", "li.wei"]}, ("custodians[1].name", "custodian-twice")),
        ({"keys": ({**KEY, "id": "SS"},)}, ("keys[0].id", "form")),
        ({"keys": ({**KEY, "version": 256},)}, ("keys[0].version", "range")),
        ({"keys": ({**KEY, "version": True},)}, ("keys[0].version", "type")),
        ({"keys": ({**KEY, "algorithm": "des"},)}, ("keys[0].algorithm", "choice")),
        ({"keys": ({**KEY, "komment": "x"},)}, ("keys[0].komment", "unknown")),
        ({"schema": 2}, ("file", "toml")),
        ({"comment": "x"}, ("comment", "unknown")),
    ],
    ids=str,
)
def test_each_fault_is_found(fields, rule):
    assert rule in rules(plan_text(**fields))


def test_all_faults_at_once_with_their_lines():
    text = plan_text(custodians=2, names=["li.wei", "li.wei"], keys=({**KEY, "kvc": "000000", "version": 0}, KEY))
    text = text.replace('"sun.wei"', '"li.wei"').replace("place =", "plaice =")
    lines = text.splitlines()
    _, findings = read_plan(text)
    places = {(finding.field, finding.rule, lines[finding.line - 1].split(" =")[0] if finding.line else "") for finding in findings}
    assert places == {
        ("plaice", "unknown", "plaice"),
        ("place", "missing", ""),
        ("keys[0].kvc", "unknown", "kvc"),
        ("keys[0].version", "range", "version"),
        ("custodians[1].id", "custodian-twice", "id"),
        ("custodians[1].name", "custodian-twice", "name"),
        ("witness.id", "witness-is-custodian", "id"),
    }
    with pytest.raises(InvalidInput) as refused:
        require_plan(text, "plans/ss.toml")
    assert refused.value.reason == "PLAN_INVALID"
    assert refused.value.message.count("plans/ss.toml: ") == len(findings) == 7
    number = lines.index('kvc = "000000"') + 1
    assert f"line {number}, keys[0].kvc: no such key in a plan [unknown]" in refused.value.message


def test_faults_of_toml_itself_have_their_line():
    _, (finding,) = read_plan(plan_text() + "\n[witness]\nx = 1\n")
    assert finding.rule == "toml"
    assert finding.line > 20


@pytest.mark.parametrize("text", ["", "keys = 3", "[keys]", "custodians = [1]", "witness = 'x'", "[[scheme]]", "kind = ['x']", "\x00"])
def test_other_shapes_are_findings_too(text):
    assert read_plan(text)[0] is None


@given(st.text(max_size=200), st.integers(0, 700))
def test_no_text_crashes_the_reader(inserted, place):
    text = plan_text()
    read_plan(text[:place] + inserted + text[place:])
