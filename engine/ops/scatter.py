"""Reading and writing along a dimension at places that a tensor of indices names: gather, scatter and their kin."""

from __future__ import annotations

from math import prod
from typing import Any, Literal

from engine.carriers import K
from engine.declare import Array, Dim, Scalar, composite, op
from engine.dtypes import DType, bfloat16, cast_scalar, float32, from_numpy, int32, int64, scalar_type
from engine.errors import Call, DtypeMismatch, Hint, IndexOutOfRange, Invalid, NoGradient, Param, ShapeMismatch
from engine.op import Spec
from engine.ops.common import fitting
from engine.samples import C, I, S, T
from engine.shapes import Shape, broadcast_two, contiguous_strides, text, wrap_dim

# ---------------------------------------------------------------- checks


def cast_index(words: str, index: Spec, param: str = "index") -> DtypeMismatch:
    """PyTorch's refusal of an index dtype, with the cast that mends it."""
    hint = Hint("cast-index", Call("to", {"input": Param(param), "dtype": "int64"}), have=index.dtype.name, param=param)
    return DtypeMismatch(words, code="index-dtype", hint=hint, param=param)


def need_long(name: str, index: Spec) -> None:
    """Refuses indices that are not int64 where PyTorch takes no others."""
    if index.dtype is not int64:
        raise cast_index(f"{name}(): Expected a long tensor for index, but got {scalar_type(index.dtype)}", index)


def check_range(index: Array, low: int, high: int, words: Any, param: str = "index", **facts: Any) -> None:
    """Refuses indices outside [low, high). `words` is the message, or makes it from the first bad index."""
    if index.size == 0 or (int(index.min()) >= low and int(index.max()) < high):
        return
    flat = index.reshape(-1)
    bad = int(flat[int(((flat < low) | (flat >= high)).argmax())])
    raise IndexOutOfRange(
        words if isinstance(words, str) else words(bad),
        hint=Hint("index-range", low=low, high=high - 1, index=bad),
        param=param,
        index=bad,
        **facts,
    )


def check_along(input: Array, dim: int, index: Array, low: int = 0, name: str = "") -> None:
    """Refuses indices that lie outside of `dim`."""
    d = wrap_dim(dim, input.ndim)
    n = input.shape[d] if input.ndim else 1
    check_range(index, low * n, n, lambda bad: f"{name}index {bad} is out of bounds for dimension {d} with size {n}")


# ---------------------------------------------------------------- what the kernels share


def dtype_of(x: Array) -> DType:
    """The dtype of a kernel's array."""
    return from_numpy(x.dtype) or float32


def floats(k: K, x: Array) -> Array:
    """Gradients of operations that move raw elements come as they are stored: here they become numbers."""
    if x.dtype.name == "uint16":
        return k.backend.widen(x, bfloat16)
    return x.astype("float32") if x.dtype.name == "float16" else x


def places(k: K, shape: Shape, dim: int, index: Array) -> Array:
    """Where `index` along `dim` points to in the flattened array of `shape`: int64, in the shape of `index`."""
    xp = k.xp
    made = index if index.dtype == int64.np else index.astype(int64.np)
    if not shape:
        return made
    strides = contiguous_strides(shape)
    if strides[dim] != 1:
        made = made * strides[dim]
    grid = None
    for i, n in enumerate(index.shape):
        if i != dim and n > 1:
            line = (xp.arange(n, dtype=int64.np) * strides[i]).reshape((-1,) + (1,) * (index.ndim - 1 - i))
            grid = line if grid is None else grid + line
    return made if grid is None else made + grid


def cut(src: Array, shape: Shape) -> Array:
    """The leading part of `src` that `index`, of this shape, uses."""
    if src.shape == shape or not src.ndim:
        return src
    return src[tuple(slice(0, n) for n in shape or (1,) * src.ndim)]  # an index of no dimensions is one place


def put_along(k: K, target: Array, dim: int, index: Array, src: Any) -> None:
    """target[..., index, ...] = src; `target` is C-contiguous. Of duplicates the last one wins on the CPU."""
    flat = target.reshape(-1)
    at = places(k, target.shape, dim, index).reshape(-1)
    flat[at] = cut(src, index.shape).reshape(-1) if hasattr(src, "dtype") else src


