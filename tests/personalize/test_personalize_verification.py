"""The proof that a card works, against the virtual chip: a good card passes, every kind of wrong answer is found."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest

from engine.personalize import verification
from engine.personalize.segment import from_slab, to_slab
from engine.production.card import CardInMaking, lease_commands
from engine.profiles.compile import compile_profile
from engine.profiles.model import load
from engine.virtual.factory import make_blank
from engine.virtual.faults import Faults
from keys.errors import CitycardError, Corrupt, Denied
from tests.personalize.perso_tools import LOT, columns_for, make_custody, pan_of, play
from tests.profiles.profile_tools import NAME, application, loaded, shipped

COMPILED = compile_profile(load(NAME), 16)


@pytest.fixture(scope="module")
def custody(tmp_path_factory):
    with make_custody(tmp_path_factory.mktemp("custody"), COMPILED.loaded.profile) as store:
        yield store


def encoded(custody, directory, faults=None, compiled=COMPILED):
    """A personalized chip and its card, with the first proof segment ready."""
    chip = make_blank(directory, lot=LOT, serial=os.urandom(8), faults=faults)
    chip.power_on()
    challenge = os.urandom(8)
    answers = [chip.transmit(command) for command in lease_commands(compiled, challenge)]
    card = CardInMaking(compiled, custody, 11)
    identity = card.open(challenge, answers[-1][:-2])
    card.prepare(columns_for(identity.serial, pan_of(16)))
    slab = play(chip, card.personalization())
    card.accept_personalization(slab)
    return chip, card, card.first_proof(slab)


def prove(chip, card, segment, spoil=lambda number, answers: answers):
    """The whole conversation; number of segments."""
    count = 0
    while segment is not None:
        slab = to_slab(spoil(count, from_slab(play(chip, segment))))
        segment = card.next_proof(slab)
        count += 1
    return count


def test_a_full_card_passes_and_every_key_to_be_used_was_used(custody, tmp_path):
    chip, card, segment = encoded(custody, tmp_path)
    proved, segments = Counter(), [segment]
    while segments[-1] is not None:
        proved.update(step.proves for step in card._steps if step.proves)
        segments.append(card.next_proof(play(chip, segments[-1])))
    by_use = {label for label, grade in verification.proofs(COMPILED).items() if grade == "proven-by-use"}
    assert proved == Counter(by_use)
    assert len(by_use) > 15
    assert verification.round_trips(COMPILED) == 2 + len(segments) - 1
    assert not any(s.journal_answers for s in segments[:-1])
    card.close()


def test_no_balance_moves_and_no_pin_is_sent(custody, tmp_path):
    chip, card, segment = encoded(custody, tmp_path)
    while segment is not None:
        assert {c[1] for c in segment.commands} <= {0xA4, 0xB2, 0xB0, 0x88, 0x50, 0xA8, 0xAE, 0x84, 0x82}
        segment = card.next_proof(play(chip, segment))
    chip.transmit(verification.select(bytes.fromhex(application(shipped(), "transport")["aid"])))
    assert chip.transmit(bytes.fromhex("805C000204")) == bytes.fromhex("000000009000")


@pytest.mark.parametrize("lie", ["internal-authenticate", "initialize-for-load", "generate-ac", "read-record"])
def test_a_lying_chip_is_found(custody, tmp_path, lie):
    chip, card, segment = encoded(custody, tmp_path, Faults(lies=[lie]))
    with pytest.raises(Denied) as error:
        prove(chip, card, segment)
    assert error.value.reason == "VERIFY_FAILED"


def test_a_verifier_that_denies_is_found(custody, tmp_path):
    chip, card, segment = encoded(custody, tmp_path, Faults(lies=["external-authenticate"]))
    with pytest.raises(Denied) as error:
        prove(chip, card, segment)
    assert error.value.reason == "VERIFY_FAILED"
    assert "INS 82" in error.value.message


def test_answers_that_are_cut_or_grown_are_found_whatever_the_command(custody, tmp_path):
    """Also where a check takes the answer apart: nothing but the project's own errors comes out of it."""
    chip, card, segment = encoded(custody, tmp_path)
    answers = from_slab(play(chip, segment))
    steps = list(card._steps)
    checked = 0
    for step, answer in zip(steps, answers, strict=True):
        data = answer[:-2]
        step.check(data)
        if step.check is verification.anything:
            continue
        for wrong in (b"", data[:-1], data[:5], data + b"\0", bytes(len(data) + 3)):
            if wrong != data:
                with pytest.raises(Denied) as error:
                    step.check(wrong)
                assert error.value.reason == "VERIFY_FAILED"
                checked += 1
    assert checked > 100


def test_every_bit_of_a_cryptogram_counts(custody, tmp_path):
    chip, card, segment = encoded(custody, tmp_path)
    answers = from_slab(play(chip, segment))
    for step, answer in zip(card._steps, answers, strict=True):
        if step.proves is None:
            continue
        # INITIALIZE FOR LOAD: the 12 bytes before MAC1 are the card's to choose, but MAC1 covers balance, sequence and random
        for at in range(len(answer) - 2):
            if step.command[1] == 0x50 and at in (6, 7):
                continue
            wrong = bytearray(answer[:-2])
            wrong[at] ^= 0x10
            with pytest.raises(Denied):
                step.check(bytes(wrong))


def test_the_message_shows_neither_answer_nor_expectation(custody, tmp_path):
    chip, card, segment = encoded(custody, tmp_path, Faults(lies=["read-record"]))
    with pytest.raises(Denied) as error:
        prove(chip, card, segment)
    assert "file" in error.value.message
    assert "41010419870124868X" not in error.value.message


def test_missing_answers_are_an_unknown_outcome(custody, tmp_path):
    chip, card, segment = encoded(custody, tmp_path)
    whole = from_slab(play(chip, segment))
    for answers, reason in (
        (whole[:-1], "ANSWERS_MISSING"),
        ([*whole, b"\x90\x00"], "ANSWERS_MISSING"),
        ([*whole[:-1], b""], "ANSWER_SHORT"),
        ([*whole[:-1], b"\x90"], "ANSWER_SHORT"),
        ([b"\x6a\x82"], "VERIFY_FAILED"),
    ):
        with pytest.raises(CitycardError) as error:
            card.next_proof(to_slab(answers))
        assert error.value.reason == reason
    with pytest.raises(Corrupt) as error:
        card.next_proof(to_slab(whole)[:-1])
    assert error.value.reason == "SLAB_INVALID"


def test_a_load_key_of_a_df_without_files_is_proven_too():
    """Whatever a profile says is proven by use has its command."""
    data = shipped()
    transport = application(data, "transport")
    transport["dgis"] = [d for d in transport["dgis"] if not d["id"].startswith("B00")]
    for key_set in transport["keysets"]:
        key_set["df"] = "A00000063201010577"
    compiled = compile_profile(loaded(data))
    material = verification.CardMaterial(np.ones((len(compiled.keys), 16), np.uint8), np.frombuffer(compiled.template, np.uint8))
    talk = verification.conversation(compiled, material, lambda _, length: bytes(length))
    proved, steps = set(), next(talk)
    try:
        while True:
            proved |= {step.proves for step in steps if step.proves}
            steps = talk.send([bytes(8 if "8400000008" in s.command.hex() else 16) for s in steps])
    except StopIteration:
        pass
    assert proved == {label for label, grade in verification.proofs(compiled).items() if grade == "proven-by-use"}
