"""The generator: seed and state, the words of the stream, and a method for each distribution."""

from __future__ import annotations

import math
import secrets
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import length_hint
from typing import Any, TypeAlias

import numpy as np
from scipy.special import xlogy

from engine.dtypes import C_NAMES, SCALAR_TYPES
from engine.errors import Invalid
from engine.random.arithmetic import Array, chunks, f4, f8, fma32, fma64, from_int64, i4, libm, narrow, u8
from engine.random.counting import binomial, poisson
from engine.random.normals import normal32, normal64

# The seed, NumPy's state of the words, the cached normal, and how many draws the devices have made.
State: TypeAlias = tuple[int, Any, float | None, int]

LOW53 = u8((1 << 53) - 1)
UNIT24, UNIT53 = f4(2.0**-24), 2.0**-53
# From where on random_ and randint take 64-bit words. From where on randperm does, since w % (n - i) would be too
# uneven; torch changes there too, to something that was not found out, so that longer permutations are not torch's.
WIDE_RANGE = 1 << 28
WIDE_PERMUTATION = (2**32 - 1) // 20
MAX_CATEGORIES = 1 << 24

DIGITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
LARGEST = {
    "float16": 65504.0,
    "bfloat16": float.fromhex("0x1.fep127"),
    "float32": float.fromhex("0x1.fffffep127"),
    "float64": float.fromhex("0x1.fffffffffffffp1023"),
}
COMPONENT = {"complex64": "float32", "complex128": "float64"}
INT_MAX = {"bool": 1, "uint8": 2**8 - 1, "int8": 2**7 - 1, "int16": 2**15 - 1, "int32": 2**31 - 1, "int64": 2**63 - 1}
INT64_MIN = -(2**63)

# The state on disk and on the wire, as torch.get_rng_state() writes it; little-endian:
#   u64 seed | i32 left | i32 1 | u64 next | 624 x u64 the words | f64 0 | f64 the cached normal | f64 0
#   | i32 whether there is one | 4 bytes | f32 0 | bool 0 | 3 bytes
# `next` of the 624 words are used up, and left = 625 - next; fresh from the seed they are 0 and 1.
BLOCK = 624
HEAD, TAIL = struct.Struct("<QiiQ"), struct.Struct("<dddi4xf?3x")
STATE_BYTES = HEAD.size + 8 * BLOCK + TAIL.size
DEVICE_STATE = struct.Struct("<QQ")  # as torch.cuda.get_rng_state() writes it: the seed, and four words a draw


