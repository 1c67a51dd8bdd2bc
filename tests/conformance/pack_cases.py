"""Packs PyTorch's sample cases into the compact form that the tests keep, one file per family.

    python tests/conformance/pack_cases.py FOLDER

FOLDER holds `ops/*.json.gz`: inputs, arguments, outputs and gradients of PyTorch 2.13's own sample inputs (its OpInfo
database, on the CPU), exact to the bit. Kept are the cases of all public operations whose tensors have at most
`ELEMENTS` elements together, and of each operation at least `LEAST`, the smallest. Written is

    cases/<family>.json.xz   {"tensors": [[dtype, shape, base64], ...], "ops": {name: {"meta", "cases", "errors"}}}

with tagged values as `reading.py` reads them; equal tensors share a row.
"""

from __future__ import annotations

import gzip
import json
import lzma
import sys
from collections import defaultdict
from math import prod
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ELEMENTS = 256
LEAST = 3
META = ("name", "tier", "method", "inplace", "grad_projection", "supports_gradgrad", "dtypes_cpu")
DROPPED = ("noise", "bound_by", "fragile_why", "args_repr")


def rows_of(value: Any, found: set[int]) -> set[int]:
    """The numbers of the tensor rows that a case refers to."""
    if isinstance(value, list):
        for item in value:
            rows_of(item, found)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in ("$tensor", "t") and isinstance(item, int):
                found.add(item)
            else:
                rows_of(item, found)
    return found


def case_rows(case: dict[str, Any]) -> set[int]:
    found = rows_of(case, set())
    found |= {row for row in case.get("cotangents", ()) if row is not None}
    return found | {row for _, row in case.get("grads", ()) if row is not None}


def moved(value: Any, to: dict[int, int]) -> Any:
    """A value with its rows renumbered."""
    if isinstance(value, list):
        return [moved(item, to) for item in value]
    if isinstance(value, dict):
        return {
            key: to[item] if key in ("$tensor", "t") and isinstance(item, int) else moved(item, to)
            for key, item in value.items()
        }
    return value


def moved_case(case: dict[str, Any], to: dict[int, int]) -> dict[str, Any]:
    made: dict[str, Any] = moved({key: item for key, item in case.items() if key not in DROPPED}, to)
    if "cotangents" in made:
        made["cotangents"] = [None if row is None else to[row] for row in case["cotangents"]]
    if "grads" in made:
        made["grads"] = [[k, None if row is None else to[row]] for k, row in case["grads"]]
    return made


def kept_cases(document: dict[str, Any]) -> list[dict[str, Any]]:
    sizes = [prod(shape) for _, shape, _ in document["tensors"]]
    weight = {id(case): sum(sizes[row] for row in case_rows(case)) for case in document["cases"]}
    smallest = sorted(document["cases"], key=lambda case: weight[id(case)])[:LEAST]
    least = {id(case) for case in smallest if weight[id(case)] <= 20 * ELEMENTS}
    return [case for case in document["cases"] if weight[id(case)] <= ELEMENTS or id(case) in least]


def main(folder: Path) -> None:
    families: dict[str, dict[str, Any]] = defaultdict(lambda: {"tensors": [], "ops": {}})
    known: dict[str, dict[str, int]] = defaultdict(dict)
    for path in sorted(folder.glob("ops/*.json.gz")):
        document = json.loads(gzip.decompress(path.read_bytes()))
        family = document["meta"]["family"]
        table, numbers = families[family]["tensors"], known[family]

        def place(row: int, document: Any = document, table: Any = table, numbers: Any = numbers) -> int:
            key = json.dumps(document["tensors"][row])
            if key not in numbers:
                numbers[key] = len(table)
                table.append(document["tensors"][row])
            return numbers[key]

        cases = kept_cases(document)
        errors = document["errors"]
        if not cases and not errors:
            continue
        to = {row: place(row) for case in (*cases, *errors) for row in sorted(case_rows(case))}
        families[family]["ops"][document["op"]] = {
            "meta": {key: document["meta"].get(key) for key in META},
            "cases": [moved_case(case, to) for case in cases],
            "errors": [moved_case(case, to) for case in errors],
        }
    for family, made in sorted(families.items()):
        name = family.replace(" ", "_").replace("/", "_").replace(".", "_")
        text = json.dumps(made, separators=(",", ":"), sort_keys=True).encode()
        packed = lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)
        (HERE / "cases" / f"{name}.json.xz").write_bytes(packed)
        print(f"{name}: {sum(len(op['cases']) for op in made['ops'].values())} cases, {len(packed)} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
