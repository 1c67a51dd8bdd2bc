"""Connectionist temporal classification: the likelihood of a label sequence under any alignment.

Graves et al., "Connectionist Temporal Classification", 2006. With a blank between all labels and around them, each
sample has 2 S + 1 states; `alpha[t, s]` is the log-likelihood of all paths that are in state s after frame t.
"""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.declare import Array, composite, op
from engine.dtypes import INT, float32, float64, int64
from engine.errors import DtypeMismatch, IndexOutOfRange, Invalid, NoGradient, ShapeMismatch
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.ops.losses import Reduction, legacy
from engine.samples import I, S, T

_WHERE = "(while checking arguments for ctc_loss_allocate_outputs)"


def _ctc_meta(
    k: K, log_probs: Spec, targets: Spec, input_lengths: Spec, target_lengths: Spec, blank: int, zero_infinity: bool
) -> Any:
    if log_probs.ndim != 3:
        raise ShapeMismatch(
            f"Expected 3-dimensional tensor, but got {log_probs.ndim}-dimensional tensor for argument #1 'log_probs' "
            f"{_WHERE}",
            param="log_probs",
        )
    if not 1 <= targets.ndim <= 2:
        raise ShapeMismatch(
            f"Expected 1 to 2 dimensions, but got {targets.ndim}-dimensional tensor for argument #2 'targets' {_WHERE}",
            param="targets",
        )
    frames, batch, classes = log_probs.shape
    for name, lengths in (("input_lengths", input_lengths), ("target_lengths", target_lengths)):
        if lengths.dtype.category != INT:
            raise DtypeMismatch(f"{name} must be integral", param=name)
        if lengths.numel != batch:
            raise ShapeMismatch(f"{name} must be of size batch_size", param=name)
    if not 0 <= blank < classes:
        raise Invalid("blank must be in label range", param="blank")
    if log_probs.dtype is not float32 and log_probs.dtype is not float64:
        raise not_implemented("ctc_loss_cpu", log_probs.dtype)
    labels = targets.shape[1] if targets.ndim == 2 else targets.numel
    return Spec((batch,), log_probs.dtype), Spec((frames, batch, 2 * labels + 1), log_probs.dtype)


class _Chains:
    """The states of every sample: their labels, which of them exist, and which may be reached by skipping a blank."""

    def __init__(self, k: K, targets: Array, target_lengths: Array, blank: int, states: int) -> None:
        xp = k.xp
        lengths = target_lengths.reshape(-1).astype(int64.np)
        batch, labels = lengths.shape[0], (states - 1) // 2
        place = xp.arange(labels, dtype=int64.np)
        if targets.ndim == 2:
            padded = targets.astype(int64.np)
        else:
            starts = xp.cumsum(lengths) - lengths
            last = max(targets.shape[0] - 1, 0)
            padded = (
                targets.astype(int64.np)[xp.minimum(starts[:, None] + place, last)]
                if targets.size
                else (xp.zeros((batch, labels), int64.np))
            )
        inside = place < lengths[:, None]
        self.labels = xp.full((batch, states), blank, int64.np)
        self.labels[:, 1::2] = xp.where(inside, padded, xp.asarray(blank, dtype=int64.np))
        self.live = xp.arange(states) < (2 * lengths + 1)[:, None]
        self.skips = xp.zeros((batch, states), bool)
        if states > 2:
            self.skips[:, 2:] = self.labels[:, 2:] != self.labels[:, :-2]  # the blanks between labels are all equal
        self.last = 2 * lengths  # the final blank; the final label is the state before it
        self.rows = xp.arange(batch)


def _moved(k: K, x: Array, by: int) -> Array:
    """x with its columns moved to the right (or left, for negative `by`), -inf coming in."""
    made = k.xp.full(x.shape, float("-inf"), x.dtype)
    if by > 0:
        made[:, by:] = x[:, : max(x.shape[1] - by, 0)]
    else:
        made[:, : max(x.shape[1] + by, 0)] = x[:, -by:]
    return made


def _either(k: K, *paths: Array) -> Array:
    """log(exp(a) + exp(b) + ...), -inf where all are."""
    xp = k.xp
    top = paths[0]
    for path in paths[1:]:
        top = xp.maximum(top, path)
    base = xp.where(xp.isfinite(top), top, xp.zeros((), top.dtype))
    total = xp.exp(paths[0] - base)
    for path in paths[1:]:
        total += xp.exp(path - base)
    return xp.log(total) + base


