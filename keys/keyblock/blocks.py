"""Key blocks in and out: X9.143 versions B, C and D, and a private version S for SM4.

Version S is ours and registered nowhere: version D with SM4 in the place of AES (SM4-CMAC counter derivation with algorithm indicator 8001,
SM4-CBC, SM4-CMAC of 16 bytes); both ends must agree on it in writing.

psec, the field's library, is the tests' second opinion and not the engine: it compares MACs with `!=`, tells which check failed, and leans
on two-key 3DES that `cryptography` has announced to drop. Here every wrong MAC, wrong protection key and damaged key gives one same
Denied KEY_BLOCK after the same work, and the MAC is compared in constant time. Only the form of the text, which holds no secret, is told
apart.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, cast

import numpy as np
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES, SM4
from cryptography.hazmat.primitives.cmac import CMAC

from keys.algorithms import Algorithm
from keys.errors import Denied, InvalidInput
from keys.keyblock.header import CIPHER_BLOCK, MAC_LEN, MAX_BLOCK_LEN, Header, parse_header
from keys.secrets import SecretBytes

_CIPHER: Final[dict[str, Algorithm]] = {"B": "3des", "C": "3des", "D": "aes", "S": "sm4"}
_KBPK_LENS: Final = {"B": (16, 24), "C": (16, 24), "D": (16, 24, 32), "S": (16,)}
# Algorithm indicator of the derivation input (X9.143 table 7 and 8), by cipher and length; 8001 is private.
_INDICATOR: Final = {("3des", 16): 0, ("3des", 24): 1, ("aes", 16): 2, ("aes", 24): 3, ("aes", 32): 4, ("sm4", 16): 0x8001}
_CLASSES: Final[dict[Algorithm, type[TripleDES | AES | SM4]]] = {"3des": TripleDES, "aes": AES, "sm4": SM4}
# Bits of security (NIST SP 800-57 part 1, table 2): a key is never wrapped under a weaker one.
_STRENGTH: Final = {("3des", 16): 80, ("3des", 24): 112, ("sm4", 16): 128, ("aes", 16): 128, ("aes", 24): 192, ("aes", 32): 256}
_CODE_CIPHER: Final[dict[str, Algorithm]] = {"T": "3des", "A": "aes", "4": "sm4"}
_MASKED_LEN: Final = {"T": 24, "A": 32}
# what a cipher asks of an output buffer beyond its output
_SPARE: Final = 15


class KeyBlock(NamedTuple):
    """What came out of a block."""

    header: Header
    key: SecretBytes


def wrap(kbpk: SecretBytes, header: Header, key: SecretBytes) -> str:
    """The key block (X9.143) of `key` under the protection key, its true length hidden by padding.

    Raises InvalidInput (KBPK_LENGTH, KBPK_WEAKER, KEY_USAGE, KEY_LENGTH, KEY_BLOCK_SYNTAX).
    """
    cipher = _kbpk_cipher(header.version_id, kbpk)
    header.require_sense(len(key))
    if _STRENGTH[cipher, len(kbpk)] < _STRENGTH[_CODE_CIPHER[header.algorithm], len(key)]:
        raise InvalidInput("KBPK_WEAKER", "the protection key is weaker than the key it shall protect")
    return _sealed(cipher, kbpk, header, key)


def unwrap(kbpk: SecretBytes, block: str, key_usage: str, mode_of_use: str, algorithm: Algorithm) -> KeyBlock:
    """The key of a block that is for exactly that usage, mode and algorithm.

    Raises InvalidInput (KEY_BLOCK_SYNTAX, KBPK_LENGTH), Denied KEY_BLOCK for any failure of MAC, protection key or content, and only
    after that Denied KEY_USAGE, InvalidInput (KEY_USAGE, KEY_LENGTH).
    """
    opened = open_block(kbpk, block)
    try:
        opened.header.require(key_usage, mode_of_use, algorithm)
        opened.header.require_sense(len(opened.key))
    except (Denied, InvalidInput):
        opened.key.close()
        raise
    return opened


def rewrap(opened: KeyBlock, kbpk: SecretBytes, version_id: str) -> str:
    """The key of a received block under another protection key. Raises Denied KEY_NOT_EXPORTABLE, and as `wrap`."""
    header = opened.header
    header.require_exportable()
    onward = Header(
        version_id=version_id,
        key_usage=header.key_usage,
        algorithm=header.algorithm,
        mode_of_use=header.mode_of_use,
        key_version=header.key_version,
        exportability=header.exportability,
        optional_blocks=header.optional_blocks,
    )
    return wrap(kbpk, onward, opened.key)


def open_block(kbpk: SecretBytes, block: str) -> KeyBlock:
    """Any sound block, whatever it is for; raises as `unwrap` but KEY_USAGE. What calls this must look at the header itself."""
    header, header_len = parse_header(block)
    cipher = _kbpk_cipher(header.version_id, kbpk)
    mac_len = MAC_LEN[header.version_id]
    body = _hex_tail(block, header_len)
    size = len(body) - mac_len
    if size < CIPHER_BLOCK[header.version_id] or size % CIPHER_BLOCK[header.version_id]:
        raise InvalidInput("KEY_BLOCK_SYNTAX", f"key block, character {header_len + 1}: no whole cipher blocks before the MAC")
    sealed, received = body[:size], body[size:]
    text = block[:header_len].encode("ascii")
    with _derive(header.version_id, cipher, kbpk, 0) as kbek, _derive(header.version_id, cipher, kbpk, 1) as kbmk:
        iv = text[:8] if header.version_id == "C" else received
        with SecretBytes.fill(size + _SPARE, lambda view: _cbc(cipher, kbek, iv, sealed, view, decrypt=True)) as clear:
            raw = clear.reveal()[:size]
            covered = sealed if header.version_id == "C" else raw
            same = hmac.compare_digest(_mac(header.version_id, cipher, kbmk, text, covered), received)
            bits = int.from_bytes(raw[:2], "big")
            sound = bits % 8 == 0 and 0 < bits // 8 <= size - 2
            if not (same and sound):
                raise Denied("KEY_BLOCK", "the key block was not made with this protection key, or was changed")
            return KeyBlock(header, SecretBytes(raw[2 : 2 + bits // 8]))


def _sealed(cipher: Algorithm, kbpk: SecretBytes, header: Header, key: SecretBytes) -> str:
    """X9.143 7: length in bits, key and random padding enciphered; version C has its MAC over the cryptogram, the others over the clear."""
    version_id = header.version_id
    unit = CIPHER_BLOCK[version_id]
    masked = max(len(key), _MASKED_LEN.get(header.algorithm, len(key)))
    size = (2 + masked) // unit * unit + unit
    block_len = len(header.text(0)) + 2 * (size + MAC_LEN[version_id])
    if block_len > MAX_BLOCK_LEN:
        raise InvalidInput("KEY_BLOCK_SYNTAX", f"the block would be longer than {MAX_BLOCK_LEN} characters")
    text = header.text(block_len)
    ascii_text = text.encode("ascii")

    def lay(view: memoryview) -> None:
        view[:2] = (8 * len(key)).to_bytes(2, "big")
        view[2 : 2 + len(key)] = key.reveal()
        view[2 + len(key) :] = os.urandom(size - 2 - len(key))

    enciphered = bytearray(size + _SPARE)
    with _derive(version_id, cipher, kbpk, 0) as kbek, _derive(version_id, cipher, kbpk, 1) as kbmk, SecretBytes.fill(size, lay) as clear:
        if version_id == "C":
            _cbc(cipher, kbek, ascii_text[:8], clear.reveal(), memoryview(enciphered), decrypt=False)
            mac = _mac(version_id, cipher, kbmk, ascii_text, bytes(enciphered[:size]))
        else:
            mac = _mac(version_id, cipher, kbmk, ascii_text, clear.reveal())
            _cbc(cipher, kbek, mac, clear.reveal(), memoryview(enciphered), decrypt=False)
    return text + enciphered[:size].hex().upper() + mac.hex().upper()


def _kbpk_cipher(version_id: str, kbpk: SecretBytes) -> Algorithm:
    if len(kbpk) not in _KBPK_LENS[version_id]:
        wanted = " or ".join(map(str, _KBPK_LENS[version_id]))
        raise InvalidInput("KBPK_LENGTH", f"a protection key of version {version_id} has {wanted} bytes, not {len(kbpk)}")
    return _CIPHER[version_id]


def _hex_tail(block: str, at: int) -> bytes:
    tail = block[at:]
    for offset, character in enumerate(tail):
        if character not in "0123456789ABCDEFabcdef":
            raise InvalidInput("KEY_BLOCK_SYNTAX", f"key block, character {at + offset + 1}: not a hex digit")
    if len(tail) % 2:
        raise InvalidInput("KEY_BLOCK_SYNTAX", f"key block, character {len(block)}: an odd number of hex digits")
    return bytes.fromhex(tail)


def _derive(version_id: str, cipher: Algorithm, kbpk: SecretBytes, use: int) -> SecretBytes:
    """KBEK (use 0) or KBMK (use 1): X9.143 7.3 by key variants for C, 7.2 by CMAC in counter mode for the others."""
    length = len(kbpk)
    if version_id == "C":
        variant = np.uint8((0x45, 0x4D)[use])
        source = np.frombuffer(kbpk.reveal(), np.uint8)
        return SecretBytes.fill(length, lambda view: np.bitwise_xor(source, variant, out=np.frombuffer(view, np.uint8)))
    unit = CIPHER_BLOCK[version_id]
    tail = use.to_bytes(2, "big") + b"\0" + _INDICATOR[cipher, length].to_bytes(2, "big") + (8 * length).to_bytes(2, "big")

    def write(view: memoryview) -> None:
        for count, at in enumerate(range(0, length, unit), 1):
            with _cmac_of_8(cipher, kbpk, unit, bytes([count]) + tail) as part:
                wanted = min(unit, length - at)
                view[at : at + wanted] = part.reveal()[:wanted]

    return SecretBytes.fill(length, write)


def _cmac_of_8(cipher: Algorithm, key: SecretBytes, unit: int, message: bytes) -> SecretBytes:
    """CMAC (NIST SP 800-38B) of 8 bytes, itself a key: in locked memory, where the library's `finalize` gives an object that stays."""

    def write(view: memoryview) -> None:
        with SecretBytes.fill(unit + _SPARE, lambda out: _cbc(cipher, key, bytes(unit), bytes(unit), out, decrypt=False)) as zero:
            view[:] = zero.reveal()[:unit]
        for _ in range(1 if unit == len(message) else 2):
            _double(view)
        padded = message if unit == len(message) else message + b"\x80" + bytes(unit - len(message) - 1)
        for at, byte in enumerate(padded):
            view[at] ^= byte

    with (
        SecretBytes.fill(unit, write) as block,
        SecretBytes.fill(unit + _SPARE, lambda out: _cbc(cipher, key, bytes(unit), block.reveal(), out, decrypt=False)) as made,
    ):
        return SecretBytes(made.reveal()[:unit])


