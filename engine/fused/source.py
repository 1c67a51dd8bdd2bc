"""Chains of functions as data, and as CUDA C.

A chain says which functions follow one another, on what kinds of operands, and which values are wanted; no shape and no
number is in it, so one source serves all that differ in these alone. Everything that gets into a source is a word or a
number of the tables here: no name, no text and no value of a program does.

A kernel computes one element of everything for each index: it reads operands, calls functions in registers, and
stores what is wanted. `--fmad=false` keeps products and sums apart, so that each function rounds as it does alone.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple

from engine.fused.table import C_TYPES, FUNCTIONS

NAME = "curlgrad_chain"
OPTIONS = ("--fmad=false", "--std=c++17")
MOST_DIMENSIONS = 6  # of an index space, after neighbours that lie alike have been joined
MOST_OPERANDS = 40  # arrays and scalars: kernels take 4 KB of arguments, strides included
MOST_FUNCTIONS = 256

DENSE, ONE, STRIDED = "dense", "one", "strided"


class Chain(NamedTuple):
    """Functions that follow one another.

    Values are numbered: inputs first, then scalars, then what functions give. `inputs`: dtype and layout of arrays that
    are read; DENSE lie as the results do, ONE is a single element for all. `scalars`: dtypes. `functions`: name, the
    dtype of its loop, the values it takes. `outputs`: values that are stored, each with the layout of its target.
    `dimensions`: of the index space that strided arrays are found in; 0 where there is none. `wide`: whether indices
    need 64 bits.
    """

    inputs: tuple[tuple[str, str], ...]
    scalars: tuple[str, ...]
    functions: tuple[tuple[str, str, tuple[int, ...]], ...]
    outputs: tuple[tuple[int, str], ...]
    dimensions: int
    wide: bool

    def dtypes(self) -> list[str]:
        """The dtype of every value."""
        found = [code for code, _ in self.inputs] + list(self.scalars)
        for name, loop, _ in self.functions:
            found.append("b1" if FUNCTIONS[name].gives == "b1" else loop)
        return found

    @property
    def library(self) -> bool:
        """Whether a function of the mathematical library is called."""
        return any(FUNCTIONS[name].ulps for name, _, _ in self.functions)

    @property
    def key(self) -> str:
        """What the chain is known by: a digest of what it says."""
        return hashlib.sha256(repr(tuple(self)).encode()).hexdigest()[:16]


# Helpers in front of every kernel. On a device conversions of float16 are one instruction; elsewhere (tests, and the
# stand-in for CuPy) they are done bit by bit, with the same result but for what is in a NaN.
PRELUDE = r"""
#ifdef __CUDA_ARCH__
#define MADE static __device__ __forceinline__
MADE float from_bits(unsigned int bits) { return __uint_as_float(bits); }
MADE unsigned int to_bits(float value) { return __float_as_uint(value); }
MADE float half_to_float(unsigned short bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
MADE unsigned short float_to_half(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
MADE float larger(float a, float b) { return a != a ? a : b != b ? b : fmaxf(a, b); }
MADE double larger(double a, double b) { return a != a ? a : b != b ? b : fmax(a, b); }
MADE float smaller(float a, float b) { return a != a ? a : b != b ? b : fminf(a, b); }
MADE double smaller(double a, double b) { return a != a ? a : b != b ? b : fmin(a, b); }
#else
#ifndef MADE
#define MADE static inline
#endif
MADE float from_bits(unsigned int bits) { float value; __builtin_memcpy(&value, &bits, 4); return value; }
MADE unsigned int to_bits(float value) { unsigned int bits; __builtin_memcpy(&bits, &value, 4); return bits; }
MADE float half_to_float(unsigned short bits) {
  const unsigned int sign = (bits & 0x8000U) << 16, size = bits & 0x7FFFU;
  if (size >= 0x7C00U) return from_bits(sign | 0x7F800000U | (size & 0x3FFU) << 13);
  if (size >= 0x400U) return from_bits(sign | ((size << 13) + 0x38000000U));
  const float value = (float)size * from_bits(0x33800000U);  // 2^-24: the smallest above zero
  return from_bits(sign | to_bits(value));
}
MADE unsigned short float_to_half(float value) {
  const unsigned int bits = to_bits(value), size = bits & 0x7FFFFFFFU;
  const unsigned short sign = (unsigned short)(bits >> 16 & 0x8000U);
  if (size > 0x7F800000U) return sign | 0x7E00U | (unsigned short)(size >> 13 & 0x1FFU);
  if (size >= 0x477FF000U) return sign | 0x7C00U;
  if (size >= 0x38800000U) return sign | (unsigned short)((size - 0x38000000U + 0xFFFU + (size >> 13 & 1U)) >> 13);
  return sign | (unsigned short)(to_bits(from_bits(size) + 0.5f) - 0x3F000000U);  // adding 1/2 rounds to 2^-24
}
MADE float larger(float a, float b) { return a != a ? a : b != b ? b : a > b ? a : b; }
MADE double larger(double a, double b) { return a != a ? a : b != b ? b : a > b ? a : b; }
MADE float smaller(float a, float b) { return a != a ? a : b != b ? b : a < b ? a : b; }
MADE double smaller(double a, double b) { return a != a ? a : b != b ? b : a < b ? a : b; }
#endif
MADE unsigned short narrowed(float value) {
  const unsigned int bits = to_bits(value);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return 0x7FC0;
  return (unsigned short)((bits + ((bits >> 16) & 1U) + 0x7FFFU) >> 16);
}
"""


def parameters(chain: Chain) -> list[tuple[str, str]]:
    """C type and name of each parameter, in order: arrays read, arrays written, scalars, sizes and strides."""
    dtypes = chain.dtypes()
    index = "long long" if chain.wide else "int"
    found = [(f"const {C_TYPES[code]}*", f"a{i}") for i, (code, _) in enumerate(chain.inputs)]
    found += [(f"{C_TYPES[dtypes[at]]}*", f"r{i}") for i, (at, _) in enumerate(chain.outputs)]
    found += [(C_TYPES[code], f"c{i}") for i, code in enumerate(chain.scalars)]
    found.append((index, "n"))
    found += [(index, f"n{d}") for d in range(1, chain.dimensions)]
    arrays = [(f"a{i}", layout) for i, (_, layout) in enumerate(chain.inputs)]
    arrays += [(f"r{i}", layout) for i, (_, layout) in enumerate(chain.outputs)]
    for name, layout in arrays:
        if layout == STRIDED:
            found += [(index, f"{name}_{d}") for d in range(chain.dimensions)]
    return found


@lru_cache(maxsize=1024)
def source(chain: Chain, name: str = NAME) -> str:
    """The chain as a CUDA kernel of this name, without the helpers that `PRELUDE` has."""
    declared = ",\n    ".join(f"{c} {n}" for c, n in parameters(chain))
    index = "long long" if chain.wide else "int"
    lines = []
    if chain.dimensions:
        lines.append(f"{index} q = i;")
        for d in range(chain.dimensions - 1, 0, -1):
            lines += [f"const {index} i{d} = q % n{d};", f"q /= n{d};"]
        lines.append(f"const {index} i0 = q;")
    dtypes = chain.dtypes()
    first = len(chain.inputs)
    for i, (code, layout) in enumerate(chain.inputs):
        lines.append(f"const {C_TYPES[code]} v{i} = a{i}[{_place(f'a{i}', layout, chain.dimensions)}];")
    for i, code in enumerate(chain.scalars):
        lines.append(f"const {C_TYPES[code]} v{first + i} = c{i};")
    first += len(chain.scalars)
    for i, (function, loop, operands) in enumerate(chain.functions):
        made = dtypes[first + i]
        lines.append(f"const {C_TYPES[made]} v{first + i} = {_expression(function, loop, operands, dtypes)};")
    for i, (at, layout) in enumerate(chain.outputs):
        lines.append(f"r{i}[{_place(f'r{i}', layout, chain.dimensions)}] = v{at};")
    body = "\n    ".join(lines)
    return f"""
extern "C" __global__ void {name}(
    {declared}) {{
  const {index} step = ({index})gridDim.x * ({index})blockDim.x;
  for ({index} i = ({index})blockIdx.x * ({index})blockDim.x + ({index})threadIdx.x; i < n; i += step) {{
    {body}
  }}
}}
"""


def _place(name: str, layout: str, dimensions: int) -> str:
    if layout == DENSE:
        return "i"
    if layout == ONE:
        return "0"
    return " + ".join(f"i{d} * {name}_{d}" for d in range(dimensions))


def _expression(name: str, loop: str, operands: tuple[int, ...], dtypes: list[str]) -> str:
    function = FUNCTIONS[name]
    if name == "cast":
        return _cast(f"v{operands[0]}", dtypes[operands[0]], loop)
    texts = []
    for at, v in enumerate(operands):
        given = at == 0 and function.first
        texts.append(f"v{v}" if given else _cast(f"v{v}", dtypes[v], loop))
    kind = C_TYPES[loop]
    unsigned = "unsigned long long" if loop[1:] == "8" else "unsigned int"
    return function.text(loop).format(*texts, f="f" if loop == "f4" else "", T=kind, U=unsigned)


def _cast(value: str, source: str, target: str) -> str:
    """A value in another dtype, as an operand: a name, or an expression in parentheses."""
    if source == target:
        return value
    if source == "f2":
        value, source = f"half_to_float({value})", "f4"
    if source == target:
        return value
    if target == "f2":
        return f"float_to_half({value})"
    if target == "b1":
        return f"({value} != 0)"
    return f"(({C_TYPES[target]}){value})"


__all__ = [
    "DENSE",
    "MOST_DIMENSIONS",
    "MOST_FUNCTIONS",
    "MOST_OPERANDS",
    "NAME",
    "ONE",
    "OPTIONS",
    "PRELUDE",
    "STRIDED",
    "Chain",
    "parameters",
    "source",
]
