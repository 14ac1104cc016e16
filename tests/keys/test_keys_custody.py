"""The software custody: derivations are right in every batch shape, the file is durable, and wrong or damaged stores are
refused.
"""

import errno
import json
import stat
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keys import diversify
from keys.custody import Custody, Derivation, sealedfile
from keys.custody.software import KeySpec, SoftwareCustody, provision_test_keys
from keys.errors import Conflict, Corrupt, Denied, Exhausted, InvalidInput, NotFound, Precondition, Unsupported
from keys.hierarchy import Domain, KeyState, Level, Purpose
from keys.kcv import kcv
from keys.parity import odd_parity

FAST = 1 << 4  # scrypt cost: these tests open many stores
PASSPHRASE = "correct horse battery staple"
TDES = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")
SM4 = bytes.fromhex("00112233445566778899AABBCCDDEEFF")
KMC = bytes.fromhex("404142434445464748494A4B4C4D4E4F")
SPECS = {
    "t.3des": (KeySpec("t.3des", Domain.TRANSPORT, "3des"), TDES),
    "t.sm4": (KeySpec("t.sm4", Domain.TRANSPORT, "sm4"), SM4),
    "maker.kmc": (KeySpec("maker.kmc", Domain.CHIP, "aes", Purpose.SECURITY_DOMAIN), KMC),
    "old.kmc": (KeySpec("old.kmc", Domain.CHIP, "3des", Purpose.SECURITY_DOMAIN), KMC),
}
UPPER = (b"410000sh", b"410100sx")


def make(directory, *, test=True):
    store = SoftwareCustody.create(directory, PASSPHRASE, test=test, scrypt_n=FAST)
    for spec, key in SPECS.values():
        store.import_key(spec, key)
    return store


