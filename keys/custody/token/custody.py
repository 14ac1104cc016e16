"""The token custody: master keys as objects of a PKCS#11 token that cannot be read, behind the interface of `keys.custody.Custody`.

Each key has its policy. `host-clear`: the token encrypts, card keys and the keys between master and card appear in locked memory of the
host. `token-only`: card keys are derived and wrapped in the token; `derive` refuses. Records and policies live in the token, and so does
a root secret of which data keys and HMAC keys are made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from keys.algorithms import Algorithm
from keys.custody import Custody, Derivation
from keys.custody.plan import check_factors
from keys.custody.policy import today
from keys.custody.token import cardkeys, hostclear, inside, objects, root, secondway
from keys.custody.token.cardkeys import CardKey, Held
from keys.custody.token.channel import ChannelKeys
from keys.custody.token.keyring import Keyring
from keys.custody.token.records import Entry
from keys.custody.token.session import Live, TokenConfig
from keys.custody.working import (
    Master,
    WorkingKeys,
    unwrap_data_key,
    wrap_data_key,
)
from keys.custody.wrapping import WrapScheme
from keys.errors import Corrupt, Denied
from keys.kcv import kcv_array
from keys.secrets import BytesLike, SecretArray, SecretBytes

ByteArray = npt.NDArray[np.uint8]
TokenScheme = WrapScheme | Literal["aes-kwp"]

# Clear keys in hand while they are wrapped: they stay in a core's cache.
_WRAP_ROWS: Final = 4096


@runtime_checkable
class HoldsInside(Protocol):
    """A custody of which some keys may be token-only."""

    def inside(self, key_id: str) -> TokenCustody | None:
        """The token that keeps the card keys of this master to itself; None when they are given out. Raises NotFound KEY_UNKNOWN."""


def holder_of(custody: Custody, key_id: str) -> TokenCustody | None:
    """`HoldsInside.inside` of any custody: None where nothing is token-only."""
    return custody.inside(key_id) if isinstance(custody, HoldsInside) else None


class TokenCustody(Keyring):
    """See `keys.custody.Custody`. Thread-safe."""

    def __init__(self, config: TokenConfig, pin: SecretBytes, clock: Callable[[], date] = today) -> None:
        """Use `create` or `open`. Takes the PIN over."""
        super().__init__(config, pin, clock)
        self._working = WorkingKeys(self._first_level, start=1)

    def derive(self, derivations: Sequence[Derivation], factors: Sequence[ByteArray]) -> SecretArray:
        """Card keys (k, n, 16); see `keys.custody.Custody.derive`. Raises Denied TOKEN_ONLY for a key whose card keys stay in the token."""
        masters = [self._usable(derivation) for derivation in derivations]
        for master in masters:
            if master.policy.custody == "token-only":
                message = f"card keys of key {master.record.key_id} never leave the token in clear; they are given out wrapped only"
                raise Denied("TOKEN_ONLY", message)
        n = check_factors(derivations, factors)
        result = SecretArray.empty((len(derivations), n, 16))
        direct = [at for at, derivation in enumerate(derivations) if not derivation.upper_factors]
        chained = [at for at, derivation in enumerate(derivations) if derivation.upper_factors]
        if chained:
            if self._stale:
                self._stale = False
                self._forget()
            wanted = [(derivations[at], Master(*masters[at].place)) for at in chained]
            with self._working.derive(wanted, [factors[at] for at in chained]) as made:
                result.array[chained] = made.array
        for first in range(0, n, hostclear.CHUNK) if direct else ():
            part = slice(first, first + hostclear.CHUNK)
            for group in _groups(direct, min(n, hostclear.CHUNK)):
                lot = _Lot(group, derivations, masters, factors, part, result.array)
                self._session.run(lot.work)
        return result

    def derive_wrapped(
        self,
        derivations: Sequence[Derivation],
        factors: Sequence[ByteArray],
        keks: Sequence[str],
        scheme: str,
        cryptograms: ByteArray,
        kcvs: ByteArray,
    ) -> None:
        """See `keys.custody.Custody.derive_wrapped`; `scheme` may be aes-kwp (RFC 5649) as well.

        That nothing else is derived from a token-only master is kept by this program, not by the token, unless it has derive templates
        (see `keys.custody.token.inside`).

        Raises Denied KEY_POLICY for a token-only master under a KEK that is not, Unsupported TOKEN_WRAP.
        """
        n = check_factors(derivations, factors)
        for at, (derivation, kek) in enumerate(zip(derivations, keks, strict=True)):
            master, over = self._usable(derivation), self._kek(kek, scheme, derivation.algorithm)
            if master.policy.custody == "token-only":
                self._inside(derivation, master, over, scheme, factors[at], cryptograms[at], kcvs[at])
                continue
            for first in range(0, n, _WRAP_ROWS):
                part = slice(first, first + _WRAP_ROWS)
                with self.derive([derivation], [factors[at][part]]) as keys:
                    kcvs[at, part] = kcv_array(derivation.algorithm, keys.array[0])
                    self.wrap_keys(kek, scheme, derivation.algorithm, keys.array[0], cryptograms[at, part])

    def wrap_keys(self, kek: str, scheme: str, algorithm: Algorithm, clear: ByteArray, cryptograms: ByteArray) -> None:
        """Card keys (n, 16) from locked memory under a KEK of this token, into `cryptograms` (n, 16 or 24). Raises as `derive_wrapped`."""
        over = self._kek(kek, scheme, algorithm)
        target = np.ascontiguousarray(cryptograms)

        def work(live: Live, rows: slice) -> None:
            handle = live.handle(over.record.key_id, objects.ident(over.record.version))
            wrap = hostclear.wrap if over.policy.custody == "host-clear" else inside.wrap_clear
            wrap(live, handle, scheme, algorithm, clear[rows], target[rows])

        step = _WRAP_ROWS if over.policy.custody == "host-clear" else inside.CHUNK
        for first in range(0, len(clear), step):
            self._session.run(partial(work, rows=slice(first, first + step)))
        if target is not cryptograms:
            cryptograms[...] = target

    def witness(self, derivation: Derivation, factor: BytesLike) -> SecretBytes:
        """See `keys.custody.Custody.witness`: python-pkcs11 asks the token, and the formulas are those of `keys.witness`."""
        master = self._usable(derivation)
        if master.policy.custody == "token-only":
            raise Denied("TOKEN_ONLY", f"card keys of key {master.record.key_id} never leave the token in clear, not even for the witness")
        return self._session.run(lambda live: secondway.card_key(live, master.record, derivation, factor))

    def witness_wrapped(self, derivation: Derivation, factor: BytesLike, kek: str, scheme: str) -> tuple[bytes, bytes]:
        """See `keys.custody.Custody.witness_wrapped`."""
        master, over = self._usable(derivation), self._kek(kek, scheme, derivation.algorithm)
        return self._session.run(lambda live: secondway.wrapped(live, master, derivation, factor, over, scheme))

    def prove_inside(self, derivation: Derivation, factors: ByteArray) -> None:
        """Card keys of a token-only master, factors (n, f), made twice: the usual way, and by the witness's formulas and calls.

        Both are compared as cryptograms under a key of the moment that never leaves the token, and by their check values. Raises Corrupt
        DERIVATION_WITNESS, and as `channel`.
        """
        held, n = self._inside_only(derivation), check_factors([derivation], [factors])

        def work(live: Live) -> bool:
            handle = live.handle(held.record.key_id, objects.ident(held.record.version))
            cryptograms, kcvs = np.empty((n, 24), np.uint8), np.empty((n, 3), np.uint8)
            kek = secondway.passing_kek(live)
            try:
                inside.derive_wrapped(live, handle, derivation, np.ascontiguousarray(factors), kek.handle, "aes-kw", cryptograms, kcvs)
                again = [secondway.inside(live, held, derivation, factor.tobytes(), kek, "aes-kw") for factor in factors]
            finally:
                kek.destroy()
            return [(cryptograms[row].tobytes(), kcvs[row].tobytes()) for row in range(n)] == again

        if not self._session.run(work):
            raise Corrupt("DERIVATION_WITNESS", f"key {derivation.key_id}: the token and the derivation witness disagree; no card is made")

    def inside(self, key_id: str) -> TokenCustody | None:
        """See `HoldsInside`."""
        return self if self.policy(key_id).custody == "token-only" else None

    def channel(self, key_id: str, kdd: bytes, host_challenge: bytes, card_challenge: bytes) -> ChannelKeys:
        """The keys of one SCP03 channel in the token (see `keys.custody.token.channel`), from a token-only channel master.

        Raises as `derive_wrapped`, Denied KEY_POLICY for a master that is not token-only.
        """
        return ChannelKeys(self._session, self._inside_only, key_id, kdd, host_challenge + card_challenge)

    def card_ecb(self, key: CardKey, blocks: bytes) -> bytes:
        """Whole blocks encrypted one by one under a card key, in the token. Raises as `channel`."""
        held = Held(key, self._inside_only(key.derivation))
        return self._session.run(lambda live: cardkeys.ecb(live, held, blocks))

    def card_session_cbc_mac(self, key: CardKey, seed: bytes, blocks: bytes) -> bytes:
        """See `keys.custody.token.cardkeys.session_cbc_mac`. Raises as `channel`."""
        held = Held(key, self._inside_only(key.derivation))
        return self._session.run(lambda live: cardkeys.session_cbc_mac(live, held, seed, blocks))

    def wrap_data_key(self, data_key: BytesLike) -> bytes:
        """AES-KW (RFC 3394) of a 32-byte data key, 40 bytes. Raises InvalidInput DATA_KEY_LENGTH."""
        return wrap_data_key(self._subkey("data-keys"), data_key)

    def unwrap_data_key(self, wrapped: BytesLike) -> SecretBytes:
        """The data key. Raises Corrupt DATA_KEY_CORRUPT."""
        return unwrap_data_key(self._subkey("data-keys"), wrapped)

    def hmac_key(self, purpose: str) -> SecretBytes:
        """32 bytes from the token's root and the purpose."""
        return self._subkey(f"hmac:{purpose}")

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._working.forget()

    def _inside_only(self, derivation: Derivation) -> Entry:
        found = self._usable(derivation)
        if found.policy.custody != "token-only":
            message = f"key {derivation.key_id} is {found.policy.custody}: on a card that is made in the token every master is token-only"
            raise Denied("KEY_POLICY", message)
        return found

    def _subkey(self, label: str) -> SecretBytes:
        return self._session.run(lambda live: root.subkey(live, label))

    def _first_level(self, derivation: Derivation, master: Master) -> SecretBytes:
        """The key after the first upper factor, made by the token."""

        def work(live: Live) -> SecretBytes:
            handle = live.handle(master.key_id, objects.ident(master.version))
            factor = np.frombuffer(derivation.upper_factors[0], np.uint8).reshape(1, 8)
            with SecretArray.empty((1, 16)) as made:
                hostclear.derive(live, handle, derivation, factor, made.array)
                return made.secret(0)

        return self._session.run(work)

    def _inside(
        self,
        derivation: Derivation,
        master: Entry,
        kek: Entry,
        scheme: str,
        factors: ByteArray,
        cryptograms: ByteArray,
        kcvs: ByteArray,
    ) -> None:
        if kek.policy.custody != "token-only":
            message = f"key {master.record.key_id} is token-only: its card keys go under a token-only key-encryption key"
            raise Denied("KEY_POLICY", message)
        target = np.ascontiguousarray(cryptograms)

        def work(live: Live, rows: slice) -> None:
            handle = live.handle(master.record.key_id, objects.ident(master.record.version))
            over = live.handle(kek.record.key_id, objects.ident(kek.record.version))
            inside.derive_wrapped(live, handle, derivation, factors[rows], over, scheme, target[rows], kcvs[rows])

        for first in range(0, len(factors), inside.CHUNK):
            self._session.run(partial(work, rows=slice(first, first + inside.CHUNK)))
        if target is not cryptograms:
            cryptograms[...] = target


class _Lot(NamedTuple):
    """Derivations from masters themselves, for some of the cards: one piece of work on the PKCS#11 thread."""

    places: list[int]
    derivations: Sequence[Derivation]
    masters: list[Entry]
    factors: Sequence[ByteArray]
    rows: slice
    result: ByteArray

    def work(self, live: Live) -> None:
        for at in self.places:
            record = self.masters[at].record
            handle = live.handle(record.key_id, objects.ident(record.version))
            hostclear.derive(live, handle, self.derivations[at], self.factors[at][self.rows], self.result[at, self.rows])


def _groups(places: list[int], rows: int) -> list[list[int]]:
    """Derivations that one piece of work on the PKCS#11 thread does: all of them for a card, one at a time for thousands."""
    size = max(1, hostclear.CHUNK // max(1, rows))
    return [places[at : at + size] for at in range(0, len(places), size)]
