"""What holds the project together besides its code: sets, Makefile, container, documents. No service is started."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app import settings
from scripts import check_docs, lock

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]


def version() -> str:
    """The project's version, which stands in one place."""
    found = re.search(r'__version__ = "([^"]+)"', (ROOT / "engine" / "__init__.py").read_text())
    assert found
    return found[1]


EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
SETS = (*lock.SETS, *lock.TOOLS)


def read(path: str) -> str:
    return (ROOT / path).read_text("utf-8")


# --- requirement sets -------------------------------------------------------------------------------------------------


class Pin(NamedTuple):
    version: str
    marker: str
    hashes: frozenset[str]


def pins(name: str) -> dict[str, Pin]:
    """A set as {package: Pin}; a line that is neither a pin with hashes nor a comment is an error."""
    found = {}
    text = re.sub(r"\\\n\s*", " ", read(f"requirements/{name}.txt"))
    for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
        match = re.fullmatch(r"([a-z0-9-]+)==([^\s;]+)(?:\s*;\s*(.*?))?((?:\s+--hash=sha256:[0-9a-f]{64})+)", line)
        assert match, f"not a pinned and hashed line in {name}.txt: {line[:120]}"
        assert match[1] not in found, f"{match[1]} stands twice in {name}.txt"
        found[match[1]] = Pin(match[2], match[3] or "", frozenset(match[4].split()))
    return found


@pytest.mark.parametrize("name", SETS)
def test_every_line_of_a_set_is_pinned_and_hashed(name: str) -> None:
    assert len(pins(name)) > (0 if name == "lock" else 15)


@pytest.mark.parametrize("name", SETS)
def test_a_set_names_no_address_and_no_pytorch(name: str) -> None:
    lock.check_text(name, read(f"requirements/{name}.txt"))
    assert not {"torch", "torchvision", "triton"} & pins(name).keys()


@pytest.mark.parametrize(
    "line",
    [
        "numpy==2.0 --hash=sha256:" + 64 * "0" + "  # https://example.org/numpy.whl",
        "numpy @ file:///wheels/numpy.whl",
        "--index-url somewhere",
        "-f wheels",
        "torch==2.13.0 --hash=sha256:" + 64 * "0",
    ],
)
def test_lock_refuses_such_lines(line: str) -> None:
    with pytest.raises(lock.Refused):
        lock.check_text("serve", f"orjson==3.13.0\n{line}\n")


@pytest.mark.parametrize("name", ["dev", "cuda12", "cuda13"])
def test_a_set_holds_all_of_serve_in_the_same_versions(name: str) -> None:
    held, serve = pins(name), pins("serve")
    assert {package: held.get(package) for package in serve} == serve


def test_the_files_are_those_that_lock_makes() -> None:
    assert sorted(path.name for path in (ROOT / "requirements").iterdir()) == sorted(f"{name}.txt" for name in SETS)


@pytest.mark.parametrize("name", SETS)
def test_a_set_holds_what_pyproject_asks_for(name: str) -> None:
    extra = lock.SETS.get(name, name)
    asked = ([] if name in lock.TOOLS else PROJECT["dependencies"]) + (EXTRAS[extra] if extra else [])
    held = pins(name)
    for requirement in map(Requirement, asked):
        pin = held.get(canonicalize_name(requirement.name))
        assert pin, f"{requirement} is not in {name}.txt: make lock"
        assert pin.version in requirement.specifier, f"{name}.txt holds {requirement.name} {pin.version}: make lock"
        if requirement.marker:
            assert pin.marker, f"{requirement.name} is needed only where {requirement.marker}"


def test_a_marker_leaves_out_what_windows_cannot_install() -> None:
    windows = {"sys_platform": "win32", "platform_python_implementation": "CPython", "platform_machine": "AMD64"}
    there = {name for name, pin in pins("serve").items() if not pin.marker or Marker(pin.marker).evaluate(windows)}
    assert "uvicorn" in there
    assert not {"uvloop", "httptools"} & there


def test_the_two_cupys_exclude_each_other() -> None:
    assert [{"extra": "cuda12"}, {"extra": "cuda13"}] in PYPROJECT["tool"]["uv"]["conflicts"]
    for here, there in (("12", "13"), ("13", "12")):
        held = pins(f"cuda{here}")
        assert f"cupy-cuda{here}x" in held
        assert f"cupy-cuda{there}x" not in held


