"""Which kernels NumPy's OpenBLAS is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.processor import VARIABLE, is_zen_4

ROOT = Path(__file__).resolve().parents[2]


def describe(vendor: str, family: int, flags: str) -> str:
    lines = [
        f"vendor_id\t: {vendor}",
        f"cpu family\t: {family}",
        "model name\t: it",
        f"flags\t\t: {flags}",
        "power management:",
    ]
    return "\n".join(["processor\t: 0", *lines, "", "processor\t: 1", *lines, ""])


@pytest.mark.parametrize(
    "description, wanted",
    [
        (describe("AuthenticAMD", 25, "fpu avx2 avx512f avx512dq"), True),
        (describe("AuthenticAMD", 25, "fpu avx2"), False),  # Zen 3
        (describe("AuthenticAMD", 26, "fpu avx2 avx512f"), False),  # Zen 5 computes 512 bits at once
        (describe("GenuineIntel", 6, "fpu avx2 avx512f"), False),
        (describe("GenuineIntel", 25, "fpu avx2 avx512f"), False),
        ("processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\n", False),
        ("", False),
    ],
)
def test_only_zen_4_is_zen_4(description: str, wanted: bool) -> None:
    assert is_zen_4(description) is wanted


ASK = (
    "import os, engine; from engine import processor\n"
    "print(processor.CHOSEN, os.environ.get(processor.VARIABLE), 'numpy' in __import__('sys').modules)"
)


def ask(code: str = ASK, **environment: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if name != VARIABLE}
    kept |= {"PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=kept, check=True)
    return done.stdout.split()


def test_what_the_environment_says_is_taken() -> None:
    assert ask(**{VARIABLE: "Nehalem"})[:2] == ["Nehalem", "Nehalem"]


def test_nothing_is_left_in_the_environment() -> None:
    chosen, left, loaded = ask()
    assert left == "None"
    assert (chosen, loaded) in (("Haswell", "True"), ("None", "False"))


def test_numpy_that_is_there_already_is_left_alone() -> None:
    assert ask("import numpy\n" + ASK)[:2] == ["None", "None"]
