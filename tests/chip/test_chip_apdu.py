from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.chip.apdu import CommandApdu, ResponseApdu
from engine.chip.sw import describe
from keys.errors import Corrupt, InvalidInput

BYTE = st.integers(0, 255)
COMMANDS = st.builds(CommandApdu, BYTE, BYTE, BYTE, BYTE, st.binary(max_size=255), st.one_of(st.none(), BYTE))


@given(COMMANDS)
def test_encoding_round_trips(command):
    assert CommandApdu.parse(command.encode()) == command


@given(st.binary(max_size=300))
def test_any_bytes_parse_or_are_refused_with_a_reason(apdu):
    try:
        command = CommandApdu.parse(apdu)
    except InvalidInput as error:
        assert error.reason == "APDU_INVALID"
    else:
        assert command.encode() == apdu


@pytest.mark.parametrize(
    ("apdu", "command"),
    [
        ("00A40400", CommandApdu(0x00, 0xA4, 0x04, 0x00)),
        ("00A4040000", CommandApdu(0x00, 0xA4, 0x04, 0x00, le=0)),
        ("80E20000021122", CommandApdu(0x80, 0xE2, 0x00, 0x00, b"\x11\x22")),
        ("8050300008010203040506070800", CommandApdu(0x80, 0x50, 0x30, 0x00, bytes(range(1, 9)), 0)),
    ],
)
def test_the_four_cases(apdu, command):
    assert CommandApdu.parse(bytes.fromhex(apdu)) == command
    assert command.encode().hex().upper() == apdu


@pytest.mark.parametrize(
    ("apdu", "says"),
    [
        ("00A404", "3 bytes"),
        ("00A40400000001AA", "extended"),
        ("00A404000211", "needs 7"),
        ("00A4040001112233", "needs 6"),
    ],
)
def test_what_is_wrong_is_named(apdu, says):
    with pytest.raises(InvalidInput, match=says):
        CommandApdu.parse(bytes.fromhex(apdu))


@pytest.mark.parametrize("fields", [{"cla": 256}, {"ins": -1}, {"data": bytes(256)}, {"le": 256}])
def test_fields_out_of_range(fields):
    with pytest.raises(InvalidInput) as caught:
        CommandApdu(**({"cla": 0, "ins": 0, "p1": 0, "p2": 0} | fields))
    assert caught.value.reason == "APDU_INVALID"


def test_data_never_shows():
    pin = bytes.fromhex("26123456FFFFFFFF")
    assert repr(CommandApdu(0, 0x20, 0, 0x80, pin)) == "CommandApdu(00 20 00 80 Lc=8)"
    assert repr(ResponseApdu(pin, 0x9000)) == "ResponseApdu(8 bytes, 9000)"


@given(st.binary(max_size=300))
def test_responses(answer):
    if len(answer) < 2:
        with pytest.raises(Corrupt):
            ResponseApdu.parse(answer)
    else:
        parsed = ResponseApdu.parse(answer)
        assert parsed.encode() == answer
        assert parsed.ok == (answer[-2:] == b"\x90\x00")


@given(st.integers(0, 0xFFFF))
def test_every_status_word_has_words(sw):
    text = describe(sw)
    assert text.startswith(f"{sw:04X} (")
    assert len(text) > 8


@pytest.mark.parametrize(
    ("sw", "says"),
    [
        (0x9000, "done"),
        (0x63C2, "2 tries left"),
        (0x6110, "16 more"),
        (0x6C05, "5 bytes"),
        (0x6983, "retry counter"),
        (0x1234, "unknown"),
    ],
)
def test_words_that_matter(sw, says):
    assert says in describe(sw)