# --- dependencies -----------------------------------------------------------------------------------------------------

# uvicorn finds these two by name.
UNIMPORTED = {"uvloop", "httptools"}


def imported_by(package: str) -> set[str]:
    """The top-level names of other people's packages that the files of `package` import."""
    names: set[str] = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"app", "engine"}


def test_what_is_imported_is_declared_and_what_is_declared_is_used() -> None:
    declared = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    optional = {"cupy", "cupyx", "numba", "opentelemetry", "ray"}
    called = {"pil": "pillow"}  # a package may be imported by another name than it is installed by
    used = {canonicalize_name(name) for name in imported_by("app") | imported_by("engine")} - optional
    used = {called.get(name, name) for name in used}
    assert used - declared == set(), "imported, but not among the dependencies of pyproject.toml"
    assert declared - used - UNIMPORTED == set(), "among the dependencies of pyproject.toml, but never imported"


@pytest.mark.parametrize("requirement", [*PROJECT["dependencies"], *EXTRAS["dev"], *EXTRAS["lock"], *EXTRAS["fuzz"]])
def test_a_dependency_says_why_it_is_there(requirement: str) -> None:
    name = Requirement(requirement).name
    reasons = read("docs/decisions/0001-dependencies.md")
    assert re.search(rf"^\|[^|]*`{re.escape(name)}`[^|]*\|[^|]{{20,}}", reasons, re.MULTILINE)


def test_a_wheel_holds_every_file_that_is_not_python() -> None:
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]
    packed = {
        path
        for package, globs in patterns.items()
        for glob in globs
        for path in (ROOT / package.replace(".", "/")).glob(glob)
    }
    there = {path for name in ("app", "engine") for path in (ROOT / name).rglob("*") if path.is_file()}
    there = {path for path in there if "__pycache__" not in path.parts}
    assert {path for path in there if path.suffix not in (".py", ".pyc")} <= packed


def test_one_range_of_pythons_everywhere() -> None:
    makefile = dict(re.findall(r"^(M\w+_PYTHON) := ([\d.]+)$", read("Makefile"), re.MULTILINE))
    assert makefile == {"MIN_PYTHON": lock.PYTHONS[0], "MAX_PYTHON": lock.PYTHONS[-1]}
    assert PROJECT["requires-python"] == f">={lock.PYTHONS[0]}"
    named = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", text)]
    assert tuple(named) == lock.PYTHONS
    assert f"Python {lock.PYTHONS[0]} to {lock.PYTHONS[-1]}" in read("README.md")


# --- make -------------------------------------------------------------------------------------------------------------

