"""Breaks the CUDA code on purpose, one thing at a time, and says which tests notice. Writes the table of docs/gpu.md.

    python scripts/break_cuda.py             run everything that needs no CuPy, and print the table
    .venv-cuda12/bin/python scripts/break_cuda.py --write      with CuPy too (`make test-cupy` installs it); write it

Each break is made in a copy of the code: one text in one file is replaced by another, and the tests that ought to
notice are run there. Nothing here needs a GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "gpu.md"
START, END = "<!-- written by scripts/break_cuda.py -->", "<!-- end of breaks -->"
PARTS = ("engine", "app", "tests", "scripts", "pyproject.toml")


@dataclass(frozen=True)
class Break:
    """What is broken, where, and the tests that are asked. `cupy`: they need CuPy, as `make test-cupy` installs it."""

    what: str
    file: str
    old: str
    new: str
    tests: str
    cupy: bool = False


def laws(families: str) -> str:
    """The laws on the device, for the operations of these families."""
    return f'tests/laws/test_laws.py -k "cuda and ({families})"'


BREAKS: tuple[Break, ...] = (
    Break(
        "a guard taken out: `gather` takes indices out of range, which wrap silently",
        "engine/ops/scatter.py",
        "    check_along(input, dim, index)\n\n\n@gather.vjp",
        "    return None\n\n\n@gather.vjp",
        laws("guards"),
    ),
    Break(
        "a function that CuPy lacks: `flip` calls `xp.unstack`",
        "engine/ops/shaping.py",
        "    made[...] = k.xp.flip(input, axes) if axes else input",
        "    made[...] = k.xp.flip(k.xp.stack(k.xp.unstack(input)), axes) if axes else input",
        laws("shaping or shape"),
    ),
    Break(
        "a keyword that CuPy does not take: `cumsum` passes `where=`",
        "engine/ops/scans.py",
        "    return xp.flip(made, axis=dim) if reverse else made\n\n\ndef _accumulate",
        "    return xp.cumsum(input, axis=dim, where=True)\n\n\ndef _accumulate",
        laws("reductions"),
    ),
    Break(
        "a parameter that only NumPy calls so: `flip` passes `m=`",
        "engine/ops/shaping.py",
        "k.xp.flip(input, axes) if axes",
        "k.xp.flip(m=input, axis=axes) if axes",
        laws("shaping or shape"),
    ),
    Break(
        "a host array mixed into a device operation: `flip` adds NumPy's zeros",
        "engine/ops/shaping.py",
        "k.xp.flip(input, axes) if axes",
        "k.xp.flip(input + np.zeros(input.shape, input.dtype), axes) if axes",
        laws("shaping or shape"),
    ),
    Break(
        "a NumPy scalar as an operand: `flip` multiplies by np.float64(1)",
        "engine/ops/shaping.py",
        "k.xp.flip(input, axes) if axes",
        "k.xp.flip(input * np.float64(1), axes) if axes",
        laws("shaping or shape"),
    ),
    Break(
        "values fetched by NumPy: `flip` calls np.flip on a device array",
        "engine/ops/shaping.py",
        "k.xp.flip(input, axes) if axes",
        "np.flip(input, axes) if axes",
        laws("shaping or shape"),
    ),
    Break(
        "memory read before it is written: `flip` adds `empty`, which is zero by luck on a CPU",
        "engine/ops/shaping.py",
        "k.xp.flip(input, axes) if axes",
        "k.xp.flip(input + 0 * k.xp.empty_like(input), axes) if axes",
        laws("shaping or shape"),
    ),
    Break(
        "a scatter that CuPy has no atomic operation for: complex and small integers go straight to `add.at`",
        "engine/backend.py",
        '        if kind == "c":\n            self.xp.add.at(target.real',
        '        if kind == "never":\n            self.xp.add.at(target.real',
        "tests/engine/test_backend.py",
    ),
    Break(
        "bfloat16's bits taken for numbers on the device",
        "engine/backend.py",
        "        if d is bfloat16:\n            wide = _converted(array, np.uint32)",
        "        if d is bfloat16 and self.kind == 'cpu':\n            wide = _converted(array, np.uint32)",
        laws("reduced and pointwise"),
    ),
    Break(
        "the devices' random stream: a multiplier with a digit wrong, in the array code",
        "engine/kernels.py",
        "M0, M1 = 0xD2511F53",
        "M0, M1 = 0xD2511F52",
        "tests/engine/test_philox.py",
    ),
    Break(
        "the devices' random stream: one round less, in the CUDA source",
        "engine/kernels.py",
        "round < 10",
        "round < 9",
        "tests/engine/test_philox.py",
    ),
    Break(
        "undo forgets what the devices have drawn",
        "engine/random/generator.py",
        "        self._seed, self._known, self._cached, self.draws = state",
        "        self._seed, self._known, self._cached, _ = state",
        "tests/engine/test_philox.py",
    ),
    Break(
        "out of memory gives up at once: the pool is not freed",
        "engine/backend.py",
        "        self.free_unused()\n        try:\n            return self._pool.malloc(size)",
        "        try:\n            return self._pool.malloc(size)",
        "tests/engine/test_backend.py",
    ),
    Break(
        "a device that does not compute counts as ready",
        "engine/backend.py",
        "            self._cuda.set_allocator(self.allocate)\n            self.check()",
        "            self._cuda.set_allocator(self.allocate)",
        "tests/engine/test_backend.py",
    ),
    Break(
        "a poisoned context is taken for a bug, and its worker goes on",
        "engine/workers/worker.py",
        "        if self._lost is not None:\n            raise self._lost",
        "        if self._lost is not None:\n            pass",
        "tests/engine/workers/test_devices.py -k lost_device",
    ),
    Break(
        "`--sync-steps` waits for nothing",
        "engine/context.py",
        "        for backend in self.ks:\n            backend.synchronize()",
        "        for backend in ():\n            backend.synchronize()",
        "tests/engine/test_cuda.py",
    ),
    Break(
        "tensors of two devices are let through",
        "engine/apply.py",
        "                    raise device_mismatch(op, backend, t, self.tensors)",
        "                    pass",
        "tests/engine/test_cuda.py",
    ),
    Break(
        "a practice server's answers do not say so",
        "app/deps.py",
        "        if self.exchange.simulated:",
        "        if False:",
        "tests/app/test_practice.py",
    ),
    Break(
        "a fused kernel subtracts the wrong way round",
        "engine/fused/table.py",
        'Function("subtract", 2, "{0} - {1}"',
        'Function("subtract", 2, "{1} - {0}"',
        'tests/engine/test_fused.py -k "every_function or programs_by_kernels"',
    ),
    Break(
        "a fused kernel reads what it writes in another order",
        "engine/chains.py",
        "                return True\n        return False\n\n\ndef _is_like",
        "                return False\n        return False\n\n\ndef _is_like",
        "tests/engine/test_fused.py -k another_order",
    ),
    Break(
        "Adam's rates of the first round stay those of all rounds in a fused kernel",
        "engine/fused/launch.py",
        "            scalars[i] = scalar(x, code)",
        "            scalars[i] = scalar(x, code) if scalars[i] is None else scalars[i]",
        "tests/engine/test_fused.py -k optimizer",
    ),
    Break(
        "fused kernels may fuse products and sums",
        "engine/fused/source.py",
        'OPTIONS = ("--fmad=false", ',
        'OPTIONS = ("--fmad=true", ',
        "tests/cupy/test_kernels.py -k apart",
        cupy=True,
    ),
    Break(
        "the list of names has a function that CuPy lacks",
        "engine/simulated/names.json",
        '    "vdot": ',
        '    "vecdot": "a, b",\n    "vdot": ',
        "tests/cupy/test_names.py",
        cupy=True,
    ),
    Break(
        "the list of names gives a function a keyword that CuPy does not take",
        "engine/simulated/names.json",
        '"flip": "a, axis=None"',
        '"flip": "a, axis=None, copy=True"',
        "tests/cupy/test_names.py",
        cupy=True,
    ),
    Break(
        "the list of names has a type loop that CuPy lacks: `clip` of complex numbers",
        "engine/simulated/names.json",
        '"ddd->d"]',
        '"ddd->d", "FFF->F"]',
        "tests/cupy/test_names.py",
        cupy=True,
    ),
    Break(
        "a CUDA source that no compiler takes",
        "engine/kernels.py",
        "k0 += 0x9E3779B9U;",
        "k0 += 0x9E3779B9U",
        "tests/cupy/test_kernels.py",
        cupy=True,
    ),
)

WITHOUT_CUPY = tuple(b for b in BREAKS if not b.cupy)


def broken(b: Break) -> str:
    """The file's text with the break in it. Raises ValueError where the text to replace is not there once."""
    text = (ROOT / b.file).read_text("utf-8")
    if text.count(b.old) < 1:
        raise ValueError(f"{b.what}: {b.file} has no {b.old!r} any more")
    return text.replace(b.old, b.new, 1)


