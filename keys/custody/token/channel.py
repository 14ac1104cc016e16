"""The keys of one SCP03 channel inside the token: static keys from the channel master, session keys, MACs and encryption by its calls.

SoftHSM 2.6 derives by ENCRYPT_DATA only: it has no SP 800-108 mechanism and no way to make a key object of a CMAC. The same bytes come
of a composition. CMAC over whole blocks ends with one encryption, E(K, last block ^ chaining value ^ K1) with K1 from E(K, 0)
(NIST SP 800-38B 6.2), so a key that is a CMAC is derived by AES_ECB_ENCRYPT_DATA over that last input. What the host learns are E(K, 0)
and the chaining values E(K, first block), which are no keys:

    static  gp-kdf3: one block of i || 000000 || k || 00 || KDD; only E(master, 0) is asked
    session GPC Amendment D 4.1.5: two blocks, label and constant, then both challenges; E(static, 0) and E(static, first block) are asked

Objects: the static ENC and MAC keys derive and live for a moment; the static DEK wraps; S-ENC encrypts and decrypts; S-MAC and S-RMAC
sign. All are sensitive, not extractable, and gone with the channel. When the token was lost and came back they are derived anew.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from pkcs11 import Attribute, KeyType, Mechanism

from keys.custody import Derivation
from keys.custody.token import cardkeys, objects
from keys.custody.token.cardkeys import BLOCK, CardKey, Held, Secret, Wrapped
from keys.custody.token.cryptoki import MechanismCall, Template
from keys.custody.token.records import Entry
from keys.custody.token.session import Live, TokenSession
from keys.errors import Precondition
from keys.mac import double
from keys.secrets import BytesLike
from keys.sessions import CARD_CRYPTOGRAM, HOST_CRYPTOGRAM, SCP03_CONSTANTS

ByteArray = npt.NDArray[np.uint8]
T = TypeVar("T")
Resolve = Callable[[Derivation], Entry]
"""The token-only master of a derivation; raises what `TokenCustody` raises for one that may not be used."""

CRYPTOGRAM_LEN: Final = 8
_CMAC: Final = MechanismCall(Mechanism.AES_CMAC)
_DERIVES: Final = objects.session_template(KeyType.AES, Attribute.DERIVE, extractable=False)
_WRAPS: Final = objects.session_template(KeyType.AES, Attribute.WRAP, extractable=False)
_SIGNS: Final = objects.session_template(KeyType.AES, Attribute.SIGN, extractable=False)
_ENCRYPTS: Final = objects.session_template(KeyType.AES, Attribute.ENCRYPT, Attribute.DECRYPT, extractable=False)


class _Objects(NamedTuple):
    """Handles, and the session they mean something in."""

    live: Live
    s_enc: int
    s_mac: int
    s_rmac: int
    dek: int


class ChannelKeys:
    """One channel of one card. Not thread-safe, as the channel itself is not; other cards' work goes on in between.

    Every method raises what `TokenSession.run` raises, and Precondition SECRET_WIPED after `close`.
    """

    def __init__(self, session: TokenSession, resolve: Resolve, key_id: str, kdd: bytes, challenges: bytes) -> None:
        """Use `TokenCustody.channel`. `challenges` are the host's and the card's, 8 bytes each."""
        self._session = session
        self._resolve = resolve
        self._context = np.frombuffer(challenges, np.uint8)
        factor = np.frombuffer(kdd, np.uint8)
        enc, mac, dek = (CardKey(Derivation(key_id, "gp-kdf3", "aes", purpose=purpose), factor) for purpose in ("enc", "mac", "dek"))
        self._static = [Held(wanted, resolve(wanted.derivation)) for wanted in (enc, mac, dek)]
        self._made: _Objects | None = None
        self._within: _Objects | None = None
        self._closed = False

    def together(self, work: Callable[[], T]) -> T:
        """`work`, which uses this channel many times, as one piece on the PKCS#11 thread. It may run twice: when the token came back."""
        return self._do(lambda _: work())

    def cryptograms(self) -> tuple[bytes, bytes]:
        """Card and host cryptogram in S8 mode, 8 bytes each (GPC Amendment D 6.2.2)."""

        def work(made: _Objects) -> tuple[bytes, bytes]:
            context = self._context.tobytes()
            card, host = (_sign(made, made.s_mac, _head(kind, CRYPTOGRAM_LEN) + context) for kind in (CARD_CRYPTOGRAM, HOST_CRYPTOGRAM))
            return card[:CRYPTOGRAM_LEN], host[:CRYPTOGRAM_LEN]

        return self._do(work)

    def c_mac(self, message: bytes) -> bytes:
        """CMAC under S-MAC, 16 bytes."""
        return self._do(lambda made: _sign(made, made.s_mac, message))

    def r_mac(self, message: bytes) -> bytes:
        """CMAC under S-RMAC, 16 bytes."""
        return self._do(lambda made: _sign(made, made.s_rmac, message))

    def icv(self, counter: bytes) -> bytes:
        """One block under S-ENC (GPC Amendment D 6.2.6)."""
        return self._do(lambda made: cardkeys.encrypt(made.live, made.s_enc, objects.ECB["aes"], counter))

    def encrypt(self, iv: bytes, blocks: bytes) -> bytes:
        """AES-CBC of command data under S-ENC."""
        return self._do(lambda made: cardkeys.encrypt(made.live, made.s_enc, MechanismCall(Mechanism.AES_CBC, iv), blocks))

    def decrypt(self, iv: bytes, blocks: bytes) -> bytes:
        """AES-CBC of response data under S-ENC, the other way."""

        def work(made: _Objects) -> bytes:
            source, target = ctypes.create_string_buffer(blocks, len(blocks)), ctypes.create_string_buffer(len(blocks))
            call, live, size = MechanismCall(Mechanism.AES_CBC, iv), made.live, len(blocks)
            live.cryptoki.decrypt(live.session, made.s_enc, call, ctypes.addressof(source), size, ctypes.addressof(target), size)
            return target.raw

        return self._do(work)

    def wrap(self, spans: Sequence[Sequence[CardKey | BytesLike]]) -> list[list[Wrapped]]:
        """Spans of 16-byte secrets under the static DEK, each span a CBC message of its own with zero IV.

        Raises for a card key as `TokenCustody.derive_wrapped`, before anything is derived; Denied KEY_POLICY for one whose master is not
        token-only.
        """
        held: list[list[Secret]] = [
            [Held(secret, self._resolve(secret.derivation)) if isinstance(secret, CardKey) else secret for secret in span] for span in spans
        ]
        return self._do(lambda made: [cardkeys.wrap_span(made.live, made.dek, span) for span in held])

    def close(self) -> None:
        """Destroys the objects; the channel cannot be used afterwards. May be called twice."""
        self._closed = True
        made, self._made = self._made, None
        if made is not None:
            self._session.discard(made.live, (made.s_enc, made.s_mac, made.s_rmac, made.dek))

    def __repr__(self) -> str:
        return f"ChannelKeys({self._static[0].wanted.derivation.key_id!r}{', closed' if self._closed else ''})"

    # -- on the PKCS#11 thread -------------------------------------------------------------------------------------------

    def _do(self, work: Callable[[_Objects], T]) -> T:
        if self._closed:
            raise Precondition("SECRET_WIPED", "this secure channel session was closed")
        if self._within is not None:  # on the PKCS#11 thread already
            return work(self._within)
        return self._session.run(lambda live: self._piece(live, work))

    def _piece(self, live: Live, work: Callable[[_Objects], T]) -> T:
        if self._made is None or self._made.live is not live:
            self._made = self._derive(live)
        self._within = self._made
        try:
            return work(self._made)
        finally:
            self._within = None

    def _derive(self, live: Live) -> _Objects:
        (enc_base, enc), (mac_base, mac), (dek_base, dek) = (held.place(live) for held in self._static)
        with (
            cardkeys.derived(live, enc_base, "aes", enc, _DERIVES) as static_enc,
            cardkeys.derived(live, mac_base, "aes", mac, _DERIVES) as static_mac,
        ):
            (s_enc,) = self._session_keys(live, static_enc, {SCP03_CONSTANTS["s_enc"]: _ENCRYPTS})
            s_mac, s_rmac = self._session_keys(live, static_mac, {SCP03_CONSTANTS["s_mac"]: _SIGNS, SCP03_CONSTANTS["s_rmac"]: _SIGNS})
        return _Objects(live, s_enc, s_mac, s_rmac, objects.derive(live, dek_base, "aes", dek, _WRAPS))

    def _session_keys(self, live: Live, static: int, wanted: dict[int, Template]) -> list[int]:
        """A session key object for each derivation constant (GPC Amendment D 4.1.5, 6.2.1), of 16 bytes."""
        heads = [np.frombuffer(_head(constant, BLOCK), np.uint8) for constant in wanted]
        answers = objects.ask(live, "aes", static, np.concatenate([np.zeros(BLOCK, np.uint8), *heads])).reshape(-1, BLOCK)
        whole = double(answers[:1])[0] ^ self._context
        return [
            objects.derive(live, static, "aes", whole ^ chained, template)
            for chained, template in zip(answers[1:], wanted.values(), strict=True)
        ]


def _head(constant: int, length: int) -> bytes:
    """What goes before the challenges: label 11 x 00 || constant, 00, length in bits, counter 01 (GPC Amendment D 4.1.5)."""
    return bytes(11) + bytes([constant, 0]) + (8 * length).to_bytes(2, "big") + b"\x01"


def _sign(made: _Objects, handle: int, message: bytes) -> bytes:
    out = ctypes.create_string_buffer(BLOCK)
    made.live.cryptoki.sign(made.live.session, handle, _CMAC, message, ctypes.addressof(out), BLOCK)
    return out.raw
