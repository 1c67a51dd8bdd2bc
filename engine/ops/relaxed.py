"""Samples of a category that have a gradient: the Gumbel-softmax."""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.declare import Array, Dim, composite, op
from engine.dtypes import FLOAT, scalar_type
from engine.errors import DtypeMismatch
from engine.op import Spec
from engine.ops.random import stored
from engine.samples import S, T


def _meta(k: K, input: Spec) -> Spec:
    if input.dtype.category != FLOAT:
        raise DtypeMismatch(
            "Exponential distribution is a continuous probability distribution. dtype must be a floating point but "
            f"you specified {scalar_type(input.dtype)}"
        )
    return input


@op(family="random", meta=_meta, vjp=None, random=True, moves=True)
def _gumbel(k: K, input: Array) -> Array:
    """Gumbel numbers, -log(exponential), in the shape and dtype of `input`, row by row."""
    spec = k.spec
    return k.from_host(stored(k, k.rng.gumbel(spec.numel, spec.dtype.name), spec.dtype)).reshape(spec.shape)


@composite(
    family="random",
    name="nn.functional.gumbel_softmax",
    moves=True,
    random=True,
    samples=[S(T(2, 3), gradcheck=False), S(T(2, 3), 0.5, True, dim=0, gradcheck=False)],
)
def gumbel_softmax(
    F: Any, logits: Array, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: Dim = -1
) -> Array:
    """softmax((logits + Gumbel noise) / tau): a sample of a category that has a gradient (Jang 2017).

    `hard` makes it one-hot, with the gradient of the soft sample. `eps` does nothing.
    """
    soft = F.softmax(F.div(F.add(logits, F._gumbel(logits)), tau), dim)
    if not hard:
        return soft
    places = F.argmax(soft, dim, True)
    chosen = F.scatter(F.zeros_like(F.contiguous(logits)), dim, places, 1.0)
    return F.add(F.sub(chosen, F.detach(soft)), soft)
