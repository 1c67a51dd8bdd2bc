"""Sums of products over named dimensions: einsum, tensordot, kron, chains of matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Any

from engine.carriers import K
from engine.declare import Array, composite, op
from engine.dtypes import C_NAMES, INT, int64
from engine.errors import DtypeMismatch, Hint, Invalid, LimitExceeded, ShapeMismatch, WrongType
from engine.op import Spec
from engine.ops.products import multiply, refuse_bool, same_dtype
from engine.samples import C, I, S, T
from engine.shapes import Shape, text, wrap_dim

Labels = tuple[int, ...]

# ---------------------------------------------------------------- the kernel


def _einsum_meta(k: K, operands: Sequence[Spec], inputs: Any, output: Labels, sizes: dict[int, int]) -> Spec:
    first = operands[0]
    d = first.dtype
    if len(operands) > 1:
        refuse_bool(d, "bmm")
    for other in operands[1:]:
        same_dtype(first, other, "operands", "operands", "expected scalar type {a} but found {b}")
    if len(operands) == 1 and d.category <= INT and set(inputs[0]) - set(output):
        d = int64
    return Spec(tuple([sizes[label] for label in output]), d)


@op(family="linalg", meta=_einsum_meta, save={"operands": ("operands",)})
def _einsum(k: K, operands: list[Array], inputs: Any, output: Any, sizes: Any) -> Array:
    """The product of all operands, summed over the labels that the output lacks.

    `inputs` and `output` are tuples of labels, `sizes` gives each label's size. A label twice in an input takes the
    diagonal, twice in the output fills one; a label that only the output has expands.
    """
    wanted = tuple(dict.fromkeys(output))
    terms = [_single(k, x, labels, sizes) for x, labels in zip(operands, inputs, strict=True)]
    while len(terms) > 1:
        i, j = _cheapest(terms, wanted, sizes)
        b, a = terms.pop(j), terms.pop(i)
        kept = set(wanted).union(*(labels for _, labels in terms))
        terms.append(_pair(k, *a, *b, kept))
    made, have = _reduced(terms[0][0], terms[0][1], set(wanted), k.spec.dtype is int64)
    made = made.transpose([have.index(label) for label in wanted if label in have])
    if len(have) < len(wanted):
        made = made.reshape([sizes[label] if label in have else 1 for label in wanted])
        made = k.xp.broadcast_to(made, [sizes[label] for label in wanted])
    if len(wanted) < len(output):
        made = _embedded(k, made, wanted, output, sizes)
    return made


@_einsum.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    grads: list[Any] = []
    for i, wanted in enumerate(need.operands):
        if not wanted:
            grads.append(None)
            continue
        others = [F.conj(x) for j, x in enumerate(saved.operands) if j != i]
        labels = [saved.output, *(names for j, names in enumerate(saved.inputs) if j != i)]
        # Where the input's dimension was broadcast, the driver sums.
        grads.append(F._einsum([g, *others], tuple(labels), saved.inputs[i], saved.sizes))
    return (grads,)


def _single(k: K, x: Array, labels: Labels, sizes: dict[int, int]) -> tuple[Array, list[int]]:
    """An operand without repeated labels, and without dimensions of size 1 that are to be broadcast."""
    have = list(labels)
    for label in dict.fromkeys(labels):
        while have.count(label) > 1:
            i = have.index(label)
            j = have.index(label, i + 1)
            x = k.xp.diagonal(x, 0, i, j)
            del have[j], have[i]
            have.append(label)
    keep = [n == sizes[label] for n, label in zip(x.shape, have, strict=True)]
    if not all(keep):
        x = x.reshape([n for n, stays in zip(x.shape, keep, strict=True) if stays])
        have = [label for label, stays in zip(have, keep, strict=True) if stays]
    return x, have


def _reduced(x: Array, labels: list[int], kept: set[int], widen: bool = False) -> tuple[Array, list[int]]:
    """The sum over the labels that nobody else has."""
    axes = tuple(i for i, label in enumerate(labels) if label not in kept)
    if not axes:
        return x, labels
    return x.sum(axis=axes, dtype=int64.np if widen else x.dtype), [label for label in labels if label in kept]


def _cheapest(terms: list[tuple[Array, list[int]]], wanted: Labels, sizes: dict[int, int]) -> tuple[int, int]:
    """The pair whose product is smallest; the earliest of equals."""
    if len(terms) == 2:
        return 0, 1
    best, found = None, (0, 1)
    for i in range(len(terms)):
        for j in range(i + 1, len(terms)):
            kept = set(wanted).union(*(labels for at, (_, labels) in enumerate(terms) if at not in (i, j)))
            both = set(terms[i][1]) | set(terms[j][1])
            cost = (prod(sizes[x] for x in both & kept), prod(sizes[x] for x in both))
            if best is None or cost < best:
                best, found = cost, (i, j)
    return found


def _pair(k: K, a: Array, la: list[int], b: Array, lb: list[int], kept: set[int]) -> tuple[Array, list[int]]:
    """The product of two operands as one batch of matrix products."""
    a, la = _reduced(a, la, kept | set(lb))
    b, lb = _reduced(b, lb, kept | set(la))
    batch = [x for x in la if x in lb and x in kept]
    inner = [x for x in la if x in lb and x not in kept]
    left = [x for x in la if x not in lb]
    right = [x for x in lb if x not in la]
    a = a.transpose([la.index(x) for x in batch + left + inner])
    b = b.transpose([lb.index(x) for x in batch + inner + right])
    nb, ni = len(batch), len(inner)
    ends, shape = b.shape[nb + ni :], a.shape[: nb + len(left)]
    if not inner:
        spaced = b.reshape((*shape[:nb], *([1] * len(left)), *ends))
        return a.reshape((*shape, *([1] * len(right)))) * spaced, batch + left + right
    size, columns = prod(a.shape[nb + len(left) :]), prod(ends)
    rows, many = prod(shape[nb:]), prod(shape[:nb])
    if nb:
        made = multiply(k, a.reshape(many, rows, size), b.reshape(many, size, columns))
    else:
        made = multiply(k, a.reshape(rows, size), b.reshape(size, columns))
    return made.reshape((*shape, *ends)), batch + left + right


def _embedded(k: K, made: Array, wanted: Labels, output: Labels, sizes: dict[int, int]) -> Array:
    """Zeros, with `made` on the diagonal that the repeated labels name."""
    full = k.xp.zeros([sizes[label] for label in output], made.dtype)
    if made.size:
        strides = [sum(s for s, label in zip(full.strides, output, strict=True) if label == x) for x in wanted]
        k.backend.view(full, full.dtype, [sizes[x] for x in wanted], 0, strides)[...] = made
    return full


# ---------------------------------------------------------------- einsum


def _wrong(words: str) -> Invalid:
    return Invalid(f"einsum(): {words}", code="bad-equation", param="equation")


def _bad_letter(at: int) -> Invalid:
    return _wrong(f"invalid subscript given at index {at} in the equation string, subscripts must be in [a-zA-Z]")


def _operands(left: str, count: int) -> list[str]:
    """The letters of each operand, "." for the ellipsis; refuses the first thing that is wrong, as PyTorch finds it."""
    found = [""]
    i = 0
    while i < len(left):
        c = left[i]
        if c == ".":
            where = f"found '.' for operand {len(found) - 1}"
            if "." in found[-1]:
                raise _wrong(f"{where} for which an ellipsis was already found")
            if left[i : i + 3] != "...":
                raise _wrong(f"{where} that is not part of any ellipsis")
            i += 2
        if c == ",":
            found.append("")
            if len(found) > count:
                raise _wrong("fewer operands were provided than specified in the equation")
        elif c == "." or (c.isascii() and c.isalpha()):
            found[-1] += c
        elif c != " ":
            raise _bad_letter(i)
        i += 1
    if len(found) < count:
        raise _wrong("more operands were provided than specified in the equation")
    return found


def _output(right: str, start: int, dots: list[int], counted: list[int]) -> list[int]:
    """The labels of the output, which begins at index `start` of the equation."""
    output: list[int] = []
    ellipsis = False
    i = 0
    while i < len(right):
        c = right[i]
        if c == ".":
            if ellipsis:
                raise _wrong("found '.' for output but an ellipsis (...) was already found")
            if right[i : i + 3] != "...":
                raise _wrong("found '.' for output that is not part of any ellipsis (...)")
            ellipsis = True
            output += dots
            i += 2
        elif c != " ":
            if not (c.isascii() and c.isalpha()):
                raise _bad_letter(start + i)
            if ord(c) in output:
                raise _wrong(f"output subscript {c} appears more than once in the output")
            if ord(c) not in counted:
                raise _wrong(f"output subscript {c} does not appear in the equation for any input operand")
            output.append(ord(c))
        i += 1
    return output


@lru_cache(maxsize=512)
def parse(equation: str, ranks: tuple[int, ...]) -> tuple[tuple[Labels, ...], Labels]:
    """The labels of each operand and of the output. Raises Invalid in PyTorch's words.

    Letters are their codes; the dimensions of the ellipsis are -1 for the last of them, -2 for the one before.
    """
    arrow = equation.find("->")
    left, right = (equation, None) if arrow < 0 else (equation[:arrow], equation[arrow + 2 :])
    parts = _operands(left, len(ranks))
    inputs: list[Labels] = []
    longest = 0
    for at, (names, rank) in enumerate(zip(parts, ranks, strict=True)):
        letters = len(names) - ("." in names)
        if "." not in names and letters != rank:
            raise _wrong(
                f"the number of subscripts in the equation ({letters}) does not match the number of dimensions "
                f"({rank}) "
                f"for operand {at} and no ellipsis was given"
            )
        if letters > rank:
            raise _wrong(
                f"the number of subscripts in the equation ({letters}) is more than the number of dimensions ({rank}) "
                "for "
                f"operand {at}"
            )
        extra = rank - letters if "." in names else 0
        longest = max(longest, extra)
        labels: list[int] = []
        for c in names:
            labels += range(-extra, 0) if c == "." else [ord(c)]
        inputs.append(tuple(labels))
    dots = list(range(-longest, 0))
    counted = [label for labels in inputs for label in labels if label > 0]
    if right is None:
        return tuple(inputs), (*dots, *sorted(x for x in set(counted) if counted.count(x) == 1))
    return tuple(inputs), tuple(_output(right, arrow + 2, dots, counted))


def _sizes(inputs: tuple[Labels, ...], shapes: Sequence[Shape]) -> dict[int, int]:
    """Each label's size; dimensions of size 1 are broadcast between operands, though not within one."""
    sizes: dict[int, int] = {}
    for at, (labels, shape) in enumerate(zip(inputs, shapes, strict=True)):
        here: dict[int, int] = {}
        for dim, (label, n) in enumerate(zip(labels, shape, strict=True)):
            name = chr(label) if label > 0 else "..."
            if here.setdefault(label, n) != n:
                raise ShapeMismatch(
                    f"einsum(): subscript {name} is repeated for operand {at} but the sizes don't match, {n} != "
                    f"{here[label]}"
                )
            old = sizes.get(label, 1)
            if old == 1:
                sizes[label] = n
            elif n not in (1, old):
                words = f"subscript {name} has size {n} for operand {at} which does not broadcast with previously seen"
                words = f"einsum(): {words} size {old}"
                if label < 0:
                    words = (
                        f"einsum(): dimension {dim} covered by ellipsis in operand {at}has size {n} which does not "
                        f"broadcast with previously seen ellipsis with size {old} for the respective dimension"
                    )
                raise ShapeMismatch(
                    words,
                    hint=Hint("einsum-sizes", label=name, sizes=[old, n]),
                )
    return sizes


