"""The data field of PUT KEY: the key blocks of one whole secure channel key set (GPCS 11.8.2.3, Amendment D 7.2.1)."""

from __future__ import annotations

from engine.virtual.channel import Channel, Scp
from engine.virtual.crypto import kcv, same
from engine.virtual.wire import Refused


def read_key_blocks(data: bytes, channel: Channel, scp: Scp) -> tuple[bytes, bytes]:
    """Three blocks of 16-byte keys: clear keys (48 bytes) and their KCVs (9 bytes); Refused 6A80 for a wrong form or KCV.

    `80 10 cryptogram 03 kcv` are DES keys, `88 11 10 cryptogram 03 kcv` AES keys; some hosts leave the AES inner length out and send
    `88 10 cryptogram 03 kcv`, and real cards take both.
    """
    plain, with_inner = bytes((scp.key_type, 0x10)), b"\x88\x11\x10"
    keys, check_values = b"", b""
    at = 0
    for _ in range(3):
        if scp.key_type == with_inner[0] and data[at : at + 3] == with_inner:
            at += 3
        elif data[at : at + 2] == plain:
            at += 2
        else:
            raise Refused(0x6A80)
        cryptogram, length, check = data[at : at + 16], data[at + 16 : at + 17], data[at + 17 : at + 20]
        if length != b"\x03" or len(check) != 3:
            raise Refused(0x6A80)
        key = channel.decrypt_span(cryptogram)
        if not same(kcv(scp.algorithm, key), check):
            raise Refused(0x6A80)
        keys += key
        check_values += check
        at += 20
    if at != len(data):
        raise Refused(0x6A80)
    return keys, check_values
