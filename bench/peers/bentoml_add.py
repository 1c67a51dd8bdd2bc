"""The same small addition in BentoML: python bench/peers/bentoml_add.py PORT."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import bentoml  # type: ignore[import-not-found]
import numpy as np


@bentoml.service(workers=1)  # type: ignore[misc]
class Add:
    """Adds two lists of float32."""

    @bentoml.api  # type: ignore[misc]
    def add(self, input: list[float], other: list[float]) -> list[float]:
        found: list[float] = np.add(np.array(input, np.float32), np.array(other, np.float32)).tolist()
        return found


if __name__ == "__main__":
    folder = Path(__file__).resolve().parent
    command = ["serve", f"{Path(__file__).stem}:Add", "--host", "127.0.0.1", "--port", sys.argv[1]]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", *command, "--working-dir", str(folder)])
