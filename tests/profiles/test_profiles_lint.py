"""Every rule of the lint fires on what it is for and on nothing sound; the shipped profile is sound and says what it costs."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest

from engine.profiles import lint as lint_module
from engine.profiles.lint import lint, require_clean
from engine.profiles.masters import master_specs
from engine.profiles.model import load
from keys.errors import InvalidInput
from tests.profiles.profile_tools import NAME, application, dgi, keyset, loaded, shipped, tiny


def rules(data) -> set[str]:
    return {f.rule for f in lint(loaded(data)) if f.severity != "info"}


def city(data):
    return application(data, "city")


def record(data):
    """The parts of record 1501 of the tiny profile: city_serial, issue date, expiry date."""
    return dgi(data, "city", "1501")["parts"]


def root(data):
    return keyset(data, "city", "root")


def twice(items, index=0):
    items.append(copy.deepcopy(items[index]))


def finance(change):
    def edit(data):
        data["applications"].append(copy.deepcopy(application(shipped(), "finance")))
        change(application(data, "finance"))

    return edit


def transport(change):
    def edit(data):
        data["key_tables"] = shipped()["key_tables"]
        data["applications"].append(copy.deepcopy(application(shipped(), "transport")))
        change(application(data, "transport"))

    return edit


def a_load(key):
    return {"keyset": "root", "key": key, "key_index": "01", "amount": "0" * 8, "terminal": "0" * 12}


def fin_keys(app, name="des"):
    return next(k for k in app["keysets"] if k["name"] == name)


def fin_dgi(app, number):
    return next(d for d in app["dgis"] if d["id"] == number)


def files(data):
    return dgi(data, "city", "A001")["parts"][0]["files"]


# What is done to a sound profile -> the rule that must say so.
CASES = [
    ("no-applications", lambda d: d["applications"].clear()),
    ("aid-length", lambda d: d["chip"].update(isd_aid="A0000000")),
    ("aid-length", lambda d: d["chip"].update(isd_aid="A0" * 300)),
    ("aid-length", lambda d: city(d).update(aid="A0" * 17)),
    ("channel-s16", lambda d: d["channel"].update(i="71")),
    ("channel-level", lambda d: d["channel"].update(i="00")),
    ("channel-level", lambda d: d["channel"].update(i="42")),
    ("channel-method", lambda d: d["channel"]["issuer"].update(method="gp-emv")),
    ("channel-kvn", lambda d: d["channel"]["issuer"].update(kvn="30")),
    ("channel-master", lambda d: d["channel"]["issuer"].update(master="maker.kmc")),
    ("application-twice", lambda d: twice(d["applications"])),
    ("aid-twice", lambda d: twice(d["applications"])),
    ("serial-twice", lambda d: twice(d["serials"])),
    ("serial-name", lambda d: d["serials"].append({**d["serials"][0], "name": "chip"})),
    ("serial-range", lambda d: d["serials"][0].update(first=9, last=8)),
    ("serial-digits", lambda d: d["serials"][1].update(last=10**12)),
    ("master-mixed", lambda d: d["channel"]["issuer"].update(master="city.root.cmk")),
    ("master-mixed", lambda d: twice(d["applications"]) or d["applications"][1].update(domain="health")),
    ("master-id", lambda d: root(d).update(masters="City root")),
    ("master-id", lambda d: d["channel"]["issuer"].update(master="x" * 65)),
    ("key-shared", lambda d: root(d)["keys"][1].update(master="cmk")),
    ("no-data", lambda d: city(d).update(dgis=[])),
    ("keyset-twice", lambda d: twice(city(d)["keysets"])),
    ("keyset-loaded", lambda d: city(d)["dgis"].pop(3)),
    ("keyset-loaded", lambda d: city(d)["dgis"].append({**dgi(d, "city", "8021"), "id": "8022"})),
    ("keyset-unchecked", lambda d: city(d)["dgis"].pop(4)),
    ("access-key", lambda d: files(d)[0].update(update="0A")),
    ("access-key", lambda d: files(d)[0].update(read="03")),  # an internal authentication key opens no file
    ("remake-psn", finance(lambda a: a.pop("remake_psn"))),
    ("remake-psn", finance(lambda a: a.pop("remake_psn") and a.update(domain="city"))),
    ("key-repeats", finance(lambda a: a.update(remake_psn="same"))),
    ("table-unknown", lambda d: root(d).update(table="nobody")),
    ("table-and-keys", lambda d: d["key_tables"].update(t=root(d)["keys"]) or root(d).update(table="t")),
    ("df-length", lambda d: root(d).update(df="F0" * 17)),
    ("df-length", lambda d: dgi(d, "city", "A001")["parts"][0].update(df="F0" * 300)),
    ("keyset-empty", lambda d: root(d).update(keys=[])),
    ("kid-twice", lambda d: root(d)["keys"][1].update(kid="01")),
    ("key-twice", lambda d: root(d)["keys"][1].update(name="cmk")),
    ("parity", lambda d: root(d).update(parity="odd")),
    ("algorithm", lambda d: root(d).update(algorithm="aes")),
    ("factors", lambda d: root(d).update(factors=[])),
    ("factor", lambda d: root(d)["factors"].__setitem__(0, "ascii:TOOLONG00")),
    ("factor", lambda d: root(d)["factors"].__setitem__(0, "hex:0011")),
    ("factor", lambda d: root(d)["factors"].__setitem__(0, "chip-serial")),
    ("card-factor", lambda d: root(d)["factors"].__setitem__(2, "ascii:CONSTANT")),
    ("card-factor", lambda d: root(d)["factors"].__setitem__(2, "serial:nobody")),
    ("card-factor", lambda d: d["serials"][1].update(digits=17)),
    ("method", lambda d: root(d).update(method="emv-a")),
    ("method", finance(lambda a: fin_keys(a).update(factors=["ascii:41000000", "pan-psn"]))),
    ("method", finance(lambda a: fin_keys(a).update(method="pboc"))),
    ("prove", lambda d: root(d)["keys"][0].update(prove="internal-authenticate")),
    ("prove", lambda d: root(d)["keys"][1].update(prove="external-authenticate")),
    ("prove", lambda d: root(d)["keys"][1].update(prove="initialize-for-load")),
    ("prove", finance(lambda a: fin_keys(a)["keys"][1].update(prove="generate-ac"))),
    ("prove-load", lambda d: root(d)["keys"][1].update(prove="initialize-for-load", purpose="08")),
    ("prove-load", lambda d: city(d).update(load=[a_load("none")])),
    ("prove-load", lambda d: city(d).update(load=[a_load("cmk")])),
    ("prove-ac", finance(lambda a: a["generate_ac"].pop(0))),
    ("prove-ac", finance(lambda a: twice(a["generate_ac"]))),
    ("prove-ac", finance(lambda a: a["generate_ac"][0].update(cdol1_data="00" * 256))),
    ("prove-ac", finance(lambda a: a["dgis"].remove(fin_dgi(a, "9200")))),
    ("prove-ac", finance(lambda a: fin_dgi(a, "9104")["parts"].reverse())),
    ("prove-sample", transport(lambda a: a.pop("purchase"))),
    ("prove-sample", transport(lambda a: a["purchase"][0].update(amount="7FFFFFFF"))),
    ("prove-sample", transport(lambda a: a["purchase"][0].update(keyset="sm"))),
    ("part-kind", lambda d: record(d).append({"codec": "an"})),
    ("part-kind", lambda d: record(d).append({"hex": "00", "kcvs": "root"})),
    ("part-kind", lambda d: record(d).append({"pin_block": False})),
    ("part-kind", lambda d: record(d).append({"tlv": "70", "parts": [{"files": files(d)}]})),
    ("part-extra", lambda d: record(d).append({"hex": "00", "length": 3})),
    ("part-extra", lambda d: record(d).append({"hex": "00", "parts": [{"hex": "01"}]})),
    ("part-extra", lambda d: record(d).append({"concat": [{"text": "1"}], "codec": "an", "slice": [0, 1]})),
    ("part-depth", lambda d: record(d).append({"tlv": "70", "parts": [{"tlv": "70", "parts": [{"tlv": "70", "parts": [
        {"tlv": "70", "parts": [{"tlv": "70", "parts": [{"tlv": "70", "parts": [{"hex": "00"}]}]}]}]}]}]})),
    ("tag", lambda d: record(d).append({"tlv": "9F", "parts": [{"hex": "00"}]})),
    ("tag", lambda d: record(d).append({"tlv": "7000", "parts": [{"hex": "00"}]})),
    ("tag", lambda d: record(d).append({"tlv": "9F8101FF", "parts": [{"hex": "00"}]})),
    ("tlv-empty", lambda d: record(d).append({"tlv": "70"})),
    ("keyset-unknown", lambda d: record(d).append({"kcvs": "nobody"})),
    ("keyset-unknown", lambda d: record(d).append({"keys": "nobody", "layout": "capp"})),
    ("layout", lambda d: dgi(d, "city", "8021")["parts"][0].update(layout="bare")),
    ("layout", lambda d: dgi(d, "city", "8021")["parts"][0].pop("layout")),
    ("key-dgi", lambda d: dgi(d, "city", "8021").update(id="8020")),
    ("keyset-df", lambda d: root(d).update(df="F05A5A434954593109")),
    ("kcvs-first", lambda d: city(d)["dgis"].insert(0, city(d)["dgis"].pop(4))),
    ("dgi-twice", lambda d: twice(city(d)["dgis"], 1)),
    ("record-file", lambda d: dgi(d, "city", "1501").update(id="1601")),
    ("record-number", lambda d: dgi(d, "city", "1501").update(id="1504")),
    ("record-number", lambda d: dgi(d, "city", "1501").update(id="1500")),
    ("file-twice", lambda d: twice(files(d))),
    ("file-sfi", lambda d: files(d).append({**files(d)[0], "fid": "EF99", "sfi": "1F"})),
    ("file-sfi", lambda d: files(d).append({**files(d)[0], "fid": "EF99", "sfi": "00"})),
    ("file-size", lambda d: files(d)[0].update(size=255)),
    ("item", lambda d: record(d).append({"concat": [{}], "codec": "an", "length": 1})),
    ("item", lambda d: record(d).append({"concat": [], "codec": "an", "length": 1})),
    ("item", lambda d: record(d).append({"concat": [{"text": "a", "field": "sex"}], "codec": "an", "length": 2})),
    ("item", lambda d: record(d).append({"concat": [{"text": "abc", "slice": [0, 1]}], "codec": "an"})),
    ("item", lambda d: record(d).append({"concat": [{"text": "é"}], "codec": "an"})),
    ("item", lambda d: record(d).append({"concat": [{"text": "1A"}], "codec": "cn"})),
    ("item", lambda d: record(d).append({"concat": [{"text": "1D"}], "codec": "n"})),
    ("item", lambda d: record(d).append({"concat": [{"text": ""}], "codec": "an", "length": 1})),
    ("field-unknown", lambda d: record(d)[0].update(field="shoe_size")),
    ("slice", lambda d: record(d)[1].update(slice=[0, 9])),
    ("slice", lambda d: record(d)[1].update(slice=[4, 4])),
    ("slice", lambda d: record(d)[1].update(slice=[-4, -1])),
    ("slice", lambda d: record(d).append({"field": "pan", "codec": "cn", "slice": [0, 13]})),  # a PAN may have 12 digits
    ("varies", lambda d: record(d).append({"concat": [{"field": "name_field"}, {"text": "x"}], "codec": "an", "length": 31})),
    ("varies", lambda d: record(d).append({"field": "phone", "codec": "n", "length": 6})),
    ("digits", lambda d: record(d).append({"field": "name_field", "codec": "cn", "length": 6})),
    ("digits", lambda d: record(d).append({"field": "social_security_number", "codec": "cn", "length": 9})),
    ("digits", lambda d: record(d).append({"field": "chip_serial", "codec": "an"})),
    ("codec", lambda d: record(d)[0].pop("codec")),
    ("length", lambda d: record(d).append({"field": "name_field", "codec": "gb"})),
    ("text-too-long", lambda d: record(d)[0].update(length=7)),
    ("text-too-long", lambda d: record(d).append({"field": "pan", "codec": "cn", "length": 9})),
    ("compile", lambda d: record(d).append({"hex": "00" * 300})),
    ("compile", lambda d: record(d).append({"hex": "00" * 70000})),
    ("compile", lambda d: record(d).append({"tlv": "70", "parts": [{"hex": "00" * 70000}]})),
    ("compile", lambda d: city(d)["dgis"].extend({"id": f"7{i:03X}", "parts": [{"hex": "00" * 200}]} for i in range(257))),
]  # fmt: skip


def test_the_tiny_profile_is_sound():
    assert rules(tiny()) == set()


@pytest.mark.parametrize(("rule", "change"), CASES, ids=[f"{i}-{rule}" for i, (rule, _) in enumerate(CASES)])
def test_rule_fires(rule, change):
    data = tiny()
    change(data)
    found = lint(loaded(data))
    assert rule in {f.rule for f in found}
    assert all(f.where and f.message for f in found)
    assert [f.severity for f in found] == sorted((f.severity for f in found), key=["error", "warning", "info"].index)


def test_every_rule_there_is_has_a_case():
    folder = Path(lint_module.__file__).parent
    source = (folder / "lint.py").read_text() + (folder / "lintparts.py").read_text()
    named = set(re.findall(r'(?:error|warning)\(\s*f?"([a-z0-9-]+|\{kind\}-twice)"', source))
    named |= set(re.findall(r'\("([a-z]+-twice|prove-load|prove-ac|prove-sample)", "', source))
    named = {r for r in named if "{" not in r} | {"application-twice", "aid-twice", "serial-twice"}
    assert named <= {rule for rule, _ in CASES}
    assert len(named) > 50


def test_all_findings_at_once():
    data = tiny()
    for rule, change in CASES:
        if rule in ("codec", "method", "channel-kvn", "item", "file-size"):
            change(data)
    assert rules(data) >= {"codec", "method", "channel-kvn", "item", "file-size"}
    with pytest.raises(InvalidInput) as error:
        require_clean(loaded(data))
    assert error.value.reason == "PROFILE_LINT"
    assert all(f"[{rule}]" in error.value.message for rule in ("codec", "method", "channel-kvn", "item", "file-size"))


def test_warnings_do_not_stop_a_job():
    data = tiny()
    city(data)["dgis"].pop(4)
    assert rules(data) == {"keyset-unchecked"}
    require_clean(loaded(data))


def test_shipped_profile_is_clean_and_its_costs_are_stated():
    found = lint(load(NAME))
    require_clean(load(NAME))
    assert {f.severity for f in found} == {"info"}
    said = {f.rule: f.message for f in found}
    external = sum(e.get("prove") == "external-authenticate" for e in all_entries())
    assert said["round-trips"].startswith(f"{3 + external} round trips")
    assert re.fullmatch(r"\d{4} bytes in \d+ STORE DATA commands", said["size"])
    assert said["proof"].startswith(f"{len(all_entries())} keys: ")


def all_entries():
    data = shipped()
    return [e for a in data["applications"] for k in a["keysets"] for e in (data["key_tables"][k["table"]] if "table" in k else k["keys"])]


def test_master_specs_are_one_per_id():
    specs = set(master_specs(load(NAME).profile))
    assert len({s.key_id for s in specs}) == len(specs) > 100
    assert {s.algorithm for s in specs if s.key_id in ("maker.kmc", "issuer.kmc")} == {"aes"}


# -- the shipped profile against the facts it stands on ----------------------------------------------------------------


def part_bytes(parts) -> int:
    return sum(len(p["hex"]) // 2 if "hex" in p else p["length"] for p in parts)


def test_applications_and_their_aids():
    data = shipped()
    assert {a["name"]: a["aid"] for a in data["applications"]} == {
        "social-security": b"sx1.sh.".hex().upper() + "社会保障".encode("gbk").hex().upper(),
        "finance": "A000000333010101",
        "transport": "A000000632010105",
        "health": "F04845414C544831",
        "city": "F05A5A4349545931",
    }
    social = {p["df"] for d in application(data, "social-security")["dgis"] for p in d["parts"] if "files" in p}
    assert social == {application(data, "social-security")["aid"]} | {f"D1560000050{i}" for i in range(5)}


@pytest.mark.parametrize(("number", "size"), [("B001", 30), ("B002", 55), ("B003", 60)])
def test_transport_file_sizes(number, size):
    assert part_bytes(dgi(shipped(), "transport", number)["parts"]) == size


def test_transport_files_hold_serial_and_codes_in_place():
    parts = dgi(shipped(), "transport", "B001")["parts"]
    assert part_bytes(parts[:1]) == 10
    assert parts[1]["field"] == "transport_serial"
    assert part_bytes(parts[:2]) == 20
    assert dgi(shipped(), "transport", "B003")["parts"][0]["hex"] == "00000156"


@pytest.mark.parametrize(("table", "base"), [("tunion", 0x00), ("tunion-sm4", 0x80)])
def test_order_of_the_fifteen_purse_keys(table, base):
    entries = shipped()["key_tables"][table]
    assert [e["name"] for e in entries] == [
        "card-master", "card-maintenance", "app-master", "app-maintenance", "purchase", "load", "tac", "app-block", "pin",
        "interop-cash", "interop-purse", "interop-spare", "app-unblock", "reserve-1", "reserve-2",
    ]  # fmt: skip
    assert [int(e["kid"], 16) for e in entries] == [base + i for i in range(1, 16)]


def test_data_groupings_of_finance_and_transport():
    data = shipped()
    assert [d["id"] for d in application(data, "transport")["dgis"]] == ["9102", "B001", "B002", "B003", "B0A0", "B1A0", "B0A5", "B1A5"]
    finance_ids = [d["id"] for d in application(data, "finance")["dgis"]]
    assert set(finance_ids) >= {"0D01", "0E01", "9102", "9103", "9104", "9105", "9200", "9201"}
    assert set(finance_ids) >= {"8000", "9000", "8400", "9400", "8010", "9010"}
    assert [e["name"] for e in keyset(data, "finance", "des")["keys"]] == ["ac", "mac", "enc"]
    assert keyset(data, "finance", "des")["parity"] == "odd"  # EMV Book 2 A1.4


def test_dispersion_from_province_to_card():
    data = shipped()
    for key_set in application(data, "social-security")["keysets"]:
        assert key_set["factors"] == ["ascii:410000sh", "ascii:410100sx", "chip-serial"]
    for key_set in application(data, "health")["keysets"]:
        assert key_set["factors"] == ["ascii:41000000", "chip-serial"]


def test_social_security_records_have_the_tags_of_their_items():
    data = shipped()
    tags = {"0501": "01", "0502": "02", "0503": "03", "0505": "05", "0506": "06", "0507": "07", "0601": "08", "0602": "09",
            "0603": "09", "0604": "0A", "0605": "0B", "0606": "0C", "0607": "0D"}  # fmt: skip
    for number, tag in tags.items():
        parts = dgi(data, "social-security", number)["parts"]
        raw = parts[0]["hex"]
        assert raw[:2] == tag
        assert int(raw[2:4], 16) == part_bytes(parts) - 2
