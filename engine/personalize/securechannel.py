"""What the personalization needs of a secure channel, whichever protocol runs it: `Scp02Session` and `Scp03Session` are both one."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from engine.personalize.script import ByteArray, Script
from keys.secrets import BytesLike


class SecureChannel(Protocol):
    """The host side of one channel. Order of use: external_authenticate, wrap..., check_response... in the order of the wraps, close."""

    level: int

    def external_authenticate(self) -> bytes:
        """The EXTERNAL AUTHENTICATE command. Once per session."""

    def wrap(self, cla: int, ins: int, p1: int, p2: int, data: BytesLike = b"", le: int | None = None) -> bytes:
        """A secured command; `le` is kept if given. Raises InvalidInput APDU_TOO_LONG, Precondition."""

    def wrap_segment(self, script: Script, row: ByteArray) -> bytes:
        """A whole segment as a slab: EXTERNAL AUTHENTICATE, whose host cryptogram is put into `row` (row length,), and every secured
        command of the script, their data in `row`. Instead of `external_authenticate`; raises as `wrap`.
        """

    def check_response(self, index: int, data: BytesLike, sw: int) -> bytes:
        """Plain data of the response to wrap number `index`; raises Denied, Corrupt, Precondition."""

    def check_responses(self, answers: Sequence[bytes]) -> list[bytes]:
        """`check_response` for the data of the next responses, in order, each with status word 9000."""

    def dek_encrypt(self, span: BytesLike) -> bytes:
        """One secret of whole blocks under the key the protocol has for secrets. Raises InvalidInput SPAN_LENGTH."""

    def dek_encrypt_blocks(self, blocks: BytesLike) -> bytes:
        """Many 16-byte secrets, each a span of its own, in one call."""

    def close(self) -> None:
        """Wipes all keys."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
