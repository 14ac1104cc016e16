"""Durable state in SQL: jobs, lines, attempts, chips, stock, serials and the audit chain.

`store.Ledger` owns the database file; every other module is functions over one open transaction. A function that changes state
takes a `Tx` and writes its own audit leaf into the same transaction, so that nothing happens unrecorded. A function that only
reads takes a `Source`: a `Tx` or a plain connection.
"""
