"""A logged-in session with one token, and how it comes back after a fault.

The state is always one of `TokenState`. A lost token (pulled out, files gone or restored, module restarted, sessions closed) is tried
again at every operation: the module is initialized anew, the session opened, the known answers checked, every handle found again. A
refused PIN is never tried again by itself, because tokens lock after a few.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, cast

import pkcs11
from pkcs11 import Attribute, ObjectClass, exceptions

from keys.custody.token import faults, selftest, worker
from keys.custody.token.cryptoki import Cryptoki
from keys.errors import CitycardError, NotFound, Precondition, Unavailable
from keys.secrets import SecretBytes

T = TypeVar("T")
# python-pkcs11 makes the class of a loaded module at run time.
Library = Any


class TokenState(StrEnum):
    """What can be said of a token now."""

    READY = "ready"
    GONE = "gone"
    PIN_WRONG = "pin-wrong"
    PIN_LOCKED = "pin-locked"
    CLOSED = "closed"
    ZEROIZED = "zeroized"


@dataclass(frozen=True)
class TokenConfig:
    """Which token: the path of any vendor's PKCS#11 module, the token's label, and its serial number where labels are not unique."""

    module: Path
    label: str
    serial: str | None = None


@dataclass
class _Module:
    """A loaded module. `generation` counts its initializations: handles of an earlier one mean something else now."""

    cryptoki: Cryptoki
    generation: int = 0


@dataclass
class Live:
    """An open session. `handles` are the secret keys of the token by label and id, found once: a search takes milliseconds."""

    cryptoki: Cryptoki
    session: int
    python: pkcs11.Session
    generation: int
    handles: dict[tuple[str, bytes], int] = field(default_factory=dict)
    secrets: dict[object, SecretBytes] = field(default_factory=dict)
    """Values of the session that are worth keeping, in locked memory; gone with it."""
    chains: dict[object, int] = field(default_factory=dict)
    """Session objects: masters after their upper factors."""

    def handle(self, label: str, key_id: bytes = b"") -> int:
        """The handle of a secret key; raises NotFound TOKEN_KEY_MISSING."""
        found = self.handles.get((label, key_id))
        if found is None:
            raise NotFound("TOKEN_KEY_MISSING", f"the token has a record of key {label} but not the key itself")
        return found

    def answers(self) -> bool:
        """Whether the session is alive and the keys are where they were."""
        if not self.cryptoki.session_alive(self.session):
            return False
        kind = ctypes.c_ulong()
        try:
            for handle in itertools.islice(self.handles.values(), 1):
                self.cryptoki.read(self.session, handle, Attribute.CLASS, ctypes.addressof(kind), ctypes.sizeof(kind))
        except exceptions.PKCS11Error:
            return False
        return True

    def forget(self) -> None:
        """Wipes what is kept; the handles mean nothing afterwards."""
        for secret in self.secrets.values():
            secret.close()
        self.secrets.clear()
        self.handles.clear()
        self.chains.clear()


_modules: dict[Path, _Module] = {}


class TokenSession:
    """All access to one token. Thread-safe: everything happens on the PKCS#11 thread."""

    def __init__(self, config: TokenConfig, pin: SecretBytes, on_connect: Callable[[Live], None] | None = None) -> None:
        """Takes the PIN over. `on_connect` runs after every log-in, on the PKCS#11 thread."""
        self.config = config
        self._pin = pin
        self._on_connect = on_connect
        self._live: Live | None = None
        self.state = TokenState.CLOSED

    def __repr__(self) -> str:
        return f"TokenSession({self.config.label!r}, {self.state})"

    def open(self) -> None:
        """Logs in. Raises Denied TOKEN_PIN_WRONG, TOKEN_PIN_LOCKED; Unavailable TOKEN_GONE, TOKEN_AMBIGUOUS, TOKEN_MODULE."""
        worker.run(lambda: self._connect(anew=True))

    def enter_pin(self, pin: SecretBytes) -> None:
        """Logs in with another PIN, which is kept; raises as `open`, Precondition ZEROIZED."""
        self._require_not_zeroized()
        self._pin.close()
        self._pin = pin
        # anew: a module may not see otherwise that the officer set the PIN in another process
        worker.run(lambda: self._connect(anew=True))

    def run(self, work: Callable[[Live], T], *, storing: bool = False) -> T:
        """`work` with an open session. After a fault that connecting anew may mend, it connects and runs `work` once more.

        Raises what `work` raises, the errors of `faults.as_error`, Precondition ZEROIZED, TOKEN_CLOSED.
        """
        return worker.run(lambda: self._run(work, storing))

    def discard(self, live: Live, handles: Sequence[int]) -> None:
        """Destroys session objects of `live`. In any other session their handles would be somebody else's: then nothing is done."""
        worker.run(lambda: self._discard(live, handles))

    def close(self) -> None:
        """Logs out and wipes the PIN. May be called twice."""
        if self.state is not TokenState.ZEROIZED:
            worker.run(self._leave)
            self.state = TokenState.CLOSED
        self._pin.close()

    def zeroize(self) -> None:
        """Wipes PIN and cached secrets, logs out, and refuses everything afterwards, also when the token is gone."""
        self.state = TokenState.ZEROIZED
        self._pin.close()
        worker.run(self._log_out)

    # -- on the PKCS#11 thread -------------------------------------------------------------------------------------------

    def _run(self, work: Callable[[Live], T], storing: bool) -> T:
        live = self._usable()
        try:
            return work(live)
        except exceptions.PKCS11Error as error:
            # a token without room must not be logged in to anew: SoftHSM rewrites its files then, and loses what it cannot write
            if not faults.lost(error) or (storing and live.answers()):
                raise faults.as_error(error, self.config.label, storing=storing) from None
        live = self._connect(anew=True)
        try:
            return work(live)
        except exceptions.PKCS11Error as error:
            raise faults.as_error(error, self.config.label, storing=storing) from None

    def _discard(self, live: Live, handles: Sequence[int]) -> None:
        if live is self._live and live.generation == _modules[self.config.module].generation:
            with suppress(exceptions.PKCS11Error):  # with a session that is gone its objects are gone
                for handle in handles:
                    live.cryptoki.destroy(live.session, handle)

    def _usable(self) -> Live:
        self._require_not_zeroized()
        if self.state is TokenState.CLOSED:
            raise Precondition("TOKEN_CLOSED", f"token {self.config.label} is not open")
        if self.state is TokenState.PIN_LOCKED:
            raise faults.as_error(exceptions.PinLocked(), self.config.label)
        if self.state is TokenState.PIN_WRONG:
            raise faults.as_error(exceptions.PinIncorrect(), self.config.label)
        live = self._live
        if live is not None and live.generation == _modules[self.config.module].generation:
            return live
        return self._connect(anew=live is None)

    def _require_not_zeroized(self) -> None:
        if self.state is TokenState.ZEROIZED:
            raise Precondition("ZEROIZED", f"the keys of token {self.config.label} were zeroized in this process; start it anew")

    def _connect(self, *, anew: bool) -> Live:
        self._leave()
        try:
            live = self._log_in(anew)
            self._live = live
            selftest.require_known_answers(live.cryptoki, live.session)
            for key in live.python.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.TOKEN: True}):
                live.handles[key[Attribute.LABEL], key[Attribute.ID]] = key.handle or 0
            if self._on_connect is not None:
                self._on_connect(live)
        except exceptions.PKCS11Error as error:
            self._leave()
            refused = faults.as_error(error, self.config.label)
            self.state = _STATES.get(refused.reason, TokenState.GONE)
            raise refused from None
        except CitycardError:
            self._leave()
            self.state = TokenState.GONE
            raise
        self.state = TokenState.READY
        return live

    def _log_in(self, anew: bool) -> Live:
        config = self.config
        library, cryptoki = load(config.module)
        if anew:
            restart(library, config.module)
        python: Any = find_token(library, config).open(rw=True)
        live = Live(cryptoki, python.handle, python, _modules[config.module].generation)
        with self._pin.reveal() as pin:
            try:
                live.cryptoki.login(live.session, pin)
            except exceptions.UserAlreadyLoggedIn:
                # log-in is the application's, not the session's: another session of this process did it, with a PIN that was right
                return live
            except exceptions.PKCS11Error:
                python.close()
                raise
        return live

    def _log_out(self) -> None:
        """C_Logout is the application's: whoever else in this process uses the token is logged out with it."""
        live = self._live
        if live is not None and live.generation == _modules[self.config.module].generation:
            with suppress(exceptions.PKCS11Error):  # a token that is gone holds no log-in
                live.cryptoki.logout(live.session)
        self._leave()

    def _leave(self) -> None:
        live, self._live = self._live, None
        if live is None:
            return
        live.forget()
        if live.generation == _modules[self.config.module].generation:
            with suppress(exceptions.PKCS11Error):  # what cannot be closed is gone already
                live.python.close()


