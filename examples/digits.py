"""Trains a network of two layers on 1,797 real images of handwritten digits, over HTTP alone.

    make serve                          # in one terminal
    python examples/digits.py           # in another; needs httpx

The data go up once. After that each request is a program: a hundred training steps, every one of which draws a batch,
computes the loss, asks for its gradients and lets Adam change the parameters, on the server. Only losses come back.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
from pathlib import Path
from typing import Any

import httpx

DATA = Path(__file__).parent / "data" / "digits.csv.gz"
TRAIN, HIDDEN, BATCH = 1500, 64, 64
PARAMS = ["w1", "b1", "w2", "b2"]


def read_digits() -> tuple[list[list[int]], list[int]]:
    """Images as rows of 64 pixels, and the digits they show; in an order that mixes the writers."""
    with gzip.open(DATA, "rt", newline="") as f:
        rows = [[int(v) for v in row] for row in csv.reader(f)]
    rows = [rows[i * 761 % len(rows)] for i in range(len(rows))]  # 761 and 1797 have no common divisor
    return [row[:-1] for row in rows], [row[-1] for row in rows]


def step(op: str, out: str | None = None, **args: Any) -> dict[str, Any]:
    """One step of a program."""
    return {"op": op, "args": args} | ({"out": out} if out else {})


def network(images: str) -> list[dict[str, Any]]:
    """The steps that give `logits` for some images."""
    return [
        step("nn.functional.linear", "h", input=images, weight="w1", bias="b1"),
        step("nn.functional.relu", "h", input="h"),
        step("nn.functional.linear", "logits", input="h", weight="w2", bias="b2"),
    ]


def setup(images: list[list[int]], digits: list[int]) -> dict[str, Any]:
    """Uploads the data, makes the parameters and the optimizer's state, and gives them names."""
    weights = []
    for name, rows, columns in (("1", HIDDEN, 64), ("2", 10, HIDDEN)):
        weights += [
            step("randn", f"w{name}", size=[rows, columns]),
            step("mul_", input=f"w{name}", other=(2 / columns) ** 0.5),
            step("requires_grad_", input=f"w{name}"),
            step("zeros", f"b{name}", size=[rows], requires_grad=True),
        ]
    return {
        "inputs": {"pixels": {"data": images, "dtype": "float32"}, "labels": {"data": digits, "dtype": "int64"}},
        "steps": [
            step("manual_seed", seed=0),
            step("div", "pixels", input="pixels", other=16.0),
            *weights,
            step("optim.adam_state", "adam", params=PARAMS),
        ],
        "keep": {name: name for name in ("pixels", "labels", "adam", *PARAMS)},
    }


def train(rounds: int) -> dict[str, Any]:
    """So many training steps."""
    return {
        "steps": [
            {
                "repeat": rounds,
                "steps": [
                    step("randint", "batch", high=TRAIN, size=[BATCH]),
                    step("index_select", "x", input="pixels", dim=0, index="batch"),
                    step("index_select", "y", input="labels", dim=0, index="batch"),
                    *network("x"),
                    step("nn.functional.cross_entropy", "loss", input="logits", target="y"),
                    step("autograd.grad", "grads", outputs=["loss"], inputs=PARAMS),
                    step("optim.adam_", params=PARAMS, grads="grads", state="adam", lr=0.005),
                ],
                "collect": {"loss": rounds // 2},
            }
        ]
    }


def evaluate(low: int, high: int) -> dict[str, Any]:
    """The share of images [low, high) whose digit is found."""
    return {
        "no_grad": True,
        "steps": [
            step("getitem", "x", input="pixels", index=[f"{low}:{high}"]),
            step("getitem", "y", input="labels", index=[f"{low}:{high}"]),
            *network("x"),
            step("argmax", "found", input="logits", dim=1),
            step("eq", "right", input="found", other="y"),
            step("to", "right", input="right", dtype="float32"),
            step("mean", "accuracy", input="right"),
        ],
        "return": ["accuracy"],
    }


def main() -> float:
    """Trains, prints, and demands 95 % on images that were not trained on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--epochs", type=int, default=5, help="programs of 100 steps each")
    options = parser.parse_args()
    images, digits = read_digits()
    with httpx.Client(base_url=options.url, timeout=60) as client:

        def call(method: str, path: str, body: Any = None) -> Any:
            answer = client.request(method, path, json=body)
            if answer.is_error:
                sys.exit(f"{method} {path}: {answer.status_code} {answer.text}")
            return answer.json() if answer.content else None

        session = call("POST", "/v1/sessions", {"seed": 0})["id"]
        client.headers["Curlgrad-Session"] = session
        try:
            call("POST", "/v1/programs", setup(images, digits))
            for epoch in range(1, options.epochs + 1):
                losses = call("POST", "/v1/programs", train(100))["collected"]["loss"]
                accuracy = call("POST", "/v1/programs", evaluate(TRAIN, len(images)))["results"]["accuracy"]["values"]
                print(f"epoch {epoch}: loss {losses[-1]:.4f}, accuracy on held-out images {accuracy:.4f}")
        finally:
            call("DELETE", f"/v1/sessions/{session}")
    assert accuracy >= 0.95, f"accuracy {accuracy} is below 0.95"
    return float(accuracy)


if __name__ == "__main__":
    main()
