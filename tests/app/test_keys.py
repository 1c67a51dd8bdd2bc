"""Keys: the file, the command that changes it, and what a server makes of it."""

from __future__ import annotations

import csv
import io
import json
import stat
import sys
from pathlib import Path

import pytest

from app import commands, keys
from app.keys import BadKeysFile, Keys


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "keys.json"


def one(path: Path, *scopes: str, **options: object) -> str:
    ((_, text),) = keys.create(path, ["a"], scopes or ("read",), **options)  # type: ignore[arg-type]
    return text


def test_a_key_is_found_by_its_text_alone(path: Path) -> None:
    text = one(path, "read", "write")
    known = Keys(path)
    key, why = known.find(text)
    assert key is not None
    assert (why, key.may("read"), key.may("write"), key.may("admin")) == (None, True, True, False)
    for wrong in ("", text[:-1], text + "x", text[:-1] + ("A" if text[-1] != "A" else "B"), "cg_", "é" * 60):
        assert known.find(wrong) == (None, "unknown")


def test_another_keys_secret_does_not_prove_this_one(path: Path) -> None:
    first, second = one(path), one(path)
    mixed = "_".join((*first.split("_", 2)[:2], second.split("_", 2)[2]))
    assert Keys(path).find(mixed) == (None, "unknown")


def test_the_file_holds_no_key(path: Path) -> None:
    text = one(path)
    secret = text.split("_", 2)[2]
    assert secret not in path.read_text()
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_admin_keys_may_everything(path: Path) -> None:
    text = one(path, "admin")
    key, _ = Keys(path).find(text)
    assert key is not None
    assert all(key.may(scope) for scope in keys.SCOPES)


def test_keys_end(path: Path) -> None:
    clock = Clock()
    text = one(path, expires=clock.now + 60)
    known = Keys(path, clock)
    assert known.find(text)[1] is None
    clock.now += 60
    assert known.find(text)[1] == "expired"


def test_a_running_server_sees_what_changes(path: Path) -> None:
    clock = Clock()
    known = Keys(path, clock)
    known.refresh()
    assert not known.closed
    text = one(path)
    known.refresh()  # too soon after the last look
    assert known.find(text)[1] == "unknown"
    clock.now += 1
    known.refresh()
    assert known.closed
    assert known.find(text)[1] is None
    keys.revoke(path, [text.split("_")[1]])
    clock.now += 1
    known.refresh()
    assert known.find(text)[1] == "revoked"


@pytest.mark.parametrize("left", [None, "", "{", '{"format": 2, "keys": []}', '{"format": 1, "keys": [{"id": "x"}]}'])
def test_a_server_that_had_keys_is_never_open_again(path: Path, left: str | None) -> None:
    clock = Clock()
    text = one(path)
    known = Keys(path, clock)
    if left is None:
        path.unlink()
    else:
        path.write_text(left)
    clock.now += 1
    known.refresh()
    assert known.closed
    assert known.find(text)[1] is None
    assert (known.problem is None) == (left is None)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        '{"format": 1}',
        '{"format": 9, "keys": []}',
        '{"format": 1, "keys": [{"id": 1}]}',
        '{"format": 1, "keys": [{"id": "a", "owner": "a", "name": "", "sha256": "", "scopes": [], "created": 0}]}',
    ],
)
def test_a_file_that_is_none_is_refused_at_the_start(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(BadKeysFile, match=path.name):
        Keys(path)


def test_an_empty_file_of_keys_closes_the_server(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"format": 1, "keys": []}')
    assert Keys(path).closed


# ---------------------------------------------------------------- the command


def run(path: Path, *arguments: str) -> int:
    word, *rest = arguments
    return commands.run_keys([word, "--keys-file", str(path), *rest], {})


def test_create_shows_the_key_once(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(path, "create", "--name", "ada") == 0
    text = capsys.readouterr().out.strip()
    assert Keys(path).find(text)[1] is None
    assert run(path, "list") == 0
    listed = capsys.readouterr().out
    assert "ada" in listed
    assert "read write" in listed
    assert text.split("_", 2)[2] not in listed


def test_a_class_gets_its_keys_as_csv(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(path, "create", "--name", "class", "--count", "100", "--csv", "--expires", "90d") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["name"] for row in rows[:2]] == ["class-001", "class-002"]
    known = Keys(path)
    found = [known.find(row["key"]) for row in rows]
    assert len({key.owner for key, _ in found if key}) == 100
    assert not any(why for _, why in found)
    assert all(row["expires"].endswith("Z") for row in rows)


def test_a_key_can_be_replaced(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = one(path)
    owner = old.split("_")[1]
    assert run(path, "create", "--owner", owner) == 0
    new = capsys.readouterr().out.strip()
    assert run(path, "revoke", owner) == 0
    known = Keys(path)
    key, why = known.find(new)
    assert key is not None
    assert (key.owner, why, known.find(old)[1]) == (owner, None, "revoked")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("create", "--owner", "nobody"), "no key has the owner"),
        (("revoke", "nobody"), "there is no key 'nobody'; nothing was revoked"),
    ],
)
def test_what_cannot_be_done_is_said(
    path: Path, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = one(path)
    before = path.read_text()
    given = (*arguments, text.split("_")[1]) if arguments[0] == "revoke" else arguments
    assert run(path, *given) == 1
    assert said in capsys.readouterr().err
    assert path.read_text() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "--scopes", "read,everything"),
        ("create", "--scopes", ","),
        ("create", "--expires", "soon"),
        ("create", "--count", "0"),
        ("revoke",),
        (),
    ],
)
def test_arguments_that_make_no_sense_end_with_a_message(path: Path, arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        commands.run_keys(arguments, {})
    assert ended.value.code == 2
    assert not path.exists()


def test_the_file_is_where_the_environment_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run_keys(["create"], {"CURLGRAD_DATA_DIR": str(tmp_path)}) == 0
    assert json.loads((tmp_path / "keys.json").read_text())["keys"]
    assert commands.run_keys(["create"], {"CURLGRAD_KEYS_FILE": str(tmp_path / "k")}) == 0
    assert (tmp_path / "k").exists()
    assert len(capsys.readouterr().out.split()) == 2
