"""A session as one file: out of one session, into another, bit for bit; and what is no such file."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from app.main import create_app
from app.settings import Settings
from tests.app.conftest import served
from tests.app.test_security import is_problem

FILE = {"Content-Type": "application/x-safetensors"}
SETUP: dict[str, Any] = {
    "steps": [
        {"op": "randn", "args": {"size": [4, 3], "requires_grad": True}, "out": "w"},
        {"op": "optim.adam_state", "args": {"params": ["w"]}, "out": "state"},
        {"op": "nn.functional.dropout", "args": {"input": "w"}, "out": "h"},
        {"op": "sum", "args": {"input": "h"}, "out": "loss"},
        {"op": "backward", "args": {"input": "loss"}},
        {"op": "optim.adam_", "args": {"params": ["w"], "grads": ["w.grad"], "state": "state"}},
        {"op": "arange", "args": {"end": 24}, "out": "base"},
        {"op": "view", "args": {"input": "base", "size": [4, 6]}, "out": "grid"},
        {"op": "t", "args": {"input": "grid"}, "out": "turned"},
        {"op": "getitem", "args": {"input": "grid", "index": ["1:3", "::2"]}, "out": "part"},
        {"op": "expand", "args": {"input": {"data": [[1.5], [2.5]]}, "size": [2, 5]}, "out": "wide"},
        {"op": "set_default_dtype", "args": {"d": "float64"}},
        {"op": "set_printoptions", "args": {"profile": "full", "precision": 2}},
    ],
    "inputs": {
        "half": {"data": [1.5, "NaN", -0.0], "dtype": "bfloat16"},
        "z": {"data": [[[1, -0.0], ["Infinity", 2]]], "dtype": "complex128"},
        "flags": {"data": [True, False], "dtype": "bool"},
        "none": {"data": [], "shape": [0, 3], "dtype": "int16"},
        "one": {"data": 7, "dtype": "uint8"},
    },
    "keep": {
        **{name: name for name in ("w", "loss", "grid", "turned", "part", "wide", "half", "z", "flags", "none", "one")},
        "state": "adam",
    },
}


def where(session: str) -> dict[str, str]:
    return {"Curlgrad-Session": session}


def make(http: httpx.Client, name: str, **fields: Any) -> str:
    made = http.post("/v1/sessions", json={"name": name, **fields})
    assert made.status_code == 201, made.text
    return name


def filled(http: httpx.Client, name: str = "from") -> bytes:
    """A session with one of everything, and its snapshot."""
    make(http, name, seed=3)
    ran = http.post("/v1/programs", json=SETUP, headers=where(name))
    assert ran.status_code == 200, ran.text
    assert http.post("/v1/tensors", json={"data": [0.5], "requires_grad": True}, headers=where(name)).status_code == 201
    found = http.get(f"/v1/sessions/{name}/snapshot")
    assert found.status_code == 200, found.text
    assert found.headers["content-type"] == "application/x-safetensors"
    return found.content


def entry(body: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("<Q", body)
    found: dict[str, Any] = json.loads(json.loads(body[8 : 8 + length])["__metadata__"]["curlgrad"])
    return found


def changed(body: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The file with another description."""
    about = entry(body)
    change(about)
    return described(body, json.dumps(about))


def described(body: bytes, text: str) -> bytes:
    (length,) = struct.unpack_from("<Q", body)
    header = json.loads(body[8 : 8 + length])
    header["__metadata__"] = {"curlgrad": text}
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    return struct.pack("<Q", len(told)) + told + body[8 + length :]


def put(http: httpx.Client, session: str, body: bytes, **options: Any) -> httpx.Response:
    return http.put(f"/v1/sessions/{session}/snapshot", content=body, headers=FILE, **options)


def everything(http: httpx.Client, session: str) -> list[Any]:
    """All that can be seen of the session's tensors, but for ids, etags and versions."""
    listed = http.get("/v1/tensors?limit=1000", headers=where(session)).json()["tensors"]
    found = http.post("/v1/programs?values=all", json={"return": [t["id"] for t in listed]}, headers=where(session))
    tensors = list(found.json()["results"].values())
    for tensor in tensors:
        for one in (tensor, tensor["grad"] or {}):
            for field in ("id", "etag", "version"):
                one.pop(field, None)
    return tensors


@pytest.fixture(scope="module")
def servers() -> Iterator[list[httpx.Client]]:
    with served(create_app(Settings(workers="inline"))) as one, served(create_app(Settings(workers="inline"))) as other:
        yield [one, other]