@op(
    family="losses",
    meta=_ctc_meta,
    outputs=("result", "alpha"),
    nondiff=("alpha",),
    save={"log_probs": ("log_probs", "targets", "input_lengths", "target_lengths", "result", "alpha")},
)
def _ctc_loss(
    k: K,
    log_probs: Array,
    targets: Array,
    input_lengths: Array,
    target_lengths: Array,
    blank: Any,
    zero_infinity: Any,
) -> Array:
    """Minus the log-likelihood of each sample's targets, and the forward variables."""
    xp = k.xp
    frames, batch, states = k.spec[1].shape
    chains = _Chains(k, targets, target_lengths, blank, states)
    none = xp.asarray(float("-inf"), dtype=log_probs.dtype)
    alpha = xp.full((frames, batch, states), float("-inf"), log_probs.dtype)
    skips = xp.where(chains.skips, xp.zeros((), log_probs.dtype), none)
    for t in range(frames):
        emitted = xp.take_along_axis(log_probs[t], chains.labels, 1)
        if t == 0:
            arrived = xp.where(xp.arange(states) < 2, xp.zeros((), log_probs.dtype), none)
        else:
            before = alpha[t - 1]
            arrived = _either(k, before, _moved(k, before, 1), _moved(k, before, 2) + skips)
        alpha[t] = xp.where(chains.live, arrived + emitted, none)
    lengths = input_lengths.reshape(-1).astype(int64.np)
    end = alpha[xp.maximum(lengths - 1, 0), chains.rows] if frames else xp.full((batch, states), none)
    final = end[chains.rows, chains.last]
    before_final = xp.where(chains.last > 0, end[chains.rows, xp.maximum(chains.last - 1, 0)], none)
    losses = -_either(k, final, before_final)
    nothing = xp.where(chains.last == 0, xp.zeros((), losses.dtype), -none)
    losses = xp.where(lengths == 0, nothing, losses)
    return xp.where(losses == -none, xp.zeros((), losses.dtype), losses) if zero_infinity else losses, alpha


@_ctc_loss.guard
def _(
    k: K, log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: Any, zero_infinity: Any
) -> None:
    for name, lengths, most in (
        ("input_lengths", input_lengths, log_probs.shape[0]),
        ("target_lengths", target_lengths, None),
    ):
        if not lengths.size:
            continue
        low, high = int(lengths.min()), int(lengths.max())
        if low < 0:
            raise Invalid(f"Expected {name} to have value at least 0, but got value {low} {_WHERE}", param=name)
        if most is not None and high > most:
            raise Invalid(f"Expected {name} to have value at most {most}, but got value {high} {_WHERE}", param=name)
    if targets.ndim == 1:
        wanted = int(target_lengths.sum())
        if wanted != targets.shape[0]:
            raise ShapeMismatch(
                f"Expected tensor to have size {wanted} at dimension 0, but got size {targets.shape[0]} for argument "
                f"#2 'targets' {_WHERE}",
                param="targets",
            )
    elif targets.shape[0] != log_probs.shape[1]:
        raise ShapeMismatch(
            f"Expected tensor to have size {log_probs.shape[1]} at dimension 0, but got size {targets.shape[0]} for "
            f"argument #2 'targets' {_WHERE}",
            param="targets",
        )
    elif target_lengths.size and int(target_lengths.max()) > targets.shape[1]:
        raise ShapeMismatch(
            f"Expected tensor to have size at least {int(target_lengths.max())} at dimension 1, but got size "
            f"{targets.shape[1]} for argument #2 'targets' {_WHERE}",
            param="targets",
        )
    classes = log_probs.shape[2]
    if targets.ndim == 2:
        used = k.xp.arange(targets.shape[1]) < target_lengths.reshape(-1, 1)
    else:
        used = k.xp.ones(targets.shape, bool)
    bad = used & ((targets < 0) | (targets >= classes))
    if bool(bad.any()):
        value = int(targets[bad][0])
        raise IndexOutOfRange(f"Target {value} is out of bounds.", param="targets", index=value)


@_ctc_loss.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    s = saved
    made = F._ctc_loss_back(
        g[0], s.log_probs, s.targets, s.input_lengths, s.target_lengths, s.result, s.alpha, s.blank, s.zero_infinity
    )
    return made, None, None, None


def _back_meta(k: K, grad: Spec, log_probs: Spec, *rest: Any) -> Spec:
    return log_probs


