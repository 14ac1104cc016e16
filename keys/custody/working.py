"""Master keys at work in locked memory: what the custodies share whose masters the host can see, whole or from some level on.

`WorkingKeys` derives from masters that a function hands out; it keeps plans and the keys between master and card, and wipes them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from keys import diversify
from keys.algorithms import Algorithm, as_algorithm
from keys.custody import Derivation
from keys.custody.plan import Plan
from keys.custody.wrapping import WrapScheme, kek_algorithm
from keys.errors import Corrupt, Denied, InvalidInput
from keys.hierarchy import Domain, KeyState, Level, MasterKeyRecord, Purpose
from keys.kcv import DEFAULT_METHOD
from keys.secrets import BytesLike, SecretArray, SecretBytes

ByteArray = npt.NDArray[np.uint8]

DATA_KEY_LEN: Final = 32
_MAX_PLANS: Final = 64


class KeySpec(NamedTuple):
    """What a master key shall be."""

    key_id: str
    domain: Domain
    algorithm: Algorithm
    purpose: Purpose = Purpose.APPLICATION
    level: Level = Level.CITY


class Master(NamedTuple):
    """Which master a derivation descends from: id and version."""

    key_id: str
    version: int


class WorkingKeys:
    """Derivations in the host. Thread-safe; `forget` wipes what is held, and work may go on with fresh masters afterwards."""

    def __init__(self, first: Callable[[Derivation, Master], SecretBytes], *, start: int = 0) -> None:
        """`first` gives the key after the first `start` upper factors, 0 or 1: the master, or the first key below it."""
        self._first = first
        self._start = start
        self._upper: dict[tuple[Master, tuple[bytes, ...]], SecretBytes] = {}
        self._plans: dict[tuple[tuple[Derivation, Master], ...], Plan] = {}
        # the same by identity: a profile's hundred derivations are one tuple, and hashing them costs more than a card's keys
        self._same: dict[int, tuple[Sequence[Derivation], Plan]] = {}
        self._lock = threading.RLock()

    def derive(self, wanted: Sequence[tuple[Derivation, Master]], factors: Sequence[ByteArray]) -> SecretArray:
        """Card keys (k, n, 16); raises InvalidInput (WRONG_SHAPE, NO_ROWS)."""
        with self._lock:
            return self._plan(tuple(wanted)).run(factors)

    def derive_same(
        self, derivations: Sequence[Derivation], master: Callable[[Derivation], Master], factors: Sequence[ByteArray]
    ) -> SecretArray:
        """As `derive`. Which master each descends from is asked once for a tuple, until `forget`."""
        with self._lock:
            known = self._same.get(id(derivations))
            if known is None or known[0] is not derivations:
                known = derivations, self._plan(tuple((derivation, master(derivation)) for derivation in derivations))
                if isinstance(derivations, tuple):
                    self._same[id(derivations)] = known
            return known[1].run(factors)

    def _plan(self, key: tuple[tuple[Derivation, Master], ...]) -> Plan:
        plan = self._plans.get(key)
        if plan is None:
            masters = iter([self.upper_key(derivation, master) for derivation, master in key])
            plan = Plan([derivation for derivation, _ in key], lambda _: next(masters))
            if len(self._plans) >= _MAX_PLANS:
                self._same.clear()
                self._plans.pop(next(iter(self._plans))).close()
            self._plans[key] = plan
        return plan

    def upper_key(self, wanted: Derivation, master: Master) -> SecretBytes:
        """The master after the upper factors. Shared prefixes (same province, same city) are computed once."""
        with self._lock:
            return self._kept(wanted, master, len(wanted.upper_factors))

    def forget(self) -> None:
        """Wipes every key between master and card."""
        with self._lock:
            for plan in self._plans.values():
                plan.close()
            for secret in self._upper.values():
                secret.close()
            self._plans.clear()
            self._same.clear()
            self._upper.clear()

    def _kept(self, wanted: Derivation, master: Master, depth: int) -> SecretBytes:
        if depth == 0:
            return self._first(wanted, master)
        at = (master, wanted.upper_factors[:depth])
        if at not in self._upper:
            if depth == self._start:
                self._upper[at] = self._first(wanted, master)
            else:
                above = self._kept(wanted, master, depth - 1)
                made = diversify.pboc(wanted.algorithm, above.reveal(), wanted.upper_factors[depth - 1], wanted.parity, allow_weak=True)
                self._upper[at] = SecretBytes(made.data.cast("B"))
                made[...] = 0
        return self._upper[at]


def new_record(spec: KeySpec, *, version: int, state: KeyState, origin: str, test: bool) -> MasterKeyRecord:
    """The record of a key that is about to enter a custody; its check value is still to come."""
    algorithm = as_algorithm(spec.algorithm)
    return MasterKeyRecord(
        key_id=spec.key_id,
        domain=Domain(spec.domain),
        purpose=Purpose(spec.purpose),
        algorithm=algorithm,
        level=Level(spec.level),
        version=version,
        state=state,
        kcv="",
        kcv_method=DEFAULT_METHOD[algorithm],
        origin=origin,
        test=test,
    )


def require_master(record: MasterKeyRecord, wanted: Derivation) -> None:
    """Raises Precondition KEY_NOT_ACTIVE, InvalidInput KEY_ALGORITHM, Denied KEY_PURPOSE unless the key derives what is wanted."""
    record.require_active()
    if record.algorithm != wanted.algorithm:
        raise InvalidInput("KEY_ALGORITHM", f"key {wanted.key_id} is a {record.algorithm} key, not {wanted.algorithm}")
    if record.purpose is Purpose.KEY_ENCRYPTION:
        raise Denied("KEY_PURPOSE", f"key {wanted.key_id} wraps keys; nothing is derived from it")


def require_kek(record: MasterKeyRecord, scheme: WrapScheme, algorithm: Algorithm) -> None:
    """Raises Precondition KEY_NOT_ACTIVE, Denied KEY_PURPOSE, InvalidInput KEK_ALGORITHM unless the key wraps such keys by that scheme."""
    record.require_active()
    if record.purpose is not Purpose.KEY_ENCRYPTION:
        raise Denied("KEY_PURPOSE", f"key {record.key_id} is a {record.purpose} master; keys leave only under a key-encryption key")
    if record.algorithm != kek_algorithm(scheme, algorithm):
        message = f"{scheme} of {algorithm} keys needs another key-encryption key than {record.key_id}, a {record.algorithm} key"
        raise InvalidInput("KEK_ALGORITHM", message)


def current_records(records: Iterable[MasterKeyRecord]) -> dict[str, MasterKeyRecord]:
    """By key id the record that derives: the newest active version, else the newest."""
    chosen: dict[str, MasterKeyRecord] = {}
    for record in sorted(records, key=lambda record: (record.key_id, record.version)):
        known = chosen.get(record.key_id)
        if known is None or known.state is not KeyState.ACTIVE or record.state is KeyState.ACTIVE:
            chosen[record.key_id] = record
    return chosen


def wrap_data_key(kek: SecretBytes, data_key: BytesLike) -> bytes:
    """AES-KW (RFC 3394) of a 32-byte data key, 40 bytes; `kek` is wiped. Raises InvalidInput DATA_KEY_LENGTH."""
    with kek:
        if len(data_key) != DATA_KEY_LEN:
            raise InvalidInput("DATA_KEY_LENGTH", f"a data key has {DATA_KEY_LEN} bytes, not {len(data_key)}")
        return aes_key_wrap(bytes(kek.reveal()), bytes(data_key))


def unwrap_data_key(kek: SecretBytes, wrapped: BytesLike) -> SecretBytes:
    """The data key; `kek` is wiped. Raises Corrupt DATA_KEY_CORRUPT."""
    with kek:
        try:
            return SecretBytes(aes_key_unwrap(bytes(kek.reveal()), bytes(wrapped)))
        except InvalidUnwrap:
            raise Corrupt("DATA_KEY_CORRUPT", "a data key was not wrapped by this custody or was changed since") from None
