"""Every fault of a token, provoked in a real SoftHSM: what is said of it, and that work goes on in the same process afterwards."""

import ctypes
import os
import resource
import shutil
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pkcs11 import Attribute
from pkcs11.exceptions import AttributeSensitive

from keys import diversify
from keys.custody import Derivation
from keys.custody.policy import KeyPolicy
from keys.custody.token import TokenConfig, TokenCustody, TokenState, initialize, objects, selftest, unlock
from keys.custody.working import KeySpec, new_record
from keys.errors import Conflict, Corrupt, Denied, Exhausted, InvalidInput, NotFound, Precondition, Unavailable, Unsupported
from keys.hierarchy import Domain, KeyState, Purpose
from keys.secrets import SecretBytes
from tests.custody.conftest import LABEL, MODULE, PIN, SO_PIN, Rig
from tests.custody.contract import TDES, reason_of

SPEC = KeySpec("t.3des", Domain.TRANSPORT, "3des")
OTHER = KeySpec("t.other", Domain.TRANSPORT, "3des")
CLEAR = KeyPolicy(custody="host-clear")
WANTED = [Derivation("t.3des", "pboc", "3des"), Derivation("t.3des", "pboc", "3des", (b"410000sh",))]
FACTORS = [np.frombuffer(bytes(range(16)), np.uint8).reshape(2, 8)] * 2
NEW_PIN = b"135791"


@pytest.fixture
def loaded(token):
    token.import_key(SPEC, TDES, CLEAR)
    return token


def answer(custody):
    with custody.derive(WANTED, FACTORS) as made:
        return made.array.tobytes()


def right_answer():
    upper = diversify.pboc("3des", TDES, b"410000sh").tobytes()
    return b"".join(diversify.pboc("3des", key, FACTORS[0]).tobytes() for key in (TDES, upper))


def raw(name, *arguments):
    function = getattr(ctypes.CDLL(str(MODULE)), name)
    function.argtypes = [ctypes.c_ulong if isinstance(value, int) else ctypes.c_void_p for value in arguments]
    assert function(*arguments) == 0


def close_all_sessions(custody):
    raw("C_CloseAllSessions", custody.session.run(lambda live: live.python.token.slot.slot_id))


# -- lost, and back ------------------------------------------------------------------------------------------------------


def test_token_gone_and_back(rig, loaded):
    assert answer(loaded) == right_answer()
    away = rig.tokens.rename(rig.directory / "away")
    for _ in range(2):
        assert reason_of(Unavailable, lambda: answer(loaded)) == "TOKEN_GONE"
        assert loaded.state is TokenState.GONE
    away.rename(rig.tokens)
    assert answer(loaded) == right_answer()
    assert loaded.state is TokenState.READY


def test_sessions_closed_by_somebody_else(loaded):
    before = answer(loaded)
    close_all_sessions(loaded)
    assert answer(loaded) == before
    assert loaded.state is TokenState.READY


@pytest.mark.parametrize("again", [True, False], ids=["restarted", "finalized"])
def test_module_restarted_by_somebody_else(loaded, again):
    before = answer(loaded)
    raw("C_Finalize", None)
    if again:
        raw("C_Initialize", None)
    assert answer(loaded) == before


def test_token_files_restored_from_a_copy(rig, loaded):
    copy = rig.copy_of_files()
    loaded.import_key(OTHER, bytes(range(16)), CLEAR)
    shutil.rmtree(rig.tokens)
    assert reason_of(Unavailable, lambda: answer(loaded)) == "TOKEN_GONE"
    copy.rename(rig.tokens)
    assert answer(loaded) == right_answer()
    assert [record.key_id for record in loaded.inventory()] == ["t.3des"]  # what was not in the copy is not there
    assert reason_of(NotFound, lambda: loaded.record("t.other")) == "KEY_UNKNOWN"


def test_an_older_copy_put_back_while_in_use(rig, loaded):
    copy = rig.copy_of_files()
    loaded.set_state("t.3des", 1, KeyState.DEACTIVATED)
    shutil.rmtree(rig.tokens)
    copy.rename(rig.tokens)
    loaded.session.run(lambda live: live.cryptoki.session_alive(live.session))
    assert reason_of(Precondition, lambda: answer(loaded)) == "KEY_NOT_ACTIVE"  # known until the token is asked anew
    raw("C_Finalize", None)
    loaded.hmac_key("anything").close()
    assert loaded.record("t.3des").state is KeyState.ACTIVE  # the token is what counts


