"""Writes mistakes.json: what PyTorch says to the mistakes of tests/app/mistakes.toml. Run with a Python that has torch.

{"torch": version, "words": {title: PyTorch's message, or null where PyTorch does not have the call}}. The mistakes are
sent to torch as they are to the service: operations by name, arguments by name. What only HTTP has (JSON, names of
tensors, programs), and what needs a CUDA device, is not asked.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
TOUR = tomllib.loads((HERE.parent / "app" / "mistakes.toml").read_text())
DTYPES = ("bool", "uint8", "int32", "int64", "float16", "float32", "float64", "complex64")

Env = dict[str, Any]


class NotInTorch(Exception):
    """The call is one that PyTorch does not have."""


def tensor(body: dict[str, Any]) -> Any:
    """What POST /v1/tensors would make."""
    known = {"data", "shape", "dtype", "device", "requires_grad", "name"}
    if not set(body) <= known or "data" not in body or body.get("device", "cpu") != "cpu":
        raise NotInTorch
    made = torch.tensor(body["data"], dtype=dtype(body.get("dtype")), requires_grad=body.get("requires_grad", False))
    return made.reshape(body["shape"]) if "shape" in body else made


def dtype(name: str | None) -> Any:
    return None if name is None else getattr(torch, name)


def argument(env: Env, name: str, value: Any) -> Any:
    """A value as torch takes it: a reference is a tensor, a list where tensors go is one."""
    if name == "dtype":
        if value not in DTYPES:
            raise NotInTorch
        return dtype(value)
    if name == "device":
        if value != "cpu":
            raise NotInTorch
        return value
    if name == "index" and isinstance(value, list) and not any(isinstance(v, str) for v in value):
        return torch.tensor(value)
    if isinstance(value, str) and name in _TENSORS:
        if value not in env:
            raise NotInTorch
        return env[value]
    if name in _TENSORS and isinstance(value, list):
        if name in _LISTS:
            return [argument(env, "input", v) for v in value]
        return torch.tensor(value)
    return value


_LISTS = {"tensors", "outputs", "inputs", "params", "grads", "matrices"}
_TENSORS = {
    "input", "other", "mat1", "mat2", "vec", "weight", "bias", "target", "index", "mask", "src", "gradient",
    "condition", "indices", "values", "batch1", "batch2", "A", "B", *_LISTS,
}  # fmt: skip


def getitem(env: Env, body: dict[str, Any]) -> Any:
    items: list[Any] = []
    for item in body["index"] if isinstance(body["index"], list) else [body["index"]]:
        if isinstance(item, str) and ":" in item:
            items.append(slice(*(int(part) if part else None for part in item.split(":"))))
        elif isinstance(item, str):
            items.append(env[item])
        else:
            items.append(torch.tensor(item) if isinstance(item, list) else item)
    return env[body["input"]][tuple(items)]


def run(env: Env, call: str, body_text: str) -> Any:
    """One call of the tour. Raises what torch raises, and NotInTorch."""
    method, path = call.split(" ")
    try:
        body = json.loads(body_text) if body_text else {}
    except ValueError:
        raise NotInTorch from None
    if not isinstance(body, dict):
        raise NotInTorch
    if method == "POST" and path == "tensors":
        made = tensor(body)
        env[body.get("name", "_")] = made
        return made
    if method == "PATCH" and body == {"grad": None}:
        env[path.removeprefix("tensors/")].grad = None
        return None
    if method == "POST" and path.endswith("/backward"):
        given = {k: argument(env, k, v) for k, v in body.items()}
        return env[path.split("/")[1]].backward(**given)
    if method != "POST" or not path.startswith("ops/"):
        raise NotInTorch
    op = path.removeprefix("ops/")
    out = body.pop("out_name", None)
    if op == "getitem":
        made = getitem(env, body)
    elif op == "backward":
        made = argument(env, "input", body.pop("input")).backward(**{k: argument(env, k, v) for k, v in body.items()})
    else:
        made = (
            function(op)(**{k: argument(env, k, v) for k, v in body.items()})
            if is_function(op)
            else method_of(env, op, body)
        )
    if out is not None:
        env[out] = made
    return made


def is_function(op: str) -> bool:
    try:
        function(op)
    except NotInTorch:
        return False
    return True


def function(op: str) -> Any:
    """torch.<op>; raises NotInTorch for a method, and for what there is not."""
    found: Any = torch
    for part in op.split("."):
        found = getattr(found, part, None)
    if not callable(found) or isinstance(found, type) or op in ("tensor", "to"):
        raise NotInTorch
    return found


def method_of(env: Env, op: str, body: dict[str, Any]) -> Any:
    found = getattr(torch.Tensor, op, None)
    if found is None or "input" not in body:
        raise NotInTorch
    subject = argument(env, "input", body.pop("input"))
    return getattr(subject, op)(**{k: argument(env, k, v) for k, v in body.items()})


def words(mistake: dict[str, Any]) -> str | None:
    """PyTorch's message; None where it has no such call, or does it."""
    env: Env = {}
    for call in TOUR["setup"]:
        try:
            run(env, call["call"], call["body"])
        except NotInTorch:
            continue
    try:
        run(env, mistake["call"], mistake["body"])
    except NotInTorch:
        return None
    except Exception as error:  # noqa: BLE001  whatever it says is what is wanted
        if "unexpected keyword argument 'input'" in str(error) or 'required positional arguments: "tensor"' in str(
            error
        ):
            return method_words(env, mistake)
        return str(error).partition("\nException raised from")[0]
    return None


def method_words(env: Env, mistake: dict[str, Any]) -> str:
    """The same of the method, by position, where the function's parameters have other names than the service's."""
    subject, *rest = [argument(env, k, v) for k, v in json.loads(mistake["body"]).items()]
    try:
        getattr(subject, mistake["call"].removeprefix("POST ops/"))(*rest)
    except RuntimeError as error:
        return str(error)
    raise AssertionError(mistake["title"])


def main() -> None:
    said = {m["title"]: words(m) for m in TOUR["mistake"]}
    made = {"torch": torch.__version__.partition("+")[0], "words": said}
    (HERE / "mistakes.json").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
