"""Every law, for every operation and each of its samples, on NumPy and on the strict stand-in for CuPy.

A failure names law, operation, sample, device and dtype; `LAWS["gradient"].check(Case("mul", 1, "cuda:0"))` has it
again. docs/laws.md says what each law is; laws are broken on purpose in scripts/break_rules.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import pytest

from engine.op import REGISTRY
from tests.laws import agreement, gradients, places, planned, undoing, words  # noqa: F401  the laws register themselves
from tests.laws.excluded import EXCLUDED, OWN, OWN_PARAMETERS, VALUES_DECIDE
from tests.laws.harness import DEVICES, Broken, samples_of
from tests.laws.law import LAWS, Law, subjects


def by_family(names: Iterable[str]) -> dict[str, list[str]]:
    """Operations by family, at most 25 at a time: as many tests as workers can share, and not ten thousand."""
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(REGISTRY[name].family, []).append(name)
    return {
        f"{family}{i // 25 or ''}": ops[i : i + 25] for family, ops in families.items() for i in range(0, len(ops), 25)
    }


def hold_all(checks: Iterable[Callable[[], None]]) -> None:
    """Runs every check; fails with what all of them say."""
    broken = []
    for check in checks:
        try:
            check()
        except Broken as e:
            broken.append(str(e))
    if broken:
        pytest.fail("\n".join(broken), pytrace=False)


def _laws() -> Iterator[Any]:
    for law in LAWS.values():
        for family, ops in by_family(subjects(law)).items():
            for device in DEVICES:
                yield pytest.param(law, ops, device, id=f"{law.name}-{family}-{device}")


@pytest.mark.parametrize("law, ops, device", list(_laws()))
def test_law(law: Law, ops: list[str], device: str) -> None:
    hold_all(partial(law.holds, op, device) for op in ops)


# ---------------------------------------------------------------- words

_FAMILIES = by_family(words.public())
PUBLIC = pytest.mark.parametrize("ops", list(_FAMILIES.values()), ids=list(_FAMILIES))


@PUBLIC
def test_names_parameters_and_defaults_are_pytorchs(ops: list[str]) -> None:
    hold_all(partial(words.names_are_torchs, op) for op in ops)


@PUBLIC
def test_an_operation_is_documented(ops: list[str]) -> None:
    hold_all(partial(words.is_documented, op) for op in ops)


@PUBLIC
def test_the_documented_example_works(ops: list[str]) -> None:
    hold_all(partial(words.example_runs, op) for op in ops)


def test_the_names_test_sees_what_is_wrong() -> None:
    """Misspelt, out of order, a wrong default, one too many: each is told from what PyTorch has."""
    right = words.parse('input, dim=null, keepdim=false, *, alpha=1, mode="mean", size=[1, 1]')
    assert words._unlike(right, right, "x") is None
    for wrong in (
        [*right[:2], ("keepdims", False), *right[3:]],
        [right[1], right[0], *right[2:]],
        [*right[:3], ("alpha", 2), *right[4:]],
        [*right[:2], ("keepdim", 0), *right[3:]],
        [*right, ("more", None)],
        [("input", None), *right[1:]],
    ):
        assert words._unlike(wrong, right, "x")
        assert words._unlike_all(wrong, [right], "x") or len(wrong) == len(right)


# ---------------------------------------------------------------- the table of exclusions


@pytest.mark.parametrize("row", EXCLUDED, ids=lambda row: f"{row[0]}-{row[1].split()[0]}")
def test_an_excluded_case_does_not_hold(row: tuple[str, str, str | None, str]) -> None:
    """What holds after all must not be excluded."""
    import re

    law, ops, pattern, why = row
    assert why
    for op in ops.split():
        assert op in REGISTRY, f"{op} is no operation"
        numbers = [i for i, s in enumerate(samples_of(op)) if pattern is None or re.search(pattern, repr(s))]
        assert numbers, f"{law}: {op} has no such sample"
        broken = 0
        for device in DEVICES:
            try:
                LAWS[law].holds_for(op, numbers, device)
            except Broken:
                broken += 1
        assert broken, f"{law} holds for {op}: take it out of the table"


def test_what_the_other_tables_name_exists() -> None:
    public = set(words.public())
    assert not [name for name in OWN_PARAMETERS if name not in public]
    assert not [name for name in VALUES_DECIDE if name not in REGISTRY]
    assert not [name for name in OWN if name in words.torch_names() and name in public]
