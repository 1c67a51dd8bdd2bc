"""What a fused kernel can compute: each function as array code, and as a C expression that says the same.

A function is found by the name that CuPy gives it. Its operands are cast to the dtype of its loop first, as CuPy's
ufuncs do. `ulps` says how far the two may be apart: 0 is the same bits; the others call the device's mathematical
library, which CuPy calls too, and on a host the C library's functions beside NumPy's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from engine.kernels import narrow_bfloat16

Array = Any

# Dtypes by code: NumPy's kind and size in bytes. float16 is kept as its bits: it is moved and cast, never computed in.
C_TYPES = {
    "b1": "bool",
    "i1": "signed char",
    "i2": "short",
    "i4": "int",
    "i8": "long long",
    "u1": "unsigned char",
    "u2": "unsigned short",
    "u4": "unsigned int",
    "u8": "unsigned long long",
    "f2": "unsigned short",
    "f4": "float",
    "f8": "double",
}

LIBRARY = 4  # units in the last place between two mathematical libraries
TAIL = 256  # for erfc, whose tail SciPy computes in float64 less exactly than C libraries do


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a chain.

    `float`, `whole`, `truth`: the C expressions for loops of these kinds, "" where there is no such loop. In them
    `{0}`, `{1}`, `{2}` are operands, `{f}` is "f" in float32, `{T}` the loop's type and `{U}` the unsigned one in
    which integers wrap around. `gives`: "same" as the loop, or "b1". `first`: the first operand's dtype where it is
    not the loop's ("b1"), "any" where it is taken as it is.
    """

    name: str
    arity: int
    float: str = ""
    whole: str = ""
    truth: str = ""
    gives: str = "same"
    first: str = ""
    ulps: int = 0

    def text(self, loop: str) -> str:
        """The C expression for a loop of this dtype; "" where there is none."""
        if loop == "f2":
            return self.float if self.name in _MOVES else ""
        kind = loop[0]
        return self.float if kind == "f" else self.truth if kind == "b" else self.whole


_MOVES = frozenset(("copy", "where", "fill"))


