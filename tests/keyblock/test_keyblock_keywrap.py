"""AES key wrap against another implementation: the same cryptograms, the same refusals, whatever is changed."""

import os

import pytest
from cryptography.hazmat.primitives import keywrap as theirs

from keys.errors import Denied
from keys.keyblock.keywrap import key_unwrap, key_wrap
from keys.secrets import SecretBytes

LENGTHS = {"aes-kw": (16, 24, 32, 40, 64), "aes-kwp": (*range(1, 34), 64, 100)}
THEIRS = {
    "aes-kw": (theirs.aes_key_wrap, theirs.aes_key_unwrap),
    "aes-kwp": (theirs.aes_key_wrap_with_padding, theirs.aes_key_unwrap_with_padding),
}


@pytest.mark.parametrize("scheme", LENGTHS)
@pytest.mark.parametrize("kek_len", [16, 24, 32])
def test_both_wrap_alike_and_read_each_other(scheme, kek_len):
    wrap, unwrap = THEIRS[scheme]
    for length in LENGTHS[scheme]:
        kek, key = os.urandom(kek_len), os.urandom(length)
        with SecretBytes(kek) as over, SecretBytes(key) as secret:
            wrapped = key_wrap(scheme, over, secret)
            assert wrapped == wrap(kek, key)
            assert unwrap(kek, wrapped) == key
            with key_unwrap(scheme, over, wrapped) as opened:
                assert bytes(opened.reveal()) == key


@pytest.mark.parametrize("scheme", LENGTHS)
def test_what_was_changed_or_is_no_cryptogram_is_refused(scheme):
    with SecretBytes(bytes(range(16))) as kek, SecretBytes(bytes(range(20 if scheme == "aes-kwp" else 24))) as key:
        whole = key_wrap(scheme, kek, key)
        flipped = [bytes(byte ^ (at == place) for at, byte in enumerate(whole)) for place in range(len(whole))]
        for wrong in (*flipped, b"", whole[:8], whole[:-8], whole[:-1], whole + bytes(8), bytes(len(whole))):
            with pytest.raises(Denied) as refused:
                key_unwrap(scheme, kek, wrong)
            assert refused.value.reason == "KEY_BLOCK"


@pytest.mark.parametrize(("aiv", "sound"), [("a65959a600000005", True), ("a65959a600000009", False), ("a65959a600000000", False)])
def test_the_length_and_the_padding_of_kwp_are_looked_at(aiv, sound):
    """One block: what the plain text says of itself (RFC 5649 3), enciphered as it is."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    for padding, good in ((bytes(3), sound), (b"\0\0\1", False)):
        plain = bytes.fromhex(aiv) + b"hello" + padding
        encryptor = Cipher(algorithms.AES(bytes(16)), modes.ECB()).encryptor()
        wrapped = encryptor.update(plain) + encryptor.finalize()
        with SecretBytes(bytes(16)) as kek:
            if good:
                assert bytes(key_unwrap("aes-kwp", kek, wrapped).reveal()) == b"hello"
            else:
                with pytest.raises(Denied):
                    key_unwrap("aes-kwp", kek, wrapped)
