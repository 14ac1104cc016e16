"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_head",
        sa.Column("chain", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("chain"),
    )
    op.create_table(
        "audit_leaves",
        sa.Column("leaf_index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("leaf", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("leaf_index"),
    )
    op.create_table(
        "chips",
        sa.Column("chip_id", sa.String(length=64), nullable=False),
        sa.Column("atr", sa.LargeBinary(), nullable=True),
        sa.Column("cplc", sa.LargeBinary(), nullable=True),
        sa.Column("cryptogram_failures", sa.Integer(), nullable=False),
        sa.Column("first_seen_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("chip_id"),
    )
    op.create_table(
        "jobs",
        sa.Column("job_no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("idempotency_key", sa.String(length=128), nullable=False),
        sa.Column("request_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("profile", sa.String(length=128), nullable=False),
        sa.Column("profile_hash", sa.String(length=64), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("due_us", sa.BigInteger(), nullable=True),
        sa.Column("submitted_by", sa.String(length=128), nullable=False),
        sa.Column("pii_key_wrapped", sa.LargeBinary(), nullable=True),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("remake_waits", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("started_us", sa.BigInteger(), nullable=True),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("pii_destroyed_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("job_no"),
        sa.UniqueConstraint("idempotency_key"),
        sa.UniqueConstraint("job_id"),
    )
    op.create_table(
        "ledger_numbers",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "serial_pools",
        sa.Column("pool", sa.String(length=64), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("pool"),
    )
    op.create_table(
        "stock_lots",
        sa.Column("lot", sa.String(length=64), nullable=False),
        sa.Column("chip_type", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("lot"),
    )
    op.create_table(
        "issued",
        sa.Column("job_no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("line_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("person_hash", sa.LargeBinary(length=16), nullable=False),
        sa.Column("card_hash", sa.LargeBinary(length=16), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_no"],
            ["jobs.job_no"],
        ),
        sa.PrimaryKeyConstraint("job_no", "line_no"),
    )
    op.create_index("issued_by_card", "issued", ["card_hash"], unique=False)
    op.create_index("issued_by_person", "issued", ["person_hash"], unique=False)
    op.create_table(
        "lines",
        sa.Column("job_no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("line_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(length=9), nullable=False),
        sa.Column("person_hash", sa.LargeBinary(length=16), nullable=True),
        sa.Column("card_hash", sa.LargeBinary(length=16), nullable=True),
        sa.Column("blob", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_no"],
            ["jobs.job_no"],
        ),
        sa.PrimaryKeyConstraint("job_no", "line_no"),
        sqlite_with_rowid=False,
    )
    op.create_index("lines_by_state", "lines", ["job_no", "state", "line_no"], unique=False)
    op.create_table(
        "rejects",
        sa.Column("reject_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("job_no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("field", sa.String(length=64), nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_no"],
            ["jobs.job_no"],
        ),
        sa.PrimaryKeyConstraint("reject_id"),
    )
    op.create_index("rejects_by_job", "rejects", ["job_no", "line"], unique=False)
    op.create_table(
        "stock_counts",
        sa.Column("count_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("station_id", sa.String(length=64), nullable=False),
        sa.Column("job_no", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("feeder_remaining", sa.BigInteger(), nullable=False),
        sa.Column("good", sa.BigInteger(), nullable=False),
        sa.Column("reject", sa.BigInteger(), nullable=False),
        sa.Column("returned", sa.BigInteger(), nullable=False),
        sa.Column("in_heads", sa.BigInteger(), nullable=True),
        sa.Column("expected_feeder", sa.BigInteger(), nullable=False),
        sa.Column("expected_good", sa.BigInteger(), nullable=False),
        sa.Column("expected_reject", sa.BigInteger(), nullable=False),
        sa.Column("expected_returned", sa.BigInteger(), nullable=False),
        sa.Column("expected_in_heads", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_no"],
            ["jobs.job_no"],
        ),
        sa.PrimaryKeyConstraint("count_id"),
    )
    op.create_index("stock_counts_by_station", "stock_counts", ["station_id", "count_id"], unique=False)
    op.create_table(
        "stock_moves",
        sa.Column("move_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("lot", sa.String(length=64), nullable=False),
        sa.Column("station_id", sa.String(length=64), nullable=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(
            ["lot"],
            ["stock_lots.lot"],
        ),
        sa.PrimaryKeyConstraint("move_id"),
    )
    op.create_index("stock_moves_by_lot", "stock_moves", ["lot"], unique=False)
    op.create_index("stock_moves_by_station", "stock_moves", ["station_id"], unique=False)
    op.create_table(
        "attempts",
        sa.Column("attempt_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("salt", sa.Integer(), nullable=False),
        sa.Column("job_no", sa.BigInteger(), nullable=False),
        sa.Column("line_no", sa.BigInteger(), nullable=False),
        sa.Column("attempt_no", sa.Integer(), nullable=False),
        sa.Column("station_id", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=14), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("lease_boot_us", sa.BigInteger(), nullable=False),
        sa.Column("host_challenge", sa.LargeBinary(), nullable=False),
        sa.Column("chip_id", sa.String(length=64), nullable=True),
        sa.Column("atr", sa.LargeBinary(), nullable=True),
        sa.Column("cplc", sa.LargeBinary(), nullable=True),
        sa.Column("initialize_update_response", sa.LargeBinary(), nullable=True),
        sa.Column("kvn", sa.Integer(), nullable=True),
        sa.Column("profile_hash", sa.String(length=64), nullable=True),
        sa.Column("image_digest", sa.LargeBinary(length=64), nullable=True),
        sa.Column("psn", sa.Integer(), nullable=True),
        sa.Column("max_chip_us", sa.BigInteger(), nullable=True),
        sa.Column("deadline_boot_us", sa.BigInteger(), nullable=True),
        sa.Column("proofs", sa.Text(), nullable=True),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("piece", sa.Integer(), nullable=False),
        sa.Column("bin", sa.String(length=16), nullable=True),
        sa.Column("reserved_us", sa.BigInteger(), nullable=False),
        sa.Column("presented_us", sa.BigInteger(), nullable=True),
        sa.Column("intent_us", sa.BigInteger(), nullable=True),
        sa.Column("good_us", sa.BigInteger(), nullable=True),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("stacked_us", sa.BigInteger(), nullable=True),
        sa.Column("destroyed_us", sa.BigInteger(), nullable=True),
        sa.Column("destroyed_by", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_no", "line_no"],
            ["lines.job_no", "lines.line_no"],
        ),
        sa.PrimaryKeyConstraint("attempt_id"),
    )
    op.create_index("attempts_by_chip", "attempts", ["chip_id"], unique=False)
    op.create_index("attempts_by_job", "attempts", ["job_no", "state"], unique=False)
    op.create_index("attempts_by_line", "attempts", ["job_no", "line_no", "attempt_no"], unique=True)
    op.create_index("attempts_by_station", "attempts", ["station_id", "state"], unique=False)
    op.create_index(
        "attempts_one_intent_per_chip",
        "attempts",
        ["chip_id"],
        unique=True,
        sqlite_where=sa.text("intent_us IS NOT NULL"),
        postgresql_where=sa.text("intent_us IS NOT NULL"),
    )
    op.create_index(
        "attempts_one_live_per_line",
        "attempts",
        ["job_no", "line_no"],
        unique=True,
        sqlite_where=sa.text("(state NOT IN ('RELEASED', 'BLANK_REJECTED', 'SCRAP_PENDING', 'DESTROYED'))"),
        postgresql_where=sa.text("(state NOT IN ('RELEASED', 'BLANK_REJECTED', 'SCRAP_PENDING', 'DESTROYED'))"),
    )
    op.create_table(
        "serials",
        sa.Column("pool", sa.String(length=64), nullable=False),
        sa.Column("value", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("attempt_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.ForeignKeyConstraint(
            ["attempt_id"],
            ["attempts.attempt_id"],
        ),
        sa.ForeignKeyConstraint(
            ["pool"],
            ["serial_pools.pool"],
        ),
        sa.PrimaryKeyConstraint("pool", "value"),
    )
    op.create_index("serials_by_attempt", "serials", ["attempt_id"], unique=False)
    numbers = sa.table("ledger_numbers", sa.column("name", sa.String), sa.column("value", sa.BigInteger))
    op.execute(numbers.insert().values(name="epoch", value=0))
    head = sa.table("audit_head", sa.column("chain", sa.Integer), sa.column("count", sa.BigInteger), sa.column("hash", sa.LargeBinary))
    op.execute(head.insert().values(chain=1, count=0, hash=bytes(32)))
