"""Losses over a distance of one's own: a function, which is a program given as an argument."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from engine import metas
from engine.context import Context
from engine.declare import Array, Function, special
from engine.errors import Invalid, ShapeMismatch
from engine.op import Spec
from engine.ops.functional import tensors_of
from engine.ops.losses import Reduction
from engine.record import REC
from engine.tensor import Tensor

_NAME = "nn.functional.triplet_margin_with_distance_loss"


def _meta(
    k: Any, anchor: Any, positive: Any, negative: Any, distance: Any, margin: float, swap: bool, reduction: str
) -> Spec:
    """`distance`: what one call of the function gives; None for pairwise_distance."""
    if distance is None:
        joint = metas.broadcast(k, anchor, positive, negative)
        distance = Spec(joint.shape[:-1], joint.dtype)
    distance = distance[0] if type(distance) is list else distance
    return distance if reduction == "none" else Spec((), distance.dtype)


@special(
    family="losses",
    name=_NAME,
    meta=_meta,
    example={
        "anchor": [[0.5, 1.5], [2.5, 3.5]],
        "positive": [[0.25, 1.75], [2.25, 3.75]],
        "negative": [[4.5, 0.5], [0.5, 5.5]],
        "distance_function": {
            "inputs": ["a", "b"],
            "steps": [
                {"op": "sub", "args": {"input": "a", "other": "b"}, "out": "d"},
                {"op": "abs", "args": {"input": "d"}, "out": "d"},
                {"op": "sum", "args": {"input": "d", "dim": -1}, "out": "d"},
            ],
            "return": "d",
        },
    },
)
def triplet_margin_with_distance_loss(
    ctx: Context,
    anchor: Array,
    positive: Array,
    negative: Array,
    distance_function: Function | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: Reduction = "mean",
) -> Generator[None, None, Tensor]:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), with a distance d of two tensors that is a function.

    Null is `pairwise_distance`. `swap` takes d(positive, negative) instead where that is smaller.
    """
    if margin <= 0:
        raise Invalid(f"margin must be greater than 0, got {margin}", param="margin")
    ranks = [x.ndim for x in (anchor, positive, negative)]
    if len(set(ranks)) != 1:
        raise ShapeMismatch(
            "The anchor, positive, and negative tensors are expected to have the same number of dimensions, but got: "
            f"anchor {ranks[0]}D, positive {ranks[1]}D, and negative {ranks[2]}D inputs",
            param="positive",
        )

    def distance(a: Tensor, b: Tensor) -> Generator[None, None, Tensor]:
        if distance_function is None:
            return REC.pairwise_distance(a, b)  # type: ignore[no-any-return]
        many, found = tensors_of((yield from distance_function([a, b])), "outputs of the distance function", _NAME)
        if many:
            raise Invalid("the distance function returns one tensor", code="one-output", param="distance_function")
        return found[0]

    near = yield from distance(anchor, positive)
    far = yield from distance(anchor, negative)
    if swap:
        far = REC.minimum(far, (yield from distance(positive, negative)))
    losses = REC.clamp_min(REC.sub(REC.add(near, margin), far), 0)
    made: Tensor = REC.mean(losses) if reduction == "mean" else REC.sum(losses) if reduction == "sum" else losses
    return made