def noticed(b: Break) -> list[str]:
    """The tests that fail when this is broken."""
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            source, target = ROOT / part, Path(folder) / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        (Path(folder) / b.file).write_text(broken(b), "utf-8")
        arguments = [part.strip('"') for part in re.findall(r'"[^"]*"|\S+', b.tests)]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", *arguments],
            cwd=folder,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return list(dict.fromkeys(map(_called, failed)))


def _called(test: str) -> str:
    """A test by its file and function; a law, `test_laws.py::test_law[guards-scatter-cuda:0]`, by its name."""
    law = re.search(r"::test_law\[([a-z]+(?:-(?:order|gradient))?)-", test)
    return f"law {law[1]}" if law else re.sub(r"^[^\[]*/|\[.*", "", test).replace(".py::", ": ")


def shown(names: Sequence[str]) -> str:
    """Tests by name, the first few."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(f"`{name}`" for name in names[:4]) + more if names else "**nothing**"


def table(rows: Sequence[tuple[Break, list[str]]]) -> str:
    """The breaks and what noticed them, as Markdown."""
    lines = ["| broken on purpose | noticed by |", "| --- | --- |"]
    lines += [f"| {b.what}{' (`make test-cupy`)' if b.cupy else ''} | {shown(names)} |" for b, names in rows]
    return "\n".join(lines)


def main() -> int:
    """0 when each break was noticed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--write", action="store_true", help="write the table into docs/gpu.md; needs CuPy")
    options = parser.parse_args()
    have = importlib.util.find_spec("cupy") is not None
    if options.write and not have:
        print("--write needs CuPy: make test-cupy, then .venv-cuda12/bin/python scripts/break_cuda.py", file=sys.stderr)
        return 2
    rows = []
    for b in BREAKS if have else WITHOUT_CUPY:
        rows.append((b, noticed(b)))
        print(f"{b.what}: {shown(rows[-1][1])}", flush=True)
    if options.write:
        page = PAGE.read_text("utf-8")
        head, _, rest = page.partition(START)
        PAGE.write_text(f"{head}{START}\n{table(rows)}\n{END}{rest.partition(END)[2]}", "utf-8")
    return 1 if any(not names for _, names in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
