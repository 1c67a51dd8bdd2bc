"""Random chains of functions, and arrays for them: what fused kernels are tried on."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from engine.fused.launch import Call, Space
from engine.fused.source import DENSE, ONE, OPTIONS, PRELUDE, STRIDED, Chain, source
from engine.fused.table import C_TYPES, FUNCTIONS, array_code, castable, dtype_of, loop_of
from engine.simulated import raw, sp, xp

CODES = ("f4", "f4", "f4", "f8", "f2", "b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
SHAPES = ((), (1,), (7,), (5, 3), (2, 3, 4), (3, 1, 5), (2, 2, 2, 3), (300,))
SPECIAL = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-40, -3e38, 0.5, 20.0, -20.0, 1e-8, 65504.0, 6e-8)


def numbers(rng: random.Random, code: str, shape: tuple[int, ...]) -> Any:
    """Random values of a dtype, those among them that functions are often wrong at."""
    size = int(np.prod(shape))
    if code == "b1":
        return np.array([rng.random() < 0.5 for _ in range(size)], bool).reshape(shape)
    d = dtype_of(code)
    if code[0] == "f":
        row = [rng.choice(SPECIAL) if rng.random() < 0.2 else rng.uniform(-3, 3) for _ in range(size)]
        with np.errstate(all="ignore"):
            return np.array(row, "f8").astype(d).reshape(shape)
    info = np.iinfo(d)
    row = [rng.choice((info.min, info.max)) if rng.random() < 0.1 else rng.randint(0, 100) for _ in range(size)]
    return np.array(row, d).reshape(shape)


def lying(rng: random.Random, code: str, shape: tuple[int, ...]) -> Any:
    """An array that broadcasts to the shape, and lies as it likes: dense, transposed, apart, backwards, repeated."""
    kind = rng.randrange(6)
    if kind == 0:
        return numbers(rng, code, ())
    if kind == 1 and shape:
        return numbers(rng, code, shape[rng.randrange(len(shape) + 1) :])
    if kind == 2:
        return numbers(rng, code, tuple(1 if rng.random() < 0.5 else n for n in shape))
    if kind == 3 and len(shape) > 1:
        axes = list(range(len(shape)))
        rng.shuffle(axes)
        made = numbers(rng, code, tuple(shape[a] for a in axes))
        return made.transpose([axes.index(d) for d in range(len(shape))])
    if kind == 4 and shape:
        wide = numbers(rng, code, (*shape[:-1], shape[-1] * 2 + 1))
        return wide[..., 1::2][..., ::-1] if rng.random() < 0.5 else wide[..., 1::2]
    return numbers(rng, code, shape)


def _reachable(name: str, dtypes: list[str], picked: tuple[int, ...], rng: random.Random) -> str:
    """A loop for a function of these values; "" where there is none."""
    given = [dtype_of(dtypes[v]) for v in picked]
    if name == "cast":
        targets = [c for c in set(CODES) if castable(dtypes[picked[0]], c)]
        return rng.choice(sorted(targets))
    if name == "fill":
        return dtypes[picked[1]]
    if name in ("widen_bfloat16", "narrow_bfloat16"):
        wanted = "u2" if name == "widen_bfloat16" else "f4"
        return ("f4" if wanted == "u2" else "u2") if dtypes[picked[0]] == wanted else ""
    operands = given[1:] if FUNCTIONS[name].first else given
    joint = np.result_type(*operands)
    if joint == np.float16 and name not in ("copy", "where"):
        return ""
    made = np.dtype(bool) if FUNCTIONS[name].gives == "b1" else joint
    return loop_of(name, given, made)


def random_chain(seed: int) -> tuple[Chain, tuple[int, ...], list[Any], list[Any]]:
    """A chain, its shape, and operands for it: arrays, and scalars of NumPy. All that it computes is an output."""
    rng = random.Random(seed)
    shape = rng.choice(SHAPES)
    codes = [rng.choice(CODES) for _ in range(rng.randint(1, 4))]
    arrays = [lying(rng, code, shape) for code in codes]
    scalars = [rng.choice(("f4", "f4", "f8", "i4", "i8")) for _ in range(rng.randint(0, 3))]
    values = [numbers(rng, code, ())[()] for code in scalars]
    first = len(codes) + len(scalars)
    dtypes = codes + scalars
    known = list(range(len(codes)))  # values that are arrays
    functions: list[tuple[str, str, tuple[int, ...]]] = []
    names = sorted(FUNCTIONS)
    for _ in range(rng.randint(1, 12)):
        for _ in range(40):
            name = rng.choice(names)
            arity = FUNCTIONS[name].arity
            picked = [rng.choice(known[-4:] if rng.random() < 0.5 else known) for _ in range(arity)]
            if name == "fill":  # with a number
                if not scalars:
                    continue
                picked[1] = len(codes) + rng.randrange(len(scalars))
            loop = _reachable(name, dtypes, tuple(picked), rng)
            if loop:
                break
        else:
            continue
        same = [i for i, code in enumerate(scalars) if code == loop]
        if arity > 1 and same and rng.random() < 0.5 and dtypes[picked[-2]] == loop:  # a number beside an array
            picked[-1] = len(codes) + rng.choice(same)
        functions.append((name, loop, tuple(picked)))
        known.append(len(dtypes))
        dtypes.append("b1" if FUNCTIONS[name].gives == "b1" else loop)
    outputs = tuple((first + i, DENSE) for i in range(len(functions)))
    space = Space(shape, arrays)
    wide = space.wide or rng.random() < 0.2
    layouts = tuple(zip(codes, space.layouts, strict=True))
    return Chain(layouts, tuple(scalars), tuple(functions), outputs, len(space.sizes), wide), shape, arrays, values


def every_function() -> list[Chain]:
    """Chains that together call each function in each of its loops, on dense and on strided arrays."""
    found = []
    for code in C_TYPES:
        names = [name for name, f in FUNCTIONS.items() if f.text(code) and f.first in ("", "b1", "any")]
        for layout, dimensions, wide in ((DENSE, 0, False), (STRIDED, 3, True)):
            inputs = (("b1", layout), (code, layout), (code, ONE), ("f4", layout), ("u2", layout))  # as `operands_of`
            functions = []
            for name in names:
                operands = {"where": (0, 1, 2), "fill": (1, 5)}.get(name, (1, 2)[: FUNCTIONS[name].arity])
                functions.append((name, code, operands))
            functions += [("cast", target, (1,)) for target in C_TYPES if target != code and castable(code, target)]
            functions += [("widen_bfloat16", "f4", (4,)), ("narrow_bfloat16", "u2", (3,))]
            outputs = tuple((6 + i, DENSE) for i in range(len(functions)))
            found.append(Chain(inputs, (code,), tuple(functions), outputs, dimensions, wide))
    return found


def operands_of(chain: Chain, seed: int) -> tuple[tuple[int, ...], list[Any], list[Any]]:
    """A shape, arrays and scalars for one of `every_function`."""
    rng = random.Random(seed)
    shape = (3, 4, 5) if chain.dimensions else (60,)
    arrays = []
    for code, layout in chain.inputs:
        made = numbers(rng, code, () if layout == ONE else shape[::-1])
        arrays.append(made.transpose() if layout == STRIDED else made)
    return shape, arrays, [numbers(rng, code, ())[()] for code in chain.scalars]


# ---------------------------------------------------------------- kernels beside array code


def apart(made: Any, wanted: Any) -> int:
    """How many representable numbers two arrays are apart at most; NaN is NaN, and the sign of zero counts."""
    if made.dtype != wanted.dtype or made.shape != wanted.shape:
        raise AssertionError(f"{made.dtype} {made.shape} instead of {wanted.dtype} {wanted.shape}")
    if made.dtype.kind != "f":
        return 0 if np.array_equal(made, wanted) else 1 << 64
    if not made.size:
        return 0
    signed = np.dtype(f"i{made.itemsize}")
    nan = np.isnan(made) & np.isnan(wanted)
    first, second = (_ordered(np.ascontiguousarray(x).reshape(-1).view(signed)) for x in (made, wanted))
    return int(np.max(np.where(nan.reshape(-1), 0, np.abs(first - second))))


def _ordered(bits: Any) -> Any:
    """Floats' bits as integers in the order of the numbers, -0.0 just below 0.0."""
    wide = bits.astype(object)
    return np.where(wide < 0, int(np.iinfo(bits.dtype).min) - wide - 1, wide)


