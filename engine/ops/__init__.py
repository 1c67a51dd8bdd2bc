"""The operations, one file per family of PyTorch; each file is its family's reference page."""

from engine.declare import finalize
from engine.ops import (
    activations,
    autograd,
    casts,
    comparison,
    einsum,
    factories,
    filling,
    indexing,
    joining,
    linalg,
    optim,
    pointwise,
    products,
    reductions,
    scans,
    softmax,
    sorting,
    strided,
    unary,
    views,
)

finalize()

__all__ = [
    "activations",
    "autograd",
    "casts",
    "comparison",
    "einsum",
    "factories",
    "filling",
    "indexing",
    "joining",
    "linalg",
    "optim",
    "pointwise",
    "products",
    "reductions",
    "scans",
    "softmax",
    "sorting",
    "strided",
    "unary",
    "views",
]
