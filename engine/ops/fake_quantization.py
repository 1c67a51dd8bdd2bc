"""Numbers as they would be after quantization, still as floats: for training what will be quantized."""

from __future__ import annotations

from math import prod
from typing import Any

from engine.carriers import K
from engine.declare import Array, Dim, Scalar, composite, op
from engine.dtypes import FLOAT, float32, float64, tensor_type
from engine.errors import DtypeMismatch, Invalid, ShapeMismatch
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.ops.losses import undifferentiable
from engine.samples import S, T
from engine.shapes import wrap_dim

_ZEROS = T(3, dtype="int32", values=[0, 1, 2])
_SCALES = T(3, dtype="float32", values=[0.1, 0.2, 0.3], grad=False)


def _check_range(quant_min: int, quant_max: int) -> None:
    if quant_min > quant_max:
        raise Invalid("`quant_min` should be less than or         equal to `quant_max`.", param="quant_min")


def _meta(k: K, input: Spec, scale: Any, zero_point: Any, axis: Any, quant_min: int, quant_max: int) -> Any:
    if input.dtype.category != FLOAT:
        kernel = "fake_quantize_tensor_cachemask_kernel_type_handling"
        raise not_implemented(
            kernel if axis is None else "fake_quantize_channel_cachemask_cpu_type_handling", input.dtype
        )
    return input, Spec(input.shape, float32 if input.dtype.reduced else input.dtype)


@op(family="quantization", meta=_meta, outputs=("result", "mask"), nondiff=("mask",), save={"input": ("mask",)})
def _fake_quantize(
    k: K,
    input: Array,
    scale: Array | Scalar,
    zero_point: Array | Scalar,
    axis: Dim | None,
    quant_min: int,
    quant_max: int,
) -> Array:
    """(clamp(round(x / scale) + zero_point) - zero_point) * scale, and 1 where nothing was clamped, else 0.

    With an `axis`, scale and zero_point are vectors along it. NaN goes to the smallest, as in PyTorch.
    """
    xp = k.xp
    # A tensor has one float32 scale, and PyTorch computes with it in float32 even what is float64.
    wide = xp.float64 if axis is not None and k.spec[0].dtype is float64 else xp.float32
    factor = xp.asarray(scale, dtype=xp.float32)
    inverse = (1.0 / factor).astype(wide)
    whole = axis is None or zero_point.dtype.kind == "i"
    zero = xp.asarray(zero_point)
    zero = (zero.astype("int64") if whole else zero).astype(wide)
    factor = factor.astype(wide)
    if axis is not None:
        shape = [-1 if d == axis % input.ndim else 1 for d in range(input.ndim)]
        factor, inverse, zero = (v.reshape(shape) for v in (factor, inverse, zero))
    else:
        factor, inverse, zero = (v.reshape(()) for v in (factor, inverse, zero))
    scaled = input.astype(wide) * inverse
    places = xp.rint(scaled) + zero if whole else xp.rint(scaled + zero)
    inside = (places >= quant_min) & (places <= quant_max)
    made = (xp.fmin(xp.fmax(places, quant_min), quant_max) - zero) * factor
    return made.astype(k.spec[1].dtype.np), inside.astype(k.spec[1].dtype.np)


@_fake_quantize.guard
def _(k: K, input: Any, scale: Any, zero_point: Any, axis: Any, quant_min: int, quant_max: int) -> None:
    whole = axis is not None and zero_point.dtype.kind == "i" and zero_point.size
    if whole and (int(zero_point.min()) < quant_min or int(zero_point.max()) > quant_max):
        raise Invalid("`zero_point` must be between `quant_min` and `quant_max`.", param="zero_point")


@_fake_quantize.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.mul(g[0], saved.mask), None, None


@composite(
    family="quantization",
    name="_fake_quantize_number",
    joins="fake_quantize_per_tensor_affine",
    node="FakeQuantizePerTensorAffineCachemaskBackward0",
    moves=True,
    samples=[S(T(2, 3), 0.1, 3, 0, 255, gradcheck=False), S(T(), 0.5, 0, -8, 7, gradcheck=False)],
    example={"input": [0.55, -1.3, 30.5], "scale": 0.1, "zero_point": 3, "quant_min": 0, "quant_max": 255},
)
def _by_number(F: Any, input: Array, scale: float, zero_point: int, quant_min: int, quant_max: int) -> Array:
    """The floats that are left of numbers after quantization to whole numbers of [quant_min, quant_max].

    (clamp(round(input / scale) + zero_point) - zero_point) * scale, with ties to even. The gradient passes where
    nothing was clamped, as if there were no rounding. `scale` and `zero_point` may be tensors of one element.
    """
    _check_range(quant_min, quant_max)
    if not quant_min <= zero_point <= quant_max:
        raise Invalid("`zero_point` must be between `quant_min` and `quant_max`.", param="zero_point")
    return F._fake_quantize(input, float(scale), int(zero_point), None, quant_min, quant_max)[0]