def add_along(k: K, target: Array, dim: int, index: Array, src: Array) -> None:
    """target[..., index, ...] += src, duplicates adding up; `target` is C-contiguous."""
    src = cut(src, index.shape)
    whole = bool(k.backend.kernels) and index.flags.c_contiguous and src.shape == index.shape
    if whole and (lines := _lines(target.shape, index.shape, dim)):
        run = k.backend.compiled("add_along", src, target)
        if run is not None:
            run(target.reshape(lines[0]), index.reshape(lines[1]), src.reshape(lines[1]))
            return
    at = places(k, target.shape, dim, index).reshape(-1)
    combine(k, "add", target.reshape(-1), at, src.reshape(-1))


def _lines(shape: Shape, index: Shape, dim: int) -> tuple[Shape, Shape] | None:
    """Both shapes as three dimensions, of which `dim` is the second; None where others differ, or there are none."""
    if not shape or len(shape) != len(index) or shape[:dim] != index[:dim] or shape[dim + 1 :] != index[dim + 1 :]:
        return None
    lead, tail = prod(shape[:dim]), prod(shape[dim + 1 :])
    return (lead, shape[dim], tail), (lead, index[dim], tail)


# The integers that hold the bits of an element of so many bytes.
_BITS = {2: "i2", 4: "i4", 8: "i8"}

# What `add.at` of CuPy takes; `maximum.at` and `minimum.at` as well. Other dtypes go through one of these.
_ATOMIC = frozenset(("int32", "int64", "float32", "float64"))


def combine(k: K, how: str, flat: Array, at: Array, values: Array) -> None:
    """flat[at] = how(flat[at], values), every duplicate counting, for a ufunc called `how`."""
    xp = k.xp
    if k.backend.kind == "cpu":
        getattr(xp, how).at(flat, at, values)
    elif how == "multiply":
        _multiply_at(k, flat, at, values)
    elif flat.dtype.kind == "c":
        for part in ("real", "imag"):
            piece = xp.ascontiguousarray(getattr(flat, part))
            xp.add.at(piece, at, xp.ascontiguousarray(getattr(values, part)))
            setattr(flat, part, piece)
    elif flat.dtype.name in _ATOMIC:
        getattr(xp, how).at(flat, at, values)
    else:
        wide = flat.astype(int32.np)
        getattr(xp, how).at(wide, at, values.astype(int32.np))
        flat[...] = wide.astype(flat.dtype)


def _multiply_at(k: K, flat: Array, at: Array, values: Array) -> None:
    """`multiply.at`, which CuPy lacks: a product within each run of equal places, by doubling."""
    xp = k.xp
    if not at.size:
        return
    order = xp.argsort(at)
    at, values = at[order], values[order]
    step = 1
    while step < at.size:
        same = at[step:] == at[:-step]
        if not bool(same.any()):
            break
        joined = values.copy()
        joined[step:] = xp.where(same, values[step:] * values[:-step], values[step:])
        values = joined
        step *= 2
    ends = xp.ones(at.shape, bool)
    ends[:-1] = at[1:] != at[:-1]
    ends = xp.flatnonzero(ends)
    flat[at[ends]] *= values[ends]


def add_rows(k: K, target: Array, index: Array, rows: Array) -> None:
    """target[index] += rows for matrices, duplicates adding up; `target` is C-contiguous.

    On the CPU this is the product with the sparse matrix of the indices: one pass over the rows, none over zeros.
    """
    if index.flags.c_contiguous and (run := k.backend.compiled("add_rows", rows, target)) is not None:
        run(target, index, rows)
    elif k.backend.kind == "cpu" and target.dtype.kind in "fc" and target.shape[1] > 1:
        n = index.shape[0]
        xp = k.xp
        if 4 * n < target.shape[0]:  # a product with few rows, for the rows that are named
            named, index = xp.unique(index, return_inverse=True)
            part = xp.zeros((named.size, target.shape[1]), target.dtype)
            add_rows(k, part, index.reshape(-1), rows)
            target[named] += part
            return
        ones, starts = xp.ones(n, target.dtype), xp.arange(n + 1)
        pick = k.sp.sparse.csc_matrix((ones, index, starts), shape=(target.shape[0], n))
        target += pick @ rows
    else:
        width = target.shape[1]
        at = index.astype(int64.np)[:, None] * width + k.xp.arange(width)
        combine(k, "add", target.reshape(-1), at.reshape(-1), rows.reshape(-1))


