"""Recurrent networks: cells, and sequences of them in layers, with weights as torch.nn lays them out.

A layer multiplies the whole sequence by its input weights at once; then each step costs one product with the hidden
state and one node for the gates. The steps are nodes of the tape like any others, so gradients of every order follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.carriers import K
from engine.declare import Array, composite, op
from engine.dtypes import FLOAT, DType, scalar_type
from engine.errors import DtypeMismatch, Invalid, ShapeMismatch
from engine.op import Spec
from engine.samples import C, S, T
from engine.shapes import broadcast_two, text, wrap_dim

# ---------------------------------------------------------------- gates


def _halves(x: Any, count: int) -> list[Any]:
    """A kernel's array in equal parts of its last dimension."""
    n = x.shape[-1] // count
    return [x[..., i * n : (i + 1) * n] for i in range(count)]


def _parts(F: Any, x: Any, count: int) -> list[Any]:
    """The same of a rule's array."""
    n = x.shape[-1] // count
    return [F.narrow(x, -1, i * n, n) for i in range(count)]


def _sigmoid(xp: Any, x: Any) -> Any:
    made = xp.negative(x)
    xp.exp(made, out=made)
    xp.add(made, 1, out=made)
    return xp.reciprocal(made, out=made)


def _floating(d: DType) -> None:
    if d.category < FLOAT:
        raise DtypeMismatch(f"result type Float can't be cast to the desired output type {scalar_type(d)}")


