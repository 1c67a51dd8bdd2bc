"""The command line, the environment, and what is refused at the start."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from app import settings as options
from app.__main__ import greeting
from app.main import hosts_of
from app.settings import Settings

GIB = 1 << 30


def test_the_defaults_serve_this_machine_alone() -> None:
    assert options.read([], {}) == Settings(data_dir=Path("data"))
    assert Settings().is_loopback


def test_a_server_keeps_its_data_unless_told_not_to() -> None:
    assert options.read(["--data-dir", "none"], {}) == options.read([], {"CURLGRAD_DATA_DIR": "none"}) == Settings()
    assert options.read(["--data-dir", "."], {}).data_dir == Path()


def test_every_option_is_documented_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    text = options.parser().format_help()
    for option in dataclasses.fields(Settings):
        assert "--" + option.name.replace("_", "-") in text
        assert f"[CURLGRAD_{option.name.upper()}]" in text
        assert option.metadata["doc"] in text


GIVEN = {
    "host": ("::1", "::1"),
    "port": ("9000", 9000),
    "uds": ("/run/curlgrad.sock", Path("/run/curlgrad.sock")),
    "workers": ("cpu:2", "cpu:2"),
    "data_dir": ("/var/lib/x", Path("/var/lib/x")),
    "keys_file": ("/run/secrets/keys", Path("/run/secrets/keys")),
    "max_rate": ("0", 0),
    "key_bytes": ("3G", 3 * GIB),
    "sync": ("always", "always"),
    "sleep_after": ("1.5", 1.5),
    "allowed_host": ("Tensors.Example", ("tensors.example",)),
    "cors_origin": ("https://a.example/", ("https://a.example",)),
    "max_body": ("1.5MiB", 3 << 19),
    "session_bytes": ("2G", 2 * GIB),
    "server_bytes": ("1000", 1000),
    "device_bytes": ("3GiB", 3 * GIB),
    "threads": ("3", 3),
    "busy_poll": ("0", 0),
    "max_steps": ("5", 5),
    "max_rounds": ("6", 6),
    "max_run": ("8", 8),
    "max_nesting": ("7", 7),
    "plan_from": ("0", 0),
    "plan_cache": ("64M", 64 << 20),
    "max_seconds": ("0.5", 0.5),
    "max_unnamed": ("9", 9),
    "tape_bytes": ("1K", 1024),
    "max_values": ("10", 10),
    "history": ("0", 0),
    "root_path": ("/class/tensors/", "/class/tensors"),
    "max_jobs": ("7", 7),
    "fronts": ("3", 3),
    "keep_jobs": ("60", 60.0),
    "log_level": ("debug", "debug"),
    "log_format": ("JSON", "json"),
    "slow_request": ("2.5", 2.5),
}
FLAGS = {"allow_open", "op_times", "otel", "sync_steps"}


@pytest.mark.parametrize("name", GIVEN)
def test_each_option_is_read_from_the_line_and_the_environment(name: str) -> None:
    text, expected = GIVEN[name]
    flag, variable = "--" + name.replace("_", "-"), f"CURLGRAD_{name.upper()}"
    assert getattr(options.read([flag, text], {}), name) == expected
    assert getattr(options.read([], {variable: text}), name) == expected


def test_all_options_are_tried() -> None:
    assert set(GIVEN) | FLAGS == {option.name for option in dataclasses.fields(Settings)}


def test_the_line_wins_over_the_environment() -> None:
    assert options.read(["--port", "1"], {"CURLGRAD_PORT": "2"}).port == 1


def test_options_that_may_be_repeated() -> None:
    given = options.read(["--allowed-host", "a.example", "--allowed-host", "b.example"], {})
    assert given.allowed_host == ("a.example", "b.example")
    assert options.read([], {"CURLGRAD_ALLOWED_HOST": "a.example, b.example,"}).allowed_host == (
        "a.example",
        "b.example",
    )


@pytest.mark.parametrize("text, expected", [("1", True), ("true", True), ("no", False), ("", False)])
def test_a_flag_in_the_environment(text: str, expected: bool) -> None:
    assert options.read([], {"CURLGRAD_ALLOW_OPEN": text}).allow_open is expected
    assert options.read(["--allow-open"], {}).allow_open
    assert options.read(["--sync-steps"], {}).sync_steps


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--port", "99999"], "is not a port"),
        (["--max-body", "lots"], "is not a size"),
        (["--max-steps", "0"], "whole number from 1"),
        (["--cors-origin", "*"], "is not an origin"),
        (["--allowed-host", "*"], "is not the name of a host"),
        (["--log-level", "loud"], "none of debug"),
        (["--sync", "sometimes"], "none of always"),
        (["--sleep-after", "soon"], "number of seconds"),
        (["--host", "0.0.0.0"], "--allow-open"),
        (["--host", "192.168.1.5"], "--allow-open"),
        (["--host", "::"], "--allow-open"),
        (["--no-such"], "unrecognized"),
    ],
)
def test_what_makes_no_sense_ends_with_a_message(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        options.read(arguments, {})
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_a_variable_that_makes_no_sense_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options.read([], {"CURLGRAD_MAX_BODY": "lots"})
    assert "CURLGRAD_MAX_BODY" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.9.9.9"])
def test_loopback_needs_no_leave(host: str) -> None:
    assert options.read(["--host", host], {}).is_loopback


def test_the_greeting_says_who_can_reach_it_and_what_is_lost() -> None:
    text = greeting(Settings(), 8123)
    assert "http://127.0.0.1:8123/docs" in text
    assert "no other" in text
    assert "do not survive a restart" in text
    assert "kept in /srv/x" in greeting(Settings(data_dir=Path("/srv/x")), 8123)
    everywhere = greeting(Settings(host="0.0.0.0", allow_open=True), 8000)
    assert "whoever reaches this address" in everywhere
    assert "http://127.0.0.1:8000/docs" in everywhere
    assert "http://[::1]:8000/docs" in greeting(Settings(host="::1"), 8000)


def test_the_address_listened_on_is_a_host_of_ours() -> None:
    assert hosts_of(Settings(host="192.168.1.5")) == ("192.168.1.5",)
    assert hosts_of(Settings(host="0.0.0.0", allowed_host=("a.example",))) == ("a.example",)
