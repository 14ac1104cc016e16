"""Profiles load strictly, and whatever is in a file, loading either works or says what is wrong and where."""

from __future__ import annotations

import typing

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.profiles import model
from engine.profiles.lint import lint
from engine.profiles.model import LoadedProfile, load, parse, shipped
from keys.errors import InvalidInput, NotFound
from tests.profiles.profile_tools import NAME, TEXT, dgi, keyset, loaded, tiny, to_toml
from tests.profiles.profile_tools import shipped as shipped_data

STRUCTS = [s for s in vars(model).values() if isinstance(s, type) and issubclass(s, msgspec.Struct) and s is not model.LoadedProfile]


def structs_in(kind):
    return {kind} | {s for part in typing.get_args(kind) for s in structs_in(part)}


def test_no_field_is_bytes_and_unknown_keys_are_refused():
    assert len(STRUCTS) > 10
    for struct in STRUCTS:
        if struct is not model.Strict:
            for name, hint in typing.get_type_hints(struct).items():
                assert not structs_in(hint) & {bytes, bytearray, memoryview}, f"{struct.__name__}.{name}"
        assert struct.__struct_config__.forbid_unknown_fields
        assert struct.__struct_config__.frozen


def test_shipped_profile_loads_with_the_digest_of_its_bytes():
    import hashlib

    assert shipped() == [NAME, f"{NAME}-scp02"]
    found = load(NAME)
    assert found.sha256 == hashlib.sha256(TEXT).hexdigest().upper()
    assert load(str(found.path)).profile == found.profile


@pytest.mark.parametrize("name", ["nobody", "", "../data/zhengzhou-citizen-card", "zhengzhou-citizen-card/", "a\0b"])
def test_unknown_profile(name):
    with pytest.raises(NotFound, match=NAME) as error:
        load(name)
    assert error.value.reason == "PROFILE_UNKNOWN"


@pytest.mark.parametrize("name", ["gone.toml", "a\0b.toml", "dir.toml"])
def test_unreadable_profile(tmp_path, name):
    (tmp_path / "dir.toml").mkdir()
    with pytest.raises(NotFound) as error:
        load(f"{tmp_path}/{name}")
    assert error.value.reason == "PROFILE_UNREADABLE"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"a = [1,\n2 3]", r"bad\.toml: .*line 2"),
        (b"schema_version = 1\nname = 'x'\ntitle = \xff", r"bad\.toml: "),
        (TEXT.replace(b'level = "33"', b'level = "44"'), r"bad\.toml: .*\$\.channel\.level"),
        (TEXT.replace(b'level = "33"', b'level = "33"\nspeed = 3'), r"bad\.toml: .*unknown field `speed`.*\$\.channel"),
        (TEXT.replace(b"digits = 20", b"digits = 20.5"), r"bad\.toml: .*\$\.serials\[0\]\.digits"),
        (b"x = " + b"[" * 5000 + b"]" * 5000, r"bad\.toml: .*nested"),
    ],
)
def test_errors_name_file_and_place(tmp_path, text, says):
    (tmp_path / "bad.toml").write_bytes(text)
    with pytest.raises(InvalidInput, match=says) as error:
        load(str(tmp_path / "bad.toml"))
    assert error.value.reason == "PROFILE_INVALID"


@pytest.mark.parametrize("bad", ["", "a000", "A00", "A0 00", "A000\n", "G000", "oAAA="])
def test_hex_is_upper_case_pairs_and_nothing_else(bad):
    data = tiny()
    data["applications"][0]["aid"] = bad
    with pytest.raises(InvalidInput, match=r"\$\.applications\[0\]\.aid"):
        loaded(data)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda d: d["applications"][0].update(name="City"), "name"),
        (lambda d: d["applications"][0].update(name="city\n"), "name"),
        (lambda d: d["channel"]["transport"].update(kvn="30\n"), "kvn"),
        (lambda d: d["serials"][0].update(prefix="4910\n"), "prefix"),
        (lambda d: d["applications"][0].update(load=[{"amount": "1"}]), "amount"),
        (lambda d: d["applications"][0]["dgis"][0].update(id="A0010"), "id"),
        (lambda d: d["applications"][0]["dgis"][1]["parts"][0].update(codec="utf8"), "codec"),
        (lambda d: d["applications"][0]["dgis"][1]["parts"][0].update(length=0), "length"),
        (lambda d: d.update(schema_version=2), "schema_version"),
        (lambda d: d.update(applications=None), "applications"),
    ],
)  # fmt: skip
def test_patterns_ranges_and_choices(change, place):
    data = tiny()
    change(data)
    if data["applications"] is None:
        del data["applications"]
    with pytest.raises(InvalidInput, match=place):
        loaded(data)


