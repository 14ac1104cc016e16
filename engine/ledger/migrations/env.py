"""Alembic's entry: runs the migrations on the connection handed over by `engine.ledger.migrate`, inside its transaction."""

from __future__ import annotations

from alembic import context

from engine.ledger.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