@pytest.fixture
def http(servers: list[httpx.Client]) -> Iterator[httpx.Client]:
    """A server, without sessions when the test is over."""
    yield servers[0]
    for client in servers:
        for session in client.get("/v1/sessions").json()["sessions"]:
            client.delete(f"/v1/sessions/{session['id']}")


@pytest.fixture
def other(servers: list[httpx.Client]) -> httpx.Client:
    """Another server."""
    return servers[1]


def test_a_snapshot_is_a_state_dict_for_other_readers(http: httpx.Client, tmp_path: Path) -> None:
    body = filled(http)
    (tmp_path / "session.safetensors").write_bytes(body)
    with safe_open(tmp_path / "session.safetensors", "np") as file:
        keys = set(file.keys())
        found = {key: file.get_tensor(key) for key in keys - {"half"}}  # NumPy has no bfloat16
    listed = http.get("/v1/tensors", headers=where("from")).json()["tensors"]
    assert keys == {t["name"] or t["id"] for t in listed} | {"w.grad"}
    read = http.get("/v1/tensors/w?as=npy", headers=where("from")).content
    assert found["w"].tobytes() == read[-48:]
    assert found["grid"].tolist() == np.arange(24).reshape(4, 6).tolist()
    assert found["turned"].shape == (6, 4)
    assert found["z"].shape == (1, 2, 2)
    about = entry(body)
    assert about["states"]["adam"].keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert about["tensors"]["half"]["dtype"] == "bfloat16"
    assert about["tensors"]["z"]["dtype"] == "complex128"
    assert sorted(about["tensors"]["grid"]["aliases"]) == ["part", "turned"]
    assert about["tensors"]["loss"]["is_leaf"] is False


def test_it_comes_back_bit_for_bit_here_and_on_another_server(http: httpx.Client, other: httpx.Client) -> None:
    body = filled(http)
    mine = everything(http, "from")
    for tensor in mine:
        if tensor["name"] == "loss":  # its tape stays behind
            tensor.update(requires_grad=False, is_leaf=True, grad_fn=None)
        if tensor["name"] in ("grid", "turned", "part", "wide"):
            assert tensor["grad_fn"] is None
    for client in (http, other):
        make(client, "to", seed=99)
        client.post("/v1/tensors", json={"data": [1, 2], "name": "old"}, headers=where("to"))
        answer = put(client, "to", body)
        assert answer.status_code == 200, answer.text
        assert everything(client, "to") == mine
        assert client.get("/v1/tensors/old", headers=where("to")).status_code == 404
        assert told(client.get("/v1/sessions/to/snapshot").content) == told(body)


def data_of(body: bytes) -> dict[str, bytes]:
    """The bytes of each tensor."""
    (length,) = struct.unpack_from("<Q", body)
    header = json.loads(body[8 : 8 + length])
    rows = {key: row["data_offsets"] for key, row in header.items() if key != "__metadata__"}
    return {key: body[8 + length + low : 8 + length + high] for key, (low, high) in rows.items()}