def _lstm_meta(k: K, gates: Spec, cx: Spec) -> tuple[Spec, Spec]:
    _floating(gates.dtype)
    shape = broadcast_two((*gates.shape[:-1], gates.shape[-1] // 4), cx.shape)
    return Spec(shape, gates.dtype), Spec(shape, gates.dtype)


@op(
    family="recurrent",
    meta=_lstm_meta,
    outputs=("hy", "cy"),
    save={"gates": ("gates", "cx", "cy"), "cx": ("gates", "cy")},
    samples=[S(T(2, 8), T(2, 2)), S(T(0, 4), T(0, 1)), S(C(1, 4), C(1, 1))],
)
def _lstm_gates(k: K, gates: Array, cx: Array) -> Any:
    """The hidden and the cell state after a step, from the sums that enter the gates: input, forget, cell, output."""
    xp = k.xp
    i, f, g, o = _halves(gates, 4)
    cy = _sigmoid(xp, f) * cx
    cy += _sigmoid(xp, i) * xp.tanh(g)
    hy = _sigmoid(xp, o)
    hy *= xp.tanh(cy)
    return hy, cy


@_lstm_gates.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    to_h, to_c = g
    i, f, c, o = _parts(F, F.conj(saved.gates), 4)
    o, f = F.sigmoid(o), F.sigmoid(f)
    t = F.tanh(F.conj(saved.cy))
    total = to_c
    if to_h is not None:
        through = to_h * o * (1 - t * t)
        total = through if to_c is None else to_c + through
    of_gates = None
    if need.gates:
        i, c = F.sigmoid(i), F.tanh(c)
        parts = [
            total * c * (i * (1 - i)),
            total * F.conj(saved.cx) * (f * (1 - f)),
            total * i * (1 - c * c),
            F.zeros_like(o) if to_h is None else to_h * t * (o * (1 - o)),
        ]
        of_gates = F.cat(parts, -1)
    return of_gates, need.cx and total * f


def _gru_meta(k: K, given: Spec, hidden: Spec, hx: Spec) -> Spec:
    _floating(given.dtype)
    broadcast_two(given.shape, hidden.shape)
    return Spec(hx.shape, given.dtype)


@op(
    family="recurrent",
    meta=_gru_meta,
    save={"given": ("given", "hidden", "hx"), "hidden": ("given", "hidden", "hx"), "hx": ("given", "hidden")},
    samples=[S(T(2, 6), T(2, 6), T(2, 2)), S(T(0, 3), T(0, 3), T(0, 1)), S(C(1, 3), C(1, 3), C(1, 1))],
)
def _gru_gates(k: K, given: Array, hidden: Array, hx: Array) -> Array:
    """The hidden state after a step, from the products with input and hidden state: reset, update, new."""
    xp = k.xp
    gr, gz, gn = _halves(given, 3)
    hr, hz, hn = _halves(hidden, 3)
    r, z = _sigmoid(xp, gr + hr), _sigmoid(xp, gz + hz)
    n = xp.tanh(r * hn + gn)
    return (hx - n) * z + n


@_gru_gates.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    gr, gz, gn = _parts(F, F.conj(saved.given), 3)
    hr, hz, hn = _parts(F, F.conj(saved.hidden), 3)
    z = F.sigmoid(gz + hz)
    of_given = of_hidden = None
    if need.given or need.hidden:
        r = F.sigmoid(gr + hr)
        n = F.tanh(r * hn + gn)
        to_n = g * (1 - z) * (1 - n * n)
        to_z = g * (F.conj(saved.hx) - n) * (z * (1 - z))
        to_r = to_n * hn * (r * (1 - r))
        of_given = F.cat([to_r, to_z, to_n], -1)
        of_hidden = F.cat([to_r, to_z, to_n * r], -1)
    return need.given and of_given, need.hidden and of_hidden, need.hx and g * z


# ---------------------------------------------------------------- cells


def _check_cell(F: Any, input: Any, hidden: Sequence[Any], w_ih: Any, w_hh: Any, gates: int) -> None:
    x = F.shape(input)
    for weight in (w_hh, w_ih):
        wrap_dim(1, len(F.shape(weight)))
    size = F.shape(w_hh)[1]
    if F.shape(w_ih)[0] != gates * size:
        raise ShapeMismatch(
            f"weight_ih first dim must be {gates} * hidden_size = {gates * size}, but got {F.shape(w_ih)[0]}",
            param="w_ih",
        )
    wrap_dim(1, len(x))
    if x[1] != F.shape(w_ih)[1]:
        raise ShapeMismatch(f"input has inconsistent input_size: got {x[1]} expected {F.shape(w_ih)[1]}", param="input")
    for i, h in enumerate(hidden):
        shape = F.shape(h)
        wrap_dim(1, len(shape))
        if shape[0] != x[0]:
            raise ShapeMismatch(f"Input batch size {x[0]} doesn't match hidden{i} batch size {shape[0]}", param="hx")
        if shape[1] != size:
            raise ShapeMismatch(f"hidden{i} has inconsistent hidden_size: got {shape[1]}, expected {size}", param="hx")


@composite(
    family="recurrent",
    returns="list of Tensors",
    samples=[
        S(T(2, 3), [T(2, 2), T(2, 2)], T(8, 3), T(8, 2), T(8), T(8)),
        S(T(2, 3), [T(2, 2), T(2, 2)], T(8, 3), T(8, 2)),
        S(T(0, 3), [T(0, 2), T(0, 2)], T(8, 3), T(8, 2), T(8), T(8)),
    ],
)
def lstm_cell(
    F: Any,
    input: Array,
    hx: list[Array],
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
) -> Array:
    """One step of long short-term memory (Hochreiter 1997): the hidden and the cell state after it.

    Shapes: input (N, I), hx two of (N, H), w_ih (4 H, I), w_hh (4 H, H); the gates stand in the order input, forget,
    cell, output.
    """
    if len(hx) != 2:
        raise Invalid("lstm_cell expects two hidden states", param="hx")
    _check_cell(F, input, hx, w_ih, w_hh, 4)
    made = F.add(F.linear(hx[0], w_hh, b_hh), F.linear(input, w_ih, b_ih))
    return list(F._lstm_gates(made, hx[1]))


@composite(
    family="recurrent",
    samples=[
        S(T(2, 3), T(2, 2), T(6, 3), T(6, 2), T(6), T(6)),
        S(T(2, 3), T(2, 2), T(6, 3), T(6, 2)),
        S(T(0, 3), T(0, 2), T(6, 3), T(6, 2), T(6), T(6)),
    ],
)
def gru_cell(
    F: Any,
    input: Array,
    hx: Array,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
) -> Array:
    """One step of a gated recurrent unit (Cho 2014): the hidden state after it.

    Shapes: input (N, I), hx (N, H), w_ih (3 H, I), w_hh (3 H, H); the gates stand in the order reset, update, new.
    """
    _check_cell(F, input, [hx], w_ih, w_hh, 3)
    return F._gru_gates(F.linear(input, w_ih, b_ih), F.linear(hx, w_hh, b_hh), hx)


def _declare_cell(name: str, activation: str) -> None:
    def cell(
        F: Any,
        input: Array,
        hx: Array,
        w_ih: Array,
        w_hh: Array,
        b_ih: Array | None = None,
        b_hh: Array | None = None,
    ) -> Array:
        _check_cell(F, input, [hx], w_ih, w_hh, 1)
        return getattr(F, activation)(F.add(F.linear(hx, w_hh, b_hh), F.linear(input, w_ih, b_ih)))

    cell.__doc__ = (
        f"One step of a plain recurrent network, {activation}(w_ih x + b_ih + w_hh h + b_hh): the hidden state after "
        "it.\n\nShapes: input (N, I), hx (N, H), w_ih (H, I), w_hh (H, H)."
    )
    composite(
        family="recurrent",
        name=name,
        samples=[
            S(T(2, 3), T(2, 2), T(2, 3), T(2, 2), T(2), T(2)),
            S(T(2, 3), T(2, 2), T(2, 3), T(2, 2)),
            S(T(0, 3), T(0, 2), T(2, 3), T(2, 2), T(2), T(2)),
        ],
    )(cell)


_declare_cell("rnn_tanh_cell", "tanh")
_declare_cell("rnn_relu_cell", "relu")


# ---------------------------------------------------------------- sequences

# (F, products of the sequence with the input weights, one a step; hidden states; w_hh, b_hh, w_hr) -> (outputs, states)
Layer = Callable[[Any, Sequence[Any], list[Any], Any, Any, Any], tuple[list[Any], list[Any]]]


def lstm_layer(
    F: Any, given: Sequence[Any], states: list[Any], w_hh: Any, b_hh: Any, w_hr: Any
) -> tuple[list[Any], list[Any]]:
    """Long short-term memory, step by step."""
    hidden, cell = states
    turned, outputs = F.transpose(w_hh, 0, 1), []
    projection = None if w_hr is None else F.transpose(w_hr, 0, 1)
    for x in given:  # b_hh is in x already
        hidden, cell = F._lstm_gates(F.addmm(x, hidden, turned), cell)
        if projection is not None:
            hidden = F.mm(hidden, projection)
        outputs.append(hidden)
    return outputs, [hidden, cell]


def gru_layer(
    F: Any, given: Sequence[Any], states: list[Any], w_hh: Any, b_hh: Any, w_hr: Any
) -> tuple[list[Any], list[Any]]:
    """Gated recurrent units, step by step."""
    (hidden,) = states
    turned, outputs = F.transpose(w_hh, 0, 1), []
    for x in given:
        product = F.mm(hidden, turned) if b_hh is None else F.addmm(b_hh, hidden, turned)
        hidden = F._gru_gates(x, product, hidden)
        outputs.append(hidden)
    return outputs, [hidden]


def plain_layer(activation: str) -> Layer:
    """A plain recurrent network, step by step."""

    def layer(
        F: Any, given: Sequence[Any], states: list[Any], w_hh: Any, b_hh: Any, w_hr: Any
    ) -> tuple[list[Any], list[Any]]:
        (hidden,) = states
        turned, outputs = F.transpose(w_hh, 0, 1), []
        run = getattr(F, activation)
        for x in given:
            hidden = run(F.addmm(x, hidden, turned))
            outputs.append(hidden)
        return outputs, [hidden]

    return layer


def weights_of(params: Sequence[Any], biased: bool, projected: bool) -> list[list[Any]]:
    """[w_ih, w_hh, b_ih, b_hh, w_hr] of each layer and direction."""
    each = 2 + 2 * biased + projected
    if len(params) % each:
        raise Invalid("got an incorrect number of RNN parameters", param="params")
    found = []
    for at in range(0, len(params), each):
        row = list(params[at : at + each])
        last = row.pop() if projected else None
        found.append([*row[:2], *(row[2:] if biased else (None, None)), last])
    return found


def check_step(F: Any, x: Any, states: list[Any], row: list[Any], gates: int) -> None:
    """Refuses sizes that do not fit each other, as a first step would."""
    h, w = F.shape(states[0]), F.shape(row[1])
    batch, size = F.shape(x)[1:]
    have = F.shape(row[0])
    for shape, param in ((h, "hx"), (w, "params"), (have, "params")):
        if len(shape) != 2:
            raise ShapeMismatch(f"mat1 and mat2 must be matrices, but one has the shape {text(shape)}", param=param)
    if size != have[1]:
        raise ShapeMismatch(
            f"mat1 and mat2 shapes cannot be multiplied ({F.shape(x)[0] * batch}x{size} and {have[1]}x{have[0]})",
            param="input",
        )
    if h[-1] != w[1]:
        raise ShapeMismatch(f"mat1 and mat2 shapes cannot be multiplied ({h[0]}x{h[-1]} and {w[1]}x{w[0]})", param="hx")
    broadcast_two((h[0], w[0]), (batch, have[0]))
    if h[0] != batch:
        raise ShapeMismatch(
            f"The size of tensor a ({h[0]}) must match the size of tensor b ({batch}) at non-singleton dimension 0",
            param="hx",
        )


def hidden_fits(F: Any, hidden: Sequence[Any], rows: Sequence[Any], num_layers: int, bidirectional: bool) -> None:
    """Refuses hidden states and weights that are not as many as layers and directions."""
    if bidirectional and (len(rows) % 2 or F.shape(hidden[0])[0] % 2):
        raise Invalid("Odd number of params or hiddens given to a bidirectional RNN", param="params")
    for h in hidden:
        wrap_dim(0, len(F.shape(h)), scalar_ok=False)
    wanted = num_layers * (1 + bidirectional)
    if wanted != F.shape(hidden[0])[0]:
        raise ShapeMismatch("Expected more hidden states in stacked_rnn", param="hx")
    if wanted != len(rows):
        raise Invalid("Expected more weights in stacked_rnn", param="params")
    if not rows:
        raise Invalid("stack expects a non-empty TensorList", param="num_layers")


def _sequence(
    F: Any,
    layer: Layer,
    gates: int,
    input: Any,
    hidden: Sequence[Any],
    params: Sequence[Any],
    biased: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> list[Any]:
    """[the last layer's outputs, the states of all layers at the end, ...]."""
    rank = len(F.shape(input))
    if rank != 3:
        wrap_dim(2 if gates == 4 else 1, rank - (gates != 4))
        raise ShapeMismatch(f"RNN: Expected input to be 3D, got {rank}D instead", param="input")
    x = F.transpose(input, 0, 1) if batch_first else input
    for h in hidden if gates == 4 else ():
        wrap_dim(2, len(F.shape(h)), scalar_ok=False)
    projected = gates == 4 and F.shape(hidden[0])[-1] != F.shape(hidden[1])[-1]
    rows = weights_of(params, biased, projected)
    directions = 1 + bidirectional
    hidden_fits(F, hidden, rows, num_layers, bidirectional)
    steps = F.shape(x)[0]
    if not steps:
        raise ShapeMismatch("Expected sequence length to be larger than 0 in RNN", param="input")
    first = [list(F.unbind(h, 0)) for h in hidden]
    last: list[list[Any]] = [[] for _ in hidden]
    for number in range(num_layers):
        sides = []
        for direction in range(directions):
            at = number * directions + direction
            w_ih, w_hh, b_ih, b_hh, w_hr = row = rows[at]
            states = [h[at] for h in first]
            check_step(F, x, states, row, gates)
            bias = b_ih if b_ih is None or gates == 3 else F.add(b_ih, b_hh)
            given = list(F.unbind(F.linear(x, w_ih, bias), 0))
            made, ends = layer(F, given[::-1] if direction else given, states, w_hh, b_hh, w_hr)
            sides.append(F.stack(made[::-1] if direction else made, 0))
            for kept, end in zip(last, ends, strict=True):
                kept.append(end)
        x = sides[0] if directions == 1 else F.cat(sides, -1)
        if dropout and train and number < num_layers - 1:
            x = F.dropout(x, dropout, True)
    return [F.transpose(x, 0, 1) if batch_first else x, *(F.stack(kept, 0) for kept in last)]


def _drawn(gates: int, hidden: Any) -> list[S]:
    """Samples: one layer; two layers in both directions; no biases, batch first; no sequences at all."""

    def weights(inputs: int, biased: bool = True) -> list[T]:
        found = [T(gates * 2, inputs), T(gates * 2, 2)]
        return found + ([T(gates * 2), T(gates * 2)] if biased else [])

    both = [p for inputs in (3, 3, 4, 4) for p in weights(inputs)]
    return [
        S(T(3, 2, 3), hidden(1, 2), weights(3), True, 1, 0.0, False, False, False),
        S(T(2, 1, 3), hidden(4, 1), both, True, 2, 0.0, True, True, False),
        S(T(2, 3, 3), hidden(1, 2), weights(3, False), False, 1, 0.0, False, False, True),
        S(T(2, 0, 3), hidden(1, 0), weights(3), True, 1, 0.0, False, False, False),
    ]


def _one(layers: int, batch: int) -> T:
    return T(layers, batch, 2)


_SHAPES = (
    "Shapes: input (L, N, I), or (N, L, I) with `batch_first`; hx (layers * directions, N, H); `params` has w_ih, w_hh "
    "and with `has_biases` b_ih, b_hh of each layer and direction, as torch.nn lays them out. `dropout` between "
    "layers, in training. Gives the outputs of the last layer and the hidden states at the end."
)


@composite(
    family="recurrent",
    name="_lstm_padded",
    joins="lstm",
    returns="list of Tensors",
    samples=[
        *_drawn(4, lambda n, b: [_one(n, b), _one(n, b)]),
        S(T(2, 2, 3), [T(1, 2, 1), T(1, 2, 2)], [T(8, 3), T(8, 1), T(8), T(8), T(1, 2)], True, 1, 0.0, False, False,
          False),
    ],
)  # fmt: skip
def lstm(
    F: Any,
    input: Array,
    hx: list[Array],
    params: list[Array],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Array:
    """Long short-term memory over a sequence: its outputs, and the hidden and cell states at the end.

    Shapes: input (L, N, I), or (N, L, I) with `batch_first`; hx the hidden and the cell state, each (layers *
    directions, N, H). `params` has w_ih, w_hh, with `has_biases` b_ih, b_hh, and with a hidden state smaller than the
    cell state the projection w_hr, of each layer and direction, as torch.nn lays them out.
    """
    if len(hx) != 2:
        raise Invalid("lstm expects two hidden states", param="hx")
    return _sequence(
        F, lstm_layer, 4, input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first
    )


def _gru(
    F: Any,
    input: Array,
    hx: Array,
    params: list[Array],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Array:
    return _sequence(
        F, gru_layer, 3, input, [hx], params, has_biases, num_layers, dropout, train, bidirectional, batch_first
    )


_gru.__doc__ = f"Gated recurrent units over a sequence: their outputs, and the hidden states at the end.\n\n{_SHAPES}"
composite(family="recurrent", name="_gru_padded", joins="gru", returns="list of Tensors", samples=_drawn(3, _one))(_gru)


def _declare_sequence(activation: str) -> None:
    layer = plain_layer(activation)

    def sequence(
        F: Any,
        input: Array,
        hx: Array,
        params: list[Array],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Array:
        return _sequence(
            F, layer, 1, input, [hx], params, has_biases, num_layers, dropout, train, bidirectional, batch_first
        )

    sequence.__doc__ = (
        f"A plain recurrent network with {activation} over a sequence: its outputs, and the hidden states at the end."
        f"\n\n{_SHAPES}"
    )
    composite(
        family="recurrent",
        name=f"_rnn_{activation}_padded",
        joins=f"rnn_{activation}",
        returns="list of Tensors",
        samples=_drawn(1, _one),
    )(sequence)


_declare_sequence("tanh")
_declare_sequence("relu")
