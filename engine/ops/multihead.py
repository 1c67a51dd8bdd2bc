"""Attention of several heads, with its projections: torch.nn.functional.multi_head_attention_forward."""

from __future__ import annotations

from math import sqrt
from typing import Any

from engine.declare import Array, composite
from engine.dtypes import BOOL, FLOAT
from engine.errors import Invalid, MissingParameter, ShapeMismatch
from engine.samples import B, S, T
from engine.shapes import text, wrap_dim

MINUS_INFINITY = float("-inf")


def _tuple(shape: Any) -> str:
    values = list(shape)
    return f"({values[0]},)" if len(values) == 1 else f"({', '.join(map(str, values))})"


def _size(shape: Any) -> str:
    return f"torch.Size({text(shape)})"


def _check_ranks(F: Any, query: Any, key: Any, value: Any, padding: Any, mask: Any, heads: int) -> bool:
    """Whether there is a batch dimension. Refuses operands whose ranks do not fit each other."""
    q, k, v = (tuple(F.shape(x)) for x in (query, key, value))
    if len(q) not in (2, 3):
        raise ShapeMismatch(
            f"query should be unbatched 2D or batched 3D tensor but received {len(q)}-D query tensor", param="query"
        )
    batched = len(q) == 3
    kind = f"For {'batched (3-D)' if batched else 'unbatched (2-D)'} `query`, expected"
    if len(k) != len(q) or len(v) != len(q):
        raise ShapeMismatch(
            f"{kind} `key` and `value` to be {len(q)}-D but found {len(k)}-D and {len(v)}-D tensors respectively",
            param="key",
        )
    if padding is not None and len(F.shape(padding)) != len(q) - 1:
        raise ShapeMismatch(
            f"{kind} `key_padding_mask` to be `None` or {len(q) - 1}-D but found {len(F.shape(padding))}-D tensor "
            "instead",
            param="key_padding_mask",
        )
    if mask is not None:
        shape = tuple(F.shape(mask))
        if len(shape) not in (2, 3):
            raise ShapeMismatch(
                f"{kind} `attn_mask` to be `None`, 2-D or 3-D but found {len(shape)}-D tensor instead",
                param="attn_mask",
            )
        wanted = (heads, q[0], k[0])
        if not batched and len(shape) == 3 and shape != wanted:
            raise ShapeMismatch(
                f"Expected `attn_mask` shape to be {_tuple(wanted)} but got {_size(shape)}", param="attn_mask"
            )
    return batched


def _added(F: Any, mask: Any, name: str, like: Any) -> Any:
    """A mask as what is added to the scores: minus infinity where a bool one is true."""
    if mask is None:
        return None
    d = F.dtype(mask)
    if d.category == FLOAT:
        return mask
    if d.category != BOOL:
        raise Invalid(f"only bool and floating types of {name} are supported", param=name)
    return F.masked_fill(F.zeros_like(mask, dtype=F.dtype(like)), mask, MINUS_INFINITY)


def _check_sizes(
    F: Any,
    query: Any,
    key: Any,
    value: Any,
    embed_dim: int,
    heads: int,
    separate: bool,
    weights: tuple[Any, Any, Any, Any],
    bias: Any,
) -> None:
    size = F.shape(query)[-1]
    if size != embed_dim:
        raise ShapeMismatch(
            f"was expecting embedding dimension of {embed_dim}, but got {size}", param="embed_dim_to_check"
        )
    if heads == 0:
        raise Invalid("integer division or modulo by zero", param="num_heads")
    if size // heads * heads != size:
        raise ShapeMismatch(f"embed_dim {size} not divisible by num_heads {heads}", param="num_heads")
    k, v = tuple(F.shape(key)), tuple(F.shape(value))
    if not separate:
        if k != v:
            raise ShapeMismatch(f"key shape {_size(k)} does not match value shape {_size(v)}", param="value")
        if weights[0] is None:
            raise MissingParameter(
                "use_separate_proj_weight is False but in_proj_weight is None", param="in_proj_weight"
            )
        return
    if k[:2] != v[:2]:
        raise ShapeMismatch(
            f"key's sequence and batch dims {_size(k[:2])} do not match value's {_size(v[:2])}", param="value"
        )
    for name, weight in zip(("q", "k", "v"), weights[1:], strict=True):
        if weight is None:
            raise MissingParameter(
                f"use_separate_proj_weight is True but {name}_proj_weight is None", param=f"{name}_proj_weight"
            )
    for name, weight, of in zip(("query", "key", "value"), weights[1:], (query, key, value), strict=True):
        wanted, have = (size, F.shape(of)[-1]), tuple(F.shape(weight))
        if have != wanted:
            raise ShapeMismatch(
                f"expecting {name} weights shape of {_tuple(wanted)}, but got {_size(have)}",
                param=f"{name[0]}_proj_weight",
            )
    if bias is not None:
        for name, b in zip(("query", "key", "value"), F.chunk(bias, 3), strict=False):
            if tuple(F.shape(b)) != (size,):
                raise ShapeMismatch(
                    f"expecting {name} bias shape of {_tuple((size,))}, but got {_size(F.shape(b))}",
                    param="in_proj_bias",
                )


