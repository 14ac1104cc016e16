"""The SCP02 card in the making against the virtual chip: made, proven under new keys, rebuilt; and everything that must be refused."""

from __future__ import annotations

import os

import pytest

from engine.personalize.scp02 import Scp02Session
from engine.personalize.script import script_of
from engine.personalize.segment import from_slab, to_slab
from engine.production.card import CardInMaking, lease_commands
from engine.profiles.compile import compile_profile
from engine.profiles.model import load
from engine.virtual.birth import CHIP_TYPE_SCP02
from engine.virtual.factory import make_blank
from engine.virtual.faults import Faults
from keys.errors import CitycardError, Corrupt, Denied
from keys.kcv import kcv
from tests.personalize.perso_tools import LOT, columns_for, make_custody, pan_of, play
from tests.profiles.profile_tools import NAME

PROFILE = load(f"{NAME}-scp02")
COMPILED = compile_profile(PROFILE, 19)


@pytest.fixture(scope="module")
def custody(tmp_path_factory):
    with make_custody(tmp_path_factory.mktemp("custody"), PROFILE.profile) as store:
        yield store


class Line:
    """A blank in a head, up to its INITIALIZE UPDATE answer."""

    def __init__(self, directory, faults=None, chip_type=CHIP_TYPE_SCP02):
        self.chip = make_blank(directory, lot=LOT, serial=os.urandom(8), faults=faults, chip_type=chip_type)
        self.chip.power_on()
        self.challenge = os.urandom(8)
        self.response = [self.chip.transmit(command) for command in lease_commands(COMPILED, self.challenge)][-1][:-2]

    def prepared(self, custody):
        card = CardInMaking(COMPILED, custody, 5)
        identity = card.open(self.challenge, self.response)
        self.columns = columns_for(identity.serial, pan_of(19))
        self.digest = card.prepare(self.columns)
        return card


def finish(chip, card, segment):
    while segment is not None:
        segment = card.next_proof(play(chip, segment))
    card.close()


def test_a_card_is_made_and_proven(custody, tmp_path):
    line = Line(tmp_path)
    card = line.prepared(custody)
    assert isinstance(card._session, Scp02Session)
    slab = play(line.chip, card.personalization())
    card.accept_personalization(slab)
    finish(line.chip, card, card.first_proof(slab))
    # the maker's keys are gone, the issuer's answer
    line.chip.transmit(bytes.fromhex("00A4040008A00000015100000000"))
    assert line.chip.transmit(bytes.fromhex("8050300008" + "11" * 8 + "00")) == b"\x6a\x88"
    assert line.chip.transmit(bytes.fromhex("8050310008" + "11" * 8 + "00"))[10:12] == b"\x31\x02"


def test_put_key_has_the_form_of_scp02(custody, tmp_path):
    card = Line(tmp_path).prepared(custody)
    row, put_key = card._row(card._session, card._image, card._issuer), script_of(COMPILED).apdus[-2]
    data = row[put_key["offset"] :][: put_key["length"]].tobytes()
    assert put_key["ins"] == 0xD8
    assert len(data) == 1 + 3 * 22
    assert data[0] == 0x31
    for i in range(3):
        block, key = data[1 + 22 * i : 23 + 22 * i], card._issuer.array[i, 0]
        assert block[:2] == b"\x80\x10"
        assert block[2:18] == card._session.dek_encrypt(key.tobytes())
        assert block[18:] == b"\x03" + kcv("3des", key, "zero-block")


def test_no_secret_is_on_the_wire(custody, tmp_path):
    card = Line(tmp_path).prepared(custody)
    wire = b"".join(card.personalization().commands)
    image = card._image.array[0].tobytes()
    assert not [offset for offset, _ in COMPILED.key_offsets if image[offset : offset + 16] in wire]
    assert pan_of(19) not in wire
    script = script_of(COMPILED)
    stream = card._row(card._session, card._image, card._issuer)[script.image_at :][: len(image)].tobytes()
    for offset, length in COMPILED.spans:
        assert stream[offset : offset + length] == card._session.dek_encrypt(image[offset : offset + length])
    secret = {at for offset, length in COMPILED.spans for at in range(offset, offset + length)}
    assert all(stream[at] == image[at] for at in range(len(image)) if at not in secret)


def test_a_restart_goes_on(custody, tmp_path):
    line = Line(tmp_path)
    first = line.prepared(custody)
    slab = play(line.chip, first.personalization())
    first.close()
    again = CardInMaking(COMPILED, custody, 5)
    again.rebuild(line.challenge, line.response, line.columns, line.digest)
    again.personalization_again(slab)
    finish(line.chip, again, again.first_proof(play(line.chip, again.reopen())))


@pytest.mark.parametrize("at", range(28))
def test_what_the_chip_claims_is_proven(custody, tmp_path, at):
    """Four KDD bytes are not in the EMV CPS template: the cryptogram proves the last six of the ten."""
    line = Line(tmp_path)
    changed = bytearray(line.response)
    changed[at] ^= 0x01
    card = CardInMaking(COMPILED, custody, 5)
    if at < 4:
        card.open(line.challenge, bytes(changed))
        return
    with pytest.raises(CitycardError) as error:
        card.open(line.challenge, bytes(changed))
    assert error.value.reason in ("CARD_CRYPTOGRAM", "CHIP_OTHER_KEYS", "CHIP_GARBAGE")


def test_a_wrong_check_value_in_the_echo_of_put_key_is_refused(custody, tmp_path):
    line = Line(tmp_path)
    card = line.prepared(custody)
    answers = from_slab(play(line.chip, card.personalization()))
    answers[-4] = answers[-4][:3] + bytes([answers[-4][3] ^ 1]) + answers[-4][4:]
    with pytest.raises(Denied) as error:
        card.accept_personalization(to_slab(answers))
    assert error.value.reason == "VERIFY_FAILED"


def test_an_applet_that_lies_is_caught_by_the_proof(custody, tmp_path):
    """Nothing authenticates the answers of the personalization: what a card is good for, its keys must prove in use."""
    line = Line(tmp_path, faults=Faults(lies=["internal-authenticate"]))
    card = line.prepared(custody)
    slab = play(line.chip, card.personalization())
    card.accept_personalization(slab)
    with pytest.raises(Denied) as error:
        finish(line.chip, card, card.first_proof(slab))
    assert error.value.reason == "VERIFY_FAILED"


def test_wrong_transport_keys_and_chips_of_the_other_protocol_are_refused(custody, tmp_path):
    wrong = Line(tmp_path / "a", faults=Faults(wrong_transport_keys=True))
    other = Line(tmp_path / "b", chip_type=b"ZZC01")
    for line, kind, reason in ((wrong, Denied, "CARD_CRYPTOGRAM"), (other, Corrupt, "CHIP_GARBAGE")):
        card = CardInMaking(COMPILED, custody, 5)
        with pytest.raises(kind) as error:
            card.open(line.challenge, line.response)
        assert error.value.reason == reason
        assert card.identity is None
