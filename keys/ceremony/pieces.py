"""The pieces a key is divided into, XOR components or SLIP-39 shares behind one set of verbs, and where accepted ones rest.

Between custodians every piece lies in a file of its own under the ceremony's key, which only the clerk has. Pieces of one key meet in
locked host memory at the end of the ceremony, for as long as putting the key together takes: a custody that could combine them inside a
token is not required.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from keys import components, shares
from keys.ceremony.clerk import Clerk
from keys.ceremony.custodians import Division, Holdings
from keys.ceremony.plan import OUTLET, Kind, Plan, PlannedKey, SchemeType
from keys.ceremony.record import sync_directory, write_durably
from keys.custody.sealing import random_master
from keys.errors import Denied, InvalidInput
from keys.kcv import verify_kcv
from keys.secrets import BytesLike, SecretBytes

_CHECK_LEN: Final = 3


def new_key(key: PlannedKey) -> SecretBytes:
    """A random key of the planned kind and length."""
    return random_master(key.algorithm, key.length)


def divide(plan: Plan, key: PlannedKey, secret: SecretBytes) -> list[SecretBytes]:
    """A piece for each custodian."""
    count = len(plan.custodians)
    if plan.scheme is SchemeType.SLIP39:
        return shares.split(secret, plan.threshold, count)
    while True:
        made = [components.make_component(key.algorithm, key.length) for _ in range(count - 1)]
        try:
            return [*made, components.last_component(key.algorithm, secret, made)]
        except InvalidInput:
            # one in 2^59: the last would be a weak key
            for piece in made:
                piece.close()


def put_together(plan: Plan, key: PlannedKey, pieces: Sequence[SecretBytes]) -> SecretBytes:
    """The key. Raises InvalidInput, Denied (SHARE_DIGEST, KCV_MISMATCH) when it is not the one planned."""
    if plan.scheme is SchemeType.SLIP39:
        secret = shares.combine_shares(pieces[: plan.threshold])
    else:
        secret = components.combine(key.algorithm, pieces)
    if len(secret) != key.length:
        secret.close()
        raise InvalidInput("KEY_LENGTH", f"key {key.name}: the shares make {len(secret)} bytes, not {key.length}")
    if key.kcv is not None:
        try:
            require_kcv(key, secret)
        except Denied:
            secret.close()
            raise
    return secret


def require_kcv(key: PlannedKey, secret: SecretBytes) -> None:
    """Raises Denied KCV_MISMATCH unless `secret` has the planned check value."""
    try:
        verify_kcv(key.algorithm, secret.reveal(), bytes.fromhex(key.kcv or ""))
    except Denied:
        raise Denied("KCV_MISMATCH", f"key {key.name}: what the pieces make does not have the check value of the plan") from None


def parse_piece(plan: Plan, key: PlannedKey, typed: BytesLike) -> SecretBytes:
    """A typed piece. Raises InvalidInput naming the rule, never a digit or a word."""
    if plan.scheme is SchemeType.XOR:
        return components.parse_hex(typed, key.length)
    piece = shares.parse_share(typed)
    info = shares.share_info(piece)
    if info.secret_len != key.length or info.threshold != plan.threshold:
        piece.close()
        raise InvalidInput("SHARE_OTHER_SET", "this share is of another threshold or length than the plan says")
    return piece


def check_piece(plan: Plan, key: PlannedKey, piece: SecretBytes, earlier: Sequence[SecretBytes], digits: str) -> None:
    """Everything that can be known of a piece before it meets the others; raises as `check_component` and `check_share`."""
    if plan.scheme is SchemeType.SLIP39:
        shares.check_share(piece, earlier)
        return
    components.check_component(key.algorithm, piece, earlier, check_digits(digits))


def check_digits(typed: str) -> bytes:
    """Three bytes as they are typed, or nothing that could match."""
    try:
        value = bytes.fromhex(typed)
    except ValueError:
        return b""
    return value if len(value) == _CHECK_LEN else b""


def piece_text(plan: Plan, piece: SecretBytes) -> SecretBytes:
    """As it is printed: digits in groups, or words."""
    if plan.scheme is SchemeType.XOR:
        return components.format_hex(piece)
    return SecretBytes(piece.reveal())


def piece_check(plan: Plan, key: PlannedKey, piece: SecretBytes) -> str:
    """Six digits that prove a piece was read: the check value of a component; of a share the first bytes of its SHA-256."""
    if plan.scheme is SchemeType.XOR:
        return components.component_kcv(key.algorithm, piece).hex().upper()
    return hashlib.sha256(piece.reveal()).hexdigest()[: 2 * _CHECK_LEN].upper()


def piece_name(plan: Plan, key: PlannedKey, piece: SecretBytes) -> str:
    """Which piece of its division this is: for the rules on who may see what."""
    if plan.scheme is SchemeType.XOR:
        return piece_check(plan, key, piece)
    return str(shares.share_info(piece).number + 1)


def piece_division(plan: Plan, key: PlannedKey, piece: SecretBytes, ceremony_id: str, holdings: Holdings) -> Division:
    """Which division of the key it belongs to: shares carry its number; components handed out here are the ceremony's."""
    if plan.scheme is SchemeType.SLIP39:
        info = shares.share_info(piece)
        return Division(key.key_id, key.version, f"slip39-{info.set_id}", info.threshold)
    if plan.kind in OUTLET:
        return Division(key.key_id, key.version, f"xor-{ceremony_id}", plan.threshold)
    return holdings.division_of(key.key_id, key.version, plan.threshold, piece_name(plan, key, piece))


class PieceStore:
    """Pieces at rest: `place`/KEY-CUSTODIAN.piece, each wrapped by the clerk and bound to ceremony, key and custodian."""

    def __init__(self, place: Path, clerk: Clerk, ceremony_id: str, kind: Kind) -> None:
        self._place = place
        self._clerk = clerk
        self._ceremony_id = ceremony_id
        self._kind = kind

    def put(self, key: int, custodian: int, piece: SecretBytes) -> None:
        """Durable when it returns."""
        self._place.mkdir(mode=0o700, exist_ok=True)
        write_durably(self._path(key, custodian), self._clerk.pause_wrap(self._ceremony_id, piece, self._context(key, custodian)))

    def get(self, key: int, custodian: int) -> SecretBytes:
        """Raises NotFound PAUSE_KEY_MISSING, Corrupt PAUSE_CORRUPT."""
        path = self._path(key, custodian)
        wrapped = path.read_bytes() if path.exists() else b""
        return self._clerk.pause_unwrap(self._ceremony_id, wrapped, self._context(key, custodian))

    def forget(self) -> None:
        """The key of the ceremony first: without it the files are nothing."""
        self._clerk.close_pause(self._ceremony_id)
        if self._place.exists():
            for path in self._place.iterdir():
                path.unlink()
            self._place.rmdir()
            sync_directory(self._place.parent)

    def _path(self, key: int, custodian: int) -> Path:
        return self._place / f"{key}-{custodian}.piece"

    def _context(self, key: int, custodian: int) -> bytes:
        return f"{self._kind}|{self._ceremony_id}|{key}|{custodian}".encode()