@composite(
    family="linalg",
    moves=True,
    samples=[
        S("ij,jk->ik", [T(2, 3), T(3, 2)]),
        S("ii->i", [T(3, 3)]),
        S("ij->", [T(2, 3)]),
        S("i,j", [T(2), T(3)]),
        S("...ij,...jk->...ik", [T(2, 1, 2, 3), T(2, 3, 2)]),
        S("bi,oij,bj->bo", [T(2, 3), T(2, 3, 2), T(2, 2)]),
        S("ij,j->ji", [T(2, 1), T(3)]),
        S("ii->", [T(2, 2)]),
        S("ij,jk", [C(2, 2), C(2, 2)]),
        S("ij,jk", [I(2, 2), I(2, 2)]),
        S("ij,k->i", [I(2, 2), T(3)]),
    ],
)
def einsum(F: Any, equation: str, operands: list[Array]) -> Array:
    """Sums of products by Einstein's convention: "ij,jk->ik" is the matrix product.

    A letter names a dimension; what the output (after ->) lacks is summed over. "..." stands for any dimensions, which
    are broadcast. Without an arrow the output has the letters that occur once, in alphabetical order.
    """
    if not operands:
        raise Invalid(
            "einsum(): must specify the equation string and at least one operand, or at least one operand and its "
            "subscripts list",
            param="operands",
        )
    shapes = [F.shape(x) for x in operands]
    inputs, output = parse(equation, tuple([len(shape) for shape in shapes]))
    sizes = _sizes(inputs, shapes)
    kinds = {F.dtype(x) for x in operands}
    if len(operands) == 1 or (len(kinds) == 1 and next(iter(kinds)).category > INT):
        return F._einsum(list(operands), inputs, output, sizes)
    return _in_turn(F, operands, inputs, output, sizes)


