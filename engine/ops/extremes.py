"""Largest and smallest elements, their places, and the order statistics between them."""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.declare import Array, Dim, Dims, composite, op
from engine.dtypes import BOOL, COMPLEX, int64, scalar_type
from engine.errors import DtypeMismatch, IndexOutOfRange, Invalid
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.ops.reductions import axes_of, kept, largest
from engine.samples import B, I, S, T
from engine.shapes import reduced, wrap_dim, wrap_dims

_TIES = T(2, 3, values=[[1.0, 3.0, 3.0], [3.0, 0.5, 2.0]])
_NAN = T(2, 2, values=[[1.0, float("nan")], [0.5, 2.0]], grad=False)


def _smallest(k: K, x: Array, axis: int, keepdims: bool = False) -> Array:
    return x.min(axis=axis, keepdims=keepdims)


def refuse_empty(name: str, input: Spec, dim: Any, *, colon: str = "()") -> None:
    """Refuses what has no largest element: no elements at all, or none along a dimension."""
    if dim is None:
        if input.numel == 0:
            raise Invalid(
                f"{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim "
                "with the 'dim' argument.",
                code="empty-reduction",
                param="dim",
            )
        return
    given = (dim,) if isinstance(dim, int) else tuple(dim) or range(input.ndim)
    for d, at in zip(given, wrap_dims(dim, input.ndim), strict=False):
        if input.shape[at] == 0:
            raise IndexOutOfRange(
                f"{name}{colon}: Expected reduction dim {d} to have non-zero size.", code="empty-reduction", param="dim"
            )


# ---------------------------------------------------------------- gradients of what was picked


def _tie_meta(k: K, input: Spec, extreme: Spec, dim: Any, nan: Any) -> Spec:
    return input


@op(family="reductions", meta=_tie_meta, vjp=None)
def _tie_shares(k: K, input: Array, extreme: Array, dim: Any, nan: Any) -> Array:
    """1/n at the n elements that equal the extreme of their group, 0 elsewhere.

    Where the extreme is NaN: with `nan`, NaN equals NaN; without, nothing equals it and the shares are NaN.
    """
    mask, n = _ties(k, input, extreme, dim, nan)
    return mask / n


def _ties(k: K, input: Array, extreme: Array, dim: Any, nan: bool) -> tuple[Array, Array]:
    """(which elements equal the extreme of their group, and how many do, in the input's dtype)."""
    mask = input == extreme
    if nan:
        mask |= (input != input) & (extreme != extreme)
    axes = axes_of(dim, input.ndim) if input.ndim else ()
    return mask, mask.sum(axis=axes, keepdims=True).astype(input.dtype)


def _tie_gradient_meta(k: K, grad: Spec, input: Spec, extreme: Spec, dim: Any, nan: Any) -> Spec:
    return Spec(input.shape, grad.dtype)


@op(family="reductions", meta=_tie_gradient_meta, vjp=None)
def _tie_gradient(k: K, grad: Array, input: Array, extreme: Array, dim: Any, nan: Any) -> Array:
    """grad * _tie_shares in fewer passes; the rules use it where nothing is recorded."""
    mask, n = _ties(k, input, extreme, dim, nan)
    return mask * (grad / n)


def shared_gradient(F: Any, input: Any, extreme: Any, g: Any, dim: Any, keepdim: bool, nan: bool = False) -> Any:
    """The gradient of a maximum or minimum, divided evenly among ties."""
    shape = F.shape(input)
    extreme, g = kept(F, extreme, shape, dim, keepdim), kept(F, g, shape, dim, keepdim)
    if not F.recording:
        return F._tie_gradient(g, input, extreme, dim, nan)
    return g * F._tie_shares(input, extreme, dim, nan)


def picked_gradient(F: Any, saved: Any, g: Any) -> Any:
    """The gradient of values that were picked along `dim` at `indices`, which have size 1 there or are reduced."""
    shape = saved.input.shape
    d = wrap_dim(saved.dim, len(shape))
    return F._place(
        kept(F, g, shape, d, saved.keepdim), kept(F, saved.indices, shape, d, saved.keepdim), d, shape, True
    )


# ---------------------------------------------------------------- max, min