@pytest.fixture
def store(tmp_path):
    with make(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with make(tmp_path_factory.mktemp("store")) as made:
        yield made


def by_hand(wanted, factor):
    """One derivation for one card, level by level."""
    key = SPECS[wanted.key_id][1]
    for upper in wanted.upper_factors:
        key = diversify.pboc(wanted.algorithm, key, upper, wanted.parity).tobytes()
    if wanted.method == "pboc":
        return diversify.pboc(wanted.algorithm, key, factor, wanted.parity).tobytes()
    if wanted.method == "gp-kdf3":
        return diversify.gp_kdf3(key, factor, wanted.purpose).tobytes()
    if wanted.method == "emv-c":
        return diversify.emv_c(key, factor).tobytes()
    if wanted.method == "sp800-108":
        return diversify.sp800_108(key, wanted.label, factor, 16).tobytes()
    if wanted.method == "an10922":
        made = diversify.an10922(wanted.algorithm, key, factor)
        return (odd_parity(made) if wanted.parity == "odd" else made).tobytes()
    derive = diversify.gp_emv if wanted.method == "gp-emv" else diversify.gp_visa2
    return derive(key, factor, wanted.purpose, wanted.parity).tobytes()


factors8 = st.lists(st.binary(min_size=8, max_size=8), max_size=3).map(tuple)
derivation = st.one_of(
    st.builds(Derivation, st.just("t.3des"), st.just("pboc"), st.just("3des"), factors8, st.sampled_from(["none", "odd"])),
    st.builds(Derivation, st.just("t.sm4"), st.just("pboc"), st.just("sm4"), factors8),
    st.builds(lambda p: Derivation("maker.kmc", "gp-kdf3", "aes", purpose=p), st.sampled_from(["enc", "mac", "dek"])),
    st.builds(
        lambda m, p, parity: Derivation("old.kmc", m, "3des", (), parity, p),
        st.sampled_from(["gp-emv", "gp-visa2"]),
        st.sampled_from(["enc", "mac", "dek"]),
        st.sampled_from(["none", "odd"]),
    ),
    st.just(Derivation("maker.kmc", "emv-c", "aes")),
    st.just(Derivation("maker.kmc", "an10922", "aes")),
    st.builds(Derivation, st.just("t.3des"), st.just("an10922"), st.just("3des"), st.just(()), st.sampled_from(["none", "odd"])),
    st.builds(lambda label: Derivation("maker.kmc", "sp800-108", "aes", label=label), st.binary(max_size=5)),
)
# A card factor's length; two lengths each where a method takes more than one, so that groups of lanes differ.
WIDTHS = {"pboc": (8,), "emv-c": (16,), "an10922": (7, 15), "sp800-108": (0, 9)}


def factor_arrays(wanted, n, seed):
    rng = np.random.default_rng(seed)
    widths = [WIDTHS.get(one.method, (10,)) for one in wanted]
    return [rng.integers(0, 256, (n, each[at % len(each)]), np.uint8) for at, each in enumerate(widths)]


@settings(deadline=None, max_examples=60)
@given(st.lists(derivation, max_size=8), st.sampled_from([1, 2, 3, 63, 64, 65, 130]), st.integers(0, 2**32))
def test_every_batch_shape_gives_the_keys_made_by_hand(shared, wanted, n, seed):
    factors = factor_arrays(wanted, n, seed)
    keys = shared.derive(wanted, factors)
    assert keys.shape == (len(wanted), n if wanted else 0, 16)
    for i, one in enumerate(wanted):
        for row in {0, n // 2, n - 1} if n else ():
            assert keys.array[i, row].tobytes() == by_hand(one, factors[i][row].tobytes())


def test_a_store_is_a_custody(shared):
    custody: Custody = shared
    assert [record.key_id for record in custody.inventory()] == sorted(SPECS)


def test_one_card_with_a_hundred_keys_is_quick(shared):
    kinds = [("t.3des", "3des"), ("t.sm4", "sm4")]
    wanted = [Derivation(kinds[i % 2][0], "pboc", kinds[i % 2][1], (*UPPER, bytes([i] * 8))) for i in range(100)]
    factors = factor_arrays(wanted, 1, 1)
    shared.derive(wanted, factors)
    best = min(_timed(lambda: shared.derive(wanted, factors)) for _ in range(50))
    assert best < 0.002  # measured 0.1 ms; the limit only catches a loop over keys


def _timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def test_reopening_gives_the_same_keys_and_records(tmp_path):
    wanted = [Derivation("t.3des", "pboc", "3des", UPPER, "odd")]
    factors = factor_arrays(wanted, 2, 3)
    with make(tmp_path) as store:
        before = store.derive(wanted, factors).array.copy()
        records = store.inventory()
        wrapped = store.wrap_data_key(b"k" * 32)
        hmac_key = bytes(store.hmac_key("duplicates").reveal())
    with SoftwareCustody.open(tmp_path, PASSPHRASE, mode="test") as store:
        assert np.array_equal(store.derive(wanted, factors).array, before)
        assert store.inventory() == records
        assert store.unwrap_data_key(wrapped).reveal() == b"k" * 32
        assert store.hmac_key("duplicates").reveal() == hmac_key
        assert store.hmac_key("other").reveal() != hmac_key


def test_records_say_what_the_key_is(store):
    record = store.record("t.3des")
    assert (record.kcv, record.kcv_method) == ("08D7B4", "zero-block")
    assert (record.state, record.version, record.test) == (KeyState.ACTIVE, 1, True)
    assert record.domain is Domain.TRANSPORT
    assert record.level is Level.CITY
    assert store.record("maker.kmc").kcv == kcv("aes", KMC).hex().upper()


# -- refusals ------------------------------------------------------------------------------------------------------------


def test_wrong_passphrase(tmp_path):
    make(tmp_path).close()
    with pytest.raises(Denied) as caught:
        SoftwareCustody.open(tmp_path, PASSPHRASE + " ", mode="test")
    assert caught.value.reason == "WRONG_PASSPHRASE"


def test_test_keys_are_refused_in_production_which_is_the_default(tmp_path):
    make(tmp_path).close()
    with pytest.raises(Precondition) as caught:
        SoftwareCustody.open(tmp_path, PASSPHRASE)
    assert caught.value.reason == "TEST_KEYS_REFUSED"


def test_production_store_takes_no_test_keys_and_no_short_passphrase(tmp_path):
    with SoftwareCustody.create(tmp_path, PASSPHRASE, test=False, scrypt_n=FAST) as store:
        assert not store.generate(SPECS["t.sm4"][0]).test
        with pytest.raises(Precondition) as caught:
            provision_test_keys(store, [SPECS["t.3des"][0]])
        assert caught.value.reason == "TEST_KEYS_REFUSED"
    SoftwareCustody.open(tmp_path, PASSPHRASE).close()
    for passphrase, test in (("short", False), ("", True)):
        with pytest.raises(InvalidInput) as refused:
            SoftwareCustody.create(tmp_path / "other", passphrase, test=test, scrypt_n=FAST)
        assert refused.value.reason == "PASSPHRASE_SHORT"


def test_a_store_is_never_overwritten_and_must_exist(tmp_path):
    make(tmp_path).close()
    with pytest.raises(Conflict) as caught:
        SoftwareCustody.create(tmp_path, PASSPHRASE, test=True, scrypt_n=FAST)
    assert caught.value.reason == "KEYSTORE_EXISTS"
    with pytest.raises(NotFound) as missing:
        SoftwareCustody.open(tmp_path / "nowhere", PASSPHRASE)
    assert missing.value.reason == "KEYSTORE_MISSING"


@pytest.mark.parametrize(
    ("kind", "reason", "change"),
    [
        (NotFound, "KEY_UNKNOWN", {"key_id": "no.such"}),
        (InvalidInput, "KEY_ALGORITHM", {"algorithm": "sm4", "key_id": "t.3des"}),
        (InvalidInput, "METHOD_UNKNOWN", {"method": "xor"}),
        (InvalidInput, "METHOD_ALGORITHM", {"algorithm": "aes"}),
        (InvalidInput, "ALGORITHM_UNKNOWN", {"algorithm": "des"}),
        (InvalidInput, "FACTOR_LENGTH", {"upper_factors": (b"1234567",)}),
        (InvalidInput, "PARITY", {"parity": "even"}),
        (InvalidInput, "PURPOSE", {"purpose": "enc"}),
        (InvalidInput, "PURPOSE", {"method": "gp-emv", "purpose": None}),
        (InvalidInput, "FACTOR_LENGTH", {"method": "gp-emv", "purpose": "enc", "upper_factors": (b"12345678",)}),
        (InvalidInput, "FACTOR_LENGTH", {"method": "an10922", "upper_factors": (b"12345678",)}),
        (InvalidInput, "PURPOSE", {"method": "an10922", "purpose": "enc"}),
        (InvalidInput, "METHOD_ALGORITHM", {"method": "emv-c"}),
        (InvalidInput, "LABEL", {"label": b"l"}),
    ],
)
def test_wrong_derivations_are_named(shared, kind, reason, change):
    good = {"key_id": "t.3des", "method": "pboc", "algorithm": "3des", "upper_factors": (), "parity": "none", "purpose": None}
    with pytest.raises(kind) as caught:
        shared.derive([Derivation(**(good | change))], [np.zeros((1, 8), np.uint8)])
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "factors",
    [
        [],
        [np.zeros((1, 8), np.uint8)],
        [np.zeros((1, 8), np.uint8)] * 3,
        [np.zeros((1, 8), np.uint8), np.zeros((2, 8), np.uint8)],
        [np.zeros((1, 8), np.uint8), np.zeros((1, 10), np.uint8)],
        [np.zeros(8, np.uint8)] * 2,
        [np.zeros((1, 8), np.int32)] * 2,
    ],
)
def test_factors_that_do_not_fit_are_refused(shared, factors):
    wanted = [Derivation("t.3des", "pboc", "3des"), Derivation("t.sm4", "pboc", "sm4")]
    with pytest.raises(InvalidInput) as caught:
        shared.derive(wanted, factors)
    assert caught.value.reason == "WRONG_SHAPE"


def test_no_card_at_all_is_refused(shared):
    with pytest.raises(InvalidInput) as caught:
        shared.derive([Derivation("t.sm4", "pboc", "sm4")], [np.zeros((0, 8), np.uint8)])
    assert caught.value.reason == "NO_ROWS"


def test_only_active_keys_derive_and_a_plan_does_not_outlive_a_state(store):
    wanted, factors = [Derivation("t.sm4", "pboc", "sm4", UPPER)], [np.zeros((1, 8), np.uint8)]
    store.derive(wanted, factors)
    store.set_state("t.sm4", 1, KeyState.DEACTIVATED)
    for state in (None, KeyState.COMPROMISED, KeyState.DESTROYED):
        if state is not None:
            store.set_state("t.sm4", 1, state)
        with pytest.raises(Precondition) as caught:
            store.derive(wanted, factors)
        assert caught.value.reason == "KEY_NOT_ACTIVE"


def test_newest_active_version_is_used(store):
    spec, _ = SPECS["t.sm4"]
    wanted, factors = [Derivation("t.sm4", "pboc", "sm4")], [np.zeros((1, 8), np.uint8)]
    first = store.derive(wanted, factors).array.copy()
    store.import_key(spec, bytes(range(16)), version=2, state=KeyState.PRE_ACTIVE)
    assert store.record("t.sm4").version == 1
    assert np.array_equal(store.derive(wanted, factors).array, first)
    store.set_state("t.sm4", 2, KeyState.ACTIVE)
    assert store.record("t.sm4").version == 2
    assert store.derive(wanted, factors).array.tobytes() == diversify.pboc("sm4", bytes(range(16)), bytes(8)).tobytes()
    store.set_state("t.sm4", 2, KeyState.DEACTIVATED)
    assert store.record("t.sm4").version == 1


def test_a_destroyed_key_is_gone_from_the_file(store, tmp_path):
    store.set_state("t.sm4", 1, KeyState.DEACTIVATED)
    store.set_state("t.sm4", 1, KeyState.DESTROYED)
    kept = {key.record.key_id: key.sealed_hex for key in sealedfile.read(tmp_path).keys}
    assert kept["t.sm4"] is None
    assert all(kept[name] for name in kept if name != "t.sm4")
    with pytest.raises(NotFound):
        store.set_state("t.sm4", 9, KeyState.ACTIVE)


@pytest.mark.parametrize(
    ("kind", "reason", "call"),
    [
        (Conflict, "KEY_EXISTS", lambda s: s.generate(SPECS["t.sm4"][0])),
        (Denied, "KCV_MISMATCH", lambda s: s.import_key(KeySpec("n", Domain.CITY, "sm4"), SM4, expected_kcv=b"abc")),
        (InvalidInput, "KEY_LENGTH", lambda s: s.import_key(KeySpec("n", Domain.CITY, "sm4"), SM4[:8])),
        (InvalidInput, "KEY_LENGTH", lambda s: s.import_key(KeySpec("n", Domain.CITY, "aes"), SM4 * 2)),
        (InvalidInput, "KEY_ID", lambda s: s.generate(KeySpec("../x", Domain.CITY, "sm4"))),
        (InvalidInput, "KEY_ID", lambda s: s.generate(KeySpec("", Domain.CITY, "sm4"))),
        (InvalidInput, "KEY_VERSION", lambda s: s.generate(KeySpec("n", Domain.CITY, "sm4"), version=0)),
        (InvalidInput, "KEY_STATE", lambda s: s.generate(KeySpec("n", Domain.CITY, "sm4"), state=KeyState.DESTROYED)),
        (InvalidInput, "DATA_KEY_LENGTH", lambda s: s.wrap_data_key(bytes(16))),
        (Corrupt, "DATA_KEY_CORRUPT", lambda s: s.unwrap_data_key(bytes(40))),
        (Corrupt, "DATA_KEY_CORRUPT", lambda s: s.unwrap_data_key(b"short")),
        (NotFound, "KEY_UNKNOWN", lambda s: s.record("n")),
    ],
)
def test_refused_and_nothing_changed(store, tmp_path, kind, reason, call):
    before = (tmp_path / "keystore.json").read_bytes()
    with pytest.raises(kind) as caught:
        call(store)
    assert caught.value.reason == reason
    assert (tmp_path / "keystore.json").read_bytes() == before
    assert len(store.inventory()) == len(SPECS)


def test_a_data_key_of_another_store_is_refused(store, tmp_path):
    with SoftwareCustody.create(tmp_path / "b", PASSPHRASE, test=True, scrypt_n=FAST) as other, pytest.raises(Corrupt):
        other.unwrap_data_key(store.wrap_data_key(bytes(32)))


def test_provisioning_makes_what_is_missing(store):
    wanted = [SPECS["t.sm4"][0], KeySpec("a", Domain.CITY, "3des"), ("b", Domain.HEALTH, "aes"), ("b", Domain.HEALTH, "aes")]
    made = provision_test_keys(store, wanted)
    assert [(record.key_id, record.test, record.origin) for record in made] == [(name, True, "generated") for name in "ab"]
    assert provision_test_keys(store, [("a", Domain.CITY, "3des")]) == []


# -- the file ------------------------------------------------------------------------------------------------------------


def test_file_is_private_and_holds_no_clear_key(store, tmp_path):
    path = tmp_path / "keystore.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text().lower()
    for key in (TDES, SM4, KMC):
        assert key.hex() not in text
    assert [path.name for path in tmp_path.iterdir()] == ["keystore.json"]
    assert "0123" not in repr(store)


def test_every_flipped_byte_is_found(tmp_path):
    SoftwareCustody.create(tmp_path, PASSPHRASE, test=True, scrypt_n=FAST).close()
    path = tmp_path / "keystore.json"
    good = path.read_bytes()
    for at in range(0, len(good), 7):
        if good[at : at + 1].isspace():
            continue
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises((Corrupt, Unsupported)):
            SoftwareCustody.open(tmp_path, PASSPHRASE, mode="test")
    for length in (0, 1, len(good) // 2, len(good) - 3):
        path.write_bytes(good[:length])
        with pytest.raises(Corrupt) as caught:
            SoftwareCustody.open(tmp_path, PASSPHRASE, mode="test")
        assert caught.value.reason == "KEYSTORE_CORRUPT"


def _forge(tmp_path, edit):
    """Changes the file and makes its checksum right again, as somebody with an editor could."""
    path = tmp_path / "keystore.json"
    raw = json.loads(path.read_text())
    edit(raw)
    raw["checksum_hex"] = ""
    path.write_bytes(sealedfile.canonical(raw))
    store = sealedfile.msgspec.convert(raw, sealedfile.Keystore)
    raw["checksum_hex"] = store.with_checksum().checksum_hex
    path.write_text(json.dumps(raw))


@pytest.mark.parametrize(
    "edit",
    [
        lambda raw: raw["keys"].pop(),
        lambda raw: raw["keys"][0]["record"].update(state="deactivated"),
        lambda raw: raw["keys"][0]["record"].update(test=False),
        lambda raw: raw["keys"].append(raw["keys"][0] | {"record": raw["keys"][0]["record"] | {"version": 9}}),
        lambda raw: raw.update(mac_hex="00" * 32),
        lambda raw: raw.update(root_sealed_hex="zz"),
        lambda raw: raw.update(root_sealed_hex="00"),
        lambda raw: raw["scrypt"].update(n=1 << 30),
        lambda raw: raw["scrypt"].update(n=12345),
    ],
)
def test_edits_with_a_right_checksum_are_found_too(tmp_path, edit):
    make(tmp_path).close()
    _forge(tmp_path, edit)
    with pytest.raises(Corrupt) as caught:
        SoftwareCustody.open(tmp_path, PASSPHRASE, mode="test")
    assert caught.value.reason == "KEYSTORE_CORRUPT"


def test_a_test_store_cannot_be_relabelled_as_a_production_store(tmp_path):
    make(tmp_path).close()

    def relabel(raw):
        raw["test"] = False
        for key in raw["keys"]:
            key["record"]["test"] = False

    _forge(tmp_path, relabel)
    with pytest.raises((Denied, Corrupt)):
        SoftwareCustody.open(tmp_path, PASSPHRASE)


def test_a_newer_format_is_named(tmp_path):
    make(tmp_path).close()
    path = tmp_path / "keystore.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2, "novelty": []}))
    with pytest.raises(Unsupported) as caught:
        SoftwareCustody.open(tmp_path, PASSPHRASE, mode="test")
    assert caught.value.reason == "KEYSTORE_NEWER"


@settings(max_examples=200)
@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode))
def test_parse_never_crashes(text):
    with pytest.raises((Corrupt, Unsupported)):
        sealedfile.parse(text, "somewhere")


