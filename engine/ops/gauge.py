"""Losses that depend on what is not unique: complex eigenvectors and singular vectors are known up to phases."""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.declare import Array, op
from engine.errors import Hint, NoGradient
from engine.op import Spec


def _same_meta(k: K, input: Spec, *rest: Any) -> Spec:
    return input


@op(family="linalg", meta=_same_meta, save={"input": ()})
def _phase_free(k: K, input: Array, words: Any) -> Array:
    """Its input, whose imaginary parts must be zero: else a loss depends on the phases of complex vectors."""
    return input.copy()


@_phase_free.guard
def _(k: K, input: Array, words: str) -> None:
    if input.dtype.kind == "c" and bool((k.xp.abs(input.imag) > 1e-2).any()):
        raise NoGradient(words, code="ill-defined-gradient", hint=Hint("phases"))


@_phase_free.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g


def vectors_words(name: str) -> str:
    """PyTorch's refusal of a loss that depends on the phases of complex eigenvectors."""
    return (
        f"{name}: The eigenvectors in the complex case are specified up to multiplication by e^{{i phi}}. The "
        "specified loss function depends on this quantity, so it is ill-defined."
    )


SINGULAR_WORDS = (
    "svd_backward: The singular vectors in the complex case are specified up to multiplication by e^{i phi}. The "
    "specified loss function depends on this phase term, making it ill-defined."
)
