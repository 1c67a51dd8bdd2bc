"""Convolutions: one gather of windows and one matrix product a block, in one, two or three dimensions.

A convolution is bilinear, and so are its two gradients. All three are the same sum over triples of an input element, a
weight and an output element, so each one's gradients are the other two: the rules close at every order.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from engine.carriers import K
from engine.declare import Array, Declared, Ints, composite, op
from engine.dtypes import BOOL, C_NAMES, COMPLEX, scalar_type, tensor_type
from engine.errors import DtypeMismatch, Hint, Invalid, ShapeMismatch
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.ops.products import cast_hint
from engine.ops.windows import Geometry, forward, to_input, to_weight
from engine.samples import C, I, S, T
from engine.shapes import Shape, text

# ---------------------------------------------------------------- the bilinear kernels as operations


def _to_input_meta(k: K, grad: Spec, weight: Spec, geometry: Geometry) -> Spec:
    return Spec((grad.shape[0], weight.shape[1] * geometry.groups, *geometry.input), grad.dtype)


def _to_weight_meta(k: K, grad: Spec, input: Spec, geometry: Geometry) -> Spec:
    return Spec((grad.shape[1], input.shape[1] // geometry.groups, *geometry.kernel), grad.dtype)


def _conv_meta(k: K, input: Spec, weight: Spec, geometry: Geometry) -> Spec:
    return Spec((input.shape[0], weight.shape[0], *geometry.output), input.dtype)


@op(family="nn", meta=_conv_meta, save={"input": ("weight",), "weight": ("input",)}, node="ConvolutionBackward0")
def _conv(k: K, input: Array, weight: Array, geometry: Any) -> Array:
    """A convolution of known geometry, without bias."""
    return forward(k, input, weight, None, geometry)


@op(
    family="nn",
    meta=_to_input_meta,
    save={"grad": ("weight",), "weight": ("grad",)},
    node="ConvolutionBackwardBackward0",
)
def _conv_input(k: K, grad: Array, weight: Array, geometry: Any) -> Array:
    """The gradient of a convolution's input."""
    return to_input(k, grad, weight, geometry)


@op(
    family="nn",
    meta=_to_weight_meta,
    save={"grad": ("input",), "input": ("grad",)},
    node="ConvolutionBackwardBackward0",
)
def _conv_weight(k: K, grad: Array, input: Array, geometry: Any) -> Array:
    """The gradient of a convolution's weight."""
    return to_weight(k, grad, input, geometry)


@_conv.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return (
        need.input and F._conv_input(g, F.conj(saved.weight), saved.geometry),
        need.weight and F._conv_weight(g, F.conj(saved.input), saved.geometry),
    )


@_conv_input.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return (
        need.grad and F._conv(g, F.conj(saved.weight), saved.geometry),
        need.weight and F._conv_weight(F.conj(saved.grad), g, saved.geometry),
    )


@_conv_weight.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return (
        need.grad and F._conv(F.conj(saved.input), g, saved.geometry),
        need.input and F._conv_input(F.conj(saved.grad), g, saved.geometry),
    )


# ---------------------------------------------------------------- what PyTorch refuses


def per_dim(value: Any, dims: int, name: str, given: int | None = None) -> Shape:
    """An int or a list of ints as one int for each spatial dimension.

    `given`: how many the operation's name promises, where the weight has another number of them.
    """
    values = (value,) * (given or dims) if type(value) is int else tuple(value)
    if len(values) == 1:
        return values * dims
    if len(values) != dims:
        raise Invalid(
            f"expected {name} to be a single integer value or a list of {dims} values to match the convolution "
            "dimensions, "
            f"but got {name}={text(values)}",
            param=name,
        )
    return values


# What PyTorch's kernels for dilated and for transposed convolutions do not take.
_SMALL_INTS = frozenset({"bool", "uint8", "int8", "int16", "int32"})
_ONEDNN_ELEMENTS = 20480  # an input above this goes to PyTorch's oneDNN, which has words of its own


def _check_bias_type(input: Spec, bias: Spec | None) -> None:
    if bias is not None and bias.dtype is not input.dtype:
        names = C_NAMES[input.dtype.name], C_NAMES[bias.dtype.name]
        raise DtypeMismatch(
            f"Input type ({names[0]}) and bias type ({names[1]}) should be the same",
            hint=cast_hint(input, bias, "input", "bias"),
            param="bias",
        )


