"""Every law, for every operation and each of its samples, on NumPy and on the strict stand-in for CuPy."""

from __future__ import annotations

import pytest
from tests.laws import agreement, gradients, places, undoing  # noqa: F401  the laws register themselves
from tests.laws.harness import DEVICES
from tests.laws.law import LAWS, subjects


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("law, op", [(law.name, op) for law in LAWS.values() for op in subjects(law)])
def test_law(law: str, op: str, device: str) -> None:
    LAWS[law].holds(op, device)
