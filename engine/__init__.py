"""curlgrad's engine: tensors and gradients on NumPy or CuPy. It knows nothing of HTTP."""

from engine import processor  # noqa: F401  it loads NumPy

__version__ = "0.1.0"