def load_and_lint(text: bytes) -> None:
    try:
        profile = parse(text, "any.toml")
    except InvalidInput as error:
        assert error.reason == "PROFILE_INVALID"
        assert error.message.startswith("any.toml: ")
        return
    lint(LoadedProfile(profile=profile, sha256="", path=None))


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes(text):
    load_and_lint(text)


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=20), st.just("00"))
VALUES = st.recursive(SCALARS, lambda s: st.one_of(st.lists(s, max_size=3), st.dictionaries(st.text(max_size=5), s, max_size=3)))


def places(value, path=()):
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


SHIPPED = shipped_data()
# every kind of table at hand, few enough to lint quickly
SMALL = {**tiny(), "applications": [
    {**next(a for a in SHIPPED["applications"] if a["name"] == name)} for name in ("finance", "transport", "city")
], "key_tables": SHIPPED["key_tables"]}  # fmt: skip
SHAPES = {p[-1]: p for p in places(SMALL) if p and isinstance(p[-1], str)}
PLACES = [p for p in places(SMALL) if p]
DONORS = [p for p in PLACES if len(p) > 2]


def at(value, path):
    for key in path:
        value = value[key]
    return value


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_random_edits_of_the_shipped_profile_load_and_lint_or_are_refused(data):
    import copy

    edited = copy.deepcopy(SMALL)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(PLACES))
        try:
            holder = at(edited, path[:-1])
            holder[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue
        what = data.draw(st.sampled_from(["delete", "value", "donor", "same-kind", "add", "twice"]))
        if what == "delete":
            del holder[path[-1]]
        elif what == "twice" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[path[-1]]))
        elif what == "add" and isinstance(holder, dict):
            name = data.draw(st.sampled_from(sorted(SHAPES)))
            holder[name] = copy.deepcopy(at(SMALL, SHAPES[name]))
        elif what == "same-kind":
            same = [p for p in PLACES if p[-1] == path[-1]]
            holder[path[-1]] = copy.deepcopy(at(SMALL, data.draw(st.sampled_from(same))))
        elif what == "donor":
            holder[path[-1]] = copy.deepcopy(at(SMALL, data.draw(st.sampled_from(DONORS))))
        else:
            holder[path[-1]] = data.draw(VALUES)
    load_and_lint("\n".join(f"{to_toml(k)} = {to_toml(v)}" for k, v in edited.items()).encode(errors="replace"))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, len(TEXT) - 1), st.integers(0, 40), st.binary(max_size=4) | st.sampled_from([b'"', b"]", b"0", b"FF", b"\n"]))
def test_random_bytes_in_the_shipped_file(start, cut, put):
    load_and_lint(TEXT[:start] + put + TEXT[start + cut :])


@pytest.mark.parametrize("depth", [7, 40, 150, 400])
def test_deeply_nested_parts_are_a_finding_or_refused(depth):
    tables = "".join(f"[[applications.dgis{'.parts' * i}]]\ntlv = '70'\n" for i in range(1, depth + 1))
    text = f"[[applications.dgis]]\nid = '0D02'\n{tables}".encode()
    body = TEXT.replace(b'[[applications]]\nname = "finance"', text + b'[[applications]]\nname = "finance"')
    try:
        profile = parse(body, "deep.toml")
    except InvalidInput as error:
        assert "nested" in error.message
        assert depth > 100
        return
    assert "part-depth" in {f.rule for f in lint(LoadedProfile(profile=profile, sha256="", path=None))}


def test_tools_read_the_same_profile():
    assert loaded(SHIPPED).profile == load(NAME).profile
    assert dgi(SHIPPED, "transport", "B0A0")["parts"] == [{"keys": "des", "layout": "tunion"}]
    assert keyset(SHIPPED, "transport", "des")["table"] == "tunion"