def _in_turn(F: Any, operands: Sequence[Any], inputs: tuple[Labels, ...], output: Labels, sizes: dict[int, int]) -> Any:
    """Operands of several dtypes, or whole numbers: in turn, as PyTorch does, since the steps decide dtypes.

    A dimension that two operands share is summed by a matrix product, which wants one dtype and no bools; one that a
    single operand has is summed alone, whole numbers in int64; and where nothing is summed the product promotes.
    """
    every = (*output, *sorted({label for labels in inputs for label in labels} - set(output)))
    terms = []
    for x, labels in zip(operands, inputs, strict=True):
        own = dict(zip(labels, F.shape(x), strict=True))
        x = F._einsum([x], (labels,), tuple([label for label in every if label in own]), own)
        terms.append(F.reshape(x, [own.get(label, 1) for label in every]))
    left = {at: sum(F.shape(x)[at] != 1 for x in terms) for at in range(len(output), len(every))}
    a = terms[0]
    for b in terms[1:]:
        alone: tuple[list[int], list[int]] = ([], [])
        joint = []
        for at, count in left.items():
            wide = [F.shape(x)[at] != 1 for x in (a, b)]
            if all(wide):
                left[at] = 0 if count == 2 else count - 1
                if count == 2:
                    joint.append(at)
            elif count == 1 and any(wide):
                alone[wide.index(True)].append(at)
                left[at] = 0
        a, b = (F.sum(x, dims, True) if dims else x for x, dims in zip((a, b), alone, strict=True))
        if joint:
            shape = [max(n, m) if n and m else 0 for n, m in zip(F.shape(a), F.shape(b), strict=True)]
            kept = tuple([label for at, label in enumerate(every) if at not in joint])
            made = F._einsum([a, b], (every, every), kept, dict(zip(every, shape, strict=True)))
            a = F.reshape(made, [1 if at in joint else n for at, n in enumerate(shape)])
        else:
            a = F.mul(a, b)
    return F.reshape(a, [sizes[label] for label in output])


