"""The cases that a law legitimately does not hold for, each with its reason. Nothing else is left out.

A row is (law, operations, pattern of the samples or None for all, reason). A test holds the table itself: an excluded
operation for which the law does hold is an error.
"""

from __future__ import annotations

import re

Row = tuple[str, str, str | None, str]

_ROUNDS = "it rounds to fewer digits, and finite differences in float64 see the steps"
_STRIDES = "its result is defined by the strides of its input"
_STATISTICS = "training updates the running statistics that it is given, as in PyTorch"

_FILLED = " ".join(
    f"nn.init.{name}_"
    for name in (
        "constant",
        "dirac",
        "eye",
        "kaiming_normal",
        "kaiming_uniform",
        "normal",
        "ones",
        "orthogonal",
        "sparse",
        "trunc_normal",
        "uniform",
        "xavier_normal",
        "xavier_uniform",
        "zeros",
    )
)

EXCLUDED: tuple[Row, ...] = (
    *((law, "bfloat16 cfloat float half", None, _ROUNDS) for law in ("gradient", "second-order")),
    *((law, "to", "float32|float16|half", _ROUNDS) for law in ("gradient", "second-order")),
    *((law, "detach detach_", None, "it cuts the tape on purpose") for law in ("gradient", "tape")),
    (
        "gradient",
        "embedding",
        r", 1\)|scale",
        "a padding row gets no gradient, and scale_grad_by_freq scales one, on purpose",
    ),
    (
        "guards",
        "unravel_index _unravel",
        None,
        "an index out of range wraps around in the first dimension, as in PyTorch",
    ),
    ("gradient", "nn.functional.embedding", "padding|scale", "as `embedding`"),
    ("gradient", "native_batch_norm native_layer_norm", None, "PyTorch gives the saved mean and deviation no gradient"),
    ("tape", "native_batch_norm native_layer_norm", None, "PyTorch gives the saved mean and deviation no gradient"),
    ("carriers", "as_strided_copy as_strided_scatter", None, _STRIDES + ", which a rule may not ask for"),
    ("layouts", "as_strided_copy as_strided_scatter", None, _STRIDES),
    *(
        (law, "view view_as _view_dtype", None, "a view of strided memory may not exist: then it is refused")
        for law in ("layouts", "ownership")
    ),
    *(
        (law, "view_as_complex view_as_complex_copy", None, "the real and imaginary parts must lie side by side")
        for law in ("layouts", "ownership")
    ),
    *((law, "native_batch_norm", None, _STATISTICS) for law in ("layouts", "ownership")),
    *((law, "nn.functional.batch_norm", None, _STATISTICS) for law in ("layouts", "ownership")),
    ("reduced", "bincount", None, "weights that are not float32 are added up in float64, as in PyTorch"),
    ("reduced", "chain_matmul linalg.multi_dot", None, "each of several products is rounded, as in PyTorch"),
    (
        "reduced",
        "cumulative_trapezoid diff gradient trapezoid trapz",
        None,
        "each of several operations is rounded, as in PyTorch",
    ),
    (
        "reduced",
        "_normal _random normal nn.functional.gumbel_softmax",
        None,
        "the stream depends on the dtype, as in PyTorch",
    ),
    ("reduced", "rrelu nn.functional.rrelu", "True", "the slopes are rounded to the dtype, as in PyTorch"),
    ("gradient", _FILLED, None, "nothing is recorded, on purpose"),
    ("inplace", "float_power_", None, "PyTorch wants a double base, and a float32 one is refused"),
    ("reduced", "nextafter", None, "the neighbours are those of the dtype, as in PyTorch"),
    ("reduced", "nan_to_num", r"T\[4\]", "the largest number is that of the dtype, as in PyTorch"),
    ("carriers", "rand randn", "bfloat16", "on arrays there is no bfloat16"),
    ("undo", "histogramdd", None, "its second result is a list, and the program of the law names single tensors"),
    ("tape", "linalg.lstsq", None, "rank and singular values have no gradient, as in PyTorch"),
    ("tape", "unique unique_consecutive", None, "PyTorch has no gradient for it"),
)

# Composites whose sizes depend on values (primitives say so by `dynamic=True`).
VALUES_DECIDE = frozenset(
    [
        "_tensor_split_either",
        "_repeat_interleave",
        "nn.functional.one_hot",
        "unique",
        "unique_consecutive",
        "getitem",
        "masked_select",
        "nonzero",
        "argwhere",
        "where",
        "bincount",
        "repeat_interleave",
        "tensor_split",
    ]
)


