"""One custodian at the desk: entering pieces, taking them away in envelopes, or confirming with check digits.

Every refusal names custodian, key and rule, goes into the record as its reason code, and tells nothing of what was typed. A piece counts
once its entry `component` is in the record; whatever an interruption leaves before that is void.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

from keys.ceremony.custodians import Division, Holdings
from keys.ceremony.desk import Desk, Question, Topic
from keys.ceremony.envelopes import Envelope, EnvelopePrinter
from keys.ceremony.pieces import PieceStore, check_digits, check_piece, parse_piece, piece_check, piece_division, piece_name, piece_text
from keys.ceremony.plan import INTAKE, OUTLET, Kind, Person, Plan, SchemeType
from keys.ceremony.record import RecordWriter
from keys.components import make_component
from keys.errors import CitycardError, Conflict, Denied, InvalidInput, Precondition
from keys.secrets import SecretBytes

ATTEMPTS: Final = 3


class Sittings:
    """What happens at the desk in one ceremony."""

    def __init__(
        self, plan: Plan, desk: Desk, printer: EnvelopePrinter | None, store: PieceStore, record: RecordWriter, holdings: Holdings
    ) -> None:
        self._plan = plan
        self._desk = desk
        self._printer = printer
        self._store = store
        self._record = record
        self._holdings = holdings
        self._mode = str(record.entries[0]["mode"])
        self._ceremony_id = str(record.entries[0]["ceremony"])

    def done(self, custodian: int, key: int) -> bool:
        """Whether this custodian's part in this key is in the record."""
        return any((e["custodian_at"], e["key_at"]) == (custodian, key) for e in self._record.of("component", "confirmed"))

    def void_interrupted(self) -> None:
        """Envelopes begun and not accepted before an interruption are void: whoever finds one destroys it before the witness."""
        settled = {e["envelope"] for e in self._record.of("void")} | {e.get("envelope") for e in self._record.of("component")}
        for entry in list(self._record.of("envelope")):
            if entry["envelope"] not in settled:
                self._void(entry["envelope"], "interrupted")

    def sit(self, custodian: int) -> None:
        """One custodian, alone, for all keys that are still open. Raises Precondition CEREMONY_PAUSED, Denied (ENTRY_ATTEMPTS,
        DUAL_CONTROL).
        """
        if all(self.done(custodian, key) for key in range(len(self._plan.keys))):
            return
        person = self._plan.custodians[custodian]
        place = f"Custodian {custodian + 1} of {len(self._plan.custodians)}"
        self._desk.say(f"{place}: {person.name} ({person.person_id}). Everybody else leaves the desk.")
        self._call(custodian)
        self._record.add("sitting", custodian=person.person_id, custodian_at=custodian)
        self._desk.clear()
        try:
            for key in range(len(self._plan.keys)):
                if not self.done(custodian, key):
                    self._part(person, custodian, key)
        finally:
            self._desk.clear()
        self._desk.say(f"{person.name} is finished, and leaves the desk.")

    def witness(self) -> None:
        """The witness confirms having been there. Raises Denied ENTRY_ATTEMPTS."""
        if any(self._record.of("witnessed")):
            return
        person = self._plan.witness

        def confirm() -> None:
            text = f"Witness {person.name}: type your id to confirm that you watched all of it:"
            if self._desk.ask(Question(Topic.WITNESS, text)) != person.person_id:
                raise Denied("WITNESS", f"{person.name}: this is not the id of the plan")

        self._tries(person, "", confirm)
        self._record.add("witnessed", witness=person.person_id)

    def _call(self, custodian: int) -> None:
        if self._desk.ask(Question(Topic.CALL, "Press Enter to begin, or type pause:", custodian)).lower() == "pause":
            raise Precondition("CEREMONY_PAUSED", "the ceremony is paused between two custodians")

    def _part(self, person: Person, custodian: int, key: int) -> None:
        if self._plan.kind in OUTLET and self._plan.scheme is not SchemeType.NONE:
            self._hand_out(person, custodian, key)
        elif self._plan.kind in INTAKE:
            self._tries(person, self._plan.keys[key].name, lambda: self._take_in(person, custodian, key))
        else:
            self._tries(person, self._plan.keys[key].name, lambda: self._confirm(person, custodian, key))

    def _tries(self, person: Person, key_name: str, act: Callable[[], None]) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                act()
                return
            except (InvalidInput, Denied, Conflict) as refusal:
                if refusal.reason == "DUAL_CONTROL":
                    self._refused(person, key_name, refusal)
                    raise
                self._refused(person, key_name, refusal)
                left = ATTEMPTS - attempt
                place = f"{person.name}: {key_name}" if key_name else person.name
                self._desk.say(f"{place}: {refusal.message}." + (f" {left} more tries." if left else ""))
        raise Denied("ENTRY_ATTEMPTS", f"{person.name}: {ATTEMPTS} entries were refused; the ceremony is paused")

    def _refused(self, person: Person, key_name: str, refusal: CitycardError) -> None:
        self._record.add("refused", person=person.person_id, key=key_name, reason=refusal.reason)

    # -- custodians bring pieces -----------------------------------------------------------------------------------------

    def _take_in(self, person: Person, custodian: int, key: int) -> None:
        planned = self._plan.keys[key]
        by_share = self._plan.scheme is SchemeType.SLIP39
        topic, what = (Topic.SHARE, "words of the share") if by_share else (Topic.COMPONENT, "component")
        with self._desk.secret(Question(topic, f"{planned.name}, {what} (not shown):", custodian, key)) as typed:
            digits = "" if by_share else self._desk.ask(Question(Topic.CHECK_DIGITS, "Its check digits:", custodian, key))
            with typed.reveal() as text:
                piece = parse_piece(self._plan, planned, text)
        earlier = [self._store.get(key, other) for other in range(len(self._plan.custodians)) if self.done(other, key)]
        try:
            check_piece(self._plan, planned, piece, earlier, digits)
            self._accept(person, custodian, key, piece)
        finally:
            for secret in (piece, *earlier):
                secret.close()
        self._desk.say("Accepted.")

    def _accept(self, person: Person, custodian: int, key: int, piece: SecretBytes, envelope: int | None = None) -> None:
        """Holdings, then the piece at rest, then the record: only the last makes it count."""
        planned = self._plan.keys[key]
        division, name = self._division(key, piece), piece_name(self._plan, planned, piece)
        self._holdings.saw(division, person.person_id, name, self._plan.witness.person_id)
        self._store.put(key, custodian, piece)
        fields = {} if envelope is None else {"envelope": envelope}
        self._record.add(
            "component",
            mode=self._mode,
            custodian=person.person_id,
            custodian_at=custodian,
            witness=self._plan.witness.person_id,
            key_id=planned.key_id,
            key_at=key,
            version=planned.version,
            scheme=division.scheme,
            needed=division.needed,
            piece=name,
            check=piece_check(self._plan, planned, piece),
            **fields,
        )

    def _division(self, key: int, piece: SecretBytes) -> Division:
        return piece_division(self._plan, self._plan.keys[key], piece, self._ceremony_id, self._holdings)

    # -- custodians take pieces away -------------------------------------------------------------------------------------

    def _hand_out(self, person: Person, custodian: int, key: int) -> None:
        if self._printer is None or self._plan.output is None:
            raise Precondition("OUTPUT_DEVICE", "there is no printer for the envelopes")
        planned = self._plan.keys[key]
        for _ in range(ATTEMPTS):
            serial = self._plan.output.first_envelope + sum(1 for _ in self._record.of("envelope"))
            with self._piece_for(custodian, key) as piece, piece_text(self._plan, piece) as text:
                self._holdings.require_may_see(self._division(key, piece), person.person_id, piece_name(self._plan, planned, piece))
                check = piece_check(self._plan, planned, piece)
                self._record.add("envelope", envelope=serial, custodian=person.person_id, key_id=planned.key_id, version=planned.version)
                label = f"{custodian + 1} of {len(self._plan.custodians)}, {self._plan.scheme}, {self._plan.threshold} needed"
                page = Envelope(serial, self._ceremony_id, person.person_id, planned.name, label, check, self._mode != "run")
                self._printer.print_envelope(page, text)
                self._desk.say(
                    f"Envelope {serial} is printed: {planned.name}. Take the page, show it to nobody, and read its line `check`."
                )
                if self._was_read(person, custodian, key, serial, check):
                    self._desk.ask(Question(Topic.ENVELOPE_CLOSED, f"Seal envelope {serial}, then press Enter:", custodian, key))
                    self._accept(person, custodian, key, piece, serial)
                    return
            self._void(serial, "unreadable")
        raise Denied("ENTRY_ATTEMPTS", f"{person.name}: {ATTEMPTS} envelopes could not be read; the ceremony is paused")

    def _piece_for(self, custodian: int, key: int) -> SecretBytes:
        """A component of a new key is made when its envelope is; anything else was divided beforehand."""
        if self._plan.kind is Kind.GENERATE and self._plan.scheme is SchemeType.XOR:
            planned = self._plan.keys[key]
            return make_component(planned.algorithm, planned.length)
        return self._store.get(key, custodian)

    def _was_read(self, person: Person, custodian: int, key: int, serial: int, check: str) -> bool:
        for attempt in range(1, ATTEMPTS + 1):
            typed = self._desk.ask(Question(Topic.ENVELOPE_READ, f"Check digits printed in envelope {serial}:", custodian, key))
            if hmac.compare_digest(check_digits(typed), bytes.fromhex(check)):
                return True
            left = ATTEMPTS - attempt
            then = f"{left} more tries" if left else "the page is void, and another is printed"
            self._desk.say(f"{person.name}: these are not the check digits of envelope {serial}; {then}.")
        return False

    def _void(self, serial: int, why: str) -> None:
        self._record.add("void", envelope=serial, why=why)
        self._desk.say(f"Envelope {serial} is void: destroy it before the witness.")

    # -- custodians confirm ----------------------------------------------------------------------------------------------

    def _confirm(self, person: Person, custodian: int, key: int) -> None:
        planned = self._plan.keys[key]
        question = f"{self._plan.kind} {planned.name}" + (": type its check digits to agree:" if planned.kcv else ": type yes to agree:")
        typed = self._desk.ask(Question(Topic.CONFIRM, question, custodian, key))
        agreed = hmac.compare_digest(check_digits(typed), bytes.fromhex(planned.kcv)) if planned.kcv else typed.lower() == "yes"
        if not agreed:
            raise Denied("NOT_CONFIRMED", "this does not agree to it")
        who = {"custodian": person.person_id, "custodian_at": custodian}
        self._record.add("confirmed", **who, key_id=planned.key_id, key_at=key, version=planned.version)
