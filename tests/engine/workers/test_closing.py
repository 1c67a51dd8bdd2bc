"""Sessions that are deleted leave nothing for the garbage collector, which comes late."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.workers.closing import MANY


@pytest.mark.parametrize("stored", [False, True])
def test_deleted_sessions_are_freed_at_once(tmp_path: Path, stored: bool) -> None:
    command = [sys.executable, "-m", "tests.engine.workers.closing", *([str(tmp_path / "data")] if stored else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < MANY / 4, "more than the last one's, which a reply may still hold"
