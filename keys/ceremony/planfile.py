"""Reading a plan: one TOML file that is reviewed and signed off, and says all of a ceremony. What is not in it does not happen.

`read_plan` gives every fault at once (see `keys.ceremony.toml`); `require_plan` raises them as one error.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import date
from typing import Any, Final, get_args

from keys.algorithms import ALGORITHMS
from keys.ceremony.plan import INTAKE, MAKES_KEYS, OUTLET, THE_STORE_KEY, Export, Kind, Output, Person, Plan, PlannedKey, SchemeType
from keys.ceremony.toml import Field, Finding, Reading, Table
from keys.components import MAX_COMPONENTS, MIN_COMPONENTS
from keys.custody import Method
from keys.custody.policy import HOLDERS
from keys.custody.sealing import KEY_ID
from keys.errors import InvalidInput
from keys.hierarchy import Domain, Level, Purpose
from keys.keyblock.handover import KEK_ALGORITHM
from keys.shares import MIN_THRESHOLD

EXPORT_CUSTODIANS: Final = 2
_KCV_KNOWN: Final = frozenset({Kind.RESTORE, Kind.BACKUP, Kind.DESTROY, Kind.EXPORT})
_TEXT: Final = re.compile(r"[^\x00-\x1f\x7f]{1,120}")
_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HEX: Final = re.compile(r"[0-9A-F]{6}")
_TOKEN: Final = ("host-clear", "token-only")
_POLICY: Final = ("methods", "profiles", "not_before", "not_after")
_PERSON: Final = {"id": Field(str, pattern=_ID), "name": Field(str, pattern=_TEXT)}
_TOP: Final = {
    "schema": Field(int, numbers=range(1, 2)),
    "name": Field(str, pattern=_ID),
    "title": Field(str, pattern=_TEXT),
    "kind": Field(str, choices=tuple(Kind)),
    "place": Field(str, pattern=_TEXT),
    "custody": Field(str, choices=HOLDERS),
    "store_key": Field(bool, required=False),
}
_TABLES: Final = {
    "scheme": Table(
        {"type": Field(str, choices=tuple(SchemeType)), "threshold": Field(int, required=False, numbers=range(2, 17))}, required=True
    ),
    "keys": Table(
        {
            "id": Field(str, pattern=KEY_ID),
            "domain": Field(str, choices=tuple(Domain)),
            "purpose": Field(str, choices=tuple(Purpose)),
            "level": Field(str, choices=tuple(Level)),
            "algorithm": Field(str, choices=ALGORITHMS),
            "version": Field(int, numbers=range(1, 256)),
            "exportable": Field(bool, required=False),
            "methods": Field(list, required=False, choices=get_args(Method)),
            "profiles": Field(list, required=False, pattern=_ID),
            "not_before": Field(date, required=False),
            "not_after": Field(date, required=False),
            "kcv": Field(str, required=False, pattern=_HEX),
        },
        many=True,
    ),
    "custodians": Table(_PERSON, required=True, many=True),
    "witness": Table(_PERSON, required=True),
    "output": Table(
        {
            "device": Field(str, pattern=_TEXT),
            "format": Field(str, choices=("text", "pdf")),
            "first_envelope": Field(int, numbers=range(1, 100_000_000)),
        }
    ),
    "export": Table(
        {
            "kek": Field(str, pattern=KEY_ID),
            "scheme": Field(str, choices=tuple(KEK_ALGORITHM)),
            "recipient": Field(str, pattern=_TEXT),
            "file": Field(str, pattern=_TEXT),
        }
    ),
}


def read_plan(text: str) -> tuple[Plan | None, list[Finding]]:
    """The plan, or None, and all faults in the order of the file."""
    reading = Reading(text, _TOP, _TABLES)
    _check(reading)
    if reading.findings:
        return None, sorted(reading.findings)
    return _build(reading.values, text), []


def require_plan(text: str, source: str) -> Plan:
    """The plan; raises InvalidInput PLAN_INVALID with every fault, one a line, each with `source`, line and field."""
    plan, findings = read_plan(text)
    if plan is None:
        raise InvalidInput("PLAN_INVALID", "\n".join(f"{source}: {finding}" for finding in findings))
    return plan


def _check(reading: Reading) -> None:
    """What one field alone cannot show, wherever the fields it needs are sound by themselves."""
    values = reading.values
    if reading.clean("custodians", "witness"):
        _check_people(reading, values)
    if not reading.clean("kind", "scheme"):
        return
    kind, scheme = Kind(values["kind"]), SchemeType(values["scheme"]["type"])
    if reading.clean("custodians"):
        _check_scheme(reading, kind, scheme, len(values["custodians"]), values["scheme"].get("threshold"))
    if reading.clean("keys", "store_key", "custody"):
        _check_keys(reading, kind, values)
    for table, wanted in (("output", kind in OUTLET and scheme is not SchemeType.NONE), ("export", kind is Kind.EXPORT)):
        if wanted and values[table] is None:
            reading.fault(table, "missing", f"[{table}] is missing")
        if not wanted and values[table] is not None:
            reading.fault(table, "unused", f"a ceremony of this kind and scheme has no [{table}]")


def _check_people(reading: Reading, values: dict[str, Any]) -> None:
    people = values["custodians"]
    for field in ("id", "name"):
        for value, count in Counter(one[field] for one in people).items():
            if count > 1:
                at = [place for place, one in enumerate(people) if one[field] == value][1]
                reading.fault(f"custodians[{at}].{field}", "custodian-twice", f"{value} is a custodian already")
        if values["witness"][field] in {one[field] for one in people}:
            reading.fault(f"witness.{field}", "witness-is-custodian", "the witness must not be one of the custodians")


def _check_scheme(reading: Reading, kind: Kind, scheme: SchemeType, custodians: int, threshold: int | None) -> None:
    def fault(rule: str, message: str, field: str = "custodians") -> None:
        reading.fault(field, rule, message)

    undivided = scheme is SchemeType.NONE
    if undivided is not (kind in {Kind.DESTROY, Kind.EXPORT}) and not (kind is Kind.GENERATE and undivided):
        fault("scheme", f"scheme {scheme} does not go with a ceremony of kind {kind}", "scheme.type")
        return
    if (threshold is None) is (scheme is SchemeType.SLIP39):
        fault("threshold", "slip39, and no other scheme, needs a threshold", "scheme.threshold")
        return
    if scheme is SchemeType.XOR and not MIN_COMPONENTS <= custodians <= MAX_COMPONENTS:
        fault("custodians", f"XOR components need {MIN_COMPONENTS} to {MAX_COMPONENTS} custodians, not {custodians}")
    elif undivided and custodians < EXPORT_CUSTODIANS:
        fault("custodians", f"at least {EXPORT_CUSTODIANS} custodians must be there")
    elif scheme is SchemeType.SLIP39 and threshold is not None:
        if kind in INTAKE and custodians != threshold:
            fault("custodians", f"exactly the {threshold} custodians who bring a share are named, not {custodians}")
        elif not MIN_THRESHOLD <= threshold <= custodians <= MAX_COMPONENTS:
            fault("custodians", f"{threshold} shares are needed: {threshold} to {MAX_COMPONENTS} custodians, not {custodians}")


def _check_keys(reading: Reading, kind: Kind, values: dict[str, Any]) -> None:
    store = bool(values.get("store_key", False))
    if store and kind is not Kind.GENERATE:
        reading.fault("store_key", "store-key", "a store key is made by a ceremony of kind generate")
    if store or kind is Kind.UNSEAL:
        _check_store_key(reading, values)
    elif not values["keys"]:
        reading.fault("keys", "missing", "[[keys]] is missing")
    in_token = values["custody"] in _TOKEN
    if kind in {Kind.BACKUP, Kind.EXPORT} and in_token:
        reading.fault("kind", "token-exportable", "what is in a token never leaves it: it is backed up as it is made, by its shares")
    for at, key in enumerate(values["keys"]):
        where = f"keys[{at}]"
        if (key["id"], key["version"]) in {(other["id"], other["version"]) for other in values["keys"][:at]}:
            reading.fault(f"{where}.id", "key-twice", f"key {key['id']} version {key['version']} is in the plan already")
        if key["algorithm"] == "sm4" and in_token:
            reading.fault(f"{where}.algorithm", "token-sm4", "tokens have no SM4: such a key lives in the sealed custody")
        if key.get("exportable") and in_token:
            reading.fault(f"{where}.exportable", "token-exportable", "what is in a token never leaves it")
        if kind in _KCV_KNOWN and "kcv" not in key:
            reading.fault(f"{where}.kcv", "missing", f"is missing: the key of a ceremony of kind {kind} exists already")
        if kind is Kind.GENERATE and "kcv" in key:
            reading.fault(f"{where}.kcv", "unused", "a key not yet made has no check value")
        _check_policy(reading, where, key, kind, values["custody"])


def _check_store_key(reading: Reading, values: dict[str, Any]) -> None:
    if values["keys"]:
        reading.fault("keys", "store-key", "a ceremony for the store key has no other keys")
    if values["scheme"]["type"] == SchemeType.NONE:
        reading.fault("scheme.type", "store-key", "the store key is held by custodians: xor or slip39")
    if values["custody"] != "sealed":
        reading.fault("custody", "store-key", "only custody sealed rests under a store key")


def _check_policy(reading: Reading, where: str, key: dict[str, Any], kind: Kind, custody: str) -> None:
    named = [name for name in ("exportable", *_POLICY) if name in key]
    if kind not in MAKES_KEYS:
        for name in named:
            reading.fault(f"{where}.{name}", "unused", "a key that exists already has its policy")
    elif custody == "software":
        for name in named:
            if name in _POLICY:
                reading.fault(f"{where}.{name}", "policy", "the software custody keeps no policy; the sealed custody and tokens do")
    first, last = key.get("not_before"), key.get("not_after")
    if first and last and first > last:
        reading.fault(f"{where}.not_after", "cryptoperiod", f"a cryptoperiod from {first} to {last} has no day")


def _build(values: dict[str, Any], text: str) -> Plan:
    kind, scheme = Kind(values["kind"]), SchemeType(values["scheme"]["type"])
    custodians = tuple(map(_person, values["custodians"]))
    store = kind is Kind.UNSEAL or values.get("store_key", False)
    return Plan(
        name=values["name"],
        title=values["title"],
        kind=kind,
        place=values["place"],
        custody=values["custody"],
        scheme=scheme,
        threshold=values["scheme"].get("threshold") or len(custodians),
        keys=(THE_STORE_KEY,) if store else tuple(map(_key, values["keys"])),
        custodians=custodians,
        witness=_person(values["witness"]),
        output=None if values["output"] is None else Output(**values["output"]),
        export=None if values["export"] is None else Export(**values["export"]),
        text=text,
    )


def _person(found: dict[str, str]) -> Person:
    return Person(found["id"], found["name"])


def _key(found: dict[str, Any]) -> PlannedKey:
    return PlannedKey(
        key_id=found["id"],
        domain=Domain(found["domain"]),
        purpose=Purpose(found["purpose"]),
        level=Level(found["level"]),
        algorithm=found["algorithm"],
        version=found["version"],
        exportable=found.get("exportable", False),
        methods=tuple(found.get("methods", ())),
        profiles=tuple(found.get("profiles", ())),
        not_before=found.get("not_before"),
        not_after=found.get("not_after"),
        kcv=found.get("kcv"),
    )
