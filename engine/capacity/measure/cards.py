"""What a card costs in computing: its image with every key and check value, and its secured segment, for one card and for many at once.

The cards are made up (`engine.orders.synthetic`), the keys those of the custody given, the chips' answers right.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.capacity.distribution import Distribution
from engine.capacity.measure.probe import rounds, shares
from engine.capacity.profile import Measurement
from engine.orders.reading import read_orders
from engine.orders.rules import Rules
from engine.orders.source import OrderSource
from engine.orders.synthetic import order_file
from engine.personalize.batch import scp02_segments, scp03_segments
from engine.personalize.columns import Column
from engine.personalize.image import build_images, derive_keys, pin_blocks
from engine.personalize.scp02 import Scp02Session
from engine.personalize.scp03 import Scp03Session
from engine.personalize.script import script_of
from engine.profiles.compile import CompiledProfile, channel_derivations
from engine.profiles.model import ChannelKeys
from keys import sessions
from keys.custody import Custody
from keys.custody.policy import working_for
from keys.secrets import SecretArray

ByteArray = npt.NDArray[np.uint8]

BATCHES: Final = (1, 64, 1024)
_HASH_KEY: Final = bytes(16)
# INITIALIZE UPDATE: key diversification data, key version, protocol (GPCS E.5.1.6; GPC Amendment D 7.1.1.6)
_LEN_02: Final = 28
_LEN_03: Final = 32


def card_columns(compiled: CompiledProfile, rows: int) -> dict[str, Column]:
    """Columns of `rows` made-up orders, with serial numbers, PSN and chip serials as a first attempt would have them."""
    source = OrderSource(io.BytesIO(b"".join(order_file(rows))))
    batches = list(read_orders(source, Rules(), _HASH_KEY, batch_lines=max(rows, 2)))
    columns: dict[str, Column] = {name: np.concatenate([batch.columns[name] for batch in batches]) for name in batches[0].columns}
    columns["psn"] = np.full(rows, b"00")
    columns["chip_serial"] = np.arange(1, rows + 1, dtype=">u8").view(np.uint8).reshape(rows, 8)
    for pool in compiled.loaded.profile.serials:
        digits = [pool.prefix + str(row).zfill(pool.digits - len(pool.prefix)) for row in range(1, rows + 1)]
        columns[f"{pool.name}_serial"] = np.array([text.encode() for text in digits])
    return columns


def image_seconds(compiled: CompiledProfile, custody: Custody, seconds: float, batches: Sequence[int] = BATCHES) -> list[Measurement]:
    """`image_seconds`, s per card by batch: from columns to the finished image, every key derived and checked, everything wiped after."""
    found = []
    for batch in batches:
        columns = card_columns(compiled, batch)
        pins = pin_blocks(custody.hmac_key("pin"), range(batch), compiled.loaded.profile.pin.digits)

        def work(columns: Mapping[str, Column] = columns, pins: ByteArray = pins) -> None:
            with derive_keys(compiled, columns, custody) as keys, build_images(compiled, columns, keys, pins):
                return

        with working_for(compiled.loaded.profile.name):
            taken = rounds(work, shares(seconds, batches))
        found.append(_per_card("image_seconds", compiled, batch, taken))
    return found


def segment_seconds(compiled: CompiledProfile, custody: Custody, seconds: float, batches: Sequence[int] = BATCHES) -> list[Measurement]:
    """`segment_seconds`, s per card by batch: session keys, cryptograms, secrets under the DEK, every command wrapped."""
    profile = compiled.loaded.profile
    script, level = script_of(compiled), int(profile.channel.level, 16)
    make = scp02_segments if profile.channel.protocol == "scp02" else scp03_segments
    found = []
    for batch in batches:
        random = np.random.default_rng(batch)
        challenges = random.integers(0, 256, (batch, 8), np.uint8)
        images = random.integers(0, 256, (batch, compiled.image_len), np.uint8)
        kdd = random.integers(0, 256, (batch, 10), np.uint8)
        with (
            working_for(profile.name),
            _static(custody, profile.channel.transport, kdd) as static,
            _static(custody, profile.channel.issuer, kdd) as issuer,
        ):
            answers = _answers(compiled, static.array, challenges, kdd)

            cards = _Cards(static.array, challenges, answers, images, issuer.array)
            work = partial(_alone, compiled, cards) if batch == 1 else partial(make, script, level, *cards)
            taken = rounds(work, shares(seconds, batches))
        found.append(_per_card("segment_seconds", compiled, batch, taken))
    return found


class _Cards(NamedTuple):
    """Inputs of segments, as `engine.personalize.batch` takes them."""

    static: ByteArray
    challenges: ByteArray
    answers: ByteArray
    images: ByteArray
    issuer: ByteArray


def _alone(compiled: CompiledProfile, cards: _Cards) -> bytes:
    """One card's slab by a session of its own, as a server makes them for a station."""
    script, channel = script_of(compiled), compiled.loaded.profile.channel
    keys, challenge, answer = list(cards.static[:, 0]), cards.challenges[0].tobytes(), cards.answers[0].tobytes()
    i, level = int(channel.i, 16), int(channel.level, 16)
    protocol = Scp02Session if channel.protocol == "scp02" else Scp03Session
    with protocol.open(keys, challenge, answer, i=i, level=level) as session, SecretArray(script.rows(cards.images)) as rows:
        row = rows.array[0]
        secrets = np.concatenate([row[script.single], cards.issuer[:, 0]])
        hidden = np.frombuffer(session.dek_encrypt_blocks(secrets.data.cast("B")), np.uint8).reshape(-1, 16)
        row[script.single] = hidden[: len(script.single)]
        for offset, length in script.longer:
            row[offset : offset + length] = np.frombuffer(session.dek_encrypt(row[offset : offset + length].data), np.uint8)
        return session.wrap_segment(script, row)


def _per_card(quantity: str, compiled: CompiledProfile, batch: int, taken: list[float]) -> Measurement:
    labels = {"profile": compiled.loaded.profile.name, "batch": str(batch)}
    return Measurement(quantity, "s", labels, Distribution.of(np.asarray(taken) / batch))


def _static(custody: Custody, source: ChannelKeys, kdd: ByteArray) -> SecretArray:
    return custody.derive(channel_derivations(source), [kdd] * 3)


def _answers(compiled: CompiledProfile, static: ByteArray, challenges: ByteArray, kdd: ByteArray) -> ByteArray:
    """What true chips answer to INITIALIZE UPDATE."""
    n = len(kdd)
    scp02 = compiled.loaded.profile.channel.protocol == "scp02"
    answers = np.random.default_rng(n).integers(0, 256, (n, _LEN_02 if scp02 else _LEN_03), np.uint8)
    channel = compiled.loaded.profile.channel
    answers[:, :10], answers[:, 10] = kdd, int(channel.transport.kvn, 16)
    answers[:, 11] = 2 if scp02 else 3
    if scp02:
        with SecretArray(
            sessions.scp02_session_keys(static[0], static[1], static[2], np.ascontiguousarray(answers[:, 12:14])).s_enc
        ) as s_enc:
            both = sessions.scp02_cryptograms(s_enc.array, answers[:, 12:14], answers[:, 14:20], challenges)
        answers[:, 20:28] = both.card
    else:
        answers[:, 12] = int(channel.i, 16)
        card = np.ascontiguousarray(answers[:, 13:21])
        with SecretArray(sessions.scp03_session_keys(static[0], static[1], challenges, card).s_mac) as s_mac:
            answers[:, 21:29] = sessions.scp03_cryptograms(s_mac.array, challenges, card).card
    return answers
