"""curlgrad's engine: tensors and gradients on NumPy or CuPy. It knows nothing of HTTP."""

__version__ = "0.1.0"
