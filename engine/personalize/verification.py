"""Production verification: every applet is used as its readers will use it, and balances, counters and PINs are left alone.

Commands are fixed by the profile. What depends on an answer (EXTERNAL AUTHENTICATE on a card random) starts a new segment. The
challenges sent are the engine's own and used once; a restarted engine begins the proof again with new ones.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

import numpy as np

from engine.personalize.applet_crypto import BLOCK, application_cryptogram, ecb_each, load_mac1
from engine.personalize.columns import Bytes2D
from engine.personalize.script import ById
from engine.profiles.compile import CardKey, CompiledProfile, ReadCheck, ber_length
from engine.profiles.model import Application, GenerateAc, Load
from keys.errors import Denied
from keys.secrets import SecretArray

# Something only this attempt's engine knows in advance: (what for, length) -> bytes
Challenge = Callable[[str, int], bytes]
BY_SAMPLE: Final = "proven-by-sample"


def select(df: bytes) -> bytes:
    """SELECT by name (ISO 7816-4)."""
    return b"\x00\xa4\x04\x00" + bytes([len(df)]) + df + b"\x00"


class Step(NamedTuple):
    """One command and what its answer must be. `check` raises Denied VERIFY_FAILED."""

    command: bytes
    check: Callable[[bytes], None]
    proves: str | None = None


class Material(Protocol):
    """What the proof of one card needs: its image (image_len,), of which it reads public files only, and answers under its keys.

    `index` is the place of `key` in the profile's keys.
    """

    @property
    def image(self) -> Bytes2D: ...

    def blocks(self, wanted: Sequence[tuple[int, CardKey, bytes]]) -> list[bytes]:
        """One block encrypted under each key."""

    def load_mac1(self, index: int, key: CardKey, card: bytes, amount: bytes, terminal: bytes) -> bytes:
        """See `applet_crypto.load_mac1`."""

    def application_cryptogram(self, index: int, key: CardKey, atc: bytes, message: bytes) -> bytes:
        """See `applet_crypto.application_cryptogram`."""


@dataclass(frozen=True)
class CardMaterial:
    """One card's clear material, owned by the caller: keys (k, 16) in the profile's order, and its image (image_len,)."""

    keys: Bytes2D = field(repr=False)
    image: Bytes2D = field(repr=False)

    def key(self, index: int) -> memoryview:
        return np.ascontiguousarray(self.keys[index]).data

    def blocks(self, wanted: Sequence[tuple[int, CardKey, bytes]]) -> list[bytes]:
        if len(wanted) == 1:
            index, key, question = wanted[0]
            return [ecb_each(key.algorithm, self.keys[index], question)]
        made = [b""] * len(wanted)
        for algorithm in {key.algorithm for _, key, _ in wanted}:
            places = [at for at, (_, key, _) in enumerate(wanted) if key.algorithm == algorithm]
            with SecretArray.empty((len(places), 16)) as keys:
                # "raise" would take them to memory that nobody wipes first
                np.take(self.keys, [wanted[at][0] for at in places], axis=0, out=keys.array, mode="clip")
                octets, block = ecb_each(algorithm, keys.array, b"".join([wanted[at][2] for at in places])), BLOCK[algorithm]
            for number, at in enumerate(places):
                made[at] = octets[number * block : number * block + block]
        return made

    def load_mac1(self, index: int, key: CardKey, card: bytes, amount: bytes, terminal: bytes) -> bytes:
        return load_mac1(key.algorithm, self.key(index), card, amount, terminal)

    def application_cryptogram(self, index: int, key: CardKey, atc: bytes, message: bytes) -> bytes:
        return application_cryptogram(key.algorithm, self.key(index), atc, message)


# Makes steps that need no earlier answer for one card: from its material, its image, and each block that an applet is asked to encrypt
# with what it must give, in the order of the steps.
_Maker = Callable[[Material, memoryview, Iterator[tuple[bytes, bytes]]], tuple[Step, ...]]


def equal(what: str, expected: bytes | memoryview) -> Callable[[bytes], None]:
    """A check that the answer is exactly `expected`, compared in constant time; the message shows neither."""

    def check(answer: bytes) -> None:
        if not hmac.compare_digest(answer, expected):
            raise Denied("VERIFY_FAILED", f"{what}: the card's answer is not what its data and keys should give")

    return check


def anything(_: bytes) -> None:
    """For commands whose status word says all, such as SELECT."""


def of_length(what: str, length: int) -> Callable[[bytes], None]:
    def check(answer: bytes) -> None:
        if len(answer) != length:
            raise Denied("VERIFY_FAILED", f"{what}: {len(answer)} bytes where {length} are due")

    return check


def read_step(read: ReadCheck, material: Material) -> Step:
    """READ RECORD, or READ BINARY of a transparent file, and the exact content that personalization wrote."""
    return _reading(read)(material, material.image.data, iter(()))[0]


def _reading(read: ReadCheck) -> _Maker:
    what = f"{read.application} file {read.sfi:02X}" + (f" record {read.record}" if read.record else "")
    command = bytes([0x00, 0xB2, read.record, read.sfi << 3 | 4, 0x00]) if read.record else bytes([0x00, 0xB0, 0x80 | read.sfi, 0, 0])
    start, end = read.start, read.end
    return lambda _material, image, _asked: (Step(command, equal(what, image[start:end])),)


def _internal(key: CardKey) -> _Maker:
    """INTERNAL AUTHENTICATE: one block under the card's own key."""
    label, what = key.label, f"INTERNAL AUTHENTICATE {key.label}"
    head = bytes([0x00, 0x88, 0x00, key.kid, BLOCK[key.algorithm]])

    def make(_material: Material, _image: memoryview, asked: Iterator[tuple[bytes, bytes]]) -> tuple[Step, ...]:
        block, expected = next(asked)
        return (Step(head + block + b"\x00", equal(what, expected), label),)

    return make


