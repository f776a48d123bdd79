"""What the checks found: a table for people on stdout, verify_report.json for programs.

A check reads both folders and writes nothing. A finding is a sentence that names the file or the token; an
edit is right if no check has one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vocabkit.files import write_json
from vocabkit.outputs import as_published

SHOWN = 5  # findings of one kind that are spelled out; the others are counted


@dataclass
class Check:
    """One rung of the ladder: its name, a line of what was looked at, measured numbers, findings (empty: it
    holds).
    """

    name: str
    looked_at: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def find(self, kind: str, cases: Iterable[str]) -> None:
        """Add a finding for each case of a kind, the first few spelled out and the rest counted."""
        cases = list(cases)
        self.findings += [f"{kind}: {case}" for case in cases[:SHOWN]]
        if len(cases) > SHOWN:
            self.findings.append(f"{kind}: {len(cases) - SHOWN:,} more")


REPORT = "verify_report.json"


def print_checks(checks: Sequence[Check]) -> None:
    """Print a line for each check, its numbers below it, and every finding."""
    for check in checks:
        print(f"{'FAILED' if check.findings else 'ok':6} {check.name:12} {check.looked_at}")
        shown = [f"{name} {_number(value)}" for name, value in check.numbers.items()]
        for at in range(0, len(shown), 4):
            print(" " * 20 + "· " + ", ".join(shown[at : at + 4]))
        for finding in check.findings:
            print(f"{'':20}! {finding}")


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1e-3 else f"{value:,.4f}"
    if isinstance(value, Mapping):
        most = sorted(value.items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{name} {count:,}" for name, count in most[:6])
        return f"({listed}{f' and {len(most) - 6} more' if len(most) > 6 else ''})"
    return f"{value:,}" if isinstance(value, int) else str(value)


def write_report(folder: Path, checks: Sequence[Check], *, base: Path, model: Path) -> None:
    """Write FOLDER/verify_report.json: every check with its numbers and findings."""
    report = {
        "format": "verify-report",
        "version": 1,
        "base": as_published(base),
        "model": as_published(model),
        "passed": not any(check.findings for check in checks),
        "checks": [
            {"name": c.name, "looked_at": c.looked_at, "numbers": c.numbers, "findings": c.findings}
            for c in checks
        ],
    }
    write_json(folder / REPORT, report)
