"""Read off an installed CuPy what it offers, and write it to `engine/simulated/names.json`.

    pip install 'cupy-cuda13x==14.*' && python scripts/cupy_names.py            # write the list
    python scripts/cupy_names.py --check                                        # exit 1 if the list differs

The strict stand-in (`engine.simulated`) refuses every name, keyword and type loop that is not in this list, so the
list must be CuPy's own word and not a memory of it. CuPy imports without a driver and without the CUDA libraries;
only `cupyx.scipy.linalg` and `.signal` need cuBLAS at import, so a library that cannot be loaded is replaced by an
empty module first: no function is called here, only looked at.

Where each fact comes from:
- Python functions: `inspect.signature`. A trailing `**kwargs` is replaced by the names the body takes out of it.
- Compiled functions and methods: the signature that Cython embeds as the first line of the docstring.
- ufuncs: `ufunc._ops`, the table CuPy itself searches: loops in order, those that exist only to raise an error,
  the loops used when `dtype=` is given, and whether Python integers are promoted first (comparisons).
- Functions that only wrap a private ufunc (`where`, `clip`, `angle`, `round`): that ufunc.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import re
import sys
import textwrap
import types
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent.parent / "engine" / "simulated" / "names.json"

MODULES = (
    "cupy",
    "cupy.fft",
    "cupy.lib.stride_tricks",
    "cupy.linalg",
    "cupyx",
    "cupyx.scipy.fft",
    "cupyx.scipy.linalg",
    "cupyx.scipy.ndimage",
    "cupyx.scipy.signal",
    "cupyx.scipy.signal.windows",
    "cupyx.scipy.special",
)

# Public functions that hand their operands to a ufunc without a public name.
HELPERS = {
    "angle": ("cupy._core._routines_math", "angle"),
    "angle_deg": ("cupy._core._routines_math", "angle_deg"),
    "clip": ("cupy._core._routines_math", "clip"),
    "round": ("cupy._core.core", "_round_ufunc"),
    "where": ("cupy._sorting.search", "_where_ufunc"),
}

LIBRARIES = ("cublas", "cusolver", "cusparse", "curand", "cutensor", "cusparselt", "nccl")


class _Absent(types.ModuleType):
    """Stands for a CUDA library that this machine lacks; every constant in it is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def replace_missing_libraries() -> None:
    """Put an empty module in place of each CUDA library that cannot be loaded."""
    libs = importlib.import_module("cupy_backends.cuda.libs")
    for library in LIBRARIES:
        try:
            getattr(libs, library)
        except ImportError:
            absent = _Absent(f"cupy_backends.cuda.libs.{library}")
            sys.modules[absent.__name__] = absent
            setattr(libs, library, absent)


def keywords_taken(function: Any) -> list[str]:
    """The names that a function takes out of its `**kwargs` by `pop` or `get`, in order of appearance."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    names: list[str] = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="kwargs"), attr="pop" | "get"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                names.append(name)
    return sorted(set(names))


def default_text(value: Any) -> str:
    """A default value as text that parses as Python: only its presence matters to the stand-in."""
    if isinstance(value, type):
        return value.__name__
    text = repr(value)
    try:
        ast.parse(text, mode="eval")
    except SyntaxError:
        return "..."
    return text


def signature_text(function: Any) -> str | None:
    """`a, axis=None, *, dtype=None` for a function or method; None when it has no signature to read."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return embedded_signature(function)
    parts: list[str] = []
    previous: Any = None
    starred = False
    for parameter in signature.parameters.values():
        kind = parameter.kind
        if previous is parameter.POSITIONAL_ONLY and kind is not previous:
            parts.append("/")
        if kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        previous = kind
        if kind is parameter.VAR_POSITIONAL:
            parts.append(f"*{parameter.name}")
            starred = True
        elif kind is parameter.VAR_KEYWORD:
            taken = keywords_taken(function)
            if taken and not starred:
                parts.append("*")
            parts.extend(f"{name}=..." for name in taken)
            if not taken:
                parts.append(f"**{parameter.name}")
        elif parameter.default is parameter.empty:
            parts.append(parameter.name)
        else:
            parts.append(f"{parameter.name}={default_text(parameter.default)}")
    if previous is inspect.Parameter.POSITIONAL_ONLY:
        parts.append("/")
    return ", ".join(parts)


