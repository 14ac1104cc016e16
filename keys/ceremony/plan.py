"""The plan of a ceremony: what one reviewed file says, and all that happens. `keys.ceremony.planfile` reads it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final

from keys.algorithms import Algorithm, as_algorithm
from keys.custody import Method
from keys.custody.policy import Holder, KeyPolicy
from keys.errors import Corrupt
from keys.hierarchy import Domain, Level, Purpose
from keys.keyblock.handover import HandedKey

STORE_KEY: Final = "store-key"
KEY_LEN: Final = 16
STORE_KEY_LEN: Final = 32


class Kind(StrEnum):
    """What a ceremony does."""

    GENERATE = "generate"
    """New keys; each custodian takes away a component or share in an envelope."""
    IMPORT = "import"
    """Keys made elsewhere, from components that custodians bring."""
    BACKUP = "backup"
    """Keys that are here, into new components or shares."""
    RESTORE = "restore"
    """Keys back from a backup; their check values are known and must come out."""
    DESTROY = "destroy"
    EXPORT = "export"
    """Keys out, wrapped under a key-encryption key, as a signed hand-over set."""
    UNSEAL = "unseal"
    """The store key from custodians' shares, so that a sealed custody can be used."""


MAKES_KEYS: Final = frozenset({Kind.GENERATE, Kind.IMPORT, Kind.RESTORE})
INTAKE: Final = frozenset({Kind.IMPORT, Kind.RESTORE, Kind.UNSEAL})
OUTLET: Final = frozenset({Kind.GENERATE, Kind.BACKUP})


class SchemeType(StrEnum):
    """How a key is divided among custodians."""

    XOR = "xor"
    SLIP39 = "slip39"
    NONE = "none"
    """Not at all: the key is made inside the custody and never seen (generate), or only confirmed (destroy, export)."""


@dataclass(frozen=True, kw_only=True)
class PlannedKey:
    """A key the ceremony is about. `kcv` in upper-case hex by the algorithm's usual method, where it is known beforehand. `exportable`,
    `methods`, `profiles` and the cryptoperiod become its policy: see `keys.custody.policy.KeyPolicy`.
    """

    key_id: str
    domain: Domain
    purpose: Purpose
    level: Level
    algorithm: Algorithm
    version: int = 1
    exportable: bool = False
    methods: tuple[Method, ...] = ()
    profiles: tuple[str, ...] = ()
    not_before: date | None = None
    not_after: date | None = None
    kcv: str | None = None
    length: int = KEY_LEN

    @property
    def name(self) -> str:
        """Id and version, as they are said aloud."""
        return f"{self.key_id} version {self.version}"


@dataclass(frozen=True)
class Person:
    """A custodian or the witness: a personal id that stays the same in every ceremony, and the name as written."""

    person_id: str
    name: str


@dataclass(frozen=True)
class Output:
    """Where envelopes are printed: a device, a file, or a directory that takes one file an envelope; the first preprinted number."""

    device: str
    format: str
    first_envelope: int


@dataclass(frozen=True)
class Export:
    """For whom, under which key of the custody, by which scheme, into which file."""

    kek: str
    scheme: str
    recipient: str
    file: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan without faults."""

    name: str
    title: str
    kind: Kind
    place: str
    custody: Holder
    scheme: SchemeType
    threshold: int
    keys: tuple[PlannedKey, ...]
    custodians: tuple[Person, ...]
    witness: Person
    output: Output | None
    export: Export | None
    text: str

    @property
    def sha256(self) -> str:
        """SHA-256 of the file's text, hex: what was signed off is what is run."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def planned_key(handed: HandedKey) -> PlannedKey:
    """A received key as it is installed: never exportable. Raises Corrupt HANDOVER_SET."""
    try:
        return PlannedKey(
            key_id=handed.key_id,
            domain=Domain(handed.domain),
            purpose=Purpose(handed.purpose),
            level=Level(handed.level),
            algorithm=as_algorithm(handed.algorithm),
            version=handed.version,
        )
    except ValueError:
        raise Corrupt("HANDOVER_SET", f"key {handed.key_id}: domain, purpose or level is not known here") from None


def key_policy(key: PlannedKey, custody: Holder) -> KeyPolicy:
    """What the custody will hold the key to. Raises InvalidInput KEY_POLICY."""
    return KeyPolicy(
        custody=custody,
        exportable=key.exportable,
        methods=key.methods,
        profiles=key.profiles,
        not_before=key.not_before,
        not_after=key.not_after,
    )


THE_STORE_KEY: Final = PlannedKey(
    key_id=STORE_KEY,
    domain=Domain.CITY,
    purpose=Purpose.KEY_ENCRYPTION,
    level=Level.CITY,
    algorithm="aes",
    length=STORE_KEY_LEN,
)
