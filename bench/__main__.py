"""Runs every benchmark: `python -m bench` (`--short` for a quick look that checks that they still run)."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHORT = {
    "engine.py": ["--rounds", "1"],
    "ops.py": ["--rounds", "1"],
    "programs.py": ["--rounds", "1"],
    "durability.py": ["--short"],
    "calls.py": ["--rounds", "1", "--seconds", "0.5"],
    "wire.py": ["--rounds", "1", "--megabytes", "10"],
    "scale.py": ["--short"],
}


def main() -> int:
    """Runs them one after another; 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="one round of each")
    options = parser.parse_args()
    failed = []
    for name, short in SHORT.items():
        print(f"== bench/{name}", flush=True)
        command = [sys.executable, str(HERE / name), *(short if options.short else [])]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
