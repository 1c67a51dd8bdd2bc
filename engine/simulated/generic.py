"""Functions of CuPy that nothing here is written for: held to CuPy's parameters, computed by NumPy or SciPy.

What `functions.OFFERED`, `routines.ROUTINES` and `linear.SCIPY` do not name is served here, by NumPy's or SciPy's
function of the same name. Names, parameters, and that no host value crosses, are held as strictly as everywhere;
dtypes and the last refusals are NumPy's: a function that the engine comes to lean on deserves a line in those tables.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from engine.simulated.array import deliver, host_of, ndarray, plain, quiet
from engine.simulated.functions import Function, rewrap
from engine.simulated.memory import supported
from engine.simulated.names import NotOffered, Parameters, parameters

# Of the top level and of `cupy.fft`: those that compute. The others read files, print, or compile kernels.
TOP_LEVEL = frozenset(
    [
        "histogram2d",
        "histogramdd",
        "poly",
        "polyadd",
        "polyfit",
        "polymul",
        "polysub",
        "polyval",
        "roots",
        "sort_complex",
    ]
)


class Generic:
    """Runs a function of NumPy or SciPy on the arrays under device arrays, wherever they stand in the arguments."""

    __slots__ = ("_by_position", "_signature", "_target")

    def __init__(self, signature: Parameters, target: Callable[..., Any]) -> None:
        self._signature, self._target = signature, target
        known = _parameter_names(target)
        # Names that only CuPy has go by position; so do those that come before them.
        last = max((i for i, name in enumerate(signature.positional) if name not in known), default=-1)
        self._by_position = signature.positional[: last + 1 if known else len(signature.positional)]

    def __call__(self, bound: dict[str, Any]) -> Any:
        where = self._signature.name
        sources: list[ndarray] = []
        out = None
        values: dict[str, Any] = {}
        for name, value in bound.items():
            if name in ("out", "output") and type(value) is ndarray:
                out = value
            elif name == "dtype":
                values[name] = None if value is None else supported(value)
            elif name == "*":
                values[name] = [_unwrap(where, item, sources) for item in value]
            else:
                values[name] = _unwrap(where, value, sources)
        leading: list[Any] = []
        for name in self._by_position:
            if name not in values:
                break
            leading.append(values.pop(name))
        rest = values.pop("*", ())
        result = quiet(self._target, (*leading, *rest), values)
        if out is not None:
            return deliver(where, np.asarray(result), out)
        return _rewrap(result, sources)


def _parameter_names(target: Callable[..., Any]) -> frozenset[str]:
    """The names that can be given as keywords; empty where nobody knows."""
    try:
        found = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return frozenset()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(p.name for p in found if p.kind in kinds)


def _unwrap(where: str, value: Any, sources: list[ndarray]) -> Any:
    """The argument for NumPy: device arrays unwrapped, also within tuples and lists; host values refused."""
    if type(value) is ndarray:
        sources.append(value)
        return host_of(where, value)
    if type(value) in (tuple, list):
        return type(value)(_unwrap(where, item, sources) for item in value)
    return plain(where, value)


def _rewrap(result: Any, sources: list[ndarray]) -> Any:
    """Arrays as device arrays, by `rewrap`; words as they are, and numbers where no array was among the arguments."""
    if isinstance(result, dict):
        return {key: _rewrap(item, sources) for key, item in result.items()}
    if isinstance(result, tuple | list):
        made = [_rewrap(item, sources) for item in result]
        return made if isinstance(result, list) else tuple(made)
    if result is None or isinstance(result, str | slice) or (not sources and isinstance(result, bool | int | float)):
        return result
    return rewrap(result, sources)


@cache
def generic(module: str, name: str) -> Function:
    """The function `name` of CuPy's `module`. KeyError where it computes nothing, or neither NumPy nor SciPy has it."""
    if module == "cupy" and name not in TOP_LEVEL:
        raise KeyError(name)
    host = "numpy" + module.removeprefix("cupy") if module.startswith("cupy.") else module.removeprefix("cupyx.")
    target = getattr(importlib.import_module("numpy" if module == "cupy" else host), name, None)
    if target is None:
        raise NotOffered(f"{module} has {name!r}, but the library underneath has not")
    signature = parameters(module, name)
    return Function(signature, Generic(signature, target), inspect.getdoc(target))