def _table() -> dict[str, Function]:
    rows = [
        Function("add", 2, "{0} + {1}", "({T})(({U}){0} + ({U}){1})", "{0} || {1}"),
        Function("subtract", 2, "{0} - {1}", "({T})(({U}){0} - ({U}){1})"),
        Function("multiply", 2, "{0} * {1}", "({T})(({U}){0} * ({U}){1})", "{0} && {1}"),
        Function("true_divide", 2, "{0} / {1}"),
        Function("negative", 1, "-{0}", "({T})(0 - ({U}){0})"),
        Function("absolute", 1, "fabs{f}({0})", "{0} < 0 ? ({T})(0 - ({U}){0}) : {0}", "{0}"),
        Function("square", 1, "{0} * {0}", "({T})(({U}){0} * ({U}){0})"),
        Function("reciprocal", 1, "1 / {0}"),
        Function("sqrt", 1, "sqrt{f}({0})"),
        *(Function(name, 1, name + "{f}({0})") for name in ("floor", "ceil", "trunc", "rint")),
        Function("maximum", 2, "larger({0}, {1})", "{0} > {1} ? {0} : {1}", "{0} || {1}"),
        Function("minimum", 2, "smaller({0}, {1})", "{0} < {1} ? {0} : {1}", "{0} && {1}"),
        Function("copysign", 2, "copysign{f}({0}, {1})"),
        Function("fmod", 2, "fmod{f}({0}, {1})"),
        # moved as they are
        Function("copy", 1, "{0}", "{0}", "{0}"),
        Function("where", 3, "{0} ? {1} : {2}", "{0} ? {1} : {2}", "{0} ? {1} : {2}", first="b1"),
        Function("fill", 2, "{1}", "{1}", "{1}", first="any"),
        Function("cast", 1, "", "", ""),
        Function("widen_bfloat16", 1, "from_bits((unsigned int){0} << 16)", first="u2"),
        Function("narrow_bfloat16", 1, "", "narrowed({0})", first="f4"),
        # questions
        *(
            Function(name, 2, f"{{0}} {sign} {{1}}", f"{{0}} {sign} {{1}}", f"{{0}} {sign} {{1}}", gives="b1")
            for name, sign in {
                "equal": "==",
                "not_equal": "!=",
                "less": "<",
                "less_equal": "<=",
                "greater": ">",
                "greater_equal": ">=",
            }.items()
        ),
        *(
            Function(name, 2, *(f"({{0}} != 0) {sign} ({{1}} != 0)",) * 3, gives="b1")
            for name, sign in {"logical_and": "&&", "logical_or": "||", "logical_xor": "!="}.items()
        ),
        Function("logical_not", 1, "{0} == 0", "{0} == 0", "!{0}", gives="b1"),
        Function("isnan", 1, "{0} != {0}", gives="b1"),
        Function("isfinite", 1, "{0} - {0} == 0", gives="b1"),
        Function("isinf", 1, "{0} == {0} && {0} - {0} != 0", gives="b1"),
        # bits
        Function("bitwise_and", 2, "", "({T})({0} & {1})", "{0} && {1}"),
        Function("bitwise_or", 2, "", "({T})({0} | {1})", "{0} || {1}"),
        Function("bitwise_xor", 2, "", "({T})({0} ^ {1})", "{0} != {1}"),
        Function("invert", 1, "", "({T})~{0}", "!{0}"),
        # the mathematical library
        *(
            Function(name, 1, f"{c or name}{{f}}({{0}})", ulps=LIBRARY)
            for name, c in {
                "exp": "",
                "exp2": "",
                "expm1": "",
                "log": "",
                "log1p": "",
                "log2": "",
                "log10": "",
                "sin": "",
                "cos": "",
                "tan": "",
                "sinh": "",
                "cosh": "",
                "tanh": "",
                "arcsin": "asin",
                "arccos": "acos",
                "arctan": "atan",
                "arcsinh": "asinh",
                "arccosh": "acosh",
                "arctanh": "atanh",
                "erf": "",
            }.items()
        ),
        Function("erfc", 1, "erfc{f}({0})", ulps=TAIL),
        Function("power", 2, "pow{f}({0}, {1})", ulps=LIBRARY),
        Function("arctan2", 2, "atan2{f}({0}, {1})", ulps=LIBRARY),
        Function("hypot", 2, "hypot{f}({0}, {1})", ulps=LIBRARY),
    ]
    return {row.name: row for row in rows}


FUNCTIONS = _table()
SPECIAL = frozenset(("erf", "erfc"))  # of `scipy.special`
# What NumPy's operators call otherwise.
OTHER_NAMES = {"divide": "true_divide", "positive": "copy", "conjugate": "copy", "abs": "absolute"}


def code_of(d: np.dtype[Any]) -> str:
    """The code of a dtype; "" where chains have none of it."""
    code = f"{d.kind}{d.itemsize}"
    return code if code in C_TYPES else ""


@cache
def dtype_of(code: str) -> np.dtype[Any]:
    """The dtype of a code."""
    return np.dtype(bool if code == "b1" else code)


def castable(source: str, target: str) -> bool:
    """Whether a cast means the same everywhere: floats that an integer cannot hold are undefined in C."""
    if source == target:
        return True
    if "f2" in (source, target):
        return {source, target} == {"f2", "f4"}
    return not (source[0] == "f" and target[0] in "iu")