def _declare_extreme(name: str, word: str, ufunc: str, arg: str) -> None:
    """amax, the three overloads of max, and argmax; or their counterparts for the minimum."""

    def at(k: K, x: Array, axes: Any, keepdims: bool) -> Array:
        if axes is not None and len(axes) == 1:
            return (largest if name == "max" else _smallest)(k, x, axes[0], keepdims)
        return getattr(x, name)(axis=axes, keepdims=keepdims)

    def whole_meta(k: K, input: Spec) -> Spec:
        if input.dtype.category == COMPLEX:
            raise not_implemented(f"{name}_all", input.dtype)
        refuse_empty(name, input, None)
        return Spec((), input.dtype)

    def whole(k: K, input: Array) -> Array:
        return getattr(input, name)()

    def amax_meta(k: K, input: Spec, dim: Any = None, keepdim: bool = False) -> Spec:
        if type(dim) is list and not dim:
            dim = None
        refuse_empty(f"a{name}", input, dim)
        wrap_dims(dim, input.ndim)
        if input.dtype.category == COMPLEX:
            raise not_implemented(f"{name}_values_cpu", input.dtype)
        return Spec(reduced(input.shape, wrap_dims(dim, input.ndim), keepdim), input.dtype)

    def amax(k: K, input: Array, dim: Dims | None = None, keepdim: bool = False) -> Array:
        return at(k, input, axes_of(dim, input.ndim), keepdim) if input.ndim else input.copy()

    def along_meta(k: K, input: Spec, dim: int, keepdim: bool = False) -> Any:
        d = wrap_dim(dim, input.ndim)
        refuse_empty(name, input, d) if input.ndim else None
        if input.dtype.category == COMPLEX:
            raise DtypeMismatch(f"{name}(): does not support complex input", param="input")
        shape = reduced(input.shape, (d,), keepdim) if input.ndim else ()
        return Spec(shape, input.dtype), Spec(shape, int64)

    def along(k: K, input: Array, dim: Dim, keepdim: bool = False) -> Array:
        if input.ndim == 0:
            return input.copy(), k.xp.zeros((), int64.np)
        axis = wrap_dim(dim, input.ndim)
        index = k.xp.expand_dims(getattr(input, arg)(axis=axis), axis)
        values = k.xp.take_along_axis(input, index, axis)
        shape = k.spec[0].shape
        return values.reshape(shape), index.reshape(shape)

    def binary(F: Any, input: Array, other: Array) -> Array:
        return getattr(F, ufunc)(input, other)

    def arg_meta(k: K, input: Spec, dim: Any = None, keepdim: bool = False) -> Spec:
        if input.dtype.category in (BOOL, COMPLEX):
            kind = "bool" if input.dtype.category == BOOL else "complex"
            raise DtypeMismatch(f"{arg}(): does not support {kind} input", param="input")
        if dim is None:
            if input.numel == 0:
                raise IndexOutOfRange(
                    f"{arg}(): Expected reduction dim to be specified for input.numel() == 0.",
                    code="empty-reduction",
                    param="dim",
                )
            return Spec((1,) * input.ndim if keepdim else (), int64)
        d = wrap_dim(dim, input.ndim)
        refuse_empty(arg, input, d) if input.ndim else None
        return Spec(reduced(input.shape, (d,), keepdim) if input.ndim else (), int64)

    def places(k: K, input: Array, dim: Dim | None = None, keepdim: bool = False) -> Array:
        if input.ndim == 0:
            return k.xp.zeros((), int64.np)
        axis = None if dim is None else wrap_dim(dim, input.ndim)
        return getattr(input, arg)(axis=axis).reshape(k.spec.shape)

    whole.__doc__ = f"The {word} of all elements; NaN wins. Ties share the gradient."
    amax.__doc__ = f"The {word} of all elements, or along `dim`; NaN wins. Ties share the gradient."
    along.__doc__ = (
        f"The {word} along `dim` and its index, the first of equals; NaN wins. The gradient goes to that element."
    )
    binary.__doc__ = f"The {word} of two tensors, element by element: `{ufunc}`."
    places.__doc__ = f"The index of the {word} along `dim`, or in the flattened tensor; the first of equals, NaN wins."

    title = name.capitalize()
    made = op(
        family="reductions",
        name=f"_{name}_all",
        joins=name,
        node=f"{title}Backward1",
        meta=whole_meta,
        save={"input": ("input", "result")},
        samples=[S(T(2, 3, distinct=True)), S(_TIES), S(T()), S(I(2, 3)), S(B(3))],
    )(whole)
    made.vjp(lambda F, saved, g, need: shared_gradient(F, saved.input, saved.result, g, None, False, True))
    made = op(
        family="reductions",
        name=f"_{name}_dim",
        joins=name,
        node=f"{title}Backward0",
        meta=along_meta,
        nondiff=("indices",),
        outputs=("values", "indices"),
        fields=True,
        save={"input": ("indices",)},
        samples=[
            S(T(2, 3, distinct=True), 1),
            S(T(2, 3, distinct=True), 0, True),
            S(T(), 0),
            S(T(0, 3), 1),
            S(I(2, 3), -1),
            S(B(2, 3), 0),
        ],
    )(along)
    made.vjp(lambda F, saved, g, need: picked_gradient(F, saved, g[0]))
    composite(
        family="reductions",
        name=f"_{name}_other",
        joins=name,
        moves=True,
        samples=[S(T(3, 2, distinct=True), T(2, low=3.0, high=4.0)), S(I(3), I(3))],
    )(binary)
    made = op(
        family="reductions",
        name=f"a{name}",
        meta=amax_meta,
        save={"input": ("input", "result")},
        samples=[
            S(T(2, 3, distinct=True), 1),
            S(T(2, 3, distinct=True)),
            S(T(2, 3, distinct=True), [0, 1], True),
            S(_TIES, 1),
            S(T()),
            S(T(0, 3), 1),
            S(I(2, 3), 0),
        ],
    )(amax)
    made.vjp(lambda F, saved, g, need: shared_gradient(F, saved.input, saved.result, g, saved.dim, saved.keepdim))
    op(
        family="reductions",
        name=arg,
        meta=arg_meta,
        vjp=None,
        samples=[
            S(T(2, 3, distinct=True), 1),
            S(T(2, 3, distinct=True)),
            S(T(2, 3, distinct=True), 0, True),
            S(T()),
            S(_NAN, 1),
        ],
    )(places)


