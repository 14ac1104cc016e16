"""Writes the measured figures into README.md from the JSON that `make bench` made: no figure there is typed by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- figures: written by `make bench` -->", "<!-- end of figures -->"
LOAD_BEGIN, LOAD_END = "<!-- load: written by `make bench` -->", "<!-- end of load -->"
RATIOS_BEGIN, RATIOS_END = "<!-- ratios: written by `make bench` -->", "<!-- end of ratios -->"
# test name -> what it is called in the table, and the key of extra_info that holds the figure; None: rounds of `batch` per second
ROWS = {
    "test_read_and_check": ("orders parsed and validated, rows/s", "rows_per_second"),
    "test_durable_intake": ("durable intake, rows/s", "rows_per_second"),
    "test_images": ("card images with all keys and check values, cards/s", None),
    "test_segment": ("one card's personalization segment, ms", "ms"),
    "test_end_to_end": ("end to end, four stations with virtual chips, everything on two cores, cards/s", "cards_per_second"),
    "test_transitions_of_a_good_card": ("ledger: all transitions of a good card, CPU ms a card, cards at once:", "cpu_ms_per_card"),
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


def ratio_table(found: list[dict[str, Any]], rekey: dict[str, Any] | None) -> str:
    """One row per operation, a column per peer, and what a city's keys took."""
    peers = list(dict.fromkeys(item["peer"] for item in found))
    operations = list(dict.fromkeys(item["operation"] for item in found))
    ratio = {(item["operation"], item["peer"]): item["ratio"] for item in found}
    ours = {item["operation"]: item for item in found}
    lines = ["| operation | kernel | ours/s | " + " | ".join(peers) + " |", "|---|---|---:|" + "---:|" * len(peers)]
    for name in operations:
        cells = [f"{ratio[name, peer]:,.1f}x" if (name, peer) in ratio else "" for peer in peers]
        lines.append(f"| {name} | {ours[name]['kernel']} | {ours[name]['ours']:,.0f} | " + " | ".join(cells) + " |")
    contexts = sorted({f"{item['cpu']}, commit {item['commit']}" for item in found})
    lines += ["", "One core; how many times faster than each peer called its best way. Measured on: " + "; ".join(contexts) + "."]
    if rekey is not None:
        lines += ["", rekey_sentence(rekey)]
    return "\n".join(lines)


def rekey_sentence(found: dict[str, Any]) -> str:
    """What `bench.rekey` measured, in words."""
    keys = found["cards"] * found["keys_per_card"]
    text = (
        f"{keys:,} keys of {found['cards']:,} cards, derived, checked and wrapped: {found['crypto_one_core_s']} s on one core, "
        f"{found['crypto_two_cores_s']} s on two ({found['two_cores_ratio']}x)"
    )
    if "files" in found:
        files = found["files"]
        text += (
            f"; as Parquet files, {files['bytes']:,} bytes, {files['seconds']} s; a bare write of as many bytes {found['raw_write_s']} s"
            f" ({found['files_over_larger']}x the larger); peak memory {found['peak_memory_mib']} MiB"
        )
    return text + "."


def load_table(found: dict[str, Any]) -> str:
    """The server under stations: the steady run, and the ramp until its limit."""
    heading = "| stations | cards/s | challenge to segment p50 | p99 | server CPU a card | server memory |"
    lines = [heading, "|---:|---:|---:|---:|---:|---:|"]
    lines += [_load_row(window) for window in (*found["steady"]["windows"], *found["ramp"]["windows"])]
    held, limit = found["ramp"]["held"], 1000 * found["ramp"]["p99_limit_s"]
    ramp = "a p99 of {:.0f} ms was {}".format(
        limit, f"held up to {held['cards_per_second']:.0f} cards/s ({held['stations']} stations)" if held else "never held"
    )
    generator = 1000 * found["steady"]["windows"][0]["generator_cpu_per_card_s"]
    text = (
        f"Server and stations together on {found['cores']} cores, {found['rate']:,.0f} cards an hour and station; first row: the steady "
        f"run, below it the ramp: {ramp}. The stations themselves cost {generator:.1f} ms CPU a card. {_measured_on(found['context'])}"
    )
    return "\n".join([*lines, "", text])


def _load_row(window: dict[str, Any]) -> str:
    p50, p99 = (1000 * window["server_stream_s"][name] for name in ("p50", "p99"))
    return (
        f"| {window['stations']} | {window['cards_per_second']:.1f} | {p50:.1f} ms | {p99:.1f} ms "
        f"| {1000 * window['server_cpu_per_card_s']:.2f} ms | {window['server_memory_bytes'] / 2**20:.0f} MiB |"
    )


def prediction_table(found: dict[str, Any]) -> str:
    """Jobs predicted from the jobs before them, beside what they took."""
    lines = ["| run | stations x readers | lines | predicted (nine of ten) | measured | error |", "|---|---:|---:|---:|---:|---:|"]
    for run in found["runs"]:
        spread = f"{run['predicted_s']:.1f} s ({run['early_s']:.1f} to {run['late_s']:.1f})"
        shape = f"{run['stations']} x {run['readers']}"
        lines.append(f"| {run['run']} | {shape} | {run['lines']} | {spread} | {run['measured_s']:.1f} s | {run['error']:+.1%} |")
    return "\n".join([*lines, "", f"`capacity check`, each from the jobs before it alone. {_measured_on(found['context'])}"])


def _measured_on(context: dict[str, str]) -> str:
    return f"Measured on: {context['cpu']}, commit {context['commit']}."


def between(text: str, begin: str, end: str, content: str) -> str:
    """The text with what stands between two marks replaced; ValueError where the marks are missing."""
    if begin not in text or end not in text:
        raise ValueError(f"README.md has no place for figures: {begin}")
    head, rest = text.split(begin, 1)
    return f"{head}{begin}\n{content}\n{rest[rest.index(end) :]}"


def main() -> int:
    """`FOLDER` holds latest.json of pytest-benchmark, and the JSON of bench.ratios, bench.load, bench.predictions and, if it was measured,
    bench.rekey, each under its name.
    """
    folder = Path(sys.argv[1])
    readme = Path(__file__).parent.parent / "README.md"
    text = readme.read_text(encoding="utf-8")
    rekey = json.loads((folder / "rekey.json").read_text()) if (folder / "rekey.json").exists() else None
    try:
        text = between(text, BEGIN, END, table(json.loads((folder / "latest.json").read_text())))
        text = between(text, RATIOS_BEGIN, RATIOS_END, ratio_table(json.loads((folder / "ratios.json").read_text()), rekey))
        load, predictions = (json.loads((folder / f"{name}.json").read_text()) for name in ("load", "predictions"))
        text = between(text, LOAD_BEGIN, LOAD_END, load_table(load) + "\n\n" + prediction_table(predictions))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    readme.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