# Operations that PyTorch has not as functions, with the reason why they are here.
OWN: dict[str, str] = {
    **{
        f"{kind}Tensor": "a class of PyTorch's, called as the books call it"
        for kind in ("", "BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
    },
    "finfo": "a class there",
    "iinfo": "a class there",
    **dict.fromkeys(
        (
            *("H", "T", "mH", "mT", "ndim", "shape", "itemsize", "nbytes", "is_leaf", "requires_grad", "grad_fn"),
            *("retains_grad", "dtype", "device", "layout", "is_cpu", "is_cuda", "is_meta", "is_nested"),
            *("is_quantized", "is_sparse"),
        ),
        "a property of tensors there",
    ),
    "autograd.set_detect_anomaly": "a class there, which is called",
    "set_grad_enabled": "a class there, which is called",
    "is_anomaly_enabled": "PyTorch has it, and its signature cannot be read",
    **{
        f"optim.{name}": "a class of torch.optim there: an operation over explicit state here"
        for name in (
            "adamw_",
            *(
                f"{optimizer}_{what}"
                for optimizer in (
                    "adadelta",
                    "adafactor",
                    "adagrad",
                    "adam",
                    "adamax",
                    "asgd",
                    "lbfgs",
                    "muon",
                    "nadam",
                    "radam",
                    "rmsprop",
                    "rprop",
                    "sgd",
                )
                for what in ("", "state")
            ),
        )
    },
    "getitem": "x[index] there",
    "setitem_": "x[index] = value there",
}

# Parameters whose name or default differs from PyTorch's, or that only one of the two has.
_STARRED = "PyTorch takes any number of arguments there"
_TWO_NAMES = "the function and the method of PyTorch name it differently"
_SHARED = "shared with another name of the same operation"
OWN_PARAMETERS: dict[str, dict[str, str]] = {
    **{
        name: {"reduction": "PyTorch's schema says 1, the mean, and its Python function reduces nothing"}
        for name in (
            *("binary_cross_entropy_with_logits", "cosine_embedding_loss", "ctc_loss", "hinge_embedding_loss"),
            *("kl_div", "margin_ranking_loss", "triplet_margin_loss"),
        )
    },
    "set_rng_state": {"new_state": "may be left out here: the generator begins again from its seed"},
    "asarray": dict.fromkeys(("dtype", "device"), "may be left out there too, whatever its signature says"),
    "broadcast_shapes": {"shapes": _STARRED},
    "hamming_window": dict.fromkeys(("periodic", "alpha", "beta"), "PyTorch's documented defaults"),
    "einsum": {"operands": _STARRED, "tensors": _STARRED, "path": "no choice of path"},
    "split": {"input": _TWO_NAMES, "tensor": _TWO_NAMES},
    "arange": dict.fromkeys(("start", "end"), "three overloads in one: arange(end), arange(start, end[, step])"),
    "randint": dict.fromkeys(("low", "high", "size"), "two overloads in one: low may be left out"),
    "randint_like": dict.fromkeys(("low", "high"), "two overloads in one: low may be left out"),
    "normal": {"std": "PyTorch's documented default, 1"},
    **{
        f"{place}max_pool{n}d": {"return_indices": "PyTorch has it too, hidden behind a dispatch"}
        for place in ("", "nn.functional.", "nn.functional.adaptive_")
        for n in (1, 2, 3)
    },
    **{
        f"nn.functional.fractional_max_pool{n}d": dict.fromkeys(
            ("output_size", "output_ratio", "return_indices", "random_samples", "_random_samples"),
            "PyTorch hides these behind a dispatch; they are those of ..._with_indices",
        )
        for n in (2, 3)
    },
    **{f"{name}": {"rounding_mode": _SHARED} for name in ("true_divide", "true_divide_")},
    "autograd.backward": {"grad_variables": "deprecated there"},
    "autograd.grad": dict.fromkeys(
        ("only_inputs", "is_grads_batched", "materialize_grads"), "deprecated there, or for vmap"
    ),
    "ctc_loss": {"reduction": "a number there, and here the word that nn.functional.ctc_loss takes"},
    "can_cast": {"from": "a word of Python, from_ there", "from_": "a word of Python, from here"},
    "median": {"dim": "PyTorch's documented default, -1"},
    "nanmedian": {"dim": "PyTorch's documented default, -1"},
    "to": {"memory_format": "memory has one format here", "other": "the three overloads in one"},
    "type": {"non_blocking": "nothing is asynchronous here"},
    "meshgrid": {"indexing": "null means ij, with PyTorch's warning left out"},
}


def reason(law: str, op: str, sample: str | None = None) -> str | None:
    """Why a law is not asked of an operation, or of one of its samples (as it prints); None where it is."""
    for row_law, row_ops, pattern, why in EXCLUDED:
        if row_law == law and op in row_ops.split() and (pattern is None or (sample and re.search(pattern, sample))):
            return why
    return None
