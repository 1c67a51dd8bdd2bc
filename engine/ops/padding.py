"""Padding: constants around a tensor, or its own edges, reflected or repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.carriers import K
from engine.declare import Array, Scalar, Shape, composite, op
from engine.dtypes import BOOL, DTYPES, cast_scalar, from_numpy
from engine.errors import Invalid, ShapeMismatch
from engine.op import Spec
from engine.ops.common import fitting, not_implemented
from engine.ops.scatter import add_rows, from_rows, rows_of
from engine.samples import C, I, S, T
from engine.shapes import Shape as Sizes
from engine.shapes import check_size, text

# ---------------------------------------------------------------- padded


def _bounds(shape: Sizes, pad: Any) -> list[tuple[int, int]]:
    """(before, after) for each dimension; `pad` begins with the last one."""
    made = [(0, 0)] * (len(shape) - len(pad) // 2)
    return made + [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]


def _pad_meta(k: K, input: Spec, pad: Any, value: Any = 0) -> Spec:
    if len(pad) % 2:
        words = f"Length of pad must be even but instead it equals {len(pad)}"
        raise Invalid(words, code="bad-padding", param="pad")
    if len(pad) > 2 * input.ndim:
        raise Invalid(
            "Length of pad should be no more than twice the number of dimensions of the input. Pad length is "
            f"{len(pad)}while the input has {input.ndim}dimensions.",
            code="bad-padding",
            param="pad",
        )
    size = []
    for n, (before, after) in zip(input.shape, _bounds(input.shape, pad), strict=True):
        if n + min(before, 0) + min(after, 0) < 0:
            raise ShapeMismatch("narrow(): length must be non-negative.", param="pad")
        size.append(n + before + after)
    check_size(size)
    if any(width > 0 for width in pad):
        fitting(value, input.dtype)
    return Spec(tuple(size), input.dtype)


@op(
    family="shaping",
    meta=_pad_meta,
    node="ConstantPadNdBackward0",
    samples=[S(T(2, 3), [1, 1]), S(T(2, 3), [1, -1, 0, 2], 0.5), S(I(3), [1, 1], 7), S(C(2), [0, 1])],
)
def constant_pad_nd(k: K, input: Array, pad: Shape, value: Scalar = 0) -> Array:
    """The tensor with `value` around it: pairs of widths, before and after, beginning with the last dimension.

    A negative width cuts off.
    """
    bounds = _bounds(input.shape, pad)
    made = k.xp.empty(k.spec.shape, input.dtype)
    if made.size and any(b > 0 or a > 0 for b, a in bounds):
        made[...] = cast_scalar(value, from_numpy(input.dtype))  # type: ignore[arg-type]
    inner = tuple(slice(max(b, 0), m - max(a, 0)) for m, (b, a) in zip(made.shape, bounds, strict=True))
    kept = tuple(slice(max(-b, 0), n - max(-a, 0)) for n, (b, a) in zip(input.shape, bounds, strict=True))
    part = input[kept]
    if part.size:
        made[inner] = part
    return made


@constant_pad_nd.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.constant_pad_nd(g, tuple(-p for p in saved.pad), 0)


def _sources(k: K, mode: str, n: int, before: int, after: int) -> Array:
    """For each place along a padded dimension, the place that it is filled from."""
    if mode == "circular":  # what is cut off does not come back
        low, m = max(-before, 0), n - max(-before, 0) - max(-after, 0)
        return k.xp.arange(-max(before, 0), m + max(after, 0)) % max(m, 1) + low
    at = k.xp.arange(-before, n + after)
    if mode == "replicate":
        return k.xp.clip(at, 0, n - 1)
    return (n - 1) - abs(abs(at) - (n - 1))


def _pad_edges_meta(k: K, input: Spec, pad: Any, mode: str) -> Spec:
    if len(pad) % 2:
        raise Invalid("Padding length must be divisible by 2", code="bad-padding", param="pad")
    if len(pad) not in (2, 4, 6) or input.ndim not in (len(pad) // 2 + 1, len(pad) // 2 + 2):
        raise Invalid(
            f"Padding size {len(pad)} is not supported for {input.ndim}D input tensor.\n"
            "Supported combinations for non-constant padding:\n"
            "  - 2D or 3D input: padding size = 2 (pads last dimension)\n"
            "  - 3D or 4D input: padding size = 4 (pads last 2 dimensions)\n"
            "  - 4D or 5D input: padding size = 6 (pads last 3 dimensions)",
            code="bad-padding",
            param="pad",
        )
    dims = len(pad) // 2
    if mode != "circular":
        if 0 in input.shape[1 if input.ndim == dims + 2 else 0 :]:
            raise ShapeMismatch(
                f"Expected {dims + 1}D or {dims + 2}D (batch mode) tensor with possibly 0 batch size and other "
                f"non-zero dimensions for input, but got: {text(input.shape)}",
                param="input",
            )
        if input.dtype.category == BOOL:
            raise not_implemented(f"{'reflection' if mode == 'reflect' else 'replication'}_pad{dims}d", input.dtype)
    bounds = _bounds(input.shape, pad)
    size = [n + before + after for n, (before, after) in zip(input.shape, bounds, strict=True)]
    for j in range(dims):
        i = input.ndim - 1 - j if mode == "reflect" else input.ndim - dims + j
        n, (before, after) = input.shape[i], bounds[i]
        if mode == "reflect" and (before >= n or after >= n) and (before or after):
            raise ShapeMismatch(
                f"Argument #{4 + 2 * j}: Padding size should be less than the corresponding input dimension, but got: "
                f"padding ({before}, {after}) at dimension {i} of input {text(input.shape)}",
                param="pad",
            )
        if mode == "circular" and (before > n or after > n):
            raise ShapeMismatch("Padding value causes wrapping around more than once.", param="pad")
        if mode == "circular" and (before > 0 or after > 0) and n + min(before, 0) + min(after, 0) < 1 <= n:
            # PyTorch copies from memory that it has not written.
            raise ShapeMismatch("Negative padding value is resulting in an empty dimension", param="pad")
        if mode == "circular" and size[i] < 0:
            raise ShapeMismatch("Negative padding value is resulting in an empty dimension", param="pad")
        if n == 0 and (before > 0 or after > 0):
            raise ShapeMismatch(
                f"input (size {n}) is too small for padding ({before}, {after}) at dimension {i}", param="pad"
            )
    if mode != "circular" and all(n < 1 for n in size[-dims:]):
        have, made = (
            [f"{name}: {n}" for name, n in zip("DHW"[-dims:], sizes[-dims:], strict=True)]
            for sizes in (input.shape, size)
        )
        shown = ", ".join(filter(None, (" ".join(have[:-1]), have[-1]))) + " " * (dims == 2 and mode == "replicate")
        raise ShapeMismatch(f"input ({shown}) is too small. Calculated output {' '.join(made)}", param="pad")
    check_size(size)
    return Spec(tuple(size), input.dtype)


def _pad_node(input: Any, pad: Any, mode: str) -> str:
    name = {"reflect": "ReflectionPad", "replicate": "ReplicationPad", "circular": "CircularPad"}[mode]
    return f"{name}{len(pad) // 2}DBackward0"


@op(
    family="shaping",
    meta=_pad_edges_meta,
    moves=True,
    node=_pad_node,
    ties=lambda input, pad, mode: mode != "circular",
)
def _pad_edges(k: K, input: Array, pad: Shape, mode: str) -> Array:
    """The tensor with what lies at its edges around it."""
    for d, (before, after) in enumerate(_bounds(input.shape, pad)):
        if before or after:
            input = k.xp.take(input, _sources(k, mode, input.shape[d], before, after), axis=d)
    return input


@_pad_edges.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._pad_edges_backward(g, saved.input.shape, saved.pad, saved.mode)


# So many edges are added to the middle one by one.
_FEW_EDGES = 32


def _folded(k: K, grad: Array, d: int, n: int, before: int, sources: Sequence[int]) -> Array:
    """The middle of a padded dimension, and the edges added to where they came from."""
    lead = (slice(None),) * d
    made = grad[(*lead, slice(before, before + n))].copy()
    for i, source in enumerate(sources):
        if not before <= i < before + n:
            made[(*lead, source)] += grad[(*lead, i)]
    return made


@op(family="shaping", meta=lambda k, grad, size, pad, mode: Spec(size, grad.dtype))
def _pad_edges_backward(k: K, grad: Array, size: Shape, pad: Shape, mode: str) -> Array:
    """What lies around a padded tensor added to where it came from."""
    if grad.dtype.name in ("float16", "uint16"):
        grad = k.backend.widen(grad, DTYPES["bfloat16" if grad.dtype.name == "uint16" else "float16"])
    for d, (before, after) in enumerate(_bounds(size, pad)):
        if min(before, after) >= 0 and 0 < before + after <= _FEW_EDGES and size[d]:
            sources = k.backend.to_host(_sources(k, mode, size[d], before, after)).tolist()
            grad = _folded(k, grad, d, size[d], before, sources)
        elif before or after:
            shape = (*grad.shape[:d], size[d], *grad.shape[d + 1 :])
            rows = rows_of(k, grad, d)
            made = k.xp.zeros((size[d], rows.shape[1]), grad.dtype)
            if rows.size:
                add_rows(k, made, _sources(k, mode, size[d], before, after), rows)
            grad = from_rows(k, made, shape, d)
    return k.xp.ascontiguousarray(grad)


@_pad_edges_backward.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._pad_edges(g, saved.pad, saved.mode)


@composite(
    family="shaping",
    name="nn.functional.pad",
    moves=True,
    samples=[
        S(T(2, 3), [1, 1]),
        S(T(2, 3), [1, 0, 0, 1], "constant", 0.5),
        S(T(2, 3), [1, 2], "reflect"),
        S(T(2, 3), [1, 2], "replicate"),
        S(T(1, 2, 3), [1, 0, 2, 1], "circular"),
    ],
)
def pad(F: Any, input: Array, pad: Shape, mode: str = "constant", value: float | None = None) -> Array:
    """The tensor with something around it: pairs of widths, before and after, beginning with the last dimension.

    `mode` is "constant" (`value`, by default 0), "reflect" (without repeating the edge), "replicate" or "circular".
    """
    if mode not in ("constant", "reflect", "replicate", "circular"):
        raise Invalid(f"Unrecognised padding mode {mode}", code="bad-choice", param="mode")
    ndim = len(F.shape(input))
    if len(pad) % 2:
        raise Invalid("Padding length must be divisible by 2", code="bad-padding", param="pad")
    if len(pad) > 2 * ndim:
        raise Invalid(
            "Padding length should be less than or equal to two times the input dimension but got padding length "
            f"{len(pad)} and input of dimension {ndim}",
            code="bad-padding",
            param="pad",
        )
    if mode == "constant":
        return F.constant_pad_nd(input, pad, 0 if value is None else value)
    if value is not None and value != 0:
        raise Invalid(f'Padding mode "{mode}" doesn\'t take in value argument', code="bad-value", param="value")
    return F._pad_edges(input, pad, mode)