def _double(block: memoryview) -> None:
    """In the binary field, in place (SP 800-38B 6.1), byte by byte so that no large number is left behind, and without a branch."""
    over = block[0] >> 7
    for at in range(len(block)):
        following = block[at + 1] >> 7 if at + 1 < len(block) else 0
        block[at] = (block[at] << 1 & 0xFF) | following
    block[len(block) - 1] ^= over * (0x1B if len(block) == 8 else 0x87)


def _mac(version_id: str, cipher: Algorithm, kbmk: SecretBytes, header: bytes, covered: bytes | memoryview) -> bytes:
    if version_id != "C":
        with _block_cipher(cipher, kbmk) as block_cipher:
            made = CMAC(block_cipher)
            made.update(header)
            made.update(cast("bytes", covered))
            return made.finalize()
    chained = bytearray(len(header) + len(covered) + _SPARE)
    # version C authenticates the cryptogram, which is no secret
    _cbc(cipher, kbmk, bytes(8), header + bytes(covered), memoryview(chained), decrypt=False)
    return bytes(chained[len(header) + len(covered) - 8 :][: MAC_LEN["C"]])


def _cbc(cipher: Algorithm, key: SecretBytes, iv: bytes, source: bytes | memoryview, out: memoryview, *, decrypt: bool) -> None:
    with _block_cipher(cipher, key) as block_cipher:
        mode = Cipher(block_cipher, modes.CBC(iv))
        context = mode.decryptor() if decrypt else mode.encryptor()
        context.update_into(source, out)


@contextmanager
def _block_cipher(cipher: Algorithm, key: SecretBytes) -> Iterator[TripleDES | AES | SM4]:
    if cipher != "3des" or len(key) == 24:
        with key.reveal() as raw:
            # the library's stubs say bytes; it takes, and does not copy, any buffer
            yield _CLASSES[cipher](cast("bytes", raw))
        return

    def widen(view: memoryview) -> None:
        view[:16] = key.reveal()
        view[16:] = key.reveal()[:8]

    with SecretBytes.fill(24, widen) as wide, wide.reveal() as raw:
        yield TripleDES(cast("bytes", raw))
