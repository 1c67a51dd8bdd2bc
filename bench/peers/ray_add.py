"""The same small addition in Ray Serve: python bench/peers/ray_add.py PORT."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import ray  # type: ignore[import-not-found]
from ray import serve  # type: ignore[import-not-found]


@serve.deployment  # type: ignore[misc]
class Add:
    """Adds two lists of float32."""

    async def __call__(self, request: Any) -> Any:
        body = await request.json()
        return {"output": np.add(np.array(body["input"], np.float32), np.array(body["other"], np.float32)).tolist()}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Add.bind(), route_prefix="/add")
    while True:
        time.sleep(3600)
