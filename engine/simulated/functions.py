"""CuPy's functions, handed to NumPy: the call is held to CuPy's parameters, unwrapped, computed and wrapped again.

`OFFERED` has a line for each: which parameters take arrays, and how. Everything not named in it takes plain Python
values, and a device array there is refused, as CuPy would. A function that needs more than that is written out in
`routines.py` or `linear.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from engine.simulated.array import (
    adopt,
    deliver,
    host_of,
    ndarray,
    plain,
    quiet,
    record,
    recorder,
    scalar_or_host,
    wrap,
)
from engine.simulated.memory import Host, root, supported
from engine.simulated.names import Parameters, parameters

# A: a device array. N: a device array or None. V: a device array or a Python scalar. X: a device array or anything
# plain. S: a list or tuple of device arrays. O: the output. "*" stands for the surplus positional arguments. The first
# parameter is an A unless the line says otherwise; "-" makes it a plain one.
OFFERED = """
all               out:O
allclose          a:V b:V
amax              out:O
amin              out:O
any               out:O
append            values:A
arange            start:-
argmax            out:O
argmin            out:O
argwhere
array_equal       a2:A
array_equiv       a2:A
array_split
atleast_1d        *:S
atleast_2d        *:S
atleast_3d        *:S
average           weights:N
bartlett          M:-
bincount          weights:N
blackman          M:-
broadcast_shapes  *:-
broadcast_to
choose            choices:A out:O
column_stack      tup:S
compress          a:A out:O
concat            tup:S out:O
concatenate       tup:S out:O
convolve          v:A
corrcoef          y:N
correlate         v:A
count_nonzero
cov               y:N fweights:N aweights:N
cross             b:A
cumprod           out:O
cumsum            out:O
cumulative_prod   out:O
cumulative_sum    out:O
delete            indices:X
diag_indices      n:-
diag_indices_from
diagflat
diagonal
diff              prepend:V append:V
digitize          bins:A
dot               b:A out:O
dsplit
dstack            tup:S
ediff1d           to_end:N to_begin:N
expand_dims
extract           a:A
eye               N:-
flatnonzero
flip
fliplr
flipud
gradient          *:V
hamming           M:-
hanning           M:-
histogram         bins:X weights:N
hsplit
hstack            tup:S
identity          n:-
indices           dimensions:-
inner             b:A
interp            xp:A fp:A
intersect1d       arr2:A
iscomplex
isclose           a:V b:V
isin              test_elements:A
isneginf          out:O
isposinf          out:O
isreal
ix_               *:S
kaiser            M:-
kron              b:A
lexsort
linspace          start:V stop:V
logspace          start:V stop:V
matrix_transpose
max               out:O
mean              out:O
median            out:O
meshgrid          *:S
min               out:O
moveaxis
nanargmax         out:O
nanargmin         out:O
nancumprod        out:O
nancumsum         out:O
nanmax            out:O
nanmean           out:O
nanmedian         out:O
nanmin            out:O
nanprod           out:O
nanstd            out:O
nansum            out:O
nanvar            out:O
nan_to_num
nonzero
ones              shape:-
outer             b:A out:O
packbits
pad
percentile        q:X out:O
permute_dims
prod              out:O
ptp               out:O
quantile          q:X out:O
ravel_multi_index multi_index:S
real_if_close
repeat            repeats:X
resize
roll
rollaxis
rot90
searchsorted      v:V sorter:N
select            condlist:S choicelist:S default:V
setdiff1d         ar2:A
setxor1d          ar2:A
split
squeeze
stack             tup:S out:O
std               out:O
sum               out:O
swapaxes
tensordot         b:A
tile
trace             out:O
transpose
trapezoid         x:N
tri               N:-
tril
tril_indices      n:-
tril_indices_from
trim_zeros
triu
triu_indices      n:-
triu_indices_from
union1d           arr2:A
unique
unique_all
unique_counts
unique_inverse
unique_values
unpackbits
unravel_index
unwrap
vander
var               out:O
vdot              b:A
vsplit
vstack            tup:S
zeros             shape:-
"""

# NumPy's word for a parameter of CuPy's; the first ones are passed by position and need no word.
RENAMED = {
    "delete": {"indices": "obj"},
    "ediff1d": {"arr": "ary"},
    "unravel_index": {"dims": "shape"},
}
# How many leading parameters NumPy takes by position only, where it is not one.
BY_POSITION = {
    "arange": 3,
    "dot": 2,
    "extract": 2,
    "inner": 2,
    "intersect1d": 2,
    "union1d": 2,
    "vdot": 2,
}
# Defaults of CuPy that NumPy does not share.
DEFAULTS = {"ravel_multi_index": {"mode": "wrap"}}
# Results that are Python values in CuPy too.
HOST_RESULTS = frozenset({"broadcast_shapes"})

Before = Callable[[dict[str, Any]], dict[str, Any]]


def table(text: str) -> dict[str, dict[str, str]]:
    """Kinds by function and parameter from lines like `OFFERED`'s."""
    lines = [line.split() for line in text.strip().splitlines()]
    return {name: dict(part.split(":") for part in parts) for name, *parts in lines}


