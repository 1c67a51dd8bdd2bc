"""The same small addition in LitServe: python bench/peers/litserve_add.py PORT."""

from __future__ import annotations

import sys
from typing import Any

import litserve  # type: ignore[import-not-found]
import numpy as np


class Add(litserve.LitAPI):  # type: ignore[misc]
    """Adds two lists of float32."""

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def predict(self, request: Any) -> Any:
        return np.add(np.array(request["input"], np.float32), np.array(request["other"], np.float32))

    def encode_response(self, output: Any) -> Any:
        return {"output": output.tolist()}


if __name__ == "__main__":
    litserve.LitServer(Add(), accelerator="cpu", workers_per_device=1).run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False
    )
