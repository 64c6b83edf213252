"""Findings: what was found, where, what was expected, and how to put it right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tiltwise.check.codes import CODES, SEVERITIES, Severity

SHOWN = 3
"""Places that a finding names; of the others it tells the number."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; `fix` is that of the registry unless there is a better one."""

    code: str
    what: str
    where: str
    expected: str = ""
    found: str = ""
    fix: str = ""

    @property
    def severity(self) -> Severity:
        """error, warning or note, as the registry has it."""
        return CODES[self.code].severity

    @property
    def advice(self) -> str:
        """How to put it right."""
        return self.fix or CODES[self.code].fix

    def lines(self) -> list[str]:
        """As a terminal shows it."""
        mark = {"error": "✗", "warning": "!", "note": "-"}[self.severity]
        lines = [f"{mark} {self.what}  [{self.code}]"]
        parts = (("where", self.where), ("expected", self.expected), ("found", self.found), ("fix", self.advice))
        return lines + [f"  {label}: {text}" for label, text in parts if text]

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "code": self.code,
            "severity": self.severity,
            "what": self.what,
            "where": self.where,
            "expected": self.expected,
            "found": self.found,
            "fix": self.advice,
        }


class Findings:
    """All findings so far, errors first."""

    def __init__(self) -> None:
        self._all: list[Finding] = []

    def add(
        self, code: str, what: str, where: str | Sequence[str], *, expected: str = "", found: str = "", fix: str = ""
    ) -> None:
        """One more; of several places the first three are named."""
        if code not in CODES:
            raise KeyError(code)
        place = where if isinstance(where, str) else some(where)
        self._all.append(Finding(code, what, place, expected, found, fix))

    def __iter__(self) -> Iterator[Finding]:
        return iter(sorted(self._all, key=lambda one: SEVERITIES.index(one.severity)))

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, code: str) -> bool:
        return any(one.code == code for one in self._all)

    def count(self, severity: Severity) -> int:
        """How many of a severity."""
        return sum(one.severity == severity for one in self._all)


def some(names: Sequence[str]) -> str:
    """The first names and the number of the others."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