def told(body: bytes) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The bytes by key and the description, without what a new session has of its own, and a tape leaves behind."""
    about = entry(body)
    rows = {}
    for key, row in about["tensors"].items():
        rows["unnamed" if key == row.pop("id") else key] = row
    about["tensors"] = rows
    if "loss" in rows:
        rows["loss"].update(requires_grad=False, is_leaf=True)
    return {key if key in rows else "unnamed": data for key, data in data_of(body).items()}, about


def test_ids_are_new_and_old_ones_are_not_given_again(http: httpx.Client) -> None:
    body = filled(http)
    before = {row["id"] for row in http.get("/v1/tensors", headers=where("from")).json()["tensors"]}
    answer = put(http, "from", body).json()["tensors"]
    assert not before & {tensor["id"] for tensor in answer.values() if tensor["id"] is not None}
    assert answer["w.grad"]["id"] is None
    for old in before:
        assert is_problem(http.get(f"/v1/tensors/{old}", headers=where("from")), 404, "no-such-tensor")


def test_shared_memory_is_shared_again_and_the_generator_goes_on(http: httpx.Client) -> None:
    make(http, "to")
    assert put(http, "to", filled(http)).status_code == 200
    for session in ("from", "to"):
        filling = {"op": "fill_", "args": {"input": "part", "value": -1}}
        program = {"steps": [filling, {"op": "rand", "args": {"size": [3]}, "out": "r"}], "return": ["turned", "r"]}
        results = http.post("/v1/programs", json=program, headers=where(session)).json()["results"]
        assert results["turned"]["values"][0] == [0, -1, -1, 18]
        if session == "from":
            drawn = results["r"]["values"]
    assert results["r"]["values"] == drawn
    step = {"op": "optim.adam_", "args": {"params": ["w"], "grads": ["w.grad"], "state": "adam"}}
    both = [
        http.post("/v1/programs", json={"steps": [step], "return": ["w"]}, headers=where(session)).json()["results"]
        for session in ("from", "to")
    ]
    assert both[0]["w"]["values"] == both[1]["w"]["values"]


def test_the_tape_stays_behind(http: httpx.Client) -> None:
    make(http, "to")
    put(http, "to", filled(http))
    loss = http.get("/v1/tensors/loss", headers=where("to")).json()
    assert (loss["requires_grad"], loss["is_leaf"], loss["grad_fn"]) == (False, True, None)
    assert http.get("/v1/tensors/w", headers=where("to")).json()["grad"] is not None


def test_a_repeat_with_its_key_changes_nothing(http: httpx.Client) -> None:
    body = filled(http)
    make(http, "to")
    key = {"Idempotency-Key": "once"}
    first = http.put("/v1/sessions/to/snapshot", content=body, headers={**FILE, **key}).json()
    http.post("/v1/tensors", json={"data": 1, "name": "later"}, headers=where("to"))
    assert http.put("/v1/sessions/to/snapshot", content=body, headers={**FILE, **key}).json() == first
    assert http.get("/v1/tensors/later", headers=where("to")).status_code == 200


def test_it_is_kept_on_the_disk(tmp_path: Path, http: httpx.Client) -> None:
    body = filled(http)
    settings = Settings(workers="inline", data_dir=tmp_path)
    with served(create_app(settings)) as client:
        assert put(client, "default", body).status_code == 200
        kept = everything(client, "default")
    with served(create_app(settings)) as client:
        assert everything(client, "default") == kept
        assert told(client.get("/v1/sessions/default/snapshot").content) == told(body)


def test_a_named_device_takes_all(http: httpx.Client, other: httpx.Client) -> None:
    body = changed(filled(http), lambda about: about["tensors"]["half"].update(device="cuda:0"))
    make(other, "to")
    refused = put(other, "to", body)
    assert is_problem(refused, 422, "no-such-device")
    assert put(other, "to", body, params={"device": "cpu"}).status_code == 200


def _row(key: str, **fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda about: about["tensors"][key].update(fields)


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another format": lambda about: about.update(format="curlgrad session 2"),
    "an unknown field": lambda about: about.update(run="import os"),
    "no generator": lambda about: about.pop("generator"),
    "a generator that is none": lambda about: about["generator"].update(cpu="AAAA"),
    "a generator of zeros": lambda about: about["generator"].update(cpu="A" * 6740 + "A="),
    "no base64": lambda about: about["generator"].update(devices="*"),
    "a short device state": lambda about: about["generator"].update(devices="AAAA"),
    "a whole default dtype": lambda about: about.update(default_dtype="int64"),
    "no default dtype": lambda about: about.update(default_dtype="float31"),
    "wide lines": lambda about: about["print_options"].update(linewidth=10**9),
    "unknown print options": lambda about: about["print_options"].update(profile="x"),
    "print options of text": lambda about: about["print_options"].update(precision="4"),
    "one tensor more": lambda about: about["tensors"].update(more=about["tensors"]["w"]),
    "one tensor less": lambda about: about["tensors"].pop("one"),
    "tensors as a list": lambda about: about.update(tensors=[]),
    "a row that is none": lambda about: about["tensors"].update(one=3),
    "another dtype": _row("one", dtype="int8"),
    "another shape": _row("one", shape=[1]),
    "no such dtype": _row("one", dtype="int31"),
    "an id twice": _row("one", id="t1"),
    "an id that is a name": _row("one", id="w"),
    "a huge id": _row("one", id="t" + "9" * 400),
    "an integer that requires grad": _row("one", requires_grad=True),
    "a gradient with an id": _row("w.grad", id="t99"),
    "a storage that is not there": _row("part", storage=99),
    "half a place": _row("part", storage=None),
    "a storage before the first": _row("part", storage=-1),
    "memory behind the end": _row("part", offset=10**6),
    "memory before the start": _row("part", offset=-1),
    "a stride over the end": _row("part", strides=[10**15, 1]),
    "a stride backwards": _row("part", strides=[-6, 2]),
    "too few strides": _row("part", strides=[1]),
    "other values of the same memory": _row("part", offset=0),
    "storages that are none": lambda about: about.update(storages={}),
    "a storage without end": lambda about: about.update(storages=[1 << 61] * len(about["storages"])),
    "a storage of text": lambda about: about.update(storages=["8"] * len(about["storages"])),
    "too little storage": lambda about: about.update(storages=[1] * len(about["storages"])),
    "anomaly as a number": lambda about: about.update(anomaly=1),
}


@pytest.fixture
def target(http: httpx.Client) -> tuple[bytes, list[Any], bytes]:
    """A session `to` with things in it: a snapshot of another, all that can be seen of it, and its own snapshot."""
    body = filled(http)
    make(http, "to", seed=1)
    setup = {**SETUP, "keep": {name: name for name in ("w", "loss", "grid")}}
    assert http.post("/v1/programs", json=setup, headers=where("to")).status_code == 200
    return body, everything(http, "to"), http.get("/v1/sessions/to/snapshot").content


def test_what_is_no_such_description_changes_nothing(
    http: httpx.Client, target: tuple[bytes, list[Any], bytes]
) -> None:
    body, before, own = target
    for name, change in HOSTILE.items():
        answer = put(http, "to", changed(body, change))
        assert answer.status_code in (422, 507), (name, answer.text)
        assert answer.json()["code"] not in ("bug", "internal-error"), (name, answer.text)
        assert everything(http, "to") == before, name
    after = http.get("/v1/sessions/to/snapshot").content
    assert (data_of(after), entry(after)) == (data_of(own), entry(own))
    backward = http.post("/v1/ops/sum", json={"input": "w", "out_name": "s"}, headers=where("to"))
    assert backward.status_code == 200
    assert put(http, "to", body).status_code == 200  # unchanged it is one


def test_names_are_checked(http: httpx.Client) -> None:
    body = filled(http)
    for name in ("NaN", "a b", "", "../x", "7", "x" * 256):
        about = entry(body)
        about["tensors"] = {name: {**about["tensors"]["one"], "id": "t1"}}
        file = save({name: np.array(7, np.uint8)}, {"curlgrad": json.dumps({**about, "storages": []})})
        assert is_problem(put(http, "default", file), 422, "bad-name"), name


@pytest.mark.parametrize(
    "file, status, code",
    [
        (b"", 400, "malformed"),
        (b"\xff" * 64, 400, "malformed"),
        (save({"w": np.ones(2, "f4")}), 422, "no-snapshot"),
        (save({"w": np.ones(2, "f4")}, {"curlgrad": "{"}), 400, "malformed"),
        (save({"w": np.ones(2, "f4")}, {"curlgrad": "[" * 100_000}), 400, "malformed"),
        (save({"w": np.ones(2, "f4")}, {"curlgrad": "[]"}), 422, "bad-snapshot"),
        (save({"w": np.ones(2, "f4")}, {"curlgrad": "null"}), 422, "bad-snapshot"),
        (save({}, {"curlgrad": "{}"}), 422, "bad-snapshot"),
    ],
)
def test_other_files_are_refused(http: httpx.Client, file: bytes, status: int, code: str) -> None:
    assert is_problem(put(http, "default", file), status, code)


def test_every_torn_file_is_refused(http: httpx.Client) -> None:
    body = filled(http)
    for size in range(0, len(body), 97):
        assert put(http, "default", body[:size]).status_code == 400


def test_it_is_no_other_media_type(http: httpx.Client) -> None:
    assert is_problem(
        http.put(
            "/v1/sessions/default/snapshot", content=b"\x80\x04N.", headers={"Content-Type": "application/x-pickle"}
        ),
        415,
        "unsupported-media-type",
    )
    assert http.get("/v1/sessions/default/snapshot", headers={"Accept": "application/json"}).status_code == 406


def test_an_empty_session_has_a_snapshot(http: httpx.Client) -> None:
    make(http, "nothing", seed=8)
    body = http.get("/v1/sessions/nothing/snapshot").content
    assert entry(body)["tensors"] == {}
    http.post("/v1/tensors", json={"data": 1}, headers=where("nothing"))
    assert put(http, "nothing", body).json() == {"tensors": {}}
    assert http.get("/v1/sessions/nothing").json()["tensors"] == 0


def test_memory_is_asked_for(tmp_path: Path, http: httpx.Client) -> None:
    make(http, "big")
    http.post("/v1/ops/zeros", json={"size": [1 << 20], "out_name": "x"}, headers=where("big"))
    body = http.get("/v1/sessions/big/snapshot").content
    with served(create_app(Settings(workers="inline", session_bytes=2 << 20))) as client:
        client.post("/v1/tensors", json={"data": 1, "name": "mine"})
        assert is_problem(put(client, "default", body), 507, "out-of-memory")
        assert client.get("/v1/tensors/mine").json()["values"] == 1
