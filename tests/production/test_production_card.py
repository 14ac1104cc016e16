"""One card in the making against the virtual chip: for every PAN length, across a restart, and with everything that must be refused."""

from __future__ import annotations

import os

import numpy as np
import pytest

from engine.personalize.script import script_of
from engine.personalize.segment import from_slab, to_slab
from engine.production.card import CardInMaking, identity_of, lease_commands
from engine.profiles.compile import compile_profile
from engine.profiles.model import load
from engine.virtual.factory import make_blank, open_chip
from engine.virtual.faults import Faults
from keys.errors import CitycardError, Corrupt, Denied
from tests.personalize.perso_tools import LOT, columns_for, make_custody, pan_of, play
from tests.profiles.profile_tools import NAME

PROFILE = load(NAME)
COMPILED = compile_profile(PROFILE, 19)


@pytest.fixture(scope="module")
def custody(tmp_path_factory):
    with make_custody(tmp_path_factory.mktemp("custody"), PROFILE.profile) as store:
        yield store


class Line:
    """A blank in a head, up to its INITIALIZE UPDATE answer."""

    def __init__(self, directory, compiled=COMPILED, faults=None, **blank):
        self.compiled = compiled
        self.chip = make_blank(directory, lot=LOT, serial=os.urandom(8), faults=faults, **blank)
        self.atr = self.chip.power_on()
        self.challenge = os.urandom(8)
        self.answers = [self.chip.transmit(command) for command in lease_commands(compiled, self.challenge)]
        self.response = self.answers[-1][:-2]

    def card(self, custody, token=5):
        return CardInMaking(self.compiled, custody, token)

    def prepared(self, custody):
        card = self.card(custody)
        identity = card.open(self.challenge, self.response)
        self.columns = columns_for(identity.serial, pan_of(self.compiled.pan_digits))
        self.digest = card.prepare(self.columns)
        return card


def finish(chip, card, segment):
    while segment is not None:
        segment = card.next_proof(play(chip, segment))
    card.close()


@pytest.mark.parametrize("digits", range(12, 20))
def test_a_card_of_every_pan_length(custody, tmp_path, digits):
    line = Line(tmp_path, compile_profile(PROFILE, digits))
    card = line.prepared(custody)
    assert card.identity.chip_id == line.chip.chip_id
    assert line.atr[-9:-1] == card.identity.serial
    assert not card.proving
    slab = play(line.chip, card.personalization())
    card.accept_personalization(slab)
    segment = card.first_proof(slab)
    assert card.proving
    finish(line.chip, card, segment)
    # the holder's PAN is where a terminal reads it
    line.chip.transmit(bytes.fromhex("00A4040008A00000033301010100"))
    record = line.chip.transmit(bytes.fromhex("00B2011C00"))
    pan = pan_of(digits).decode()
    assert bytes.fromhex("5A" + f"{(digits + 1) // 2:02X}" + pan + "F" * (digits % 2)) in record


def test_the_issuers_keys_replace_the_makers(custody, tmp_path):
    line = Line(tmp_path)
    card = line.prepared(custody)
    slab = play(line.chip, card.personalization())
    card.accept_personalization(slab)
    finish(line.chip, card, card.first_proof(slab))
    line.chip.transmit(bytes.fromhex("00A4040008A00000015100000000"))
    assert line.chip.transmit(bytes.fromhex("8050300008" + "11" * 8 + "00")) == b"\x6a\x88"
    assert line.chip.transmit(bytes.fromhex("8050310008" + "11" * 8 + "00"))[10:12] == b"\x31\x03"
    assert line.chip.transmit(bytes.fromhex("80F28000024F0000"))[-2:] in (b"\x90\x00", b"\x69\x82", b"\x69\x85")


