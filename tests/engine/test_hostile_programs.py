"""Programs that a fuzzer once found a bug with, each kept: they are refused with a code, or run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import hostile

PROGRAMS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "hostile" / "programs.json").read_text("utf-8")
)


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_what_was_once_a_bug(number: int) -> None:
    for how in (0, 1, 5, 6):  # with values, without, dry, explained
        hostile.run_as_worker(hostile.session(), PROGRAMS[number], how)