def run_together(chains: list[Chain], options: tuple[str, ...]) -> list[Any]:
    """Kernels of many chains from one compilation."""
    names = [f"chain_{i}" for i in range(len(chains))]
    code = PRELUDE + "".join(source(chain, name) for chain, name in zip(chains, names, strict=True))
    library = raw.build(code, names, options)
    made = []
    for name in names:
        kernel = raw.RawKernel(code, name, OPTIONS)
        kernel.bind(library)
        made.append(kernel)
    return made


def distances(
    chain: Chain, shape: tuple[int, ...], arrays: list[Any], scalars: list[Any], kernel: Any, module: Any = xp,
    scipy: Any = sp,
) -> dict[tuple[str, str], int]:  # fmt: skip
    """How far apart each function of a chain is from its array code, on what the kernel gave it.

    Raises AssertionError where that is more than the tables promise.
    """
    dtypes = chain.dtypes()
    inputs = [on_device(a, module) for a in arrays]
    outputs = [module.empty(shape, dtype=dtype_of(dtypes[at])) for at, _ in chain.outputs]
    space = Space(shape, [*inputs, *outputs])
    space.wide = chain.wide
    Call(chain, space, scalars, kernel, module, scipy).launch(inputs, outputs)
    values = [*inputs, *[x.item() for x in scalars], *outputs]
    found: dict[tuple[str, str], int] = {}
    for i, (name, loop, operands) in enumerate(chain.functions):
        wanted = array_code(name, loop, module, scipy)(*[values[v] for v in operands])
        made, known = outputs[i].get(), np.broadcast_to(wanted.get(), shape)
        if name == "erfc":  # the far tail, where SciPy is not exact
            made, known = (np.where(known < 1e-12, 0, x).astype(x.dtype) for x in (made, known))
        if name == "copysign":  # a compiler may know that a result is not negative, and NaN's sign says nothing
            sign = values[operands[1]]
            unknown = np.isnan(np.broadcast_to(sign.get() if hasattr(sign, "get") else sign, shape))
            made, known = (np.where(unknown, 0, x).astype(x.dtype) for x in (made, known))
        far = apart(made, known)
        if far > FUNCTIONS[name].ulps:
            raise AssertionError(f"{name} in {loop} is {far} apart in {source(chain)}")
        found[name, loop] = max(found.get((name, loop), 0), far)
    return found


def hold(seeds: range, level: str = "-O0") -> None:
    """Holds random chains to their array code, compiled all at once."""
    rows = [random_chain(seed) for seed in seeds]
    kernels = run_together([row[0] for row in rows], (level, *raw.OPTIONS[1:]))
    for seed, kernel, row in zip(seeds, kernels, rows, strict=True):
        try:
            distances(*row, kernel)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def on_device(host: Any, module: Any = xp) -> Any:
    """A host array on the device, lying as it does."""
    low = sum(min(0, s * (n - 1)) for s, n in zip(host.strides, host.shape, strict=True))
    high = sum(max(0, s * (n - 1)) for s, n in zip(host.strides, host.shape, strict=True)) + host.itemsize
    line = np.zeros((high - low) // host.itemsize, host.dtype)
    np.ndarray(host.shape, host.dtype, line, -low, host.strides)[...] = host
    return module.ndarray(host.shape, host.dtype, module.asarray(line).data + -low, host.strides)