def _by_onednn(x: Shape, w: Shape, groups: int) -> bool:
    large = len(w) > 3 and min(w[-2:]) > 3
    return len(x) < 5 and (groups > 1 or large or x[0] > 1 or prod(x) > _ONEDNN_ELEMENTS)


def _check_types(input: Spec, weight: Spec, groups: int, dims: int, *, dilated: bool, transposed: bool) -> None:
    """The dtypes of input and weight: PyTorch's words depend on the kernel that it would have chosen."""
    x, w = input.dtype, weight.dtype
    batched = input.shape if input.ndim == dims + 2 else (1, *input.shape)
    onednn = x.name == "bfloat16" or (x.name == "float32" and _by_onednn(batched, weight.shape, groups))
    hint = cast_hint(input, weight, "input", "weight")
    if x is not w and (x.category == COMPLEX or onednn):
        or_else = " or input should be a MKLDNN tensor and weight is a dense tensor" if onednn else ""
        raise DtypeMismatch(
            f"Input type ({tensor_type(x)}) and weight type ({tensor_type(w)}) should be the same{or_else}",
            hint=hint,
            param="weight",
        )
    if x.name in _SMALL_INTS and (dilated or transposed or x.category == BOOL):
        slow = f"slow_conv_transpose{max(dims, 2)}d_out_cpu" if transposed else "slow_conv_dilated<>"
        plain = "compute_columns3d" if dims == 3 else "slow_conv2d_cpu"
        raise not_implemented(slow if dilated or transposed else plain, x)
    if x is not w:
        raise DtypeMismatch(
            f"expected scalar type {scalar_type(x)} but found {scalar_type(w)}", hint=hint, param="weight"
        )


def _check_ranks(input: Spec, weight: Spec, name: str, dims: int) -> None:
    if input.ndim not in (dims + 1, dims + 2):
        raise ShapeMismatch(
            f"Expected {dims + 1}D (unbatched) or {dims + 2}D (batched) input to {name}, but got input of size: "
            f"{text(input.shape)}",
            hint=Hint("conv-rank", input=list(input.shape), dims=dims),
            param="input",
        )
    if weight.ndim < 3:
        raise ShapeMismatch("weight should have at least three dimensions", param="weight")


def _other_rank(x: Shape, w: Shape, space: str) -> ShapeMismatch:
    n = len(w)
    return ShapeMismatch(
        f"Expected {n}-dimensional input for {n}-dimensional weight{space}{text(w)}, but got {len(x)}-dimensional "
        f"input of size {text(x)} instead",
        param="weight",
    )


def _check_channels(x: Shape, w: Shape, bias: Spec | None, groups: int, transposed: bool) -> None:
    which = "transposed=1" if transposed else f"groups={groups}"
    if len(x) != len(w):
        raise _other_rank(x, w, " ")
    if w[0] < groups:
        raise ShapeMismatch(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, but got weight of size "
            f"{text(w)} instead",
            param="weight",
        )
    if w[0] % groups:
        raise ShapeMismatch(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, but got weight of "
            "size "
            f"[{text(w)}] instead",
            param="groups",
        )
    wanted = w[0] if transposed else w[1] * groups
    if x[1] != wanted:
        raise ShapeMismatch(
            f"Given {which}, weight of size {text(w)}, expected input{text(x)} to have {wanted} channels, but got "
            f"{x[1]} "
            "channels instead",
            hint=Hint("conv-channels", have=x[1], want=wanted),
            param="input",
        )
    out = w[1] * groups if transposed else w[0]
    if bias is not None and bias.shape != (out,):
        raise (
            ShapeMismatch(
                f"Given {which}, weight of size {text(w)}, expected bias to be 1-dimensional with {out} elements, but "
                "got bias "
                f"of size {text(bias.shape)} instead",
                param="bias",
            )
            if transposed
            else ShapeMismatch(
                f"Given weight of size {text(w)}, expected bias to be 1-dimensional with {out} elements, but got bias "
                "of size "
                f"{text(bias.shape)} instead",
                param="bias",
            )
        )


