"""The test of a quality sample: what production must leave alone on a card that somebody will carry.

VERIFY PIN with the card's own PIN, then a load and a purchase that move the balance: MAC2 of the load and MAC1 of the purchase are
ours and the card must accept them; MAC2 of the purchase and both TACs are the card's and must be right. The piece is scrap before and
after, so its clear PIN may travel to the test bench. As in `verification`, a segment is the longest run that depends on no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final

from engine.personalize import applet_crypto as crypto
from engine.personalize.segment import Answer
from engine.personalize.verification import CardMaterial, equal, load_step, of_length, select
from engine.profiles.compile import CompiledProfile
from engine.profiles.model import Load, Purchase

PIN: Final = "pin"
GET_BALANCE: Final = bytes.fromhex("805C000204")
TERMINAL_SEQUENCE: Final = bytes.fromhex("00000001")


@dataclass(frozen=True)
class Probe:
    """One command, and what its answer says of keys: (key label or "pin", check that raises Denied VERIFY_FAILED).

    The first one named is who the card does not accept when it refuses the command.
    """

    command: bytes
    checks: tuple[tuple[str, Callable[[bytes], None]], ...] = ()


@dataclass(frozen=True)
class Purse:
    """One load and the purchase it pays for; `keys` are the places of load, purchase and TAC key in the profile's keys."""

    df: bytes
    load: Load
    purchase: Purchase
    keys: tuple[int, int, int]


def purses(compiled: CompiledProfile) -> list[Purse]:
    """What the profile says of purchases. Lint has seen to it that keys and load are there."""
    place = {key.label: index for index, key in enumerate(compiled.keys)}
    found = []
    for application in compiled.loaded.profile.applications:
        for purchase in application.purchase:
            load = next(x for x in application.load if x.keyset == purchase.keyset and x.amount >= purchase.amount)
            first, second, third = (
                place[f"{application.name}/{purchase.keyset}/{name}"] for name in (load.key, purchase.key, purchase.tac)
            )
            found.append(Purse(compiled.keys[second].df, load, purchase, (first, second, third)))
    return found


def subjects(compiled: CompiledProfile) -> list[str]:
    """Everything a sample is tested for, in the order of testing."""
    pin = [PIN] if compiled.pin_offsets else []
    return [*pin, *(compiled.keys[index].label for purse in purses(compiled) for index in purse.keys)]


def conversation(compiled: CompiledProfile, material: CardMaterial, when: bytes) -> Generator[list[Probe], list[Answer], None]:
    """The segments of the test, after the chip has proven who it is. `when` is date[4] || time[3] in BCD.

    Yields probes and is sent their answers; the caller has checked them, and goes on only where every check passed.
    """
    pending = _verify_pin(compiled, material)
    for purse in purses(compiled):
        pending = yield from _load_and_pay(compiled, purse, material, when, pending)
    if pending:
        yield pending


def _verify_pin(compiled: CompiledProfile, material: CardMaterial) -> list[Probe]:
    probes = []
    for offset in compiled.pin_offsets:
        applet = next(a for a in compiled.applets if a.commands[0].start <= offset < a.commands[-1].end)
        block = material.image[offset : offset + 8].tobytes()
        probes += [Probe(select(applet.aid)), Probe(b"\x00\x20\x00\x80\x08" + block, ((PIN, equal("VERIFY PIN", b"")),))]
    return probes


def _load_and_pay(
    compiled: CompiledProfile, purse: Purse, material: CardMaterial, when: bytes, pending: list[Probe]
) -> Generator[list[Probe], list[Answer], list[Probe]]:
    """Load, then purchase; gives back the last segment, whose answers nothing depends on."""
    load_label, pay_label, tac_label = (compiled.keys[index].label for index in purse.keys)
    load_key, pay_key, tac_key = (material.key(index) for index in purse.keys)
    load, pay = _Sum.of(purse.load), _Sum.of(purse.purchase)

    stated: list[bytes] = []
    initialize = load_step(purse.load, purse.keys[0], compiled.keys[purse.keys[0]], material)

    def initialized(answer: bytes) -> None:
        initialize.check(answer)
        equal("GET BALANCE before the load", answer[:4])(stated[-1])

    first = [
        Probe(select(purse.df)),
        Probe(GET_BALANCE, ((load_label, stated.append),)),
        Probe(initialize.command, ((load_label, initialized),)),
    ]
    answers = yield [*pending, *first]
    card = answers[-1].data

    loaded = _moved(card, load.value)
    mac2 = crypto.load_mac2(crypto.load_session(load_key, card), load.amount, load.terminal, when)
    tac = crypto.load_tac(tac_key, loaded, card[4:6], load.amount, load.terminal, when)
    answers = yield [
        Probe(
            b"\x80\x52\x00\x00\x0b" + when + mac2 + b"\x04",
            ((load_label, of_length("CREDIT FOR LOAD", 4)), (tac_label, equal(f"TAC of the load, {tac_label}", tac))),
        ),
        Probe(GET_BALANCE, ((load_label, equal("GET BALANCE after the load", loaded)),)),
        Probe(
            b"\x80\x50\x01\x02\x0b" + bytes.fromhex(purse.purchase.key_index) + pay.amount + pay.terminal + b"\x0f",
            ((pay_label, of_length("INITIALIZE FOR PURCHASE", 15)),),
        ),
    ]
    card = answers[-1].data

    session = crypto.purchase_session(pay_key, card, TERMINAL_SEQUENCE)
    mac1 = crypto.purchase_mac1(session, pay.amount, pay.terminal, when)
    mac2 = crypto.purchase_mac2(session, pay.amount)
    tac = crypto.purchase_tac(tac_key, pay.amount, pay.terminal, TERMINAL_SEQUENCE, when)
    return [
        Probe(
            b"\x80\x54\x01\x00\x0f" + TERMINAL_SEQUENCE + when + mac1 + b"\x08",
            (
                (pay_label, lambda answer: equal(f"MAC2 of the purchase, {pay_label}", mac2)(answer[4:])),
                (tac_label, lambda answer: equal(f"TAC of the purchase, {tac_label}", tac)(answer[:4])),
            ),
        ),
        Probe(GET_BALANCE, ((pay_label, equal("GET BALANCE after the purchase", _moved(loaded, -pay.value))),)),
    ]


@dataclass(frozen=True)
class _Sum:
    """Amount and terminal of a transaction as bytes."""

    amount: bytes
    terminal: bytes

    @classmethod
    def of(cls, spec: Load | Purchase) -> _Sum:
        return cls(bytes.fromhex(spec.amount), bytes.fromhex(spec.terminal))

    @property
    def value(self) -> int:
        return int.from_bytes(self.amount, "big")


def _moved(balance: bytes, by: int) -> bytes:
    # a card that says any balance it likes is to fail a check, not this sum
    return (int.from_bytes(balance[:4], "big") + by & 0xFFFFFFFF).to_bytes(4, "big")
