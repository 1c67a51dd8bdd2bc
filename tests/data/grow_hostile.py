"""Grows the corpus of hostile bodies, tests/data/hostile/: python tests/data/grow_hostile.py [SECONDS a form]

Guided by coverage: what reaches lines of app/wire in a combination that none before did is kept, mutated further, made
as small as reaches them still, and written down with what became of it. tests/app/wire/test_hostile.py reads them all.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.fuzz.bodies import CHECKS, check, mutated, seeds  # noqa: E402

FOLDER = ROOT / "tests" / "data" / "hostile"
WIRE = str(ROOT / "app" / "wire")
Reached = tuple[str, frozenset[tuple[str, int]]]


def reached(kind: str, body: bytes) -> Reached:
    """What became of a body, and the lines of the codecs that were run. Raises what is a bug."""
    lines: set[tuple[str, int]] = set()

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            lines.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def trace(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        return local if frame.f_code.co_filename.startswith(WIRE) else None

    sys.settrace(trace)
    try:
        outcome = check(kind, body)
    finally:
        sys.settrace(None)
    return outcome, frozenset(lines)


def smallest(kind: str, body: bytes, wanted: Reached) -> bytes:
    """The body without what is not needed to reach the same."""
    size = max(1, len(body) // 2)
    while size:
        at = 0
        while at < len(body):
            shorter = body[:at] + body[at + size :]
            if reached(kind, shorter) == wanted:
                body = shorter
            else:
                at += size
        size //= 2
    return body


def grow(kind: str, seconds: float) -> dict[str, str]:
    """The corpus of one form: the names of its files, and what becomes of each."""
    rng = Random(kind)
    pool = list(seeds(kind))
    known = {reached(kind, body) for body in pool}
    found: dict[bytes, str] = {}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        body = mutated(rng, kind, rng.choice(pool))
        what = reached(kind, body)
        if what in known:
            continue
        known.add(what)
        small = smallest(kind, body, what)
        pool.append(small)
        found[small] = what[0]
    folder = FOLDER / kind
    folder.mkdir(parents=True, exist_ok=True)
    named = {f"{kind}/{hashlib.sha256(body).hexdigest()[:12]}": body for body in found}
    for name, body in named.items():
        (FOLDER / name).write_bytes(body)
    return {name: found[body] for name, body in named.items()}


if __name__ == "__main__":
    expected: dict[str, str] = {}
    for form in CHECKS:
        expected |= grow(form, float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
    index = FOLDER / "expected.json"
    kept = json.loads(index.read_text()) if index.exists() else {}
    index.write_text(json.dumps(dict(sorted((kept | expected).items())), indent=1) + "\n")
    print(f"{len(expected)} new, {len(kept | expected)} in all")