def rows_of(k: K, x: Array, dim: int) -> Array:
    """x as a C-contiguous matrix whose rows are what `dim` counts; x itself where that needs no copy."""
    x = x.reshape(1) if x.ndim == 0 else x
    n = x.shape[dim]
    moved = x if dim == 0 else k.xp.moveaxis(x, dim, 0)
    return k.xp.ascontiguousarray(moved).reshape(n, -1) if x.size else moved.reshape(n, prod(moved.shape[1:]))


def from_rows(k: K, rows: Array, shape: Shape, dim: int) -> Array:
    """The inverse of `rows_of`."""
    if not shape:
        return rows.reshape(())
    if rows.shape == shape and dim == 0:
        return rows  # as it is, since a view would be copied
    moved = rows.reshape((shape[dim], *shape[:dim], *shape[dim + 1 :]))
    return moved if dim == 0 else k.xp.moveaxis(moved, 0, dim)


def editable(k: K, input: Array, out: Any) -> Array:
    """What a kernel that updates writes into: `out` where it is C-contiguous, else a copy of the input."""
    return out if out is not None and out.flags.c_contiguous else k.xp.array(input, order="C")


def relaid(k: K, made: Array, like: Array, out: Any) -> Array:
    """The result of such a kernel, stored where it was wanted, or else in the layout of the input."""
    if out is None and not like.flags.c_contiguous and made.ndim > 1:
        out = k.xp.empty_like(like, dtype=made.dtype)
    return edited(made, out)


def edited(made: Array, out: Any) -> Array:
    """The result of such a kernel, stored where it was wanted."""
    if out is not None and made is not out:
        out[...] = made
        return out
    return made


# ---------------------------------------------------------------- gather


def _check_index(name: str, index: Spec) -> bool:
    """The dtype of an index; an empty one is not looked at any further."""
    if index.numel == 0:
        return False
    if index.dtype is not int64 and index.dtype is not int32:
        raise cast_index(f"{name}(): Expected dtype int32/int64 for index", index)
    return True


def _gather_meta(k: K, input: Spec, dim: int, index: Spec, sparse_grad: bool = False) -> Spec:
    d = wrap_dim(dim, input.ndim)
    if _check_index("gather", index):
        if max(index.ndim, 1) != max(input.ndim, 1):
            raise ShapeMismatch("Index tensor must have the same number of dimensions as input tensor", param="index")
        for i in range(min(input.ndim, index.ndim)):
            if i != d and index.shape[i] > input.shape[i]:
                raise ShapeMismatch(
                    f"Size does not match at dimension {i} expected index {text(index.shape)} to be no larger than "
                    f"self {text(input.shape)} apart from dimension {d}",
                    param="index",
                )
    return Spec(index.shape, input.dtype)


_ALONG = I(2, 2, values=[[0, 2], [1, 1]])
_APART = I(2, 2, values=[[0, 2], [2, 1]])  # which of two elements at one place stays is not defined


