"""Rules broken on purpose are noticed: a part of scripts/break_rules.py here, all of it among the slow tests."""

from __future__ import annotations

import pytest

from scripts import break_rules


@pytest.mark.parametrize("broken", break_rules.BREAKS[::4], ids=lambda b: b.what)
def test_a_broken_rule_is_noticed(broken: break_rules.Break) -> None:
    [(_, laws)] = break_rules.run((broken,))
    assert laws


def test_the_page_has_every_law_and_every_break() -> None:
    text = break_rules.PAGE.read_text("utf-8")
    assert break_rules.laws_as_text() in text, "python scripts/break_rules.py"
    assert [b.what for b in break_rules.BREAKS if f"| {b.what} | " not in text] == []
    assert "**nothing**" not in text


@pytest.mark.slow
def test_every_broken_rule_is_noticed_and_the_page_says_by_what() -> None:
    assert break_rules.page(break_rules.run()) == break_rules.PAGE.read_text("utf-8"), "python scripts/break_rules.py"