def test_another_writer_is_noticed(store, tmp_path):
    with SoftwareCustody.open(tmp_path, PASSPHRASE, mode="test") as second:
        second.generate(KeySpec("second", Domain.CITY, "aes"))
    with pytest.raises(Conflict) as caught:
        store.generate(KeySpec("first", Domain.CITY, "aes"))
    assert caught.value.reason == "KEYSTORE_CHANGED"


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_file_and_memory_as_they_were(store, tmp_path, monkeypatch, step):
    before = (tmp_path / "keystore.json").read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "no space")

    owner = sealedfile.Path if step == "replace" else sealedfile.os
    target = (owner, "fdopen" if step == "write" else step)
    with monkeypatch.context() as patch:
        patch.setattr(*target, full)
        with pytest.raises(Exhausted) as caught:
            store.generate(KeySpec("new", Domain.CITY, "aes"))
    assert caught.value.reason == "DISK_FULL"
    assert (tmp_path / "keystore.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["keystore.json"]
    assert len(store.inventory()) == len(SPECS)
    store.generate(KeySpec("new", Domain.CITY, "aes"))


def test_closing_wipes_masters_and_plans(tmp_path):
    store = make(tmp_path)
    store.derive([Derivation("t.3des", "pboc", "3des", UPPER)], [np.zeros((1, 8), np.uint8)])
    masters = [secret.reveal() for secret in store._masters.values()]
    upper = [secret.reveal() for secret in store._working._upper.values()]
    plans = [group.masters.array for plan in store._working._plans.values() for group in plan._groups]
    store.close()
    assert masters
    assert upper
    assert plans
    assert all(view == bytes(16) for view in masters + upper)
    assert not any(array.any() for array in plans)
    with pytest.raises(Precondition) as caught:
        store.derive([Derivation("t.3des", "pboc", "3des")], [np.zeros((1, 8), np.uint8)])
    assert caught.value.reason == "SECRET_WIPED"