class Generator:
    """A source of PyTorch's random numbers. Without a seed it takes one from the system.

    `draws` counts what its devices have drawn since it was seeded (engine.random.philox).
    """

    __slots__ = ("_bits", "_cached", "_known", "_seed", "draws")

    def __init__(self, seed: int | None = None) -> None:
        self._bits = np.random.MT19937(0)
        self._known: Any = None  # the state of `_bits`, until more is drawn: NumPy takes 40 µs to say it
        self._cached: float | None = None  # the second normal of a pair, where it has not been handed out
        self._seed = 0
        self.draws = 0
        if seed is None:
            self.seed()
        else:
            self.manual_seed(seed)

    # ------------------------------------------------------------ seed and state

    @property
    def initial_seed(self) -> int:
        """The seed last set, as torch shows it: 0 to 2^64 - 1."""
        return self._seed

    def manual_seed(self, seed: int) -> None:
        """Seeds the stream; -2^63 <= seed < 2^64, a negative one counting as seed + 2^64. Raises Invalid outside."""
        if not -(2**63) <= seed < 2**64:
            raise Invalid("Overflow when unpacking long long", param="seed", op="manual_seed", code="seed-out-of-range")
        self._seed = int(seed) % 2**64
        _seed_words(self._bits, self._seed)
        self._known = self._cached = None
        self.draws = 0

    def seed(self) -> int:
        """Seeds from the system with a number of at most 53 bits, and returns it."""
        self.manual_seed(secrets.randbits(53))
        return self._seed

    def snapshot(self) -> State:
        """The state, to hand to `restore` later: seed, 624 words and their position, cached normal, devices' draws."""
        return self._seed, self._state(), self._cached, self.draws

    def restore(self, state: State) -> None:
        """Takes the stream back to a `snapshot`."""
        self._seed, self._known, self._cached, self.draws = state
        self._bits.state = self._known

    def _state(self) -> Any:
        """The words and their position, as NumPy has them; nobody changes what is given here."""
        if self._known is None:
            self._known = self._bits.state
        return self._known

    def get_state(self) -> bytes:
        """The whole state in 5056 bytes, which are those of torch.get_rng_state()."""
        state = self._state()["state"]
        words, following = state["key"], int(state["pos"])
        left = BLOCK + 1 - following
        if following == BLOCK:
            fresh = np.random.MT19937(0)
            _seed_words(fresh, self._seed)
            if np.array_equal(words, fresh.state["state"]["key"]):
                following = 0
        cached = self._cached
        tail = TAIL.pack(0.0, cached or 0.0, 0.0, cached is not None, 0.0, False)
        wide: bytes = words.astype("<u8").tobytes()
        return HEAD.pack(self._seed, left, 1, following) + wide + tail

    def set_state(self, state: bytes) -> None:
        """Takes up a state that `get_state`, or torch, made. Raises Invalid, in torch's words, for anything else."""
        if len(state) != STATE_BYTES:
            raise Invalid(
                f"Expected a CPUGeneratorImplState of size {STATE_BYTES} "
                f"but found the input RNG state size to be {len(state)}",
                param="new_state",
                op="set_rng_state",
            )
        seed, left, seeded, following = HEAD.unpack_from(state)
        wide = np.frombuffer(state, "<u8", BLOCK, HEAD.size)
        _, cached, _, has_cached, _, _ = TAIL.unpack_from(state, HEAD.size + wide.nbytes)
        position = BLOCK if (left, following) == (1, 0) else following
        if not (seeded and 1 <= position <= BLOCK and left == BLOCK + 1 - position and wide.max() < 2**32):
            raise Invalid("Invalid mt19937 state", param="new_state", op="set_rng_state")
        key = np.asarray(wide, np.uint32)
        self._known = None
        self._bits.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": position}}
        self._seed, self._cached = seed, cached if has_cached else None

    def get_device_state(self) -> bytes:
        """What there is to know of the devices' stream, in the 16 bytes of torch.cuda.get_rng_state()."""
        return DEVICE_STATE.pack(self._seed, 4 * self.draws)

    def set_device_state(self, state: bytes) -> None:
        """Takes up the devices' draws of a state that `get_device_state` made for this seed."""
        self.draws = DEVICE_STATE.unpack(state)[1] // 4

    # ------------------------------------------------------------ words

    def _words(self, n: int) -> Array:
        """The next n words w, as uint64."""
        self._known = None
        return np.asarray(self._bits.random_raw(n))

    def _words64(self, n: int) -> Array:
        """The next n numbers r64."""
        w = self._words(2 * n)
        wide = w[0::2] << u8(32)
        wide |= w[1::2]
        return wide

    def _unit32(self, n: int) -> Array:
        """n numbers u24, as float32."""
        out = np.empty(n, f4)
        for part in chunks(n):
            w = self._words(part.stop - part.start).astype(i4)
            w &= 0xFFFFFF
            np.copyto(out[part], w, casting="same_kind")
            out[part] *= UNIT24
        return out

    def _unit64(self, n: int) -> Array:
        """n numbers u53, as float64."""
        out = np.empty(n, f8)
        for part in chunks(n):
            w = self._words64(part.stop - part.start)
            w &= LOW53
            np.copyto(out[part], w.view(np.int64), casting="same_kind")
            out[part] *= UNIT53
        return out

    def _skip(self, words: int) -> None:
        self._known = None
        self._bits.random_raw(words, output=False)

    @contextmanager
    def _uniforms(self) -> Iterator[Callable[[], float]]:
        """A function that returns the next u53, where it cannot be said before how many will be needed."""
        start, drawn, block = self.snapshot(), 0, iter([0.0][:0])

        def supply() -> Iterator[float]:
            nonlocal block, drawn
            while True:
                block = iter(self._unit64(512).tolist())
                drawn += 512
                yield from block

        yield supply().__next__
        self.restore(start)
        self._skip(2 * (drawn - length_hint(block)))

    # ------------------------------------------------------------ uniform numbers

    def rand(self, n: int, dtype: str = "float32") -> Array:
        """n numbers from [0, 1): torch.rand. A complex number is two of them, the real part first."""
        return self.uniform(n, dtype)

    def uniform(self, n: int, dtype: str = "float32", low: float = 0.0, high: float = 1.0) -> Array:
        """n numbers from [low, high): uniform_(low, high)."""
        if dtype in COMPONENT:
            return self.uniform(2 * n, COMPONENT[dtype], low, high).view(dtype)
        _check_uniform(dtype, low, high)
        if dtype == "float64":
            return fma64(self._unit64(n), high - low, low)
        values = self._unit32(n)
        if (low, high) != (0.0, 1.0):
            values = fma32(values, f8(f4(high) - f4(low)), f8(f4(low)))
        if dtype != "float32":
            values = narrow(values, dtype)
            start, stop = narrow(np.array([low, high]), dtype)
            values[values == stop] = start  # rounding may have reached the open end
        return values

    # ------------------------------------------------------------ whole numbers

    def randint(self, n: int, low: int, high: int, dtype: str = "int64") -> Array:
        """n whole numbers from [low, high), in any real dtype: torch.randint."""
        return self.random(n, dtype, low, high)

    def random(self, n: int, dtype: str = "int64", low: int | None = None, high: int | None = None) -> Array:
        """n whole numbers in any real dtype: random_().

        From [low, high), low being 0 if it is None. Without `high` from [low, the dtype's greatest], which for a
        float is 2^digits. From int64's least without `high`: any 64 bits.
        """
        if low is None and high is None:
            size = 2 ** DIGITS[dtype] + 1 if dtype in DIGITS else INT_MAX[dtype] + 1
            words = self._words64(n) if dtype in ("int64", "float64") else self._words(n)
            words %= u8(size)
        elif low == INT64_MIN and high is None:
            if dtype not in ("int64", "bfloat16", "float32", "float64"):
                which = "random_full_64_bits_range_kernel_cpu handles only int64, double, float and bfloat16"
                raise _refusal("random_", "from", which)
            words = self._words64(n)
        else:
            low, last = _whole_range(dtype, low or 0, high)
            size = last - low + 1
            words = self._words64(n) if size >= WIDE_RANGE else self._words(n)
            words %= u8(size)
            words += u8(low % 2**64)
        return from_int64(words.view(np.int64), dtype)

    def randperm(self, n: int) -> Array:
        """The numbers 0 to n - 1 in random order, int64: torch.randperm.

        torch swaps element i with element j[i] = i + w % (n - i), for each i in turn. Without a loop: the value that
        step i moves away is v(i) = v(m) for the last m < i with j[m] = i, or i if there is none; and what stays at i
        is v(m) for the last m < i with j[m] = j[i], or j[i]. Sorting finds the second m, and the chains of v end by
        doubling.
        """
        if n < 2:
            return np.arange(max(n, 0))
        steps = np.arange(n)
        places = steps.copy()
        words = self._words(n - 1) if n < WIDE_PERMUTATION else self._words64(n - 1)
        words %= np.arange(n, 1, -1).astype(u8)
        places[:-1] += words.view(np.int64)
        moved = steps.copy()
        ahead = places > steps
        moved[places[ahead]] = steps[ahead]  # of several steps with one place the last one counts
        while not np.array_equal(further := moved[moved], moved):
            moved = further
        shift = n.bit_length()
        order = places << shift
        order |= steps
        order.sort()  # by place, then by step
        same_place = np.flatnonzero((order[1:] >> shift) == (order[:-1] >> shift))
        order &= (1 << shift) - 1
        places[order[same_place + 1]] = moved[order[same_place]]
        return places

    # ------------------------------------------------------------ normal numbers

    @np.errstate(over="ignore", invalid="ignore")
    def normal(
        self, n: int, dtype: str = "float32", mean: float = 0.0, std: float = 1.0, contiguous: bool = True
    ) -> Array:
        """n normal numbers: torch.randn, normal_(mean, std). A complex number has the variance in two halves.

        Sixteen or more in contiguous memory are made sixteen at a time, fewer, or those of a tensor that is not
        contiguous, in pairs; of an odd number of pairs' halves the last is kept for the next such call.
        """
        if not std >= 0:
            raise _refusal("normal_", "std", f"normal expects std >= 0.0, but found std {std:g}")
        if dtype in COMPONENT:
            return self.normal(2 * n, COMPONENT[dtype], mean, std / math.sqrt(2.0), contiguous).view(dtype)
        if n < 16 or not contiguous:
            return narrow(fma64(self._pairs(n, dtype), std, mean), dtype)
        double = dtype == "float64"
        out, odd = np.empty(n, f8 if double else f4), n % 16
        fill, draw = (normal64, self._unit64) if double else (normal32, self._unit32)
        fill(out[: n - odd], draw, mean, std)
        if odd:
            # The last sixteen are made anew. What was drawn for the odd ones is lost; the reduced dtypes draw as they
            # go, and lose nothing.
            if dtype in ("float32", "float64"):
                self._skip(2 * odd if double else odd)
            fill(out[-16:], draw, mean, std)
        return narrow(out, dtype)

    def host_normal(self, n: int, dtype: str = "float32", mean: float = 0.0, std: float = 1.0) -> Array:
        """As `normal`, in host memory whatever the device."""
        return self.normal(n, dtype, mean, std)

    def _pairs(self, n: int, dtype: str) -> Array:
        """n standard normals, in float64, one pair after the other."""
        out = np.empty(n)
        start = 0
        if n and self._cached is not None:
            out[0], self._cached, start = self._cached, None, 1
        missing = n - start
        if missing:
            u = self._unit64(missing + missing % 2)
            angle = 2.0 * math.pi * u[0::2]
            radius = np.sqrt(-2.0 * libm(math.log1p, -u[1::2], dtype))
            out[start::2] = radius * np.cos(angle)
            out[start + 1 :: 2] = (radius * np.sin(angle))[: missing // 2]
            if missing % 2:
                self._cached = math.sqrt(-2.0 * math.log1p(-u[-1])) * math.sin(angle[-1])
        return out

    def normal_tensors(self, mean: Array | float, std: Array | float, dtype: str = "float32") -> Array:
        """torch.normal with a tensor of means, of deviations or of both: flat arrays, in bfloat16's case float32."""
        if isinstance(std, np.ndarray):
            if not (std >= 0).all():
                raise _refusal("normal", "std", "normal expects all elements of std >= 0.0")
        elif not std >= 0:
            raise _refusal("normal", "std", f"normal expects std >= 0.0, but found std {std:g}")
        with np.errstate(over="ignore", invalid="ignore"):
            if isinstance(std, np.ndarray):
                values = self.host_normal(std.size, dtype) * std
            else:
                values = self.host_normal(np.size(mean), dtype, 0.0, std)
            if dtype in COMPONENT:
                return np.asarray(values + mean)
            return narrow(narrow(values, dtype) + mean, dtype)

    def log_normal(self, n: int, dtype: str = "float32", mean: float = 1.0, std: float = 2.0) -> Array:
        """exp of n normal numbers, made in pairs: log_normal_."""
        if not std > 0:
            raise _refusal("log_normal_", "std", f"log_normal_ expects std > 0.0, but found std={std:g}")
        return narrow(libm(math.exp, fma64(self._pairs(n, dtype), std, mean), dtype), dtype)

    # ------------------------------------------------------------ other continuous distributions

    @np.errstate(over="ignore", invalid="ignore")
    def exponential(self, n: int, dtype: str = "float32", lambd: float = 1.0) -> Array:
        """n exponential numbers with rate `lambd`: exponential_."""
        if not lambd > 0:
            raise _refusal("exponential_", "lambd", f"exponential_ expects lambda > 0.0, but found lambda={lambd:g}")
        values = libm(math.log1p, -self._unit64(n), dtype)
        values *= -1.0 / lambd
        return narrow(values, dtype)

    def gumbel(self, n: int, dtype: str = "float32") -> Array:
        """n Gumbel numbers, -log(exponential): what nn.functional.gumbel_softmax adds."""
        exponential = self.exponential(n, dtype)
        with np.errstate(divide="ignore"):
            return narrow(-np.log(exponential), dtype)

    @np.errstate(over="ignore", invalid="ignore")
    def cauchy(self, n: int, dtype: str = "float32", median: float = 0.0, sigma: float = 1.0) -> Array:
        """n Cauchy numbers: cauchy_."""
        if not sigma > 0:
            raise _refusal("cauchy_", "sigma", f"cauchy_ expects sigma > 0.0, but found sigma={sigma:g}")
        tangents = libm(math.tan, math.pi * (self._unit64(n) - 0.5), dtype)
        return narrow(fma64(tangents, sigma, median), dtype)

    def rrelu_noise(self, values: Array, lower: float, upper: float, dtype: str = "float32") -> Array:
        """The slopes of nn.functional.rrelu in training: one from [lower, upper) where values <= 0, elsewhere 1.

        `values` is flat, in logical order.
        """
        low, high = (lower, upper) if dtype == "float64" else (float(f4(lower)), float(f4(upper)))
        noise = np.ones(values.size)
        at = np.flatnonzero(values <= 0)
        noise[at] = self._unit64(at.size) * (high - low) + low
        return narrow(noise, dtype)

    # ------------------------------------------------------------ chances and counts

    def bernoulli_p(self, n: int, p: float) -> Array:
        """n bools, True with probability p: bernoulli_(p)."""
        if not 0 <= p <= 1:
            raise _refusal("bernoulli_", "p", f"bernoulli_ expects p to be in [0, 1], but got p={p:g}")
        return self._unit64(n) < p

    def bernoulli_tensor(self, p: Array, dtype: str = "float32") -> Array:
        """A bool for each probability of the flat array p, in logical order: torch.bernoulli(p).

        `dtype` is that of p, and decides which words are drawn; p of bfloat16 comes as float32.
        """
        if not ((p >= 0) & (p <= 1)).all():
            raise _refusal("bernoulli", "input", "Expected p_in >= 0 && p_in <= 1 to be true, but got false.")
        return (self._unit64(p.size) if dtype == "float64" else self._unit32(p.size)) < p

    def dropout_mask(self, n: int, p: float) -> Array:
        """n bools, True where dropout with probability p keeps."""
        return self.bernoulli_p(n, 1.0 - p)

    def geometric(self, n: int, dtype: str = "float32", p: float = 0.5) -> Array:
        """n times the number of trials up to the first success, in any real dtype but bool: geometric_(p)."""
        if not 0 < p < 1:
            raise _refusal("geometric_", "p", f"geometric_ expects p to be in (0, 1), but got p={p:g}")
        with np.errstate(over="ignore", invalid="ignore"):
            trials = np.ceil(xlogy(1.0, self._unit64(n)) / math.log1p(-p))
            return narrow(trials, dtype) if dtype in DIGITS else trials.astype(np.int64).astype(dtype)

    def poisson(self, rates: Array, dtype: str = "float32") -> Array:
        """A Poisson number for each rate of a flat array, in logical order: torch.poisson. A microsecond each."""
        if not (rates >= 0).all():
            raise _refusal("poisson", "input", "invalid Poisson rate, expected rate to be non-negative")
        if not (rates.astype(f8) < 2.0**63).all():
            raise _refusal("poisson", "input", "invalid Poisson rate, expected rate to be less than 2^63")
        with self._uniforms() as draw:
            counts = [poisson(rate, draw) for rate in rates.tolist()]
        return narrow(np.array(counts, f8), dtype)

    def binomial(self, counts: Array, probs: Array, dtype: str = "float32") -> Array:
        """A binomial number for each number of trials and probability, both flat: torch.binomial.

        float32 and float64. As in torch, a count below 0 is taken as 0 and a probability outside [0, 1] as the nearer
        end; what torch would not come back from, a NaN or an infinite count, is refused.
        """
        for param, values, fine in (("count", counts, np.isfinite(counts)), ("prob", probs, ~np.isnan(probs))):
            if not fine.all():
                detail = f"binomial expects {param} to be a number, but found {values[~fine][0]}"
                raise _refusal("binomial", param, detail)
        single = dtype == "float32"
        with self._uniforms() as draw:
            made = [binomial(n, p, draw, single) for n, p in zip(counts.tolist(), probs.tolist(), strict=True)]
        return narrow(np.array(made, f8), dtype)

    def multinomial(
        self,
        probs: Array,
        num_samples: int,
        replacement: bool = False,
        dtype: str = "float32",
        *,
        by_columns: bool = False,
    ) -> Array:
        """Indices (int64) drawn by weight from each row of probs, shape (..., num_samples): torch.multinomial.

        `probs` has one or two dimensions and values of `dtype`; those of bfloat16 come as float32. Without
        replacement, what is drawn with equal keys comes in the order of its indices; that order is not torch's. It
        matters for categories of probability 0, which come last, and now and then in the reduced dtypes. `by_columns`
        says that torch's tensor lies so in memory, which is the order of its draws.
        """
        _check_multinomial(probs, num_samples, replacement)
        rows = probs.reshape(-1, probs.shape[-1])
        if replacement and num_samples > 1:
            chosen = self._with_replacement(rows, num_samples)
        else:
            waits = self.exponential(rows.size, dtype)
            waits = waits.reshape(rows.shape[::-1]).T if by_columns else waits.reshape(rows.shape)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                keys = narrow(rows / waits, dtype)
            if num_samples == 1:
                chosen = keys.argmax(axis=1)[:, None]
            else:
                chosen = np.argsort(-keys, axis=1, kind="stable")[:, :num_samples]
        return chosen.reshape(*probs.shape[:-1], num_samples)

    def _with_replacement(self, rows: Array, num_samples: int) -> Array:
        chosen = np.empty((rows.shape[0], num_samples), np.int64)
        for row, places in zip(rows, chosen, strict=True):
            levels = np.add.accumulate(row, dtype=f8 if row.dtype == f8 else f4)
            levels /= levels[-1]
            levels[-1] = 1
            places[:] = np.searchsorted(levels.astype(f8), self._unit64(num_samples))
        return chosen


# ---------------------------------------------------------------- what torch refuses


def _refusal(op: str, param: str, detail: str) -> Invalid:
    return Invalid(detail, op=op, param=param)


def _check_uniform(dtype: str, low: float, high: float) -> None:
    largest = LARGEST[dtype]
    for name, bound in (("from", low), ("to", high)):
        if not abs(bound) <= largest:
            raise _refusal("uniform_", name, f"{name} is out of bounds for {C_NAMES[dtype]}")
    if low > high:
        detail = f"uniform_ expects to return a [from, to) range, but found from={low:g} > to={high:g}"
        raise _refusal("uniform_", "from", detail)
    if high - low > largest:
        detail = (
            f"uniform_ expects to-from <= std::numeric_limits<{SCALAR_TYPES[dtype]}>::max(), but found to={high:g} "
            f"and from={low:g} which result in to-from to exceed the limit"
        )
        raise _refusal("uniform_", "to", detail)


def _whole_range(dtype: str, low: int, high: int | None) -> tuple[int, int]:
    """The least and the greatest number that random_(low, high) gives.

    A bound that a float dtype would round outwards is moved inwards, to the next number that it has.
    """
    is_float = dtype in DIGITS
    if high is not None and low >= high:
        detail = f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}"
        raise _refusal("random_", "from", detail)
    if is_float:
        low = _raised(low, dtype)
    if high is None:
        last = 2 ** DIGITS[dtype] if is_float else INT_MAX[dtype]
        relation, shown = "less than or equal to 'to_inc' casted to dtype, but got from={} > to_inc={}", last
    else:
        shown = _lowered(high, dtype) if is_float else high
        last = shown - 1
        relation = "less than 'to' casted to dtype, but got from={} >= to={}"
    if is_float and low > last:
        raise _refusal("random_", "from", "random_ expects 'from' casted to dtype to be " + relation.format(low, shown))
    greatest = LARGEST[dtype] if is_float else INT_MAX[dtype]
    least = 0 if dtype in ("bool", "uint8") else -greatest if is_float else -greatest - 1
    for name, param, bound in (("from", "from", low), ("to - 1", "to", last)):
        if not least <= bound <= greatest:
            raise _refusal("random_", param, f"{name} is out of bounds for {C_NAMES[dtype]}")
    return low, last


