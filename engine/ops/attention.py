"""Attention."""

from __future__ import annotations

from math import sqrt
from typing import Any

from engine.declare import Array, composite
from engine.dtypes import BOOL, C_NAMES
from engine.errors import Call, DtypeMismatch, Hint, Invalid, Param, ShapeMismatch
from engine.samples import B, S, T
from engine.shapes import broadcast_two, wrap_dim

MINUS_INFINITY = float("-inf")


def _check(F: Any, query: Any, key: Any, value: Any, mask: Any, is_causal: bool) -> None:
    ranks = [len(F.shape(x)) for x in (query, key, value)]
    if min(ranks) < 2:
        raise ShapeMismatch(
            f"Expected query, key, and value to all be  at least 2 dimensional, but got query.dim: {ranks[0]} key.dim: "
            f"{ranks[1]} and value.dim: {ranks[2]} instead."
        )
    types = [F.dtype(x) for x in (query, key, value)]
    if types[1] is not types[0] or types[2] is not types[0]:
        names = [C_NAMES[d.name] for d in types]
        odd = "key" if types[1] is not types[0] else "value"
        raise DtypeMismatch(
            f"Expected query, key, and value to have the same dtype, but got query.dtype: {names[0]} key.dtype: "
            f"{names[1]} "
            f"and value.dtype: {names[2]} instead.",
            hint=Hint(
                "cast-one",
                Call("to", {"input": Param(odd), "dtype": types[0].name}),
                a=types[0].name,
                b=types[1].name,
                param=odd,
            ),
            param=odd,
        )
    if mask is None:
        return
    if is_causal:
        raise Invalid(
            "_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True", param="attn_mask"
        )
    d = F.dtype(mask)
    if d.category != BOOL and d is not types[0] and d.name != "float32":
        raise DtypeMismatch(
            "Expected attn_mask dtype to be bool or float or to match query dtype, but got attn_mask.dtype: "
            f"{C_NAMES[d.name]} and  query.dtype: {C_NAMES[types[0].name]} instead.",
            param="attn_mask",
        )


def _repeated(F: Any, x: Any, heads: int) -> Any:
    """Each head of keys or values as often as there are heads of queries for it."""
    *lead, have, rows, size = F.shape(x)
    times = heads // have
    spaced = F.expand(F.reshape(x, (*lead, have, 1, rows, size)), (*lead, have, times, rows, size))
    return F.reshape(spaced, (*lead, have * times, rows, size))


@composite(
    family="nn",
    name="nn.functional.scaled_dot_product_attention",
    samples=[
        S(T(1, 2, 3), T(1, 4, 3), T(1, 4, 2)),
        S(T(1, 2, 2, 3), T(1, 2, 3, 3), T(1, 2, 3, 3), B(2, 3)),
        S(T(2, 2, 3), T(2, 3, 3), T(2, 3, 3), T(2, 3)),
        S(T(2, 3, 3), T(2, 3, 3), T(2, 3, 3), is_causal=True),
        S(T(2, 3), T(4, 3), T(4, 2), scale=0.5),
        S(T(1, 4, 2, 3), T(1, 2, 3, 3), T(1, 2, 3, 3), enable_gqa=True),
    ],
)
def scaled_dot_product_attention(
    F: Any,
    query: Array,
    key: Array,
    value: Array,
    attn_mask: Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Array:
    """softmax(query @ key.T * scale + mask) @ value.

    Shapes: (..., L, E), (..., S, E) and (..., S, V) give (..., L, V). A bool mask says who may be attended to; any
    other is added. `is_causal` lets no query see a later key. Without `scale` it is 1 / sqrt(E). A query that may
    attend to nothing gets zeros.
    """
    _check(F, query, key, value, attn_mask, is_causal)
    if enable_gqa:
        wrap_dim(-3, min(len(F.shape(x)) for x in (query, key, value)))
        heads = F.shape(query)[-3]
        if heads % (F.shape(key)[-3] or 1) or heads % (F.shape(value)[-3] or 1):
            raise ShapeMismatch(
                "Number of heads in key and value must divide the number of heads in query", param="enable_gqa"
            )
        key, value = _repeated(F, key, heads), _repeated(F, value, heads)
    rows, size = F.shape(query)[-2:]
    columns = F.shape(key)[-2]
    factor = (1.0 / sqrt(size) if size else 1.0) if scale is None else scale
    scores = F.matmul(F.mul(query, factor), F.transpose(key, -2, -1))
    nothing = None
    if is_causal:
        scores = F.add(scores, F.triu(F.new_full(scores, [rows, columns], MINUS_INFINITY), 1))
    elif attn_mask is not None:
        if F.dtype(attn_mask).category == BOOL:
            broadcast_two(tuple(F.shape(scores)), tuple(F.shape(attn_mask)))
            scores = F.where(attn_mask, scores, MINUS_INFINITY)
        else:
            scores = F.add(scores, F.to(attn_mask, F.dtype(scores)))
        nothing = F.all(F.eq(scores, MINUS_INFINITY), -1, True)
        scores = F.where(nothing, 0.0, scores)
    weights = F.softmax(scores, -1)
    if nothing is not None:
        weights = F.where(nothing, 0.0, weights)
    if dropout_p:
        weights = F.dropout(weights, dropout_p, True)
    return F.matmul(weights, value)
