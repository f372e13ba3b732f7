"""What an examination finds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gitdist.errors import first_line

State = Literal["ok", "warning", "problem"]
HERE = "here"  # the place of findings about this machine


@dataclass(frozen=True)
class Finding:
    """One check at one place.

    Attributes:
        check: what was examined.
        place: ``here``, a node's name, or ``cluster``.
        state: ``problem`` stops or harms a study; ``warning`` may.
        seen: what was found there.
        remedy: what to do about it, one line; empty if all is well.
    """

    check: str
    place: str
    state: State
    seen: str
    remedy: str = ""

    @classmethod
    def judge(
        cls, is_ok: bool, check: str, place: str, seen: str, remedy: str, otherwise: State = "problem"
    ) -> "Finding":
        """Return ``seen`` as ok, or else as a problem or warning with its remedy."""
        return cls(check, place, "ok", seen) if is_ok else cls(check, place, otherwise, seen, remedy)

    @classmethod
    def of_error(cls, check: str, place: str, error: BaseException) -> "Finding":
        """Return the problem in one of gitdist's errors; what its message says after a semicolon is the remedy."""
        seen, _, remedy = first_line(error).partition("; ")
        return cls(check, place, "problem", seen, remedy)


def worst_state(findings: Iterable[Finding]) -> State:
    """Return the worst state of findings."""
    states = {finding.state for finding in findings}
    return "problem" if "problem" in states else "warning" if "warning" in states else "ok"


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return findings as JSON values, in their order, with the worst state of them."""
    return {"state": worst_state(findings), "findings": [vars(finding) for finding in findings]}