def loop_of(name: str, operands: Sequence[Any], made: np.dtype[Any]) -> str:
    """The dtype in which CuPy computes a function of dtypes and Python scalars, its result being `made`.

    "" where a chain cannot say it.
    """
    function = FUNCTIONS.get(name)
    result = code_of(made)
    if function is None or not result:
        return ""
    arrays = [x for x in operands if isinstance(x, np.dtype)]
    codes = [code_of(x) for x in arrays]
    if not all(codes):
        return ""
    if name == "cast":
        return result if castable(codes[0], result) else ""
    if name in ("widen_bfloat16", "narrow_bfloat16"):
        return result
    if function.gives == "b1":
        loop = _joint(arrays, operands)
    else:
        loop = result
    if not loop or not function.text(loop):
        return ""
    for at, x in enumerate(operands):
        if at == 0 and function.first:
            if function.first != "any" and not (isinstance(x, np.dtype) and code_of(x) == function.first):
                return ""
        elif isinstance(x, np.dtype):
            if not np.can_cast(x, dtype_of(loop)):
                return ""
            if code_of(x) != loop and "f2" in (code_of(x), loop):
                return ""
        elif not _fits(x, loop):
            return ""
    return loop


def _joint(arrays: Sequence[np.dtype[Any]], operands: Sequence[Any]) -> str:
    """The dtype in which a question is asked: that of all arrays, which must be one, and hold the scalars."""
    if not arrays or any(x != arrays[0] for x in arrays):
        return ""
    code = code_of(arrays[0])
    return code if code != "f2" and all(isinstance(x, np.dtype) or _fits(x, code) for x in operands) else ""


def _fits(value: Any, loop: str) -> bool:
    """Whether a Python scalar is weak beside an array of this dtype, and exact where that is one of integers."""
    kind = type(value)
    if kind is bool:
        return loop[0] == "b"
    if kind is int:
        if loop[0] == "f":
            return loop != "f2"
        if loop[0] not in "iu":
            return False
        info = np.iinfo(dtype_of(loop))
        return bool(info.min <= value <= info.max)
    return kind is float and loop in ("f4", "f8")


def scalar(value: Any, code: str) -> Any:
    """A Python scalar as a NumPy one of this dtype, as CuPy casts it."""
    with np.errstate(all="ignore"):
        return dtype_of(code).type(value)


class Element:
    """A function of a chain on arrays of one module, in which each element of the result needs one of each operand.

    Called with an array more than it has operands, it writes there. `loop`: the dtype in which it computes, "" where
    no kernel can say it.
    """

    __slots__ = ("call", "loop", "name", "target")

    def __init__(self, name: str, call: Callable[..., Any], loop: str, made: np.dtype[Any]) -> None:
        self.name, self.call, self.loop, self.target = name, call, loop, made

    def __repr__(self) -> str:
        return f"Element({self.name!r}, {self.loop!r})"

    def __call__(self, *operands: Any) -> Any:
        return self.call(*operands)


def array_code(name: str, loop: str, xp: Any, sp: Any) -> Callable[..., Any]:
    """The function as a call on arrays of `xp`, in the loop of this dtype. (NumPy's own scalars count as arrays.)"""
    d = dtype_of(loop)
    if name == "cast":
        return lambda x: x.astype(d) if x.dtype.kind != "c" else x.real.astype(d)
    if name == "copy":
        return lambda x: x.copy()
    if name == "fill":
        return lambda like, value: xp.full((), value, dtype=d)
    if name == "where":
        return xp.where  # type: ignore[no-any-return]
    if name == "widen_bfloat16":
        return lambda x: (x.astype(np.uint32) << 16).view(np.float32)
    if name == "narrow_bfloat16":
        return lambda x: narrow_bfloat16(xp, x)
    if name in SPECIAL:
        return getattr(sp.special, name)  # type: ignore[no-any-return]
    return getattr(xp, name)  # type: ignore[no-any-return]


__all__ = [
    "C_TYPES",
    "FUNCTIONS",
    "OTHER_NAMES",
    "SPECIAL",
    "Element",
    "Function",
    "array_code",
    "castable",
    "code_of",
    "dtype_of",
    "loop_of",
    "scalar",
]
