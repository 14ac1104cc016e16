"""Recorded chips against the real host side: every check the server makes, for both profiles and all PAN lengths."""

from __future__ import annotations

import os

import pytest

from engine.load.cardside import makers_keys
from engine.load.chips import Recording
from engine.load.rehearsal import RehearsedChip
from engine.personalize.segment import to_slab
from engine.production.card import CardInMaking, lease_commands
from engine.profiles.compile import compile_profile
from engine.profiles.model import load
from engine.virtual.birth import TEST_KMC, cps, kdf3
from keys.errors import CitycardError, Corrupt, Unsupported
from tests.personalize.perso_tools import columns_for, make_custody, pan_of
from tests.profiles.profile_tools import NAME

PROFILES = {name: load(name) for name in (NAME, f"{NAME}-scp02")}


@pytest.fixture(scope="module", params=sorted(PROFILES))
def loaded(request):
    return PROFILES[request.param]


@pytest.fixture(scope="module")
def custody(loaded, tmp_path_factory):
    with make_custody(tmp_path_factory.mktemp("custody"), loaded.profile) as store:
        yield store


@pytest.fixture
def recording(loaded, custody, tmp_path):
    made = Recording(loaded)
    make_card(RehearsedChip(made, os.urandom(10), tmp_path), custody, compile_profile(loaded, 19))
    return made


def make_card(chip, custody, compiled, spoil=None):
    """Host and chip from the lease to the last proof; number of segments. `spoil` changes the answers of one segment."""
    challenge = os.urandom(8)
    chip.power_on()
    response = chip.play(to_slab(lease_commands(compiled, challenge)))[-1][:-2]
    card = CardInMaking(compiled, custody, 5)
    identity = card.open(challenge, response)
    card.prepare(columns_for(identity.serial, pan_of(compiled.pan_digits)))
    segments = 0

    def played(segment):
        nonlocal segments
        answers = chip.play(to_slab(segment.commands))
        if spoil is not None:
            spoil(segments, answers)
        segments += 1
        return to_slab(answers)

    try:
        slab = played(card.personalization())
        card.accept_personalization(slab)
        segment = card.first_proof(slab)
        while segment is not None:
            segment = card.next_proof(played(segment))
    finally:
        card.close()
    return segments


def test_the_host_accepts_a_card_of_every_pan_length(recording, loaded, custody):
    segments = set()
    for digits, chip in zip(range(12, 20), recording.make([os.urandom(10) for _ in range(8)]), strict=True):
        segments.add(make_card(chip, custody, compile_profile(loaded, digits)))
    assert segments == {7}


@pytest.mark.parametrize("segment", range(7))
def test_a_spoiled_answer_of_a_recorded_chip_is_refused(recording, loaded, custody, segment):
    """The checks do look at what recorded chips answer: one changed byte, and the card is no good one."""

    def spoil(number, answers):
        if number == segment:
            # what is checked: the PUT KEY echo or a status word, a file's content, the word on an external authentication
            at = (
                next(i for i, answer in enumerate(answers) if len(answer) > 2 and answer[0] != 0x6F)
                if number == 1
                else 3
                if number == 0
                else 0
            )
            answers[at] = bytes([answers[at][0] ^ 1]) + answers[at][1:]

    with pytest.raises(CitycardError):
        make_card(recording.make([os.urandom(10)])[0], custody, compile_profile(loaded, 19), spoil)


def test_makers_keys_in_bulk_are_those_of_the_maker():
    kdds = [os.urandom(10) for _ in range(5)]
    assert makers_keys("scp03", kdds) == [kdf3(TEST_KMC, kdd) for kdd in kdds]
    assert makers_keys("scp02", kdds) == [cps(TEST_KMC, kdd) for kdd in kdds]


def test_a_command_that_was_never_recorded_is_refused_by_name(recording):
    layout, recipes = recording._layouts[0]
    assert layout.compiled.pan_digits == 19
    with pytest.raises(Unsupported, match="00A40400") as caught:
        recipes.of(b"", [bytes.fromhex("00A4040005F00000000100")])
    assert caught.value.reason == "NOT_RECORDED"


def test_a_personalization_of_another_profile_is_refused(recording):
    chip = recording.make([os.urandom(10)])[0]
    with pytest.raises(Unsupported) as caught:
        chip.play(to_slab([b"\x84" + bytes(20)] * 3))
    assert caught.value.reason == "NOT_RECORDED"


def test_a_damaged_command_does_not_pass(tmp_path):
    """With SCP03 the C-MAC chain is computed over what was received: a recorded chip is no yes-man."""
    scp03 = PROFILES[NAME]
    compiled = compile_profile(scp03, 19)
    with make_custody(tmp_path / "custody", scp03.profile) as custody:
        made = Recording(scp03)
        make_card(RehearsedChip(made, os.urandom(10), tmp_path), custody, compiled)
        chip = made.make([os.urandom(10)])[0]
        challenge = os.urandom(8)
        response = chip.play(to_slab(lease_commands(compiled, challenge)))[-1][:-2]
        card = CardInMaking(compiled, custody, 5)
        identity = card.open(challenge, response)
        card.prepare(columns_for(identity.serial, pan_of(19)))
        slab = bytearray(to_slab(card.personalization().commands))
        card.close()
        slab[30] ^= 1  # a MAC-protected byte of the first secured command
        with pytest.raises((Corrupt, Unsupported)) as caught:
            chip.play(bytes(slab))
    assert caught.value.reason in {"COMMAND_MAC", "NOT_RECORDED"}


def test_the_recording_is_compared_with_the_true_chip(loaded, custody, tmp_path):
    """A recorded chip with other data than the true one is found out while the first card is made."""
    made = Recording(loaded)
    chip = RehearsedChip(made, os.urandom(10), tmp_path)
    chip._twin._channel.kdd = os.urandom(10)
    with pytest.raises(Corrupt) as caught:
        make_card(chip, custody, compile_profile(loaded, 19))
    assert caught.value.reason == "RECORDING_DIFFERS"
