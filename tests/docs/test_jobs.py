"""docs/jobs.md: its curl calls, sent in their order to a server as it is started by default."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app import settings as options

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "jobs.md").read_text("utf-8")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("curl") and shutil.which("sh")), reason="curl and a shell are needed"),
]


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def sh(script: str, url: str, job: str = "") -> str:
    script = script.replace("http://127.0.0.1:8000", url)
    done = subprocess.run(
        ["sh", "-ec", script], env={**os.environ, "JOB": job}, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_walk_through(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CURLGRAD_")}
    server = subprocess.Popen(
        [sys.executable, "-m", "app", "--port", "0", "--data-dir", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr
    try:
        found = re.search(r"http://127\.0\.0\.1:\d+", server.stderr.readline())
        assert found
        submit, listen, ask, cancel, wait = blocks()
        taken = sh(submit, found[0])
        assert taken.startswith("HTTP/1.1 202")
        location = re.search(r"(?i)^location: /v1/jobs/(j-\S+)", taken, re.MULTILINE)
        assert location
        assert '"survives_restart":true' in taken
        job = location[1]
        told = sh(listen, found[0], job)
        assert told.count("event: done") == 2  # the second command goes on after the third value
        assert re.findall(r"^id: (.*)$", told, re.MULTILINE)[-1] == "4-end"
        asked = sh(ask, found[0], job)
        assert '"state":"done"' in asked
        assert '"steps_run":10000' in asked
        assert sh(cancel, found[0], job) == ""
        answered = sh(wait, found[0])
        assert answered.startswith("HTTP/1.1 200")
        assert "preference-applied: wait=20" in answered
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(40)
        server.stderr.close()


@pytest.mark.parametrize("option", ["keep_jobs", "max_jobs"])
def test_the_page_says_what_the_settings_are(option: str) -> None:
    default = getattr(options.Settings(), option)
    assert f"--{option.replace('_', '-')}` {'seconds ' if option == 'keep_jobs' else ''}({default:g})" in PAGE
