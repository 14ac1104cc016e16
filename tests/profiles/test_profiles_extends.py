"""A profile that extends another: only what it says differs, its digest covers both files, and mistakes are named."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from engine.profiles.compile import compile_profile
from engine.profiles.lint import lint, require_clean
from engine.profiles.masters import master_specs
from engine.profiles.model import SHIPPED, load, shipped
from keys.errors import InvalidInput, NotFound
from tests.profiles.profile_tools import NAME

SCP02 = f"{NAME}-scp02"


def write(tmp_path, text):
    path = tmp_path / "own.toml"
    path.write_text(text)
    return str(path)


def test_the_scp02_card_differs_in_what_the_channel_changes_and_in_nothing_else():
    base, other = (msgspec.to_builtins(load(name).profile) for name in (NAME, SCP02))
    assert {name for name in base if base[name] != other[name]} == {"name", "title", "assumptions", "chip", "channel"}
    assert {name for name in base["chip"] if base["chip"][name] != other["chip"][name]} == {"chip_type"}
    assert other["assumptions"][: len(base["assumptions"])] == base["assumptions"]
    assert any("R-MAC" in text for text in other["assumptions"][len(base["assumptions"]) :])


def test_the_scp02_card_is_sound_and_holds_the_same_keys_and_data():
    require_clean(load(SCP02))
    base, other = (compile_profile(load(name), 19) for name in (NAME, SCP02))
    assert other.keys == base.keys
    assert [(r.application, r.df, r.sfi, r.record) for r in other.reads] == [(r.application, r.df, r.sfi, r.record) for r in base.reads]
    # the PIN block lies bare, without the eight bytes that fill an AES block
    assert base.image_len - other.image_len == 8
    assert [end - start for start, end in (other.values["finance", "8010"], base.values["finance", "8010"])] == [8, 16]
    assert sorted(length for _, length in other.spans) == sorted(8 if place == base.pin_offsets[0] else n for place, n in base.spans)


def test_both_cards_share_every_master_but_the_channels():
    base, other = ({spec.key_id: spec for spec in master_specs(load(name).profile)} for name in (NAME, SCP02))
    assert base.keys() - other.keys() == {"maker.kmc", "issuer.kmc"}
    assert {key_id: other[key_id].algorithm for key_id in other.keys() - base.keys()} == {
        "maker.kmc-3des": "3des",
        "issuer.kmc-3des": "3des",
    }
    assert all(base[key_id] == other[key_id] for key_id in base.keys() & other.keys())


def test_the_digest_covers_both_files():
    both = (SHIPPED / f"{SCP02}.toml").read_bytes() + (SHIPPED / f"{NAME}.toml").read_bytes()
    assert load(SCP02).sha256 == hashlib.sha256(both).hexdigest().upper()


def test_a_file_of_ones_own_may_extend_a_shipped_profile(tmp_path):
    loaded = load(write(tmp_path, f'extends = "{NAME}"\nversion = "9"\nassumptions = ["own"]\n'))
    assert loaded.profile.version == "9"
    assert loaded.profile.name == NAME
    assert loaded.profile.assumptions == [*load(NAME).profile.assumptions, "own"]
    assert loaded.sha256 != load(NAME).sha256


@pytest.mark.parametrize("name", ['"nobody"', '"../data/zhengzhou-citizen-card"', "3", "[]"])
def test_an_unknown_base_is_named(tmp_path, name):
    with pytest.raises(NotFound) as error:
        load(write(tmp_path, f"extends = {name}\n"))
    assert error.value.reason == "PROFILE_UNKNOWN"


@pytest.mark.parametrize("text", ["nonsense = 1", "chip = 3", 'assumptions = "one"', "assumptions = [1]", "[channel]", "x"])
def test_mistakes_in_the_file_are_named(tmp_path, text):
    with pytest.raises(InvalidInput) as error:
        load(write(tmp_path, f'extends = "{NAME}"\n{text}\n'))
    assert error.value.reason == "PROFILE_INVALID"
    assert "own.toml" in error.value.message


def test_an_extension_is_not_extended(tmp_path):
    with pytest.raises(InvalidInput) as error:
        load(write(tmp_path, f'extends = "{SCP02}"\n'))
    assert error.value.reason == "PROFILE_INVALID"
    assert "own.toml" in error.value.message


@pytest.mark.parametrize(
    ("rule", "channel"),
    [
        ("channel-level", {"level": "33"}),
        ("channel-level", {"level": "11"}),
        ("channel-level", {"i": "05"}),
        ("channel-level", {"i": "70"}),
        ("channel-method", {"issuer": {"kvn": "31", "master": "m", "method": "gp-kdf3"}}),
        ("channel-method", {"protocol": "scp03", "i": "70", "level": "33"}),
    ],
)
def test_channel_and_keys_fit_each_other(rule, channel):
    loaded = load(SCP02)
    changed = msgspec.to_builtins(loaded.profile.channel) | channel
    profile = msgspec.structs.replace(loaded.profile, channel=msgspec.convert(changed, type(loaded.profile.channel)))
    assert rule in {finding.rule for finding in lint(msgspec.structs.replace(loaded, profile=profile))}


def test_every_shipped_profile_is_sound():
    assert all(not [f for f in lint(load(name)) if f.severity == "error"] for name in shipped())
