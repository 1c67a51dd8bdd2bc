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

EXCLUDED: tuple[Row, ...] = (
    *((law, "bfloat16 cfloat float half", None, _ROUNDS) for law in ("gradient", "second-order")),
    *((law, "to", "float32|float16|half", _ROUNDS) for law in ("gradient", "second-order")),
    *((law, "detach detach_", None, "it cuts the tape on purpose") for law in ("gradient", "second-order", "tape")),
    ("gradient", "embedding", r", 1\)|scale", "a padding row gets no gradient, and scale_grad_by_freq scales one, on purpose"),
    ("gradient", "nn.functional.embedding", "padding|scale", "as `embedding`"),
    ("gradient", "native_batch_norm native_layer_norm", None, "PyTorch gives the saved mean and deviation no gradient"),
    ("tape", "native_batch_norm native_layer_norm", None, "PyTorch gives the saved mean and deviation no gradient"),
    ("carriers", "as_strided_copy as_strided_scatter", None, _STRIDES + ", which a rule may not ask for"),
    ("layouts", "as_strided_copy as_strided_scatter", None, _STRIDES),
    *(
        (law, "view view_as view_copy _view_dtype", None, "a view of strided memory may not exist: then it is refused")
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
    ("reduced", "_normal _random normal", None, "the stream depends on the dtype, as in PyTorch"),
    ("carriers", "rand randn", "bfloat16", "on arrays there is no bfloat16"),
    ("tape", "unique unique_consecutive", None, "PyTorch has no gradient for it"),
)

# Composites whose sizes depend on values (primitives say so by `dynamic=True`).
VALUES_DECIDE = frozenset(
    "_tensor_split_either _repeat_interleave nn.functional.one_hot unique unique_consecutive getitem masked_select nonzero argwhere where "
    "bincount repeat_interleave tensor_split".split()
)


# Operations that PyTorch has not, or not as a function, with the reason why they are here.
OWN: dict[str, str] = {}

# Parameters of ours that PyTorch's function has not, or not under that name.
OWN_PARAMETERS: dict[str, dict[str, str]] = {}


def reason(law: str, op: str, sample: str | None = None) -> str | None:
    """Why a law is not asked of an operation, or of one of its samples (as it prints); None where it is."""
    for row_law, row_ops, pattern, why in EXCLUDED:
        if row_law == law and op in row_ops.split():
            if pattern is None or (sample is not None and re.search(pattern, sample)):
                return why
    return None
