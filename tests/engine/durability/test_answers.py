"""What a session keeps of its answers to calls with a key: for a day, and the values of the newest of them."""

from __future__ import annotations

import time

import pytest

from engine.durability import recovery
from engine.durability.recovery import ANSWER_S, Answer, Answers


def test_after_a_day_they_go_the_oldest_first() -> None:
    now = time.time()
    answers = Answers()
    for number in range(5):
        answers.put(f"k{number}", Answer("d", now - ANSWER_S + number - 2.5, b"reply"))
    answers.put("new", Answer("d", now, b"reply"))
    assert [row[0] for row in answers.rows()] == ["k3", "k4", "new"]
    assert answers.get("k2") is None
    assert list(answers._known) == ["k3", "k4", "new"]


def test_beyond_their_bytes_the_oldest_lose_their_values_and_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "ANSWER_BYTES", 1000)
    now = time.time()
    answers = Answers()
    for number in range(40):
        short = None if number % 4 == 0 else b"s"
        answers.put(f"k{number}", Answer("d", now + number, bytes([number]) * 50, short))
        kept = [row[3] for row in answers.rows()]
        assert sum(map(len, kept)) == answers._bytes
        assert answers._bytes <= 1000
        assert kept[-1] == bytes([number]) * 50 or short is None or answers._bytes > 500
    shortened = [row[0] for row in answers.rows() if row[3] == b"s"]
    assert shortened == [f"k{number}" for number in range(len(shortened) * 4 // 3 + 1) if number % 4][: len(shortened)]
    assert len(answers.rows()) == 40


def test_a_key_that_is_put_again_is_the_newest() -> None:
    now = time.time()
    answers = Answers()
    for key, reply in (("a", b"one"), ("b", b"two"), ("a", b"three")):
        answers.put(key, Answer("d", now, reply, b"s"))
    assert [row[0] for row in answers.rows()] == ["b", "a"]
    assert answers._bytes == 8
    found = answers.get("a")
    assert found is not None
    assert found.reply == b"three"
    assert Answers.of(answers.rows()).rows() == answers.rows()
