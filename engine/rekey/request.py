"""What a re-key is asked to do: which keys of the profile, for which cards, wrapped how, in which files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final, Literal

from engine.profiles.compile import CardKey, CompiledProfile
from engine.rekey.population import Population
from keys.algorithms import Algorithm
from keys.custody import Custody, Derivation
from keys.custody.wrapping import KCV_LEN, WRAPPED_LEN, WrapScheme, kek_algorithm
from keys.errors import InvalidInput, NotFound
from keys.hierarchy import Purpose

FileFormat = Literal["parquet", "tunion"]

# Cryptograms and check values of the cards in hand, for each worker; what bounds the memory.
_CHUNK_BYTES: Final = 32 << 20
_MAX_CHUNK_ROWS: Final = 16_384
_LANES: Final = 512


@dataclass(frozen=True)
class Request:
    """One re-key. `keks[i]` is the key-encryption key of `keys[i]`."""

    compiled: CompiledProfile
    population: Population
    keys: tuple[CardKey, ...]
    derivations: tuple[Derivation, ...]
    keks: tuple[str, ...]
    scheme: WrapScheme
    file_format: FileFormat
    part_rows: int
    master_kcvs: Mapping[str, str] = field(repr=False)

    @property
    def row_bytes(self) -> int:
        """Cryptograms and check values of one card."""
        return len(self.keys) * (WRAPPED_LEN[self.scheme] + KCV_LEN)

    @property
    def chunk_rows(self) -> int:
        """Cards a worker has in hand at a time: whole kernel passes, and no more memory than the bound."""
        fitting = _CHUNK_BYTES // self.row_bytes // _LANES * _LANES
        return min(max(_LANES, fitting), _MAX_CHUNK_ROWS, self.part_rows)

    @property
    def parts(self) -> int:
        return -(-self.population.cards // self.part_rows)

    def rows_of(self, part: int) -> range:
        """The cards of one part."""
        first = part * self.part_rows
        return range(first, min(first + self.part_rows, self.population.cards))

    def part_name(self, part: int) -> str:
        return f"part-{part:05d}.{'parquet' if self.file_format == 'parquet' else 'tud'}"


def select(compiled: CompiledProfile, patterns: Iterable[str]) -> list[int]:
    """Numbers of the keys whose label `application/keyset/name` fits one of the shell patterns, in the profile's order.

    No patterns: all keys. Raises InvalidInput KEYS_NONE naming a pattern that fits no key.
    """
    wanted = list(patterns) or ["*"]
    for pattern in wanted:
        if not any(fnmatchcase(key.label, pattern) for key in compiled.keys):
            example = compiled.keys[0].label
            raise InvalidInput("KEYS_NONE", f"no key of the profile fits {pattern!r}; a key is called for instance {example}")
    return [at for at, key in enumerate(compiled.keys) if any(fnmatchcase(key.label, pattern) for pattern in wanted)]


def keks_for(custody: Custody, algorithms: Iterable[Algorithm], scheme: WrapScheme, named: Iterable[str]) -> dict[Algorithm, str]:
    """The key-encryption key for keys of each algorithm: of those `named`, or the custody's only one of the algorithm it takes.

    Raises NotFound (KEY_UNKNOWN, KEK_MISSING), InvalidInput KEK_AMBIGUOUS.
    """
    names = list(named)
    records = [custody.record(name) for name in names] if names else custody.inventory()
    candidates = sorted({record.key_id for record in records if record.purpose is Purpose.KEY_ENCRYPTION})
    found: dict[Algorithm, str] = {}
    for algorithm in dict.fromkeys(algorithms):
        needed = kek_algorithm(scheme, algorithm)
        fitting = [key_id for key_id in candidates if custody.record(key_id).algorithm == needed]
        if not fitting:
            raise NotFound("KEK_MISSING", f"wrapping {algorithm} keys by {scheme} needs a {needed} key-encryption key; there is none")
        if len(fitting) > 1:
            raise InvalidInput("KEK_AMBIGUOUS", f"several {needed} key-encryption keys fit: {', '.join(fitting)}; name one with --kek")
        found[algorithm] = fitting[0]
    return found


def build(
    compiled: CompiledProfile,
    population: Population,
    custody: Custody,
    *,
    patterns: Iterable[str],
    scheme: WrapScheme,
    file_format: FileFormat,
    keks: Iterable[str],
    part_rows: int,
) -> Request:
    """Checks everything that can be wrong before the first key is made. Raises as `select` and `keks_for`, and InvalidInput
    (TUNION_WRAP, TUNION_KEYS, PART_ROWS).
    """
    if part_rows < 1:
        raise InvalidInput("PART_ROWS", "a part has at least one card")
    chosen = select(compiled, patterns)
    if file_format == "tunion":
        chosen = _tunion_keys(compiled, chosen, scheme)
    keys = tuple(compiled.keys[at] for at in chosen)
    over = keks_for(custody, (key.algorithm for key in keys), scheme, keks)
    records = {name: custody.record(name) for name in {*(key.master_id for key in keys), *over.values()}}
    for record in records.values():
        record.require_active()
    return Request(
        compiled=compiled,
        population=population,
        keys=keys,
        derivations=tuple(compiled.derivations[at] for at in chosen),
        keks=tuple(over[key.algorithm] for key in keys),
        scheme=scheme,
        file_format=file_format,
        part_rows=part_rows,
        master_kcvs={name: f"version {record.version}, {record.kcv}" for name, record in sorted(records.items())},
    )


def tunion_groups(compiled: CompiledProfile) -> list[tuple[str, list[int]]]:
    """DGIs of the T-Union layout in the profile's order: number and the keys in it."""
    groups = []
    for application in compiled.loaded.profile.applications:
        for dgi in application.dgis:
            if any(part.layout == "tunion" for part in dgi.parts):
                sets = [part.keys for part in dgi.parts]
                wanted = [
                    at for name in sets for at, key in enumerate(compiled.keys) if (key.application, key.keyset) == (application.name, name)
                ]
                groups.append((dgi.id, wanted))
    return groups


def _tunion_keys(compiled: CompiledProfile, chosen: list[int], scheme: WrapScheme) -> list[int]:
    if scheme != "ecb":
        raise InvalidInput("TUNION_WRAP", f"the T-Union layout has bare ECB cryptograms of 16 bytes; --wrap ecb, not {scheme}")
    listed = [at for _, keys in tunion_groups(compiled) for at in keys]
    if not listed:
        raise InvalidInput("TUNION_KEYS", f"profile {compiled.loaded.profile.name} has no key set in the T-Union layout")
    if len(chosen) != len(compiled.keys) and set(chosen) != set(listed):
        raise InvalidInput("TUNION_KEYS", "a T-Union file holds whole key sets: leave the choice of keys out")
    return listed
