"""The keys of one data directory as one custody, sealed or open: what a server works with, whatever holds them.

A room begins sealed. `unseal` opens what `custody.toml` names: the software store by its passphrase; the token by its PIN, and with it
the store sealed under a key of the token; a store under the custodians' key by that key. Until then every key operation raises
Precondition SEALED; after `zeroize` each raises Precondition ZEROIZED for as long as the process lives.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from engine.production.keysetup import Mode, Setup, read_setup
from keys.custody import Custody, Derivation
from keys.custody.composite import CompositeCustody, Part
from keys.custody.policy import KeyEntry, KeyPolicy, entry, today
from keys.custody.sealed import RebuiltKey, SealedCustody, SealState
from keys.custody.sealedstore import FILE_NAME as SEALED_FILE
from keys.custody.software import SoftwareCustody
from keys.custody.token import TokenCustody, TokenSealer, TokenState
from keys.custody.token.custody import holder_of
from keys.errors import CitycardError, InvalidInput, Precondition
from keys.hierarchy import MasterKeyRecord
from keys.secrets import BytesLike, SecretArray, SecretBytes

ByteArray = npt.NDArray[np.uint8]


class KeyRoom:
    """See `keys.custody.Custody`. Thread-safe."""

    def __init__(self, data: Path, *, mode: Mode) -> None:
        """Sealed. Raises InvalidInput CUSTODY_SETUP, and what opening the file of a sealed store raises."""
        self.setup: Setup = read_setup(data)
        self._data = data
        self._mode = mode
        self._lock = threading.RLock()
        self._zeroized = False
        self._open: Custody | None = None
        self._subkeys: dict[str, SecretBytes] = {}
        self._software: SoftwareCustody | None = None
        self._token: TokenCustody | None = None
        self._sealed = SealedCustody.open(data, mode=mode) if self._has_sealed_store(data) else None

    def _has_sealed_store(self, data: Path) -> bool:
        return self.setup.custody == "sealed" or (self.setup.custody == "token" and (data / SEALED_FILE).exists())

    # -- open and shut ---------------------------------------------------------------------------------------------------

    @property
    def needs(self) -> tuple[str, ...]:
        """What `unseal` asks for: "passphrase", "pin", "store-key"."""
        if self.setup.custody == "software":
            return ("passphrase",)
        wanted = ("pin",) if self.setup.custody == "token" else ()
        return (*wanted, "store-key") if self._needs_store_key else wanted

    @property
    def _needs_store_key(self) -> bool:
        return self._sealed is not None and not self._sealed.sealed_by.startswith("token ")

    def unseal(self, secret: SecretBytes | None = None, store_key: SecretBytes | None = None) -> None:
        """Opens the keys; takes both secrets over. `secret` is the passphrase or the PIN, `store_key` what custodians rebuilt.

        In an open room it is a new PIN, for a token that refused the old one. Raises Precondition ZEROIZED, InvalidInput
        UNSEAL_MISSING, and what opening the custody raises: then the room is sealed as before.
        """
        try:
            with self._lock:
                self._require_not_zeroized()
                given = {"passphrase": secret, "pin": secret, "store-key": store_key}
                missing = [name for name in self.needs if given[name] is None]
                if self._open is not None:
                    # a token that works is left alone, whatever PIN somebody has in mind
                    if self._token is not None and self._token.state is not TokenState.READY and secret is not None:
                        self._token.enter_pin(SecretBytes(secret.reveal()))
                elif missing:
                    raise InvalidInput("UNSEAL_MISSING", f"to open these keys the {' and the '.join(missing)} must be given")
                else:
                    self._enter(secret, store_key)
        finally:
            for given_secret in (secret, store_key):
                if given_secret is not None:
                    given_secret.close()

    def _enter(self, secret: SecretBytes | None, store_key: SecretBytes | None) -> None:
        try:
            if self.setup.custody == "software" and secret is not None:
                with secret.reveal() as raw:
                    passphrase = str(raw, "utf-8", "replace")
                self._open = self._software = SoftwareCustody.open(self._data, passphrase, mode=self._mode)
                return
            parts: list[Part] = []
            if self.setup.custody == "token" and secret is not None:
                self._token = TokenCustody.open(self.setup.token(), SecretBytes(secret.reveal()), mode=self._mode)
                parts.append(self._token)
            if self._sealed is not None:
                if self._needs_store_key and store_key is not None:
                    self._sealed.unseal(RebuiltKey(store_key))
                elif self._token is not None:
                    self._sealed.unseal(TokenSealer(self._token.session))
                parts.append(self._sealed)
            self._open = CompositeCustody(parts)
        except BaseException:
            self._leave()
            raise

    def _forget(self) -> None:
        for subkey in self._subkeys.values():
            subkey.close()
        self._subkeys.clear()

    def seal(self) -> None:
        """Wipes every key in memory and logs out; `unseal` brings them back. Raises Precondition ZEROIZED."""
        with self._lock:
            self._require_not_zeroized()
            self._leave()

    def _leave(self) -> None:
        self._open = None
        self._forget()
        for part in (self._sealed, self._token, self._software):
            if part is not None:
                part.close()
        self._token = self._software = None

    def zeroize(self) -> None:
        """Wipes every key in memory, logs out and refuses everything for good. May be called twice, and while the token is gone."""
        self._zeroized = True  # before the lock: what waits for it must not begin afterwards
        with self._lock:
            for part in (self._sealed, self._token):
                if part is not None:
                    with suppress(CitycardError):  # what cannot be told is gone; the next part must be wiped whatever happens here
                        part.zeroize()
            if self._software is not None:
                self._software.close()
            self._forget()
            self._open = None

    def close(self) -> None:
        """Wipes every key in memory."""
        with self._lock:
            self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"KeyRoom({str(self._data)!r}, {self.setup.custody}, {self.state})"

    # -- looking ---------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> SealState:
        """Sealed, unsealed or zeroized."""
        if self._zeroized:
            return SealState.ZEROIZED
        return SealState.SEALED if self._open is None else SealState.UNSEALED

    @property
    def test(self) -> bool:
        """Whether these are TEST keys. Raises Precondition SEALED, ZEROIZED."""
        self._held()
        return any(part.test for part in (self._sealed, self._token, self._software) if part is not None)

    def parts(self) -> list[dict[str, str]]:
        """Each custody with its state, for people; asks no token."""
        found: list[dict[str, str]] = []
        if self.setup.custody == "software":
            found.append({"custody": "software", "state": str(self.state)})
        if self.setup.custody == "token":
            state = TokenState.CLOSED if self._token is None else self._token.state
            found.append({"custody": "token", "label": self.setup.label, "state": str(TokenState.ZEROIZED if self._zeroized else state)})
        if self._sealed is not None:
            state_of_store = SealState.ZEROIZED if self._zeroized else self._sealed.state
            found.append({"custody": "sealed", "sealed_by": self._sealed.sealed_by, "state": str(state_of_store)})
        return found

    def entries(self) -> list[KeyEntry]:
        """All records with their policies and warnings. Raises Precondition SEALED, ZEROIZED."""
        held = self._held()
        if isinstance(held, CompositeCustody):
            return held.entries()
        day = today()
        return [entry(record, KeyPolicy(custody="software"), day) for record in held.inventory()]

    # -- the custody -----------------------------------------------------------------------------------------------------

    def inventory(self) -> list[MasterKeyRecord]:
        """See `keys.custody.Custody.inventory`."""
        return self._held().inventory()

    def record(self, key_id: str) -> MasterKeyRecord:
        """See `keys.custody.Custody.record`."""
        return self._held().record(key_id)

    def inside(self, key_id: str) -> TokenCustody | None:
        """See `keys.custody.token.custody.HoldsInside`."""
        return holder_of(self._held(), key_id)

    def derive(self, derivations: Sequence[Derivation], factors: Sequence[ByteArray]) -> SecretArray:
        """See `keys.custody.Custody.derive`."""
        return self._held().derive(derivations, factors)

    def derive_wrapped(
        self,
        derivations: Sequence[Derivation],
        factors: Sequence[ByteArray],
        keks: Sequence[str],
        scheme: str,
        cryptograms: ByteArray,
        kcvs: ByteArray,
    ) -> None:
        """See `keys.custody.Custody.derive_wrapped`."""
        self._held().derive_wrapped(derivations, factors, keks, scheme, cryptograms, kcvs)

    def witness(self, derivation: Derivation, factor: BytesLike) -> SecretBytes:
        """See `keys.custody.Custody.witness`."""
        return self._held().witness(derivation, factor)

    def witness_wrapped(self, derivation: Derivation, factor: BytesLike, kek: str, scheme: str) -> tuple[bytes, bytes]:
        """See `keys.custody.Custody.witness_wrapped`."""
        return self._held().witness_wrapped(derivation, factor, kek, scheme)

    def wrap_data_key(self, data_key: BytesLike) -> bytes:
        """See `keys.custody.Custody.wrap_data_key`."""
        return self._held().wrap_data_key(data_key)

    def unwrap_data_key(self, wrapped: BytesLike) -> SecretBytes:
        """See `keys.custody.Custody.unwrap_data_key`."""
        return self._held().unwrap_data_key(wrapped)

    def hmac_key(self, purpose: str) -> SecretBytes:
        """See `keys.custody.Custody.hmac_key`."""
        # asked for every card, and the same until the room is sealed
        held = self._held()
        known = self._subkeys.get(purpose)
        if known is None:
            known = held.hmac_key(purpose)
            with self._lock:
                if self._open is held:
                    self._subkeys[purpose] = known
        return SecretBytes(known.reveal())

    def _held(self) -> Custody:
        self._require_not_zeroized()
        held = self._open
        if held is None:
            raise Precondition("SEALED", "the keys of this server are sealed: `citycard keys unseal` opens them")
        return held

    def _require_not_zeroized(self) -> None:
        if self._zeroized:
            raise Precondition("ZEROIZED", "the keys of this server were zeroized: start it anew")