def _check_numbers(stride: Shape, dilation: Shape, padding: Sequence[int], groups: int) -> None:
    if any(p < 0 for p in padding):
        raise Invalid("negative padding is not supported", param="padding")
    if any(s <= 0 for s in stride):
        raise Invalid("non-positive stride is not supported", param="stride")
    if any(d < 0 for d in dilation):
        raise Invalid("dilation should be greater than zero", param="dilation")
    if groups <= 0:
        raise Invalid("non-positive groups is not supported", param="groups")


def _check_dilation(dilation: Shape, transposed: bool) -> None:
    """A dilation of zero, which PyTorch's kernels refuse, not what stands before them. One dimension is two to them."""
    if 0 in dilation:
        wide = (1, *dilation) if len(dilation) == 1 else dilation
        names = ("depth", "height", "width")[-len(wide) :]
        named = ", ".join(f"dilation_{name}: {n}" for name, n in zip(names, wide, strict=True))
        shown = named if transposed else text(wide)
        raise Invalid(f"dilation should be greater than zero, but got {shown}", param="dilation")


def _sized(sizes: Sequence[int]) -> str:
    return "(" + " x ".join(map(str, sizes)) + ")"


def _check_empty(x: Shape, kernel: Shape) -> None:
    """Kernels and inputs without a cell. One dimension is two to PyTorch, the first of size 1."""
    kernel = (1, *kernel) if len(kernel) == 1 else kernel
    if 0 in kernel:
        names = ("depth", "height", "width")[-len(kernel) :]
        sizes = " ".join(f"kernel_{name}: {n}" for name, n in zip(names, kernel, strict=True))
        raise ShapeMismatch(f"kernel size should be greater than zero, but got {sizes}", param="weight")
    if 0 in x[2:]:
        shape = (*x[:2], 1, x[2]) if len(x) == 3 else x
        raise ShapeMismatch(f"Only zero batch or zero channel inputs are supported, but got input shape: {text(shape)}")