def _projected(F: Any, inputs: Any, weights: tuple[Any, Any, Any, Any], bias: Any, separate: bool) -> list[Any]:
    size = F.shape(inputs[0])[-1]
    if separate:
        parts = weights[1:]
        shifts = [None] * 3 if bias is None else F.chunk(bias, 3)
    else:
        if inputs[0] is inputs[1] and inputs[1] is inputs[2]:  # one product for all three
            made = F.linear(inputs[0], weights[0], bias)
            return [F.narrow(made, -1, i * size, size) for i in range(3)]
        parts = F.chunk(weights[0], 3)
        shifts = [None] * 3 if bias is None else F.chunk(bias, 3)
    for rows in (parts, shifts):
        if len(rows) != 3:
            words = f"not enough values to unpack (expected 3, got {len(rows)})"
            raise ShapeMismatch(words, param="in_proj_weight" if rows is parts else "in_proj_bias")
    return [F.linear(x, w, b) for x, w, b in zip(inputs, parts, shifts, strict=True)]


def _shaped_mask(F: Any, mask: Any, batch: int, heads: int, rows: int, columns: int) -> Any:
    shape = tuple(F.shape(mask))
    wanted = (rows, columns) if len(shape) == 2 else (batch * heads, rows, columns)
    if len(shape) not in (2, 3):
        raise ShapeMismatch(f"attn_mask's dimension {len(shape)} is not supported", param="attn_mask")
    if shape != wanted:
        raise ShapeMismatch(
            f"The shape of the {len(shape)}D attn_mask is {_size(shape)}, but should be {_tuple(wanted)}.",
            param="attn_mask",
        )
    return F.unsqueeze(mask, 0) if len(shape) == 2 else mask


def _check_static(F: Any, x: Any, name: str, batch: int, size: int) -> None:
    shape = F.shape(x)
    for at, wanted in ((0, batch), (2, size)):
        if shape[wrap_dim(at, len(shape))] != wanted:
            raise ShapeMismatch(f"expecting {name}.size({at}) of {wanted}, but got {shape[at]}", param=name)


def _one_more(F: Any, x: Any) -> Any:
    return None if x is None else F.pad(x, [0, 1])


def _heads(F: Any, x: Any, batch: int, size: int) -> Any:
    """(length, batch, features) as (batch * heads, length, features of a head)."""
    return F.transpose(F.reshape(x, (F.shape(x)[0], batch, size)), 0, 1)


def _drawn(*given: Any, **more: Any) -> S:
    """A sample with projections of an embedding of 4 and 2 heads."""
    return S(*given, 4, 2, T(12, 4), T(12), None, None, False, 0.0, T(4, 4), T(4), **{"training": False, **more})