@composite(
    family="quantization",
    name="_fake_quantize_tensor",
    joins="fake_quantize_per_tensor_affine",
    node="FakeQuantizePerTensorAffineCachemaskTensorQparamsBackward0",
    moves=True,
    samples=[
        S(
            T(2, 3),
            T(1, dtype="float32", values=[0.1], grad=False),
            T(1, dtype="int32", values=[3]),
            0,
            255,
            gradcheck=False,
        )
    ],
)
def _by_tensors(F: Any, input: Array, scale: Array, zero_point: Array, quant_min: int, quant_max: int) -> Array:
    """The floats that are left of numbers after quantization to whole numbers of [quant_min, quant_max].

    (clamp(round(input / scale) + zero_point) - zero_point) * scale, with ties to even. The gradient passes where
    nothing was clamped, as if there were no rounding. `scale` and `zero_point` may be tensors of one element.
    """
    _check_range(quant_min, quant_max)
    undifferentiable(F, "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams", scale=scale, zero_point=zero_point)
    for name, x in (("scale", scale), ("zero_point", zero_point)):
        count = prod(F.shape(x))
        if count != 1:
            raise ShapeMismatch(f"a Tensor with {count} elements cannot be converted to Scalar", param=name)
        if F.dtype(x).is_complex:
            raise DtypeMismatch(f"{name} is a real number, and not {_called(F.dtype(x))}", param=name)
    return F._fake_quantize(input, scale, zero_point, None, quant_min, quant_max)[0]


@composite(
    family="quantization",
    node="FakeQuantizePerChannelAffineCachemaskBackward0",
    moves=True,
    samples=[
        S(T(2, 3), _SCALES, _ZEROS, 1, 0, 255, gradcheck=False),
        S(T(3, 0), _SCALES, _ZEROS, 0, 0, 255, gradcheck=False),
        S(T(3, 2), _SCALES, T(3, dtype="float32", low=0.0, grad=False), 0, -8, 7, gradcheck=False),
    ],
    example={
        "input": [[0.55, -1.3], [30.5, 0.25]],
        "scale": [0.1, 0.2],
        "zero_point": {"data": [0, 3], "dtype": "int32"},
        "axis": 0,
        "quant_min": 0,
        "quant_max": 255,
    },
)
def fake_quantize_per_channel_affine(
    F: Any, input: Array, scale: Array, zero_point: Array, axis: Dim, quant_min: int, quant_max: int
) -> Array:
    """As `fake_quantize_per_tensor_affine`, with a scale and a zero point for each place along `axis`."""
    undifferentiable(F, "fake_quantize_per_channel_affine_cachemask", scale=scale, zero_point=zero_point)
    kinds = F.dtype(scale), F.dtype(zero_point)
    if kinds[0].name not in ("float32", "bfloat16"):
        raise DtypeMismatch(f"Scale must be Float or BFloat16, found {_called(kinds[0])}", param="scale")
    if kinds[1].name not in ("int32", "float32", "float16"):
        raise DtypeMismatch(f"Zero-point must be Int32, Float or Half, found {_called(kinds[1])}", param="zero_point")
    shapes = F.shape(scale), F.shape(zero_point), F.shape(input)
    for name, shape in (("scale", shapes[0]), ("zero point", shapes[1])):
        if len(shape) != 1:
            raise ShapeMismatch(f"{name} should be a 1-D tensor", param=name.replace(" ", "_"))
    if shapes[0] != shapes[1]:
        raise ShapeMismatch("scale and zero-point need to have the same dimensions", param="zero_point")
    at = wrap_dim(axis, len(shapes[2]), scalar_ok=False)
    if shapes[0][0] != shapes[2][at]:
        raise ShapeMismatch("dimensions of scale and zero-point are not consistent with input tensor", param="scale")
    _check_range(quant_min, quant_max)
    if axis < 0:
        raise Invalid("`axis` must be between 0 and number of dimensions of input", param="axis")
    return F._fake_quantize(input, scale, zero_point, axis, quant_min, quant_max)[0]


def _called(d: Any) -> str:
    return tensor_type(d).removeprefix("torch.").removesuffix("Tensor")