# ---------------------------------------------------------------- tensordot, kron


def _two_lists(dims: Any) -> list[list[int]]:
    """The dimensions of both operands, each an int or a list of them."""
    parts = [[d] if type(d) is int else d for d in dims] if type(dims) in (list, tuple) else []
    if len(parts) != 2 or not all(type(p) in (list, tuple) and all(type(d) is int for d in p) for p in parts):
        raise WrongType("tensordot(): dims is a number of dimensions, or two lists of them", param="dims")
    return [list(p) for p in parts]


@composite(
    family="linalg",
    moves=True,
    node="ViewBackward0",
    samples=[
        S(T(2, 3), T(3, 2), 1),
        S(T(2, 3), T(2, 3)),
        S(T(2, 3, 4), T(4, 2), [[0, 2], [1, 0]]),
        S(T(2), T(3), 0),
        S(C(2, 2), C(2), 1),
        S(I(2, 3), I(3), 1),
    ],
)
def tensordot(F: Any, a: Array, b: Array, dims: Any = 2) -> Array:
    """Sums of products over the last `dims` dimensions of `a` and the first of `b`, or over two lists of dimensions."""
    sa, sb = F.shape(a), F.shape(b)
    x, y = Spec(sa, F.dtype(a)), Spec(sb, F.dtype(b))
    if type(dims) is int:
        if dims < 0:
            raise Invalid(f"tensordot expects dims >= 0, but got dims={dims}", param="dims")
        if dims > min(len(sa), len(sb)):
            raise Invalid(f"tensordot expects dims < ndim_a or ndim_b, but got dims={dims}", param="dims")
        left, right = list(range(-dims, 0)), list(range(dims))
    else:
        left, right = _two_lists(dims)
    if len(left) != len(right):
        raise Invalid("both dimension lists should have same length", param="dims")
    same_dtype(x, y, "a", "b", "both inputs should have same dtype")
    labels_a, labels_b = list(range(1, len(sa) + 1)), list(range(len(sa) + 1, len(sa) + len(sb) + 1))
    sizes = dict(zip(labels_a + labels_b, (*sa, *sb), strict=True))
    for i, j in zip(left, right, strict=True):
        for d, shape in ((i, sa), (j, sb)):
            if not shape:
                raise ShapeMismatch(f"Dimension specified as {d} but tensor has no dimensions")
        p, q = wrap_dim(i, len(sa)), wrap_dim(j, len(sb))
        if sa[p] != sb[q] and 1 not in (sa[p], sb[q]):
            raise ShapeMismatch(
                f"contracted dimensions need to match, but first has size {sa[p]} in dim {i} and second has size "
                f"{sb[q]} in "
                f"dim {j}",
                hint=Hint("inner-sizes", a=list(sa), b=list(sb)),
            )
        labels_b[q] = labels_a[p]
        sizes[labels_a[p]] = max(sa[p], sb[q]) if min(sa[p], sb[q]) else 0
    both = set(labels_a) & set(labels_b)
    output = tuple(label for label in labels_a + labels_b if label not in both)
    return F._einsum([a, b], (tuple(labels_a), tuple(labels_b)), output, sizes)


