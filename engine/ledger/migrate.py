"""Brings a ledger file to this version's schema: new files are created, older ones migrated in one transaction, newer ones
refused.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from keys.errors import Corrupt, Unsupported


def _config(conn: Connection | None = None) -> Config:
    config = Config()
    # Doubled because Alembic's configuration gives a single percent sign a meaning.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = conn
    return config


def newest() -> str:
    """The schema revision this version writes."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise Corrupt("MIGRATIONS_MISSING", "the package holds no schema migrations: install it again")
    return head


def migrate(conn: Connection) -> None:
    """Migrates inside the caller's transaction.

    Raises Unsupported LEDGER_NEWER for a revision this version does not know, Corrupt LEDGER_FOREIGN for a database that is no
    ledger.
    """
    script = ScriptDirectory.from_config(_config())
    current = MigrationContext.configure(conn).get_current_revision()
    if current is None and inspect(conn).get_table_names():
        raise Corrupt("LEDGER_FOREIGN", "this database holds tables but is no ledger of citycard: check the path")
    known = {revision.revision for revision in script.walk_revisions()}
    if current is not None and current not in known:
        raise Unsupported("LEDGER_NEWER", f"the ledger was written by a newer version (schema {current}): install that version again")
    if current != script.get_current_head():
        command.upgrade(_config(conn), "head")
