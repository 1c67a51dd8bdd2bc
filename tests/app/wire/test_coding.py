"""Codings: chosen as the caller asks, and only where they make an answer shorter."""

from __future__ import annotations

import gzip
import os

import pytest

from app.wire import coding


@pytest.mark.parametrize(
    "accepted, chosen",
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("br, GZIP;q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=nonsense", None),
        ("*", next(iter(coding.CODINGS))),
        ("*;q=0", None),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.2, gzip;q=0.5", "gzip"),
        ("br", None),
    ],
)
def test_the_coding_is_the_callers_choice(accepted: str | None, chosen: str | None) -> None:
    assert coding.choose(accepted) == chosen


def test_digits_get_shorter_and_come_back() -> None:
    body = b"0.25,1.5," * 2000
    coded = coding.encode(body, "gzip")
    assert coded is not None
    assert len(coded) < len(body) / 2
    assert gzip.decompress(coded) == body


def test_what_does_not_shrink_is_left_alone() -> None:
    assert coding.encode(os.urandom(10_000), "gzip") is None


def test_short_answers_and_elements_are_never_coded() -> None:
    assert coding.worthwhile("application/json", coding.SMALLEST)
    assert coding.worthwhile("text/csv; charset=utf-8", 1 << 20)
    assert not coding.worthwhile("application/json", coding.SMALLEST - 1)
    for binary in ("application/x-npy", "application/x-safetensors", "application/octet-stream", "image/png"):
        assert not coding.worthwhile(binary, 1 << 20)


def test_a_tag_without_its_coding() -> None:
    assert coding.uncoded('"abc~f-gzip"') == '"abc~f"'
    assert coding.uncoded('"abc"') == '"abc"'