_declare_extreme("max", "maximum", "maximum", "argmax")
_declare_extreme("min", "minimum", "minimum", "argmin")


def _aminmax_meta(k: K, input: Spec, dim: Any = None, keepdim: bool = False) -> Any:
    if dim is None and input.numel == 0:
        raise Invalid(
            "aminmax(): cannot compute aminmax over an empty dimension as the operation has no identity.",
            code="empty-reduction",
            param="input",
        )
    dims = wrap_dims(dim, input.ndim)
    refuse_empty("aminmax", input, None if dim is None else wrap_dim(dim, input.ndim), colon="")
    if input.dtype.category == COMPLEX:
        if not input.ndim and dim is not None:
            raise DtypeMismatch(f"aminmax not implemented for {scalar_type(input.dtype)}", param="input")
        raise not_implemented("aminmax_cpu", input.dtype)
    out = Spec(reduced(input.shape, dims, keepdim), input.dtype)
    return out, out


@op(
    family="reductions",
    meta=_aminmax_meta,
    outputs=("min", "max"),
    fields=True,
    save={"input": ("input", "min", "max")},
    samples=[
        S(T(2, 3, distinct=True)),
        S(T(2, 3, distinct=True), dim=1),
        S(_TIES, dim=0, keepdim=True),
        S(T()),
        S(I(2, 3)),
    ],
)
def aminmax(k: K, input: Array, dim: Dim | None = None, keepdim: bool = False) -> Array:
    """The minimum and the maximum of all elements, or along `dim`; NaN wins. Ties share the gradient."""
    if input.ndim == 0:
        return input.copy(), input.copy()
    axes = axes_of(dim, input.ndim)
    return input.min(axis=axes, keepdims=keepdim), input.max(axis=axes, keepdims=keepdim)


@aminmax.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    parts = [
        shared_gradient(F, saved.input, extreme, part, saved.dim, saved.keepdim)
        for part, extreme in ((g[0], saved.min), (g[1], saved.max))
        if part is not None
    ]
    return parts[0] if len(parts) == 1 else F.add(parts[0], parts[1])
