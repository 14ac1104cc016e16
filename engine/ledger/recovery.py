"""What happens to open attempts when the ledger is opened again."""

from __future__ import annotations

from sqlalchemy import bindparam, update

from engine.ledger import schema
from engine.ledger.attempt_ends import expire_leases
from engine.ledger.states import ON_CHIP
from engine.ledger.tx import Tx

_raise_epoch = update(schema.ledger_numbers).where(schema.ledger_numbers.c.name == "epoch").values(value=bindparam("new_epoch"))
_columns = schema.attempts.c
_rearm = (
    update(schema.attempts)
    .where(_columns.state.in_([state.value for state in sorted(ON_CHIP)]))
    .values(deadline_boot_us=bindparam("boot_us") + _columns.max_chip_us)
)


def recover(tx: Tx) -> None:
    """Writes the raised epoch, releases what was leased under older ones, and gives chips being made their full time again.

    Their full time, because the lease clock may have started anew with the machine, and because a restarted station needs time to
    report what lies in its heads.
    """
    tx.conn.execute(_raise_epoch, {"new_epoch": tx.epoch})
    tx.audit("ledger.opened", "ledger", epoch=tx.epoch)
    expire_leases(tx)
    tx.conn.execute(_rearm, {"boot_us": tx.boottime_us})