class Function:
    """A function of CuPy: binds as CuPy would, tells the recorder, runs."""

    def __init__(self, signature: Parameters, run: Callable[[dict[str, Any]], Any], doc: str | None = None) -> None:
        self._parameters, self._run = signature, run
        self.__name__ = signature.name.rpartition(".")[2]
        self.__doc__ = doc

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = self._parameters.bind(args, kwargs)
        if recorder.hook is not None:
            record(self._parameters.name, args, kwargs)
        return self._run(bound)

    def __repr__(self) -> str:
        return f"<function {self._parameters.name} of the stand-in>"

    def run(self, bound: dict[str, Any]) -> Any:
        """The work alone, for methods, which have been recorded as themselves."""
        return self._run(bound)

    @property
    def first(self) -> str:
        """The name of the first parameter: what a method gives itself as."""
        return self._parameters.positional[0]


class Delegate:
    """What runs a function by NumPy's (or SciPy's) function of the same meaning."""

    __slots__ = ("_before", "_by_position", "_defaults", "_host", "_kinds", "_names", "_signature", "_target")

    def __init__(
        self,
        signature: Parameters,
        target: Callable[..., Any],
        kinds: Mapping[str, str],
        *,
        renamed: Mapping[str, str] | None = None,
        by_position: int = 1,
        defaults: Mapping[str, Any] | None = None,
        host: bool = False,
        before: Before | None = None,
    ) -> None:
        self._signature, self._target, self._host, self._before = signature, target, host, before
        self._kinds = dict(kinds)
        if signature.positional:
            self._kinds.setdefault(signature.positional[0], "A")
        self._names = renamed or {}
        self._by_position = signature.positional[:by_position]
        self._defaults = defaults or {}

    def __call__(self, bound: dict[str, Any]) -> Any:
        where = self._signature.name
        if self._before is not None:
            bound = self._before(bound)
        if self._defaults:
            bound = {**self._defaults, **bound}
        sources: list[ndarray] = []
        out = None
        values: dict[str, Any] = {}
        for name, value in bound.items():
            kind = self._kinds.get(name, "-")
            if kind == "O":
                out = value
            elif name == "dtype":
                values[name] = None if value is None else supported(value)
            elif name == "*":
                each = "A" if kind == "S" else kind
                values[name] = [unwrap(where, each, item, sources) for item in value]
            else:
                values[name] = unwrap(where, kind, value, sources)
        leading = [values.pop(name) for name in self._by_position if name in values]
        rest = values.pop("*", ())
        named = {self._names.get(name, name): value for name, value in values.items()}
        result = quiet(self._target, (*leading, *rest), named)
        if self._host:
            return result
        if out is not None:
            return deliver(where, np.asarray(result), out)
        return rewrap(result, sources)


def unwrap(where: str, kind: str, value: Any, sources: list[ndarray]) -> Any:
    """A value for NumPy by the kind of its parameter; the device arrays in it are added to `sources`."""
    if kind == "A" or (kind == "X" and type(value) is ndarray):
        array = host_of(where, value)
        sources.append(value)
        return array
    if kind == "V" or kind == "N":
        if value is None:
            return None
        result = scalar_or_host(where, value) if kind == "V" else host_of(where, value)
        if type(value) is ndarray:
            sources.append(value)
        return result
    if kind == "S":
        if type(value) is ndarray or not isinstance(value, tuple | list):
            raise TypeError(f"{where}: a tuple or list of device arrays is needed, not {type(value).__name__}")
        sources.extend(item for item in value if type(item) is ndarray)
        return tuple(host_of(where, item) for item in value)
    return plain(where, value)


def rewrap(result: Any, sources: list[ndarray]) -> Any:
    """What NumPy returned as CuPy would: scalars as 0-d arrays, named tuples as tuples, new memory in C order."""
    if isinstance(result, np.ndarray):
        supported(result.dtype)
        return adopt(_own_in_c_order(result, sources), sources)
    if isinstance(result, tuple):
        return tuple(rewrap(item, sources) for item in result)
    if isinstance(result, list):
        return [rewrap(item, sources) for item in result]
    if result is None:
        return None
    return wrap(np.asarray(result))


def _own_in_c_order(result: Host, sources: list[ndarray]) -> Host:
    """A new result in C order (NumPy likes to keep its inputs' order, CuPy does not); a view as it is."""
    if result.flags.c_contiguous and result.flags.writeable:
        return result
    if any(result is source._array for source in sources):
        return result
    owner = root(result) if result.base is not None else result
    if any(root(source._array) is owner for source in sources):
        if not result.flags.writeable and owner.flags.writeable and 0 not in result.strides:
            result.flags.writeable = True  # np.diagonal protects its view, CuPy does not
        return result
    return np.array(result, order="C")


