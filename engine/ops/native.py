"""Functions of torch itself that torch.nn.functional wraps: reductions are numbers, and what has a default there is
given here. 0 stands for "none", 1 for "mean" and 2 for "sum"; any other number is taken as 0, as in PyTorch."""

from __future__ import annotations

from typing import Any

from engine.declare import Array, Ints, Shape, composite
from engine.errors import Invalid, ShapeMismatch
from engine.ops.batch_normalization import instances
from engine.samples import I, S, T
from engine.shapes import text

_SIGNS = T(3, values=[1.0, -1.0, 1.0], grad=False)
_LIKELY = T(3, 2, low=0.1, high=0.9, grad=False)


def reduction_name(reduction: Any) -> str:
    """The reduction that a number, or its name, stands for."""
    if isinstance(reduction, str):
        if reduction not in ("none", "mean", "sum"):
            raise Invalid(f"{reduction} is not a valid value for reduction", param="reduction")
        return reduction
    return {1: "mean", 2: "sum"}.get(reduction, "none")


def _functional(F: Any, name: str) -> Any:
    return getattr(F, f"nn.functional.{name}")


# ---------------------------------------------------------------- losses


@composite(
    family="losses", moves=True, samples=[S(T(3, 2), _LIKELY), S(T(3, 2), _LIKELY, 0), S(T(3, 2), T(3, 2), 2, True)]
)
def kl_div(F: Any, input: Array, target: Array, reduction: int | str = 0, log_target: bool = False) -> Array:
    """t (log(t) - x) for log-probabilities x and probabilities t, or log-probabilities with `log_target`."""
    return _functional(F, "kl_div")(input, target, None, None, reduction_name(reduction), log_target)


@composite(
    family="losses",
    moves=True,
    samples=[S(T(3, 2), _LIKELY), S(T(3, 2), _LIKELY, T(2, grad=False), T(2, low=0.5, grad=False), 2)],
)
def binary_cross_entropy_with_logits(
    F: Any,
    input: Array,
    target: Array,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    reduction: int | str = 0,
) -> Array:
    """The cross-entropy of two classes, from logits, computed stably."""
    loss = _functional(F, "binary_cross_entropy_with_logits")
    return loss(input, target, weight, None, None, reduction_name(reduction), pos_weight)


@composite(
    family="losses", moves=True, samples=[S(T(3), _SIGNS), S(T(3), _SIGNS, 0.5, 0), S(T(3), _SIGNS, reduction=2)]
)
def hinge_embedding_loss(F: Any, input: Array, target: Array, margin: float = 1.0, reduction: int | str = 0) -> Array:
    """x where the target is 1, max(0, margin - x) where it is -1."""
    return _functional(F, "hinge_embedding_loss")(input, target, margin, None, None, reduction_name(reduction))


@composite(
    family="losses", moves=True, samples=[S(T(3, 2), T(3, 2), _SIGNS), S(T(3, 2), T(3, 2), _SIGNS, 0.2, reduction=0)]
)
def cosine_embedding_loss(
    F: Any, input1: Array, input2: Array, target: Array, margin: float = 0.0, reduction: int | str = 0
) -> Array:
    """1 - cos of two rows where the target is 1, max(0, cos - margin) where it is -1."""
    return _functional(F, "cosine_embedding_loss")(
        input1, input2, target, margin, None, None, reduction_name(reduction)
    )


@composite(family="losses", moves=True, samples=[S(T(3), T(3), _SIGNS), S(T(3), T(3), _SIGNS, 0.5, reduction=0)])
def margin_ranking_loss(
    F: Any, input1: Array, input2: Array, target: Array, margin: float = 0.0, reduction: int | str = 0
) -> Array:
    """max(0, -t (x1 - x2) + margin): x1 is to rank higher where the target is 1, lower where it is -1."""
    return _functional(F, "margin_ranking_loss")(input1, input2, target, margin, None, None, reduction_name(reduction))


