"""The sealed custody: sealed until something opens it, durable, and nothing else opens it."""

import json
import shutil

import numpy as np
import pytest

from keys.custody import Derivation, sealedfile
from keys.custody.policy import KeyPolicy
from keys.custody.sealed import RebuiltKey, SealedCustody, SealState
from keys.custody.sealedstore import FILE_NAME
from keys.custody.token import TokenSealer
from keys.custody.working import KeySpec
from keys.errors import Conflict, Corrupt, Denied, Exhausted, InvalidInput, NotFound, Precondition, Unavailable, Unsupported
from keys.hierarchy import Domain, KeyState
from keys.secrets import SecretBytes
from tests.custody.contract import SM4, reason_of

SHARED = bytes(range(100, 132))
SPEC = KeySpec("t.sm4", Domain.TRANSPORT, "sm4")
POLICY = KeyPolicy(custody="sealed", exportable=True, methods=("pboc",))
WANTED = [Derivation("t.sm4", "pboc", "sm4")]
FACTORS = [np.arange(16, dtype=np.uint8).reshape(2, 8)]


def rebuilt(key=SHARED):
    return RebuiltKey(SecretBytes(key))


@pytest.fixture
def store(tmp_path):
    with SealedCustody.create(tmp_path, rebuilt(), test=True) as made:
        made.import_key(SPEC, SM4, POLICY)
        yield made


def answer(custody):
    with custody.derive(WANTED, FACTORS) as made:
        return made.array.tobytes()


def every_key_operation(custody):
    out, kcvs = np.empty((1, 2, 24), np.uint8), np.empty((1, 2, 3), np.uint8)
    return (
        lambda: answer(custody),
        lambda: custody.derive_wrapped(WANTED, FACTORS, ["kek"], "aes-kw", out, kcvs),
        lambda: custody.wrap_keys("kek", "aes-kw", "sm4", out[0, :, :16], out[0]),
        lambda: custody.witness(WANTED[0], bytes(8)),
        lambda: custody.witness_wrapped(WANTED[0], bytes(8), "kek", "aes-kw"),
        lambda: custody.hmac_key("x"),
        lambda: custody.wrap_data_key(bytes(32)),
        lambda: custody.unwrap_data_key(bytes(40)),
        lambda: custody.generate(KeySpec("new", Domain.CITY, "aes"), POLICY),
        lambda: custody.set_state("t.sm4", 1, KeyState.DEACTIVATED),
    )


def test_it_starts_sealed_says_so_and_opens(store, tmp_path):
    before = answer(store)
    again = SealedCustody.open(tmp_path, mode="test")
    assert again.state is SealState.SEALED
    assert [record.key_id for record in again.inventory()] == ["t.sm4"]
    assert again.policy("t.sm4") == POLICY
    for call in every_key_operation(again):
        assert reason_of(Precondition, call) == "SEALED"
    again.unseal(rebuilt())
    again.unseal(rebuilt())
    assert answer(again) == before
    again.seal()
    assert reason_of(Precondition, lambda: answer(again)) == "SEALED"


def test_zeroized_stays_so(store):
    answer(store)
    held = [secret.reveal() for secret in (*store._masters.values(), store._root)]
    store.zeroize()
    assert all(view == bytes(len(view)) for view in held)
    for call in (*every_key_operation(store), lambda: store.unseal(rebuilt())):
        assert reason_of(Precondition, call) == "ZEROIZED"


def test_only_what_sealed_it_opens_it(store, tmp_path, token):
    again = SealedCustody.open(tmp_path, mode="test")
    for other in (rebuilt(bytes(32)), TokenSealer(token.session)):
        assert reason_of(Denied, lambda sealer=other: again.unseal(sealer)) == "SEAL_KEY"
        assert again.state is SealState.SEALED
    assert reason_of(InvalidInput, lambda: rebuilt(b"short")) == "KEY_LENGTH"


def test_the_token_that_sealed_it_opens_it_also_after_it_was_gone(rig, token, tmp_path):
    place = tmp_path / "sealed"
    with SealedCustody.create(place, TokenSealer(token.session), test=True) as made:
        made.import_key(SPEC, SM4, POLICY)
        before = answer(made)
    again = SealedCustody.open(place, mode="test")
    assert again.sealed_by == "token city"
    away = rig.tokens.rename(rig.directory / "away")
    assert reason_of(Unavailable, lambda: again.unseal(TokenSealer(token.session))) == "TOKEN_GONE"
    away.rename(rig.tokens)
    again.unseal(TokenSealer(token.session))
    assert answer(again) == before
    token.zeroize()
    assert reason_of(Precondition, lambda: SealedCustody.open(place, mode="test").unseal(TokenSealer(token.session))) == "ZEROIZED"


