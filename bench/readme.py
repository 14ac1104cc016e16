"""Writes the measured figures into README.md from the JSON that `make bench` made: no figure there is typed by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- figures: written by `make bench` -->", "<!-- end of figures -->"
# test name -> what it is called in the table, and the key of extra_info that holds the figure; None: rounds of `batch` per second
ROWS = {
    "test_read_and_check": ("orders parsed and validated, rows/s", "rows_per_second"),
    "test_durable_intake": ("durable intake, rows/s", "rows_per_second"),
    "test_images": ("card images with all keys and check values, cards/s", None),
    "test_segment": ("one card's personalization segment, ms", "ms"),
    "test_end_to_end": ("end to end, four stations with virtual chips, everything on two cores, cards/s", "cards_per_second"),
    "test_server_memory_with_a_large_job": ("server memory with a large job, peak MB", "peak_mb"),
}


def figure(found: dict[str, Any], key: str | None) -> str:
    """The best round: noise only ever adds time."""
    extra, best = found["extra_info"], found["stats"]["min"]
    if key == "ms":
        return f"{best * 1000:.2f}"
    value = extra[key] if key else extra["batch"] / best
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def table(results: dict[str, Any]) -> str:
    """The Markdown table of the rows above that were measured."""
    lines = ["| what | figure | batch |", "|---|---:|---:|"]
    contexts = set()
    notes = []
    for found in results["benchmarks"]:
        name = found["name"].split("[")[0]
        if name not in ROWS:
            continue
        title, key = ROWS[name]
        extra = found["extra_info"]
        suffix = found["name"][len(name) :]
        lines.append(f"| {title}{' ' + suffix.strip('[]') if suffix else ''} | {figure(found, key)} | {extra.get('batch', 1):,} |")
        contexts.add(f"{extra.get('cpu', '?')}, commit {str(extra.get('commit', '?'))[:7]}")
        if "apdus_per_card" in extra:
            notes.append(f"One card: {extra['apdus_per_card']} APDUs, {extra['bytes_per_card']:,} bytes to the chip.")
    return "\n".join([*lines, "", "Measured on: " + "; ".join(sorted(contexts)) + ". " + " ".join(sorted(set(notes)))])


def main() -> int:
    results = json.loads(Path(sys.argv[1]).read_text())
    readme = Path(__file__).parent.parent / "README.md"
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        sys.stderr.write("README.md has no place for figures\n")
        return 1
    head, rest = text.split(BEGIN, 1)
    readme.write_text(f"{head}{BEGIN}\n{table(results)}\n{rest[rest.index(END) :]}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