def load_step(load: Load, index: int, key: CardKey, material: Material) -> Step:
    """INITIALIZE FOR LOAD: MAC1 proves the load key and no balance moves."""
    amount, terminal = bytes.fromhex(load.amount), bytes.fromhex(load.terminal)
    what = f"INITIALIZE FOR LOAD {key.label}"

    def check(answer: bytes) -> None:
        of_length(what, 16)(answer)
        equal(what, material.load_mac1(index, key, answer[:12], amount, terminal))(answer[12:])

    command = b"\x80\x50\x00\x02\x0b" + bytes.fromhex(load.key_index) + amount + terminal + b"\x10"
    return Step(command, check, key.label)


def _arqc(compiled: CompiledProfile, application: Application, spec: GenerateAc, index: int) -> _Maker:
    """GET PROCESSING OPTIONS and GENERATE AC for an ARQC (EMV Book 3): the trace it leaves is one ATC."""
    key = compiled.keys[index]
    gpo_id, iad_id = ("9104", "9200") if key.algorithm == "3des" else ("9105", "9201")
    cdol1_data, pdol_data = bytes.fromhex(spec.cdol1_data), bytes.fromhex(spec.pdol_data)
    label, what = key.label, f"GENERATE AC {key.label}"
    pdol = b"\x83" + bytes([len(pdol_data)]) + pdol_data
    chosen = Step(select(bytes.fromhex(application.aid)), anything)
    gpo = b"\x80\xa8\x00\x00" + bytes([len(pdol)]) + pdol + b"\x00"
    generate = b"\x80\xae\x80\x00" + bytes([len(cdol1_data)]) + cdol1_data + b"\x00"

    def make(material: Material, _image: memoryview, _asked: Iterator[tuple[bytes, bytes]]) -> tuple[Step, ...]:
        options = _value(compiled, material, application.name, gpo_id)
        iad = _value(compiled, material, application.name, iad_id)

        def check(answer: bytes) -> None:
            # 77 L, 9F27 01 80, 9F36 02 ATC, 9F26 08 AC, 9F10 L IAD
            of_length(what, 25 + len(iad))(answer)
            atc = answer[9:11]
            expected = material.application_cryptogram(index, key, atc, cdol1_data + options[2:4] + atc + iad)
            body = b"\x9f\x27\x01\x80\x9f\x36\x02" + atc + b"\x9f\x26\x08" + expected + b"\x9f\x10" + bytes([len(iad)]) + iad
            equal(what, b"\x77" + bytes([len(body)]) + body)(answer)

        due = equal("GET PROCESSING OPTIONS", b"\x77" + ber_length(len(options)) + options)
        return chosen, Step(gpo, due), Step(generate, check, label)

    return make


def _value(compiled: CompiledProfile, material: Material, application: str, dgi: str) -> bytes:
    start, end = compiled.values[application, dgi]
    return material.image[start:end].tobytes()


@dataclass(frozen=True)
class _Opening:
    """The steps that need no earlier answer, ready to be made for a card; `asked` are the keys of INTERNAL AUTHENTICATE in their order."""

    makers: tuple[_Maker, ...]
    asked: tuple[tuple[int, CardKey], ...]


