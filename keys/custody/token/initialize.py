"""Making a token ready: label, security officer's PIN and user PIN; and a new user PIN after the old one was locked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from pkcs11 import SlotFlag, TokenFlag, exceptions

from keys.custody.token import faults, worker
from keys.custody.token.cryptoki import CKU_SO, Cryptoki
from keys.custody.token.session import Library, TokenConfig, find_token, load, restart
from keys.errors import Conflict, InvalidInput, Unavailable
from keys.secrets import SecretBytes

T = TypeVar("T")

PIN_LENS: Final = range(6, 256)
LABEL_LEN: Final = 32


def initialize(config: TokenConfig, so_pin: SecretBytes, pin: SecretBytes) -> str:
    """Initializes the module's first blank token under the label of `config`; its serial number.

    A token that has a label is never initialized again: that would destroy its keys. Raises Conflict TOKEN_EXISTS, Unavailable
    (TOKEN_BLANK_MISSING, TOKEN_MODULE), InvalidInput (TOKEN_LABEL, PIN_LENGTH), Denied TOKEN_PIN_WRONG.
    """
    if not 1 <= len(config.label.encode()) <= LABEL_LEN:
        raise InvalidInput("TOKEN_LABEL", f"a token label has 1 to {LABEL_LEN} bytes, not {len(config.label.encode())}")
    _check_pins(so_pin, pin)
    return worker.run(lambda: _guarded(config, lambda: _initialize(config, so_pin, pin)))


def unlock(config: TokenConfig, so_pin: SecretBytes, new_pin: SecretBytes) -> None:
    """A new user PIN, set by the security officer. Raises Denied TOKEN_PIN_WRONG (the officer's), Unavailable TOKEN_GONE, InvalidInput
    PIN_LENGTH.
    """
    _check_pins(so_pin, new_pin)

    def work() -> None:
        library, cryptoki = load(config.module)
        restart(library, config.module)
        _set_pin(library, cryptoki, config, so_pin, new_pin)

    worker.run(lambda: _guarded(config, work))


def _check_pins(*pins: SecretBytes) -> None:
    for pin in pins:
        if len(pin) not in PIN_LENS:
            raise InvalidInput("PIN_LENGTH", f"a token PIN has {PIN_LENS[0]} to {PIN_LENS[-1]} characters")


def _guarded(config: TokenConfig, work: Callable[[], T]) -> T:
    try:
        return work()
    except exceptions.PKCS11Error as error:
        raise faults.as_error(error, config.label) from None


def _initialize(config: TokenConfig, so_pin: SecretBytes, pin: SecretBytes) -> str:
    library, cryptoki = load(config.module)
    restart(library, config.module)
    blank = []
    for slot in library.get_slots():
        if not slot.flags & SlotFlag.TOKEN_PRESENT:
            continue
        token = slot.get_token()
        if token.flags & TokenFlag.TOKEN_INITIALIZED:
            if token.label == config.label:
                raise Conflict("TOKEN_EXISTS", f"a token labelled {config.label} exists; it is not initialized again")
        else:
            blank.append(slot)
    if not blank:
        raise Unavailable("TOKEN_BLANK_MISSING", f"{config.module} offers no blank token")
    with so_pin.reveal() as officer:
        cryptoki.init_token(blank[0].slot_id, officer, config.label)
    restart(library, config.module)
    _set_pin(library, cryptoki, config, so_pin, pin)
    return find_token(library, config).serial.decode("ascii", "replace")


def _set_pin(library: Library, cryptoki: Cryptoki, config: TokenConfig, so_pin: SecretBytes, pin: SecretBytes) -> None:
    session: Any = find_token(library, config).open(rw=True)
    try:
        with so_pin.reveal() as officer, pin.reveal() as user:
            cryptoki.login(session.handle, officer, CKU_SO)
            cryptoki.init_pin(session.handle, user)
            cryptoki.logout(session.handle)
    finally:
        with suppress(exceptions.PKCS11Error):
            session.close()
