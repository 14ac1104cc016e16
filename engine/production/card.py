"""One card in the making: its channel, its image, its segments, and what its answers must be.

Holds clear key material in `SecretArray`s from the moment the image is built until `close`. Knows nothing of ledger, leases or
stations: values in, segments out, errors raised.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.personalize import verification
from engine.personalize.columns import Column
from engine.personalize.image import build_images, derive_keys, image_digest, pin_blocks
from engine.personalize.scp02 import Scp02Session
from engine.personalize.scp03 import Scp03Session
from engine.personalize.script import ByteArray, script_of
from engine.personalize.securechannel import SecureChannel
from engine.personalize.segment import Segment, answers_of, to_slab
from engine.profiles.compile import CompiledProfile, channel_derivations
from engine.profiles.model import ChannelKeys
from keys.custody import Custody
from keys.custody.policy import working_for
from keys.errors import Corrupt, Denied
from keys.kcv import kcv_array
from keys.secrets import SecretArray

GET_CPLC: Final = bytes.fromhex("80CA9F7F00")
# Lengths of an INITIALIZE UPDATE response by the protocol it names (GPCS E.5.1.6; GPC Amendment D 7.1.1.6).
RESPONSE_LENS: Final = {0x02: (28,), 0x03: (29, 32)}


@dataclass(frozen=True)
class Identity:
    """What a chip says of itself in its INITIALIZE UPDATE response, in the bytes that SCP02 and SCP03 have in common."""

    kdd: bytes
    kvn: int

    @property
    def chip_id(self) -> str:
        return self.kdd.hex().upper()

    @property
    def serial(self) -> bytes:
        """The chip's own eight bytes: the last eight of its diversification data, and of its historical bytes."""
        return self.kdd[2:]


def initialize_update(kvn: int, host_challenge: bytes) -> bytes:
    """INITIALIZE UPDATE (GPCS E.5.1; GPC Amendment D 7.1.1)."""
    return bytes([0x80, 0x50, kvn, 0x00, 0x08]) + host_challenge + b"\x00"


def select_isd(isd_aid: bytes) -> bytes:
    return verification.select(isd_aid)


def lease_commands(compiled: CompiledProfile, host_challenge: bytes) -> list[bytes]:
    """What a station plays before the engine knows the chip: SELECT, CPLC, and INITIALIZE UPDATE with the engine's challenge."""
    profile = compiled.loaded.profile
    kvn = int(profile.channel.transport.kvn, 16)
    return [select_isd(bytes.fromhex(profile.chip.isd_aid)), GET_CPLC, initialize_update(kvn, host_challenge)]


def identity_of(initialize_update_response: bytes, expected_kvn: int) -> Identity:
    """The chip's claim, form checked; Corrupt CHIP_GARBAGE or Denied CHIP_OTHER_KEYS. Proven only by the card cryptogram."""
    response = initialize_update_response
    if len(response) < 12 or len(response) not in RESPONSE_LENS.get(response[11], ()):
        raise Corrupt("CHIP_GARBAGE", f"INITIALIZE UPDATE answered {len(response)} bytes that are no SCP02 or SCP03 response")
    if response[10] != expected_kvn:
        raise Denied("CHIP_OTHER_KEYS", f"the chip has key version {response[10]:02X}, this profile's blanks have {expected_kvn:02X}")
    return Identity(response[:10], response[10])


def static_keys(custody: Custody, source: ChannelKeys, kdd: bytes) -> SecretArray:
    """ENC, MAC and DEK of one chip, (3, 16), dispersed from a channel master by the chip's KDD."""
    factor = np.frombuffer(kdd, np.uint8).reshape(1, 10)
    return custody.derive(channel_derivations(source), (factor, factor, factor))