TARGETS = (
    *("serve", "test", "test-slow", "test-all", "test-browser", "test-kill", "test-fuzz", "test-soak"),
    *("test-cupy", "test-gpu"),
    *("lint", "format", "bench", "docs", "lock", "clean"),
)
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make on a copy of the Makefile and the sets, in `folder`."""
    folder.mkdir(exist_ok=True)
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    of_outer_make = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ARGS", "CUDA", "PYTHON"}
    env = {k: v for k, v in os.environ.items() if k not in of_outer_make} | environment
    command = ["make", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


@needs_make
def test_the_first_target_is_help_and_help_names_every_target(tmp_path: Path) -> None:
    told = make(tmp_path)
    assert told.returncode == 0
    assert tuple(re.findall(r"^make (\S+)", told.stdout, re.MULTILINE)) == TARGETS


@needs_make
@pytest.mark.parametrize("target", TARGETS)
def test_a_target_exists(target: str, tmp_path: Path) -> None:
    told = make(tmp_path, "--dry-run", target)
    assert told.returncode == 0, told.stderr
    assert "Nothing to be done" not in told.stdout


@needs_make
@pytest.mark.parametrize("arguments, sets", [("serve", ["serve"]), ("serve CUDA=12", ["cuda12"]), ("test", ["dev"])])
def test_make_installs_only_hashed_wheels(arguments: str, sets: list[str], tmp_path: Path) -> None:
    told = make(tmp_path, "--dry-run", *arguments.split()).stdout
    installs = [line for line in told.splitlines() if "pip install" in line]
    assert [line.rpartition(" ")[2] for line in installs] == [f"requirements/{name}.txt" for name in sets]
    assert all("--require-hashes --only-binary :all:" in line for line in installs)


@needs_make
def test_make_says_that_there_is_no_such_python(tmp_path: Path) -> None:
    told = make(tmp_path, "serve", "PYTHON=python-that-is-not-there")
    assert told.returncode != 0
    assert "there is no 'python-that-is-not-there' here" in told.stderr
    assert "Traceback" not in told.stderr


@needs_make
def test_make_says_that_a_python_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    # Says that it is 3.10 to whoever asks, by way of the same sys.version_info that the Makefile reads.
    old.write_text(
        '#!/bin/sh\n[ "$1" = -V ] && { echo Python 3.10.0; exit 0; }\n'
        "code=$2; shift 2\n"
        f'exec {sys.executable} -c "import sys; sys.version_info = (3, 10, 0)\n$code" "$@"\n'
    )
    old.chmod(0o755)
    told = make(tmp_path, "test", f"PYTHON={old}")
    assert told.returncode != 0
    assert "needs Python 3.11 to 3.14" in told.stderr
    assert "is Python 3.10.0" in told.stderr
    assert "make test PYTHON=" in told.stderr
    assert "Traceback" not in told.stderr


@needs_make
def test_make_says_what_to_install_where_debian_left_venv_out(tmp_path: Path) -> None:
    (tmp_path / "ensurepip.py").write_text('raise ImportError("No module named ensurepip")\n')
    told = make(tmp_path, "serve", f"PYTHON={sys.executable}", PYTHONPATH=str(tmp_path))
    assert told.returncode != 0
    assert "apt install python3-venv" in told.stderr
    assert "Traceback" not in told.stderr
    assert not (tmp_path / ".venv").exists()


# --- continuous integration -------------------------------------------------------------------------------------------


def test_ci_runs_the_tests_first_and_stops_at_a_failure() -> None:
    script = read(".ci/run")
    calls = re.findall(r"^\s*(?:timeout \S+ )?make ([a-z-]+)", script, re.MULTILINE)
    assert calls[:2] == ["test", "lint"]
    assert set(calls) <= set(TARGETS)
    assert "\nset -euo pipefail\n" in script
    assert os.access(ROOT / ".ci/run", os.X_OK)


# --- container --------------------------------------------------------------------------------------------------------

Instruction = tuple[str, str]


def stages() -> list[list[Instruction]]:
    """The instructions of the Dockerfile, stage by stage; what stands before the first FROM is left out."""
    found: list[list[Instruction]] = []
    lines = [line for line in read("Dockerfile").splitlines() if not line.lstrip().startswith("#")]
    for line in filter(None, map(str.strip, "\n".join(lines).replace("\\\n", " ").splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, rest.strip()))
    return found


def stage(name: str) -> list[Instruction]:
    """The stage of this name."""
    (found,) = [stage for stage in stages() if stage[0][1].endswith(f" AS {name}")]
    return found


IMAGES = ("serve", "cuda12", "cuda13")


def only(stage: list[Instruction], word: str) -> str:
    """What the one instruction `word` of a stage says."""
    said = [rest for name, rest in stage if name == word]
    assert len(said) == 1, f"{word} stands {len(said)} times"
    return said[0]


def exec_form(text: str) -> list[str]:
    command: list[str] = yaml.safe_load(text)
    assert isinstance(command, list), f"not the exec form, which signals reach: {text}"
    return command


def compose(path: str = "docker-compose.yml") -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load(read(path))["services"]["curlgrad"]
    return service


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_built_from_hashed_wheels_and_the_base_is_pinned(image: str) -> None:
    builder, final = stage(f"{image}-builder"), stage(image)
    assert re.search(r"^ARG PYTHON=\d+\.\d+-slim-\w+$", read("Dockerfile"), re.MULTILINE)
    assert only(builder, "FROM") == f"python:${{PYTHON}} AS {image}-builder"
    assert only(final, "FROM") == f"runtime AS {image}"
    assert only(stage("runtime"), "FROM") == "python:${PYTHON} AS runtime"
    installs = [rest for word, rest in builder if word == "RUN" and "pip install" in rest]
    assert installs
    wanted = f"--require-hashes --only-binary :all: -r /build/requirements/{image}.txt"
    assert all(wanted in rest for rest in installs)
    assert (ROOT / "requirements" / f"{image}.txt").exists()
    assert only(final, "COPY") == f"--from={image}-builder /opt/curlgrad/venv /opt/curlgrad/venv"


def test_the_image_for_the_cpu_is_built_where_no_target_is_named() -> None:
    assert stages()[-1] == stage("serve")
    assert not any("NVIDIA" in rest for name in ("serve", "runtime") for _, rest in stage(name))
    for name in ("cuda12", "cuda13"):
        assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in only(stage(name), "ENV")


def test_the_images_are_only_copied_together() -> None:
    for image in ("runtime", *IMAGES):
        words = [word for word, _ in stage(image)]
        assert "RUN" not in words  # so neither compilers nor caches get in
        assert "ADD" not in words
        sources = ("--from=code ", f"--from={image}-builder ")
        assert all(rest.startswith(sources) for word, rest in stage(image) if word == "COPY")


def test_compiled_kernels_are_kept_in_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    from app.main import service_of

    assert "CUPY_CACHE_DIR" not in read("Dockerfile")  # the service sets it, under --data-dir
    command = exec_form(only(stage("runtime"), "CMD"))
    chosen = settings.read(command[3:], {"CURLGRAD_ALLOW_OPEN": "1", "CURLGRAD_WORKERS": "cpu:1"})
    assert service_of(chosen)._supervisor._cache == "/data/cupy"


def test_gpus_are_asked_for_in_the_override_alone() -> None:
    assert not re.search(r"nvidia|gpu|cuda", read("docker-compose.yml"), re.IGNORECASE)
    service = compose("docker-compose.gpu.yml")
    assert compose()["build"] == {"context": ".", "target": "serve"}
    assert service["build"] == {"context": ".", "target": "cuda12"}
    assert service["image"] == f"curlgrad:{version()}-cuda12"
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    # It adds, and takes nothing of the other file's away.
    assert set(service) == {"build", "image", "deploy", "healthcheck"}
    assert set(service["healthcheck"]) == {"start_period"}


def test_the_image_runs_as_a_numeric_user_that_owns_only_data() -> None:
    builder, final = stage("code"), stage("runtime")
    user = only(final, "USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    chowned = [rest for word, rest in final if word == "COPY" and "--chown" in rest]
    assert chowned == [f"--from=code --chown={user} /made/data /data"]
    assert only(final, "VOLUME") == "/data"
    assert any("/made/data" in rest for word, rest in builder if word == "RUN")


def test_the_image_writes_nothing_to_its_file_system() -> None:
    environment = " ".join(rest for word, rest in stage("runtime") if word == "ENV")
    assert "PYTHONDONTWRITEBYTECODE=1" in environment
    assert "HOME=/tmp" in environment


def test_the_image_alone_refuses_to_serve_openly(capsys: pytest.CaptureFixture[str]) -> None:
    command = exec_form(only(stage("runtime"), "CMD"))
    assert command[:3] == ["python", "-m", "app"]
    with pytest.raises(SystemExit):
        settings.read(command[3:], {})
    assert "--allow-open" in capsys.readouterr().err
    allowed = settings.read(command[3:], {"CURLGRAD_ALLOW_OPEN": "1"})
    assert (allowed.host, allowed.port, allowed.data_dir) == ("0.0.0.0", 8000, Path("/data"))
    assert only(stage("runtime"), "EXPOSE") == "8000"


def test_health_is_asked_of_readyz_by_python() -> None:
    image = re.search(r"CMD (\[.*\])$", only(stage("runtime"), "HEALTHCHECK"))
    assert image
    probe = exec_form(image[1])
    assert probe[:2] == ["python", "-c"]
    assert "http://127.0.0.1:8000/readyz" in probe[2]
    ast.parse(probe[2])
    assert compose()["healthcheck"]["test"] == ["CMD", *probe]


def test_compose_publishes_to_this_machine_alone() -> None:
    service = compose()
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert "network_mode" not in service
    chosen = settings.read(service["command"][3:], {})
    assert chosen.allow_open
    assert chosen.port == 8000


def test_compose_takes_every_privilege_away() -> None:
    service = compose()
    assert service["read_only"] is True
    assert [entry.partition(":")[0] for entry in service["tmpfs"]] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["volumes"] == ["data:/data"]
    assert "data" in yaml.safe_load(read("docker-compose.yml"))["volumes"]
    assert service["image"] == f"curlgrad:{version()}"


def test_the_build_context_holds_only_what_is_copied() -> None:
    lines = [line for line in read(".dockerignore").splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    every = [rest for stage in stages() for word, rest in stage if word == "COPY" and not rest.startswith("--from")]
    copied = {rest.split()[0].rstrip("/") for rest in every}
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


# --- documents --------------------------------------------------------------------------------------------------------


def test_the_documents_hold() -> None:
    assert check_docs.check(ROOT) == []


def test_what_is_wrong_with_a_document_is_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(
        "# One\n# One\n[a](docs/a.md#here) [b](docs/a.md#gone) [c](none.md) [d](#one-1) `[e](none.md)`\n"
        "```\nno language\n```\n```json\n{]\n```\n```sh\ncurl x -d '{\"a\": }'\n[f](none.md)\n```\n"
    )
    (tmp_path / "docs/a.md").write_text("## Here\n[back](../README.md#one)\n```sh\nnever closed\n")
    (tmp_path / "docs/lost.md").write_text("[a](a.md)\n")
    assert [line.rpartition(": not JSON")[0] or line for line in check_docs.check(tmp_path)] == [
        "README.md:3: leads nowhere: none.md",
        "README.md:3: no such heading: docs/a.md#gone",
        "README.md:4: a fence that does not say its language (`text` for none)",
        "README.md:7",
        "README.md:10",
        "docs/a.md:3: a fence that is never closed",
        "docs/lost.md:1: no link leads here from README.md",
    ]


def test_the_changelog_is_in_its_format() -> None:
    lines = read("CHANGELOG.md").splitlines()
    versions = [line for line in lines if line.startswith("## ")]
    assert versions[0] == "## [Unreleased]"
    dates = []
    for line in versions[1:]:
        match = re.fullmatch(r"## \[\d+\.\d+\.\d+\] - (\d{4}-\d{2}-\d{2})", line)
        assert match, line
        dates.append(date.fromisoformat(match[1]))
    assert dates == sorted(dates, reverse=True)
    kinds = {line.removeprefix("### ") for line in lines if line.startswith("### ")}
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert any(line.startswith("- ") for line in lines)


def test_the_readme_says_what_survives() -> None:
    assert "What was acknowledged survives" in read("README.md")
    assert "not survive a restart yet" not in read("README.md")


# --- the tree ---------------------------------------------------------------------------------------------------------


def git(*arguments: str) -> list[str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout of git")
    done = subprocess.run(["git", *arguments, "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name]


def texts() -> list[tuple[str, str]]:
    """Every text file of ours that is, or would be, tracked."""
    found = []
    for name in git("ls-files", "--cached", "--others", "--exclude-standard"):
        path = ROOT / name
        bodies = name.startswith("tests/data/hostile/")  # bytes of every kind
        if path.is_file() and not path.is_symlink() and "vendor" not in path.parts and not bodies:
            data = path.read_bytes()
            if b"\0" not in data:
                found.append((name, data.decode("utf-8")))
    return found


FORBIDDEN = {
    "a path of one machine": r"(?<![\w.<])/(?:home|Users|root|work|mnt)/[\w.]",
    "the host of a package registry": r"pypi\.org|pythonhosted\.org|registry\.npmjs\.org|deb\.debian\.org",
    "unfinished work": r"\b(?:TO[D]O|FIX[M]E|XX[X])\b",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    held = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert held == []


def test_no_file_of_code_is_too_long() -> None:
    long = {name: text.count("\n") for name, text in texts() if name.endswith(".py") and text.count("\n") > 700}
    assert long == {}


def test_nothing_is_tracked_that_is_ignored() -> None:
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == []
