"""Names that are no operations: what is said of them is true, and what is suggested is there."""

from __future__ import annotations

import pytest

import engine.ops  # noqa: F401  the operations register themselves
from app.hints import sentence
from engine.elsewhere import FUNCTIONS, GROUPS, MODULES, OPTIMIZERS, OTHERS, instead, near, plain
from engine.op import REGISTRY, no_such_op

PUBLIC = [name for name, op in REGISTRY.items() if not op.internal]
PAIRS = {**MODULES, **OPTIMIZERS, **OTHERS, **FUNCTIONS}


def said(name: str) -> str | None:
    return sentence(no_such_op(name).hint)


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_suggested_is_there_and_what_is_not_there_is_not(name: str) -> None:
    assert name not in PUBLIC
    assert PAIRS[name]
    assert not [each for each in PAIRS[name] if each not in PUBLIC]


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_has_a_sentence_and_no_operation_in_it(group: str) -> None:
    for name in GROUPS[group].split():
        start = name.rstrip("*")
        assert name not in PUBLIC
        hint = instead(start + "anything" if name[-1] in ".*" else name)
        assert hint is not None, name
        assert sentence(hint), name


@pytest.mark.parametrize(
    "name, bare",
    [
        ("torch.add", "add"),
        ("torch.nn.functional.relu", "nn.functional.relu"),
        ("F.softmax", "softmax"),
        (".item()", "item"),
        ("x.item()", "item"),
        ("torch.manual_seed(0)", "manual_seed"),
        ("add", "add"),
        ("linalg.inv", "linalg.inv"),
    ],
)
def test_a_name_as_it_would_be_here(name: str, bare: str) -> None:
    assert plain(name) in (bare, bare.removeprefix("nn.functional."))


@pytest.mark.parametrize(
    "name, words",
    [
        ("nn.Linear", "nn.functional.linear"),
        ("torch.nn.CrossEntropyLoss()", "nn.functional.cross_entropy"),
        ("torch.optim.Adam", "optim.adam_"),
        ("torch.no_grad()", '"no_grad": true'),
        ("vmap", "there is no vmap"),
        ("func.vmap", "there is no vmap"),
        ("numpy", "application/x-npy"),
        ("len", "size, numel"),
        ("__add__", "add"),
        ("to_sparse_csr", "all tensors here are dense"),
        ("quantize_per_tensor", "no quantized dtypes"),
        ("save", "/snapshot"),
        ("print", "?as=text"),
        ("register_hook", "retain_grad"),
        ("DataLoader", "index_select"),
    ],
)
def test_what_is_said(name: str, words: str) -> None:
    found = said(name)
    assert found is not None
    assert words in found


@pytest.mark.parametrize(
    "name, first",
    [
        ("torch.add", "add"),
        ("F.relu", "relu"),
        ("matmull", "matmul"),
        ("Sum", "sum"),
        ("mse_loss", "nn.functional.mse_loss"),
        ("cross_entropy", "nn.functional.cross_entropy"),
        ("batchnorm", "batch_norm"),
        ("x.item", "item"),
        ("torch.Tensor.add_", "add_"),
    ],
)
def test_the_nearest_name_comes_first(name: str, first: str) -> None:
    assert near(name, PUBLIC)[0] == first


def test_what_is_like_nothing_has_no_near_names() -> None:
    assert near("zzzzzz", PUBLIC) == []
    assert said("zzzzzz") == "GET /v1/ops lists every operation"
