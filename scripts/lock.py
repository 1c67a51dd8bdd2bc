"""Make the hashed requirement sets in requirements/ from pyproject.toml: `make lock`.

One resolution for every platform and Python that is promised: a line that is needed only somewhere carries an
environment marker. serve.txt is resolved first and constrains the others, so that a version is the same in all sets.

A set is refused, and nothing is written, when
  - a promised platform would have to build a package from source: a build fetches its tools without hashes,
    and `make` and the Dockerfile therefore install wheels only;
  - it holds a URL, an index line, or PyTorch.

Versions that are still allowed stay as they are; `--upgrade` takes the newest. Needs Python >= 3.11 and a package
registry: pip installs the resolver (uv) from requirements/lock.txt into a temporary folder, and uv asks its default
registry, or the one that UV_DEFAULT_INDEX names, whatever pip is set up for.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"

# The set, and the extra of pyproject.toml that it adds to the dependencies.
SETS: dict[str, str | None] = {"serve": None, "dev": "dev", "cuda12": "cuda12", "cuda13": "cuda13"}

# Sets of tools that run in environments of their own: an extra without the project's dependencies.
TOOLS = ("lock", "fuzz")

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = (
    "x86_64-manylinux_2_28",
    "aarch64-manylinux_2_28",
    "x86_64-apple-darwin",
    "aarch64-apple-darwin",
    "x86_64-pc-windows-msvc",
)

# Options of a requirements file that say where to fetch from.
SOURCES = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links")

HEADER = """\
# {title}
# Made by `make lock` from pyproject.toml; change that, not this. Install with:
#   pip install --require-hashes --only-binary :all: -r requirements/{name}.txt
"""
TITLES = {
    "serve": "What the service needs.",
    "dev": "What the service, its tests and its linters need.",
    "cuda12": "What the service needs on a GPU with a CUDA 12 driver.",
    "cuda13": "What the service needs on a GPU with a CUDA 13 driver.",
    "lock": "The resolver that makes these sets.",
    "fuzz": "What `make test-fuzz` sends requests with.",
}


class Refused(Exception):
    """A set that must not be written; the message says why."""


def body_of(text: str) -> str:
    """A requirement set without its leading comment lines."""
    return "".join(itertools.dropwhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))


def check_text(name: str, text: str) -> None:
    """Raise Refused where a set has what no set may have. `text` is a whole requirements file."""
    for number, line in enumerate(text.splitlines(), 1):
        requirement = line.partition("#")[0].strip()
        if "://" in line or " @ " in requirement or requirement.startswith(SOURCES):
            raise Refused(f"{name}.txt line {number} says where to fetch from: {line}")
        if requirement.partition("==")[0] in {"torch", "torchvision", "torchaudio"}:
            raise Refused(f"{name}.txt line {number} brings PyTorch in: {line}")


class Resolver:
    """uv, in a temporary virtual environment, with settings that no user's file or variable can change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._env = {k: v for k, v in os.environ.items() if not k.startswith("UV_") or k == "UV_DEFAULT_INDEX"}
        self._env |= {"UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_CACHE_DIR": str(folder / "cache")}
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        pinned = FOLDER / "lock.txt"
        source = ["--require-hashes", "--only-binary", ":all:", "-r", str(pinned)] if pinned.exists() else ["uv"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *source], check=True)
        self._uv = [str(python), "-m", "uv", "pip", "compile", "--quiet", "--no-header"]

    def _run(self, arguments: Sequence[str | Path]) -> None:
        command = [*self._uv, *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self._env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Refused((done.stderr or done.stdout).strip())

    def resolve(self, name: str, extra: str | None, constraints: Path | None, *, upgrade: bool) -> Path:
        """Resolve one set for all platforms; the result is a file in the temporary folder."""
        arguments: list[str | Path] = ["pyproject.toml"]
        arguments += ["--extra", extra] if extra else []
        arguments += ["--constraint", constraints] if constraints else []
        return self._compile(name, arguments, upgrade=upgrade)

    def resolve_tool(self, name: str, *, upgrade: bool) -> Path:
        """The set of a tool: its extra without the project's dependencies."""
        source = self._folder / f"{name}.in"
        source.write_text("\n".join(extra_of_pyproject(name)) + "\n", "utf-8")
        return self._compile(name, [source], upgrade=upgrade)

    def _compile(self, name: str, arguments: Sequence[str | Path], *, upgrade: bool) -> Path:
        """One version for every Python (`fewest`), so that results do not depend on which Python serves."""
        out = self._folder / f"{name}.txt"
        kept = FOLDER / out.name
        if kept.exists() and not upgrade:
            out.write_text(body_of(kept.read_text("utf-8")), "utf-8")  # uv prefers the versions that it finds there
        settings = ["--universal", "--python-version", PYTHONS[0], "--fork-strategy", "fewest", "--generate-hashes"]
        self._run([*arguments, *settings, "--no-emit-index-url", "--no-annotate", "--output-file", out])
        return out

    def check_wheels(self, path: Path) -> None:
        """Raise Refused unless every promised platform can install the set from wheels alone."""
        out = self._folder / "checked.txt"
        for python, platform in itertools.product(PYTHONS, PLATFORMS):
            target = ["--python-version", python, "--python-platform", platform]
            try:
                self._run([path, "--no-deps", "--only-binary", ":all:", *target, "--output-file", out])
            except Refused as why:
                raise Refused(f"{path.name} on Python {python}, {platform}:\n{why}") from None
            out.unlink()


def extra_of_pyproject(name: str) -> list[str]:
    """The requirements of one extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extra: list[str] = project["optional-dependencies"][name]
    return extra


def write(made: Iterable[Path]) -> None:
    """Put the finished sets, with their headers, where they belong."""
    for path in made:
        name = path.stem
        text = HEADER.format(name=name, title=TITLES[name]) + body_of(path.read_text("utf-8"))
        (FOLDER / path.name).write_text(text, "utf-8", newline="\n")
        print(f"requirements/{path.name}: {sum(line[0].isalpha() for line in text.splitlines())} packages")


def main() -> int:
    """Make all sets, or none."""
    parser = argparse.ArgumentParser(description="Make the hashed requirement sets from pyproject.toml.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that pyproject.toml allows")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="curlgrad-lock-"))
    try:
        resolver = Resolver(folder)
        made = [resolver.resolve_tool(name, upgrade=options.upgrade) for name in TOOLS]
        serve: Path | None = None
        for name, extra in SETS.items():
            path = resolver.resolve(name, extra, serve, upgrade=options.upgrade)
            serve = serve or path
            made.append(path)
        for path in made:
            check_text(path.stem, path.read_text("utf-8"))
            resolver.check_wheels(path)
        write(made)
    except Refused as why:
        print(f"make lock: nothing was written.\n{why}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