@lru_cache(maxsize=64)
def _opening(by_id: ById) -> _Opening:
    compiled = by_id.compiled
    makers: list[_Maker] = []
    asked: list[tuple[int, CardKey]] = []
    for application in compiled.loaded.profile.applications:
        own = [(i, key) for i, key in enumerate(compiled.keys) if key.application == application.name]
        internals = {(key.df, i): key for i, key in own if key.prove == "internal-authenticate"}
        reads = [r for r in compiled.reads if r.application == application.name]
        loads = [(load, i) for a, load, i in compiled.loads if a.name == application.name]
        places = [*(r.df for r in reads), *(df for df, _ in internals), *(compiled.keys[i].df for _, i in loads)]
        for df in dict.fromkeys([bytes.fromhex(application.aid), *places]):
            makers.append(_fixed(Step(select(df), anything)))
            makers += [_reading(r) for r in reads if r.df == df]
            here = [(i, key) for (at, i), key in internals.items() if at == df]
            asked += here
            makers += [_internal(key) for _, key in here]
            makers += [_loading(load, i, compiled.keys[i]) for load, i in loads if compiled.keys[i].df == df]
        makers += [_arqc(compiled, a, spec, index) for a, spec, index in compiled.generate_acs if a.name == application.name]
    return _Opening(tuple(makers), tuple(asked))


def _fixed(step: Step) -> _Maker:
    return lambda _material, _image, _asked: (step,)


def _loading(load: Load, index: int, key: CardKey) -> _Maker:
    return lambda material, _image, _asked: (load_step(load, index, key, material),)


def fixed_steps(compiled: CompiledProfile, material: Material, challenge: Challenge) -> list[Step]:
    """All commands that need no earlier answer: per DF, SELECT, reads of public files, internal authentications; loads; ARQCs."""
    opening = _opening(ById(compiled))
    blocks = [challenge(key.label, BLOCK[key.algorithm]) for _, key in opening.asked]
    wanted = [(index, key, block) for (index, key), block in zip(opening.asked, blocks, strict=True)]
    asked = iter(list(zip(blocks, material.blocks(wanted), strict=True)))
    image = material.image.data
    return [step for make in opening.makers for step in make(material, image, asked)]


def externals(compiled: CompiledProfile) -> tuple[tuple[int, CardKey], ...]:
    """Keys proven by EXTERNAL AUTHENTICATE: each costs one round trip."""
    return _externals(ById(compiled))


@lru_cache(maxsize=64)
def _externals(by_id: ById) -> tuple[tuple[int, CardKey], ...]:
    return tuple((i, key) for i, key in enumerate(by_id.compiled.keys) if key.prove == "external-authenticate")


def external_question(key: CardKey) -> list[Step]:
    """SELECT and GET CHALLENGE, the end of one segment."""
    block = BLOCK[key.algorithm]
    return [Step(select(key.df), anything), Step(bytes([0x00, 0x84, 0x00, 0x00, block]), of_length("GET CHALLENGE", block))]


def external_answer(index: int, key: CardKey, material: Material, random: bytes) -> Step:
    """EXTERNAL AUTHENTICATE with the card's random, the start of the next segment: only the right key gives 9000."""
    (cryptogram,) = material.blocks([(index, key, random)])
    command = bytes([0x00, 0x82, 0x00, key.kid, len(cryptogram)]) + cryptogram
    return Step(command, equal(f"EXTERNAL AUTHENTICATE {key.label}", b""), key.label)


def conversation(compiled: CompiledProfile, material: Material, challenge: Challenge) -> Generator[list[Step], list[bytes], None]:
    """The segments of the verification after the new channel opened: yields steps, is sent their answers, checked by the caller."""
    pending = fixed_steps(compiled, material, challenge)
    for index, key in externals(compiled):
        answers = yield [*pending, *external_question(key)]
        pending = [external_answer(index, key, material, answers[-1])]
    yield pending


def proofs(compiled: CompiledProfile) -> dict[str, str]:
    """How each key is meant to be proven: proven-by-use, proven-by-sample or kcv-only, by key label.

    Whether a sample of a job really was tested is for the job's report to say.
    """
    grade = {"sample": BY_SAMPLE, "kcv-only": "kcv-only"}
    return {key.label: grade.get(key.prove, "proven-by-use") for key in compiled.keys}


def grade_counts(compiled: CompiledProfile) -> Mapping[str, int]:
    """How many keys of a card are proven how once it is good: `proofs`, but what a sample is to prove is not proven on this card."""
    return _grade_counts(ById(compiled))


@lru_cache(maxsize=64)
def _grade_counts(by_id: ById) -> Mapping[str, int]:
    grades = Counter("sample-due" if grade == BY_SAMPLE else grade for grade in proofs(by_id.compiled).values())
    return MappingProxyType(grades)


def round_trips(compiled: CompiledProfile) -> int:
    """Answers a card must give before the next bytes can be sent: identity, personalization, new channel, each external key."""
    return 3 + len(externals(compiled))