class CardInMaking:
    """One attempt after its chip was presented. Call order: open, prepare, personalization, accept…, verification, accept… ."""

    def __init__(self, compiled: CompiledProfile, custody: Custody, token: int) -> None:
        self.compiled = compiled
        self.custody = custody
        self.token = token
        self.profile = compiled.loaded.profile
        self._script = script_of(compiled)
        self.sequence = 0
        self.segment: Segment | None = None
        self._session: SecureChannel | None = None
        self._wrapped = 0
        # the answers that were judged last, and the slab they came in: the end of one segment opens the next
        self._judged: tuple[bytes, list[bytes]] | None = None
        self._image: SecretArray | None = None
        self._keys: SecretArray | None = None
        self._issuer: SecretArray | None = None
        # check values of the issuer's keys, as PUT KEY sends and echoes them
        self._checks = b""
        self._steps: list[verification.Step] = []
        self._talk: Generator[list[verification.Step], list[bytes], None] | None = None
        self._proof_challenge = b""
        self.identity: Identity | None = None

    # -- before INTENT -------------------------------------------------------------------------------------------------

    def open(self, host_challenge: bytes, initialize_update_response: bytes) -> Identity:
        """Checks the card cryptogram under the maker's keys; Denied CARD_CRYPTOGRAM, CHIP_OTHER_KEYS, Corrupt CHIP_GARBAGE."""
        source = self.profile.channel.transport
        identity = identity_of(initialize_update_response, int(source.kvn, 16))
        with working_for(self.profile.name):
            self._session = self._transport_channel(identity.kdd, host_challenge, initialize_update_response)
        self.identity = identity
        return identity

    def _transport_channel(self, kdd: bytes, host_challenge: bytes, response: bytes) -> SecureChannel:
        with static_keys(self.custody, self.profile.channel.transport, kdd) as keys:
            return self._channel(keys, host_challenge, response)

    def _channel(self, keys: SecretArray, host_challenge: bytes, response: bytes) -> SecureChannel:
        channel = self.profile.channel
        i, level = int(channel.i, 16), int(channel.level, 16)
        three = tuple(keys.array[at, 0] for at in range(3))
        if channel.protocol == "scp02":
            return Scp02Session.open(three, host_challenge, response, i, level, aid=bytes.fromhex(self.profile.chip.isd_aid))
        return Scp03Session.open(three, host_challenge, response, i=i, level=level)

    def prepare(self, columns: Mapping[str, Column]) -> bytes:
        """Builds the card's image and issuer keys just in time; returns the image's keyed digest (32 bytes) for INTENT."""
        identity = self._identity()
        with working_for(self.profile.name):
            self._keys = derive_keys(self.compiled, columns, self.custody)
            self._issuer = static_keys(self.custody, self.profile.channel.issuer, identity.kdd)
        self._checks = kcv_array(self.profile.channel.issuer.algorithm, self._issuer.array[:, 0]).tobytes()
        pins = pin_blocks(self.custody.hmac_key("pin"), [self.token], self.profile.pin.digits)
        self._image = build_images(self.compiled, columns, self._keys, pins)
        return image_digest(self._image.array[0], self.custody.hmac_key("image-digest"))

    # -- after INTENT --------------------------------------------------------------------------------------------------

    def personalization(self) -> Segment:
        """The whole personalization as one segment: EXTERNAL AUTHENTICATE to the first command of the new channel."""
        slab, after = self._secured(), self._reopen_commands()
        self._wrapped = len(self._script.segment)
        return self._emit(slab + to_slab(after), self._wrapped + len(after), journal_answers=True)

    def _secured(self) -> bytes:
        """EXTERNAL AUTHENTICATE and the script of the profile, as a slab."""
        session, image, issuer = self._ready()
        return session.wrap_segment(self._script, self._row(session, image, issuer))

    def _row(self, session: SecureChannel, image: SecretArray, issuer: SecretArray) -> ByteArray:
        """The script's data for this card: every secret span of the image, and the issuer's keys, under the DEK, each on its own."""
        script, checks = self._script, np.frombuffer(self._checks, np.uint8)
        count = len(script.single)
        with SecretArray.empty((1, len(script.row))) as secrets, SecretArray.empty((count + 3, 16)) as clear:
            script.fill(secrets.array, image.array)
            row = secrets.array[0]
            # keys on their own, nearly all of the spans, and the issuer's: all of them in one call
            script.gather(row, clear.array[:count])
            clear.array[count:] = issuer.array[:, 0]
            hidden = np.frombuffer(session.dek_encrypt_blocks(clear.array.data.cast("B")), np.uint8).reshape(-1, 16)
            row[script.single] = hidden[:count]
            for offset, length in script.longer:
                row[offset : offset + length] = np.frombuffer(session.dek_encrypt(row[offset : offset + length].data), np.uint8)
            for i in range(3):
                row[script.keys_at[i] : script.keys_at[i] + 16] = hidden[count + i]
                row[script.kcvs_at[i] : script.kcvs_at[i] + 3] = checks[3 * i : 3 * i + 3]
            hidden_row: ByteArray = row.copy()
            return hidden_row

    def _reopen_commands(self) -> list[bytes]:
        self._proof_challenge = os.urandom(8)
        isd = bytes.fromhex(self.profile.chip.isd_aid)
        return [select_isd(isd), initialize_update(int(self.profile.channel.issuer.kvn, 16), self._proof_challenge)]

    def reopen(self) -> Segment:
        """After a restart of the engine on an encoded card: begin the proof again. Personalization is never repeated."""
        self._wrapped = 0
        self._talk = None
        self._close_session()
        commands = self._reopen_commands()
        return self._emit(to_slab(commands), len(commands), journal_answers=False)

    def accept_personalization(self, slab: bytes) -> None:
        """Checks every answer, its response MAC where the channel has one, and PUT KEY's echo of version and check values."""
        session, _, _ = self._ready()
        checked = session.check_responses(self._answers(slab)[1 : self._wrapped])
        # the last but one; the last is SET STATUS
        verification.equal("PUT KEY", bytes([int(self.profile.channel.issuer.kvn, 16)]) + self._checks)(checked[-2])
        self._close_session()

    def personalization_again(self, slab: bytes) -> None:
        """After `rebuild`: the answers of a personalization that was played before the restart, checked as if just received."""
        self.personalization()
        self.accept_personalization(slab)

    @property
    def proving(self) -> bool:
        """Whether the proof under the new keys has begun."""
        return self._talk is not None

    def identify(self, slab: bytes) -> bytes:
        """Checks, under the issuer's keys, that the chip that answered INITIALIZE UPDATE is the one that was personalized.

        Gives the EXTERNAL AUTHENTICATE that completes the channel. Denied CHIP_CHANGED, CHIP_OTHER_KEYS, CARD_CRYPTOGRAM; Corrupt.
        """
        response = self._answers(slab)[-1]
        issuer = self.profile.channel.issuer
        if identity_of(response, int(issuer.kvn, 16)).kdd != self._identity().kdd:
            raise Denied("CHIP_CHANGED", "the chip under the new keys is not the chip that was personalized")
        session = self._issuer_channel(response)
        try:
            return session.external_authenticate()
        finally:
            session.close()

    def _issuer_channel(self, response: bytes) -> SecureChannel:
        # the keys in hand: from INTENT on a card asks no custody, so that none can be lost with it
        if self._issuer is None:
            raise Corrupt("SEQUENCE", "the card was not prepared, or its keys were wiped")
        return self._channel(self._issuer, self._proof_challenge, response)

    def first_proof(self, slab: bytes) -> Segment:
        """Opens the channel under the issuer's keys with the answer that ended the last segment; then the first applet commands."""
        authenticate = self.identify(slab)
        self._talk = verification.conversation(self.compiled, self._proof_material(), lambda _, length: os.urandom(length))
        self._steps = [verification.Step(authenticate, verification.equal("EXTERNAL AUTHENTICATE", b"")), *next(self._talk)]
        return self._emit_steps()

    def next_proof(self, slab: bytes) -> Segment | None:
        """Checks the answers of a proof segment; the next one, or None when every applet has proven itself.

        Raises Denied VERIFY_FAILED for a wrong answer or status word, Corrupt as `answers_of` where the outcome is unknown.
        """
        if self._talk is None:
            raise Corrupt("SEQUENCE", "no proof is under way")
        try:
            answers = self._answers(slab)
        except Corrupt as error:
            if error.reason != "ANSWER_UNEXPECTED":
                raise
            # an applet that denies speaks against the card as much as one that answers wrongly
            raise Denied("VERIFY_FAILED", error.message) from None
        for step, answer in zip(self._steps, answers, strict=True):
            step.check(answer)
        try:
            self._steps = self._talk.send(answers)
        except StopIteration:
            return None
        return self._emit_steps()

    def rebuild(self, host_challenge: bytes, response: bytes, columns: Mapping[str, Column], digest: bytes) -> None:
        """After a restart: the same session and image from the ledger's facts; Corrupt IMAGE_CHANGED if the digest differs."""
        self.open(host_challenge, response)
        if not hmac.compare_digest(self.prepare(columns), digest):
            raise Corrupt("IMAGE_CHANGED", "the image built from the ledger is not the one INTENT was given for")

    def close(self) -> None:
        """Wipes every key and image held."""
        self._close_session()
        for secret in (self._image, self._keys, self._issuer):
            if secret is not None:
                secret.close()
        self._image = self._keys = self._issuer = self._talk = None
        # what answers are and should be is the holder's data too
        self._steps = []
        self._judged = None

    # -- helpers -------------------------------------------------------------------------------------------------------

    def _emit(self, slab: bytes, count: int, *, journal_answers: bool) -> Segment:
        self.sequence += 1
        self._judged = None
        self.segment = Segment(self.sequence, slab, count, journal_answers)
        return self.segment

    def _emit_steps(self) -> Segment:
        return self._emit(to_slab([step.command for step in self._steps]), len(self._steps), journal_answers=False)

    def _segment(self) -> Segment:
        if self.segment is None:
            raise Corrupt("SEQUENCE", "no segment was sent")
        return self.segment

    def _answers(self, slab: bytes) -> list[bytes]:
        """As `answers_of` the segment that was sent last."""
        if self._judged is None or self._judged[0] is not slab:
            self._judged = slab, answers_of(self._segment(), slab)
        return self._judged[1]

    def _identity(self) -> Identity:
        if self.identity is None:
            raise Corrupt("SEQUENCE", "no chip was presented")
        return self.identity

    def _ready(self) -> tuple[SecureChannel, SecretArray, SecretArray]:
        if self._session is None or self._image is None or self._issuer is None:
            raise Corrupt("SEQUENCE", "the card was not prepared")
        return self._session, self._image, self._issuer

    def material(self) -> verification.CardMaterial:
        """Keys and image of the card; gone with `close`."""
        if self._image is None or self._keys is None:
            raise Corrupt("SEQUENCE", "the card was not prepared")
        return verification.CardMaterial(self._keys.array[:, 0], self._image.array[0])

    def _proof_material(self) -> verification.Material:
        return self.material()

    def _close_session(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