@composite(
    family="linalg",
    node="UnsafeViewBackward0",
    moves=True,
    samples=[S(T(2, 2), T(2, 3)), S(T(2), T(2, 3)), S(T(), T(2)), S(T(0, 2), T(2, 2)), S(C(2), C(2)), S(I(2, 2), T(2))],
)
def kron(F: Any, input: Array, other: Array) -> Array:
    """The Kronecker product: each element of the input times the whole of the other."""
    a, b = F.shape(input), F.shape(other)
    n = max(len(a), len(b))
    a, b = (1,) * (n - len(a)) + a, (1,) * (n - len(b)) + b
    spaced = F.mul(
        F.reshape(input, [size for m in a for size in (m, 1)]), F.reshape(other, [size for m in b for size in (1, m)])
    )
    return F.reshape(spaced, [x * y for x, y in zip(a, b, strict=True)])


# ---------------------------------------------------------------- chains


def _check_chain(F: Any, tensors: Sequence[Any]) -> list[Shape]:
    n = len(tensors)
    if n < 2:
        raise Invalid(f"multi_dot(): expected at least 2 tensors but got {n}", param="tensors")
    shapes = [F.shape(t) for t in tensors]
    for at, shape in enumerate(shapes):
        if at in (0, n - 1):
            if len(shape) not in (1, 2):
                which = "first" if at == 0 else "last"
                raise ShapeMismatch(f"multi_dot(): the {which} tensor must be 1D or 2D but got {len(shape)}D")
        elif len(shape) != 2:
            raise ShapeMismatch(f"multi_dot(): tensor {at} must be 2D but got {len(shape)}D")
    first = F.dtype(tensors[0])
    for at, t in enumerate(tensors):
        if F.dtype(t) is not first:
            raise DtypeMismatch(
                f"multi_dot(): all tensors must have be the same dtype but tensor 0 is {C_NAMES[first.name]} and "
                f"tensor {at} "
                f"{C_NAMES[F.dtype(t).name]}"
            )
    for at in range(n - 1):
        a, b = shapes[at], shapes[at + 1]
        if a[-1] != b[0]:
            raise ShapeMismatch(
                f"multi_dot(): tensors {at} and {at + 1} with shapes {text(a)} and {text(b)} cannot be multiplied",
                hint=Hint("inner-sizes", a=list(a), b=list(b)),
            )
    return shapes


