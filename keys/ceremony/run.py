"""A ceremony from its plan to its record: started, paused, resumed, committed, aborted.

Everything lives in one directory: `plan.toml` as it was signed off, `record.jsonl`, and `pause/` while pieces wait. The record leads: an
entry is on disk before the next thing happens, and after a crash it says where to go on. A key appears in the vault whole or not at all,
pre-active until the ceremony closes; an aborted ceremony leaves none.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from keys.ceremony.custodians import RECORD_NAME, Holdings
from keys.ceremony.desk import Desk
from keys.ceremony.envelopes import EnvelopePrinter
from keys.ceremony.pieces import PieceStore, divide, new_key, put_together, require_kcv
from keys.ceremony.plan import MAKES_KEYS, OUTLET, STORE_KEY, Kind, Plan, PlannedKey, SchemeType
from keys.ceremony.planfile import require_plan
from keys.ceremony.record import Clock, RecordWriter, utc_now, write_durably
from keys.ceremony.sittings import Sittings
from keys.ceremony.vault import Vault
from keys.errors import CitycardError, Conflict, Denied, InvalidInput, NotFound, Precondition
from keys.hierarchy import KeyState, MasterKeyRecord
from keys.keyblock.handover import FORMAT, HandoverSet, handed, sign_set
from keys.secrets import SecretBytes

Mode = Literal["run", "rehearsal"]
PLAN_NAME: Final = "plan.toml"


class Ceremony:
    """One ceremony at work. Use `start` or `resume`; then `run`, or `abort`."""

    def __init__(
        self,
        plan: Plan,
        vault: Vault,
        desk: Desk,
        printer: EnvelopePrinter | None,
        directory: Path,
        record: RecordWriter,
        holdings: Holdings,
    ) -> None:
        self._plan = plan
        self._vault = vault
        self._desk = desk
        self._directory = directory
        self._record = record
        self.ceremony_id = str(record.entries[0]["ceremony"])
        self._origin = f"ceremony {self.ceremony_id}"
        self._store = PieceStore(directory / "pause", vault.clerk, self.ceremony_id, plan.kind)
        self._sittings = Sittings(plan, desk, printer, self._store, record, holdings)

    @classmethod
    def start(
        cls,
        plan: Plan,
        vault: Vault,
        desk: Desk,
        printer: EnvelopePrinter | None,
        ceremonies: Path,
        *,
        mode: Mode = "run",
        clock: Clock = utc_now,
    ) -> Ceremony:
        """A new ceremony in `ceremonies`/ID. Raises as `check_against_vault` and `check_against_history`; then nothing was begun."""
        holdings = Holdings.of_directory(ceremonies)
        check_against_vault(plan, vault)
        check_against_history(plan, holdings)
        ceremony_id = f"{plan.name}-{secrets.token_hex(4)}"
        directory = ceremonies / ceremony_id
        directory.mkdir(mode=0o700, parents=True)
        write_durably(directory / PLAN_NAME, plan.text.encode())
        record = RecordWriter.create(
            directory / RECORD_NAME,
            vault.clerk.public_key(),
            vault.clerk.sign,
            clock,
            ceremony=ceremony_id,
            mode=mode,
            kind=plan.kind,
            plan=plan.text,
            plan_sha256=plan.sha256,
            test=vault.clerk.test,
        )
        return cls(plan, vault, desk, printer, directory, record, holdings)

    @classmethod
    def resume(
        cls, directory: Path, vault: Vault, desk: Desk, printer: Callable[[Plan], EnvelopePrinter | None], *, clock: Clock = utc_now
    ) -> Ceremony:
        """A ceremony that was interrupted. Raises NotFound RECORD_MISSING, Corrupt RECORD_BAD, Denied (RECORD_KEY, PLAN_CHANGED),
        Precondition CEREMONY_ENDED.
        """
        record = RecordWriter.reopen(directory / RECORD_NAME, vault.clerk.public_key(), vault.clerk.sign, clock)
        if record.ended:
            raise Precondition("CEREMONY_ENDED", f"this ceremony was {record.entries[-1]['type']} at {record.entries[-1]['time']}")
        if (directory / PLAN_NAME).read_text() != record.entries[0]["plan"]:
            raise Denied("PLAN_CHANGED", f"{directory / PLAN_NAME} is not the plan this ceremony began with")
        plan = require_plan(record.entries[0]["plan"], str(directory / PLAN_NAME))
        holdings = Holdings.of_directory(directory.parent)
        record.add("resumed")
        return cls(plan, vault, desk, printer(plan), directory, record, holdings)

    def run(self) -> None:
        """To the end, or until it pauses: then the reason is raised again, and is in the record. Raises Precondition CEREMONY_PAUSED,
        Denied (ENTRY_ATTEMPTS, DUAL_CONTROL), and, after aborting itself, what made the key impossible.
        """
        with self._alone():
            self._say_what_this_is()
            try:
                if not any(self._record.of("committing")):
                    self._collect()
            except CitycardError as why:
                self._record.add("paused", reason=why.reason)
                raise
            self._commit()

    def _say_what_this_is(self) -> None:
        plan = self._plan
        self._desk.say(f"{plan.title}: {plan.kind}, custody {plan.custody}{', TEST keys' if self._vault.clerk.test else ''}")
        self._desk.say(f"ceremony {self.ceremony_id}")
        self._desk.say(f"plan SHA-256 {plan.sha256}: the same as on the plan that was signed off?")

    def abort(self, reason: str) -> None:
        """Ends it without a key. Raises Precondition CEREMONY_COMMITTED once something was done that cannot be taken back: resume then
        finishes it.
        """
        if any(self._record.of("committing")) and not self._revocable:
            raise Precondition("CEREMONY_COMMITTED", "it is already being carried out: resume it to finish")
        with self._alone():
            self._abort(reason)

    @property
    def ended(self) -> bool:
        """Whether it was closed or aborted."""
        return self._record.ended

    @property
    def _revocable(self) -> bool:
        return self._plan.kind in MAKES_KEYS and self._plan.keys[0].key_id != STORE_KEY

    def _abort(self, reason: str) -> None:
        if self._revocable:
            for key in self._plan.keys:
                record = self._vault.find(key.key_id, key.version)
                if record is not None and self._is_ours(record) and record.state is not KeyState.DESTROYED:
                    self._vault.destroy(key.key_id, key.version)
        self._sittings.void_interrupted()
        self._store.forget()
        self._record.add("aborted", reason=reason, void=sorted(e["envelope"] for e in self._record.of("envelope")))
        self._desk.say("The ceremony is aborted: it leaves no key. Every envelope of it is void.")

    def _collect(self) -> None:
        """All custodians and the witness."""
        self._vault.clerk.open_pause(self.ceremony_id)
        self._sittings.void_interrupted()
        if self._plan.kind in OUTLET and self._plan.scheme is not SchemeType.NONE and not any(self._record.of("divided")):
            self._divide()
        for custodian in range(len(self._plan.custodians)):
            self._sittings.sit(custodian)
        self._sittings.witness()

    def _divide(self) -> None:
        if self._plan.kind is Kind.GENERATE and self._plan.scheme is SchemeType.XOR:
            return
        for at, key in enumerate(self._plan.keys):
            backup = self._plan.kind is Kind.BACKUP
            with self._vault.reveal(key.key_id, key.version) if backup else new_key(key) as secret:
                pieces = divide(self._plan, key, secret)
            for custodian, piece in enumerate(pieces):
                self._store.put(at, custodian, piece)
                piece.close()
        self._record.add("divided", keys=[key.name for key in self._plan.keys])

    # -- what is done at the end -----------------------------------------------------------------------------------------

    def _commit(self) -> None:
        if not any(self._record.of("committing")):
            self._record.add("committing")
        done = {e["key"] for e in self._record.of("result")}
        try:
            for at, key in enumerate(self._plan.keys):
                if key.name not in done:
                    result = self._carry_out(at, key)
                    self._record.add("result", key=key.name, **result)
                    check_value = f", check value {result['kcv']}" if "kcv" in result else ""
                    self._desk.say(f"{key.name}: {result['done']}{check_value}.")
        except (InvalidInput, Denied, Conflict) as impossible:
            if self._revocable or not any(self._record.of("result")):
                self._abort(impossible.reason)
            raise
        if self._plan.kind is Kind.EXPORT:
            self._write_handover()
        self._store.forget()
        if self._revocable:
            for key in self._plan.keys:
                self._vault.activate(key.key_id, key.version)
        self._record.add("closed", witness=self._plan.witness.person_id)
        self._desk.say(f"Ceremony {self.ceremony_id} is closed.")

    def _carry_out(self, at: int, key: PlannedKey) -> dict[str, object]:
        match self._plan.kind:
            case Kind.DESTROY:
                return _result("destroyed", self._vault.destroy(key.key_id, key.version))
            case Kind.EXPORT:
                export = self._plan.export
                if export is None:
                    raise InvalidInput("PLAN_INVALID", "an export needs a receiver")
                wrapped = self._vault.wrap(key.key_id, key.version, export)
                return {**_result("exported", self._known(key)), "wrapped": wrapped}
            case Kind.GENERATE if self._plan.scheme is SchemeType.NONE:
                return _result("installed", self._ours(key) or self._vault.generate(key, self._origin))
        return self._put_together(at, key)

    def _put_together(self, at: int, key: PlannedKey) -> dict[str, object]:
        installed = self._ours(key)
        if installed is not None:
            return _result("installed", installed)
        pieces = [self._store.get(at, custodian) for custodian in range(len(self._plan.custodians))]
        try:
            with put_together(self._plan, key, pieces) as secret:
                return self._deliver(key, secret)
        finally:
            for piece in pieces:
                piece.close()

    def _deliver(self, key: PlannedKey, secret: SecretBytes) -> dict[str, object]:
        if self._plan.kind is Kind.BACKUP:
            require_kcv(key, secret)
            return _result("backed-up", self._known(key))
        if self._plan.kind is Kind.UNSEAL:
            self._vault.unseal(secret)
            return {"done": "unsealed"}
        if key.key_id == STORE_KEY:
            self._vault.install_store_key(secret, self._origin)
            return {"done": "installed"}
        return _result("installed", self._vault.install(key, secret, self._origin))

    def _write_handover(self) -> None:
        export = self._plan.export
        if export is None:
            raise InvalidInput("PLAN_INVALID", "an export needs a receiver")
        wrapped = {e["key"]: e["wrapped"] for e in self._record.of("result")}
        kek = next((r for v in range(1, 256) if (r := self._vault.find(export.kek, v)) and r.state is KeyState.ACTIVE), None)
        unsigned = HandoverSet(
            format=FORMAT,
            set_id=self.ceremony_id,
            sender=self._plan.place,
            recipient=export.recipient,
            time=str(self._record.entries[-1]["time"]),
            scheme=export.scheme,
            kek=export.kek,
            kek_kcv=kek.kcv if kek else "",
            keys=[handed(self._known(key), wrapped[key.name]) for key in self._plan.keys],
        )
        write_durably(Path(export.file), sign_set(unsigned, self._vault.clerk.sign))

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _known(self, key: PlannedKey) -> MasterKeyRecord:
        record = self._vault.find(key.key_id, key.version)
        if record is None:
            raise NotFound("KEY_UNKNOWN", f"there is no key {key.name}")
        return record

    def _ours(self, key: PlannedKey) -> MasterKeyRecord | None:
        """What this ceremony itself installed before it was interrupted."""
        if not self._revocable:
            return None
        record = self._vault.find(key.key_id, key.version)
        return record if record is not None and self._is_ours(record) else None

    def _is_ours(self, record: MasterKeyRecord) -> bool:
        return record.origin.split(";")[0] == self._origin

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time. Raises Conflict CEREMONY_BUSY."""
        handle = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise Conflict("CEREMONY_BUSY", "another process is at this ceremony") from None
        finally:
            os.close(handle)