_STATES = {"TOKEN_PIN_WRONG": TokenState.PIN_WRONG, "TOKEN_PIN_LOCKED": TokenState.PIN_LOCKED}


def load(path: Path) -> tuple[Library, Cryptoki]:
    """The module, loaded and initialized, through both doors; raises Unavailable TOKEN_MODULE, PKCS11Error when it does not initialize."""
    if path not in _modules:
        try:
            _modules[path] = _Module(Cryptoki(str(path)))
        except (exceptions.PKCS11Error, OSError, AttributeError):
            raise Unavailable("TOKEN_MODULE", f"{path} cannot be loaded as a PKCS#11 module") from None
    return pkcs11.lib(str(path)), _modules[path].cryptoki


def restart(library: Library, path: Path) -> None:
    """C_Finalize and C_Initialize: the only way that makes a module look at its tokens anew. All sessions in it end."""
    _modules[path].generation += 1
    with suppress(exceptions.PKCS11Error):  # somebody finalized it before: what is wanted is that it begins anew
        library.finalize()
    library.initialize()


def find_token(library: Library, config: TokenConfig) -> pkcs11.Token:
    """The token of that label and serial number; raises NoSuchToken, MultipleTokensReturned."""
    found = [
        token
        for token in library.get_tokens(token_label=config.label)
        if config.serial is None or token.serial.decode("ascii", "replace") == config.serial
    ]
    if len(found) > 1:
        raise exceptions.MultipleTokensReturned
    if not found:
        raise exceptions.NoSuchToken
    return cast("pkcs11.Token", found[0])
