"""curlgrad's engine: tensors and gradients on NumPy or CuPy. It knows nothing of HTTP."""
