"""The methods of the array that are functions with the array put first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.simulated.array import ndarray, record, recorder
from engine.simulated.names import parameters
from engine.simulated.routines import conj, flatten, partition_in_place, sort_in_place

# Method parameters that the function calls otherwise.
_RENAMED = {"clip": {"min": "a_min", "max": "a_max"}, "put": {"indices": "ind", "values": "v"}}
_FIRST = {"compress": "a"}

# fmt: off
_LIKE_FUNCTIONS = (
    "all", "any", "argmax", "argmin", "argpartition", "argsort", "choose", "clip", "compress", "cumprod", "cumsum",
    "diagonal", "dot", "max", "mean", "min", "nonzero", "prod", "ptp", "put", "ravel", "repeat", "round",
    "searchsorted", "squeeze", "std", "sum", "take", "trace", "var",
)
# fmt: on

_WRITTEN_OUT: dict[str, Callable[..., Any]] = {
    "conj": conj,
    "conjugate": conj,
    "flatten": flatten,
    "partition": partition_in_place,
    "sort": sort_in_place,
}


def add_methods(xp: Any) -> None:
    """Give the array class the methods that `names.json` lists and these functions can serve."""
    for name in _LIKE_FUNCTIONS:
        setattr(ndarray, name, _from_function(name, xp))
    for name, function in _WRITTEN_OUT.items():
        setattr(ndarray, name, _written_out(name, function))


def _from_function(name: str, xp: Any) -> Callable[..., Any]:
    signature = parameters("cupy.ndarray", name)
    renamed = _RENAMED.get(name, {})

    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(args, kwargs)
        if recorder.hook is not None:
            record(signature.name, (self, *args), kwargs)
        function = getattr(xp, name)
        named = {renamed.get(k, k): v for k, v in bound.items()}
        named[_FIRST.get(name, function.first)] = self
        return function.run(named)

    method.__name__ = name
    return method


def _written_out(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    signature = parameters("cupy.ndarray", name)

    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(args, kwargs)
        if recorder.hook is not None:
            record(signature.name, (self, *args), kwargs)
        return function(self, **bound)

    method.__name__, method.__doc__ = name, function.__doc__
    return method
