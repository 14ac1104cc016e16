"""The line loop: one JSON object a line in, one a line out, in order, whatever happens to each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Final, NoReturn, TextIO

from engine.calc.channel import scp02, scp03
from engine.calc.fields import Fields, bad_value
from engine.calc.operations import Answer, card_key, check_value
from keys.errors import CitycardError, InvalidInput

STATUS_OK: Final = 0
STATUS_FAILED: Final = 2


_OPERATIONS: Final[dict[str, Callable[[Fields], Answer]]] = {
    "kcv": check_value,
    "diversify": card_key,
    "scp02": scp02,
    "scp03": scp03,
}


def run(stdin_lines: Iterable[str | bytes], out: TextIO) -> int:
    """Answers every line that is not blank, as it comes; returns 2 if any failed, else 0."""
    status = STATUS_OK
    for line in stdin_lines:
        if not line.strip():
            continue
        answer, good = _answer(line)
        out.write(json.dumps(answer, allow_nan=False, separators=(",", ":")) + "\n")
        out.flush()
        if not good:
            status = STATUS_FAILED
    return status


def _answer(line: str | bytes) -> tuple[Answer, bool]:
    echo: Answer = {}
    try:
        request = _parse(line)
        if "id" in request:
            echo = {"id": _echoable(request["id"])}
        return echo | _perform(Fields(request)), True
    except CitycardError as error:
        return echo | {"error": {"code": error.reason.lower().replace("_", "-"), "message": error.message}}, False


def _perform(fields: Fields) -> Answer:
    operation = _OPERATIONS.get(fields.text("op"))
    if operation is None:
        raise InvalidInput("UNKNOWN_OP", f"op must be one of {', '.join(_OPERATIONS)}")
    return operation(fields)


def _parse(line: str | bytes) -> dict[str, object]:
    try:
        value = json.loads(line, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        # json's own message may quote the line, and the line may hold a key
        raise InvalidInput("BAD_JSON", "the line is not one JSON object with each name once") from None
    if not isinstance(value, dict):
        raise InvalidInput("BAD_JSON", "the line must be a JSON object")
    return value


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate name")
    return found


def _no_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _echoable(value: object) -> object:
    """The id as it will be written; a number too large for JSON's writer cannot be echoed."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        bad_value("id must be a value that can be written back")
    return value
