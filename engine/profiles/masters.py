"""Which master keys a profile needs: ids, domains and algorithms, for provisioning and for the check before a job."""

from __future__ import annotations

from collections.abc import Iterator

from engine.profiles.model import Profile
from keys.algorithms import ALGORITHMS
from keys.custody.software import KeySpec
from keys.hierarchy import Domain, Level, Purpose


def master_specs(profile: Profile) -> Iterator[KeySpec]:
    """Every master cards of this profile descend from, the channel's included; some ids come more than once."""
    for source in (profile.channel.transport, profile.channel.issuer):
        yield KeySpec(source.master, Domain.CHIP, source.algorithm, Purpose.SECURITY_DOMAIN, Level.NATIONAL)
    for application, keyset in profile.keysets():
        purpose = Purpose.CRYPTOGRAM if keyset.method.startswith("emv") else Purpose.APPLICATION
        # dispersed over province and city here: what is held is the national root (TEST) or what was handed down in its place
        level = Level.NATIONAL if len(keyset.factors) > 2 else Level.CITY
        for entry in profile.keys_of(keyset):
            master = f"{keyset.masters}.{entry.master or entry.name}"
            yield KeySpec(master, Domain(application.domain), keyset.algorithm, purpose, level)


def kek_specs() -> Iterator[KeySpec]:
    """A key-encryption key of each algorithm, for a TEST store: what card keys leave under in a re-key."""
    for algorithm in ALGORITHMS:
        yield KeySpec(f"kek.{algorithm}", Domain.CITY, algorithm, Purpose.KEY_ENCRYPTION, Level.CITY)
