"""Which GPUs a machine has, asked without loading CuPy into the process that asks.

`python -m engine.workers.gpus` prints their names as JSON; a worker's process is the only other place where CuPy is
imported. Where there is no driver, or no CuPy, nothing is started at all.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

_PATIENCE = 60.0  # the first start of a driver can take many seconds
_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # Linux; Linux within Windows

log = logging.getLogger("curlgrad.supervisor")


def find_gpus() -> list[str]:
    """The devices that a worker could be started for, as "cuda:0"; never raises."""
    if importlib.util.find_spec("cupy") is None or not _has_driver():
        return []
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "engine.workers.gpus"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=True,
        )
        found: list[str] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        log.warning("there is an NVIDIA driver, but its GPUs could not be counted, so the CPU computes: %s", error)
        return []
    return found


def _has_driver() -> bool:
    if sys.platform == "win32":
        return ctypes.util.find_library("nvcuda") is not None
    return any(path.exists() for path in _DRIVERS)


def main() -> int:
    """Prints the GPUs that CuPy can compute on."""
    from engine.backend import cuda_devices

    sys.stdout.write(json.dumps(cuda_devices()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
