"""What an examination finds."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from gitdist.errors import first_line

State = Literal["ok", "warning", "problem"]
HERE = "here"  # the place of findings about the machine that asks


@dataclass(frozen=True)
class Finding:
    """One check at one place.

    Attributes:
        check: what was looked at.
        place: where: ``here``, a node's name, or ``cluster``.
        state: ``problem`` stops a study, or harms it; ``warning`` may.
        seen: what was found there.
        remedy: what to do about it, one line; empty where all is well.
    """

    check: str
    place: str
    state: State
    seen: str
    remedy: str = ""

    @classmethod
    def of_error(cls, check: str, place: str, error: BaseException | str, remedy: str = "") -> "Finding":
        """Return the problem that an error tells; what gitdist's own errors say after a semicolon is the remedy."""
        told = error if isinstance(error, str) else first_line(error)
        seen, semicolon, advice = told.partition("; ")
        return (
            cls(check, place, "problem", seen, advice)
            if semicolon and not remedy
            else cls(check, place, "problem", told, remedy)
        )


def has_problem(findings: Iterable[Finding]) -> bool:
    """Tell whether any finding is a problem."""
    return any(finding.state == "problem" for finding in findings)


def size(num_bytes: float) -> str:
    """Return a number of bytes for reading."""
    return f"{num_bytes / 1e9:.1f} GB"


def as_json(findings: Iterable[Finding]) -> dict[str, Any]:
    """Return findings as plain values, in their order, with the worst state of them."""
    listed = list(findings)
    states = [finding.state for finding in listed]
    worst = next((state for state in ("problem", "warning") if state in states), "ok")
    return {"state": worst, "findings": [vars(finding) for finding in listed]}