@op(
    family="scatter",
    meta=_gather_meta,
    moves=True,
    save={"input": ("index",)},
    samples=[
        S(T(2, 3), 1, _ALONG),
        S(T(3, 2), 0, I(1, 2, high=3)),
        S(T(), 0, I(2, high=1)),
        S(T(2, 3), -1, I(0)),
        S(C(2, 3), 1, I(2, 1, dtype="int32", high=3)),
        S(I(2, 3), 1, _ALONG),
    ],
)
def gather(k: K, input: Array, dim: Dim, index: Array, sparse_grad: bool = False) -> Array:
    """Elements along `dim` at `index`: result[i][j] = input[i][index[i][j]] for dim=1. The result is like `index`.

    Sizes of `index` may be smaller than the input's in the other dimensions.
    """
    if index.size == 0:
        return k.xp.empty(index.shape, input.dtype)
    d = wrap_dim(dim, input.ndim)
    if input.ndim and not input.flags.c_contiguous:
        at = index.astype(int64.np, order="C").reshape(index.shape or (1,))  # 0-d stands for one place
        used = tuple(slice(0, n) if i != d else slice(None) for i, n in enumerate(at.shape))
        return k.xp.take_along_axis(input[used], at, d).reshape(index.shape)
    if k.backend.kernels and index.flags.c_contiguous and (lines := _lines(input.shape, index.shape, d)):
        bits = _BITS.get(input.itemsize)
        if bits and (run := k.backend.compiled("gather", made := input.view(bits))) is not None:
            out = k.xp.empty(index.shape, input.dtype)
            run(made.reshape(lines[0]), index.reshape(lines[1]), out.view(bits).reshape(lines[1]))
            return out
    return input.reshape(-1)[places(k, input.shape, d, index)]


@gather.guard
def _(k: K, input: Any, dim: int, index: Any, sparse_grad: bool = False) -> None:
    check_along(input, dim, index)


@gather.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F._place(g, saved.index, saved.dim, saved.input.shape)


def _place_meta(k: K, src: Spec, index: Spec, dim: Any, shape: Any, once: Any = False) -> Spec:
    return Spec(shape, src.dtype)


@op(family="scatter", meta=_place_meta, node="ScatterAddBackward0", save={"src": ("index",)})
def _place(k: K, src: Array, index: Array, dim: Any, shape: Any, once: Any = False) -> Array:
    """Zeros of `shape`, with `src` added at `index` along `dim`: the gradient of gather. `once`: no index repeats."""
    src = floats(k, src)
    made = k.xp.zeros(shape, src.dtype)
    if index.size:
        (put_along if once else add_along)(k, made, wrap_dim(dim, len(shape)), index, src)
    return made


@_place.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return F.gather(g, saved.dim, saved.index)


@composite(
    family="scatter",
    node="GatherBackward0",
    samples=[S(T(2, 3), I(2, 1, high=3), 1), S(T(2, 3), I(4, high=6)), S(T(2, 3), I(1, 2, low=-3, high=3), 1)],
)
def take_along_dim(F: Any, input: Array, indices: Array, dim: Dim | None = None) -> Array:
    """Elements along `dim` at `indices`, the other dimensions broadcast; without `dim`, of the flattened tensor."""
    at, shape = F.shape(indices), F.shape(input)
    if F.dtype(indices) is not int64 and (dim is not None or F.dtype(indices) is not int32):
        words = "gather(): Expected dtype int32/int64 for index"
        if dim is not None:
            have = scalar_type(F.dtype(indices))
            words = f"torch.take_along_dim(): dtype of indices should be Long but got {have}"
        raise cast_index(words, Spec(at, F.dtype(indices)), "indices")
    if dim is None:
        return F.gather(F.reshape(input, (prod(shape),)), 0, F.reshape(indices, (prod(at),)))
    if len(at) != len(shape):
        raise ShapeMismatch(
            "torch.take_along_dim(): input and indices should have the same number of dimensions, but got "
            f"{len(shape)} dimensions for input, and {len(at)} dimensions for indices",
            param="indices",
        )
    d = wrap_dim(dim, len(shape), scalar_ok=False)
    others = broadcast_two((*shape[:d], 1, *shape[d + 1 :]), (*at[:d], 1, *at[d + 1 :]))
    wide = F.expand(input, (*others[:d], shape[d], *others[d + 1 :]))
    index = F._from_end(F.expand(indices, (*others[:d], at[d], *others[d + 1 :])), shape[d], d)
    return F.gather(wide, d, index)


def _from_end_meta(k: K, index: Spec, n: Any, dim: Any) -> Spec:
    return index


@op(family="scatter", meta=_from_end_meta, vjp=None)
def _from_end(k: K, index: Array, n: Any, dim: Any) -> Array:
    """Indices in [0, n), negative ones having counted from the end."""
    return k.xp.where(index < 0, index + n, index)


