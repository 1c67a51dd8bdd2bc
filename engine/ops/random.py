"""Random numbers from the session's generator: PyTorch's CPU stream, and on devices that of engine.random.philox.

The draws are made in memory order: a transposed tensor is filled as PyTorch fills it. Nothing is drawn for an empty
tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.carriers import K
from engine.declare import Array, Declared, Device, DTypeArg, Scalar, Shape, op
from engine.dtypes import BOOL, C_NAMES, COMPLEX, FLOAT, INT, DType, bfloat16, f32_to_bf16, int64, scalar_type
from engine.errors import DtypeMismatch, Invalid, MissingParameter, ShapeMismatch, UnknownParameter, WrongType
from engine.metas import as_dtype, sized
from engine.op import Spec
from engine.ops.common import fitting, laid_out, memory_order, not_implemented, publish_inplace
from engine.samples import I, S, T
from engine.shapes import broadcast_two, check_size, text

# ---------------------------------------------------------------- from the stream to arrays


def stored(k: K, values: Any, d: DType) -> Any:
    """Draws, on the host or the device, as they are stored: bfloat16 comes from the generator as float32."""
    if d is not bfloat16:
        return values.astype(d.np, copy=False)
    return f32_to_bf16(values) if type(values) is np.ndarray else k.backend.narrow_bfloat16(values)


def _made(k: K, values: Any) -> Any:
    """Draws as a new array of `k.spec`."""
    return k.from_host(stored(k, values, k.spec.dtype)).reshape(k.spec.shape)


def _filled(k: K, values: Any, input: Any) -> Any:
    """Draws, in memory order, as an array in the layout of `input`."""
    return laid_out(k, stored(k, values, k.spec.dtype), input)


def _like_memory(x: Any, layout: Any) -> Any:
    """A host array's elements in the order in which `layout` has them in memory."""
    return x.transpose(memory_order(layout)).reshape(-1)


def _host(k: K, x: Any, d: DType) -> Any:
    """A stored operand on the host, bfloat16 widened."""
    array = k.backend.to_host(x)
    return (array.astype(np.uint32) << np.uint32(16)).view(np.float32) if d is bfloat16 else array


_BOUNDS = "check_uniform_bounds"  # which PyTorch asks of every dtype, even where there is nothing to draw


def _need_float(kernel: str, d: DType, *, complex_: bool = True, numel: int = 1) -> None:
    if not numel and kernel != _BOUNDS:
        return
    if d.category < FLOAT or (d.category == COMPLEX and not complex_):
        raise not_implemented(kernel, d)


_FACTORY = [S([2, 3]), S([]), S([0, 2]), S([17], dtype="float64"), S([2], dtype="bfloat16")]

# ---------------------------------------------------------------- factories


def _rand_meta(k: K, size: Any, dtype: Any = None, *rest: Any) -> Spec:
    made = sized(k, size, dtype)
    _need_float(_BOUNDS, made.dtype)
    return made


@op(family="random", meta=_rand_meta, vjp=None, random=True, moves=True, samples=_FACTORY)
def rand(
    k: K,
    size: Shape,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Numbers from [0, 1), all equally likely."""
    return _made(k, k.rng.rand(k.spec.numel, k.spec.dtype.name))


def _randn_meta(k: K, size: Any, dtype: Any = None, *rest: Any) -> Spec:
    made = sized(k, size, dtype)
    _need_float("normal_kernel_cpu", made.dtype, numel=made.numel)
    return made


@op(family="random", meta=_randn_meta, vjp=None, random=True, moves=True, samples=_FACTORY)
def randn(
    k: K,
    size: Shape,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Normal numbers with mean 0 and variance 1; of complex ones, the parts together have that variance."""
    return _made(k, k.rng.normal(k.spec.numel, k.spec.dtype.name))


def _check_range(low: Any, high: Any, d: DType) -> None:
    if low is not None and high is not None and low >= high:
        raise Invalid(
            f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}",
            code="empty-range",
            param="high",
        )
    if d.category == COMPLEX:
        raise DtypeMismatch("check_random_bounds handles only integral, floating-point and boolean types")
    if d.category <= INT:
        least = 0 if d.name in ("bool", "uint8") else -(1 << (8 * d.itemsize - 1))
        most = 1 if d.category == BOOL else (1 << (8 * d.itemsize - (d.name != "uint8"))) - 1
        if low is not None and not least <= low <= most:
            raise Invalid(f"from is out of bounds for {C_NAMES[d.name]}", code="bound-overflow", param="low")
        if high is not None and not least <= high - 1 <= most:
            raise Invalid(f"to - 1 is out of bounds for {C_NAMES[d.name]}", code="bound-overflow", param="high")