@composite(
    family="nn",
    name="nn.functional.multi_head_attention_forward",
    returns="list of Tensors",
    samples=[
        _drawn(T(3, 2, 4), T(2, 2, 4), T(2, 2, 4)),
        _drawn(T(3, 4), T(2, 4), T(2, 4), attn_mask=T(3, 2)),
        _drawn(T(3, 2, 4), T(2, 2, 4), T(2, 2, 4), key_padding_mask=T(2, 2), average_attn_weights=False),
        _drawn(T(2, 1, 4), T(2, 1, 4), T(2, 1, 4), attn_mask=B(2, 2), gradcheck=False),
        S(
            T(3, 2, 4),
            T(2, 2, 3),
            T(2, 2, 5),
            4,
            2,
            None,
            T(12),
            T(1, 1, 4),
            T(1, 1, 4),
            True,
            0.0,
            T(4, 4),
            T(4),
            use_separate_proj_weight=True,
            q_proj_weight=T(4, 4),
            k_proj_weight=T(4, 3),
            v_proj_weight=T(4, 5),
        ),
    ],
)
def multi_head_attention_forward(
    F: Any,
    query: Array,
    key: Array,
    value: Array,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Array | None,
    in_proj_bias: Array | None,
    bias_k: Array | None,
    bias_v: Array | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Array,
    out_proj_bias: Array | None,
    training: bool = True,
    key_padding_mask: Array | None = None,
    need_weights: bool = True,
    attn_mask: Array | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Array | None = None,
    k_proj_weight: Array | None = None,
    v_proj_weight: Array | None = None,
    static_k: Array | None = None,
    static_v: Array | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Array:
    """Attention in `num_heads` parts of the embedding, with the projections before and after it (Vaswani 2017).

    Shapes: query (L, N, E), key and value (S, N, E), or all without N; in_proj_weight (3 E, E), out_proj_weight (E, E).
    Gives the output (L, N, E) and the weights (N, L, S), their mean over the heads, or with `average_attn_weights`
    false (N, heads, L, S); null for them without `need_weights`. Bool masks are true where nothing is attended to.
    """
    batched = _check_ranks(F, query, key, value, key_padding_mask, attn_mask, num_heads)
    same = query is key and key is value
    if not batched:
        query = F.unsqueeze(query, 1)
        key, value = (query, query) if same else (F.unsqueeze(key, 1), F.unsqueeze(value, 1))
        key_padding_mask = None if key_padding_mask is None else F.unsqueeze(key_padding_mask, 0)
    length, batch, size = F.shape(query)
    padding = _added(F, key_padding_mask, "key_padding_mask", query)
    if is_causal and attn_mask is None:
        raise Invalid(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
            "`generate_square_subsequent_mask` to create this mask.",
            param="attn_mask",
        )
    if is_causal and padding is None and not need_weights:
        mask = None
    else:
        mask = _added(F, attn_mask, "attn_mask", query)
        is_causal = is_causal and padding is None
    weights = (in_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight)
    _check_sizes(F, query, key, value, embed_dim_to_check, num_heads, use_separate_proj_weight, weights, in_proj_bias)
    each = size // num_heads
    q, k, v = _projected(F, (query, key, value), weights, in_proj_bias, use_separate_proj_weight)
    if mask is not None:
        mask = _shaped_mask(F, mask, batch, num_heads, length, F.shape(key)[0])
    if (bias_k is None) != (bias_v is None):
        have, lacks = ("bias_k", "bias_v") if bias_v is None else ("bias_v", "bias_k")
        raise MissingParameter(f"{have} is set but {lacks} is None", param=lacks)
    if bias_k is not None:
        for static, name in ((static_k, "key"), (static_v, "value")):
            if static is not None:
                raise Invalid(f"bias cannot be added to static {name}.", param=f"static_{name[0]}")
        k = F.cat([k, F.repeat(bias_k, [1, batch, 1])])
        v = F.cat([v, F.repeat(bias_v, [1, batch, 1])])
        mask, padding = _one_more(F, mask), _one_more(F, padding)
    parts = batch * num_heads
    q = _heads(F, q, parts, each)
    for static, name in ((static_k, "static_k"), (static_v, "static_v")):
        if static is not None:
            _check_static(F, static, name, parts, each)
    k = _heads(F, k, parts, each) if static_k is None else static_k
    v = _heads(F, v, parts, each) if static_v is None else static_v
    if add_zero_attn:
        nothing = F.new_zeros(k, [parts, 1, each])
        k, v = F.cat([k, nothing], 1), F.cat([v, nothing], 1)
        mask, padding = _one_more(F, mask), _one_more(F, padding)
    columns = F.shape(k)[1]
    if padding is not None:
        for at, wanted in ((0, batch), (1, columns)):
            if F.shape(padding)[at] != wanted:
                raise ShapeMismatch(
                    f"Expected key_padded_mask.shape[{at}] to be {wanted}, but got {F.shape(padding)[at]}",
                    param="key_padding_mask",
                )
        spread = F.expand(F.reshape(padding, (batch, 1, 1, columns)), (batch, num_heads, 1, columns))
        spread = F.reshape(spread, (parts, 1, columns))
        mask = spread if mask is None else F.add(mask, spread)
    chance = dropout_p if training else 0.0
    if need_weights:
        scaled = F.mul(q, sqrt(1.0 / each))
        scores = F.bmm(scaled, F.transpose(k, -2, -1))
        if mask is not None:
            scores = F.add(mask, scores)
        shares = F.softmax(scores, -1)
        if chance > 0:
            shares = F.dropout(shares, chance, True)
        made = F.bmm(shares, v)
        made = F.reshape(F.transpose(made, 0, 1), (length * batch, size))
    else:
        if mask is not None:
            first = F.shape(mask)[0]
            lead = (1, 1) if first == 1 and parts != 1 else (batch, num_heads)
            mask = F.reshape(mask, (*lead, *F.shape(mask)[1:]))
        q, k, v = (F.reshape(x, (batch, num_heads, F.shape(x)[1], each)) for x in (q, k, v))
        made = F.scaled_dot_product_attention(q, k, v, mask, chance, is_causal)
        made = F.reshape(F.permute(made, [2, 0, 1, 3]), (batch * length, size))
    made = F.linear(made, out_proj_weight, out_proj_bias)
    made = F.reshape(made, (length, batch, F.shape(made)[1]))
    if not need_weights:
        return [made if batched else F.squeeze(made, 1), None]
    shares = F.reshape(shares, (batch, num_heads, length, columns))
    if average_attn_weights:
        shares = F.mean(shares, 1)
    return [made, shares] if batched else [F.squeeze(made, 1), F.squeeze(shares, 0)]
