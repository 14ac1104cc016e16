"""Profile lint: every finding at once, each with a stable rule name and its place.

`error` stops a job from being made with the profile; `warning` asks for a decision; `info` tells what a card of it costs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from engine.profiles.compile import CompiledProfile, compile_profile, factor_bytes
from engine.profiles.fields import ATTEMPT_FIELDS, PAN_DIGITS
from engine.profiles.findings import Finding, error, warning
from engine.profiles.lintparts import check_parts, flat
from engine.profiles.masters import master_specs
from engine.profiles.model import Application, KeyEntry, KeySet, LoadedProfile, Profile
from keys.custody.sealing import KEY_ID
from keys.errors import CitycardError, InvalidInput

__all__ = ["Finding", "lint", "require_clean"]

# Which security levels a card allows, by protocol and "i" parameter (GPCS annex E, Amendment D).
LEVELS: Final = {
    ("scp02", "15"): ("01", "03"),
    ("scp02", "55"): ("01", "03"),
    ("scp03", "00"): ("01", "03"),
    ("scp03", "10"): ("01", "03"),
    ("scp03", "20"): ("01", "03", "11", "13"),
    ("scp03", "30"): ("01", "03", "11", "13"),
    ("scp03", "60"): ("01", "03", "11", "13", "33"),
    ("scp03", "70"): ("01", "03", "11", "13", "33"),
}
# Ciphers of the static keys a protocol works with.
CHANNEL_ALGORITHM: Final = {"scp02": "3des", "scp03": "aes"}
CARD_FACTORS: Final = ("chip-serial", "pan-psn")
# Which purposes a key must have to be proven so.
PROOF_PURPOSES: Final = {
    "internal-authenticate": ("01",),
    "external-authenticate": ("02", "0B"),
    "initialize-for-load": ("08",),
}


def lint(loaded: LoadedProfile) -> list[Finding]:
    """All findings, errors first. The compiler runs only when no error was found before it."""
    profile = loaded.profile
    findings = [*_header(profile), *_pools(profile), *_masters(profile)]
    for application in profile.applications:
        findings += [*_application(profile, application), *check_parts(profile, application)]
    if not any(f.severity == "error" for f in findings):
        try:
            findings += _costs([compile_profile(loaded, digits) for digits in PAN_DIGITS][-1])
        except CitycardError as problem:
            findings.append(error("compile", profile.name, problem.message))
    return sorted(findings, key=lambda f: ("error", "warning", "info").index(f.severity))


def require_clean(loaded: LoadedProfile) -> None:
    """Raises InvalidInput PROFILE_LINT with every error in the message."""
    errors = [f for f in lint(loaded) if f.severity == "error"]
    if errors:
        text = "; ".join(f"{f.where}: {f.message} [{f.rule}]" for f in errors)
        raise InvalidInput("PROFILE_LINT", f"profile {loaded.profile.name}: {len(errors)} errors: {text}")


def _header(profile: Profile) -> Iterator[Finding]:
    if not profile.applications:
        yield error("no-applications", "applications", "a card without applications has nothing to personalize")
    if not 5 <= len(profile.chip.isd_aid) // 2 <= 16:
        yield error("aid-length", "chip.isd_aid", "an AID has 5 to 16 bytes (ISO 7816-4)")
    channel = profile.channel
    if channel.protocol == "scp03" and int(channel.i, 16) & 1:
        yield error("channel-s16", "channel.i", "S16 mode is not supported: cards in the field answer S8")
    elif channel.level not in LEVELS.get((channel.protocol, channel.i), ()):
        message = f"level {channel.level} is not possible with {channel.protocol} i={channel.i}"
        yield error("channel-level", "channel.level", message)
    for name, source in (("transport", channel.transport), ("issuer", channel.issuer)):
        if source.algorithm != CHANNEL_ALGORITHM[channel.protocol]:
            yield error("channel-method", f"channel.{name}.method", f"{source.method} gives no keys for {channel.protocol}")
    if profile.channel.transport.kvn == profile.channel.issuer.kvn:
        yield error("channel-kvn", "channel.issuer.kvn", "issuer keys need another version than the maker's transport keys")
    if profile.channel.transport.master == profile.channel.issuer.master:
        yield error("channel-master", "channel.issuer.master", "issuer and maker must not share a master key")
    for kind, names in (
        ("application", [a.name for a in profile.applications]),
        ("aid", [a.aid for a in profile.applications]),
        ("serial", [s.name for s in profile.serials]),
    ):
        for name, count in Counter(names).items():
            if count > 1:
                yield Finding(
                    "error",
                    f"{kind}-twice",
                    "applications" if kind != "serial" else "serials",
                    f"{kind} {name} appears {count} times",
                )


def _pools(profile: Profile) -> Iterator[Finding]:
    for pool in profile.serials:
        where = f"serials.{pool.name}"
        if f"{pool.name}_serial" in ATTEMPT_FIELDS:
            yield error("serial-name", where, f"{pool.name}_serial is already the name of a field")
        if pool.last < pool.first:
            yield error("serial-range", where, "last is before first")
        if len(pool.prefix) + len(str(pool.last)) > pool.digits:
            yield error("serial-digits", where, f"prefix and last number need more than {pool.digits} digits")


def _masters(profile: Profile) -> Iterator[Finding]:
    """One master, one owner and one use; two keys of a card are never the same key by oversight."""
    specs = defaultdict(set)
    for spec in master_specs(profile):
        specs[spec.key_id].add(spec)
    for key_id, kinds in specs.items():
        if len(kinds) > 1:
            yield error("master-mixed", key_id, "one master key serves more than one domain, cipher, purpose or level")
        if not KEY_ID.fullmatch(key_id):
            yield error("master-id", key_id, "a master key id is lower-case letters, digits and . _ - only, at most 64")
    same = defaultdict(list)
    for application, keyset in profile.keysets():
        for entry in profile.keys_of(keyset):
            master = f"{keyset.masters}.{entry.master or entry.name}"
            same[master, keyset.algorithm, keyset.method, tuple(keyset.factors)].append(f"{application.name}.{keyset.name}.{entry.name}")
    for (master, *_), places in same.items():
        if len(places) > 1:
            yield warning("key-shared", places[0], f"the same key of {master} lies on the card {len(places)} times: {', '.join(places)}")


def _application(profile: Profile, application: Application) -> Iterator[Finding]:
    where = application.name
    if not 5 <= len(application.aid) // 2 <= 16:
        yield error("aid-length", f"{where}.aid", "an AID has 5 to 16 bytes (ISO 7816-4)")
    if not application.dgis:
        yield error("no-data", where, "an application without data cannot be personalized")
    for name, count in Counter(k.name for k in application.keysets).items():
        if count > 1:
            yield error("keyset-twice", where, f"{count} key sets are called {name}")
    parts = [part for dgi in application.dgis for part in flat(dgi.parts)]
    loaded = Counter(p.keys for p in parts if p.keys)
    checked = Counter(p.kcvs or p.keys for p in parts if p.kcvs or p.layout == "tunion")
    for keyset in application.keysets:
        yield from _keyset(profile, application, keyset)
        if loaded[keyset.name] != 1:
            yield error("keyset-loaded", f"{where}.{keyset.name}", f"keys are put on the card {loaded[keyset.name]} times, not once")
        if not checked[keyset.name]:
            yield warning("keyset-unchecked", f"{where}.{keyset.name}", "no check values go with these keys")
    yield from _accesses(profile, application)
    yield from _proof_inputs(profile, application)
    by_pan = any(k.factors[-1:] == ["pan-psn"] for k in application.keysets)
    if (by_pan or application.domain == "finance") and application.remake_psn is None:
        yield error("remake-psn", where, 'a remake keeps the PAN: say remake_psn = "next" or "same"')


def _accesses(profile: Profile, application: Application) -> Iterator[Finding]:
    """Access conditions name keys that somebody can prove to hold."""
    able: defaultdict[str, set[str]] = defaultdict(lambda: {"00", "FF"})
    for keyset in application.keysets:
        able[keyset.df or application.aid] |= {e.kid for e in profile.keys_of(keyset) if e.purpose in ("02", "0B")}
    for dgi in application.dgis:
        for part in dgi.parts:
            df = part.df or application.aid
            for f in part.files or []:
                for kid in sorted({f.read, f.update} - able[df]):
                    yield error("access-key", f"{application.name}.{dgi.id}", f"file {f.fid} needs key {kid}, which DF {df} does not have")


def _keyset(profile: Profile, application: Application, keyset: KeySet) -> Iterator[Finding]:
    where = f"{application.name}.{keyset.name}"
    if keyset.table is not None and keyset.table not in profile.key_tables:
        yield error("table-unknown", where, f"there is no key table {keyset.table!r}")
    if keyset.table is not None and keyset.keys:
        yield error("table-and-keys", where, "a key set has a table or keys of its own, not both")
    if keyset.df is not None and not 5 <= len(keyset.df) // 2 <= 16:
        yield error("df-length", where, "a DF name has 5 to 16 bytes (ISO 7816-4)")
    entries = profile.keys_of(keyset)
    if not entries:
        yield error("keyset-empty", where, "a key set needs keys")
    for rule, what, values in (("kid-twice", "KID", [e.kid for e in entries]), ("key-twice", "key", [e.name for e in entries])):
        for value, count in Counter(values).items():
            if count > 1:
                yield error(rule, where, f"{what} {value} appears {count} times")
    if keyset.parity == "odd" and keyset.algorithm != "3des":
        yield error("parity", where, "only DES keys have parity")
    if keyset.algorithm == "aes":
        yield error("algorithm", where, "dispersion by factors is defined for 3DES and SM4 only")
    yield from _factors(profile, application, keyset)
    yield from _provable(where, entries)


def _provable(where: str, entries: list[KeyEntry]) -> Iterator[Finding]:
    for entry in entries:
        if entry.purpose not in PROOF_PURPOSES.get(entry.prove, (entry.purpose,)):
            yield error("prove", f"{where}.{entry.name}", f"a key of purpose {entry.purpose} cannot be proven by {entry.prove}")
        if entry.prove == "generate-ac" and entry.name != "ac":
            yield error("prove", f"{where}.{entry.name}", "the key that GENERATE AC proves is the one called ac")


def _factors(profile: Profile, application: Application, keyset: KeySet) -> Iterator[Finding]:
    where = f"{application.name}.{keyset.name}"
    if not keyset.factors:
        yield error("factors", where, "at least the card's own factor is needed")
        return
    for factor in keyset.factors[:-1]:
        try:
            factor_bytes(factor)
        except InvalidInput as problem:
            yield error("factor", where, problem.message)
    last = keyset.factors[-1]
    # an even number: the card's field and the factor are the same eight bytes
    pools = [f"serial:{p.name}" for p in profile.serials if p.digits >= 16 and p.digits % 2 == 0]
    if last not in (*CARD_FACTORS, *pools):
        yield Finding(
            "error",
            "card-factor",
            where,
            f"{last!r} does not differ from card to card; use one of {', '.join((*CARD_FACTORS, *pools))}",
        )
    if keyset.method.startswith("emv") and len(keyset.factors) > 1:
        yield error("method", where, f"method {keyset.method} has no factor above the card's (EMV Book 2 A1.4)")
    if (last == "pan-psn") != keyset.method.startswith("emv"):
        yield error("method", where, f"method {keyset.method} does not go with factor {last}")
    if last == "pan-psn" and application.remake_psn == "same":
        yield warning("key-repeats", where, "a remake repeats this key: it waits for the scrapped card's recorded destruction")


def _proof_inputs(profile: Profile, application: Application) -> Iterator[Finding]:
    name = application.name
    proofs = {(keyset.name, e.name): (keyset, e) for keyset in application.keysets for e in profile.keys_of(keyset)}
    loads = Counter((load.keyset, load.key) for load in application.load)
    acs = Counter((g.keyset, "ac") for g in application.generate_ac)
    sampled = Counter((p.keyset, key) for p in application.purchase for key in (p.key, p.tac))
    for rule, table, prove, named in (
        ("prove-load", "load", "initialize-for-load", loads),
        ("prove-ac", "generate_ac", "generate-ac", acs),
        ("prove-sample", "purchase", "sample", sampled),
    ):
        for at, (_, entry) in proofs.items():
            if entry.prove == prove and at not in named:
                yield error(rule, f"{name}.{at[0]}.{at[1]}", f"no [[applications.{table}]] names this key")
        for at, count in named.items():
            if at not in proofs or proofs[at][1].prove != prove:
                yield error(rule, f"{name}.{at[0]}.{at[1]}", f"[[applications.{table}]] names a key that is not there or not proven so")
            if count > 1:
                yield error(rule, f"{name}.{at[0]}.{at[1]}", f"{count} [[applications.{table}]] name this key")
    for keyset, entry in proofs.values():
        if entry.prove == "generate-ac":
            yield from _ac_data(application, keyset, entry)
    for spec in application.generate_ac:
        if len(spec.cdol1_data) // 2 > 255 or len(spec.pdol_data) // 2 > 127:
            yield error("prove-ac", name, "CDOL1 data has at most 255 bytes, PDOL data 127")
    yield from _purchases(application)


def _purchases(application: Application) -> Iterator[Finding]:
    for purchase in application.purchase:
        where = f"{application.name}.{purchase.keyset}.{purchase.key}"
        if any(k.name == purchase.keyset and k.algorithm != "3des" for k in application.keysets):
            yield error("prove-sample", where, "load and purchase of a sample are done in 3DES only")
        if not any(x.keyset == purchase.keyset and x.amount >= purchase.amount for x in application.load):
            yield error("prove-sample", where, "a sample's purchase is paid from a load of the same key set, and of no less")


def _ac_data(application: Application, keyset: KeySet, entry: KeyEntry) -> Iterator[Finding]:
    where = f"{application.name}.{keyset.name}.{entry.name}"
    options, iad = ("9104", "9200") if keyset.algorithm == "3des" else ("9105", "9201")
    given = {dgi.id: dgi for dgi in application.dgis}
    if options not in given or iad not in given:
        yield error("prove-ac", where, f"GENERATE AC needs data groupings {options} and {iad}")
        return
    first = next(iter(given[options].parts), None)
    if first is None or first.tlv != "82" or not first.parts or len(first.parts) != 1 or len(first.parts[0].hex or "") != 4:
        yield error("prove-ac", where, f"data grouping {options} begins with tag 82 and two bytes of hex")


def _costs(compiled: CompiledProfile) -> Iterator[Finding]:
    name = compiled.loaded.profile.name
    commands = sum(len(a.commands) for a in compiled.applets)
    use = Counter("proven by use" if k.prove not in ("sample", "kcv-only") else k.prove for k in compiled.keys)
    external = sum(k.prove == "external-authenticate" for k in compiled.keys)
    yield Finding(
        "info",
        "round-trips",
        name,
        f"{3 + external} round trips a card: identity, personalization, new channel, {external} external keys",
    )
    yield Finding("info", "size", name, f"{compiled.image_len} bytes in {commands} STORE DATA commands")
    yield Finding("info", "proof", name, f"{len(compiled.keys)} keys: " + ", ".join(f"{n} {grade}" for grade, n in sorted(use.items())))
