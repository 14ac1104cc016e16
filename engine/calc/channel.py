"""The operations `scp02` and `scp03`: what a host would send, given the static keys and the card's answer to INITIALIZE UPDATE."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from engine.calc.fields import Fields, bad_length, bad_value, unsupported
from engine.calc.operations import Answer
from engine.personalize import scp02 as scp02_host
from engine.personalize.scp02 import Scp02Session
from engine.personalize.scp03 import Scp03Session
from engine.personalize.scp03_channel import C_DECRYPTION, C_MAC, PSEUDO_RANDOM, S16, offered_levels
from engine.personalize.securechannel import SecureChannel
from keys.algorithms import KEY_LENS
from keys.errors import Denied, Unsupported

KEY_LENS_SCP02: Final = (scp02_host.KEY_LEN,)
_REQUIRED: Final = ("op", "keys", "level", "host_challenge", "initialize_update_response", "apdus")
# Of the INITIALIZE UPDATE response: KDD[10] || kvn || protocol || with SCP03 i.
_PROTOCOL_AT: Final = 11
_MODE_AT: Final = 12


@dataclass(frozen=True)
class _Apdu:
    """A plain short command; `le` None where absent (ISO/IEC 7816-3, 12.1.3)."""

    header: bytes
    data: bytes
    le: int | None


def scp02(fields: Fields) -> Answer:
    """Operation `scp02`. A wrong card cryptogram is an answer, not an error."""
    fields.require_known((*_REQUIRED, "i"), ("id",))
    keys = _keys(fields.fields("keys"), KEY_LENS_SCP02)
    level = fields.hex("level", (1,))[0]
    host_challenge = fields.hex("host_challenge", (8,))
    response = fields.hex("initialize_update_response", (scp02_host.RESPONSE_LEN,))
    i = fields.hex("i", (1,))[0]
    if i not in scp02_host.MODES:
        bad_value(f"i must be one of {_listed(scp02_host.MODES)}")
    if response[_PROTOCOL_AT] != 0x02:
        bad_value("initialize_update_response must say SCP02: 02 at byte 11")
    if level not in scp02_host.LEVELS:
        bad_value(f"level must be one of {_listed(scp02_host.LEVELS)} for i={i:02X}")
    return _answer(fields, level, lambda: Scp02Session.open(keys, host_challenge, response, i, level))


def scp03(fields: Fields) -> Answer:
    """Operation `scp03`. A wrong card cryptogram is an answer, not an error."""
    fields.require_known(_REQUIRED, ("id", "i"))
    keys = _keys(fields.fields("keys"), KEY_LENS["aes"])
    level = fields.hex("level", (1,))[0]
    host_challenge = fields.hex("host_challenge", (8,))
    response = fields.hex("initialize_update_response")
    _check_scp03_response(fields, response, level)
    return _answer(fields, level, lambda: Scp03Session.open(keys, host_challenge, response, level=level))


def _answer(fields: Fields, level: int, open_session: Callable[[], SecureChannel]) -> Answer:
    apdus = [_parse(apdu, f"apdus[{index}]", level) for index, apdu in enumerate(fields.hex_list("apdus"))]
    try:
        session = open_session()
    except Denied:
        return {"card_cryptogram_ok": False, "external_authenticate": None, "apdus": []}
    with session:
        authenticate = session.external_authenticate()
        wrapped = [_wrap(session, apdu) for apdu in apdus]
    return {
        "card_cryptogram_ok": True,
        "external_authenticate": authenticate.hex().upper(),
        "apdus": [apdu.hex().upper() for apdu in wrapped],
    }


def _wrap(session: SecureChannel, apdu: _Apdu) -> bytes:
    cla, ins, p1, p2 = apdu.header
    return session.wrap(cla, ins, p1, p2, apdu.data, apdu.le)


def _keys(keys: Fields, lengths: tuple[int, ...]) -> tuple[bytes, bytes, bytes]:
    keys.require_known(("enc", "mac", "dek"))
    enc, mac, dek = (keys.hex(name, lengths) for name in ("enc", "mac", "dek"))
    if not len(enc) == len(mac) == len(dek):
        bad_length("keys.enc, keys.mac and keys.dek must be of one length")
    return enc, mac, dek


def _listed(values: Iterable[int]) -> str:
    return ", ".join(f"{value:02X}" for value in values)


def _check_scp03_response(fields: Fields, response: bytes, level: int) -> None:
    given = fields.hex("i", (1,))[0] if fields.has("i") else None
    if given is not None:
        _levels(given)
    if len(response) > _MODE_AT and response[_MODE_AT] & S16 and response[_PROTOCOL_AT] == 0x03:
        _levels(response[_MODE_AT])
    if len(response) not in (29, 32):
        bad_length(f"initialize_update_response must have 29 bytes, or 32 when i has bit 10, not {len(response)}")
    if response[_PROTOCOL_AT] != 0x03:
        bad_value("initialize_update_response must say SCP03: 03 at byte 11")
    mode = response[_MODE_AT]
    if given is not None and given != mode:
        bad_value("i must equal byte 12 of initialize_update_response")
    levels = _levels(mode)
    wanted = 32 if mode & PSEUDO_RANDOM else 29
    if len(response) != wanted:
        bad_length(f"initialize_update_response with i={mode:02X} must have {wanted} bytes, not {len(response)}")
    if level not in levels:
        bad_value(f"level must be one of {_listed(levels)} for i={mode:02X}")


def _levels(mode: int) -> tuple[int, ...]:
    try:
        return offered_levels(mode)
    except Unsupported as error:
        if mode & S16:
            unsupported(error.message)
        bad_value(error.message)


def _parse(apdu: bytes, place: str, level: int) -> _Apdu:
    """Cases 1 to 4 of a short command; bad-length when Lc does not fit or the data do not fit a secured command."""
    header, body = apdu[:4], apdu[4:]
    if len(apdu) < 4:
        bad_length(f"{place} must have at least 4 bytes, not {len(apdu)}")
    if len(body) <= 1:
        return _Apdu(header, b"", body[0] if body else None)
    lc = body[0]
    if lc == 0:
        bad_value(f"{place} is of extended length; only short commands are wrapped")
    if len(body) - 1 not in (lc, lc + 1):
        bad_length(f"{place} has Lc {lc} but {len(body) - 1} bytes after it")
    longest = 239 if level & C_DECRYPTION else 247 if level & C_MAC else 255
    if lc > longest:
        bad_length(f"{place} has {lc} bytes of data; at level {level:02X} a short command holds {longest}")
    return _Apdu(header, body[1 : 1 + lc], body[-1] if len(body) == lc + 2 else None)
