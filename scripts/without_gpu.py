"""The part of a CUDA set that is of use without a GPU: CuPy, NVRTC and the headers, but none of the CUDA libraries.

    python scripts/without_gpu.py requirements/cuda12.txt > part.txt
    pip install --no-deps --require-hashes -r part.txt

CuPy imports without cuBLAS and its like, and NVRTC compiles without a driver. Pins and hashes are the set's own.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

KEPT = re.compile(r"nvidia-cuda-(nvrtc|runtime)-|(?!nvidia-|cuda-toolkit)")


def part(text: str) -> str:
    """The requirements of a set, each with its hashes, that `KEPT` keeps."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return "".join(f"{line}\n" for line in lines if KEPT.match(line))


if __name__ == "__main__":
    sys.stdout.write(part(Path(sys.argv[1]).read_text("utf-8")))
