"""What went wrong with a token, in the project's words. Three kinds: it is lost (reconnecting may help), it refuses the PIN, or the
request itself cannot be done.
"""

from __future__ import annotations

from typing import Final

from pkcs11 import exceptions

from keys.errors import CitycardError, Denied, Exhausted, Unavailable, Unsupported

# Where the request is at fault, connecting anew does not help. All others, and what the standard does not know, may mean a lost token.
_REQUEST: Final = (
    exceptions.ArgumentsBad,
    exceptions.AttributeReadOnly,
    exceptions.AttributeSensitive,
    exceptions.AttributeTypeInvalid,
    exceptions.AttributeValueInvalid,
    exceptions.DataInvalid,
    exceptions.DataLenRange,
    exceptions.DeviceMemory,
    exceptions.EncryptedDataInvalid,
    exceptions.EncryptedDataLenRange,
    exceptions.HostMemory,
    exceptions.KeyNotWrappable,
    exceptions.KeySizeRange,
    exceptions.KeyTypeInconsistent,
    exceptions.KeyUnextractable,
    exceptions.MechanismInvalid,
    exceptions.MechanismParamInvalid,
    exceptions.MultipleTokensReturned,
    exceptions.PinIncorrect,
    exceptions.PinInvalid,
    exceptions.PinLenRange,
    exceptions.PinLocked,
    exceptions.TemplateIncomplete,
    exceptions.TemplateInconsistent,
    exceptions.TokenWriteProtected,
    exceptions.UserPinNotInitialized,
)
# What modules answer when there is no room: the standard's own words, and SoftHSM's when a file cannot be written. It may also say that
# an object was made, and know nothing of it afterwards.
_NO_ROOM: Final = (exceptions.DeviceMemory, exceptions.HostMemory)
_NOT_WRITTEN: Final = (
    exceptions.GeneralError,
    exceptions.FunctionFailed,
    exceptions.DeviceError,
    exceptions.ObjectHandleInvalid,
    exceptions.KeyHandleInvalid,
)
_WRONG_PIN: Final = (exceptions.PinIncorrect, exceptions.PinInvalid, exceptions.PinLenRange)


def lost(error: exceptions.PKCS11Error) -> bool:
    """Whether token, session or module may be gone, so that connecting anew is worth trying."""
    return not isinstance(error, _REQUEST)


def as_error(error: exceptions.PKCS11Error, label: str, *, storing: bool = False) -> CitycardError:  # noqa: PLR0911 - one a fault
    """The error a caller sees. `storing`: an object was to be written and the token answers otherwise.

    Denied TOKEN_PIN_WRONG, TOKEN_PIN_LOCKED; Exhausted TOKEN_FULL; Unsupported TOKEN_MECHANISM; Unavailable TOKEN_GONE, TOKEN_FAILED.
    """
    if isinstance(error, exceptions.PinLocked):
        message = f"the PIN of token {label} is locked; the security officer sets a new one (`citycard token unlock`)"
        return Denied("TOKEN_PIN_LOCKED", message)
    if isinstance(error, exceptions.UserPinNotInitialized):
        return Denied("TOKEN_PIN_WRONG", f"token {label} has no user PIN yet; finish `citycard token init`")
    if isinstance(error, _WRONG_PIN):
        return Denied("TOKEN_PIN_WRONG", f"token {label} refuses the PIN; it is not tried again until it is entered anew")
    if isinstance(error, _NO_ROOM) or (storing and isinstance(error, _NOT_WRITTEN)):
        return Exhausted("TOKEN_FULL", f"token {label} has no room for another object ({_name(error)})")
    if isinstance(error, exceptions.MechanismInvalid):
        return Unsupported("TOKEN_MECHANISM", f"token {label} does not have a mechanism that is needed ({_name(error)})")
    if isinstance(error, exceptions.MultipleTokensReturned):
        return Unavailable("TOKEN_AMBIGUOUS", f"several tokens are labelled {label}: name the serial number as well")
    if lost(error):
        return Unavailable("TOKEN_GONE", f"token {label} does not answer ({_name(error)}); it is tried again at the next operation")
    return Unavailable("TOKEN_FAILED", f"token {label} refused an operation ({_name(error)})")


def _name(error: exceptions.PKCS11Error) -> str:
    """The class, and the CKR number where the class is the general one; a module's text could say anything."""
    text = str(error)
    return text if text.startswith("C_") else type(error).__name__
