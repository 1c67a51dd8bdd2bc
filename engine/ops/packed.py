"""Sequences of several lengths: padded to one, packed without padding, and recurrent networks over packed ones.

A packed sequence is what PyTorch's PackedSequence holds: `data`, the steps of all sequences, first the first step of
each, then the second of those that have one; `batch_sizes`, how many they are at each step; and, where the sequences
were sorted by length first, the order and its inverse. As a parameter it is a list of these two or four tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from typing import Any, Literal

import numpy as np

from engine.context import Context
from engine.declare import Array, composite, special
from engine.dtypes import int64, scalar_type
from engine.errors import DtypeMismatch, Hint, Invalid, ShapeMismatch, WrongType
from engine.op import Spec
from engine.ops.recurrent import (
    check_step,
    gru_layer,
    hidden_fits,
    lstm_layer,
    plain_layer,
    weights_of,
)
from engine.ops.values import host_values
from engine.record import REC
from engine.samples import I, S, T
from engine.shapes import text, wrap_dim
from engine.tensor import Tensor, fresh

FAMILY = "recurrent"


def _numbers(ctx: Context, values: Any, like: Tensor) -> Tensor:
    """Whole numbers as a tensor on the device of another."""
    host = np.asarray(values, dtype=np.int64)
    return fresh(like.backend.from_host(host), Spec(host.shape, int64), like.backend, ctx.ledger)


def _on_cpu(ctx: Context, values: Any) -> Tensor:
    host = np.asarray(values, dtype=np.int64)
    return fresh(host, Spec(host.shape, int64), ctx.find("cpu"), ctx.ledger)


def _whole(t: Tensor, param: str = "lengths") -> list[int]:
    """Numbers as C++ converts them to int64."""
    _real(t, param)
    with np.errstate(invalid="ignore"):
        return host_values(t).reshape(-1).astype(np.int64).tolist()  # type: ignore[no-any-return]


def _real(t: Tensor, param: str) -> None:
    if t.dtype.is_complex:
        raise DtypeMismatch(f"{param} are whole numbers, and {scalar_type(t.dtype)} has none", param=param)


# ---------------------------------------------------------------- padding


@composite(
    family=FAMILY,
    name="nn.utils.rnn.pad_sequence",
    node="CopySlices",
    moves=True,
    samples=[
        S([T(2, 2), T(3, 2)]),
        S([T(3), T(1), T(2)], True, 1.5, "left"),
        S([I(2), I(3)], padding_value=7.0),
        S([T(2), T(0)], True),
    ],
)
def pad_sequence(
    F: Any,
    sequences: list[Array],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Array:
    """Sequences of several lengths L_i x * as one tensor, max(L) x N x *, or N x max(L) x * with `batch_first`."""
    if not sequences:
        raise Invalid("received an empty list of sequences", param="sequences")
    if padding_side not in ("left", "right"):
        raise Invalid(
            f"Expected padding_side to be one of left or right, but got {padding_side}.", param="padding_side"
        )
    shapes = [tuple(F.shape(s)) for s in sequences]
    if not all(shapes):
        raise ShapeMismatch("a sequence has at least one dimension, and this one has none", param="sequences")
    rest, d = shapes[0][1:], F.dtype(sequences[0])
    for shape in shapes:
        if shape[1:] != rest:
            raise ShapeMismatch(
                f"the sequences may differ in their first dimension alone, and one has the shape {text(shape)} where "
                f"the first has {text(shapes[0])}",
                param="sequences",
            )
    longest = max(shape[0] for shape in shapes)
    padded = []
    for s, shape in zip(sequences, shapes, strict=True):
        missing = longest - shape[0]
        widths = (missing, 0) if padding_side == "left" else (0, missing)
        cast = s if F.dtype(s) is d else F._to_dtype(s, d)
        value = padding_value if d.is_floating or d.is_complex else int(padding_value)
        padded.append(F.constant_pad_nd(cast, (*(0,) * (2 * len(rest)), *widths), value))
    return F.stack(padded, 0 if batch_first else 1)


def _lengths(t: Tensor, batch: int, longest: int) -> list[int]:
    """How many elements of each of the sequences count: those whose place is below the length."""
    _real(t, "lengths")
    found = host_values(t).reshape(-1).tolist()
    if t.ndim != 1 or len(found) != batch:
        raise ShapeMismatch(
            f"lengths has one number for each of the {batch} sequences, and its shape is {text(t.shape)}",
            param="lengths",
        )
    return [ceil(min(max(n, 0), longest)) if n == n else 0 for n in found]


@special(
    family=FAMILY,
    name="nn.utils.rnn.unpad_sequence",
    returns="list of Tensors",
    samples=[
        S(T(3, 2), I(2, values=[3, 1])),
        S(T(2, 3, 2), I(2, values=[1, 2]), True),
        S(T(2, 2), I(2, values=[0, 2])),
    ],
)
def unpad_sequence(ctx: Context, padded_sequences: Array, lengths: Array, batch_first: bool = False) -> list[Tensor]:
    """The sequences that were padded, each with its own length again."""
    if padded_sequences.ndim < 2:
        wrap_dim(1, padded_sequences.ndim, scalar_ok=False)
    across, along = (0, 1) if batch_first else (1, 0)
    wanted = _lengths(lengths, padded_sequences.shape[across], padded_sequences.shape[along])
    rows = REC.unbind(padded_sequences, across)
    return [REC._index(row, [_numbers(ctx, range(n), row)], (0,)) for row, n in zip(rows, wanted, strict=True)]


# ---------------------------------------------------------------- packing

_PARTS = ("data", "batch_sizes", "sorted_indices", "unsorted_indices")


@composite(family=FAMILY, node="PackPaddedSequenceBackward0", moves=True)
def _pack(F: Any, input: Array, places: Array) -> Array:
    """The rows of a padded batch, L x N x *, at places counted through its first two dimensions."""
    shape = F.shape(input)
    return F._index(F.reshape(input, (shape[0] * shape[1], *shape[2:])), [places], (0,))


def _packed(ctx: Context, input: Tensor, lengths: Tensor, batch_first: bool, enforce_sorted: bool) -> list[Any]:
    if lengths.ndim != 1:
        raise ShapeMismatch(
            f"'lengths' argument should be a 1D CPU int64 tensor, but got {lengths.ndim}D {lengths.backend.kind} "
            f"{scalar_type(int64)} tensor",
            param="lengths",
        )
    if input.ndim < 2:
        wrap_dim(1, input.ndim, scalar_ok=False)
    x = REC.transpose(input, 0, 1) if batch_first else input
    wanted = _whole(lengths)
    if not input.numel:
        raise Invalid("Cannot pack empty tensors.", param="input")
    steps, batch = x.shape[:2]
    if len(wanted) != batch:
        raise ShapeMismatch(
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(wanted)} (batch_size={batch})",
            param="lengths",
        )
    order = None
    if not enforce_sorted:
        order = sorted(range(batch), key=lambda i: -wanted[i])
        wanted = [wanted[i] for i in order]
        x = REC.index_select(x, 1, _numbers(ctx, order, x))
    if wanted[-1] <= 0:
        raise Invalid(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0",
            param="lengths",
        )
    if any(a < b for a, b in pairwise(wanted)):
        raise Invalid(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass "
            "`enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this requirement if you "
            "do not need ONNX exportability.",
            param="lengths",
            hint=Hint("not-sorted"),
        )
    if wanted[0] > steps:
        raise ShapeMismatch(
            f"a sequence of {wanted[0]} steps does not fit the {steps} steps of the input", param="lengths"
        )
    sizes = [sum(n > t for n in wanted) for t in range(wanted[0])]
    places = np.concatenate([t * batch + np.arange(size) for t, size in enumerate(sizes)])
    data = REC._pack(x, _numbers(ctx, places, x))
    if order is None:
        return [data, _on_cpu(ctx, sizes), None, None]
    back = np.argsort(order, kind="stable")
    return [data, _on_cpu(ctx, sizes), _numbers(ctx, order, x), _numbers(ctx, back, x)]


_PADDED = T(3, 2, 2)


@special(
    family=FAMILY,
    name="nn.utils.rnn.pack_padded_sequence",
    outputs=_PARTS,
    fields=True,
    samples=[
        S(_PADDED, I(2, values=[3, 1])),
        S(_PADDED, I(3, values=[1, 2, 2]), True, False),
        S(T(2, 2), I(2, values=[2, 1])),
    ],
)
def pack_padded_sequence(
    ctx: Context, input: Array, lengths: Array, batch_first: bool = False, enforce_sorted: bool = True
) -> list[Any]:
    """Padded sequences, L x N x * (N x L x * with `batch_first`), packed: an object of `data`, `batch_sizes`.

    `enforce_sorted` false sorts the sequences by length first, and gives `sorted_indices` and `unsorted_indices` as
    well. Pass the object, or a list of its tensors, as `sequence`; `lstm`, `gru` and the like take `data` and
    `batch_sizes`.
    """
    return _packed(ctx, input, lengths, batch_first, enforce_sorted)


@special(
    family=FAMILY,
    name="nn.utils.rnn.pack_sequence",
    outputs=_PARTS,
    fields=True,
    samples=[S([T(3, 2), T(1, 2)]), S([T(1), T(2)], False)],
)
def pack_sequence(ctx: Context, sequences: list[Array], enforce_sorted: bool = True) -> list[Any]:
    """Sequences of several lengths, each L_i x *, packed: as `pack_padded_sequence`."""
    padded = getattr(REC, "nn.utils.rnn.pad_sequence")(sequences)
    return _packed(ctx, padded, _on_cpu(ctx, [s.shape[0] for s in sequences]), False, enforce_sorted)


def _parts(sequence: Sequence[Any], param: str) -> tuple[Tensor, list[int], Tensor | None]:
    """(data, batch sizes, the order that undoes the sorting) of a packed sequence, checked."""
    if len(sequence) not in (2, 3, 4) or sequence[0] is None or sequence[1] is None:
        raise WrongType(
            "a packed sequence is a list of data and batch_sizes, and of sorted_indices and unsorted_indices where "
            "there are any",
            param=param,
        )
    data, sizes = sequence[0], sizes_of(sequence[1], sequence[0], param)
    if sum(sizes) != data.shape[0]:
        raise ShapeMismatch(f"the batch sizes add up to {sum(sizes)}, and data has {data.shape[0]} rows", param=param)
    back = sequence[3] if len(sequence) == 4 else None
    if back is not None and back.shape != (sizes[0],):
        raise ShapeMismatch(f"unsorted_indices has {sizes[0]} numbers, not the shape {text(back.shape)}", param=param)
    return data, sizes, back


def sizes_of(batch_sizes: Tensor, data: Tensor, param: str) -> list[int]:
    """The batch sizes of a packed sequence as numbers, checked: whole, positive, and never growing."""
    if batch_sizes.dtype is not int64:
        raise WrongType(f"expected scalar type Long but found {scalar_type(batch_sizes.dtype)}", param=param)
    sizes = _whole(batch_sizes, param)
    if batch_sizes.ndim != 1 or not sizes or data.ndim < 1:
        raise ShapeMismatch("batch_sizes is a vector with a number for each step, one at least", param=param)
    if sizes[-1] < 1 or any(a < b for a, b in pairwise(sizes)):
        raise Invalid("batch_sizes are positive and never grow from one step to the next", param=param)
    return sizes


def _padded(
    ctx: Context, sequence: Sequence[Any], batch_first: bool, padding_value: float, total: int | None, param: str
) -> list[Tensor]:
    data, sizes, back = _parts(sequence, param)
    steps = len(sizes)
    if total is not None:
        if total < steps:
            raise Invalid(
                "Expected total_length to be at least the length of the longest sequence in input, but got "
                f"total_length={total} and max sequence length being {steps}",
                param="total_length",
            )
        steps = total
    made = REC._unpack(data, tuple(sizes), steps, padding_value)
    if batch_first:
        made = REC.transpose(made, 0, 1)
    lengths = np.asarray([sum(size > i for size in sizes) for i in range(sizes[0])], dtype=np.int64)
    if back is not None:
        made = REC.index_select(made, 0 if batch_first else 1, back)
        lengths = lengths[_whole(back, "unsorted_indices")]
    return [made, _on_cpu(ctx, lengths)]


@composite(family=FAMILY, node="CopySlices", moves=True)
def _unpack(F: Any, data: Array, sizes: Any, steps: Any, padding_value: Any) -> Array:
    """The padded batch, steps x N x *, of packed data."""
    rest, batch = F.shape(data)[1:], sizes[0]
    d = F.dtype(data)
    value = padding_value if d.is_floating or d.is_complex else int(padding_value)
    nothing = (0,) * (2 * len(rest))
    rows = [
        F.constant_pad_nd(part, (*nothing, 0, batch - size), value)
        for part, size in zip(F.split_with_sizes(data, list(sizes), 0), sizes, strict=True)
    ]
    made = F.stack(rows, 0)
    return F.constant_pad_nd(made, (*nothing, 0, 0, 0, steps - len(sizes)), value)


_DATA, _SIZES = T(5, 2), I(3, values=[2, 2, 1])


@special(
    family=FAMILY,
    name="nn.utils.rnn.pad_packed_sequence",
    returns="list of Tensors",
    samples=[
        S([_DATA, _SIZES]),
        S([T(4), I(3, values=[2, 1, 1]), None, I(2, values=[1, 0])], True, -1.0, 4),
    ],
)
def pad_packed_sequence(
    ctx: Context,
    sequence: list[Array | None],
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> list[Tensor]:
    """The padded batch, L x N x * (N x L x * with `batch_first`), of a packed sequence, and the length of each."""
    return _padded(ctx, sequence, batch_first, padding_value, total_length, "sequence")


@special(
    family=FAMILY,
    name="nn.utils.rnn.unpack_sequence",
    returns="list of Tensors",
    samples=[S([_DATA, _SIZES]), S([T(4), I(3, values=[2, 1, 1]), None, I(2, values=[1, 0])])],
)
def unpack_sequence(ctx: Context, packed_sequences: list[Array | None]) -> list[Tensor]:
    """The sequences, each with its own length, of a packed sequence."""
    padded, lengths = _padded(ctx, packed_sequences, True, 0.0, None, "packed_sequences")
    return unpad_sequence.op.run((padded, lengths, True))  # type: ignore[no-any-return]


@special(
    family=FAMILY,
    name="nn.utils.rnn.invert_permutation",
    returns="Tensor or null",
    samples=[S(I(3, values=[2, 0, 1]))],
)
def invert_permutation(ctx: Context, permutation: Array | None) -> Tensor | None:
    """The order that undoes an order, as `unsorted_indices` undoes `sorted_indices`; null for null."""
    if permutation is None:
        return None
    order = _whole(permutation, "permutation")
    if permutation.dtype is not int64 or permutation.ndim != 1 or sorted(order) != list(range(len(order))):
        raise Invalid("a permutation is a vector of the numbers from 0 on, each once, in int64", param="permutation")
    return _numbers(ctx, np.argsort(order, kind="stable"), permutation)


# ---------------------------------------------------------------- recurrent networks over packed sequences


def _direction(
    F: Any, layer: Any, parts: Sequence[Any], sizes: Sequence[int], states: list[Any], row: list[Any], backwards: bool
) -> tuple[Any, list[Any]]:
    """One layer in one direction: the outputs, packed, and the states at the end of each sequence."""
    _, w_hh, _, b_hh, w_hr = row
    outputs: list[Any] = [None] * len(sizes)
    if backwards:  # the shorter sequences begin later
        now = [F.narrow(s, 0, 0, sizes[-1]) for s in states]
        for t in range(len(sizes) - 1, -1, -1):
            more = sizes[t] - F.shape(now[0])[0]
            if more:
                now = [
                    F.cat([s, F.narrow(first, 0, sizes[t] - more, more)], 0)
                    for s, first in zip(now, states, strict=True)
                ]
            (outputs[t],), now = layer(F, [parts[t]], now, w_hh, b_hh, w_hr)
        return F.cat(outputs, 0), now
    now, ended = states, []
    for t, size in enumerate(sizes):
        have = F.shape(now[0])[0]
        if have > size:
            ended.append([F.narrow(s, 0, size, have - size) for s in now])
            now = [F.narrow(s, 0, 0, size) for s in now]
        (outputs[t],), now = layer(F, [parts[t]], now, w_hh, b_hh, w_hr)
    ends = [now, *ended[::-1]]
    return F.cat(outputs, 0), [F.cat([e[i] for e in ends], 0) for i in range(len(states))]


def _over_packed(
    F: Any,
    layer: Any,
    gates: int,
    data: Any,
    sizes: Sequence[int],
    hidden: Sequence[Any],
    params: Sequence[Any],
    biased: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> list[Any]:
    if len(F.shape(data)) != 2:
        raise ShapeMismatch(f"RNN: Expected input to be 2D, got {len(F.shape(data))}D instead", param="data")
    rows = weights_of(params, biased, gates == 4 and F.shape(hidden[0])[-1:] != F.shape(hidden[1])[-1:])
    directions = 1 + bidirectional
    hidden_fits(F, hidden, rows, num_layers, bidirectional)
    x, used = data, sum(sizes)
    if used > F.shape(data)[0]:
        raise ShapeMismatch(
            f"start ({used - sizes[-1]}) + length ({sizes[-1]}) exceeds dimension size ({F.shape(data)[0]}).",
            param="batch_sizes",
        )
    if used < F.shape(data)[0]:
        raise ShapeMismatch(
            f"the batch sizes add up to {used}, and data has {F.shape(data)[0]} rows", param="batch_sizes"
        )
    first = [list(F.unbind(h, 0)) for h in hidden]
    last: list[list[Any]] = [[] for _ in hidden]
    for number in range(num_layers):
        sides = []
        for direction in range(directions):
            at = number * directions + direction
            row = rows[at]
            states = [h[at] for h in first]
            check_step(F, F.unsqueeze(F.narrow(x, 0, 0, sizes[0]), 0), states, row, gates)
            bias = row[2] if row[2] is None or gates == 3 else F.add(row[2], row[3])
            parts = F.split_with_sizes(F.linear(x, row[0], bias), list(sizes), 0)
            made, ends = _direction(F, layer, parts, sizes, states, row, bool(direction))
            sides.append(made)
            for kept, end in zip(last, ends, strict=True):
                kept.append(end)
        x = sides[0] if directions == 1 else F.cat(sides, -1)
        if dropout and train and number < num_layers - 1:
            x = F.dropout(x, dropout, True)
    return [x, *(F.stack(kept, 0) for kept in last)]


_LAYERS = {
    "lstm": (lstm_layer, 4),
    "gru": (gru_layer, 3),
    "rnn_tanh": (plain_layer("tanh"), 1),
    "rnn_relu": (plain_layer("relu"), 1),
}
Kind = Literal["lstm", "gru", "rnn_tanh", "rnn_relu"]


@composite(family=FAMILY, returns="list of Tensors")
def _recurrent(
    F: Any,
    data: Array,
    sizes: Any,
    hx: list[Array],
    params: list[Array],
    kind: Kind,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> Array:
    """A recurrent network over packed data, whose batch sizes are known numbers."""
    layer, gates = _LAYERS[kind]
    return _over_packed(F, layer, gates, data, sizes, hx, params, has_biases, num_layers, dropout, train, bidirectional)


def _drawn(gates: int, hidden: Any) -> list[S]:
    def weights(inputs: int) -> list[T]:
        return [T(gates * 2, inputs), T(gates * 2, 2), T(gates * 2), T(gates * 2)]

    both = [p for inputs in (3, 3, 4, 4) for p in weights(inputs)]
    sizes = I(3, values=[2, 2, 1])
    return [
        S(T(5, 3), sizes, hidden(1, 2), weights(3), True, 1, 0.0, False, False),
        S(T(5, 3), sizes, hidden(4, 2), both, True, 2, 0.0, True, True),
    ]


_DOC = "over a packed sequence: its outputs, packed as `data` is, and the states at the end of each."


def _declare(kind: str, what: str) -> None:
    if kind == "lstm":

        def packed(
            ctx: Context,
            data: Array,
            batch_sizes: Array,
            hx: list[Array],
            params: list[Array],
            has_biases: bool,
            num_layers: int,
            dropout: float,
            train: bool,
            bidirectional: bool,
        ) -> list[Tensor]:
            if len(hx) != 2:
                raise Invalid("lstm expects two hidden states", param="hx")
            sizes = sizes_of(batch_sizes, data, "batch_sizes")
            return REC._recurrent(  # type: ignore[no-any-return]
                data, sizes, hx, params, "lstm", has_biases, num_layers, dropout, train, bidirectional
            )

    else:

        def packed(  # type: ignore[misc]
            ctx: Context,
            data: Array,
            batch_sizes: Array,
            hx: Array,
            params: list[Array],
            has_biases: bool,
            num_layers: int,
            dropout: float,
            train: bool,
            bidirectional: bool,
        ) -> list[Tensor]:
            sizes = sizes_of(batch_sizes, data, "batch_sizes")
            return REC._recurrent(  # type: ignore[no-any-return]
                data, sizes, [hx], params, kind, has_biases, num_layers, dropout, train, bidirectional
            )

    packed.__doc__ = f"{what} {_DOC}"
    hidden = (lambda n, b: [T(n, b, 2), T(n, b, 2)]) if kind == "lstm" else (lambda n, b: T(n, b, 2))
    special(
        family=FAMILY,
        name=f"_{kind}_packed",
        joins=kind,
        returns="list of Tensors",
        samples=_drawn(_LAYERS[kind][1], hidden),
    )(packed)


_declare("lstm", "Long short-term memory")
_declare("gru", "Gated recurrent units")
_declare("rnn_tanh", "A plain recurrent network with tanh")
_declare("rnn_relu", "A plain recurrent network with relu")