def embedded_signature(function: Any) -> str | None:
    """The signature Cython writes into the docstring, without types: `_ndarray_base.sort(self, int axis=-1)`."""
    first = (getattr(function, "__doc__", None) or "").strip().split("\n", 1)[0]
    found = re.match(r"[\w.]+\((.*?)\)(?: ->.*)?$", first)
    if found is None:
        return None
    parts: list[str] = []
    for text in filter(None, (part.strip() for part in found[1].split(","))):
        name, _, default = text.partition("=")
        if default:
            parts.append(f"{name.split()[-1]}={default.strip()}")
        else:
            parts.append(name.split()[-1])
    return ", ".join(parts)


def loop_text(op: Any) -> str:
    """`ff->f`: types by NumPy's characters."""
    return "".join(t.char for t in op.in_types) + "->" + "".join(t.char for t in op.out_types)


def ufunc_record(ufunc: Any) -> dict[str, Any]:
    """What decides a call of this ufunc: loops in the order CuPy tries them, and its special rules."""
    ops = ufunc._ops
    record: dict[str, Any] = {
        "nin": ufunc.nin,
        "nout": ufunc.nout,
        # V stands for structured types, which the engine has none of.
        "loops": [loop for loop in map(loop_text, ops.ops) if "V" not in loop],
    }
    refused = [loop_text(op) for op in ops.ops if op.error_func is not None]
    if refused:
        record["refused"] = refused
    if ufunc._out_ops is not None:
        record["with_dtype"] = [loop_text(op) for op in ufunc._out_ops.ops]
    if ops.promote_types is not None:
        assert ops.promote_types.__name__ == "promote_weak_int", ops.promote_types
        record["promotes_int"] = True
    if ufunc._scatter_op is not None:
        record["at"] = ufunc._scatter_op
    return record


def module_record(name: str) -> dict[str, Any]:
    """Functions with signatures, ufuncs with loops, and the other public names of a module."""
    import cupy

    module = importlib.import_module(name)
    functions: dict[str, str | None] = {}
    ufuncs: dict[str, Any] = {}
    others: list[str] = []
    for public in sorted(dir(module)):
        if public.startswith("_") or public == "annotations":  # the latter is what `from __future__` leaves behind
            continue
        value = getattr(module, public)
        if isinstance(value, cupy.ufunc):
            ufuncs[public] = ufunc_record(value)
        elif isinstance(value, types.ModuleType | type) or not callable(value):
            others.append(public)
        else:
            functions[public] = signature_text(value)
    return {"functions": functions, "ufuncs": ufuncs, "others": others}


def ndarray_record() -> dict[str, Any]:
    """Methods with signatures (without `self`), attributes, and the special methods that make operators work."""
    import cupy

    methods: dict[str, str | None] = {}
    attributes: list[str] = []
    for name in sorted(dir(cupy.ndarray)):
        value = inspect.getattr_static(cupy.ndarray, name)
        if name.startswith("_"):
            continue
        if callable(value):
            text = signature_text(value)
            methods[name] = None if text is None else re.sub(r"^self(, )?", "", text)
        else:
            attributes.append(name)
    own = {name for cls in cupy.ndarray.__mro__[:-1] for name in vars(cls)}
    special = sorted(name for name in own if name.startswith("__") and name.endswith("__"))
    return {"methods": methods, "attributes": attributes, "special": special}


def read() -> dict[str, Any]:
    """Everything the stand-in holds itself to, read off the CuPy of this interpreter."""
    import cupy

    replace_missing_libraries()
    return {
        "cupy": cupy.__version__,
        "modules": {name: module_record(name) for name in MODULES},
        "helpers": {
            name: ufunc_record(getattr(importlib.import_module(module), attribute))
            for name, (module, attribute) in sorted(HELPERS.items())
        },
        "ndarray": ndarray_record(),
    }


def to_text(names: dict[str, Any]) -> str:
    """JSON with one name a line, so that a new CuPy release shows as a readable difference."""
    text = json.dumps(names, indent=1, sort_keys=True)
    # Inner lists of loops and names are joined to lines of their own: a thousand lines instead of six.
    joined = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: "[" + re.sub(r",\s+", ", ", m[1]) + "]", text)
    return joined + "\n"


def main() -> int:
    """Write the list, or compare it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="compare with the checked-in list instead of writing it")
    arguments = parser.parse_args()
    text = to_text(read())
    if not arguments.check:
        TARGET.write_text(text)
        return 0
    if TARGET.read_text() == text:
        return 0
    print(f"{TARGET} is not what the installed CuPy offers; run {Path(__file__).name} without --check", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