@pytest.mark.parametrize("change", ["state", "policy", "removed", "swapped", "root"])
def test_a_file_changed_by_hand_is_found(store, tmp_path, change):
    store.import_key(KeySpec("t.other", Domain.TRANSPORT, "sm4"), bytes(range(16)), POLICY)
    path = tmp_path / FILE_NAME
    kept = sealedfile.parse_as(type(store._store), "citycard-sealed", path.read_bytes(), "")
    raw = json.loads(path.read_bytes())
    first, second = raw["keys"]
    match change:
        case "state":
            first["record"]["state"] = "compromised"
        case "policy":
            first["policy"]["methods"] = []
        case "removed":
            raw["keys"] = [second]
        case "swapped":
            first["sealed_hex"], second["sealed_hex"] = second["sealed_hex"], first["sealed_hex"]
        case "root":
            raw["root_sealed_hex"] = raw["root_sealed_hex"][:-2] + f"{int(raw['root_sealed_hex'][-2:], 16) ^ 1:02x}"
    path.write_text(json.dumps(raw))
    assert reason_of(Corrupt, lambda: SealedCustody.open(tmp_path, mode="test")) == "KEYSTORE_CORRUPT"
    # an attacker mends the checksum; the MAC, or the seal of the root, still tells
    mended = sealedfile.msgspec.convert(raw, type(kept)).with_checksum()
    path.write_bytes(sealedfile.canonical(mended))
    opened = SealedCustody.open(tmp_path, mode="test")
    with pytest.raises((Corrupt, Denied)) as caught:
        opened.unseal(rebuilt())
    assert caught.value.reason == ("SEAL_KEY" if change == "root" else "KEYSTORE_CORRUPT")
    assert opened.state is SealState.SEALED


def test_damage_newer_versions_and_missing_files_are_named(store, tmp_path):
    path = tmp_path / FILE_NAME
    whole = path.read_bytes()
    for text in (b"", b"{}", whole[: len(whole) // 2], whole.replace(b'"citycard-sealed"', b'"citycard-keystore"')):
        path.write_bytes(text)
        assert reason_of(Corrupt, lambda: SealedCustody.open(tmp_path, mode="test")) == "KEYSTORE_CORRUPT"
    path.write_bytes(whole.replace(b'"format_version": 1', b'"format_version": 2'))
    assert reason_of(Unsupported, lambda: SealedCustody.open(tmp_path, mode="test")) == "KEYSTORE_NEWER"
    path.unlink()
    assert reason_of(NotFound, lambda: SealedCustody.open(tmp_path, mode="test")) == "KEYSTORE_MISSING"


def test_a_store_is_never_overwritten_and_changes_of_others_are_seen(store, tmp_path):
    assert reason_of(Conflict, lambda: SealedCustody.create(tmp_path, rebuilt(), test=True)) == "KEYSTORE_EXISTS"
    other = SealedCustody.open(tmp_path, mode="test")
    other.unseal(rebuilt())
    other.generate(KeySpec("theirs", Domain.CITY, "aes"), POLICY)
    assert reason_of(Conflict, lambda: store.generate(KeySpec("ours", Domain.CITY, "aes"), POLICY)) == "KEYSTORE_CHANGED"
    assert [record.key_id for record in store.inventory()] == ["t.sm4"]


def test_test_keys_are_refused_in_production_which_is_the_default(store, tmp_path):
    assert reason_of(Precondition, lambda: SealedCustody.open(tmp_path)) == "TEST_KEYS_REFUSED"


def test_a_full_disk_leaves_the_old_store(store, tmp_path, monkeypatch):
    import errno

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = (tmp_path / FILE_NAME).read_bytes()
    for step in ("fsync", "fdopen"):
        with monkeypatch.context() as patch:
            patch.setattr(sealedfile.os, step, full)
            assert reason_of(Exhausted, lambda: store.generate(KeySpec("new", Domain.CITY, "aes"), POLICY)) == "DISK_FULL"
        assert (tmp_path / FILE_NAME).read_bytes() == before
    assert [record.key_id for record in store.inventory()] == ["t.sm4"]


def test_a_destroyed_key_is_gone_from_file_and_memory(store, tmp_path):
    master = store._masters["t.sm4", 1].reveal()
    store.set_state("t.sm4", 1, KeyState.DEACTIVATED)
    store.set_state("t.sm4", 1, KeyState.DESTROYED)
    assert master == bytes(16)
    assert json.loads((tmp_path / FILE_NAME).read_bytes())["keys"][0]["sealed_hex"] is None
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / FILE_NAME, copy)
    again = SealedCustody.open(copy, mode="test")
    again.unseal(rebuilt())
    assert reason_of(Precondition, lambda: answer(again)) == "KEY_NOT_ACTIVE"
    assert reason_of(Conflict, lambda: again.import_key(SPEC, SM4, POLICY)) == "KEY_EXISTS"
