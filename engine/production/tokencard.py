"""One card in the making whose keys never leave the token: the same steps and the same bytes as `CardInMaking`, by calls of the token.

All masters of such a card, its channel's included, are token-only. Static and session keys, card keys, their check values and the answers
of the proof are made in the token; the image holds cryptograms under the card's DEK in the places of its secrets. What the host sees are
cryptograms, check values, MACs, personal data, and the PIN, which is the host's own (see `image.pin_blocks`). The segment is finished
before INTENT: a token lost by then costs no blank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np

from engine.personalize import verification
from engine.personalize.columns import Bytes2D, Column
from engine.personalize.image import all_factors, fill_images, image_digest, pin_blocks
from engine.personalize.securechannel import SecureChannel
from engine.personalize.segment import Segment
from engine.personalize.tokencard import TokenMaterial, card_keys, require_possible, spans_of
from engine.personalize.tokenchannel import TokenChannel
from engine.production.card import CardInMaking
from engine.profiles.compile import CompiledProfile, channel_derivations
from engine.profiles.model import ChannelKeys
from keys.custody import Custody
from keys.custody.policy import working_for
from keys.custody.token import TokenCustody
from keys.custody.token.cardkeys import CardKey, Wrapped
from keys.custody.token.custody import holder_of
from keys.errors import Corrupt, Unsupported
from keys.secrets import BytesLike, SecretArray


def card_in_making(compiled: CompiledProfile, custody: Custody, token: int) -> CardInMaking:
    """A card to be made: in the token, where its channel master is token-only, else in the host.

    Raises Unsupported (TOKEN_ONLY_SCP02, TOKEN_ALGORITHM, TOKEN_LAYOUT) for a profile whose cards cannot be made in a token.
    """
    holder = holder_of(custody, compiled.loaded.profile.channel.transport.master)
    return CardInMaking(compiled, custody, token) if holder is None else TokenCard(compiled, custody, token, holder)


class TokenCard(CardInMaking):
    """See `CardInMaking`; use `card_in_making`."""

    def __init__(self, compiled: CompiledProfile, custody: Custody, token: int, holder: TokenCustody) -> None:
        require_possible(compiled)
        super().__init__(compiled, custody, token)
        self._holder = holder
        self._spans = spans_of(compiled)
        self._card_keys: list[CardKey] = []
        self._slab = b""

    def prepare(self, columns: Mapping[str, Column]) -> bytes:
        """The image with cryptograms for secrets, and the secured commands; returns the image's keyed digest (32 bytes) for INTENT."""
        session, identity, compiled = self._token_channel(), self._identity(), self.compiled
        kdd = np.frombuffer(identity.kdd, np.uint8)
        issuer: list[list[CardKey | BytesLike]] = [[CardKey(one, kdd)] for one in channel_derivations(self.profile.channel.issuer)]
        self._card_keys = card_keys(compiled, all_factors(compiled, columns))
        with self._pin_secrets() as pins, working_for(self.profile.name):
            known = dict(zip(compiled.pin_offsets, (pin.data for pin in pins.array), strict=True))
            wanted = [[known[at] if index is None else self._card_keys[index] for at, index in span] for span in self._spans]
            made = session.wrap_keys([*wanted, *issuer])
        self._image = self._filled(columns, made[: len(wanted)])
        self._issuer = SecretArray.empty((3, 1, 16))
        for i, (key,) in enumerate(made[len(wanted) :]):
            self._issuer.array[i, 0] = np.frombuffer(key.cryptogram, np.uint8)
        self._checks = b"".join(key.kcv for (key,) in made[len(wanted) :])
        self._slab = session.wrap_segment(self._script, self._row(session, self._image, self._issuer))
        return image_digest(self._image.array[0], self.custody.hmac_key("image-digest"))

    def first_proof(self, slab: bytes) -> Segment:
        with working_for(self.profile.name):
            return super().first_proof(slab)

    def next_proof(self, slab: bytes) -> Segment | None:
        with working_for(self.profile.name):
            return super().next_proof(slab)

    def material(self) -> NoReturn:
        """A token cannot fold the TAC key (left half xor right half), so quality samples are not tested."""
        raise Unsupported("TOKEN_ONLY_SAMPLE", "a sample's TACs are made with a folded key, which no mechanism of a token gives")

    def close(self) -> None:
        super().close()
        self._slab = b""

    # -- instead of the host's ---------------------------------------------------------------------------------------------

    def _transport_channel(self, kdd: bytes, host_challenge: bytes, response: bytes) -> SecureChannel:  # noqa: ARG002 - the response says it
        return self._open_channel(self.profile.channel.transport, host_challenge, response)

    def _issuer_channel(self, response: bytes) -> SecureChannel:
        with working_for(self.profile.name):
            return self._open_channel(self.profile.channel.issuer, self._proof_challenge, response)

    def _open_channel(self, source: ChannelKeys, host_challenge: bytes, response: bytes) -> TokenChannel:
        channel = self.profile.channel
        return TokenChannel.open(self._holder, source.master, host_challenge, response, int(channel.i, 16), int(channel.level, 16))

    def _secured(self) -> bytes:
        self._ready()
        return self._slab

    def _row(self, session: SecureChannel, image: SecretArray, issuer: SecretArray) -> Bytes2D:  # noqa: ARG002 - nothing is clear here
        script = self._script
        row: Bytes2D = script.rows(image.array)[0]
        for i in range(3):
            row[script.keys_at[i] : script.keys_at[i] + 16] = issuer.array[i, 0]
            row[script.kcvs_at[i] : script.kcvs_at[i] + 3] = np.frombuffer(self._checks[3 * i : 3 * i + 3], np.uint8)
        return row

    def _proof_material(self) -> verification.Material:
        if self._image is None:
            raise Corrupt("SEQUENCE", "the card was not prepared")
        return TokenMaterial(self._image.array[0], self._card_keys, self._holder)

    def _pin_secrets(self) -> SecretArray:
        """The PIN block with its padding for each place of the image that has one, (places, 16)."""
        offsets = self.compiled.pin_offsets
        clear = SecretArray.empty((len(offsets), 16))
        pin = pin_blocks(self.custody.hmac_key("pin"), [self.token], self.profile.pin.digits)
        for row, offset in enumerate(offsets):
            clear.array[row] = np.frombuffer(self.compiled.template, np.uint8, 16, offset)
            clear.array[row, :8] = pin[0]
        pin[...] = 0
        return clear

    def _filled(self, columns: Mapping[str, Column], spans: Sequence[Sequence[Wrapped]]) -> SecretArray:
        """The image, with cryptograms in the places of its secrets."""
        count = len(self._card_keys)
        keys, kcvs = np.empty((count, 1, 16), np.uint8), np.empty((count, 1, 3), np.uint8)
        others = {}
        for places, wrapped in zip(self._spans, spans, strict=True):
            for (offset, index), secret in zip(places, wrapped, strict=True):
                cryptogram = np.frombuffer(secret.cryptogram, np.uint8)
                if index is None:
                    others[offset] = cryptogram
                else:
                    keys[index, 0], kcvs[index, 0] = cryptogram, np.frombuffer(secret.kcv, np.uint8)
        image = fill_images(self.compiled, columns, keys, kcvs, np.zeros((1, 8), np.uint8))
        for offset, cryptogram in others.items():
            image.array[0, offset : offset + 16] = cryptogram
        return image

    def _token_channel(self) -> TokenChannel:
        if not isinstance(self._session, TokenChannel):
            raise Corrupt("SEQUENCE", "no chip was presented, or its channel is closed")
        return self._session