@lru_cache(maxsize=256)
def _order(sizes: Shape) -> dict[tuple[int, int], int]:
    """Where to split each stretch of a chain of matrices, sizes[i] by sizes[i + 1], for the fewest multiplications."""
    n = len(sizes) - 1
    cost = {(i, i): 0 for i in range(n)}
    split: dict[tuple[int, int], int] = {}
    for length in range(1, n):
        for i in range(n - length):
            j = i + length
            found = min((cost[i, s] + cost[s + 1, j] + sizes[i] * sizes[s + 1] * sizes[j + 1], s) for s in range(i, j))
            cost[i, j], split[i, j] = found
    return split


# A function of its own: one within `_chain` that calls itself would keep the matrices until they are collected.
def _product(F: Any, matrices: Sequence[Any], split: Mapping[tuple[int, int], int], i: int, j: int) -> Any:
    """The product of the matrices i to j."""
    if i == j:
        return matrices[i]
    at = split[i, j]
    return F.mm(_product(F, matrices, split, i, at), _product(F, matrices, split, at + 1, j))


LONGEST = 128  # matrices in a chain: the order is found in cubic time, and the products nest as deep


def _chain(F: Any, tensors: Sequence[Any]) -> Any:
    if len(tensors) > LONGEST:
        raise LimitExceeded(f"multi_dot(): a chain of {len(tensors)} matrices is longer than {LONGEST}")
    shapes = _check_chain(F, tensors)
    matrices = list(tensors)
    row, column = len(shapes[0]) == 1, len(shapes[-1]) == 1
    if row:
        matrices[0] = F.reshape(matrices[0], (1, *shapes[0]))
    if column:
        matrices[-1] = F.reshape(matrices[-1], (*shapes[-1], 1))
    sizes = tuple([F.shape(m)[0] for m in matrices] + [F.shape(matrices[-1])[1]])
    split = _order(sizes)

    made = _product(F, matrices, split, 0, len(matrices) - 1)
    if row or column:
        made = F.reshape(made, sizes[:1] * (not row) + sizes[-1:] * (not column))
    return made


@composite(
    family="linalg",
    name="linalg.multi_dot",
    node="ViewBackward0",
    moves=True,
    samples=[S([T(2, 3), T(3, 4), T(4, 2)]), S([T(3), T(3, 2), T(2)]), S([C(2, 2), C(2, 2)])],
)
def multi_dot(F: Any, tensors: list[Array]) -> Array:
    """The product of a chain of matrices, multiplied in the cheapest order; the first and last may be vectors."""
    return _chain(F, tensors)


@composite(family="linalg", moves=True, samples=[S([T(2, 3), T(3, 4), T(4, 2)]), S([T(2, 3)])])
def chain_matmul(F: Any, matrices: list[Array]) -> Array:
    """The product of a chain of matrices, multiplied in the cheapest order."""
    for x in matrices:
        if len(F.shape(x)) != 2:
            raise ShapeMismatch(f"Tensor dimension is {len(F.shape(x))}, expected 2 instead.", param="matrices")
    return matrices[0] if len(matrices) == 1 else _chain(F, matrices)