@_from_end.guard
def _(k: K, index: Any, n: Any, dim: Any) -> None:
    check_range(index, -n, n, lambda bad: f"index {bad} is out of bounds for dimension {dim} with size {n}", "indices")


# ---------------------------------------------------------------- scatter


def _scatter_checks(input: Spec, dim: int, index: Spec, src: Any) -> None:
    d = wrap_dim(dim, input.ndim)
    filled = _check_index("scatter", index)
    if type(src) is Spec and src.dtype is not input.dtype:
        raise DtypeMismatch(
            "scatter(): Expected self.dtype to be equal to src.dtype",
            hint=Hint(
                "cast-one",
                Call("to", {"input": Param("src"), "dtype": input.dtype.name}),
                a=input.dtype.name,
                b=src.dtype.name,
                param="src",
            ),
            param="src",
        )
    if not filled:
        return
    rank = max(input.ndim, 1)
    if max(index.ndim, 1) != rank:
        raise ShapeMismatch("Index tensor must have the same number of dimensions as self tensor", param="index")
    sizes, mine = index.shape or (1,), input.shape or (1,)
    fits = all(i == d or n <= mine[i] for i, n in enumerate(sizes))
    words = f"Expected index {text(index.shape)} to be no larger than self {text(input.shape)} apart from dimension {d}"
    if type(src) is Spec:
        if 0 < src.ndim < rank and fits and all(n <= m for n, m in zip(sizes, src.shape, strict=False)):
            wrap_dim(src.ndim, src.ndim)  # PyTorch asks for a size that is not there
        if max(src.ndim, 1) != rank:
            raise ShapeMismatch("Index tensor must have the same number of dimensions as src tensor", param="src")
        fits = fits and all(n <= m for n, m in zip(sizes, src.shape or (1,), strict=True))
        words += f" and to be no larger size than src {text(src.shape)}"
    if not fits:
        raise ShapeMismatch(words, param="index")


def _scatter_meta(
    k: K, input: Spec, dim: int, index: Spec, src: Any = None, value: Any = None, reduce: Any = None
) -> Spec:
    given = value if src is None else src
    if given is None:
        raise Invalid("scatter() missing required argument: 'src' or 'value'", code="missing-parameter", param="src")
    _scatter_checks(input, dim, index, given)
    if type(given) is not Spec:
        fitting(given, input.dtype)
    if reduce not in (None, "add", "multiply"):
        raise Invalid("reduce argument must be either add or multiply.", param="reduce")
    return input


def _scatter_node(input: Spec, dim: int, index: Spec, src: Any = None, *rest: Any) -> str:
    return f"ScatterBackward{int(type(src) is not Spec)}"


@op(
    family="scatter",
    node=_scatter_node,
    meta=_scatter_meta,
    updates=True,
    inplace=True,
    save={"input": ("index",), "src": ("index",)},
    samples=[
        S(T(2, 3), 1, _APART, T(2, 2)),
        S(T(2, 3), 1, I(2, 1, high=3), value=1.5),
        S(T(), 0, I(1, high=1), T(1)),
        S(T(), 0, I(high=1), T(3)),
        S(T(3, 2), 0, I(2, 2, values=[[0, 1], [2, 0]]), T(3, 2)),
        S(T(2, 3), 0, I(0), T(2, 3)),
        S(T(2, 3), 1, _ALONG, T(2, 2), reduce="add"),
        S(T(2, 3), 1, _ALONG, value=2.0, reduce="multiply"),
        S(I(2, 3), 1, _APART, I(2, 2)),
        S(C(2, 3), 1, _APART, C(2, 2)),
    ],
)
def scatter(
    k: K,
    input: Array,
    dim: Dim,
    index: Array,
    src: Array | Scalar | None = None,
    value: Scalar | None = None,
    reduce: Literal["add", "multiply"] | None = None,
    *,
    out: Any = None,
) -> Array:
    """A copy with `src`, or the number `value`, written along `dim` at `index`; the opposite of gather.

    For dim=1, result[i][index[i][j]] = src[i][j]. `reduce` adds to or multiplies what is there.
    """
    made = editable(k, input, out)
    d = wrap_dim(dim, input.ndim)
    given = value if src is None else src
    if not hasattr(given, "dtype"):
        given = cast_scalar(given, dtype_of(input))
    if index.size:
        if reduce is None:
            put_along(k, made, d, index, given)
        else:
            if not hasattr(given, "dtype"):
                given = k.xp.broadcast_to(k.xp.asarray(given, dtype=input.dtype), index.shape)
            at = places(k, made.shape, d, index).reshape(-1)
            combine(k, reduce, made.reshape(-1), at, cut(given, index.shape).reshape(-1))
    return edited(made, out)


