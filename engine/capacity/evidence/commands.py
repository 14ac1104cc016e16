"""Every command that a card of a profile is sent, in the order it is played: which part of the work, whose domain, how many bytes.

Known from the compiled profile alone: the lengths of commands and of answers do not depend on a card's data or keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from engine.personalize import verification
from engine.personalize.applet_crypto import BLOCK
from engine.personalize.columns import Bytes2D
from engine.personalize.script import MAC_LEN, script_of, secured_lengths
from engine.profiles.compile import CardKey, CompiledProfile

ISSUER: Final = "issuer"
LEASE: Final = "lease"
PERSONALIZATION: Final = "personalization"
CHANNEL: Final = "proof: new channel"
_STATUS: Final = 2
_SELECT, _READ_BINARY, _READ_RECORD = 0xA4, 0xB0, 0xB2
# INITIALIZE UPDATE, EXTERNAL AUTHENTICATE (GPC Amendment D 7.1; GPCS E.5), GET DATA of the CPLC, SELECT with Le
_INITIALIZE_UPDATE: Final = (14, {"scp02": 28 + _STATUS, "scp03": 29 + _STATUS})
# SCP03 with a pseudo-random challenge tells its sequence counter too (GPC Amendment D 7.1.1.6)
_PSEUDO_RANDOM: Final = 0x10
_COUNTER: Final = 3
_EXTERNAL_AUTHENTICATE: Final = (21, _STATUS)
_CPLC: Final = (5, 45 + _STATUS)
# Answers with data: PUT KEY its version and check values, INSTALL that it has no confirmation (GPCS 11.8.3, 11.5.3).
_ANSWERED: Final = {0xD8: 10, 0xE6: 1}
_CIPHER_BLOCK: Final = {"scp02": 8, "scp03": 16}
_R_MAC: Final = 0x10
_R_ENCRYPTION: Final = 0x20
# what a proof command proves, by its INS
_PROOFS: Final = {
    _SELECT: "proof: select",
    _READ_BINARY: "proof: public files",
    _READ_RECORD: "proof: public files",
    0x88: "proof: internal authenticate",
    0x84: "proof: external authenticate",
    0x82: "proof: external authenticate",
    0x50: "proof: initialize for load",
    0xA8: "proof: generate AC",
    0xAE: "proof: generate AC",
}


@dataclass(frozen=True, slots=True)
class Sent:
    """One command. `sent` and `received` are bytes with header and status word; `received` is None where the chip decides it."""

    phase: str
    domain: str
    ins: int
    sent: int
    received: int | None


@dataclass(frozen=True)
class _Blank:
    """Material of no card: right in its lengths, all zero."""

    image: Bytes2D

    def blocks(self, wanted: Sequence[tuple[int, CardKey, bytes]]) -> list[bytes]:
        return [bytes(BLOCK[key.algorithm]) for _, key, _ in wanted]

    def load_mac1(self, index: int, key: CardKey, card: bytes, amount: bytes, terminal: bytes) -> bytes:
        del index, key, card, amount, terminal
        return b""

    def application_cryptogram(self, index: int, key: CardKey, atc: bytes, message: bytes) -> bytes:
        del index, key, atc, message
        return b""


def segments_of(compiled: CompiledProfile) -> list[list[Sent]]:
    """The lease's commands, then each segment's, as a card that is made without a break is sent them."""
    channel = compiled.loaded.profile.channel
    isd = verification.select(bytes.fromhex(compiled.loaded.profile.chip.isd_aid))
    length, answers = _INITIALIZE_UPDATE
    select = Sent(LEASE, ISSUER, _SELECT, len(isd), None)
    counter = _COUNTER if channel.protocol == "scp03" and int(channel.i, 16) & _PSEUDO_RANDOM else 0
    update = Sent(LEASE, ISSUER, 0x50, length, answers[channel.protocol] + counter)
    authenticate = Sent(PERSONALIZATION, ISSUER, 0x82, *_EXTERNAL_AUTHENTICATE)
    reopen = [replace(select, phase=CHANNEL), replace(update, phase=CHANNEL)]
    talk = list(_conversation(compiled))
    talk[0].insert(0, replace(authenticate, phase=CHANNEL))
    return [[select, Sent(LEASE, ISSUER, 0xCA, *_CPLC), update], [authenticate, *_script(compiled), *reopen], *talk]


def _script(compiled: CompiledProfile) -> Iterator[Sent]:
    profile = compiled.loaded.profile
    script = script_of(compiled)
    domain_of: dict[str, str] = {application.name: application.domain for application in profile.applications}
    domains = [domain_of[applet.name] for applet in compiled.applets for _ in range(1 + len(applet.commands))]
    domains += [ISSUER] * (len(script.apdus) - len(domains))
    level, block = int(profile.channel.level, 16), _CIPHER_BLOCK[profile.channel.protocol]
    for apdu, length, domain in zip(script.apdus, secured_lengths(script.apdus, block).tolist(), domains, strict=True):
        data = _ANSWERED.get(int(apdu["ins"]), 0)
        if data and level & _R_ENCRYPTION:
            data += block - data % block
        answer = data + (MAC_LEN if level & _R_MAC else 0) + _STATUS
        yield Sent(PERSONALIZATION, domain, int(apdu["ins"]), length, answer)


def _conversation(compiled: CompiledProfile) -> Iterator[list[Sent]]:
    """The proofs, with answers of the right length and no content put in between."""
    domains = _domains(compiled)
    reads = {(r.df, verification.read_step(r, _blank(compiled)).command): r.end - r.start for r in compiled.reads}
    talk = verification.conversation(compiled, _blank(compiled), lambda _, length: bytes(length))
    steps = next(talk)
    df = b""
    while True:
        played: list[Sent] = []
        for step in steps:
            ins = step.command[1]
            if ins == _SELECT:
                df = step.command[5 : 5 + step.command[4]]
            received = _answer_length(step.command, reads.get((df, step.command)))
            played.append(Sent(_PROOFS.get(ins, "proof: other"), domains.get(df, ISSUER), ins, len(step.command), received))
        yield played
        try:
            steps = talk.send([bytes(max(0, (p.received or _STATUS) - _STATUS)) for p in played])
        except StopIteration:
            return


def _answer_length(command: bytes, read: int | None) -> int | None:
    ins = command[1]
    if read is not None:
        return read + _STATUS
    if ins == 0x84:
        return command[4] + _STATUS
    if ins == 0x88:
        return command[4] + _STATUS
    if ins == 0x82:
        return _STATUS
    if ins == 0x50:
        return command[-1] + _STATUS
    return None


def _blank(compiled: CompiledProfile) -> _Blank:
    return _Blank(np.zeros(compiled.image_len, np.uint8))


def _domains(compiled: CompiledProfile) -> dict[bytes, str]:
    domain_of: dict[str, str] = {application.name: application.domain for application in compiled.loaded.profile.applications}
    found: dict[bytes, str] = {bytes.fromhex(a.aid): a.domain for a in compiled.loaded.profile.applications}
    found |= {key.df: key.domain for key in compiled.keys}
    return found | {read.df: domain_of[read.application] for read in compiled.reads}