def check_against_vault(plan: Plan, vault: Vault) -> None:
    """Raises Precondition SEALED, Conflict KEY_EXISTS for a key that would be made twice, NotFound KEY_UNKNOWN, Denied KCV_MISMATCH,
    Precondition KEY_STATE for one that is to be used and cannot be.
    """
    if not any(key.key_id == STORE_KEY for key in plan.keys):
        vault.require_open()
    if plan.export is not None and Path(plan.export.file).exists():
        raise Conflict("OUTPUT_EXISTS", f"{plan.export.file} exists; a hand-over set is never overwritten")
    for key in plan.keys:
        if key.key_id == STORE_KEY:
            if plan.kind is Kind.GENERATE and vault.has_store_key():
                raise Conflict("KEY_EXISTS", "there is a store key already")
            continue
        record = vault.find(key.key_id, key.version)
        if plan.kind in MAKES_KEYS:
            if record is not None:
                raise Conflict("KEY_EXISTS", f"key {key.name} exists already, {record.state}: a master is never replaced")
            continue
        if record is None:
            raise NotFound("KEY_UNKNOWN", f"there is no key {key.name}")
        if record.kcv != key.kcv:
            raise Denied("KCV_MISMATCH", f"key {key.name} has another check value than the plan says")
        if record.state is KeyState.DESTROYED:
            raise Precondition("KEY_STATE", f"key {key.name} is destroyed")


def check_against_history(plan: Plan, holdings: Holdings) -> None:
    """Raises Denied DUAL_CONTROL when the witness has been a custodian of one of the keys."""
    for key in plan.keys:
        holdings.require_witness(key.key_id, key.version, plan.witness.person_id)


def _result(done: str, record: MasterKeyRecord) -> dict[str, object]:
    return {
        "done": done,
        "key_id": record.key_id,
        "version": record.version,
        "domain": str(record.domain),
        "purpose": str(record.purpose),
        "level": str(record.level),
        "algorithm": record.algorithm,
        "kcv": record.kcv,
        "kcv_method": record.kcv_method,
    }
