"""A product of matrices for each group of rows, columns or terms: as mixtures of experts have it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from engine.context import Context
from engine.declare import Array, DTypeArg, composite, special
from engine.dtypes import C_NAMES, int32, scalar_type
from engine.errors import Call, DtypeMismatch, Hint, IndexOutOfRange, Invalid, Param, ShapeMismatch
from engine.metas import as_dtype
from engine.ops.values import host_values
from engine.record import REC
from engine.samples import I, S, T
from engine.tensor import Tensor


@composite(family="linalg", node="GroupedMmBackward0")
def _grouped_mm(F: Any, mat_a: Array, mat_b: Array, ends: Any) -> Array:
    """The groups' products; `ends` are where they end along what is divided, None where both have a batch."""
    a, b = F.shape(mat_a), F.shape(mat_b)
    if ends is None:
        return F.bmm(mat_a, mat_b)
    groups = [(low, high - low) for low, high in pairwise((0, *ends))]
    if len(a) == 2 and len(b) == 2:
        parts = [F.mm(F.narrow(mat_a, 1, at, count), F.narrow(mat_b, 0, at, count)) for at, count in groups]
        return F.stack(parts, 0)
    if len(a) == 2:
        parts = [F.mm(F.narrow(mat_a, 0, at, count), F.select(mat_b, 0, i)) for i, (at, count) in enumerate(groups)]
        made = F.cat(parts, 0)
        return F.constant_pad_nd(made, (0, 0, 0, a[0] - ends[-1]), 0)
    parts = [F.mm(F.select(mat_a, 0, i), F.narrow(mat_b, 1, at, count)) for i, (at, count) in enumerate(groups)]
    return F.constant_pad_nd(F.cat(parts, 1), (0, b[1] - ends[-1]), 0)


@special(
    family="linalg",
    name="nn.functional.grouped_mm",
    samples=[
        S(T(5, 3), T(2, 3, 4), offs=I(2, values=[2, 5], dtype="int32")),
        S(T(2, 4, 3), T(3, 5), offs=I(2, values=[2, 5], dtype="int32")),
        S(T(4, 5), T(5, 3), offs=I(2, values=[1, 4], dtype="int32")),
        S(T(2, 4, 3), T(2, 3, 5)),
    ],
    example={
        "mat_a": [[0.5, 1.5, 2.5, 3.5], [4.5, 5.5, 6.5, 7.5], [0.25, 0.5, 0.75, 1.25]],
        "mat_b": [[[1.5, 0.5, 0.5, 0.5], [0.5, 1.5, 0.5, 0.5], [0.5, 0.5, 1.5, 0.5], [0.5, 0.5, 0.5, 1.5]]],
        "offs": {"data": [3], "dtype": "int32"},
    },
)
def grouped_mm(
    ctx: Context,
    mat_a: Array,
    mat_b: Array,
    offs: Array | None = None,
    bias: Array | None = None,
    out_dtype: DTypeArg | None = None,
) -> Tensor:
    """The matrix products of groups, which end at `offs` along what is divided among them.

    mat_a (M, K) and mat_b (G, K, N) give (M, N), rows divided; (G, M, K) and (K, N) give (M, N), columns divided;
    (M, K) and (K, N) give (G, M, N), terms divided; two batches need no `offs`. What lies beyond the last group is 0.
    """
    for name, x in (("mat_a", mat_a), ("mat_b", mat_b)):
        if x.dtype.name not in ("float32", "bfloat16", "float16"):
            raise DtypeMismatch(
                f"Expected {name} to be Float32, BFloat16 or Float16 matrix, got {scalar_type(x.dtype)}",
                hint=Hint("cast-input", Call("to", {"input": Param(name), "dtype": "float32"}), have=x.dtype.name),
                param=name,
            )
    for name, x in (("mat_a", mat_a), ("mat_b", mat_b)):
        if x.ndim not in (2, 3):
            raise ShapeMismatch(f"{name} has to be 2 or 3d", param=name)
    if mat_a.shape[-1] != mat_b.shape[-2]:
        raise ShapeMismatch("contraction dimension of mat_a and mat_b must match", param="mat_b")
    flat = mat_a.ndim == 2 or mat_b.ndim == 2
    if (offs is not None) != flat:
        raise Invalid(
            "Have to provide offsets if there is a 2d matrix, or no offset if both matrices are 3d", param="offs"
        )
    if bias is not None:
        raise Invalid("Bias not supported yet", param="bias")
    wanted = as_dtype(out_dtype)
    if wanted is not None and wanted is not mat_a.dtype:
        raise DtypeMismatch("Grouped gemm output dtype must match `mat_a` dtype", param="out_dtype")
    if mat_a.dtype is not mat_b.dtype:
        raise DtypeMismatch(
            "expected m1 and m2 to have the same dtype, but got: "
            f"{C_NAMES[mat_a.dtype.name]} != {C_NAMES[mat_b.dtype.name]}",
            param="mat_b",
        )
    if offs is None:
        if mat_a.shape[0] != mat_b.shape[0]:
            raise ShapeMismatch("batched dimension has to match", param="mat_b")
        return REC._grouped_mm(mat_a, mat_b, None)  # type: ignore[no-any-return]
    return REC._grouped_mm(mat_a, mat_b, _ends(mat_a, mat_b, offs))  # type: ignore[no-any-return]


def _ends(mat_a: Tensor, mat_b: Tensor, offs: Tensor) -> tuple[int, ...]:
    """Where the groups end, checked: rising, and within what is divided."""
    if offs.ndim != 1:
        raise ShapeMismatch("offs has to be 1D", param="offs")
    if offs.dtype is not int32:
        raise DtypeMismatch(
            "Offsets have to be int32",
            hint=Hint("cast-input", Call("to", {"input": Param("offs"), "dtype": "int32"}), have=offs.dtype.name),
            param="offs",
        )
    batched = mat_a if mat_a.ndim == 3 else mat_b if mat_b.ndim == 3 else None
    if batched is not None and batched.shape[0] != offs.numel:
        raise ShapeMismatch("matrix batch sizes have to match", param="offs")
    size = mat_b.shape[1] if mat_a.ndim == 3 else mat_a.shape[0] if mat_b.ndim == 3 else mat_a.shape[1]
    ends = tuple(int(n) for n in host_values(offs).tolist())
    if not ends or any(low > high for low, high in pairwise((0, *ends))) or ends[-1] > size:
        raise IndexOutOfRange(f"the groups end at rising places up to {size}, and not at {list(ends)}", param="offs")
    return ends
