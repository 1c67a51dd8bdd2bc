"""simdjson's reader: a million float32 of JSON into NumPy's memory. Needs pysimdjson and NumPy, and nothing of ours.

python bench/peers/simdjson_read.py --child simdjson     measures as bench.peers asks, on the body that
                                                         CURLGRAD_BENCH_BODY names
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import simdjson  # type: ignore[import-not-found]

from bench.peers import serve_child

if __name__ == "__main__":
    body = Path(os.environ["CURLGRAD_BENCH_BODY"]).read_bytes()
    parser = simdjson.Parser()

    def read() -> Any:
        """The array; the document must be gone before the parser reads the next one."""
        document = parser.parse(body)
        found = np.frombuffer(document["data"].as_buffer(of_type="d"))
        del document
        return found

    serve_child({"read": read})
