"""The one error tree of citycard.

Every error a caller can act on is a `CitycardError`: a stable `reason` code in UPPER_SNAKE, which programs match on and which is
never renamed, and a message in plain words, which people read. The subclass is the coarse kind; the RPC layer maps kinds to gRPC
status codes in one table. A message never carries key material, a PIN, a full card number or a full identity number.

    CitycardError
    +-- InvalidInput      what was given breaks a rule; giving it again will fail again
    +-- NotFound          the thing named does not exist
    +-- Conflict          the thing exists already, or somebody else has it
    +-- Precondition      not now: the state of the thing forbids it
    +-- Denied            a secret, a signature or a permission does not fit
    +-- Exhausted         out of blanks, disk, serial numbers, credits
    +-- Unavailable       a part that is needed cannot be reached; trying later may help
    +-- Corrupt           stored or received bytes are not what they must be
    +-- Unsupported       a known thing that this version does not do
"""

from __future__ import annotations


class CitycardError(Exception):
    """Base of all errors meant for a caller. `reason` is stable; `message` is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


class InvalidInput(CitycardError):
    """What was given breaks a rule."""


class NotFound(CitycardError):
    """The thing named does not exist."""


class Conflict(CitycardError):
    """The thing exists already, or is held by somebody else."""


class Precondition(CitycardError):
    """The state of the thing forbids the operation now."""


class Denied(CitycardError):
    """A secret, a signature, a cryptogram or a permission does not fit."""


class Exhausted(CitycardError):
    """A finite thing ran out."""


class Unavailable(CitycardError):
    """A needed part cannot be reached now."""


class Corrupt(CitycardError):
    """Bytes are not what they must be."""


class Unsupported(CitycardError):
    """Known, but not done by this version."""
