"""Profile lint: every finding at once, each with a stable rule name and its place.

`error` stops a job from being made with the profile; `warning` asks for a decision; `info` tells what a card of it costs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from engine.profiles.compile import CompiledProfile, compile_profile, factor_bytes
from engine.profiles.fields import byte_length, items_of, widths
from engine.profiles.model import Application, Dgi, KeySet, LoadedProfile, Part, Profile
from keys.errors import CitycardError, InvalidInput

Severity = Literal["error", "warning", "info"]

# Which security levels an SCP03 card allows, by its "i" parameter (GPC Amendment D).
LEVELS: Final = {
    "00": ("01", "03"),
    "10": ("01", "03"),
    "20": ("01", "03", "11", "13"),
    "30": ("01", "03", "11", "13"),
    "60": ("01", "03", "11", "13", "33"),
    "70": ("01", "03", "11", "13", "33"),
}
CARD_FACTORS: Final = ("chip-serial", "pan-psn")
KINDS: Final = ("hex", "field", "concat", "tlv", "files", "keys", "kcvs", "pin_block")
LAYOUT_COUNT: Final = {"bare": (3, 3), "tunion": (1, 15), "capp": (1, 12)}


@dataclass(frozen=True)
class Finding:
    """One thing the lint has to say."""

    severity: Severity
    rule: str
    where: str
    message: str


def lint(loaded: LoadedProfile) -> list[Finding]:
    """All findings, errors first. The compiler runs only when no error was found before it."""
    profile = loaded.profile
    findings = [*_header(profile), *_pools(profile)]
    for application in profile.applications:
        findings += _application(profile, application)
    if not any(f.severity == "error" for f in findings):
        try:
            findings += _costs(compile_profile(loaded))
        except CitycardError as error:
            findings.append(Finding("error", "compile", profile.name, error.message))
    return sorted(findings, key=lambda f: ("error", "warning", "info").index(f.severity))


def require_clean(loaded: LoadedProfile) -> None:
    """Raises InvalidInput PROFILE_LINT with every error in the message."""
    errors = [f for f in lint(loaded) if f.severity == "error"]
    if errors:
        text = "; ".join(f"{f.where}: {f.message} [{f.rule}]" for f in errors)
        raise InvalidInput("PROFILE_LINT", f"profile {loaded.profile.name}: {len(errors)} errors: {text}")


def _header(profile: Profile) -> Iterator[Finding]:
    i = int(profile.channel.i, 16)
    if i & 1:
        yield Finding("error", "channel-s16", "channel.i", "S16 mode is not supported: cards in the field answer S8")
    elif profile.channel.level not in LEVELS.get(profile.channel.i, ()):
        yield Finding(
            "error", "channel-level", "channel.level", f"level {profile.channel.level} is not possible with i={profile.channel.i}"
        )
    if profile.channel.transport.kvn == profile.channel.issuer.kvn:
        yield Finding("error", "channel-kvn", "channel.issuer.kvn", "issuer keys need another version than the maker's transport keys")
    if profile.channel.transport.master == profile.channel.issuer.master:
        yield Finding("error", "channel-master", "channel.issuer.master", "issuer and maker must not share a master key")
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
        if pool.last < pool.first:
            yield Finding("error", "serial-range", where, "last is before first")
        if len(pool.prefix) + len(str(pool.last)) > pool.digits:
            yield Finding("error", "serial-digits", where, f"prefix and last number need more than {pool.digits} digits")


def _application(profile: Profile, application: Application) -> Iterator[Finding]:
    where = application.name
    if not 5 <= len(application.aid) // 2 <= 16:
        yield Finding("error", "aid-length", f"{where}.aid", "an AID has 5 to 16 bytes (ISO 7816-4)")
    if not application.dgis:
        yield Finding("error", "no-data", where, "an application without data cannot be personalized")
    for keyset in application.keysets:
        yield from _keyset(profile, application, keyset)
    loaded = Counter(p.keys for d in application.dgis for p in _flat(d.parts) if p.keys)
    checked = Counter(p.kcvs or p.keys for d in application.dgis for p in _flat(d.parts) if p.kcvs or p.layout == "tunion")
    for keyset in application.keysets:
        if loaded[keyset.name] != 1:
            yield Finding(
                "error",
                "keyset-loaded",
                f"{where}.{keyset.name}",
                f"keys are put on the card {loaded[keyset.name]} times, not once",
            )
        if not checked[keyset.name]:
            yield Finding("warning", "keyset-unchecked", f"{where}.{keyset.name}", "no check values go with these keys")
    current, seen = application.aid, set()
    for dgi in application.dgis:
        current = next((p.df or application.aid for p in dgi.parts if p.files is not None), current)
        if (current, dgi.id) in seen:
            yield Finding("error", "dgi-twice", f"{where}.{dgi.id}", f"data grouping {dgi.id} appears twice in one DF")
        seen.add((current, dgi.id))
        for part in _flat(dgi.parts):
            yield from _part(profile, application, dgi, part)
    yield from _proof_inputs(profile, application)
    if application.domain == "finance" and application.remake_psn is None:
        yield Finding("error", "remake-psn", where, 'a remake keeps the PAN: say remake_psn = "next" or "same"')


def _flat(parts: list[Part]) -> Iterator[Part]:
    for part in parts:
        yield part
        yield from _flat(part.parts or [])


def _keyset(profile: Profile, application: Application, keyset: KeySet) -> Iterator[Finding]:
    where = f"{application.name}.{keyset.name}"
    if keyset.table is not None and keyset.table not in profile.key_tables:
        yield Finding("error", "table-unknown", where, f"there is no key table {keyset.table!r}")
    entries = profile.keys_of(keyset)
    if not entries:
        yield Finding("error", "keyset-empty", where, "a key set needs keys")
    for kid, count in Counter(e.kid for e in entries).items():
        if count > 1:
            yield Finding("error", "kid-twice", where, f"KID {kid} appears {count} times")
    if keyset.parity == "odd" and keyset.algorithm != "3des":
        yield Finding("error", "parity", where, "only DES keys have parity")
    if keyset.algorithm == "aes":
        yield Finding("error", "algorithm", where, "dispersion by factors is defined for 3DES and SM4 only")
    yield from _factors(profile, application, keyset)
    for entry in entries:
        wrong = (entry.prove == "internal-authenticate" and entry.purpose != "01") or (
            entry.prove == "external-authenticate" and entry.purpose not in ("02", "0B")
        )
        if wrong:
            yield Finding("error", "prove", f"{where}.{entry.name}", f"a key of purpose {entry.purpose} cannot be proven by {entry.prove}")


def _factors(profile: Profile, application: Application, keyset: KeySet) -> Iterator[Finding]:
    where = f"{application.name}.{keyset.name}"
    if not keyset.factors:
        yield Finding("error", "factors", where, "at least the card's own factor is needed")
        return
    for factor in keyset.factors[:-1]:
        try:
            factor_bytes(factor)
        except InvalidInput as error:
            yield Finding("error", "factor", where, error.message)
    last = keyset.factors[-1]
    pools = [f"serial:{p.name}" for p in profile.serials if p.digits >= 16]
    if last not in (*CARD_FACTORS, *pools):
        yield Finding(
            "error",
            "card-factor",
            where,
            f"{last!r} does not differ from card to card; use one of {', '.join((*CARD_FACTORS, *pools))}",
        )
    if (last == "pan-psn") != keyset.method.startswith("emv"):
        yield Finding("error", "method", where, f"method {keyset.method} does not go with factor {last}")
    if last == "pan-psn" and application.remake_psn == "same":
        yield Finding("warning", "key-repeats", where, "a remake repeats this key: it waits for the scrapped card's recorded destruction")


def _part(profile: Profile, application: Application, dgi: Dgi, part: Part) -> Iterator[Finding]:
    where = f"{application.name}.{dgi.id}"
    given = [kind for kind in KINDS if getattr(part, kind) is not None]
    if len(given) != 1:
        yield Finding("error", "part-kind", where, f"a part is exactly one of {', '.join(KINDS)}; here: {', '.join(given) or 'none'}")
        return
    names = {k.name: k for k in application.keysets}
    for name in (part.keys, part.kcvs):
        if name is not None and name not in names:
            yield Finding("error", "keyset-unknown", where, f"no key set is called {name!r}")
    if part.keys in names:
        count = len(profile.keys_of(names[part.keys]))
        low, high = LAYOUT_COUNT.get(part.layout or "", (1, 0))
        if part.layout is None or not low <= count <= high:
            yield Finding("error", "layout", where, f"layout {part.layout} does not hold {count} keys")
    if part.field is not None or part.concat is not None:
        yield from _text(profile, where, part)


def _text(profile: Profile, where: str, part: Part) -> Iterator[Finding]:
    known = widths(profile, 19)
    for item in items_of(part):
        if (item.field is None) == (item.text is None):
            yield Finding("error", "item", where, "an item is either a field or a text")
        elif item.field is not None and item.field not in known:
            yield Finding("error", "field-unknown", where, f"there is no field {item.field!r}; there are: {', '.join(known)}")
        elif item.slice is not None and not 0 <= item.slice[0] < item.slice[1] <= (known[item.field or ""] or 255):
            yield Finding("error", "slice", where, f"range {item.slice} does not lie in field {item.field}")
    if part.codec is None:
        yield Finding("error", "codec", where, "text needs a codec: an, cn, n, raw or gb")
    if byte_length(part, known) == 0:
        yield Finding("error", "length", where, "text of varying length needs a length in bytes")


def _proof_inputs(profile: Profile, application: Application) -> Iterator[Finding]:
    loads = {(load.keyset, load.key) for load in application.load}
    acs = {g.keyset for g in application.generate_ac}
    ids = {d.id for d in application.dgis}
    for keyset in application.keysets:
        for entry in profile.keys_of(keyset):
            where = f"{application.name}.{keyset.name}.{entry.name}"
            if entry.prove == "initialize-for-load" and (keyset.name, entry.name) not in loads:
                yield Finding("error", "prove-load", where, "no [[applications.load]] names this key")
            if entry.prove == "generate-ac":
                need = ("9104", "9200") if keyset.algorithm == "3des" else ("9105", "9201")
                if keyset.name not in acs:
                    yield Finding("error", "prove-ac", where, "no [[applications.generate_ac]] names this key set")
                if not ids.issuperset(need):
                    yield Finding("error", "prove-ac", where, f"GENERATE AC needs data groupings {' and '.join(need)}")
    for load in application.load:
        if not any(k.name == load.keyset and any(e.name == load.key for e in profile.keys_of(k)) for k in application.keysets):
            yield Finding("error", "load-key", application.name, f"load names key {load.keyset}.{load.key}, which does not exist")


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
