"""What a check found, the worst first."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]
Kind = Literal[
    "unreadable",
    "changed",
    "leak",
    "mask-off-image",
    "mask-empty",
    "mask-twice",
    "duplicate",
    "blank",
    "near-duplicate",
    "mask-tiny",
    "saturated",
]

SEVERITY: dict[Kind, Severity] = {  # the worst first, which is also the order in which findings are shown
    "unreadable": "error",  # training stops at it
    "changed": "error",  # its labels belong to another image; training stops at it
    "leak": "error",  # numbers on val or test look better than they are
    "mask-off-image": "error",
    "mask-empty": "warning",
    "mask-twice": "warning",
    "duplicate": "warning",
    "blank": "warning",
    "near-duplicate": "info",
    "mask-tiny": "info",
    "saturated": "info",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a person should look at.

    Attributes:
        kind: What it is.
        severity: error (spoils training or numbers), warning (probably a mistake), info (worth knowing).
        images: The images it is about, as the project names them; of a leak the training image comes first.
        message: One sentence without a full stop.
    """

    kind: Kind
    severity: Severity
    images: tuple[str, ...]
    message: str

    def as_dict(self) -> dict[str, Any]:
        """As ``check --json`` prints it."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "images": list(self.images),
            "message": self.message,
        }


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """All findings of a check.

    Attributes:
        findings: The worst first; within a kind in the order of the images.
        images_checked: Images that were opened.
        labels_checked: Annotated images whose masks were looked at.
    """

    findings: tuple[Finding, ...]
    images_checked: int
    labels_checked: int

    @property
    def counts(self) -> dict[str, int]:
        """How many findings of each kind, the worst kind first; kinds without findings are left out."""
        found = Counter(finding.kind for finding in self.findings)
        return {kind: found[kind] for kind in SEVERITY if found[kind]}

    def as_dict(self) -> dict[str, Any]:
        """As ``check --json`` prints it."""
        return {
            "images_checked": self.images_checked,
            "labels_checked": self.labels_checked,
            "counts": self.counts,
            "findings": [finding.as_dict() for finding in self.findings],
        }


def finding(kind: Kind, images: tuple[str, ...], message: str) -> Finding:
    """A finding with the severity of its kind."""
    return Finding(kind=kind, severity=SEVERITY[kind], images=images, message=message)


def ranked(findings: list[Finding]) -> tuple[Finding, ...]:
    """The worst kind first; findings of a kind stay in their order."""
    order = {kind: rank for rank, kind in enumerate(SEVERITY)}
    return tuple(sorted(findings, key=lambda f: order[f.kind]))