@scatter.guard
def _(k: K, input: Any, dim: int, index: Any, src: Any = None, value: Any = None, reduce: Any = None) -> None:
    check_along(input, dim, index)


def _src_gradient(F: Any, g: Any, dim: int, index: Any, src: Any) -> Any:
    """What a scattered source receives; what of it was not scattered, zeros."""
    made = F.gather(g, dim, index)
    have, want = F.shape(made), F.shape(src)
    return made if have == want else F._enlarge(made, want)


def _enlarge_meta(k: K, input: Spec, shape: Any) -> Spec:
    return Spec(shape, input.dtype)


@op(family="scatter", meta=_enlarge_meta)
def _enlarge(k: K, input: Array, shape: Any) -> Array:
    """Zeros of `shape`, with the input in the corner of the lowest indices."""
    input = floats(k, input)
    made = k.xp.zeros(shape, input.dtype)
    if input.size:
        cut(made, input.shape)[...] = input.reshape(input.shape or (1,) * len(shape))
    return made


@_enlarge.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    shape, ndim = saved.input.shape, len(F.shape(g))
    for i, n in enumerate(shape or (1,) * ndim):
        g = F.narrow(g, i, 0, n)
    return g if len(shape) == ndim else F.reshape(g, shape)  # an index may be 0-d, or empty with fewer dimensions


@scatter.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    dim, index, reduce = saved.dim, saved.index, saved.reduce
    if reduce == "multiply" and saved.src is not None:
        raise NoGradient(
            "the derivative for 'scatter' with reduce='multiply' and a tensor is not implemented; scatter_reduce with "
            "reduce='prod' has one",
            code="no-derivative",
            op="scatter",
        )
    if reduce == "multiply":
        return need.input and F.scatter(g, dim, index, value=saved.value, reduce="multiply"), None, None
    mine = need.input and (g if reduce == "add" else F.scatter(g, dim, index, value=0))
    return mine, None, need.src and _src_gradient(F, g, dim, index, saved.src)


def _scatter_add_meta(k: K, input: Spec, dim: int, index: Spec, src: Spec) -> Spec:
    _scatter_checks(input, dim, index, src)
    return input


@op(
    family="scatter",
    meta=_scatter_add_meta,
    updates=True,
    inplace=True,
    save={"src": ("index",)},
    samples=[
        S(T(2, 3), 1, _ALONG, T(2, 2)),
        S(T(3, 2), 0, I(2, 2, high=3), T(3, 2)),
        S(T(), 0, I(2, high=1), T(2)),
        S(T(), 0, I(high=1), T()),
        S(T(), 0, I(high=1), T(3)),
        S(T(2, 3), 0, I(0), T(2, 3)),
        S(I(2, 3), 1, _ALONG, I(2, 2)),
        S(C(2, 3), 1, _ALONG, C(2, 2)),
    ],
)
def scatter_add(k: K, input: Array, dim: Dim, index: Array, src: Array, *, out: Any = None) -> Array:
    """A copy with `src` added along `dim` at `index`, duplicates adding up."""
    made = editable(k, input, out)
    if index.size:
        add_along(k, made, wrap_dim(dim, input.ndim), index, src)
    return edited(made, out)


@scatter_add.guard
def _(k: K, input: Any, dim: int, index: Any, src: Any) -> None:
    check_along(input, dim, index)


@scatter_add.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return need.input and g, None, need.src and _src_gradient(F, g, saved.dim, saved.index, saved.src)
