"""The Prefer header (RFC 7240), of which `respond-async` and `wait` are known here; others are ignored, as it says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MAX_WAIT_S = 600


@dataclass(frozen=True, slots=True)
class Async:
    """What is asked for is to be a job; `wait`: seconds in which an answer is preferred to a job."""

    wait: int | None = None

    @property
    def answered(self) -> str:
        """Preference-Applied of an answer that came in time."""
        return f"wait={self.wait}"

    @property
    def taken(self) -> str:
        """Preference-Applied of a job."""
        return "respond-async" if self.wait is None else f"respond-async, wait={self.wait}"


def read(headers: Iterable[str]) -> Async | None:
    """What these Prefer headers ask for; None without `respond-async`. The first of a preference counts."""
    found: dict[str, str] = {}
    for part in ",".join(headers).split(","):
        name, _, value = part.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    if "respond-async" not in found:
        return None
    wait = found.get("wait", "")
    # A value that is none counts as if it had not been given (RFC 7240, 2).
    return Async(min(int(wait), MAX_WAIT_S) if wait.isascii() and wait.isdigit() and len(wait) < 10 else None)
