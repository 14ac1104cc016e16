"""Order files: a bureau's bytes become typed columns of good rows, and rejects with line, field, rule and reason for the rest.

    with open("orders.csv", "rb") as reader:
        source = OrderSource(reader)
        for batch in read_orders(source, Rules(), hash_key, issued):
            blobs = seal.seal_rows(batch.lines, encode_records(batch.columns))

CSV by RFC 4180, UTF-8 or GB 18030, Chinese or English headings, columns in any order. Nothing is guessed and nothing is lost:
each record of the file is a good row or has at least one reject. Nothing here knows jobs, ledgers or the wire.
"""

from engine.orders.columns import COLUMNS, STORED, OrderColumns
from engine.orders.duplicates import Issued, field_hashes, nothing_issued
from engine.orders.pii import JobSeal
from engine.orders.reading import Batch, read_orders
from engine.orders.records import decode_records, encode_records
from engine.orders.rules import RULES, Reject, Rules, region_set
from engine.orders.source import OrderSource
from engine.orders.spool import SpoolReader, SpoolWriter

__all__ = [
    "COLUMNS",
    "RULES",
    "STORED",
    "Batch",
    "Issued",
    "JobSeal",
    "OrderColumns",
    "OrderSource",
    "Reject",
    "Rules",
    "SpoolReader",
    "SpoolWriter",
    "decode_records",
    "encode_records",
    "field_hashes",
    "nothing_issued",
    "read_orders",
    "region_set",
]