def test_no_secret_is_on_the_wire(custody, tmp_path):
    line = Line(tmp_path)
    card = line.prepared(custody)
    wire = b"".join(card.personalization().commands)
    image = card._image.array[0].tobytes()
    for offset, _ in COMPILED.key_offsets:
        assert image[offset : offset + 16] not in wire
    assert "欧阳".encode("gb18030") not in wire
    assert pan_of(19) not in wire
    # and under the channel's encryption keys are still under the DEK
    script = script_of(COMPILED)
    stream = card._row(card._session, card._image, card._issuer)[script.image_at :][: len(image)].tobytes()
    for offset, length in COMPILED.spans:
        assert stream[offset : offset + length] != image[offset : offset + length]
    secret = {at for offset, length in COMPILED.spans for at in range(offset, offset + length)}
    assert all(stream[at] == image[at] for at in range(len(image)) if at not in secret)


def test_a_restart_goes_on_with_the_journaled_answers(custody, tmp_path):
    line = Line(tmp_path)
    first = line.prepared(custody)
    slab = play(line.chip, first.personalization())
    first.close()

    again = line.card(custody)
    again.rebuild(line.challenge, line.response, line.columns, line.digest)
    again.personalization_again(slab)
    reopened = again.reopen()
    assert [c[1] for c in reopened.commands] == [0xA4, 0x50]
    segment = again.first_proof(play(line.chip, reopened))
    finish(line.chip, again, segment)


def test_a_restart_in_the_middle_of_the_proof_begins_the_proof_again(custody, tmp_path):
    line = Line(tmp_path)
    first = line.prepared(custody)
    slab = play(line.chip, first.personalization())
    first.accept_personalization(slab)
    play(line.chip, first.first_proof(slab))
    first.close()

    again = line.card(custody)
    again.rebuild(line.challenge, line.response, line.columns, line.digest)
    finish(line.chip, again, again.first_proof(play(line.chip, again.reopen())))


def test_rebuild_refuses_another_image(custody, tmp_path):
    line = Line(tmp_path)
    line.prepared(custody).close()
    for digest in (b"", bytes(32), line.digest[:-1], line.digest[:-1] + bytes([line.digest[-1] ^ 1])):
        card = line.card(custody)
        with pytest.raises(Corrupt) as error:
            card.rebuild(line.challenge, line.response, line.columns, digest)
        assert error.value.reason == "IMAGE_CHANGED"
    changed = line.columns | {"phone": np.array([b"10065479013"])}
    with pytest.raises(Corrupt):
        line.card(custody).rebuild(line.challenge, line.response, changed, line.digest)
    with pytest.raises(Corrupt):  # another attempt has another PIN
        line.card(custody, token=6).rebuild(line.challenge, line.response, line.columns, line.digest)


def test_a_tampered_response_mac_is_refused(custody, tmp_path):
    line = Line(tmp_path)
    first = line.prepared(custody)
    answers = from_slab(play(line.chip, first.personalization()))
    first.close()
    for at in (1, 7, len(answers) - 4, len(answers) - 3):  # INSTALL, a STORE DATA, PUT KEY, SET STATUS
        spoiled = list(answers)
        spoiled[at] = bytes([spoiled[at][0] ^ 1]) + spoiled[at][1:]
        card = line.card(custody)
        card.rebuild(line.challenge, line.response, line.columns, line.digest)
        with pytest.raises(Denied) as error:
            card.personalization_again(to_slab(spoiled))
        assert error.value.reason == "RESPONSE_MAC"


def test_answers_of_another_card_or_in_another_order_are_refused(custody, tmp_path):
    line = Line(tmp_path)
    card = line.prepared(custody)
    answers = from_slab(play(line.chip, card.personalization()))
    answers[3], answers[4] = answers[4], answers[3]
    with pytest.raises(Denied) as error:
        card.accept_personalization(to_slab(answers))
    assert error.value.reason == "RESPONSE_MAC"


def test_a_wrong_card_cryptogram_is_refused_before_anything_is_sent(custody, tmp_path):
    line = Line(tmp_path, faults=Faults(wrong_transport_keys=True))
    card = line.card(custody)
    with pytest.raises(Denied) as error:
        card.open(line.challenge, line.response)
    assert error.value.reason == "CARD_CRYPTOGRAM"
    assert card.segment is None
    assert card.identity is None
    with pytest.raises(Corrupt) as error:
        card.prepare(columns_for(bytes(8), pan_of(19)))
    assert error.value.reason == "SEQUENCE"
    with pytest.raises(Corrupt):
        card.personalization()


