"""What PyTorch 2.13 answered to its own sample inputs: values, dtypes, shapes, shared memory, gradients, refusals.

The cases are a part of PyTorch's OpInfo database, packed by pack_cases.py. What differs stands in `DIFFERS`, each with
its reason, and must differ.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.reading import Case, cases, families
from tests.conformance.running import error_differs, inplace_differs, value_differs, why_not

CHUNK = 60  # cases to a test: enough tests for workers to share, and no ten thousand
# What is meant to differ, by the start of a case's id; docs/fidelity.md says why to users.
DIFFERS = {
    "conj/complex64/s": "the conjugate is computed at once, and not a view",
    "as_strided_scatter/float": "the gradient of what was overwritten is zero",
}


def _chunks() -> Iterator[object]:
    for family in families():
        asked = [i for i, case in enumerate(cases(family)) if why_not(case) is None and not case.raw.get("fragile")]
        for start in range(0, len(asked), CHUNK):
            yield pytest.param(family, asked[start : start + CHUNK], id=f"{family}-{start // CHUNK}")


def said(case: Case, found: str | None) -> list[str]:
    """The line that a difference prints; none where there is none, or where it is meant."""
    if not found or any(case.id.startswith(start) for start in DIFFERS):
        return []
    return [f"{case.id}  {case.raw['call']}: {found}"]


@pytest.mark.parametrize("start", DIFFERS)
def test_what_is_listed_as_a_difference_differs(start: str) -> None:
    listed = [case for family in families() for case in cases(family) if case.id.startswith(start)]
    assert any(value_differs(case) for case in listed)


@pytest.mark.parametrize("family, numbers", list(_chunks()))
def test_answers_are_pytorchs(family: str, numbers: list[int]) -> None:
    lines = []
    for case in (cases(family)[i] for i in numbers):
        if case.kind == "error":
            lines += said(case, error_differs(case)[0])
        else:
            lines += said(case, value_differs(case))
            if case.kind != "random":
                lines += said(case, inplace_differs(case))
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)


def test_refusals_are_in_pytorchs_words() -> None:
    """Of all refusals; which ones are not is printed when there are too many."""
    asked = [c for family in families() for c in cases(family) if c.kind == "error" and why_not(c) is None]
    other = [case.id for case in asked if not error_differs(case)[1]]
    assert len(other) <= len(asked) * 0.1, other