# ---------------------------------------------------------------- what CuPy does not take


def _refuse(parameter: str, allowed: tuple[Any, ...], why: str) -> Before:
    def before(bound: dict[str, Any]) -> dict[str, Any]:
        if parameter in bound:
            bound = dict(bound)
            if (value := bound.pop(parameter)) not in allowed:
                raise NotImplementedError(f"{parameter}={value!r}: {why}")
        return bound

    return before


def _method_known(bound: dict[str, Any]) -> dict[str, Any]:
    if bound.get("method", "linear") not in ("linear", "lower", "higher", "midpoint", "nearest"):
        raise ValueError(f"{bound['method']!r} method is not yet supported")
    return bound


def _nonzero_needs_an_axis(bound: dict[str, Any]) -> dict[str, Any]:
    if type(bound["a"]) is ndarray and bound["a"].ndim == 0:
        raise ValueError("Calling nonzero on 0d arrays is not allowed. Use cp.atleast_1d(scalar).nonzero() instead.")
    return bound


def _no_sum_over_nothing(bound: dict[str, Any]) -> dict[str, Any]:
    # cupy.inner divides by the length of the summed axis.
    if any(type(bound[n]) is ndarray and 0 in bound[n].shape for n in "ab"):
        raise ZeroDivisionError("cupy.inner of an empty array")
    return bound


def _interp_contiguous(bound: dict[str, Any]) -> dict[str, Any]:
    if type(bound["x"]) is ndarray and not bound["x"].flags.c_contiguous:
        raise NotImplementedError("Non-C-contiguous x is currently not supported")
    return bound


def _dot_out_contiguous(bound: dict[str, Any]) -> dict[str, Any]:
    out = bound.get("out")
    if type(out) is ndarray and not out.flags.c_contiguous:
        raise ValueError("Output array must be C-contiguous")
    return bound


def _one_dimension_flips_only(bound: dict[str, Any]) -> dict[str, Any]:
    if type(bound["filt"]) is ndarray and bound["filt"].ndim > 1:
        raise NotImplementedError("Multi-dimensional trim is not supported")
    return bound


def _integer_or_array_bins(bound: dict[str, Any]) -> dict[str, Any]:
    if isinstance(bound.get("bins"), str):
        raise NotImplementedError("only integer and array bins are implemented")
    if type(bound["x"]) is ndarray and bound["x"].dtype.kind == "c":
        raise NotImplementedError("complex number is not supported")
    return bound


def _vectors(bound: dict[str, Any]) -> dict[str, Any]:
    if any(type(x) is ndarray and x.ndim != 1 for x in bound.get("*", ())):
        raise ValueError("input has to be 1d")
    return bound


def _up_to_two_axes(bound: dict[str, Any]) -> dict[str, Any]:
    if type(bound["keys"]) is ndarray and bound["keys"].ndim > 2:
        raise NotImplementedError("Keys with the rank of three or more is not supported in lexsort")
    return bound


def _minlength(bound: dict[str, Any]) -> dict[str, Any]:
    x = bound["x"]
    if type(x) is ndarray and x.dtype.kind == "f":
        raise TypeError("x must be int array")
    return {**bound, "minlength": bound.get("minlength") or 0}


_WIDER = "CuPy has it, the stand-in does not"

BEFORE: dict[str, Before] = {
    "argmax": _refuse("dtype", (None,), _WIDER),
    "argmin": _refuse("dtype", (None,), _WIDER),
    "bincount": _minlength,
    "corrcoef": _refuse("bias", (None,), "ignored since NumPy 1.10"),
    "dot": _dot_out_contiguous,
    "histogram": _integer_or_array_bins,
    "inner": _no_sum_over_nothing,
    "interp": _interp_contiguous,
    "lexsort": _up_to_two_axes,
    "meshgrid": _vectors,
    "nanargmax": _refuse("dtype", (None,), _WIDER),
    "nanargmin": _refuse("dtype", (None,), _WIDER),
    "nonzero": _nonzero_needs_an_axis,
    "packbits": _refuse("axis", (None,), "axis option is not supported yet"),
    "percentile": _method_known,
    "quantile": _method_known,
    "trim_zeros": _one_dimension_flips_only,
    "unpackbits": _refuse("axis", (None,), "axis option is not supported yet"),
}

TABLE = table(OFFERED)


def delegate(name: str) -> Function:
    """The function `name` of the top-level module; KeyError if it is not in the table."""
    kinds, signature = TABLE[name], parameters("cupy", name)
    run = Delegate(
        signature,
        getattr(np, name),
        kinds,
        renamed=RENAMED.get(name),
        by_position=BY_POSITION.get(name, 1),
        defaults=DEFAULTS.get(name),
        host=name in HOST_RESULTS,
        before=BEFORE.get(name),
    )
    return Function(signature, run)