def geometry_of(
    input: Spec, weight: Spec, bias: Spec | None, stride: Any, padding: Any, dilation: Any, groups: int, dims: int
) -> Geometry:
    """A convolution's geometry. Raises everything that PyTorch refuses, in its words."""
    _check_ranks(input, weight, f"conv{dims}d", dims)
    if padding != "same":
        _check_bias_type(input, bias)
    x = input.shape if input.ndim == dims + 2 else (1, *input.shape)
    w = weight.shape
    spatial = len(w) - 2
    if padding == "same":
        if len(x) != len(w):
            raise _other_rank(x, w, "")
        steps = per_dim(stride, spatial, "stride", dims)
        if any(s != 1 for s in steps):
            raise Invalid("padding='same' is not supported for strided convolutions", param="padding")
    elif isinstance(padding, str) and padding != "valid":
        raise Invalid(f"Invalid padding string: '{padding}'", param="padding")
    strides, dilations = per_dim(stride, spatial, "stride", dims), per_dim(dilation, spatial, "dilation", dims)
    if padding == "same":
        totals = [d * (n - 1) for d, n in zip(dilations, w[2:], strict=True)]
        low: Shape = tuple([t // 2 for t in totals])
        high: Shape = tuple([t - t // 2 for t in totals])
    else:
        low = high = (0,) * spatial if padding == "valid" else per_dim(padding, spatial, "padding", dims)
    _check_numbers(strides, dilations, low, groups)
    _check_channels(x, w, bias, groups, False)
    kernel = w[2:]
    padded = [n + a + b for n, a, b in zip(x[2:], low, high, strict=True)]
    reach = [d * (n - 1) + 1 for n, d in zip(kernel, dilations, strict=True)]
    if any(n < r for n, r in zip(padded, reach, strict=True)):
        raise ShapeMismatch(
            f"Calculated padded input size per channel: {_sized(padded)}. Kernel size: {_sized(reach)}. Kernel size "
            "can't "
            "be greater than actual input size",
            hint=Hint("conv-kernel", input=padded, kernel=reach),
            param="weight",
        )
    _check_empty(x, kernel)
    _check_dilation(dilations, False)
    output = tuple([(n - r) // s + 1 for n, r, s in zip(padded, reach, strides, strict=True)])
    _check_types(input, weight, groups, dims, dilated=any(d > 1 for d in dilations), transposed=False)
    _check_bias_type(input, bias)
    return Geometry(x[2:], output, kernel, strides, low, high, dilations, groups)


def transposed_geometry(
    input: Spec,
    weight: Spec,
    bias: Spec | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
    dims: int,
) -> Geometry:
    """The geometry of the convolution whose gradient this transposed convolution is: its output is our input."""
    _check_ranks(input, weight, f"conv_transpose{dims}d", dims)
    x = input.shape if input.ndim == dims + 2 else (1, *input.shape)
    w = weight.shape
    spatial = len(w) - 2
    steps, dilations = per_dim(stride, spatial, "stride", dims), per_dim(dilation, spatial, "dilation", dims)
    pads = per_dim(padding, spatial, "padding", dims)
    extra = per_dim(output_padding, spatial, "output_padding", dims)
    if any(p < 0 for p in extra):
        raise Invalid("negative output_padding is not supported", param="output_padding")
    _check_numbers(steps, dilations, pads, groups)
    _check_channels(x, w, bias, groups, True)
    if any(e >= s and e >= d for e, s, d in zip(extra, steps, dilations, strict=True)):
        names = ("depth", "height", "width")[-max(spatial, 2) :]
        wide = [extra, steps, dilations] if spatial > 1 else [(0, *extra), (1, *steps), (1, *dilations)]
        said = " ".join(
            f"{what}_{name}: {n}"
            for what, values in zip(("output_padding", "stride", "dilation"), wide, strict=True)
            for name, n in zip(names, values, strict=True)
        )
        raise Invalid(
            f"output padding must be smaller than either stride or dilation, but got {said}", param="output_padding"
        )
    _check_empty(x, w[2:])
    _check_dilation(dilations, True)
    output = tuple(
        [
            (n - 1) * s - 2 * p + d * (m - 1) + e + 1
            for n, s, p, d, m, e in zip(x[2:], steps, pads, dilations, w[2:], extra, strict=True)
        ]
    )
    if any(n <= 0 for n in output):
        given, made = ((1, *s) if spatial == 1 else s for s in (x[2:], output))  # one dimension is two to PyTorch
        raise ShapeMismatch(
            f"Given input size per channel: {_sized(given)}. Calculated output size per channel: {_sized(made)}. "
            "Output size is too small"
        )
    _check_types(input, weight, groups, dims, dilated=False, transposed=True)
    _check_bias_type(input, bias)
    # What the extra padding adds may lie beyond every window: the padding after is then negative in effect.
    return Geometry(output, x[2:], w[2:], steps, pads, pads, dilations, groups)


# ---------------------------------------------------------------- convolutions


def _shape(input: Spec, channels: int, spatial: Shape, dims: int) -> Shape:
    return (*((input.shape[0],) if input.ndim == dims + 2 else ()), channels, *spatial)


def _node(dims: int) -> Any:
    def node(input: Spec, *rest: Any) -> str:
        if input.ndim != dims + 2:
            return "SqueezeBackward1"
        return "AddBackward0" if input.dtype.category == COMPLEX else "ConvolutionBackward0"

    return node


def _convolution(dims: int) -> Declared:
    """Declares conv1d, conv2d or conv3d."""
    name = f"conv{dims}d"
    spatial = ((5,), (4, 4), (3, 3, 3))[dims - 1]
    one = (2,) * dims

    def meta(
        k: K, input: Spec, weight: Spec, bias: Spec | None, stride: Any, padding: Any, dilation: Any, groups: int
    ) -> Spec:
        geo = geometry_of(input, weight, bias, stride, padding, dilation, groups, dims)
        return Spec(_shape(input, weight.shape[0], geo.output, dims), input.dtype)

    def kernel(
        k: K,
        input: Array,
        weight: Array,
        bias: Array | None = None,
        stride: Ints = 1,
        padding: Ints | str = 0,
        dilation: Ints = 1,
        groups: int = 1,
    ) -> Array:
        x = input if input.ndim == dims + 2 else input[None]
        d = k.spec.dtype
        geo = geometry_of(Spec(x.shape, d), Spec(weight.shape, d), None, stride, padding, dilation, groups, dims)
        return forward(k, x, weight, bias, geo).reshape(k.spec.shape)

    def rule(F: Any, saved: Any, g: Any, need: Any) -> Any:
        x, w = saved.input, saved.weight
        d = saved.result.dtype
        single = len(x.shape) == dims + 1
        shape = (1, *x.shape) if single else x.shape
        specs = Spec(tuple(shape), d), Spec(tuple(w.shape), d)
        geo = geometry_of(*specs, None, saved.stride, saved.padding, saved.dilation, saved.groups, dims)
        g = F.reshape(g, (1, *g.shape)) if single else g
        to_x = need.input and F._conv_input(g, F.conj(w), geo)
        to_w = need.weight and F._conv_weight(g, F.conj(F.reshape(x, shape) if single else x), geo)
        if single and need.input:
            to_x = F.reshape(to_x, x.shape)
        return to_x, to_w, need.bias and F.sum(g, [0, *range(2, dims + 2)])

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__doc__ = (
        f"Convolution over {dims} spatial dimension{'s' * (dims > 1)}: the products of a window and the weight, "
        "summed.\n\n"
        f"Shapes: (N, C, {', '.join('DHW'[-dims:])}) or the same without N; weight (out, "
        'C / groups, ...kernel); bias (out). `padding` is a number, one for each dimension, "valid" (none) or "same" '
        "(as much as keeps the sizes; strides must be 1)."
    )
    declared = op(
        family="nn",
        name=f"nn.functional.{name}",
        alias=(name,),
        meta=meta,
        node=_node(dims),
        save={"input": ("weight",), "weight": ("input",)},
        samples=[
            S(T(1, 2, *spatial), T(2, 2, *one), T(2)),
            S(T(2, 2, *spatial), T(2, 2, *one), stride=2, padding=1),
            S(T(1, 2, *spatial), T(4, 1, *one), T(4), groups=2, dilation=[2] * dims if dims < 3 else 1),
            S(T(2, *spatial), T(3, 2, *one), T(3), padding="same"),
            S(T(2, 2, *spatial), T(3, 2, *([1] * dims)), T(3)),
            S(T(0, 2, *spatial), T(2, 2, *one), T(2)),
            S(C(1, 1, *spatial), C(2, 1, *one), C(2)),
            S(I(1, 2, *spatial), I(2, 2, *one), I(2)),
        ],
    )(kernel)
    declared.vjp(rule)
    return declared


def _transposed(dims: int) -> Declared:
    """Declares conv_transpose1d, conv_transpose2d or conv_transpose3d."""
    name = f"conv_transpose{dims}d"
    spatial, one = (3, 2, 2)[:dims], (2,) * dims

    def meta(
        k: K,
        input: Spec,
        weight: Spec,
        bias: Spec | None,
        stride: Any,
        padding: Any,
        output_padding: Any,
        groups: int,
        dilation: Any,
    ) -> Spec:
        geo = transposed_geometry(input, weight, bias, stride, padding, output_padding, groups, dilation, dims)
        return Spec(_shape(input, weight.shape[1] * groups, geo.input, dims), input.dtype)

    def kernel(
        k: K,
        input: Array,
        weight: Array,
        bias: Array | None = None,
        stride: Ints = 1,
        padding: Ints = 0,
        output_padding: Ints = 0,
        groups: int = 1,
        dilation: Ints = 1,
    ) -> Array:
        x = input if input.ndim == dims + 2 else input[None]
        d = k.spec.dtype
        geo = transposed_geometry(
            Spec(x.shape, d), Spec(weight.shape, d), None, stride, padding, output_padding, groups, dilation, dims
        )
        made = to_input(k, x, weight, geo)
        if bias is not None:
            made = made + bias.reshape(1, -1, *([1] * dims))
        return made.reshape(k.spec.shape)

    def rule(F: Any, saved: Any, g: Any, need: Any) -> Any:
        x, w = saved.input, saved.weight
        d = saved.result.dtype
        single = len(x.shape) == dims + 1
        shape = (1, *x.shape) if single else x.shape
        geo = transposed_geometry(
            Spec(tuple(shape), d),
            Spec(tuple(w.shape), d),
            None,
            saved.stride,
            saved.padding,
            saved.output_padding,
            saved.groups,
            saved.dilation,
            dims,
        )
        g = F.reshape(g, (1, *g.shape)) if single else g
        to_x = need.input and F._conv(g, F.conj(w), geo)
        to_w = need.weight and F._conv_weight(F.conj(F.reshape(x, shape) if single else x), g, geo)
        if single and need.input:
            to_x = F.reshape(to_x, x.shape)
        return to_x, to_w, need.bias and F.sum(g, [0, *range(2, dims + 2)])

    kernel.__name__ = kernel.__qualname__ = name
    kernel.__doc__ = (
        f"Transposed convolution over {dims} spatial dimension{'s' * (dims > 1)}: the gradient of a convolution as an "
        "operation.\n\nShapes: (N, C, ...) or the same without N; weight (C, out / groups, ...kernel); bias (out). "
        "Each size "
        "becomes (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1."
    )
    declared = op(
        family="nn",
        name=f"nn.functional.{name}",
        alias=(name,),
        meta=meta,
        node=_node(dims),
        save={"input": ("weight",), "weight": ("input",)},
        samples=[
            S(T(1, 2, *spatial), T(2, 2, *one), T(2)),
            S(T(2, 2, *spatial), T(2, 2, *one), stride=2, padding=1, output_padding=1),
            S(T(1, 2, *spatial), T(2, 2, *one), T(4), groups=2, dilation=2),
            S(T(2, *spatial), T(2, 3, *one), T(3)),
            S(C(1, 1, *spatial), C(1, 2, *one), C(2)),
            S(I(1, 2, *spatial), I(2, 2, *one), I(2)),
        ],
    )(kernel)
    declared.vjp(rule)
    return declared


conv1d, conv2d, conv3d = (_convolution(dims) for dims in (1, 2, 3))
conv_transpose1d, conv_transpose2d, conv_transpose3d = (_transposed(dims) for dims in (1, 2, 3))


# ---------------------------------------------------------------- time first


@composite(
    family="nn",
    alias=("nn.functional.conv_tbc",),
    node="ConvTbcBackward0",
    samples=[
        S(T(4, 2, 3), T(2, 3, 2), T(2)),
        S(T(3, 1, 2), T(3, 2, 2), T(2), 1),
        S(C(3, 2, 1), C(2, 1, 2), C(2)),
        S(T(3, 0, 2), T(2, 2, 3), T(3)),
    ],
)
def conv_tbc(F: Any, input: Array, weight: Array, bias: Array, pad: int = 0) -> Array:
    """Convolution over time, which comes first: (T, N, C) with weight (kernel, C, out) and bias (out).

    T becomes T + 2 * pad - kernel + 1.
    """
    x, w, b = F.shape(input), F.shape(weight), F.shape(bias)
    words = {
        "Input must have 3 dims: time, batch, in_channel": len(x) != 3,
        "Weight tensor must have 3 dims: kernel_width, in_channels, out_channels.": len(w) != 3,
        "Bias must be 1-D": len(b) != 1,
    }
    if not any(words.values()):
        words["Input dim 2 (input channels) is not == dim 1 in the weight tensor"] = x[2] != w[1]
        words["Bias size must equal dim 2 in the weight tensor (output channels)."] = b[0] != w[2]
    for said, wrong in words.items():
        if wrong:
            raise ShapeMismatch(said)
    count = x[0] + 2 * pad - w[0] + 1
    if count < 0:
        made = text((count, x[1], w[2]))
        raise ShapeMismatch(f"Trying to create tensor with negative dimension {count}: {made}", param="input")
    a, d = F.dtype(input), F.dtype(weight)
    if a is not d:
        found = f"{scalar_type(a)} and {scalar_type(d)}"
        raise DtypeMismatch(f"self and mat2 must have the same dtype, but got {found}", param="weight")
    padded = F.constant_pad_nd(input, (0, 0, 0, 0, pad, pad), 0) if pad else input
    seen = [F.narrow(padded, 0, i, count) for i in range(w[0])] or [F.new_zeros(input, (count, x[1], 0))]
    rows = F.reshape(F.cat(seen, 2), (count * x[1], w[0] * w[1]))
    return F.reshape(F.addmm(bias, rows, F.reshape(weight, (w[0] * w[1], w[2]))), (count, x[1], w[2]))
