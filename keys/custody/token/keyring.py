"""The keys of a token: opening it, what is in it, and keys coming, changing and going. What they are used for is `TokenCustody`'s."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import date
from typing import Literal, Self

from keys.algorithms import Algorithm
from keys.custody import Derivation
from keys.custody.policy import KeyEntry, KeyPolicy, entry, today
from keys.custody.sealing import check_new_key, random_master
from keys.custody.token import objects, records, root
from keys.custody.token.records import Entry
from keys.custody.token.session import Live, TokenConfig, TokenSession, TokenState
from keys.custody.working import (
    KeySpec,
    new_record,
    require_kek,
    require_master,
)
from keys.custody.wrapping import as_scheme
from keys.errors import Conflict, Corrupt, InvalidInput, NotFound, Precondition
from keys.hierarchy import KeyState, MasterKeyRecord
from keys.kcv import kcv, verify_kcv
from keys.secrets import BytesLike, SecretBytes


class Keyring:
    """Records, policies and key objects of one token. Thread-safe; every call to the token runs on the PKCS#11 thread."""

    def __init__(self, config: TokenConfig, pin: SecretBytes, clock: Callable[[], date] = today) -> None:
        """Use `create` or `open`. Takes the PIN over."""
        self._session = TokenSession(config, pin, self._connected)
        self._clock = clock
        self._entries: dict[tuple[str, int], Entry] = {}
        self._current: dict[str, Entry] = {}
        self._mark = root.Mark(test=False)
        self._new = False
        # set after every log-in: what was made of the keys in the host is then made anew
        self._stale = False

    # -- life ------------------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, config: TokenConfig, pin: SecretBytes, *, test: bool, clock: Callable[[], date] = today) -> Self:
        """Makes an initialized token a key store: its root secret and its mark. Raises Conflict TOKEN_EXISTS, and as `open`."""
        custody = cls(config, pin, clock)
        custody._new = True
        try:
            custody._session.open()
            custody._mark = custody._session.run(lambda live: root.create(live, test=test), storing=True)
            custody._new = False
        except BaseException:
            custody.close()
            raise
        return custody

    @classmethod
    def open(
        cls, config: TokenConfig, pin: SecretBytes, *, mode: Literal["test", "production"] = "production", clock: Callable[[], date] = today
    ) -> Self:
        """Logs in and checks the keys. Takes the PIN over.

        Raises Denied TOKEN_PIN_WRONG, TOKEN_PIN_LOCKED; Unavailable TOKEN_GONE, TOKEN_AMBIGUOUS, TOKEN_MODULE; NotFound TOKEN_EMPTY;
        Corrupt SELF_TEST, TOKEN_KEY, TOKEN_RECORD; in production mode Precondition TEST_KEYS_REFUSED.
        """
        custody = cls(config, pin, clock)
        try:
            custody._session.open()
            custody._require_allowed(mode)
        except BaseException:
            custody.close()
            raise
        return custody

    def enter_pin(self, pin: SecretBytes) -> None:
        """Another PIN, after one was refused or changed; raises as `open`."""
        self._session.enter_pin(pin)

    def close(self) -> None:
        """Wipes what is held, logs out. May be called twice."""
        self._forget()
        self._session.close()

    def zeroize(self) -> None:
        """Wipes every secret this process holds of the token and logs out; every key operation afterwards raises Precondition ZEROIZED."""
        self._session.zeroize()
        self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        mark = ", TEST" if self.test else ""
        return f"{type(self).__name__}({self._session.config.label!r}, {len(self._entries)} keys, {self.state}{mark})"

    @property
    def state(self) -> TokenState:
        """What can be said of the token now, without asking it."""
        return self._session.state

    @property
    def test(self) -> bool:
        """Whether this token is for test keys."""
        return self._mark.test

    @property
    def session(self) -> TokenSession:
        """For what else lives in the same token (`root.TokenSealer`)."""
        return self._session

    # -- keys ------------------------------------------------------------------------------------------------------------

    def import_key(
        self,
        spec: KeySpec,
        key: BytesLike | SecretBytes,
        policy: KeyPolicy,
        *,
        origin: str = "imported",
        version: int = 1,
        state: KeyState = KeyState.ACTIVE,
        expected_kcv: bytes | None = None,
        allow_weak: bool = False,
    ) -> MasterKeyRecord:
        """Puts a 16-byte master into the token. Raises Conflict KEY_EXISTS, Denied KCV_MISMATCH, Exhausted TOKEN_FULL, Unsupported
        TOKEN_ALGORITHM, InvalidInput (KEY_ID, KEY_LENGTH, KEY_POLICY, KEY_VERSION, WEAK_KEY).
        """
        record = self._new_record(spec, policy, version, state, origin)
        with SecretBytes(key.reveal() if isinstance(key, SecretBytes) else key) as held:
            check_new_key(record, held, allow_weak=allow_weak)
            if expected_kcv is not None:
                verify_kcv(record.algorithm, held.reveal(), expected_kcv)
            record = replace(record, kcv=kcv(record.algorithm, held.reveal()).hex().upper())
            return self._store(record, policy, lambda live: objects.create(live, record, policy, held))

    def generate(self, spec: KeySpec, policy: KeyPolicy, *, version: int = 1, state: KeyState = KeyState.ACTIVE) -> MasterKeyRecord:
        """A new master, born in the token. Raises as `import_key`."""
        record = self._new_record(spec, policy, version, state, "generated")
        with random_master(record.algorithm) as stand_in:
            check_new_key(record, stand_in)
        return self._store(record, policy, lambda live: objects.generate(live, record, policy))

    def set_state(self, key_id: str, version: int, state: KeyState) -> MasterKeyRecord:
        """Moves one key on in its life; a destroyed key's object leaves the token. NotFound KEY_UNKNOWN, Precondition KEY_STATE."""
        known = self._entries.get((key_id, version))
        if known is None:
            raise NotFound("KEY_UNKNOWN", f"there is no key {key_id} version {version}")
        changed = replace(known, record=known.record.in_state(state))

        def work(live: Live) -> None:
            self._keep(records.write(live, changed))
            if state is KeyState.DESTROYED:
                objects.destroy(live, key_id, version)

        self._session.run(work, storing=True)
        self._forget()
        return changed.record

    def inventory(self) -> list[MasterKeyRecord]:
        """All records, by key id and version."""
        return [self._entries[place].record for place in sorted(self._entries)]

    def entries(self) -> list[KeyEntry]:
        """All records with their policies and warnings."""
        return [entry(e.record, e.policy, self._clock()) for _, e in sorted(self._entries.items())]

    def record(self, key_id: str) -> MasterKeyRecord:
        """The record `derive` would use: the newest active version, else the newest. Raises NotFound KEY_UNKNOWN."""
        return self._entry(key_id).record

    def policy(self, key_id: str) -> KeyPolicy:
        """The policy of that record. Raises NotFound KEY_UNKNOWN."""
        return self._entry(key_id).policy

    def _forget(self) -> None:
        """Wipes what was made of the keys in the host."""

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _require_allowed(self, mode: Literal["test", "production"]) -> None:
        if mode == "production" and self.test:
            raise Precondition("TEST_KEYS_REFUSED", "this token holds TEST keys; a production server does not use them")

    def _connected(self, live: Live) -> None:
        """After every log-in: what the token holds now is what counts, also when an older copy of it was put back."""
        if self._new:
            return
        self._mark = root.read(live)
        entries = records.read_all(live)
        for known in entries.values():
            if known.record.state is KeyState.DESTROYED:
                objects.destroy(live, known.record.key_id, known.record.version)
            else:
                objects.inspect(live, known.record, known.policy)
        self._entries, self._current = entries, records.current(entries)
        # not forgotten here: who derives holds its keys and may be waiting for this thread
        self._stale = True

    def _keep(self, changed: Entry) -> None:
        self._entries = self._entries | {changed.place: changed}
        self._current = records.current(self._entries)

    def _new_record(self, spec: KeySpec, policy: KeyPolicy, version: int, state: KeyState, origin: str) -> MasterKeyRecord:
        if policy.custody not in ("host-clear", "token-only"):
            raise InvalidInput("KEY_POLICY", f"key {spec.key_id}: a token holds keys as host-clear or token-only, not {policy.custody}")
        if (spec.key_id, version) in self._entries:
            raise Conflict("KEY_EXISTS", f"key {spec.key_id} version {version} exists; a master is never replaced")
        record = new_record(spec, version=version, state=state, origin=origin, test=self.test)
        objects.require_possible(record, policy)
        return record

    def _store(self, record: MasterKeyRecord, policy: KeyPolicy, make: Callable[[Live], None]) -> MasterKeyRecord:
        """The object first, its check value asked of the token, the record last: a key without a record is none."""

        def work(live: Live) -> MasterKeyRecord:
            objects.destroy(live, record.key_id, record.version)  # what an interrupted attempt left
            make(live)
            found = objects.check_value(live, record, policy).hex().upper()
            if record.kcv and record.kcv != found:
                objects.destroy(live, record.key_id, record.version)
                raise Corrupt("TOKEN_KEY", f"key {record.key_id} arrived in the token with another check value; it was removed")
            complete = replace(record, kcv=found)
            try:
                self._keep(records.write(live, Entry(complete, policy)))
            except BaseException:
                with suppress(Exception):  # the fault itself is what the caller must hear
                    objects.destroy(live, record.key_id, record.version)
                raise
            return complete

        return self._session.run(work, storing=True)

    def _entry(self, key_id: str) -> Entry:
        found = self._current.get(key_id)
        if found is None:
            raise NotFound("KEY_UNKNOWN", f"there is no key {key_id!r} in this token")
        return found

    def _usable(self, derivation: Derivation) -> Entry:
        self._require_open()
        found = self._entry(derivation.key_id)
        require_master(found.record, derivation)
        found.policy.require(derivation, self._clock())
        return found

    def _kek(self, key_id: str, scheme: str, algorithm: Algorithm) -> Entry:
        self._require_open()
        found = self._entry(key_id)
        require_kek(found.record, "aes-kw" if scheme == "aes-kwp" else as_scheme(scheme), algorithm)
        found.policy.require_day(key_id, self._clock())
        return found

    def _require_open(self) -> None:
        if self.state is TokenState.ZEROIZED:
            raise Precondition("ZEROIZED", "the keys of this process were zeroized; start it anew")
