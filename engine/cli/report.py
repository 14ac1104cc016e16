"""The job report as text: the books of a job, so that an operator sees at once whether they close."""

from __future__ import annotations

from typing import Any

from engine.cli.output import pairs, say


def print_report(report: dict[str, Any]) -> None:
    """Prints the report object that `citycard job report --json` gives."""
    counts, books = report["counts"], report["reconciliation"]
    pairs(
        [
            ("job", report["job_id"]),
            ("profile", f"{report['profile']} ({report['profile_sha256'][:16]})"),
            ("state", report["state"]),
            ("lines", f"{report['lines']}: {report['accepted']} accepted, {report['rejected']} rejected"),
            ("good", counts["good"]),
            ("scrapped", counts["scrapped"]),
            ("blanks rejected", counts["blanks_rejected"]),
            ("samples", counts["samples"]),
            ("held", counts["held"]),
            ("blanks drawn", report["blanks_drawn"]),
        ]
    )
    proofs = report["key_proofs"]
    say("keys per card: " + ", ".join(f"{n} {grade}" for grade, n in sorted(proofs["summary"].items())))
    _print_samples(report)
    say("")
    say("stock, all stations: issued = good + scrapped + blank rejected + samples + set-up + returned + still in feeders")
    say(
        f"  {books['issued']} = {books['good']} + {books['scrapped']} + {books['blank_rejected']} + {books['samples']}"
        f" + {books['setup']} + {books['returned']} + {books['in_feeder']}"
    )
    if books["agrees"]:
        say("  the ledger and what feeders and bins counted agree")
    else:
        say("  DOES NOT AGREE:")
        for difference in books["differences"]:
            say(f"    {difference}")
    for reason, count in sorted(report["failures"].items()):
        say(f"  {count} x {reason}")


def _print_samples(report: dict[str, Any]) -> None:
    """What quality samples have proven, and what of it is still open."""
    proofs, tests = report["key_proofs"], report["sample_tests"]
    if "pin" in proofs:
        say(f"offline PIN: {proofs['pin']}")
    if tests:
        say(f"sample tests: {sum(t['passed'] for t in tests)} passed, {sum(not t['passed'] for t in tests)} FAILED")
    for test in tests:
        for subject, message in test["failures"].items():
            say(f"  attempt {test['attempt_id']}, chip {test['chip_id']}: {subject}: {message}")
    if "sample-due" in (*proofs["summary"], proofs.get("pin")):
        say(f"  sample-due: `citycard sample draw {report['job_id']}`, then `citycard sample test CHIP_ID`")
