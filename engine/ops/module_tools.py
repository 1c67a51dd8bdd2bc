"""What torch.nn.utils does with the tensors of modules: one vector of all parameters, and layers made one."""

from __future__ import annotations

from typing import Any

from engine.context import Context, grad_mode
from engine.declare import Array, composite, special
from engine.errors import DtypeMismatch, Invalid, ShapeMismatch
from engine.ops.memory import reseat
from engine.record import REC
from engine.samples import S, T
from engine.shapes import text
from engine.tape import require_grad
from engine.tensor import Tensor

# ---------------------------------------------------------------- parameters as one vector


@composite(
    family="init",
    name="nn.utils.parameters_to_vector",
    node="CatBackward0",
    moves=True,
    samples=[S([T(2, 3), T(3)]), S([T(2)])],
)
def parameters_to_vector(F: Any, parameters: list[Array]) -> Array:
    """All elements of all parameters, one after the other, in one vector."""
    if not parameters:
        raise Invalid("torch.cat(): expected a non-empty list of Tensors", param="parameters")
    return F.cat([F.reshape(p, (-1,)) for p in parameters], 0)


@special(
    family="init",
    name="nn.utils.vector_to_parameters",
    returns="value",
    example={"vec": [0.5, 1.5, 2.5], "parameters": [[3.5], [4.5, 5.5]]},
)
def vector_to_parameters(ctx: Context, vec: Array, parameters: list[Array]) -> None:
    """Makes the parameters the parts of a vector, one after the other; they share its memory from then on."""
    with grad_mode(False):
        whole, at = REC.detach(vec), 0
        for p in parameters:
            if p.dtype is not vec.dtype or p.backend is not vec.backend:
                raise DtypeMismatch(
                    f"the vector is {vec.dtype.name} on {vec.device}, a parameter {p.dtype.name} on {p.device}",
                    param="vec",
                )
            end = min(at + p.numel, vec.numel)
            reseat(ctx, p, REC.view(REC.narrow(whole, 0, at, max(end - at, 0)), list(p.shape)))
            at = end


# ---------------------------------------------------------------- two layers made one


def _parameter(made: Tensor, wanted: bool) -> Tensor:
    if wanted:
        require_grad(made)
    return made


_STATS = [T(2, grad=False), T(2, low=0.5, grad=False), 1e-5, T(2, grad=False), T(2, grad=False)]


@special(
    family="init",
    name="nn.utils.fuse_conv_bn_weights",
    returns="list of Tensors",
    samples=[
        S(T(2, 3, 2, 2), T(2), *_STATS),
        S(T(2, 3, 2), None, *_STATS[:3], None, None),
        S(T(3, 2, 2), T(2), *_STATS, True),
    ],
)
def fuse_conv_bn_weights(
    ctx: Context,
    conv_w: Array,
    conv_b: Array | None,
    bn_rm: Array,
    bn_rv: Array,
    bn_eps: float,
    bn_w: Array | None,
    bn_b: Array | None,
    transpose: bool = False,
) -> list[Tensor]:
    """Weight and bias of the convolution that does what a convolution and a batch norm after it do in evaluation.

    They are leaves, which require grad where those of the convolution do.
    """
    if conv_w.ndim < 2:
        raise ShapeMismatch(
            f"the weight of a convolution has two dimensions at least, not the shape {text(conv_w.shape)}",
            param="conv_w",
        )
    with grad_mode(False):
        bias = REC.zeros_like(bn_rm) if conv_b is None else conv_b
        scale = REC.rsqrt(REC.add(bn_rv, bn_eps))
        gain = scale if bn_w is None else REC.mul(bn_w, scale)
        shape = [1] * conv_w.ndim
        shape[1 if transpose else 0] = -1
        weight = REC.to(REC.mul(conv_w, REC.reshape(gain, shape)), conv_w.dtype.name)
        shift = REC.mul(REC.sub(bias, bn_rm), scale)
        shift = shift if bn_w is None else REC.mul(shift, bn_w)
        shift = shift if bn_b is None else REC.add(shift, bn_b)
        shift = REC.to(shift, (conv_w if conv_b is None else conv_b).dtype.name)
    return [
        _parameter(weight, conv_w.requires_grad),
        _parameter(shift, conv_b is not None and conv_b.requires_grad),
    ]


@special(
    family="init",
    name="nn.utils.fuse_linear_bn_weights",
    returns="list of Tensors",
    samples=[S(T(2, 3), T(2), *_STATS), S(T(2, 3), None, *_STATS)],
)
def fuse_linear_bn_weights(
    ctx: Context,
    linear_w: Array,
    linear_b: Array | None,
    bn_rm: Array,
    bn_rv: Array,
    bn_eps: float,
    bn_w: Array,
    bn_b: Array,
) -> list[Tensor]:
    """Weight and bias of the linear layer that does what a linear layer and a batch norm after it do in evaluation."""
    with grad_mode(False):
        bias = REC.zeros_like(bn_rm) if linear_b is None else linear_b
        scale = REC.mul(bn_w, REC.rsqrt(REC.add(bn_rv, bn_eps)))
        weight = REC.mul(linear_w, REC.to(REC.unsqueeze(scale, -1), linear_w.dtype.name))
        shift = REC.add(REC.mul(REC.sub(bias, bn_rm), scale), bn_b)
        shift = REC.to(shift, (linear_w if linear_b is None else linear_b).dtype.name)
    return [
        _parameter(weight, linear_w.requires_grad),
        _parameter(shift, linear_b is not None and linear_b.requires_grad),
    ]
