"""The tables of the ledger, as SQLAlchemy Core. Migrations keep their own frozen copies; a test proves both agree.

Times are integer microseconds: SQLite drops time-zone offsets. Columns named `*_boot_us` hold the lease clock and mean
something only together with the epoch they were written in; all other times are Unix time and are for people.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

# SQLite gives row numbers only to a column whose type is spelled INTEGER.
RowId = BigInteger().with_variant(Integer(), "sqlite")

# One row per named number: the lease epoch, and how far the audit chain reaches.
ledger_numbers = Table(
    "ledger_numbers",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("job_no", RowId, primary_key=True),
    Column("job_id", String(64), nullable=False, unique=True),
    Column("idempotency_key", String(128), nullable=False, unique=True),
    Column("request_sha256", LargeBinary(32), nullable=False),
    Column("profile", String(128), nullable=False),
    Column("profile_hash", String(64), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("kind", String(8), nullable=False),
    Column("due_us", BigInteger),
    Column("submitted_by", String(128), nullable=False),
    Column("pii_key_wrapped", LargeBinary),
    Column("options", Text, nullable=False),
    # True where a remake would repeat a key: the line waits until the scrapped piece is destroyed.
    Column("remake_waits", Integer, nullable=False),
    Column("state", String(12), nullable=False),
    Column("state_reason", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("started_us", BigInteger),
    Column("ended_us", BigInteger),
    Column("pii_destroyed_us", BigInteger),
)

lines = Table(
    "lines",
    metadata,
    Column("job_no", ForeignKey("jobs.job_no"), primary_key=True, autoincrement=False),
    Column("line_no", BigInteger, primary_key=True, autoincrement=False),
    Column("state", String(9), nullable=False),
    # Keyed hashes and the sealed record; all three go when the job's personal data is destroyed.
    Column("person_hash", LargeBinary(16)),
    Column("card_hash", LargeBinary(16)),
    Column("blob", LargeBinary),
    Index("lines_by_state", "job_no", "state", "line_no"),
    sqlite_with_rowid=False,
)

rejects = Table(
    "rejects",
    metadata,
    Column("reject_id", RowId, primary_key=True),
    Column("job_no", ForeignKey("jobs.job_no"), nullable=False),
    Column("line", BigInteger, nullable=False),
    Column("field", String(64), nullable=False),
    Column("rule", String(64), nullable=False),
    Column("message", Text, nullable=False),
    Index("rejects_by_job", "job_no", "line"),
)

# Who holds a good card already: keyed hashes only.
issued = Table(
    "issued",
    metadata,
    Column("job_no", ForeignKey("jobs.job_no"), primary_key=True, autoincrement=False),
    Column("line_no", BigInteger, primary_key=True, autoincrement=False),
    Column("person_hash", LargeBinary(16), nullable=False),
    Column("card_hash", LargeBinary(16), nullable=False),
    Index("issued_by_person", "person_hash"),
    Index("issued_by_card", "card_hash"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("attempt_id", RowId, primary_key=True),
    # The random part of the token: see attempt_rows.
    Column("salt", Integer, nullable=False),
    Column("job_no", BigInteger, nullable=False),
    Column("line_no", BigInteger, nullable=False),
    Column("attempt_no", Integer, nullable=False),
    Column("station_id", String(64), nullable=False),
    Column("state", String(14), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("lease_boot_us", BigInteger, nullable=False),
    Column("host_challenge", LargeBinary, nullable=False),
    Column("chip_id", String(64)),
    Column("atr", LargeBinary),
    Column("cplc", LargeBinary),
    Column("initialize_update_response", LargeBinary),
    Column("kvn", Integer),
    Column("profile_hash", String(64)),
    Column("image_digest", LargeBinary(64)),
    Column("psn", Integer),
    Column("max_chip_us", BigInteger),
    Column("deadline_boot_us", BigInteger),
    Column("proofs", Text),
    # Why the attempt ended, as a fixed word, and what was seen.
    Column("reason", String(32)),
    Column("detail", Text),
    # 1 once a blank is known to have left the feeder for this attempt; `bin` once it was seen falling.
    Column("piece", Integer, nullable=False),
    Column("bin", String(16)),
    Column("reserved_us", BigInteger, nullable=False),
    Column("presented_us", BigInteger),
    Column("intent_us", BigInteger),
    Column("good_us", BigInteger),
    Column("ended_us", BigInteger),
    Column("stacked_us", BigInteger),
    Column("destroyed_us", BigInteger),
    Column("destroyed_by", Text),
    ForeignKeyConstraint(["job_no", "line_no"], ["lines.job_no", "lines.line_no"]),
    Index("attempts_by_job", "job_no", "state"),
    Index("attempts_by_line", "job_no", "line_no", "attempt_no", unique=True),
    Index("attempts_by_station", "station_id", "state"),
    Index("attempts_by_chip", "chip_id"),
)

_ENDED = ("RELEASED", "BLANK_REJECTED", "SCRAP_PENDING", "DESTROYED")

# At most one attempt holds a line, and at most one card of a line is good: the database itself refuses a second.
Index(
    "attempts_one_live_per_line",
    attempts.c.job_no,
    attempts.c.line_no,
    unique=True,
    sqlite_where=attempts.c.state.not_in(_ENDED),
    postgresql_where=attempts.c.state.not_in(_ENDED),
)
# A chip that a state-changing byte was meant for is used up, whatever became of it.
Index(
    "attempts_one_intent_per_chip",
    attempts.c.chip_id,
    unique=True,
    sqlite_where=attempts.c.intent_us.is_not(None),
    postgresql_where=attempts.c.intent_us.is_not(None),
)

chips = Table(
    "chips",
    metadata,
    Column("chip_id", String(64), primary_key=True),
    Column("atr", LargeBinary),
    Column("cplc", LargeBinary),
    Column("cryptogram_failures", Integer, nullable=False),
    Column("first_seen_us", BigInteger, nullable=False),
)

serial_pools = Table(
    "serial_pools",
    metadata,
    Column("pool", String(64), primary_key=True),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
)

serials = Table(
    "serials",
    metadata,
    Column("pool", ForeignKey("serial_pools.pool"), primary_key=True),
    Column("value", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt_id", ForeignKey("attempts.attempt_id"), nullable=False),
    Index("serials_by_attempt", "attempt_id"),
)

# Every test of a quality sample; `checks` is JSON: what was tested, and what came of it.
sample_tests = Table(
    "sample_tests",
    metadata,
    Column("test_id", RowId, primary_key=True),
    Column("attempt_id", ForeignKey("attempts.attempt_id"), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("by", String(128), nullable=False),
    Column("passed", Integer, nullable=False),
    Column("checks", Text, nullable=False),
    Index("sample_tests_by_attempt", "attempt_id"),
)

# Where the time of an attempt went, as its station measured it; see `engine.ledger.timings`.
timings = Table(
    "timings",
    metadata,
    Column("attempt_id", ForeignKey("attempts.attempt_id"), primary_key=True, autoincrement=False),
    Column("reader", String(128), nullable=False),
    Column("transport", String(32), nullable=False),
    Column("feed_us", BigInteger, nullable=False),
    Column("print_us", BigInteger, nullable=False),
    Column("eject_us", BigInteger, nullable=False),
    Column("waited_us", BigInteger, nullable=False),
    # Commands of the lease and of each segment, two bytes each; then the microseconds of every command, four bytes each.
    Column("counts", LargeBinary, nullable=False),
    Column("apdu_us", LargeBinary, nullable=False),
)

# When stations came, went, were stopped and were let work again; see `engine.ledger.events`.
station_events = Table(
    "station_events",
    metadata,
    Column("event_id", RowId, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("station_id", String(64), nullable=False),
    Column("event", String(12), nullable=False),
    Column("cause", String(32), nullable=False),
    Column("detail", Text, nullable=False),
    Index("station_events_by_station", "station_id", "event_id"),
)

# What was foretold of a job and, once it is done, how wrong that was. `in_sample`: foretold from a profile fitted to the job itself.
predictions = Table(
    "predictions",
    metadata,
    Column("prediction_id", RowId, primary_key=True),
    Column("job_no", ForeignKey("jobs.job_no"), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("profile_sha256", String(64), nullable=False),
    Column("host", String(64), nullable=False),
    Column("p05_us", BigInteger, nullable=False),
    Column("p50_us", BigInteger, nullable=False),
    Column("p95_us", BigInteger, nullable=False),
    Column("measured_us", BigInteger),
    Column("error", Float),
    Column("in_sample", Integer, nullable=False),
    Index("predictions_by_job", "job_no"),
)

stock_lots = Table(
    "stock_lots",
    metadata,
    Column("lot", String(64), primary_key=True),
    Column("chip_type", String(64), nullable=False),
)

stock_moves = Table(
    "stock_moves",
    metadata,
    Column("move_id", RowId, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("lot", ForeignKey("stock_lots.lot"), nullable=False),
    Column("station_id", String(64)),
    Column("count", BigInteger, nullable=False),
    Column("by", String(128), nullable=False),
    Index("stock_moves_by_lot", "lot"),
    Index("stock_moves_by_station", "station_id"),
)

stock_counts = Table(
    "stock_counts",
    metadata,
    Column("count_id", RowId, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("station_id", String(64), nullable=False),
    Column("job_no", ForeignKey("jobs.job_no")),
    Column("feeder_remaining", BigInteger, nullable=False),
    Column("good", BigInteger, nullable=False),
    Column("reject", BigInteger, nullable=False),
    Column("returned", BigInteger, nullable=False),
    Column("in_heads", BigInteger),
    # What the ledger held at the very moment of counting: the comparison stays valid while the line goes on.
    Column("expected_feeder", BigInteger, nullable=False),
    Column("expected_good", BigInteger, nullable=False),
    Column("expected_reject", BigInteger, nullable=False),
    Column("expected_returned", BigInteger, nullable=False),
    Column("expected_in_heads", BigInteger, nullable=False),
    Column("by", String(128), nullable=False),
    Index("stock_counts_by_station", "station_id", "count_id"),
)

audit_leaves = Table(
    "audit_leaves",
    metadata,
    Column("leaf_index", BigInteger, primary_key=True, autoincrement=False),
    Column("leaf", Text, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
)

# The length and the end of the chain, kept apart from it: leaves cut off the end do not go unseen.
audit_head = Table(
    "audit_head",
    metadata,
    Column("chain", Integer, primary_key=True, autoincrement=False),
    Column("count", BigInteger, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
)
