"""An attempt as it lies in the ledger: reading it, and the check every write begins with: the token is live and the state is
right.

A fencing token is attempt_id * 2^20 + 20 random bits: unique and growing, and a token from another life of the ledger, one that
was lost with a disk and restored from an older copy, does not fit an attempt of this one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum
from typing import Any

import msgspec
from sqlalchemy import bindparam, select, update

from engine.ledger import schema
from engine.ledger.prepared import Prepared
from engine.ledger.states import ENDED, OPEN, AttemptState
from engine.ledger.tx import Source, Tx, conn_of, db_of
from keys.errors import NotFound, Precondition

SALT_BITS = 20


class Attempt(msgspec.Struct, frozen=True):
    """One try at one line. Times `*_us` are Unix microseconds; `*_boot_us` are lease clock and belong to `epoch`.

    `chip_id` is the KDD in upper-case hex. `psn` is None where the profile has no finance domain.
    """

    attempt_id: int
    token: int
    job_no: int
    job_id: str
    line_no: int
    attempt_no: int
    station_id: str
    state: AttemptState
    epoch: int
    lease_boot_us: int
    host_challenge: bytes
    reserved_us: int
    chip_id: str | None = None
    atr: bytes | None = None
    cplc: bytes | None = None
    initialize_update_response: bytes | None = None
    kvn: int | None = None
    profile_hash: str | None = None
    image_digest: bytes | None = None
    psn: int | None = None
    max_chip_us: int | None = None
    deadline_boot_us: int | None = None
    proofs: dict[str, Any] | None = None
    reason: str | None = None
    detail: str | None = None
    piece: bool = False
    bin: str | None = None
    presented_us: int | None = None
    intent_us: int | None = None
    good_us: int | None = None
    ended_us: int | None = None
    stacked_us: int | None = None
    destroyed_us: int | None = None
    destroyed_by: list[str] | None = None

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What `repr` shows: all but the secure channel's facts."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name not in _UNSHOWN]

    def __repr__(self) -> str:
        return f"Attempt({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


_UNSHOWN = frozenset({"host_challenge", "initialize_update_response", "image_digest"})
_columns = schema.attempts.c
_stored_as = {"token": "salt"}
_fields = [_columns.get(_stored_as.get(name, name), schema.jobs.c.job_id) for name in Attempt.__struct_fields__]
_select = select(*_fields).join(schema.jobs, schema.jobs.c.job_no == _columns.job_no)
_by_id = Prepared(_select.where(_columns.attempt_id == bindparam("attempt_id")), "attempt_id")
_by_chip = Prepared(_select.where(_columns.chip_id == bindparam("chip_id")).order_by(_columns.attempt_id), "chip_id")
_by_line = Prepared(
    _select.where(
        _columns.job_no == select(schema.jobs.c.job_no).where(schema.jobs.c.job_id == bindparam("job_id")).scalar_subquery(),
        _columns.line_no == bindparam("line_no"),
    ).order_by(_columns.attempt_id),
    "job_id",
    "line_no",
)
_in_states = _select.where(_columns.state.in_(bindparam("states", expanding=True))).order_by(_columns.attempt_id)
_of_station = _in_states.where(_columns.station_id == bindparam("station_id"))
_of_job = _in_states.where(_columns.job_no == bindparam("job_no"))
_updates: dict[tuple[str, ...], Prepared] = {}
_serials = Prepared(
    select(schema.serials.c.pool, schema.serials.c.value).where(schema.serials.c.attempt_id == bindparam("attempt_id")), "attempt_id"
)
_ID, _TOKEN, _STATE, _PROOFS, _PIECE, _DESTROYED_BY = map(
    Attempt.__struct_fields__.index, ("attempt_id", "token", "state", "proofs", "piece", "destroyed_by")
)


_states = {state.value: state for state in AttemptState}


def _attempt(row: Sequence[Any]) -> Attempt:
    """An attempt from its row, with the columns in the order of `Attempt`'s fields: the salt in the token's place."""
    values = list(row)
    values[_TOKEN] = token_of(values[_ID], values[_TOKEN])
    values[_STATE] = _states[values[_STATE]]
    values[_PIECE] = bool(values[_PIECE])
    for place in (_PROOFS, _DESTROYED_BY):
        if values[place] is not None:
            values[place] = msgspec.json.decode(values[place])
    return Attempt(*values)


def token_of(attempt_id: int, salt: int) -> int:
    """The fencing token of an attempt."""
    return attempt_id << SALT_BITS | salt


def by_token(source: Source, token: int) -> Attempt | None:
    """The attempt a token was given out for, whatever became of it; None for a token this ledger never gave."""
    row = _by_id.one(db_of(source), token >> SALT_BITS)
    attempt = None if row is None else _attempt(row)
    return attempt if attempt is not None and attempt.token == token else None


def by_id(source: Source, attempt_id: int) -> Attempt:
    """Raises NotFound ATTEMPT_UNKNOWN."""
    row = _by_id.one(db_of(source), attempt_id)
    if row is None:
        raise NotFound("ATTEMPT_UNKNOWN", f"there is no attempt {attempt_id}")
    return _attempt(row)


def by_chip(source: Source, chip_id: str) -> list[Attempt]:
    """Every attempt this chip was presented for, oldest first."""
    return [_attempt(row) for row in _by_chip.all(db_of(source), chip_id)]


def by_line(source: Source, job_id: str, line_no: int) -> list[Attempt]:
    """Every attempt at one line, oldest first."""
    return [_attempt(row) for row in _by_line.all(db_of(source), job_id, line_no)]


def in_states(
    source: Source, states: Collection[AttemptState], *, station_id: str | None = None, job_no: int | None = None
) -> list[Attempt]:
    """Attempts in any of the states, of one station or one job where given, oldest first."""
    parameters: dict[str, Any] = {"states": sorted(state.value for state in states)}
    statement = _in_states
    if station_id is not None:
        statement, parameters["station_id"] = _of_station, station_id
    elif job_no is not None:
        statement, parameters["job_no"] = _of_job, job_no
    return [_attempt(row) for row in conn_of(source).execute(statement, parameters)]


def open_attempts(source: Source, station_id: str) -> list[Attempt]:
    """What a station has in hand as far as the ledger knows: neither stacked nor ended."""
    return in_states(source, OPEN, station_id=station_id)


def serials_of(source: Source, attempt_id: int) -> dict[str, int]:
    """The serial numbers burned by an attempt, by pool."""
    return dict(_serials.all(db_of(source), attempt_id))


def stale_token(attempt: Attempt | None) -> Precondition:
    """The error for a token that owns nothing (any more)."""
    if attempt is None:
        return Precondition("STALE_TOKEN", "this lease token is unknown: put the piece into the reject bin")
    return Precondition("STALE_TOKEN", f"attempt {attempt.attempt_id} is already {attempt.state} ({attempt.reason}): its token is void")


def require(tx: Tx, token: int, *states: AttemptState) -> Attempt:
    """The attempt of a live token in one of the states.

    Raises Precondition STALE_TOKEN (unknown, or the attempt has ended: torn, released, rejected) or WRONG_STATE.
    """
    attempt = by_token(tx, token)
    if attempt is None or (attempt.state in ENDED and attempt.state not in states):
        raise stale_token(attempt)
    if attempt.state not in states:
        raise wrong_state(attempt, *states)
    return attempt


def wrong_state(attempt: Attempt, *states: AttemptState) -> Precondition:
    """The error for an operation the attempt's state does not allow."""
    wanted = " or ".join(state.value for state in states)
    return Precondition("WRONG_STATE", f"attempt {attempt.attempt_id} is {attempt.state}, this needs {wanted}")


_AS_THEY_ARE = frozenset({int, str, bytes, type(None)})
_encoder = msgspec.json.Encoder(order="sorted")


def _stored(value: Any) -> Any:  # noqa: ANN401 - column values of several types
    if type(value) in _AS_THEY_ARE:
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bool):
        return int(value)
    return _encoder.encode(value).decode()


def change(tx: Tx, attempt: Attempt, **values: Any) -> Attempt:  # noqa: ANN401 - column values of several types
    """Updates columns of one attempt and returns it as it is now. One prepared statement per set of columns."""
    names = tuple(values)
    statement = _updates.get(names)
    if statement is None:
        statement = _updates[names] = Prepared(
            update(schema.attempts)
            .where(_columns.attempt_id == bindparam("key_attempt_id"))
            .values({name: bindparam(f"new_{name}") for name in names}),
            *(f"new_{name}" for name in names),
            "key_attempt_id",
        )
    statement.run(tx.db, *map(_stored, values.values()), attempt.attempt_id)
    return msgspec.structs.replace(attempt, **values)
