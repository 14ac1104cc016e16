"""A second way to read a profile, for tests: plain dicts, one card at a time, sharing no code with the compiler."""

from __future__ import annotations

import copy
import json
import tomllib
from pathlib import Path

from engine.profiles.model import SHIPPED, LoadedProfile, parse

NAME = "zhengzhou-citizen-card"
TEXT = (SHIPPED / f"{NAME}.toml").read_bytes()
WIDTHS = {
    "social_security_number": 18, "sex": 1, "ethnicity": 2, "birth_date": 8, "issuing_region": 6, "card_number": 9,
    "issue_date": 8, "expiry_date": 8, "psn": 2, "chip_serial": 8, "transport_serial": 20, "city_serial": 16,
}  # fmt: skip


def shipped() -> dict:
    return tomllib.loads(TEXT.decode())


def application(data: dict, name: str) -> dict:
    return next(a for a in data["applications"] if a["name"] == name)


def dgi(data: dict, app: str, number: str) -> dict:
    return next(d for d in application(data, app)["dgis"] if d["id"] == number)


def keyset(data: dict, app: str, name: str) -> dict:
    return next(k for k in application(data, app)["keysets"] if k["name"] == name)


def to_toml(value: object) -> str:
    """TOML of a dict; below the top everything inline."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {to_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def loaded(data: dict) -> LoadedProfile:
    text = "\n".join(f"{json.dumps(key)} = {to_toml(value)}" for key, value in data.items()).encode()
    return LoadedProfile(profile=parse(text, "test.toml"), sha256="", path=Path("test.toml"))


def tiny(**changes: object) -> dict:
    """The smallest sound profile: one application, one SM4 key set, one record."""
    base = shipped()
    base["assumptions"], base["key_tables"] = [], {}
    city = application(base, "city")
    city["keysets"] = [keyset(base, "city", "root")]
    city["dgis"] = city["dgis"][:5]
    base["applications"] = [city]
    return copy.deepcopy({**base, **changes})


class Blank:
    """Values of no card at all: what the template holds in their places."""

    def __init__(self, pan_digits: int) -> None:
        self.widths = {**WIDTHS, "pan": pan_digits}

    def text(self, part: dict) -> bytes:
        if "length" in part:
            return bytes(part["length"])
        width = 0
        for item in part.get("concat") or [part]:
            if "text" in item:
                width += len(item["text"])
            else:
                first, after = item.get("slice", (0, self.widths[item["field"]]))
                width += after - first
        return bytes((width + 1) // 2 if part["codec"] in ("cn", "n") else width)

    def key(self, app: str, keyset_name: str, entry: dict) -> bytes:
        return bytes(16)

    def kcv(self, app: str, keyset_name: str, entry: dict) -> bytes:
        return bytes(3)

    def pin(self) -> bytes:
        return bytes(8)


def entries_of(data: dict, key_set: dict) -> list[dict]:
    return data["key_tables"][key_set["table"]] if "table" in key_set else key_set["keys"]


def tlv_length(count: int) -> bytes:
    if count < 128:
        return bytes([count])
    return b"\x81" + bytes([count]) if count < 256 else b"\x82" + count.to_bytes(2, "big")


def _value(data: dict, app: dict, part: dict, card: Blank) -> bytes:
    sets = {k["name"]: k for k in app["keysets"]}
    if "hex" in part:
        return bytes.fromhex(part["hex"])
    if "tlv" in part:
        inner = b"".join(_value(data, app, p, card) for p in part["parts"])
        return bytes.fromhex(part["tlv"]) + tlv_length(len(inner)) + inner
    if "files" in part:
        df = bytes.fromhex(part.get("df", app["aid"]))
        kind = {"transparent": "01", "linear": "02", "cyclic": "04"}
        entries = [f["fid"] + f["sfi"] + kind[f["type"]] + f"{f['size']:04X}" + f["read"] + f["update"] for f in part["files"]]
        return bytes([len(df)]) + df + bytes.fromhex("".join(entries))
    if "kcvs" in part:
        return b"".join(card.kcv(app["name"], part["kcvs"], e) for e in entries_of(data, sets[part["kcvs"]]))
    if "pin_block" in part:
        return card.pin() + bytes.fromhex("8000000000000000")
    if "keys" not in part:
        return card.text(part)
    out = b""
    for e in entries_of(data, sets[part["keys"]]):
        if part["layout"] == "capp":
            out += bytes.fromhex(e["kid"] + e["purpose"] + e.get("version", "01") + e.get("retry", "0F"))
        out += card.key(app["name"], part["keys"], e)
        if part["layout"] == "tunion":
            out += card.kcv(app["name"], part["keys"], e)
    return out


def naive_dgis(data: dict, card: Blank) -> dict[str, list[tuple[str, bytes, bool]]]:
    """Per application its DGIs: number, DGI with length and value, and whether it carries secrets."""
    found = {}
    for app in data["applications"]:
        rows = []
        for group in app["dgis"]:
            value = b"".join(_value(data, app, part, card) for part in group["parts"])
            length = bytes([len(value)]) if len(value) <= 254 else b"\xff" + len(value).to_bytes(2, "big")
            secret = any("keys" in part or "pin_block" in part for part in group["parts"])
            rows.append((group["id"], bytes.fromhex(group["id"]) + length + value, secret))
        found[app["name"]] = rows
    return found