def _randint_meta(k: K, low: int = 0, high: Any = None, size: Any = None, dtype: Any = None, *rest: Any) -> Spec:
    for value, name in ((high, "high"), (size, "size")):
        if value is None:
            raise MissingParameter(f'randint() missing 1 required positional arguments: "{name}"', param=name)
    d = as_dtype(dtype) or int64
    _check_range(low, high, d)
    return sized(k, size, d)


@op(
    family="random",
    meta=_randint_meta,
    vjp=None,
    random=True,
    moves=True,
    example={"high": 10, "size": [2, 3]},
    samples=[S(0, 10, [2, 3]), S(-5, 5, []), S(0, 2, [0]), S(0, 7, [4], dtype="float32")],
)
def randint(
    k: K,
    low: int = 0,
    high: int | None = None,
    size: Shape | None = None,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Whole numbers from [low, high), all equally likely."""
    return _made(k, k.rng.randint(k.spec.numel, low, high, k.spec.dtype.name))


# Up to here PyTorch lets a permutation go in the floating dtypes: all numbers below are exact.
_LONGEST = {"float16": 2**11 + 1, "float32": 2**24 + 1, "float64": 2**53 + 1}


def _randperm_meta(k: K, n: int, dtype: Any = None, *rest: Any) -> Spec:
    d = as_dtype(dtype) or int64
    check_size((n,))
    if d.category in (BOOL, COMPLEX):
        raise not_implemented("randperm", d)
    if n > _LONGEST.get(d.name, n):
        raise ShapeMismatch(f"n cannot be greater than {_LONGEST[d.name]} for {scalar_type(d)} type.", param="n")
    if d.category == INT:
        fitting(n, d, "n")
    return Spec((n,), d)


@op(
    family="random",
    meta=_randperm_meta,
    vjp=None,
    random=True,
    moves=True,
    samples=[S(5), S(0), S(1), S(4, dtype="float32")],
)
def randperm(
    k: K,
    n: int,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """The numbers 0 to n - 1 in random order."""
    d = k.spec.dtype
    values = k.rng.randperm(n)
    return _made(k, values.astype(np.float32) if d is bfloat16 else values)


# ---------------------------------------------------------------- like another tensor


def _like_meta(kernel: str) -> Any:
    def meta(k: K, input: Any, dtype: Any = None, *rest: Any) -> Spec:
        d = as_dtype(dtype) or input.dtype
        _need_float(kernel, d, numel=input.numel)
        return Spec(input.shape, d)

    return meta


_LIKE = [S(T(2, 3)), S(T()), S(T(0, 2)), S(T(2), dtype="float64"), S(I(3), dtype="float32")]


@op(family="random", meta=_like_meta(_BOUNDS), vjp=None, random=True, moves=True, samples=_LIKE)
def rand_like(
    k: K,
    input: Array,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Numbers from [0, 1), in the shape, dtype and layout of `input`."""
    return _filled(k, k.rng.rand(k.spec.numel, k.spec.dtype.name), input)


@op(family="random", meta=_like_meta("normal_kernel_cpu"), vjp=None, random=True, moves=True, samples=_LIKE)
def randn_like(
    k: K,
    input: Array,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Normal numbers, in the shape, dtype and layout of `input`."""
    row_major = list(memory_order(input)) == list(range(input.ndim))  # of the result, which has no gaps
    return _filled(k, k.rng.normal(k.spec.numel, k.spec.dtype.name, contiguous=row_major), input)


def _randint_like_meta(k: K, input: Any, low: int = 0, high: Any = None, dtype: Any = None, *rest: Any) -> Spec:
    if high is None:
        raise MissingParameter('randint_like() missing 1 required positional arguments: "high"', param="high")
    d = as_dtype(dtype) or input.dtype
    _check_range(low, high, d)
    return Spec(input.shape, d)


@op(
    family="random",
    meta=_randint_like_meta,
    vjp=None,
    random=True,
    moves=True,
    example={"input": [[1.5, 2.5]], "high": 10},
    samples=[S(T(2, 3), 0, 10), S(I(3), -2, 5), S(T(0, 2), 0, 2)],
)
def randint_like(
    k: K,
    input: Array,
    low: int = 0,
    high: int | None = None,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Whole numbers from [low, high), in the shape, dtype and layout of `input`."""
    return _filled(k, k.rng.randint(k.spec.numel, low, high, k.spec.dtype.name), input)


# ---------------------------------------------------------------- from distributions with tensors as parameters


def _normal_meta(k: K, mean: Any, std: Any = 1.0, size: Any = None, dtype: Any = None, *rest: Any) -> Spec:
    if type(mean) is complex:
        raise WrongType("normal(): argument 'mean' must be float, not complex", param="mean")
    if type(std) is Spec:
        if std.dtype.is_complex:
            raise DtypeMismatch("normal expects standard deviation to be non-complex", param="std")
    elif type(std) is complex:
        raise WrongType("normal(): argument 'std' must be float, not complex", param="std")
    elif not std >= 0:
        raise Invalid(f"normal expects std >= 0.0, but found std {std:g}", param="std")
    given = [x for x in (mean, std) if type(x) is Spec]
    if given and size is not None and not any(x.ndim for x in given):
        made = sized(k, size, dtype)  # they are numbers then
    elif given and (size is not None or dtype is not None):
        more = "size" if size is not None else "dtype"
        raise UnknownParameter(
            f"normal() received an invalid combination of arguments: {more} is for a mean and a std that are numbers",
            param=more,
        )
    elif not given:
        if size is None:
            raise MissingParameter('normal() missing 1 required positional arguments: "size"', param="size")
        made = sized(k, size, dtype)
    else:
        shape: tuple[int, ...] = ()
        for x in given:
            shape = broadcast_two(shape, x.shape)
        made = Spec(shape, given[0].dtype)
    _need_float("normal_kernel_cpu", made.dtype, numel=made.numel)
    return made


@op(
    family="random",
    meta=_normal_meta,
    random=True,
    node="NormalBackward1",
    example={"mean": [1.5, 2.5], "std": 0.5},
    samples=[
        S(T(2, 3), T(2, 3, low=0.1), gradcheck=False),  # random: no two calls agree
        S(T(2, 3), 0.5, gradcheck=False),
        S(1.0, T(3, low=0.1), gradcheck=False),
        S(1.0, 0.5, [2, 3]),
        S(T(0, 2), 1.0, gradcheck=False),
    ],
)
def normal(
    k: K,
    mean: Array | Scalar,
    std: Array | Scalar = 1.0,
    size: Shape | None = None,
    dtype: DTypeArg | None = None,
    device: Device | None = None,
    requires_grad: bool = False,
) -> Array:
    """Normal numbers, each with its mean and standard deviation: tensors that broadcast, or numbers and a `size`."""
    spec = k.spec
    if size is not None:
        mean, std = (k.backend.to_host(x).item() if hasattr(x, "shape") else x for x in (mean, std))
    arrays = [x for x in (mean, std) if hasattr(x, "shape")]
    if not arrays:
        return k.from_host(k.rng.normal(spec.numel, spec.dtype.name, float(mean), float(std))).reshape(spec.shape)
    parts = [_spread(k, x, spec.shape) if hasattr(x, "shape") else float(x) for x in (mean, std)]
    if spec.dtype.is_complex:  # the generator's form of this is for real numbers
        drawn = k.rng.host_normal(spec.numel, spec.dtype.name)
        return k.from_host((drawn * parts[1] + parts[0]).astype(spec.dtype.np)).reshape(spec.shape)
    return k.from_host(k.rng.normal_tensors(parts[0], parts[1], spec.dtype.name)).reshape(spec.shape)


def _spread(k: K, x: Any, shape: Any) -> Any:
    return np.ascontiguousarray(np.broadcast_to(k.backend.to_host(x), shape)).reshape(-1)


@normal.guard
def _(k: K, mean: Any, std: Any = 1.0, *rest: Any) -> None:
    if hasattr(std, "shape") and std.size and not bool((std >= 0).all()):
        raise Invalid("normal expects all elements of std >= 0.0", param="std")


@normal.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    zero = F.zeros_like(g)
    return need.mean and zero, need.std and zero


_IMPROVABLE = "  (Could this error message be improved?  If so, please report an enhancement request to PyTorch.)"


def _check_probabilities(k: K, p: Any, param: str) -> None:
    if p.size and not bool(((p >= 0) & (p <= 1)).all()):
        raise Invalid(f"Expected p_in >= 0 && p_in <= 1 to be true, but got false.{_IMPROVABLE}", param=param)


def _bernoulli_meta(k: K, input: Any, p: Any = None) -> Spec:
    if p is not None:
        _check_p(p)
        if input.dtype.is_complex and input.numel:
            raise not_implemented("bernoulli_scalar_cpu_", input.dtype)
    elif not input.numel:
        return input  # type: ignore[no-any-return]
    elif input.dtype.is_complex:
        raise not_implemented("bernoulli_tensor_cpu_self_", input.dtype)
    elif input.dtype.category < FLOAT:
        raise not_implemented("bernoulli_tensor_cpu_p_", input.dtype)
    return input  # type: ignore[no-any-return]


def _check_p(p: float) -> None:
    if type(p) is complex:
        raise WrongType("bernoulli_(): argument 'p' must be float, not complex", param="p")
    if not 0 <= p <= 1:
        raise Invalid(f"bernoulli_ expects p to be in [0, 1], but got p={p:g}", param="p")


@op(
    family="random",
    meta=_bernoulli_meta,
    random=True,
    samples=[
        S(T(2, 3, low=0.0, high=1.0), gradcheck=False),  # random: no two calls agree
        S(T(low=0.0, high=1.0), gradcheck=False),
        S(T(0, 2), gradcheck=False),
        S(I(3), 0.5),
    ],
)
def bernoulli(k: K, input: Array, p: float | None = None) -> Array:
    """1 with the probability that `input` has at each place, or with probability `p` everywhere; else 0."""
    d = k.spec.dtype
    if p is not None:
        drawn = k.rng.bernoulli_p(input.size, p)
    else:
        drawn = k.rng.bernoulli_tensor(k.backend.to_host(input).reshape(-1), d.name)
    return k.from_host(drawn.astype(d.compute.np)).reshape(k.spec.shape)


@bernoulli.guard
def _(k: K, input: Any, p: Any = None) -> None:
    if p is None:
        _check_probabilities(k, input, "input")


@bernoulli.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.zeros_like(g)


def _multinomial_meta(k: K, input: Any, num_samples: int, replacement: bool = False) -> Spec:
    if input.ndim not in (1, 2):
        raise ShapeMismatch("prob_dist must be 1 or 2 dim", param="input")
    if not input.dtype.is_floating:
        raise DtypeMismatch(
            f"multinomial only supports floating-point dtypes for input, got: {scalar_type(input.dtype)}",
            param="input",
        )
    if num_samples <= 0:
        raise Invalid("cannot sample n_sample <= 0 samples", param="num_samples")
    if not replacement and num_samples > input.shape[-1]:
        raise Invalid("cannot sample n_sample > prob_dist.size(-1) samples without replacement", param="num_samples")
    return Spec((*input.shape[:-1], num_samples), int64)


@op(
    family="random",
    meta=_multinomial_meta,
    vjp=None,
    random=True,
    moves=True,
    samples=[
        S(T(4, low=0.1), 2),
        S(T(2, 4, low=0.1), 3),
        S(T(4, low=0.1), 6, True),
        S(T(2, 3, low=0.1), 1),
        S(T(0, 3), 2),
    ],
)
def multinomial(k: K, input: Array, num_samples: int, replacement: bool = False) -> Array:
    """Indices drawn by weight from each row of `input`, without repetition unless `replacement`.

    Raises where a weight is negative or not finite, or where too few are positive.
    """
    d = bfloat16 if input.dtype == bfloat16.np else None
    host = _host(k, input, bfloat16) if d else k.backend.to_host(input)
    name = "bfloat16" if d else host.dtype.name
    turned = input.ndim == 2 and 1 not in input.shape and 0 < input.strides[0] < input.strides[1]
    host = np.ascontiguousarray(host)
    return k.from_host(k.rng.multinomial(host, num_samples, replacement, name, by_columns=turned))


def _poisson_meta(k: K, input: Any) -> Spec:
    _need_float("poisson_cpu", input.dtype, complex_=False)
    return input  # type: ignore[no-any-return]


@op(
    family="random",
    meta=_poisson_meta,
    random=True,
    samples=[S(T(2, 3, low=0.1, high=9.0), gradcheck=False), S(T(low=0.5), gradcheck=False), S(T(0, 2))],  # random
)
def poisson(k: K, input: Array) -> Array:
    """Whole numbers from Poisson distributions with the rates in `input`."""
    drawn = k.rng.poisson(np.ascontiguousarray(k.backend.to_host(input)).reshape(-1), k.spec.dtype.name)
    return k.from_host(drawn).reshape(k.spec.shape)


@poisson.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.zeros_like(g)


def _binomial_meta(k: K, count: Any, prob: Any) -> Spec:
    for name, d in (("count", count.dtype), ("prob", prob.dtype)):
        if d.category != FLOAT:
            words = f"binomial only supports floating-point dtypes for {name}, got: {scalar_type(d)}"
            raise DtypeMismatch(words, param=name)
    if count.dtype is not prob.dtype:
        words = f"Found dtype {scalar_type(prob.dtype)} but expected {scalar_type(count.dtype)}"
        raise DtypeMismatch(words, param="prob")
    if count.dtype.reduced:
        raise not_implemented("binomial_cpu", count.dtype)
    return Spec(broadcast_two(count.shape, prob.shape), count.dtype)


@op(
    family="random",
    meta=_binomial_meta,
    random=True,
    samples=[S(T(2, values=[3.0, 5.0]), T(2, low=0.2, high=0.8), gradcheck=False)],  # random: no two calls agree
)
def binomial(k: K, count: Array, prob: Array) -> Array:
    """How many of `count` trials succeed, each with probability `prob`."""
    counts, probs = (_spread(k, x, k.spec.shape) for x in (count, prob))
    return k.from_host(k.rng.binomial(counts, probs, k.spec.dtype.name)).reshape(k.spec.shape)


@binomial.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    zero = F.zeros_like(g)
    return need.count and zero, need.prob and zero


# ---------------------------------------------------------------- filling a tensor


def _fill(name: str, meta: Any, node: str, samples: Any) -> Callable[[Callable[..., Any]], Declared]:
    """Declares `name`: an in-place operation that fills a tensor with draws. Its gradient is 0."""

    def declare(function: Callable[..., Any]) -> Declared:
        declared = op(
            name=f"_{name.rstrip('_')}",
            family="random",
            meta=meta,
            inplace=True,
            random=True,
            moves=True,
            node=node,
            samples=samples,
        )(function)
        declared.vjp(lambda F, saved, g, need: F.zeros_like(g))
        publish_inplace(declared, name)
        return declared

    return declare


def _float_fill(kernel: str, *, complex_: bool = False, words: str = "", lax: bool = True) -> Any:
    """The meta of draws that some dtypes lack; `lax`: where PyTorch looks at the dtype only if there are elements."""

    def meta(k: K, input: Any, *rest: Any) -> Spec:
        d = input.dtype
        if (input.numel or kernel == _BOUNDS or "Cauchy" in words) and (
            d.category < FLOAT or (d.category == COMPLEX and not complex_)
        ):
            if words:
                raise DtypeMismatch(
                    words.format(scalar=scalar_type(d), c=C_NAMES[d.name].replace("int64_t", "long int"))
                )
            raise not_implemented(kernel, d)
        return input  # type: ignore[no-any-return]

    return meta


_FILL = [S(T(2, 3)), S(T()), S(T(0, 2)), S(T(4, 5))]


@_fill("uniform_", _float_fill(_BOUNDS, complex_=True, lax=False), "UniformBackward0", _FILL)
def _uniform(k: K, input: Array, from_: float = 0, to: float = 1) -> Array:
    """Fills a tensor with numbers from [from, to), all equally likely."""
    return _filled(k, k.rng.uniform(input.size, k.spec.dtype.name, from_, to), input)


@_fill("normal_", _float_fill("normal_kernel_cpu", complex_=True), "NormalBackward0", _FILL)
def _normal(k: K, input: Array, mean: float = 0, std: float = 1) -> Array:
    """Fills a tensor with normal numbers."""
    row_major = input.flags.c_contiguous
    return _filled(k, k.rng.normal(input.size, k.spec.dtype.name, mean, std, row_major), input)


@_fill("log_normal_", _float_fill("log_normal_cpu"), "LogNormalBackward0", _FILL)
def _log_normal(k: K, input: Array, mean: float = 1, std: float = 2) -> Array:
    """Fills a tensor with numbers whose logarithms are normal."""
    return _filled(k, k.rng.log_normal(input.size, k.spec.dtype.name, mean, std), input)


_CONTINUOUS = (
    "{name} distribution is a continuous probability distribution. dtype must be a floating point but you specified "
)


@_fill(
    "exponential_",
    _float_fill("", words=_CONTINUOUS.format(name="Exponential") + "{scalar}"),
    "ExponentialBackward0",
    _FILL,
)
def _exponential(k: K, input: Array, lambd: float = 1) -> Array:
    """Fills a tensor with exponential numbers of rate `lambd`."""
    return _filled(k, k.rng.exponential(input.size, k.spec.dtype.name, lambd), input)


@_fill(
    "cauchy_",
    _float_fill("", words=_CONTINUOUS.format(name="Cauchy") + "{c}", lax=False),
    "CauchyBackward0",
    _FILL,
)
def _cauchy(k: K, input: Array, median: float = 0, sigma: float = 1) -> Array:
    """Fills a tensor with Cauchy numbers."""
    return _filled(k, k.rng.cauchy(input.size, k.spec.dtype.name, median, sigma), input)


def _geometric_meta(k: K, input: Any, p: float) -> Spec:
    if not 0 < p < 1:
        raise Invalid(f"geometric_ expects p to be in (0, 1), but got p={p:g}", param="p")
    if input.numel and input.dtype.category in (BOOL, COMPLEX):
        raise not_implemented("geometric_cpu", input.dtype)
    return input  # type: ignore[no-any-return]


@_fill("geometric_", _geometric_meta, "GeometricBackward0", [S(T(2, 3), 0.5), S(I(3), 0.2), S(T(), 0.5)])
def _geometric(k: K, input: Array, p: float) -> Array:
    """Fills a tensor with how many trials it takes to succeed, each with probability `p`."""
    return _filled(k, k.rng.geometric(input.size, k.spec.dtype.name, p), input)


def _random_meta(k: K, input: Any, from_: Any = None, to: Any = None) -> Spec:
    if input.numel and input.dtype.category == COMPLEX and from_ is None and to is None:
        raise not_implemented("random_kernel_cpu", input.dtype)
    if to is not None or input.numel or not input.dtype.is_complex:  # else PyTorch draws nothing for nothing
        _check_range(0 if from_ is None and to is not None else from_, to, input.dtype)
    return input  # type: ignore[no-any-return]


@_fill("random_", _random_meta, "RandomBackward0", [S(T(2, 3)), S(I(3), 2, 5), S(I(3), to=7), S(T())])
def _random(k: K, input: Array, from_: int | None = None, to: int | None = None) -> Array:
    """Fills a tensor with whole numbers from [from, to); without bounds, from 0 to the greatest that it can hold."""
    if not input.size:
        return input.copy()
    return _filled(k, k.rng.random(input.size, k.spec.dtype.name, from_, to), input)


def _bernoulli_fill_meta(k: K, input: Any, p: Any = 0.5) -> Spec:
    if type(p) is Spec:
        if p.dtype.category < FLOAT:
            raise not_implemented("bernoulli_tensor_cpu_p_", p.dtype)
        if input.dtype.is_complex:
            raise not_implemented("bernoulli_tensor_cpu_self_", input.dtype)
        if broadcast_two(p.shape, input.shape) != input.shape:
            raise ShapeMismatch(
                f"The expanded size of the tensor {text(input.shape)} must match the size of p {text(p.shape)}",
                param="p",
            )
    else:
        _check_p(p)
        if input.dtype.is_complex and input.numel:
            raise not_implemented("bernoulli_scalar_cpu_", input.dtype)
    return input  # type: ignore[no-any-return]


@op(
    family="random",
    meta=_bernoulli_fill_meta,
    inplace=True,
    random=True,
    moves=True,
    node="BernoulliBackward2",
    samples=[S(T(2, 3)), S(T(2, 3), 0.2), S(T(2, 3), T(3, low=0.1, high=0.9)), S(I(3)), S(T())],
)
def _bernoulli_fill(k: K, input: Array, p: Array | Scalar = 0.5) -> Array:
    """Fills a tensor with 1 where a trial with probability `p` succeeds, and 0 elsewhere."""
    if not hasattr(p, "shape"):
        drawn = k.rng.bernoulli_p(input.size, float(p))
    else:
        host = _host(k, p, bfloat16) if p.dtype == bfloat16.np else k.backend.to_host(p)
        spread = _like_memory(np.broadcast_to(host, input.shape), input)
        drawn = k.rng.bernoulli_tensor(np.ascontiguousarray(spread), host.dtype.name)
    values = drawn.astype(np.float32) if k.spec.dtype is bfloat16 else drawn
    return _filled(k, values, input)


@_bernoulli_fill.guard
def _(k: K, input: Any, p: Any = 0.5) -> None:
    if hasattr(p, "shape") and p.dtype != bfloat16.np:
        _check_probabilities(k, p, "p")


@_bernoulli_fill.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and F.zeros_like(g), need.p and F.zeros_for(saved.p)


publish_inplace(_bernoulli_fill, "bernoulli_")
