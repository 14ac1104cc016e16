"""A rehearsal: the same plan through the same code, on a vault that is thrown away, with practice pieces nobody needs to bring.

What differs from the real ceremony is what must: the vault, the random values and so the check values, the times, the ceremony's number,
the word on the envelopes, and that nobody types: the rehearsal answers every question itself and writes down what would be on the
screen.
"""

from __future__ import annotations

import secrets
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from keys.algorithms import Algorithm
from keys.ceremony.custodians import RECORD_NAME
from keys.ceremony.desk import Question, Topic
from keys.ceremony.envelopes import Envelope, envelope_page
from keys.ceremony.pieces import divide, new_key, piece_check, piece_text
from keys.ceremony.plan import INTAKE, STORE_KEY, STORE_KEY_LEN, Kind, Plan, PlannedKey, SchemeType
from keys.ceremony.record import Clock, utc_now, verify_record
from keys.ceremony.run import Ceremony
from keys.ceremony.sealed import SealedVault
from keys.ceremony.software import SoftwareVault
from keys.ceremony.stored import StoreVault
from keys.custody.sealed import RebuiltKey
from keys.custody.sealing import random_secret
from keys.hierarchy import Domain, Level, Purpose
from keys.keyblock.handover import KEK_ALGORITHM
from keys.secrets import SecretBytes

_HAD_BEFORE: Final = frozenset({Kind.BACKUP, Kind.DESTROY, Kind.EXPORT})
UNSEEN: Final = "[typed unseen]"


@dataclass(frozen=True)
class Rehearsal:
    """What would be on the screen, and the record that was made and verified."""

    transcript: tuple[str, ...]
    record: bytes


class RehearsalDesk:
    """A desk that answers for the custodians and remembers what it was told. See `keys.ceremony.desk.Desk`."""

    def __init__(self, plan: Plan, practice: list[list[SecretBytes]]) -> None:
        """`practice[key][custodian]` are pieces to enter."""
        self._plan = plan
        self._practice = practice
        self.last_check = ""
        self.transcript: list[str] = []

    def say(self, line: str) -> None:
        """See `Desk.say`."""
        self.transcript.append(line)

    def clear(self) -> None:
        """See `Desk.clear`."""
        self.transcript.append("[screen cleared]")

    def secret(self, question: Question) -> SecretBytes:
        """See `Desk.secret`."""
        self.transcript.append(f"{question.text} {UNSEEN}")
        return piece_text(self._plan, self._practice[question.key][question.custodian])

    def ask(self, question: Question) -> str:
        """See `Desk.ask`."""
        answer = self._answer(question)
        self.transcript.append(f"{question.text} {answer}".rstrip())
        return answer

    def _answer(self, question: Question) -> str:
        match question.topic:
            case Topic.CHECK_DIGITS:
                key = self._plan.keys[question.key]
                return piece_check(self._plan, key, self._practice[question.key][question.custodian])
            case Topic.ENVELOPE_READ:
                return self.last_check
            case Topic.CONFIRM:
                return self._plan.keys[question.key].kcv or "yes"
            case Topic.WITNESS:
                return self._plan.witness.person_id
        return ""

    def print_envelope(self, envelope: Envelope, secret: SecretBytes) -> None:
        """See `EnvelopePrinter.print_envelope`: the page is made, and thrown away."""
        page = envelope_page(envelope, secret, pdf=self._plan.output is not None and self._plan.output.format == "pdf")
        page[:] = bytes(len(page))
        self.last_check = envelope.check_value


def rehearse(plan: Plan, *, clock: Clock = utc_now) -> Rehearsal:
    """Runs the whole plan on a throwaway vault; raises what the ceremony itself would raise."""
    with tempfile.TemporaryDirectory(prefix="citycard-rehearsal-") as name:
        place = Path(name)
        store = SoftwareVault.create(place / "vault", secrets.token_urlsafe(24), test=True)
        vault = store if plan.custody != "sealed" else _sealed(plan, store, place / "sealed")
        try:
            practised, practice = _practice(plan, vault, place)
            desk = RehearsalDesk(practised, practice)
            ceremony = Ceremony.start(practised, vault, desk, desk, place / "ceremonies", mode="rehearsal", clock=clock)
            ceremony.run()
            record = (place / "ceremonies" / ceremony.ceremony_id / RECORD_NAME).read_bytes()
        finally:
            vault.close()
            store.close()
    verify_record(record)
    return Rehearsal(tuple(desk.transcript), record)


def _sealed(plan: Plan, store: SoftwareVault, place: Path) -> SealedVault:
    """A sealed store in practice: open, or none yet where the ceremony is about its store key."""
    if plan.keys[0].key_id == STORE_KEY:
        return SealedVault(store.clerk, place)
    with random_secret(STORE_KEY_LEN) as key:
        return SealedVault.create(store.clerk, place, RebuiltKey(SecretBytes(key.reveal())))


def _practice(plan: Plan, vault: StoreVault, place: Path) -> tuple[Plan, list[list[SecretBytes]]]:
    """The plan with practice check values, the vault holding what the plan expects there, and pieces to bring."""
    keys: list[PlannedKey] = []
    pieces: list[list[SecretBytes]] = []
    for planned in plan.keys:
        with new_key(planned) as secret:
            key = replace(planned, kcv=None)
            if plan.kind in INTAKE:
                pieces.append(divide(plan, key, secret))
            if planned.kcv is not None:
                key = replace(key, kcv=piece_check(replace(plan, scheme=SchemeType.XOR), key, secret))
            if plan.kind in _HAD_BEFORE:
                vault.install(replace(key, exportable=True), secret, "practice")
                vault.activate(key.key_id, key.version)
            if plan.kind is Kind.UNSEAL and key.key_id == STORE_KEY:
                vault.install_store_key(secret, "practice")
                vault.close()
        keys.append(key)
    export = plan.export
    if export is not None:
        _practice_kek(vault, export.kek, KEK_ALGORITHM[export.scheme])
        export = replace(export, file=str(place / "handover.json"))
    return replace(plan, keys=tuple(keys), export=export), pieces


def _practice_kek(vault: StoreVault, key_id: str, algorithm: Algorithm) -> None:
    kek = PlannedKey(key_id=key_id, domain=Domain.CITY, purpose=Purpose.KEY_ENCRYPTION, level=Level.CITY, algorithm=algorithm)
    vault.generate(kek, "practice")
    vault.activate(key_id, 1)
