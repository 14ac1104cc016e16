"""The SCP03 channel of a card whose keys never leave the token: the same commands as `Scp03Session` makes, by calls of the token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self, TypeVar

from engine.personalize.scp03_channel import BLOCK, CardHello, Scp03Channel
from engine.personalize.script import Apdus, ByteArray, Script
from engine.personalize.segment import to_slab
from keys.custody.token import TokenCustody
from keys.custody.token.cardkeys import CardKey, Wrapped
from keys.custody.token.channel import ChannelKeys
from keys.errors import Unavailable
from keys.secrets import BytesLike

T = TypeVar("T")


class TokenChannel(Scp03Channel):
    """One secure channel, see `Scp03Channel`. A token that is lost and comes back in between goes on with the same channel."""

    def __init__(self, keys: ChannelKeys, host_cryptogram: bytes, level: int) -> None:
        """Use `open`. The channel owns the keys."""
        super().__init__(host_cryptogram, level)
        self._keys = keys

    @classmethod
    def open(cls, custody: TokenCustody, master: str, host_challenge: bytes, initialize_update_response: bytes, i: int, level: int) -> Self:
        """Session keys from a token-only channel master and the INITIALIZE UPDATE response (without status word).

        Raises as `CardHello.of` and `TokenCustody.channel`, Denied CARD_CRYPTOGRAM.
        """
        hello = CardHello.of(initialize_update_response, host_challenge, i, level)
        keys = custody.channel(master, hello.kdd, bytes(host_challenge), hello.card_challenge)
        try:
            card, host = keys.cryptograms()
            hello.require_cryptogram(card)
        except BaseException:
            keys.close()
            raise
        return cls(keys, host, level)

    def wrap_keys(self, spans: Sequence[Sequence[CardKey | BytesLike]]) -> list[list[Wrapped]]:
        """Card keys, derived in the token, and other secrets of 16 bytes, under the static DEK; see `ChannelKeys.wrap`."""
        return self._keys.wrap(spans)

    def wrap_segment(self, script: Script, row: ByteArray) -> bytes:
        """See `SecureChannel.wrap_segment`; one piece of work for the token. Raises as `wrap`, Precondition CHANNEL_ORDER at level 00."""
        self._require_new()
        octets = row.data

        def one(apdu: Apdus) -> bytes:
            cla, ins, p1, p2, at, length, le = (int(apdu[name]) for name in ("cla", "ins", "p1", "p2", "offset", "length", "le"))
            return self.wrap(cla, ins, p1, p2, octets[at : at + length], None if le < 0 else le)

        return to_slab(self._together(lambda: [self.external_authenticate(), *(one(apdu) for apdu in script.apdus)]))

    def check_responses(self, answers: Sequence[bytes]) -> list[bytes]:
        """`check_response` for many in a row, each with status word 9000; one piece of work for the token."""
        return self._together(lambda: Scp03Channel.check_responses(self, answers))

    def dek_encrypt(self, span: BytesLike) -> bytes:
        """A secret that the host knows: AES-CBC under the static DEK, zero IV (Amendment D 6.2.8). Raises InvalidInput SPAN_LENGTH."""
        self._require_span(span)
        blocks = [span[at : at + BLOCK] for at in range(0, len(span), BLOCK)]
        return b"".join(wrapped.cryptogram for wrapped in self._keys.wrap([blocks])[0])

    def dek_encrypt_blocks(self, blocks: BytesLike) -> bytes:
        """Many 16-byte secrets, each a span of its own, in one call."""
        self._require_span(blocks)
        spans = [[blocks[at : at + BLOCK]] for at in range(0, len(blocks), BLOCK)]
        return b"".join(wrapped[0].cryptogram for wrapped in self._keys.wrap(spans))

    def close(self) -> None:
        """Destroys the key objects; the session cannot be used afterwards."""
        self._closed = True
        self._keys.close()

    def _together(self, work: Callable[[], T]) -> T:
        """One piece of work for the token. It begins again where it began, should the token be lost in the midst of it."""
        before = self._authenticated, self._chain, len(self._chains), self._checked

        def begin() -> None:
            self._authenticated, self._chain, wrapped, self._checked = before
            del self._chains[wrapped:]

        def again() -> T:
            begin()
            return work()

        try:
            return self._keys.together(again)
        except Unavailable:  # a caller may wait for the token and ask once more
            begin()
            raise

    def _c_mac(self, message: bytes) -> bytes:
        return self._keys.c_mac(message)

    def _r_mac(self, message: bytes) -> bytes:
        return self._keys.r_mac(message)

    def _icv(self, counter: bytes) -> bytes:
        return self._keys.icv(counter)

    def _encrypt(self, iv: bytes, blocks: bytes) -> bytes:
        return self._keys.encrypt(iv, blocks)

    def _decrypt(self, iv: bytes, blocks: bytes) -> bytes:
        return self._keys.decrypt(iv, blocks)