@pytest.mark.parametrize("at", range(29))  # what follows is the sequence counter, which the card's challenge comes from
def test_every_byte_of_the_chips_claim_is_proven(custody, tmp_path, at):
    line = Line(tmp_path)
    changed = bytearray(line.response)
    changed[at] ^= 0x01
    with pytest.raises(CitycardError) as error:
        line.card(custody).open(line.challenge, bytes(changed))
    assert error.value.reason in ("CARD_CRYPTOGRAM", "CHIP_OTHER_KEYS", "CHIP_GARBAGE", "CHANNEL_MODE", "SCP03_S16")


def test_another_key_version_is_refused(custody, tmp_path):
    line = Line(tmp_path, faults=Faults(already_personalized=True))
    # a chip off another line has no transport keys at all
    assert line.answers[-1] == b"\x6a\x88"
    answer = line.chip.transmit(bytes.fromhex("8050000008" + line.challenge.hex() + "00"))[:-2]
    card = line.card(custody)
    with pytest.raises(Denied) as error:
        card.open(line.challenge, answer)
    assert error.value.reason == "CHIP_OTHER_KEYS"
    assert card.segment is None


@pytest.mark.parametrize("response", [b"", bytes(28), bytes(32), bytes(64), b"\x6a\x88"])
def test_garbage_is_no_identity(response):
    with pytest.raises(Corrupt) as error:
        identity_of(response, 0x30)
    assert error.value.reason == "CHIP_GARBAGE"


def test_another_chip_for_the_proof_is_refused(custody, tmp_path):
    line, other = Line(tmp_path / "a"), Line(tmp_path / "b")
    slabs = []
    for one in (line, other):
        card = one.prepared(custody)
        slabs.append(play(one.chip, card.personalization()))
        card.accept_personalization(slabs[-1])
        one.made = card
    reopened = line.made.reopen()
    with pytest.raises(CitycardError) as error:
        line.made.first_proof(play(other.chip, reopened))
    assert error.value.reason == "CHIP_CHANGED"


def test_a_torn_personalization_is_not_accepted(custody, tmp_path):
    line = Line(tmp_path)
    card = line.prepared(custody)
    segment = card.personalization()
    answers = [line.chip.transmit(command) for command in segment.commands[:20]]
    with pytest.raises(Corrupt) as error:
        card.accept_personalization(to_slab(answers))
    assert error.value.reason == "ANSWERS_MISSING"


def test_a_refusing_chip_is_named_by_its_command(custody, tmp_path):
    line = Line(tmp_path, faults=Faults(personalized_applets=["A000000632010105"]))
    card = line.prepared(custody)
    with pytest.raises(Corrupt) as error:
        card.accept_personalization(play(line.chip, card.personalization()))
    assert error.value.reason == "ANSWER_UNEXPECTED"
    assert "INS E6" in error.value.message


def test_steps_out_of_order_are_refused(custody, tmp_path):
    line = Line(tmp_path)
    card = line.card(custody)
    for step in (card.personalization, lambda: card.accept_personalization(b""), lambda: card.next_proof(b"")):
        with pytest.raises(Corrupt) as error:
            step()
        assert error.value.reason == "SEQUENCE"
    card.close()
    card.close()


def test_close_wipes_what_the_card_held(custody, tmp_path):
    line = Line(tmp_path)
    card = line.prepared(custody)
    image, keys = card._image.array, card._keys.array
    assert image.any()
    assert keys.any()
    card.close()
    assert not image.any()
    assert not keys.any()
    assert card._session is None


def test_a_finished_chip_keeps_its_memory(custody, tmp_path):
    line = Line(tmp_path)
    card = line.prepared(custody)
    slab = play(line.chip, card.personalization())
    card.accept_personalization(slab)
    finish(line.chip, card, card.first_proof(slab))
    line.chip.power_off()
    chip = open_chip(tmp_path, card.identity.chip_id)
    chip.power_on()
    chip.transmit(bytes.fromhex("00A4040008A00000063201010500"))
    assert len(chip.transmit(bytes.fromhex("00B0950000"))) == 30 + 2
