"""The operations, one file per family of PyTorch; each file is its family's reference page."""

from engine.declare import finalize
from engine.ops import autograd, casts, factories, linalg, optim, pointwise, reductions, views

finalize()

__all__ = ["autograd", "casts", "factories", "linalg", "optim", "pointwise", "reductions", "views"]
