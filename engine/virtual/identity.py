"""Who the chip says it is: ATR, CPLC, card recognition data and the other GET DATA objects of the security domain.

chip serial: 8 bytes. KDD: lot[2] || serial[8]. chip_id: the KDD in upper-case hex.
"""

from __future__ import annotations

from functools import reduce

from engine.virtual.wire import tlv

# Object identifiers of GlobalPlatform Card Specification annex H.1, below 1.2.840.114283 (2A864886FC6B).
_GP = bytes.fromhex("2A864886FC6B")
# IC fabricator, IC type, operating system, its release date and level, fabrication date: two bytes each.
_FABRICATION = bytes.fromhex("5A5A43015A31630001006310")


def atr(chip_type: bytes, serial: bytes) -> bytes:
    """3B 8D 80 01 || 13 historical bytes || TCK; the historical bytes are chip type[5] || serial[8]."""
    body = b"\x8d\x80\x01" + chip_type + serial
    return b"\x3b" + body + bytes((reduce(lambda a, b: a ^ b, body),))


def cplc(lot: bytes, serial: bytes) -> bytes:
    """Card production life cycle data, 42 bytes: serial number field = last 4 bytes of the serial, batch id = lot."""
    return _FABRICATION + serial[4:8] + lot + bytes(42 - len(_FABRICATION) - 6)


def recognition_data(protocol: int, option: int) -> bytes:
    """Card recognition data without its 66 (GPCS H.2); scheme 4 names the secure channel protocol and its option i."""
    return tlv(
        0x73,
        tlv(0x06, _GP + b"\x01")
        + tlv(0x60, tlv(0x06, _GP + b"\x02\x02\x03\x01"))
        + tlv(0x63, tlv(0x06, _GP + b"\x03"))
        + tlv(0x64, tlv(0x06, _GP + bytes((0x04, protocol, option)))),
    )


def isd_fci(aid: bytes, protocol: int, option: int) -> bytes:
    """FCI of the issuer security domain (GPCS 11.9.3.1)."""
    proprietary = recognition_data(protocol, option) + tlv(0x9F6E, _FABRICATION[:10]) + tlv(0x9F65, b"\xff")
    return tlv(0x6F, tlv(0x84, aid) + tlv(0xA5, proprietary))


def key_information(key_versions: list[int], key_type: int) -> bytes:
    """Key information data objects, C0 { kid, kvn, key type, length 10 }, without their E0 (GPCS 11.3.3.1)."""
    return b"".join(tlv(0xC0, bytes((kid, kvn, key_type, 0x10))) for kvn in key_versions for kid in (1, 2, 3))