@composite(
    family="losses",
    moves=True,
    samples=[
        S(T(3), T(3, low=0.5, grad=False), True, False, 1e-8, 1),
        S(T(3, low=0.5), T(3, low=1.5), False, True, 1e-8, 0),
    ],
)
def poisson_nll_loss(
    F: Any, input: Array, target: Array, log_input: bool, full: bool, eps: float, reduction: int | str
) -> Array:
    """Minus the log-likelihood of counts under Poisson distributions; `full` adds Stirling's approximation."""
    loss = _functional(F, "poisson_nll_loss")
    return loss(input, target, log_input, full, None, eps, None, reduction_name(reduction))


@composite(
    family="losses",
    moves=True,
    samples=[S(T(3, 2), T(3, 2), T(3, 2)), S(T(3, 2), T(3, 2), T(3, 2), 2.0, swap=True, reduction=0)],
)
def triplet_margin_loss(
    F: Any,
    anchor: Array,
    positive: Array,
    negative: Array,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: int | str = 0,
) -> Array:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), with the p-norm of the difference as distance d."""
    loss = _functional(F, "triplet_margin_loss")
    return loss(anchor, positive, negative, margin, p, eps, swap, None, None, reduction_name(reduction))


_PROBS = T(4, 2, 3, values=[[[-1.1, -0.9, -1.3], [-0.5, -1.6, -1.6]]] * 4)
_LABELS, _FRAMES, _LENGTHS = I(2, 2, values=[[1, 2], [2, 0]]), I(2, values=[4, 3]), I(2, values=[2, 1])


@composite(
    family="losses",
    moves=True,
    samples=[  # as `nn.functional.ctc_loss`, whose gradient is that of the logits
        S(_PROBS, _LABELS, _FRAMES, _LENGTHS, gradcheck=False),
        S(_PROBS, _LABELS, _FRAMES, _LENGTHS, 0, 0, gradcheck=False),
    ],
)
def ctc_loss(
    F: Any,
    log_probs: Array,
    targets: Array,
    input_lengths: Array,
    target_lengths: Array,
    blank: int = 0,
    reduction: int | str = 0,
    zero_infinity: bool = False,
) -> Array:
    """Minus the log-likelihood of label sequences under all their alignments: `nn.functional.ctc_loss`."""
    loss = _functional(F, "ctc_loss")
    return loss(log_probs, targets, input_lengths, target_lengths, blank, reduction_name(reduction), zero_infinity)


# ---------------------------------------------------------------- normalization


@composite(
    family="nn",
    moves=True,
    node="NativeBatchNormBackward0",
    samples=[
        S(T(4, 3), T(3), T(3), None, None, True, 0.1, 1e-5, True),
        S(T(4, 3), None, None, T(3, grad=False), T(3, low=0.5, grad=False), False, 0.1, 1e-5, True),
    ],
)
def batch_norm(
    F: Any,
    input: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Array:
    """Each channel less its mean, over its standard deviation; of the batch in training, else of `running_...`."""
    if not training:
        for name, x in (("running_mean", running_mean), ("running_var", running_var)):
            if x is None:
                raise Invalid(f"{name} must be defined in evaluation mode", param=name)
    return F.native_batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps)[0]


@composite(
    family="nn",
    moves=True,
    samples=[
        S(T(2, 3, 4), T(3), T(3), None, None, True, 0.1, 1e-5, True),
        S(T(2, 3, 4), None, None, T(3, grad=False), T(3, low=0.5, grad=False), False, 0.1, 1e-5, True),
    ],
)
def instance_norm(
    F: Any,
    input: Array,
    weight: Array | None,
    bias: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Array:
    """Each channel of each sample less its mean, over its standard deviation."""
    if not use_input_stats and (running_mean is None or running_var is None):
        raise Invalid(
            "Expected running_mean and running_var to be defined when use_input_stats is false", param="running_mean"
        )
    return instances(F, input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


# ---------------------------------------------------------------- pools and convolutions


def _indexed(name: str, doc: str, samples: list[S], windows: bool) -> None:
    def adaptive(F: Any, input: Array, output_size: Ints) -> Array:
        sizes = [output_size] if isinstance(output_size, int) else list(output_size)
        if len(sizes) != 1:
            raise Invalid(
                f"adaptive_max_pool1d() argument 'output_size' should contain one int (got {len(sizes)})",
                param="output_size",
            )
        return _functional(F, "adaptive_max_pool1d_with_indices")(input, sizes[0])

    def pooled(
        F: Any,
        input: Array,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Ints = 0,
        dilation: Ints = 1,
        ceil_mode: bool = False,
    ) -> Array:
        pool = _functional(F, "max_pool1d_with_indices")
        return pool(input, kernel_size, stride, padding, dilation, ceil_mode)

    body = pooled if windows else adaptive
    body.__doc__ = doc
    composite(
        family="nn",
        name=name,
        moves=True,
        node="SqueezeBackward1",
        outputs=("result", "indices"),
        returns="list of Tensors",
        samples=samples,
    )(body)


_indexed(
    "adaptive_max_pool1d",
    "The largest element of each of `output_size` windows that cover the input, and where it is.",
    [S(T(1, 2, 6, distinct=True), 3), S(T(2, 5, distinct=True), [2])],
    windows=False,
)
_indexed(
    "max_pool1d_with_indices",
    "The largest element of each window, and where it is.",
    [S(T(1, 2, 6, distinct=True), 2), S(T(2, 6, distinct=True), 2, 1, 1, 1, True)],
    windows=True,
)


@composite(
    family="nn",
    node="ConvolutionBackward0",
    samples=[
        S(T(1, 2, 5), T(3, 2, 3), T(3), [1], [1], [1], False, [0], 1),
        S(T(1, 2, 4, 4), T(2, 1, 2, 2), None, [2, 1], [0], [1], False, [0], 2),
        S(T(1, 2, 3, 3), T(2, 1, 2, 2), T(1), [2], [0], [1], True, [1], 1),
    ],
)
def convolution(
    F: Any,
    input: Array,
    weight: Array,
    bias: Array | None,
    stride: Shape,
    padding: Shape,
    dilation: Shape,
    transposed: bool,
    output_padding: Shape,
    groups: int,
) -> Array:
    """A convolution, or with `transposed` its transpose, over the dimensions that `weight` has after its first two."""
    shape, given = F.shape(weight), F.shape(input)
    if len(shape) < 3:
        raise ShapeMismatch("weight should have at least three dimensions", param="weight")
    if len(given) != len(shape):
        raise ShapeMismatch(
            f"Expected {len(shape)}-dimensional input for {len(shape)}-dimensional weight {text(shape)}, but got "
            f"{len(given)}-dimensional input of size {text(given)} instead",
            param="input",
        )
    dims = len(shape) - 2
    if dims > 3:
        raise ShapeMismatch("unsupported ConvNd parameters", param="weight")
    for name, values in (("stride", stride), ("padding", padding), ("dilation", dilation)):
        _check_count(name, values, dims)
    if not transposed:
        return _functional(F, f"conv{dims}d")(input, weight, bias, stride, padding, dilation, groups)
    _check_count("output_padding", output_padding, dims)
    conv = _functional(F, f"conv_transpose{dims}d")
    return conv(input, weight, bias, stride, padding, output_padding, groups, dilation)


def _check_count(name: str, values: Any, dims: int) -> None:
    if len(values) not in (1, dims):
        raise Invalid(
            f"expected {name} to be a single integer value or a list of {dims} values to match the convolution "
            f"dimensions, but got {name}={text(values)}",
            param=name,
        )


# ---------------------------------------------------------------- grids


@composite(
    family="nn",
    samples=[S(T(1, 2, 3), [1, 1, 2, 3], False), S(T(1, 3, 4), [1, 1, 2, 2, 3], True)],
)
def affine_grid_generator(F: Any, theta: Array, size: Shape, align_corners: bool) -> Array:
    """The grid of an affine map for `grid_sampler`: `nn.functional.affine_grid`."""
    if len(size) not in (4, 5):
        raise Invalid("AffineGridGenerator needs 4d (spatial) or 5d (volumetric) inputs.", param="size")
    return _functional(F, "affine_grid")(theta, size, align_corners)
