"""A secret prints nothing, is compared in constant time, and is gone when released."""

import copy
import ctypes
import gc
import pickle
import traceback

import numpy as np
import pytest

from keys.errors import Precondition
from keys.secrets import SecretArray, SecretBytes

CANARY = bytes.fromhex("C0FFEE00DEADBEEF0BADF00DFEEDFACE")


def shows_canary(text):
    low = text.lower()
    return CANARY.hex() in low or CANARY.hex()[:8] in low or repr(CANARY)[2:-1] in text or str(list(CANARY))[1:-1] in text


@pytest.mark.parametrize("make", [lambda: SecretBytes(CANARY), lambda: SecretArray(np.frombuffer(CANARY, np.uint8).copy())])
def test_nothing_prints_a_secret(make):
    secret = make()
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r}", "%s" % secret):  # noqa: UP031
        assert not shows_canary(text)
    try:
        secret.no_such_attribute  # noqa: B018
    except AttributeError:
        assert not shows_canary(traceback.format_exc())


@pytest.mark.parametrize("make", [lambda: SecretBytes(CANARY), lambda: SecretArray(np.frombuffer(CANARY, np.uint8).copy())])
def test_a_secret_is_not_pickled_copied_or_hashed(make):
    secret = make()
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)
    with pytest.raises(TypeError):
        hash(secret)


def test_bytes_reveal_and_compare():
    secret = SecretBytes(CANARY)
    assert secret.reveal() == CANARY
    assert secret.reveal().readonly
    assert secret == SecretBytes(CANARY)
    assert secret != SecretBytes(CANARY[:-1] + b"\x00")
    assert secret != CANARY
    assert len(secret) == 16


def test_move_wipes_the_source():
    source = bytearray(CANARY)
    assert SecretBytes.move(source).reveal() == CANARY
    assert source == bytes(16)


def test_with_wipes():
    with SecretBytes(CANARY) as secret:
        view = secret.reveal()
        assert view == CANARY
    assert view == bytes(16)


@pytest.mark.parametrize("make", [lambda: SecretBytes(CANARY), lambda: SecretArray(np.frombuffer(CANARY, np.uint8).copy())])
def test_memory_is_wiped_when_the_last_user_is_gone(make):
    secret = make()
    place = np.frombuffer(secret.reveal(), np.uint8).ctypes.data
    assert ctypes.string_at(place, 16) == CANARY
    del secret
    gc.collect()
    assert ctypes.string_at(place, 16) == bytes(16)


def test_a_secret_can_be_computed_in_place():
    def write(view):
        view[:] = CANARY

    assert SecretBytes.fill(16, write).reveal() == CANARY


def test_a_view_that_outlives_its_secret_never_shows_zeros():
    view = SecretBytes(CANARY).reveal()
    array = SecretArray(np.frombuffer(CANARY, np.uint8).copy()).array
    row = SecretArray(np.frombuffer(CANARY * 2, np.uint8).reshape(2, 16).copy()).array[1]
    gc.collect()
    assert view == CANARY
    assert array.tobytes() == CANARY
    assert row.tobytes() == CANARY


def test_a_view_taken_before_sees_zeros_after():
    secret = SecretBytes(CANARY)
    view = secret.reveal()
    secret.close()
    secret.close()
    assert view == bytes(16)
    with pytest.raises(Precondition) as caught:
        secret.reveal()
    assert caught.value.reason == "SECRET_WIPED"
    assert len(secret) == 0


def test_array_is_overwritten_and_rows_are_copies():
    array = np.frombuffer(CANARY * 2, np.uint8).reshape(2, 16).copy()
    with SecretArray(array) as secret:
        assert not array.any()  # moved
        row = secret.secret(1)
        view = secret.array
        assert secret.shape == (2, 16)
        assert view.tobytes() == CANARY * 2
        assert secret.reveal() is view
    assert not view.any()
    assert row.reveal() == CANARY
    assert secret.shape == ()
    with pytest.raises(Precondition):
        _ = secret.array


def test_array_must_be_writeable_bytes():
    with pytest.raises(TypeError):
        SecretArray(np.frombuffer(CANARY, np.uint8))
    with pytest.raises(TypeError):
        SecretArray(np.zeros(4, np.uint16))
