"""Known answers as C: `python generate.py > vectors.inc`.

From cext/selftest.json (every kernel) and the published block vectors of tests/vectors.
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAMILIES = {"3des": "tdes", "sm4": "sm4", "aes": "aes"}
METHODS = {"zero-block": "CC_KCV_ZERO_BLOCK", "one-block": "CC_KCV_ONE_BLOCK", "cmac": "CC_KCV_CMAC"}
KEYS = ("keys", "masters", "enc_keys")
DATA = ("blocks", "plain", "messages", "factors")


def spelled(text: str | list[str] | None) -> str:
    """A C array of the bytes, and NULL for none."""
    if text is None:
        return "NULL"
    joined = "".join(text) if isinstance(text, list) else text
    return "(const uint8_t[]){" + ",".join(f"0x{b:02X}" for b in bytes.fromhex(joined)) + "}"


def size(text: str | list[str] | None) -> int:
    return len("".join(text or "")) // 2


def line(test: dict[str, object]) -> str:
    """One `cc_call` with what it must give."""
    shared, rows, options, expect = test["shared"], test["rows"], test["options"], test["expect"]
    given = shared | rows
    key = next((given[name] for name in KEYS if name in given), None)
    data = next((given[name] for name in DATA if name in given), None)
    if test["kernel"] == "aes_kw":
        key, data = None, given["keys"]
    apdus = options.get("apdus", [])
    method = METHODS[options["method"]] if "method" in options else METHODS[options["kcv"]] if "kcv" in options else "CC_KCV_NONE"
    fields = {
        "id": f'"{test["id"]}"',
        "kernel": f'"{test["kernel"]}"',
        "keys": spelled(key),
        "key_len": size(key),
        "shared": int(any(name in shared for name in KEYS)),
        "data": spelled(data),
        "length": size(data),
        "kek": spelled(given.get("kek")),
        "kek_len": size(given.get("kek")),
        "iv": spelled(given.get("iv")),
        "method": method,
        "parity": int(options.get("parity", False)),
        "mac_keys": spelled(given.get("mac_keys")),
        "chain": spelled(given.get("chain")),
        "chain_len": size(given.get("chain")),
        "apdus": "(const cc_apdu[]){" + ",".join("{" + ",".join(map(str, a)) + "}" for a in apdus) + "}" if apdus else "NULL",
        "commands": len(apdus),
        "prefix": 2 if options.get("slab") else 0,
        "expect": spelled(expect[0]),
        "width": size(expect[0]),
        "kcv": spelled(expect[1]) if len(expect) > 1 else "NULL",
        "kcv_len": size(expect[1]) if len(expect) > 1 else 0,
    }
    return "{" + ", ".join(f".{name} = {value}" for name, value in fields.items()) + "},"


def published() -> list[dict[str, object]]:
    """NIST's and GB/T's blocks as calls of the ECB kernels."""
    found: list[dict[str, object]] = []
    for name in ("3des", "sm4", "aes"):
        digits = 16 if name == "3des" else 32
        kernel = f"{FAMILIES[name]}_ecb"
        for test in json.loads((ROOT / f"tests/vectors/block_{name}.json").read_text())["tests"]:
            for at in range(0, len(test["plaintext"]), digits):
                rows = {"blocks": test["plaintext"][at : at + digits], "keys": test["key"]}
                expect = [test["ciphertext"][at : at + digits]]
                found.append({"id": test["id"], "kernel": kernel, "shared": {}, "rows": rows, "options": {}, "expect": expect})
    return found


if __name__ == "__main__":
    answers = json.loads((ROOT / "cext/selftest.json").read_text())["tests"]
    print("\n".join(line(test) for test in [*published(), *answers]))