def _raised(low: int, dtype: str) -> int:
    after = _there_and_back(low + 1, dtype)
    return after + (1 << (abs(low + 1).bit_length() - DIGITS[dtype])) if after < low else low


def _lowered(high: int, dtype: str) -> int:
    before = _there_and_back(high - 1, dtype)
    return before - (1 << (abs(high - 1).bit_length() - DIGITS[dtype])) if before >= high else high


def _there_and_back(value: int, dtype: str) -> int:
    """An int64 number cast to a float dtype and back; what does not fit becomes int64's least, as on x86."""
    there = float(from_int64(np.array([value]), dtype)[0])
    return int(there) if abs(there) < 2.0**63 else INT64_MIN


def _check_multinomial(probs: Array, num_samples: int, replacement: bool) -> None:
    if probs.ndim not in (1, 2):
        raise _refusal("multinomial", "input", "prob_dist must be 1 or 2 dim")
    categories = probs.shape[-1]
    if num_samples <= 0:
        raise _refusal("multinomial", "num_samples", "cannot sample n_sample <= 0 samples")
    if not replacement and num_samples > categories:
        detail = "cannot sample n_sample > prob_dist.size(-1) samples without replacement"
        raise _refusal("multinomial", "num_samples", detail)
    if categories > MAX_CATEGORIES:
        raise _refusal("multinomial", "input", "number of categories cannot exceed 2^24")
    if replacement and num_samples > 1:
        bad = ~(np.isfinite(probs) & (probs >= 0))
        if bad.any():  # the first one says what it is
            entry = " < 0" if probs[bad][0] < 0 else " = infinity or NaN"
            detail = f"invalid multinomial distribution (encountering probability entry{entry})"
            raise _refusal("multinomial", "input", detail)
    elif not (np.isfinite(probs) & (probs >= 0)).all():
        detail = "probability tensor contains either `inf`, `nan` or element < 0"
        raise _refusal("multinomial", "input", detail)
    if not (probs.sum(axis=-1, dtype=f8) > 0).all():
        raise _refusal("multinomial", "input", "invalid multinomial distribution (sum of probabilities <= 0)")


def _seed_words(bits: np.random.MT19937, seed: int) -> None:
    """MT19937's own way of seeding, from the low 32 bits; NumPy's other way is not torch's."""
    bits._legacy_seeding(seed & 0xFFFFFFFF)
