"""The reference: a page for each family, with every operation on one of them, as `make docs` makes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from engine.declare import catalogue
from engine.op import REGISTRY
from scripts import reference

DOCS = Path(__file__).parents[2] / "docs"
ANSWER = re.compile(r"```text\n.*?```", re.DOTALL)


@pytest.fixture(scope="module")
def pages() -> Mapping[str, str]:
    return reference.pages()


def words(page: str) -> str:
    """A page without what the examples answer: its last digits, and the signs of vectors, are the machine's."""
    return ANSWER.sub("", page)


def test_the_pages_are_those_that_make_docs_makes(pages: Mapping[str, str]) -> None:
    written = {f"reference/{path.name}": path.read_text("utf-8") for path in (DOCS / "reference").glob("*.md")}
    assert {name: words(page) for name, page in written.items()} == {n: words(page) for n, page in pages.items()}


def test_every_operation_is_in_the_index_once_and_leads_to_its_entry(pages: Mapping[str, str]) -> None:
    index = pages["reference/README.md"]
    rows = re.findall(r"^\| (?:\[`([\w.]+)\(.*?`\]\((\w+\.md)#[\w-]*\)|`([\w.]+)`) \|", index, re.MULTILINE)
    assert sorted(first or other for first, _, other in rows) == sorted(e["name"] for e in catalogue())
    for name, file, _ in rows:
        if name:
            assert f"\n## {name}\n" in pages[f"reference/{file}"]


def test_an_entry_says_what_the_engine_says(pages: Mapping[str, str]) -> None:
    entry = pages["reference/pointwise.md"].partition("\n## mul\n")[2].partition("\n## ")[0]
    assert "`mul(input, other)`" in entry
    assert "in place: `mul_(input, other)`" in entry
    assert "**dtypes**: every dtype → the same" in entry
    assert "`MulBackward0`; that of `input` needs `other`; that of `other` needs `input`; every order" in entry
    assert re.search(r"```sh\ncurl \S+/v1/ops/mul -d '\{.*\}'\n```\n\n```text\ntensor\(", entry)


@pytest.mark.parametrize(
    "name, lines",
    [
        ("mean", ["`float16`", "refused: `bool` `uint8` `int8` `int16` `int32` `int64`"]),
        ("argmax", ["→ `int64`", "refused: `bool` `complex64` `complex128`"]),
        ("abs", ["`complex64` → `float32`", "refused: `bool`"]),
    ],
)
def test_dtypes_are_asked_of_the_metas(name: str, lines: list[str]) -> None:
    said = "; ".join(reference.dtypes(REGISTRY[name]))
    for line in lines:
        assert line in said


def test_gradients_are_run_before_they_are_promised() -> None:
    assert reference.gradient(REGISTRY["exp"]).endswith("every order")
    assert reference.gradient(REGISTRY["argmax"]) == "none"
