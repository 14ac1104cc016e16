"""Timings of attempts, what befell stations, and predicted finishes with what came of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    row_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "timings",
        sa.Column("attempt_id", row_id, autoincrement=False, nullable=False),
        sa.Column("reader", sa.String(length=128), nullable=False),
        sa.Column("transport", sa.String(length=32), nullable=False),
        sa.Column("feed_us", sa.BigInteger(), nullable=False),
        sa.Column("print_us", sa.BigInteger(), nullable=False),
        sa.Column("eject_us", sa.BigInteger(), nullable=False),
        sa.Column("waited_us", sa.BigInteger(), nullable=False),
        sa.Column("counts", sa.LargeBinary(), nullable=False),
        sa.Column("apdu_us", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.attempt_id"]),
        sa.PrimaryKeyConstraint("attempt_id"),
    )
    op.create_table(
        "station_events",
        sa.Column("event_id", row_id, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("station_id", sa.String(length=64), nullable=False),
        sa.Column("event", sa.String(length=12), nullable=False),
        sa.Column("cause", sa.String(length=32), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("event_id"),
    )
    op.create_index("station_events_by_station", "station_events", ["station_id", "event_id"], unique=False)
    op.create_table(
        "predictions",
        sa.Column("prediction_id", row_id, nullable=False),
        sa.Column("job_no", row_id, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("profile_sha256", sa.String(length=64), nullable=False),
        sa.Column("host", sa.String(length=64), nullable=False),
        sa.Column("p05_us", sa.BigInteger(), nullable=False),
        sa.Column("p50_us", sa.BigInteger(), nullable=False),
        sa.Column("p95_us", sa.BigInteger(), nullable=False),
        sa.Column("measured_us", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Float(), nullable=True),
        sa.Column("in_sample", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["job_no"], ["jobs.job_no"]),
        sa.PrimaryKeyConstraint("prediction_id"),
    )
    op.create_index("predictions_by_job", "predictions", ["job_no"], unique=False)
