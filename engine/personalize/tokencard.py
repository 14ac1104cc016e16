"""What goes onto a card that is made in the token: which secrets lie where in its image, and the answers its keys give in the proof.

No clear key is here. The DEK encrypts each span of an image as a CBC message of its own; a span is made of 16-byte blocks, each a card key
or a PIN block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from engine.personalize.applet_crypto import BLOCK, cryptogram_seed, load_message, load_seed, pad80
from engine.personalize.columns import Bytes2D
from engine.profiles.compile import CardKey, CompiledProfile
from keys.custody.token import TokenCustody
from keys.custody.token import cardkeys as inside
from keys.errors import Unsupported

SECRET_LEN: Final = 16


class Place(NamedTuple):
    """One block of a span: where in the image (-1 for nowhere), and the index of its key; None for a PIN block with its padding."""

    offset: int
    key: int | None


def require_possible(compiled: CompiledProfile) -> None:
    """Raises Unsupported where a card of this profile cannot be made in a token.

    TOKEN_ONLY_SCP02: its secrets go in 3DES-ECB (GPCS E.4.7), and no token wraps a key by that. TOKEN_ALGORITHM: tokens have no SM4.
    """
    profile = compiled.loaded.profile
    if profile.channel.protocol != "scp03":
        raise Unsupported("TOKEN_ONLY_SCP02", f"profile {profile.name} works with {profile.channel.protocol}; in a token it is SCP03 only")
    for key in compiled.keys:
        if key.algorithm not in ("3des", "aes"):
            raise Unsupported("TOKEN_ALGORITHM", f"key {key.label}: tokens have no {key.algorithm}; this card cannot be made token-only")


def spans_of(compiled: CompiledProfile) -> list[list[Place]]:
    """Every span of the image, block by block; then, each on its own, keys of which the image has a check value only.

    Raises Unsupported TOKEN_LAYOUT for a span that is not made of whole keys and PIN blocks.
    """
    keys, pins = dict(compiled.key_offsets), set(compiled.pin_offsets)
    spans = []
    for first, length in compiled.spans:
        places = [Place(offset, keys.get(offset)) for offset in range(first, first + length, SECRET_LEN)]
        if length % SECRET_LEN or any(place.key is None and place.offset not in pins for place in places):
            raise Unsupported("TOKEN_LAYOUT", f"the secrets at offset {first} of the image are not whole keys of {SECRET_LEN} bytes")
        spans.append(places)
    placed = {place.key for span in spans for place in span}
    return [*spans, *([Place(-1, index)] for index in range(len(compiled.keys)) if index not in placed)]


def card_keys(compiled: CompiledProfile, factors: Sequence[Bytes2D]) -> list[inside.CardKey]:
    """One card's keys as a token is asked for them, in the order of `compiled.keys`; `factors` as of `image.all_factors`, one row each."""
    return [inside.CardKey(derivation, factor[0]) for derivation, factor in zip(compiled.derivations, factors, strict=True)]


@dataclass(frozen=True)
class TokenMaterial:
    """See `verification.Material`: every answer is computed in the token. `image` has cryptograms in the places of the secrets."""

    image: Bytes2D
    keys: Sequence[inside.CardKey] = field(repr=False)
    custody: TokenCustody

    def blocks(self, wanted: Sequence[tuple[int, CardKey, bytes]]) -> list[bytes]:
        return [self.custody.card_ecb(self.keys[index], block) for index, _, block in wanted]

    def load_mac1(self, index: int, key: CardKey, card: bytes, amount: bytes, terminal: bytes) -> bytes:
        """Single DES under 8 bytes is 3DES under the same bytes twice."""
        message = pad80(load_message(card, amount, terminal), BLOCK[key.algorithm])
        return self.custody.card_session_cbc_mac(self.keys[index], load_seed(card) * 2, message)[:4]

    def application_cryptogram(self, index: int, key: CardKey, atc: bytes, message: bytes) -> bytes:
        """ISO 9797-1 MAC algorithm 3: single DES under the left half of the session key, the last block in 3DES."""
        wanted, seed = self.keys[index], cryptogram_seed(atc)
        padded, size = pad80(message, BLOCK[key.algorithm]), BLOCK[key.algorithm]
        last = padded[-size:]
        if len(padded) > size:
            chained = self.custody.card_session_cbc_mac(wanted, seed[:8] * 2, padded[:-size])
            last = bytes(a ^ b for a, b in zip(chained, last, strict=True))
        return self.custody.card_session_cbc_mac(wanted, seed, last)