def test_a_second_custody_never_uses_handles_of_the_first(rig, loaded):
    first = answer(loaded)
    with rig.open() as second:  # initializes the module anew
        second.import_key(OTHER, bytes(range(1, 17)), CLEAR)
        assert answer(loaded) == first
        assert answer(second) == first
        close_all_sessions(second)
        assert answer(second) == first
    assert answer(loaded) == first


def test_many_threads_while_sessions_are_lost(loaded):
    right, wrong, stop = right_answer(), [], threading.Event()

    def derive():
        while not stop.is_set():
            found = answer(loaded)
            if found != right:
                wrong.append(found)

    threads = [threading.Thread(target=derive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        # only the PKCS#11 thread may call the module, also to disturb it
        loaded.session.run(lambda live: raw("C_CloseAllSessions", live.python.token.slot.slot_id))
        answer(loaded)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


# -- PIN -----------------------------------------------------------------------------------------------------------------


def test_wrong_pin(rig, loaded):
    loaded.close()
    assert reason_of(Denied, lambda: rig.open(b"999999")) == "TOKEN_PIN_WRONG"
    with rig.open() as custody:
        assert answer(custody) == right_answer()


def test_pin_changed_while_running(rig, loaded):
    unlock(rig.config, SecretBytes(SO_PIN), SecretBytes(NEW_PIN))
    assert reason_of(Denied, lambda: answer(loaded)) == "TOKEN_PIN_WRONG"
    assert loaded.state is TokenState.PIN_WRONG
    assert reason_of(Denied, lambda: loaded.enter_pin(SecretBytes(b"888888"))) == "TOKEN_PIN_WRONG"
    loaded.enter_pin(SecretBytes(NEW_PIN))
    assert answer(loaded) == right_answer()


@pytest.fixture
def hardware_like(tmp_path, monkeypatch):
    """A token that locks its PIN and has limited room: SoftHSM behind a module of a few lines."""
    library = tmp_path / "hardware_like.so"
    source = Path(__file__).parent / "hardware_like.c"
    subprocess.run(["gcc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    rig = Rig(tmp_path / "softhsm", library)
    monkeypatch.setenv("SOFTHSM2_CONF", str(rig.conf))
    monkeypatch.setenv("CITYCARD_TEST_MODULE", str(MODULE))
    with rig.create() as custody:
        custody.import_key(SPEC, TDES, CLEAR)
        yield rig, custody, ctypes.CDLL(str(library))


def test_pin_locked_is_not_tried_again_and_the_officer_unlocks(hardware_like):
    rig, custody, library = hardware_like
    tries_left = ctypes.c_int.in_dll(library, "tries_left")
    for _ in range(3):
        assert reason_of(Denied, lambda: custody.enter_pin(SecretBytes(b"999999"))) == "TOKEN_PIN_WRONG"
    assert tries_left.value == 0
    assert reason_of(Denied, lambda: custody.enter_pin(SecretBytes(PIN))) == "TOKEN_PIN_LOCKED"
    assert custody.state is TokenState.PIN_LOCKED
    assert reason_of(Denied, lambda: answer(custody)) == "TOKEN_PIN_LOCKED"
    unlock(rig.config, SecretBytes(SO_PIN), SecretBytes(NEW_PIN))
    custody.enter_pin(SecretBytes(NEW_PIN))
    assert answer(custody) == right_answer()


def test_a_wrong_pin_costs_one_try_however_often_keys_are_asked_for(hardware_like):
    _, custody, library = hardware_like
    assert reason_of(Denied, lambda: custody.enter_pin(SecretBytes(b"999999"))) == "TOKEN_PIN_WRONG"
    for _ in range(5):
        assert reason_of(Denied, lambda: answer(custody)) == "TOKEN_PIN_WRONG"
    assert ctypes.c_int.in_dll(library, "tries_left").value == 2


# -- room ----------------------------------------------------------------------------------------------------------------


@contextmanager
def no_file_may_grow():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_token_full_on_disk(loaded):
    with no_file_may_grow():
        assert reason_of(Exhausted, lambda: loaded.import_key(OTHER, bytes(range(16)), CLEAR)) == "TOKEN_FULL"
    assert answer(loaded) == right_answer()
    assert [record.key_id for record in loaded.inventory()] == ["t.3des"]
    loaded.import_key(OTHER, bytes(range(16)), CLEAR)


def test_token_full_by_its_own_word_leaves_no_key(hardware_like):
    rig, custody, library = hardware_like
    room = ctypes.c_int.in_dll(library, "room")
    for objects_before in (0, 1):  # no room for the key; room for the key but not for its record
        room.value = objects_before
        assert reason_of(Exhausted, lambda: custody.import_key(OTHER, bytes(range(16)), CLEAR)) == "TOKEN_FULL"
        assert answer(custody) == right_answer()
    room.value = 1000
    custody.import_key(OTHER, bytes(range(16)), CLEAR)
    with rig.open() as again:
        assert [record.key_id for record in again.inventory()] == ["t.3des", "t.other"]


# -- what is in the token ------------------------------------------------------------------------------------------------


def test_a_key_without_a_record_is_none_and_gives_way(loaded, rig):
    record = new_record(OTHER, version=1, state=KeyState.ACTIVE, origin="crash", test=True)
    loaded.session.run(lambda live: objects.create(live, record, CLEAR, SecretBytes(bytes(range(16)))))
    assert [known.key_id for known in loaded.inventory()] == ["t.3des"]
    assert loaded.import_key(OTHER, TDES, CLEAR).kcv == "08D7B4"
    with rig.open() as again:
        assert again.record("t.other").kcv == "08D7B4"


def test_destruction_that_was_interrupted_is_finished(loaded, rig, monkeypatch):
    loaded.set_state("t.3des", 1, KeyState.DEACTIVATED)
    with monkeypatch.context() as patch:
        patch.setattr(objects, "destroy", lambda *_: None)
        loaded.set_state("t.3des", 1, KeyState.DESTROYED)
    with rig.open() as again:
        assert again.session.run(lambda live: [label for label, _ in live.handles if label == "t.3des"]) == []
        assert again.record("t.3des").state is KeyState.DESTROYED


def test_masters_cannot_be_read_wrapped_or_used_otherwise(loaded):
    loaded.import_key(KeySpec("inside", Domain.CITY, "aes"), bytes(range(16)), KeyPolicy(custody="token-only"))
    kek = KeySpec("kek", Domain.CITY, "aes", Purpose.KEY_ENCRYPTION)
    loaded.generate(kek, KeyPolicy(custody="token-only"))

    def look(live):
        found = {}
        for key_id in ("t.3des", "inside", "kek"):
            key = live.python.get_key(label=key_id)
            uses = [Attribute.ENCRYPT, Attribute.DECRYPT, Attribute.SIGN, Attribute.WRAP, Attribute.UNWRAP, Attribute.DERIVE]
            has = key.get_attributes([*uses, Attribute.SENSITIVE, Attribute.EXTRACTABLE])
            found[key_id] = [use for use in uses if has[use]]
            assert has[Attribute.SENSITIVE]
            assert not has[Attribute.EXTRACTABLE]
            with pytest.raises(AttributeSensitive):
                key[Attribute.VALUE]
        return found

    found = loaded.session.run(look)
    assert found == {"t.3des": [Attribute.ENCRYPT], "inside": [Attribute.DERIVE], "kek": [Attribute.WRAP]}


def test_an_object_that_may_do_more_is_not_used(loaded, rig, monkeypatch):
    plain = objects._attributes
    with monkeypatch.context() as patch:
        patch.setattr(objects, "_attributes", lambda *given: plain(*given) | {Attribute.DERIVE: True})
        loaded.import_key(OTHER, bytes(range(16)), CLEAR)
    assert reason_of(Corrupt, rig.open) == "TOKEN_KEY"


# -- opening -------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_opened_is_named(rig):
    def opened(config, pin=PIN):
        return lambda: TokenCustody.open(config, SecretBytes(pin), mode="test")

    assert reason_of(Unavailable, opened(TokenConfig(Path("/no/such/module.so"), LABEL))) == "TOKEN_MODULE"
    assert reason_of(Unavailable, opened(TokenConfig(Path("/bin/true"), LABEL))) == "TOKEN_MODULE"
    assert reason_of(Unavailable, opened(rig.config)) == "TOKEN_GONE"
    serial = rig.initialize()
    assert reason_of(NotFound, opened(rig.config)) == "TOKEN_EMPTY"
    assert reason_of(Conflict, rig.initialize) == "TOKEN_EXISTS"
    assert reason_of(Unavailable, opened(TokenConfig(MODULE, LABEL, "0000"))) == "TOKEN_GONE"
    with TokenCustody.create(rig.config, SecretBytes(PIN), test=True) as custody:
        assert custody.test
    assert reason_of(Conflict, lambda: TokenCustody.create(rig.config, SecretBytes(PIN), test=True)) == "TOKEN_EXISTS"
    assert reason_of(Precondition, lambda: TokenCustody.open(rig.config, SecretBytes(PIN))) == "TEST_KEYS_REFUSED"
    opened(TokenConfig(MODULE, LABEL, serial))().close()
    assert reason_of(InvalidInput, lambda: initialize(rig.config, SecretBytes(b"1"), SecretBytes(PIN))) == "PIN_LENGTH"


def test_a_token_that_computes_wrongly_is_not_used(rig, loaded, monkeypatch):
    loaded.close()
    with monkeypatch.context() as patch:
        patch.setattr(selftest, "_TDES_ANSWER", bytes(16))
        assert reason_of(Corrupt, rig.open) == "SELF_TEST"
    rig.open().close()


def test_wrong_imports_are_named_and_leave_nothing(loaded):
    weak = bytes(16)
    assert reason_of(Conflict, lambda: loaded.import_key(SPEC, TDES, CLEAR)) == "KEY_EXISTS"
    assert reason_of(InvalidInput, lambda: loaded.import_key(OTHER, weak, CLEAR)) == "WEAK_KEY"
    assert reason_of(InvalidInput, lambda: loaded.import_key(OTHER, TDES[:8], CLEAR)) == "KEY_LENGTH"
    assert reason_of(Denied, lambda: loaded.import_key(OTHER, TDES, CLEAR, expected_kcv=b"\0\0\0")) == "KCV_MISMATCH"
    assert reason_of(InvalidInput, lambda: loaded.import_key(OTHER, TDES, KeyPolicy(custody="sealed"))) == "KEY_POLICY"
    sm4 = KeySpec("t.sm4", Domain.TRANSPORT, "sm4")
    assert reason_of(Unsupported, lambda: loaded.import_key(sm4, TDES, CLEAR)) == "TOKEN_ALGORITHM"
    kek = KeySpec("kek.3des", Domain.CITY, "3des", Purpose.KEY_ENCRYPTION)
    assert reason_of(Unsupported, lambda: loaded.import_key(kek, TDES, KeyPolicy(custody="token-only"))) == "TOKEN_ALGORITHM"
    assert [record.key_id for record in loaded.inventory()] == ["t.3des"]


# -- the end -------------------------------------------------------------------------------------------------------------


def test_zeroized_is_the_end_for_every_key_operation(rig, loaded):
    loaded.zeroize()
    assert loaded.state is TokenState.ZEROIZED
    out, kcvs = np.empty((2, 2, 24), np.uint8), np.empty((2, 2, 3), np.uint8)
    for call in (
        lambda: answer(loaded),
        lambda: loaded.derive_wrapped(WANTED, FACTORS, ["kek", "kek"], "aes-kw", out, kcvs),
        lambda: loaded.witness(WANTED[0], bytes(8)),
        lambda: loaded.hmac_key("x"),
        lambda: loaded.wrap_data_key(bytes(32)),
        lambda: loaded.unwrap_data_key(bytes(40)),
        lambda: loaded.import_key(OTHER, TDES, CLEAR),
        lambda: loaded.set_state("t.3des", 1, KeyState.DEACTIVATED),
        lambda: loaded.enter_pin(SecretBytes(PIN)),
    ):
        assert reason_of(Precondition, call) == "ZEROIZED"
    loaded.close()
    with rig.open() as custody:  # the token itself keeps its keys
        assert answer(custody) == right_answer()


def test_zeroizing_works_while_the_token_is_gone(rig, loaded):
    answer(loaded)
    upper = [secret.reveal() for secret in loaded._working._upper.values()]
    rig.tokens.rename(rig.directory / "away")
    loaded.zeroize()
    assert reason_of(Precondition, lambda: answer(loaded)) == "ZEROIZED"
    assert upper
    assert all(view == bytes(len(view)) for view in upper)


def test_the_pin_shows_nowhere(loaded, rig, caplog):
    shown = repr(loaded) + repr(loaded.session) + repr(rig.config) + caplog.text
    rig.tokens.rename(rig.directory / "away")
    with pytest.raises(Unavailable) as caught:
        answer(loaded)
    shown += str(caught.value) + repr(caught.value)
    assert PIN.decode() not in shown


def test_a_fork_has_no_token(loaded):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            loaded.hmac_key("x")
            os.write(writer, b"used")
        except Precondition as error:
            os.write(writer, error.reason.encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"TOKEN_NOT_INHERITED"
    os.close(reader)
    os.close(writer)
