"""What an operation costs at least, from shapes alone: work that cannot end within a program's time is not begun.

Counted are the multiplications and additions of the operations whose work outgrows their operands: products,
convolutions, factorizations of matrices, pools and distances of all pairs. A machine is taken to be faster than any is,
so what is refused could not have ended; what is let through may still run past its time, and ends at the next step
boundary then, or before the next such operation of the same step (a long recurrence, a backward pass).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from time import perf_counter
from typing import Any

from engine.context import HERE, out_of_time
from engine.errors import Hint, OutOfTime
from engine.op import REGISTRY, Op
from engine.tensor import Tensor

# Operations a second: of each core of a processor, several times what one does in float32; and of a GPU.
CORE = 200e9
GPU = 2e15


def _product(args: tuple[Any, ...], left: int = 0, right: int = 1) -> float:
    """Of a product of (stacks of) matrices: 2 n k m for n x k by k x m."""
    a, b = args[left].shape, args[right].shape
    if len(a) < 2 or len(b) < 2:
        return 0.0  # as much work as there are elements
    stacks = max(prod(a[:-2]), prod(b[:-2]))
    return float(2 * stacks * a[-2] * a[-1] * b[-1])


def _linear(args: tuple[Any, ...]) -> float:
    return float(2 * prod(args[0].shape) * (args[1].shape[0] if len(args[1].shape) > 1 else 1))


def _convolution(args: tuple[Any, ...]) -> float:
    """Of a convolution without padding, which is the least: each element of the result is a sum over the kernel."""
    x, w = args[0].shape, args[1].shape
    sizes = w[2:]
    stride, dilation = args[3], args[5]
    if len(x) < len(w) - 1 or type(args[4]) is str:
        return 0.0
    places = 1
    for i, size in enumerate(sizes):
        step = stride if type(stride) is int else stride[i % len(stride)]
        apart = dilation if type(dilation) is int else dilation[i % len(dilation)]
        places *= max(0, (x[len(x) - len(sizes) + i] - apart * (size - 1) - 1) // max(step, 1) + 1)
    batch = x[0] if len(x) == len(w) else 1
    return float(2 * batch * places * prod(w))


def _transposed(args: tuple[Any, ...]) -> float:
    """Of a transposed convolution: each element of the input meets the whole kernel of its channel."""
    return float(2 * prod(args[0].shape) * prod(args[1].shape[1:]))


def _einsum(args: tuple[Any, ...]) -> float:
    """Of a contraction of two: each combination of all their indices is one product."""
    operands, labels, _, sizes = args
    return float(2 * prod(sizes[label] for label in set().union(*labels))) if len(operands) == 2 else 0.0


def _cubic(factor: float, args: tuple[Any, ...]) -> float:
    """Of a factorization of (stacks of) n x m matrices: so many times n m min(n, m)."""
    shape = args[0].shape
    if len(shape) < 2:
        return 0.0
    return float(factor * prod(shape) * min(shape[-2:]))


def _pooled(args: tuple[Any, ...]) -> float:
    """Of a pool over the last dimensions, one after the other: each window of a dimension is gone through."""
    pool = args[-1]
    inner = len(pool.kernel)
    lead, total = prod(args[0].shape[: len(args[0].shape) - inner]), 0
    for axis, size in enumerate(pool.kernel):
        total += size * prod(pool.output[: axis + 1]) * prod(pool.input[axis + 1 :])
    return float(lead * total)


def _windows(args: tuple[Any, ...]) -> float:
    """Of what looks for the places of maxima, or puts values there: each place of each window is compared."""
    pool = args[-1]
    shape = args[0].shape
    return float(prod(shape[: len(shape) - len(pool.kernel)]) * prod(pool.output) * prod(pool.kernel))


def _pairs(args: tuple[Any, ...]) -> float:
    """Of the distances of all pairs of rows: a difference and a sum for each of their elements."""
    a, b = args[0].shape, args[1].shape
    return float(2 * max(prod(a[:-2]), prod(b[:-2])) * a[-2] * b[-2] * a[-1]) if min(len(a), len(b)) >= 2 else 0.0


def _solved(args: tuple[Any, ...]) -> float:
    """Of the solution with a triangle: half of the matrix, a multiplication and an addition each, for each column."""
    a, b = args[0].shape, args[1].shape
    return float(max(prod(a[:-2]), prod(b[:-2])) * a[-1] ** 2 * b[-1]) if min(len(a), len(b)) >= 2 else 0.0


# The least operations for each entry of the matrices and their smaller size; LAPACK's own counts are these or more.
COSTS: Mapping[str, Callable[[tuple[Any, ...]], float]] = {
    "mm": _product,
    "bmm": _product,
    "matmul": _product,
    "addmm": partial(_product, left=1, right=2),
    "baddbmm": partial(_product, left=1, right=2),
    "addbmm": partial(_product, left=1, right=2),
    "_einsum": _einsum,
    "nn.functional.linear": _linear,
    **{f"nn.functional.conv{n}d": _convolution for n in (1, 2, 3)},
    **{f"nn.functional.conv_transpose{n}d": _transposed for n in (1, 2, 3)},
    "_cholesky": partial(_cubic, 1 / 3),
    "linalg.cholesky_ex": partial(_cubic, 1 / 3),
    "linalg.det": partial(_cubic, 2 / 3),
    "linalg.slogdet": partial(_cubic, 2 / 3),
    "_solve": partial(_cubic, 2 / 3),
    "_solve_checked": partial(_cubic, 2 / 3),
    "_inverse": partial(_cubic, 2),
    "linalg.inv": partial(_cubic, 2),
    "linalg.inv_ex": partial(_cubic, 2),
    "_qr": partial(_cubic, 4 / 3),
    "_eigh": partial(_cubic, 4 / 3),
    "_svd": partial(_cubic, 8 / 3),
    "_pinv": partial(_cubic, 8 / 3),
    "linalg.matrix_exp": partial(_cubic, 2),
    "linalg.matrix_rank": partial(_cubic, 4 / 3),
    "_eig": partial(_cubic, 10),
    "_lu": partial(_cubic, 2 / 3),
    "linalg.lu": partial(_cubic, 2 / 3),
    "_ldl": partial(_cubic, 1 / 3),
    "_lstsq": partial(_cubic, 1),
    "geqrf": partial(_cubic, 4 / 3),
    "_triangular": _solved,
    "cdist": _pairs,
    "_max_pool": _pooled,
    "_max_pool_both": _windows,
    "_max_places": _windows,
    "_max_put": _windows,
    "_avg_pool": _pooled,
    "_avg_spread": _pooled,
}


def speed(device: str) -> float:
    """More operations a second than a device of this name does."""
    return GPU if device.partition(":")[0] == "cuda" else CORE * (os.cpu_count() or 1)


def check(op: str, cost: float, device: str, limit: float) -> None:
    """Refuses work that takes more than `limit` seconds on any machine. Raises OutOfTime."""
    if cost <= speed(device) * limit:
        return
    raise OutOfTime(
        f"{op} takes {cost:.3g} multiplications and additions here, more than this server can do in {limit:g} s",
        code="too-costly",
        hint=Hint("too-costly", limit=f"{limit:g}"),
        cost=cost,
        limit=limit,
    )


def mind(op: Op, args: tuple[Any, ...], limit: float) -> None:
    """The check before an operation that is called past its runner, as in a trace. Raises OutOfTime."""
    cost = _OF.get(id(op))
    if cost is None or not limit:
        return
    first = args[0][0] if type(args[0]) is list and args[0] else args[0]
    if isinstance(first, Tensor) and first.numel > SMALL:
        check(op.name.lstrip("_"), cost(args), first.device, limit)


def _checked(op: Op, cost: Callable[[tuple[Any, ...]], float]) -> Callable[[tuple[Any, ...]], Any]:
    run = op.run
    name = op.name.lstrip("_")

    def checked(args: tuple[Any, ...]) -> Any:
        limit = HERE.ctx.max_seconds
        if limit:
            first = args[0][0] if type(args[0]) is list and args[0] else args[0]
            if type(first) is Tensor and first.numel > SMALL:
                check(name, cost(args), first.device, limit)
            if perf_counter() > HERE.ctx.deadline:  # the step may be made of many such
                raise out_of_time(limit)
        return run(args)

    return checked


# Fewer elements than this in the first operand: no cost that a limit in seconds could mind.
SMALL = 1 << 16
_OF: dict[int, Callable[[tuple[Any, ...]], float]] = {}  # costs by the identity of their operations


def install() -> None:
    """Puts the check before every operation of `COSTS`, wherever it is called from."""
    for op, cost in {id(REGISTRY[name]): (REGISTRY[name], cost) for name, cost in COSTS.items()}.values():
        op.run, _OF[id(op)] = _checked(op, cost), cost
