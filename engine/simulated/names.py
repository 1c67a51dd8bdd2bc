"""What CuPy offers, as `scripts/cupy_names.py` read it off an installed one, and how a call is held to it.

`names.json` lists for each module of CuPy its functions with their parameters, its ufuncs with their type loops and
its other names, and for `cupy.ndarray` its methods, attributes and special methods.
"""

from __future__ import annotations

import ast
import json
from functools import cache
from pathlib import Path
from typing import Any

NAMES: dict[str, Any] = json.loads(Path(__file__).with_name("names.json").read_text(encoding="utf-8"))
VERSION: str = NAMES["cupy"]


class NotOffered(AttributeError):
    """CuPy has this, the stand-in does not (yet): add it to `engine/simulated/`, or do without."""


class Parameters:
    """The parameters of one CuPy function.

    `bind` does what Python does at a call, and nothing more: CuPy's names and order decide, never NumPy's.
    """

    __slots__ = ("allowed", "name", "only_positional", "positional", "required", "takes_any", "variadic")

    def __init__(self, name: str, text: str) -> None:
        arguments = ast.parse(f"def f({text}): ...").body[0].args  # type: ignore[attr-defined]
        names = [a.arg for a in arguments.posonlyargs + arguments.args]
        self.name = name
        self.positional: tuple[str, ...] = tuple(names)
        self.only_positional = len(arguments.posonlyargs)
        without_default = len(names) - len(arguments.defaults)
        self.required: tuple[str, ...] = tuple(names[:without_default]) + tuple(
            a.arg for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None
        )
        self.allowed = frozenset(names[self.only_positional :] + [a.arg for a in arguments.kwonlyargs])
        self.variadic: str | None = arguments.vararg.arg if arguments.vararg else None
        self.takes_any = arguments.kwarg is not None

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The given arguments by parameter name, defaults left out; the surplus positional ones under `*`.

        Raises TypeError for what CuPy would not take: the message names the function and the keyword.
        """
        bound = dict(zip(self.positional, args, strict=False))
        if len(args) > len(self.positional):
            if self.variadic is None:
                raise TypeError(f"{self.name}() takes at most {len(self.positional)} positional arguments")
            bound["*"] = args[len(self.positional) :]
        for name, value in kwargs.items():
            if name not in self.allowed and not self.takes_any:
                raise TypeError(f"{self.name}() takes no keyword {name!r}")
            if name in bound:
                raise TypeError(f"{self.name}() got two values for {name!r}")
            bound[name] = value
        for name in self.required:
            if name not in bound:
                raise TypeError(f"{self.name}() misses {name!r}")
        return bound


@cache
def parameters(module: str, function: str) -> Parameters:
    """The parameters of a function of a module of CuPy; KeyError if CuPy has no such function."""
    if module == "cupy.ndarray":
        return Parameters(f"{module}.{function}", NAMES["ndarray"]["methods"][function])
    return Parameters(f"{module}.{function}", NAMES["modules"][module]["functions"][function])


def kind_of(module: str, name: str) -> str | None:
    """ "function", "ufunc" or "other" as CuPy's `module` has it; None if it has no such name."""
    record = NAMES["modules"][module]
    if name in record["functions"]:
        return "function"
    if name in record["ufuncs"]:
        return "ufunc"
    return "other" if name in record["others"] else None
