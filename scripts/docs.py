"""Writes the documents that are made from the code: docs/fidelity.md, docs/mistakes.md, the reference
(scripts/reference.py) and the tutorial (scripts/tutorial.py).

python scripts/docs.py            writes
python scripts/docs.py --check    says what would change, and exits with 1 if anything would
"""

from __future__ import annotations

import argparse
import csv
import sys
import tomllib
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "scripts" / "data"
sys.path.insert(0, str(ROOT))

import engine.ops  # noqa: E402, F401  the operations register themselves
from app.language.en import HINTS  # noqa: E402
from engine import elsewhere  # noqa: E402
from engine.declare import catalogue  # noqa: E402
from scripts import reference, tutorial  # noqa: E402

FIDELITY = """# Fidelity

<!-- Made by `make docs`: from the declarations, scripts/data/torch_operations.csv (the public operations that PyTorch
2.13 tests, each with a tier: 1 is what a first book uses) and scripts/data/differences.toml. -->

What PyTorch 2.13's public Python API says is meant to be true here. This page lists where it is not.

## Differences

| where | how | why |
| --- | --- | --- |
{differences}

## Operations

{summary}

## Names that are no operations

A call of one of them is a 404 whose hint says this. Names are those after `torch.` or `torch.Tensor.`; `*` stands for
any end of a name.

| names | instead |
| --- | --- |
{elsewhere}
"""


def fidelity() -> str:
    """docs/fidelity.md: what is there of PyTorch's list, what differs, what is missing."""
    with (DATA / "torch_operations.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    there = {e["name"] for e in catalogue()}
    differences = tomllib.loads((DATA / "differences.toml").read_text())["difference"]
    table = "\n".join(f"| {d['where']} | {d['how']} | {d['why']} |" for d in differences)
    lines = ["| family | tier 1 | tier 2 | tier 3 | missing |", "| --- | --- | --- | --- | --- |"]
    for family in sorted({r["family"] for r in rows}):
        members = [r for r in rows if r["family"] == family]
        cells = []
        for tier in "123":
            wanted = [r["name"] for r in members if r["tier"] == tier]
            cells.append(f"{sum(n in there for n in wanted)} of {len(wanted)}" if wanted else "")
        missing = ", ".join(f"`{r['name']}`" for r in members if r["name"] not in there)
        lines.append(f"| {family} | {' | '.join(cells)} | {missing} |")
    return FIDELITY.format(differences=table, summary="\n".join(lines), elsewhere="\n".join(_elsewhere()))


def _elsewhere() -> Iterator[str]:
    """A row for each group of names that are no operations."""
    for names, hint in (
        (elsewhere.MODULES, "no-module"),
        (elsewhere.OPTIMIZERS, "no-optimizer"),
        (elsewhere.FUNCTIONS, "no-function-here"),
    ):
        shown = ", ".join(f"`{name}`" for name in names)
        yield f"| {shown} | {HINTS[hint].format(near='its name in the reference')} |"
    for hint, text in elsewhere.GROUPS.items():
        shown = ", ".join(f"`{name}*`" if name.endswith(".") else f"`{name}`" for name in text.split())
        yield f"| {shown} | {HINTS[hint].format()} |"


MISTAKES = """# A beginner's mistakes

<!-- Made by `make docs` from tests/app/mistakes.toml; edit that. -->

Each call, what the service answers, and a call that works instead. Where PyTorch has the call, the answer was compared
with what PyTorch 2.13 says: it is the same, or the page says how it differs. The tests send every call, follow every
hint that contains one, and send the call that works. `$` is the id that the hint's call answered.
"""


def mistakes() -> str:
    """docs/mistakes.md: the tour of mistakes that the tests take."""
    tour = tomllib.loads((ROOT / "tests" / "app" / "mistakes.toml").read_text())["mistake"]
    parts = [MISTAKES]
    for section, members in groupby(tour, key=lambda m: m["section"]):
        parts.append(f"## {section}\n")
        for m in members:
            parts.append(f"**{m['title']}**: `{(m['call'] + ' ' + m['body']).strip()}`")
            parts.append(f"\n> {m['status']} `{m['code']}`: {m['detail'].replace('|', chr(92) + '|')}")
            parts.append(f">\n> hint: `{m['hint']}`\n")
            if "differs" in m:
                parts.append(f"Other words than PyTorch's: {m['differs']}.\n")
            if "mend" in m:
                parts.append(f"Mended: `{(m['mend']['call'] + ' ' + m['mend']['body']).strip()}`\n")
    return "\n".join(parts).rstrip() + "\n"


def main() -> int:
    """Writes, or checks, each document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    stale = []
    documents = {"fidelity.md": fidelity(), "mistakes.md": mistakes()} | reference.pages() | tutorial.pages()
    left = [
        old for old in sorted((ROOT / "docs" / "reference").glob("*.md")) if f"reference/{old.name}" not in documents
    ]
    stale += [old.relative_to(ROOT) for old in left]  # of a family that is gone
    for name, made in documents.items():
        path = ROOT / "docs" / name
        if path.exists() and path.read_text() == made:
            continue
        stale.append(path.relative_to(ROOT))
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made)
    for old in left:
        if not options.check:
            old.unlink()
    if options.check and stale:
        print(f"not what the code says: {', '.join(map(str, stale))}; run make docs", file=sys.stderr)
        return 1
    print("docs: " + (f"wrote {', '.join(map(str, stale))}" if stale else "nothing to change"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
