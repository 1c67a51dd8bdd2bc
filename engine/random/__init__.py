"""Random numbers: PyTorch's CPU stream, reproduced on NumPy's MT19937.

`Generator` makes what `torch.Generator` makes from the same seed. Its fill methods return new one-dimensional host
arrays in *memory order*: the caller lays them out with the strides that torch would give the tensor. A dtype is named
("float32"); for "bfloat16" the values come as float32 that are already rounded to bfloat16, and the caller narrows
them. Nothing is drawn for an empty tensor. A parameter that torch refuses is refused in its words (Invalid).

The words of the stream: `w` is one 32-bit word, `r64 = w0 << 32 | w1`, `u24` the low 24 bits of w over 2^24, `u53`
the low 53 bits of r64 over 2^53. Which operation takes what was found by experiment with torch 2.13 on x86-64 with
AVX2 (the thread count does not matter); tests/data/rng.json holds its numbers. Where the C library is glibc all agree
to the bit, but for the last logarithm of `gumbel` in float32, which may be off by a bit or two, the order in which
`multinomial` gives equals, and permutations longer than 214748363. With another C library, what goes through its
float64 functions agrees within their rounding.

CUDA devices have a stream of their own, as in PyTorch: `Philox`, which counts its draws in the session's `Generator`.

    generator.py    the stream, its state, and a method for each distribution
    philox.py       the devices' stream
    normals.py      sixteen normals at a time, in float32 instruction by instruction as torch's vector code
    counting.py     Poisson and binomial numbers, by rejection
    arithmetic.py   fused multiply-add, narrowing, casts as C++ does them
"""

from engine.random.generator import Generator, State
from engine.random.philox import Philox

__all__ = ["Generator", "Philox", "State"]
