"""The direct door to a PKCS#11 module: the calls that carry secrets or run by the thousand, on sessions that python-pkcs11 opened.

python-pkcs11 gives results as Python bytes, which cannot be wiped, and makes a Python class for every derived key. Here buffers are
addresses: keys go into and come out of locked memory, and a call costs about two microseconds more than it does in C. Structures are
those of PKCS#11 v2.40 (pkcs11t.h). Errors are those of `pkcs11.exceptions`. Only the thread of `keys.custody.token.worker` comes here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from pkcs11 import Attribute, Mechanism, exceptions

CK_ULONG = ctypes.c_ulong
Attributes = dict[Attribute, bool | int | bytes | tuple[int, int]]
"""A template: a tuple is the address and length of a value in locked memory."""
CKU_SO: Final = 0
CKU_USER: Final = 1
CKR_OK: Final = 0
# What SoftHSM 2.6 calls RFC 5649; PKCS#11 v3.0 has another number for the same.
AES_KEY_WRAP_PAD: Final = Mechanism.AES_KEY_WRAP_PAD

# Places among the functions of CK_FUNCTION_LIST (PKCS#11 v2.40 section 5), which follow its version.
_FUNCTIONS: Final = {
    "C_InitToken": 9,
    "C_InitPIN": 10,
    "C_GetSessionInfo": 15,
    "C_Login": 18,
    "C_Logout": 19,
    "C_CreateObject": 20,
    "C_DestroyObject": 22,
    "C_GetAttributeValue": 24,
    "C_EncryptInit": 29,
    "C_Encrypt": 30,
    "C_DecryptInit": 33,
    "C_Decrypt": 34,
    "C_SignInit": 42,
    "C_Sign": 43,
    "C_WrapKey": 60,
    "C_DeriveKey": 62,
}
# CKR_ values that mean something to `faults`; all others are a PKCS11Error with their number.
_RETURNED: Final[Mapping[int, type[exceptions.PKCS11Error]]] = {
    0x00000002: exceptions.HostMemory,
    0x00000005: exceptions.GeneralError,
    0x00000006: exceptions.FunctionFailed,
    0x00000011: exceptions.AttributeSensitive,
    0x00000030: exceptions.DeviceError,
    0x00000031: exceptions.DeviceMemory,
    0x00000032: exceptions.DeviceRemoved,
    0x00000060: exceptions.KeyHandleInvalid,
    0x00000070: exceptions.MechanismInvalid,
    0x00000082: exceptions.ObjectHandleInvalid,
    0x000000A0: exceptions.PinIncorrect,
    0x000000A1: exceptions.PinInvalid,
    0x000000A2: exceptions.PinLenRange,
    0x000000A4: exceptions.PinLocked,
    0x000000B0: exceptions.SessionClosed,
    0x000000B3: exceptions.SessionHandleInvalid,
    0x000000E0: exceptions.TokenNotPresent,
    0x000000E1: exceptions.TokenNotRecognised,
    0x000000E2: exceptions.TokenWriteProtected,
    0x00000100: exceptions.UserAlreadyLoggedIn,
    0x00000101: exceptions.UserNotLoggedIn,
}


class CkMechanism(ctypes.Structure):
    """CK_MECHANISM."""

    _fields_ = (("mechanism", CK_ULONG), ("parameter", ctypes.c_void_p), ("parameter_len", CK_ULONG))


class CkAttribute(ctypes.Structure):
    """CK_ATTRIBUTE."""

    _fields_ = (("type", CK_ULONG), ("value", ctypes.c_void_p), ("value_len", CK_ULONG))


class StringData(ctypes.Structure):
    """CK_KEY_DERIVATION_STRING_DATA: the data that a derivation encrypts."""

    _fields_ = (("data", ctypes.c_void_p), ("data_len", CK_ULONG))


class Template:
    """A CK_ATTRIBUTE array that keeps its values alive. Values are bool, numbers, bytes or (address, length) of locked memory."""

    def __init__(self, attributes: Attributes) -> None:
        self._kept: list[Any] = []
        self.array = (CkAttribute * len(attributes))()
        for entry, (kind, value) in zip(self.array, attributes.items(), strict=True):
            entry.type = int(kind)
            entry.value, entry.value_len = self._packed(value)

    def __len__(self) -> int:
        return len(self.array)

    def _packed(self, value: bool | int | bytes | tuple[int, int]) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        if isinstance(value, bytes):
            kept: Any = ctypes.create_string_buffer(value, len(value))
        else:
            kept = ctypes.c_ubyte(value) if isinstance(value, bool) else CK_ULONG(int(value))
        self._kept.append(kept)
        return ctypes.addressof(kept), ctypes.sizeof(kept)


class MechanismCall:
    """A mechanism with its parameter, which it keeps alive: bytes (an IV), or a structure."""

    def __init__(self, mechanism: int, parameter: bytes | ctypes.Structure | None = None) -> None:
        self._kept = ctypes.create_string_buffer(parameter, len(parameter)) if isinstance(parameter, bytes) else parameter
        address = None if self._kept is None else ctypes.addressof(self._kept)
        size = 0 if self._kept is None else ctypes.sizeof(self._kept)
        self.struct = CkMechanism(int(mechanism), address, size)
        self.pointer = ctypes.pointer(self.struct)


class Cryptoki:
    """The functions of one module. Sessions and objects are handles; buffers are addresses with lengths."""

    def __init__(self, module: str) -> None:
        """Raises OSError when the module cannot be loaded, PKCS11Error when it is none."""
        library = ctypes.CDLL(module)
        functions = ctypes.POINTER(ctypes.c_void_p)()
        _check("C_GetFunctionList", library.C_GetFunctionList(ctypes.byref(functions)))
        prototype = ctypes.CFUNCTYPE(CK_ULONG)
        self._library = library
        self._calls = {name: prototype(functions[1 + place]) for name, place in _FUNCTIONS.items()}
        handle, address, number, pointer = CK_ULONG, ctypes.c_void_p, CK_ULONG, ctypes.c_void_p
        for name, types in {
            "C_InitToken": (handle, address, number, address),
            "C_InitPIN": (handle, address, number),
            "C_GetSessionInfo": (handle, pointer),
            "C_Login": (handle, number, address, number),
            "C_Logout": (handle,),
            "C_CreateObject": (handle, pointer, number, pointer),
            "C_DestroyObject": (handle, handle),
            "C_GetAttributeValue": (handle, handle, pointer, number),
            "C_EncryptInit": (handle, pointer, handle),
            "C_Encrypt": (handle, address, number, address, pointer),
            "C_DecryptInit": (handle, pointer, handle),
            "C_Decrypt": (handle, address, number, address, pointer),
            "C_SignInit": (handle, pointer, handle),
            "C_Sign": (handle, address, number, address, pointer),
            "C_WrapKey": (handle, pointer, handle, handle, address, pointer),
            "C_DeriveKey": (handle, pointer, handle, pointer, number, pointer),
        }.items():
            self._calls[name].argtypes = types
        self._encrypt_init, self._encrypt = self._calls["C_EncryptInit"], self._calls["C_Encrypt"]
        self._derive, self._wrap = self._calls["C_DeriveKey"], self._calls["C_WrapKey"]
        self._destroy, self._attributes = self._calls["C_DestroyObject"], self._calls["C_GetAttributeValue"]

    # -- life of token and session ---------------------------------------------------------------------------------------

    def init_token(self, slot: int, so_pin: memoryview, label: str) -> None:
        """C_InitToken: what was on the token is gone."""
        text = label.encode().ljust(32)
        with _Readable(so_pin) as pin:
            _check("C_InitToken", self._calls["C_InitToken"](slot, pin, len(so_pin), text))

    def init_pin(self, session: int, pin: memoryview) -> None:
        """C_InitPIN: the first PIN of the user, in a session of the security officer."""
        with _Readable(pin) as address:
            _check("C_InitPIN", self._calls["C_InitPIN"](session, address, len(pin)))

    def login(self, session: int, pin: memoryview, user: int = CKU_USER) -> None:
        """C_Login; raises PinIncorrect, PinLocked, UserAlreadyLoggedIn."""
        with _Readable(pin) as address:
            _check("C_Login", self._calls["C_Login"](session, user, address, len(pin)))

    def logout(self, session: int) -> None:
        """C_Logout: private objects are out of reach, session keys destroyed."""
        _check("C_Logout", self._calls["C_Logout"](session))

    def session_alive(self, session: int) -> bool:
        """Whether the module still knows the session and its user."""
        info = (CK_ULONG * 4)()
        if self._calls["C_GetSessionInfo"](session, ctypes.byref(info)) != CKR_OK:
            return False
        return int(info[1]) in (1, 3)  # CKS_RO_USER_FUNCTIONS, CKS_RW_USER_FUNCTIONS

    # -- objects ---------------------------------------------------------------------------------------------------------

    def create(self, session: int, template: Template) -> int:
        """C_CreateObject: the handle."""
        handle = CK_ULONG()
        _check("C_CreateObject", self._calls["C_CreateObject"](session, template.array, len(template), ctypes.byref(handle)))
        return handle.value

    def destroy(self, session: int, handle: int) -> None:
        """C_DestroyObject."""
        _check("C_DestroyObject", self._destroy(session, handle))

    def read(self, session: int, handle: int, attribute: Attribute, address: int, length: int) -> None:
        """C_GetAttributeValue of one attribute of known length, to an address; raises AttributeSensitive."""
        entry = CkAttribute(int(attribute), address, length)
        _check("C_GetAttributeValue", self._attributes(session, handle, ctypes.byref(entry), 1))
        if entry.value_len != length:
            raise exceptions.PKCS11Error(f"C_GetAttributeValue: {entry.value_len} bytes where {length} were expected")

    # -- cryptography ----------------------------------------------------------------------------------------------------

    def encrypt(self, session: int, key: int, mechanism: MechanismCall, source: int, length: int, target: int, room: int) -> int:
        """C_EncryptInit and one C_Encrypt of `length` bytes at `source` into `room` bytes at `target`; how many came."""
        _check("C_EncryptInit", self._encrypt_init(session, mechanism.pointer, key))
        size = CK_ULONG(room)
        _check("C_Encrypt", self._encrypt(session, source, length, target, ctypes.byref(size)))
        return size.value

    def decrypt(self, session: int, key: int, mechanism: MechanismCall, source: int, length: int, target: int, room: int) -> int:
        """C_DecryptInit and one C_Decrypt, as `encrypt`."""
        _check("C_DecryptInit", self._calls["C_DecryptInit"](session, mechanism.pointer, key))
        size = CK_ULONG(room)
        _check("C_Decrypt", self._calls["C_Decrypt"](session, source, length, target, ctypes.byref(size)))
        return size.value

    def sign(self, session: int, key: int, mechanism: MechanismCall, message: bytes, target: int, room: int) -> None:
        """C_SignInit and one C_Sign: `room` bytes of MAC at `target`."""
        _check("C_SignInit", self._calls["C_SignInit"](session, mechanism.pointer, key))
        size = CK_ULONG(room)
        _check("C_Sign", self._calls["C_Sign"](session, message, len(message), target, ctypes.byref(size)))

    def derive(self, session: int, key: int, mechanism: MechanismCall, template: Template) -> int:
        """C_DeriveKey: the handle of the new key."""
        handle = CK_ULONG()
        _check("C_DeriveKey", self._derive(session, mechanism.pointer, key, template.array, len(template), ctypes.byref(handle)))
        return handle.value

    def wrap(self, session: int, kek: int, mechanism: MechanismCall, key: int, target: int, room: int) -> int:
        """C_WrapKey of the key `key` under `kek` into `room` bytes at `target`; how many came."""
        size = CK_ULONG(room)
        _check("C_WrapKey", self._wrap(session, mechanism.pointer, kek, key, target, ctypes.byref(size)))
        return size.value


class _Readable:
    """The address of a read-only view of secret bytes, as long as the block lasts. ctypes takes addresses of writeable buffers only."""

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def __enter__(self) -> int:
        self._array = np.frombuffer(self._view, np.uint8)
        return int(self._array.ctypes.data)

    def __exit__(self, *_: object) -> None:
        del self._array


def _check(function: str, returned: int) -> None:
    if returned == CKR_OK:
        return
    raise _RETURNED.get(returned, exceptions.PKCS11Error)(f"{function}: CKR 0x{returned:08X}")