@op(family="losses", meta=_back_meta)
def _ctc_loss_back(
    k: K,
    grad: Array,
    log_probs: Array,
    targets: Array,
    input_lengths: Array,
    target_lengths: Array,
    losses: Array,
    alpha: Array,
    blank: Any,
    zero_infinity: Any,
) -> Array:
    """(exp(log_probs) - the expected number of times that each label is emitted in each frame) * grad.

    As in PyTorch, this is the gradient of the logits that log_softmax made log_probs of; passing it through the
    gradient of log_softmax leaves it as it is.
    """
    xp = k.xp
    frames, batch, states = alpha.shape
    chains = _Chains(k, targets, target_lengths, blank, states)
    none = xp.asarray(float("-inf"), dtype=log_probs.dtype)
    lengths = input_lengths.reshape(-1).astype(int64.np)
    skips = xp.where(chains.skips, xp.zeros((), log_probs.dtype), none)
    state = xp.arange(states)
    final = xp.where(
        (state == chains.last[:, None]) | (state == chains.last[:, None] - 1), xp.zeros((), log_probs.dtype), none
    )
    made = xp.zeros(log_probs.shape, log_probs.dtype)
    hopeless = None if zero_infinity else _impossible(k, alpha, chains, lengths)
    beta = xp.full((batch, states), float("-inf"), log_probs.dtype)  # without what the frame itself emits
    for t in range(frames - 1, -1, -1):
        if t < frames - 1:
            onward = beta + xp.take_along_axis(log_probs[t + 1], chains.labels, 1)
            beta = _either(k, onward, _moved(k, onward, -1), _moved(k, onward + skips, -2))
        beta = xp.where((lengths - 1 == t)[:, None], final, beta)
        inside = (t < lengths)[:, None]
        share = xp.exp(alpha[t] + beta + losses[:, None])
        expected = xp.zeros((batch, log_probs.shape[2]), log_probs.dtype)
        share = xp.where(chains.live & inside, share, xp.zeros((), share.dtype))
        k.backend.scatter_add(expected, (xp.broadcast_to(chains.rows[:, None], share.shape), chains.labels), share)
        step = xp.exp(log_probs[t]) - expected
        if hopeless is not None:  # the loss is infinite, and PyTorch's gradient no number
            step = xp.where(hopeless[:, None], xp.asarray(float("nan"), dtype=step.dtype), step)
        made[t] = xp.where(inside, step, xp.zeros((), made.dtype))
    made *= grad[None, :, None]
    if zero_infinity:
        # A loss that was infinite has become zero, and so has its gradient.
        impossible = _impossible(k, alpha, chains, lengths)
        made = xp.where(impossible[None, :, None], xp.zeros((), made.dtype), made)
    return made


def _impossible(k: K, alpha: Array, chains: _Chains, lengths: Array) -> Array:
    """Which samples have no alignment at all."""
    xp = k.xp
    if not alpha.shape[0]:
        return chains.last > 0
    end = alpha[xp.maximum(lengths - 1, 0), chains.rows]
    last = xp.maximum(end[chains.rows, chains.last], end[chains.rows, xp.maximum(chains.last - 1, 0)])
    return xp.where(lengths == 0, chains.last > 0, last == float("-inf"))


@_ctc_loss_back.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    raise NoGradient("derivative for aten::_ctc_loss_backward is not implemented", code="no-derivative", op="ctc_loss")


_PROBS = T(4, 2, 3, values=[[[-1.1, -0.9, -1.3], [-0.5, -1.6, -1.6]]] * 4)


@composite(
    family="losses",
    name="nn.functional.ctc_loss",
    moves=True,
    samples=[
        # The gradient is that of the logits, as in PyTorch: finite differences of log_probs give another one.
        S(_PROBS, I(2, 2, values=[[1, 2], [2, 0]]), I(2, values=[4, 3]), I(2, values=[2, 1]), gradcheck=False),
        S(_PROBS, I(3, values=[1, 2, 2]), I(2, values=[4, 3]), I(2, values=[2, 1]), reduction="sum", gradcheck=False),
        S(
            _PROBS,
            I(2, 2, values=[[1, 1], [2, 0]]),
            I(2, values=[2, 3]),
            I(2, values=[2, 1]),
            reduction="none",
            zero_infinity=True,
            gradcheck=False,
        ),
    ],
)
def ctc_loss(
    F: Any,
    log_probs: Array,
    targets: Array,
    input_lengths: Array,
    target_lengths: Array,
    blank: int = 0,
    reduction: Reduction = "mean",
    zero_infinity: bool = False,
) -> Array:
    """Minus the log-likelihood of label sequences under all their alignments with the frames.

    log_probs are (T, N, C) or (T, C), from log_softmax; targets are (N, S), padded, or one after the other in a vector;
    lengths are (N). "mean" divides each loss by the length of its targets first. `zero_infinity` makes the losses of
    targets that are too long, and their gradients, zero.
    """
    reduction = legacy(None, None, reduction)  # type: ignore[assignment]
    single = len(F.shape(log_probs)) == 2
    if single:
        log_probs = F.unsqueeze(log_probs, 1)
    losses = F._ctc_loss(log_probs, targets, input_lengths, target_lengths, blank, zero_infinity)[0]
    if reduction == "sum":
        return F.sum(losses)
    if reduction == "mean":
        return F.mean(F.div(losses, F.reshape(F.clamp_min(target_lengths, 1), F.shape(losses))))
    return F.squeeze(losses, 0) if single else losses
