"""Segments for many cards at once are, byte for byte, those of one card after another; and real (virtual) chips take them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engine.personalize.batch import Segments, scp02_segments, scp03_segments
from engine.personalize.image import build_images, derive_keys, pin_blocks
from engine.personalize.script import cut, script_of
from engine.production.card import CardInMaking, lease_commands, static_keys
from engine.profiles.compile import compile_profile
from engine.profiles.model import load
from engine.virtual.factory import make_blank
from keys.custody.software import SoftwareCustody
from keys.errors import InvalidInput
from tests.personalize.perso_tools import LOT, columns_for, make_custody, pan_of

PROFILES = {name: load(name) for name in ("zhengzhou-citizen-card", "zhengzhou-citizen-card-scp02")}
COMPILED = {name: compile_profile(loaded, 19) for name, loaded in PROFILES.items()}
CARDS = 3


@pytest.fixture(scope="module", params=sorted(PROFILES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def custody(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareCustody]:
    with make_custody(tmp_path_factory.mktemp("custody"), PROFILES[name].profile) as store:
        yield store


class Batch:
    """Some blanks, presented: what the station sends, and the arrays made of it."""

    def __init__(self, name: str, custody: SoftwareCustody, directory: Any) -> None:
        compiled = COMPILED[name]
        self.compiled, self.custody, self.name = compiled, custody, name
        kind = compiled.loaded.profile.chip.chip_type.encode()
        self.chips = [make_blank(directory / str(i), lot=LOT, serial=os.urandom(8), chip_type=kind) for i in range(CARDS)]
        self.challenges = [os.urandom(8) for _ in self.chips]
        self.responses = []
        for chip, challenge in zip(self.chips, self.challenges, strict=True):
            chip.power_on()
            self.responses.append([chip.transmit(command) for command in lease_commands(compiled, challenge)][-1][:-2])

    def one_by_one(self) -> list[tuple[bytes, ...]]:
        made = []
        for challenge, response in zip(self.challenges, self.responses, strict=True):
            card = CardInMaking(self.compiled, self.custody, 7)
            identity = card.open(challenge, response)
            card.prepare(columns_for(identity.serial, pan_of(19)))
            made.append(card.personalization().commands[:-2])
            card.close()
        return made

    def together(self) -> Segments:
        channel = self.compiled.loaded.profile.channel
        kdds = [response[:10] for response in self.responses]
        static, issuer = (
            np.ascontiguousarray(np.stack([static_keys(self.custody, source, kdd).array[:, 0] for kdd in kdds], axis=1))
            for source in (channel.transport, channel.issuer)
        )
        images = []
        for kdd in kdds:
            columns = columns_for(kdd[2:], pan_of(19))
            keys = derive_keys(self.compiled, columns, self.custody)
            pins = pin_blocks(self.custody.hmac_key("pin"), [7], self.compiled.loaded.profile.pin.digits)
            images.append(build_images(self.compiled, columns, keys, pins).array[0].copy())
        make = scp02_segments if channel.protocol == "scp02" else scp03_segments
        challenges = np.frombuffer(b"".join(self.challenges), np.uint8).reshape(-1, 8)
        responses = np.frombuffer(b"".join(self.responses), np.uint8).reshape(CARDS, -1)
        return make(script_of(self.compiled), int(channel.level, 16), static, challenges, responses, np.stack(images), issuer)


def test_a_batch_is_its_cards(name: str, custody: SoftwareCustody, tmp_path: Any) -> None:
    batch = Batch(name, custody, tmp_path)
    expected, made = batch.one_by_one(), batch.together()
    assert made.proven.all()
    for row in range(CARDS):
        commands = [made.authenticate[row].tobytes(), *cut(made.commands[row], made.lengths)]
        assert commands == list(expected[row])
        assert {batch.chips[row].transmit(command)[-2:] for command in commands} == {b"\x90\x00"}


def test_a_card_with_a_wrong_cryptogram_gets_nothing_and_the_others_do(name: str, custody: SoftwareCustody, tmp_path: Any) -> None:
    batch = Batch(name, custody, tmp_path)
    at = 20 if name.endswith("scp02") else 21
    liar = bytearray(batch.responses[1])
    liar[at] ^= 1
    expected = batch.one_by_one()
    batch.responses[1] = bytes(liar)
    made = batch.together()
    assert made.proven.tolist() == [True, False, True]
    assert not made.authenticate[1].any()
    assert not made.commands[1].any()
    assert [made.authenticate[2].tobytes(), *cut(made.commands[2], made.lengths)] == list(expected[2])


def test_shapes_that_do_not_fit_are_refused(name: str, custody: SoftwareCustody, tmp_path: Any) -> None:
    script = script_of(COMPILED[name])
    make = scp02_segments if name.endswith("scp02") else scp03_segments
    keys, other = np.ones((3, 2, 16), np.uint8), np.ones((3, 3, 16), np.uint8)
    rows = np.zeros((2, 8), np.uint8), np.zeros((2, 32), np.uint8), np.zeros((2, script.image_len), np.uint8)
    with pytest.raises(InvalidInput):
        make(script, 3, other, *rows, keys)
    with pytest.raises(InvalidInput):
        make(script, 3, keys, *rows, other)
    with pytest.raises(InvalidInput):
        make(script, 3, keys, rows[0], rows[1], np.zeros((0, script.image_len), np.uint8), keys)
