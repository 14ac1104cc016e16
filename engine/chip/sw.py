"""Status words by name: ISO/IEC 7816-4 clause 5.6, GlobalPlatform Card Specification clause 11, PBOC electronic purse."""

from __future__ import annotations

OK = 0x9000
AUTHENTICATION_FAILED = 0x6300
WRONG_LENGTH = 0x6700
SECURITY_STATUS_NOT_SATISFIED = 0x6982
AUTHENTICATION_METHOD_BLOCKED = 0x6983
CONDITIONS_NOT_SATISFIED = 0x6985
WRONG_DATA = 0x6A80
FILE_NOT_FOUND = 0x6A82
RECORD_NOT_FOUND = 0x6A83
INCORRECT_P1_P2 = 0x6A86
REFERENCED_DATA_NOT_FOUND = 0x6A88
INS_NOT_SUPPORTED = 0x6D00
CLA_NOT_SUPPORTED = 0x6E00

_EXACT = {
    0x9000: "done",
    0x6200: "done, with a warning that carries no detail",
    0x6281: "part of the returned data may be damaged",
    0x6282: "end of file reached before Le bytes",
    0x6283: "the selected file or application is deactivated",
    0x6300: "authentication failed: the cryptogram does not fit",
    0x6400: "execution error, memory unchanged",
    0x6581: "memory failure",
    0x6700: "wrong length",
    0x6881: "logical channel not supported",
    0x6882: "secure messaging not supported",
    0x6900: "command not allowed",
    0x6981: "command does not fit the file's structure",
    0x6982: "security status not satisfied: authentication is missing, or a MAC is wrong",
    0x6983: "authentication method blocked: the retry counter has run out",
    0x6984: "referenced data can no longer be used",
    0x6985: "conditions of use not satisfied",
    0x6986: "command not allowed: no current file",
    0x6987: "secure messaging data missing",
    0x6988: "secure messaging data wrong",
    0x6999: "applet could not be selected",
    0x6A80: "wrong data in the command",
    0x6A81: "function not supported",
    0x6A82: "file or application not found",
    0x6A83: "record not found",
    0x6A84: "not enough memory",
    0x6A85: "Lc does not fit the TLV structure",
    0x6A86: "wrong P1 or P2",
    0x6A87: "Lc does not fit P1 and P2",
    0x6A88: "referenced data or key not found",
    0x6B00: "offset outside the file",
    0x6D00: "instruction not supported",
    0x6E00: "class not supported",
    0x6F00: "the chip gives no precise diagnosis",
    0x9302: "purse: MAC is wrong",
    0x9303: "purse: application permanently locked",
    0x9401: "purse: amount not covered, or above the limit",
    0x9402: "purse: transaction counter used up",
    0x9403: "purse: key index not supported",
    0x9406: "purse: MAC of a past transaction not available",
}
_CLASSES = {
    0x62: "warning, memory unchanged",
    0x63: "warning, memory changed",
    0x64: "execution error, memory unchanged",
    0x65: "execution error, memory changed",
    0x66: "security error",
    0x68: "class function not supported",
    0x69: "command not allowed",
    0x6A: "wrong parameters",
    0x94: "purse error",
}


def describe(sw: int) -> str:
    """The status word in hex and plain words, for messages and reports; never raises for a 16-bit value."""
    if sw in _EXACT:
        return f"{sw:04X} ({_EXACT[sw]})"
    sw1, sw2 = sw >> 8, sw & 0xFF
    if sw1 == 0x61:
        return f"{sw:04X} ({sw2 or 256} more bytes wait for GET RESPONSE)"
    if sw1 == 0x6C:
        return f"{sw:04X} (wrong Le: {sw2 or 256} bytes are there)"
    if sw & 0xFFF0 == 0x63C0:
        return f"{sw:04X} (verification failed, {sw2 & 0x0F} tries left)"
    return f"{sw:04X} ({_CLASSES.get(sw1, 'unknown status word')})"
