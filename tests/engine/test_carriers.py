"""The carriers Raw, Meta and Rec: names, operators on specs, promotion, and what rules may ask of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import engine.ops  # noqa: F401  the operations register themselves
from engine.carriers import Meta, Raw, infer, resolve, to_compute
from engine.context import Context, active
from engine.dtypes import DTYPES
from engine.errors import ShapeMismatch
from engine.op import REGISTRY, Spec
from engine.random import Generator
from engine.record import REC
from engine.tensor import Ledger, Tensor, fresh
from tests.laws.harness import BACKENDS, DEVICES

F32, F64, I64 = DTYPES["float32"], DTYPES["float64"], DTYPES["int64"]
BOTH = pytest.mark.parametrize("device", DEVICES)


def context(device: str) -> Context:
    return Context(ledger=Ledger(1 << 30), rng=Generator(0), device=device, devices=DEVICES)


class TestNames:
    @pytest.mark.parametrize(
        "short, full", [("mul", "mul"), ("gelu", "nn.functional.gelu"), ("inv", "linalg.inv"), ("relu", "relu")]
    )
    def test_short_names_reach_into_the_namespaces(self, short: str, full: str) -> None:
        assert resolve(short) is REGISTRY[full]

    def test_a_name_that_is_none_is_an_attribute_error_on_every_carrier(self) -> None:
        k = context("cpu").k(BACKENDS["cpu"])
        for carrier in (Raw(k), Meta(k), REC):
            with pytest.raises(AttributeError, match="there is no operation"):
                carrier.no_such_thing  # noqa: B018


class TestWhatARuleMayAsk:
    """Shape and dtype of a value that was saved, and of one that was not, on each carrier."""

    @BOTH
    def test_shape_and_dtype(self, device: str) -> None:
        ctx, backend = context(device), BACKENDS[device]
        k = ctx.k(backend)
        array = backend.xp.zeros((2, 3), dtype=np.float64)
        spec = Spec((2, 3), F64)
        tensor = fresh(array, spec, backend, ctx.ledger)
        for carrier, value in ((k.raw, array), (REC, tensor), (Meta(k), spec)):
            for asked in (value, spec):
                assert tuple(carrier.shape(asked)) == (2, 3)
                assert carrier.dtype(asked) is F64
        assert (k.raw.recording, Meta(k).recording, REC.recording) == (False, False, True)

    @BOTH
    def test_zeros_and_constants(self, device: str) -> None:
        ctx, backend = context(device), BACKENDS[device]
        k = ctx.k(backend)
        with active(ctx):
            made: Any = REC.zeros_for(Spec((2,), F64))
            assert type(made) is Tensor
            assert made.backend is backend
            array = k.raw.zeros_for(Spec((2,), DTYPES["bfloat16"]))
            assert array.dtype == np.float32, "on arrays there is no bfloat16"
            assert backend.to_host(k.raw.constant(3, array)).tolist() == 3.0
            assert Meta(k).constant(3, Spec((4,), F64)) == Spec((), F64)


class TestSpecs:
    def test_operators_promote_and_broadcast(self) -> None:
        a, b = Spec((2, 1), F32), Spec((3,), F64)
        assert a + b == Spec((2, 3), F64)
        assert 2 * a == a == -a
        assert a * 1j == Spec((2, 1), DTYPES["complex64"])
        assert Spec((2,), I64) / 2 == Spec((2,), F32)
        with pytest.raises(ShapeMismatch):
            a + Spec((4, 4), F32)

    def test_an_operand_that_was_not_saved_says_so(self) -> None:
        with pytest.raises(TypeError, match="declare it in `save`"):
            Spec((2,), F32) * np.ones(2)

    def test_meta_runs_composites_without_arrays(self) -> None:
        k = context("cpu").k(BACKENDS["cpu"])
        x = Spec((2, 5), F32)
        assert infer(REGISTRY["nn.functional.cross_entropy"], k,
                     [x, Spec((2,), I64), None, None, -100, None, "mean", 0.0])[0] == Spec((), F32)  # fmt: skip
        assert Meta(k).transpose(x, 0, 1) == Spec((5, 2), F32)


class TestRaw:
    @BOTH
    @pytest.mark.parametrize(
        "shape, size",
        [((), (2, 3)), ((3,), (2, 3)), ((2, 1), (2, 3)), ((2, 1), (-1, 4)), ((1, 3), (0, 3)), ((2,), (2,))],
    )
    def test_expand_by_hand_is_broadcasting(self, device: str, shape: tuple[int, ...], size: tuple[int, ...]) -> None:
        ctx, backend = context(device), BACKENDS[device]
        host = np.arange(float(np.prod(shape))).reshape(shape)
        for array in (backend.from_host(host.copy()), backend.from_host(np.asfortranarray(host))):
            made = backend.to_host(ctx.k(backend).raw.expand(array, size))
            wanted = tuple(n if n >= 0 else shape[i - len(size)] for i, n in enumerate(size))
            assert np.array_equal(made, np.broadcast_to(host, wanted))

    @BOTH
    def test_results_have_the_dtype_that_meta_says(self, device: str) -> None:
        ctx, backend = context(device), BACKENDS[device]
        raw = ctx.k(backend).raw
        ones = backend.xp.ones(3, dtype=np.int64)
        assert raw.sum(backend.xp.ones(3, dtype=np.bool_)).dtype == np.int64
        assert raw.div(ones, 2).dtype == np.float32
        assert raw.add(backend.xp.ones(3, dtype=np.float32), 2.5).dtype == np.float32

    def test_an_overload_is_reached_by_its_own_name(self) -> None:
        raw = context("cpu").k(BACKENDS["cpu"]).raw
        values, indices = raw._max_dim(np.array([[1.0, 3.0, 2.0]]), 1)
        assert (values.tolist(), indices.tolist()) == ([3.0], [1])


@BOTH
def test_operands_reach_the_compute_dtype_through_a_reduced_one(device: str) -> None:
    """float32 beside bfloat16 in a bfloat16 computation is rounded to bfloat16 before it is widened."""
    backend, half = BACKENDS[device], DTYPES["bfloat16"]
    ones = backend.from_host(np.array([1 + 2.0**-7, 1 + 2.0**-9], np.float64))
    made = to_compute(backend, ones, F64, half, F32)
    assert backend.to_host(made).tolist() == [1 + 2.0**-7, 1.0]
    bits = backend.from_host(np.array([0x3F80], np.uint16))
    assert backend.to_host(to_compute(backend, bits, half, half, F32)).tolist() == [1.0]
