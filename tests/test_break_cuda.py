"""What is broken on purpose in the CUDA code is noticed, and docs/gpu.md says by what."""

from __future__ import annotations

import pytest

from scripts import break_cuda


@pytest.mark.parametrize("b", break_cuda.BREAKS, ids=lambda b: b.what[:60])
def test_the_text_to_break_is_there_and_the_page_has_the_break(b: break_cuda.Break) -> None:
    assert b.new not in (break_cuda.ROOT / b.file).read_text("utf-8") or b.new in b.old
    assert break_cuda.broken(b) != (break_cuda.ROOT / b.file).read_text("utf-8")
    assert f"| {b.what}" in break_cuda.PAGE.read_text("utf-8"), "python scripts/break_cuda.py --write"


def test_nothing_went_unnoticed() -> None:
    assert "**nothing**" not in break_cuda.PAGE.read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("b", break_cuda.WITHOUT_CUPY[::3], ids=lambda b: b.what[:60])
def test_a_break_is_noticed(b: break_cuda.Break) -> None:
    assert break_cuda.noticed(b)
