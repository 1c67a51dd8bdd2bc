"""Bodies that a fuzzer grew, and those that it once found a bug with: each is read, or refused with its code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fuzz.bodies import CHECKS, check

FOLDER = Path(__file__).parents[2] / "data" / "hostile"
EXPECTED: dict[str, str] = json.loads((FOLDER / "expected.json").read_text())


@pytest.mark.parametrize("kind", CHECKS)
def test_hostile_bodies(kind: str) -> None:
    bodies = {name: code for name, code in EXPECTED.items() if name.startswith(f"{kind}/")}
    assert bodies
    assert {name: check(kind, (FOLDER / name).read_bytes()) for name in bodies} == bodies


def test_every_file_is_expected() -> None:
    files = {f"{path.parent.name}/{path.name}" for path in FOLDER.glob("*/*")}
    assert files == set(EXPECTED)


# Found by a fuzzer, and mended.
@pytest.mark.parametrize(
    "kind, body, code",
    [
        ("csv", b"1.5," + b"1" * 400, "integer-too-large"),
        ("csv", b"nan\n-" + b"9" * 900, "integer-too-large"),
    ],
)
def test_what_was_once_a_bug_is_refused(kind: str, body: bytes, code: str) -> None:
    assert check(kind, body) == code
