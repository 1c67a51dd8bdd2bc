"""How the server is started: every option on the command line, and the same as an environment variable.

`--max-body 64MiB` is `CURLGRAD_MAX_BODY=64MiB`; an option that may be repeated takes a list with commas there. The
command line wins over the environment, the environment over the default.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from app.security import is_loopback
from engine.service import Limits

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_UNITS = {
    "": 1,
    "B": 1,
    "K": KIB,
    "KB": 1000,
    "KIB": KIB,
    "M": MIB,
    "MB": 1000**2,
    "MIB": MIB,
    "G": GIB,
    "GB": 1000**3,
    "GIB": GIB,
}
_PREFIX = "CURLGRAD_"


def _bytes(text: str) -> int:
    """`64MiB`, `2G`, `1000` as a number of bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 64MiB or 2GiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _count(text: str) -> int:
    """A whole number from 1."""
    if not text.strip().isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _whole(text: str) -> int:
    """A whole number from 0."""
    if not text.strip().isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _port(text: str) -> int:
    if not text.strip().isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _seconds(text: str) -> float:
    """`600`, `0.5`: seconds from 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def _root_path(text: str) -> str:
    """A path that a proxy puts before ours: `/curlgrad`; nothing for none."""
    path = text.strip().rstrip("/")
    if path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path):
        raise argparse.ArgumentTypeError(f"{text!r} is not a path such as /curlgrad")
    return path


def _word(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.strip().lower() not in words:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(words)}")
        return text.strip().lower()

    return parse


def _origin(text: str) -> str:
    """An origin as browsers send it: scheme, host and port, nothing after."""
    origin = text.strip().removesuffix("/").lower()
    if not re.fullmatch(r"https?://[^/\s]+", origin):
        raise argparse.ArgumentTypeError(f"{text!r} is not an origin such as https://example.org")
    return origin


def _host_name(text: str) -> str:
    name = text.strip().lower().strip("[]")
    if not name or "/" in name or "*" in name:
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a host")
    return name


def _flag(text: str) -> bool:
    if text.strip().lower() in ("1", "true", "yes", "on"):
        return True
    if text.strip().lower() in ("0", "false", "no", "off", ""):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


NOWHERE = Path()
_PATHS = ("uds", "data_dir", "keys_file")


def _folder(text: str) -> Path:
    """A directory; `none` is NOWHERE (`./none` is a directory of that name)."""
    return NOWHERE if text.strip().lower() == "none" else Path(text)


def _option(parse: Callable[[str], Any], metavar: str, doc: str, served: str | None = None) -> Mapping[str, Any]:
    """What makes a setting an option; one whose default is the empty tuple may be repeated.

    `served`: the default of `python -m app`, where it is not that of an application that is embedded.
    """
    return {"parse": parse, "metavar": metavar, "doc": doc, "served": served}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator decides. The defaults serve one person on one machine; without a command line, as in tests, all
    is kept in memory alone."""

    host: str = field(
        default="127.0.0.1",
        metadata=_option(str, "HOST", "address to listen on; any but loopback needs --allow-open"),
    )
    port: int = field(default=8000, metadata=_option(_port, "PORT", "port to listen on; 0 takes a free one"))
    uds: Path | None = field(
        default=None,
        metadata=_option(
            Path, "PATH", "listen on this Unix socket instead of a port; it is open to the user who starts the server"
        ),
    )
    workers: str = field(
        default="auto",
        metadata=_option(
            str,
            "SPEC",
            "auto (one worker per GPU, else one for the CPU), inline (in this process), a list such as cpu:2, "
            "or practice-cuda (a simulated CUDA device)",
        ),
    )
    fronts: int = field(
        default=1,
        metadata=_option(
            _count,
            "N",
            "processes that serve HTTP and share the workers; with 1 the process that watches them does. More pay "
            "where there are cores for them and many small calls",
        ),
    )
    data_dir: Path | None = field(
        default=None,
        metadata=_option(
            _folder,
            "DIR",
            "where sessions are kept, so that they outlive the server; none keeps them in memory alone",
            served="data",
        ),
    )
    sync: str = field(
        default="everysec",
        metadata=_option(
            str,
            "WHEN",
            "when the disk is told to have what was acknowledged: always (before each answer), everysec, or no (when "
            "the system likes); the end of the process loses nothing in any case, the loss of power at most that",
        ),
    )
    sleep_after: float = field(
        default=900.0,
        metadata=_option(
            _seconds,
            "SECONDS",
            "how long a session may be unused before it leaves memory for the disk, until it is used",
        ),
    )
    keys_file: Path | None = field(
        default=None,
        metadata=_option(
            Path, "FILE", "the keys that callers need, made by `python -m app keys`; DIR/keys.json when not given"
        ),
    )
    max_rate: int = field(
        default=1000,
        metadata=_option(
            _whole, "N", "requests a second that one key may send, twice as many in a burst; 0 sets no limit"
        ),
    )
    key_bytes: int | None = field(
        default=None,
        metadata=_option(
            _bytes,
            "SIZE",
            "memory that all sessions of one key may hold, on each worker; no limit of its own when not given",
        ),
    )
    allow_open: bool = field(
        default=False,
        metadata=_option(
            _flag, "", "serve without keys to whoever reaches the address: they can use, read and delete everything"
        ),
    )
    allowed_host: tuple[str, ...] = field(
        default=(),
        metadata=_option(
            _host_name, "NAME", "a name of this server that a Host header may say, beside loopback; may be repeated"
        ),
    )
    cors_origin: tuple[str, ...] = field(
        default=(),
        metadata=_option(
            _origin,
            "ORIGIN",
            "a web origin whose pages may use this server, such as https://example.org; may be repeated",
        ),
    )
    max_body: int = field(default=256 * MIB, metadata=_option(_bytes, "SIZE", "the largest body of a request"))
    session_bytes: int = field(default=2 * GIB, metadata=_option(_bytes, "SIZE", "memory that one session may hold"))
    server_bytes: int | None = field(
        default=None,
        metadata=_option(
            _bytes, "SIZE", "memory that all sessions may hold; three quarters of the machine's when not given"
        ),
    )
    device_bytes: int = field(
        default=0,
        metadata=_option(
            _bytes, "SIZE", "memory that arrays may take on each GPU; nine tenths of what is free when not given"
        ),
    )
    sync_steps: bool = field(
        default=False,
        metadata=_option(
            _flag,
            "",
            "wait for the GPU after each step, so that an error of a kernel names its own step; slow, for finding bugs",
        ),
    )
    threads: int = field(
        default=0,
        metadata=_option(
            _whole,
            "N",
            "threads that BLAS uses in each worker process; 0 shares the machine's cores out among the workers",
        ),
    )
    busy_poll: int = field(
        default=500,
        metadata=_option(
            _whole,
            "MICROSECONDS",
            "how long a process looks for a call or an answer that is likely to come at once, before it sleeps; "
            "0 for never, as on a single core",
        ),
    )
    max_steps: int = field(
        default=10_000, metadata=_option(_count, "N", "the steps that a program may be written with")
    )
    max_rounds: int = field(
        default=1_000_000, metadata=_option(_count, "N", "the rounds that one repeat of a program may have")
    )
    max_run: int = field(
        default=10_000_000,
        metadata=_option(_count, "N", "the steps that a program may run, each round of its repeats counted"),
    )
    max_nesting: int = field(default=8, metadata=_option(_count, "N", "how deep repeats may stand within each other"))
    plan_from: int = field(
        default=16,
        metadata=_option(_whole, "N", "the rounds from which a repeat is compiled into a plan; 0 interprets them all"),
    )
    plan_cache: int = field(
        default=Limits.plan_bytes,
        metadata=_option(
            _bytes, "SIZE", "memory of the plans that each worker keeps from request to request; 0 keeps none"
        ),
    )
    max_jobs: int = field(
        default=100, metadata=_option(_count, "N", "the ended jobs that are kept with their results, of one key")
    )
    keep_jobs: float = field(
        default=86400.0, metadata=_option(_seconds, "SECONDS", "how long an ended job is kept with its result")
    )
    max_seconds: float = field(
        default=Limits.max_seconds,
        metadata=_option(_seconds, "S", "how long a program may run, the turns of others not counted; 0 sets no limit"),
    )
    max_unnamed: int = field(
        default=Limits.max_unnamed,
        metadata=_option(_count, "N", "the tensors without a name that one session may hold"),
    )
    tape_bytes: int = field(
        default=Limits.tape_bytes,
        metadata=_option(_bytes, "SIZE", "memory that the tape alone may keep alive in one session"),
    )
    max_values: int = field(
        default=Limits.max_values,
        metadata=_option(_count, "N", "the numbers that an answer in JSON or CSV may spell out"),
    )
    history: int = field(
        default=Limits.history_bytes,
        metadata=_option(
            _bytes, "SIZE", "what each session remembers of its programs, for /v1/sessions/{id}/script; 0 for nothing"
        ),
    )
    root_path: str = field(
        default="",
        metadata=_option(_root_path, "PATH", "the path under which a proxy publishes this server, such as /curlgrad"),
    )
    log_level: str = field(
        default="info",
        metadata=_option(_word("debug", "info", "warning", "error"), "LEVEL", "debug, info, warning or error"),
    )
    log_format: str = field(
        default="text", metadata=_option(_word("text", "json"), "FORM", "text, or json: one object a line")
    )
    slow_request: float = field(
        default=1.0, metadata=_option(_seconds, "S", "a request that takes longer is logged as a warning")
    )
    op_times: bool = field(
        default=False, metadata=_option(_flag, "", "measure the time of each operation for /metrics; costs a little")
    )
    otel: bool = field(
        default=False,
        metadata=_option(
            _flag,
            "",
            "send traces by OpenTelemetry (the extra `otel`), as OTEL_EXPORTER_OTLP_ENDPOINT and the like say; "
            "also when that variable is set",
        ),
    )

    def to_data(self) -> dict[str, Any]:
        """As plain data, for another process."""
        return {name: str(given) if isinstance(given, Path) else given for name, given in asdict(self).items()}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Settings:
        """The settings that `to_data` described."""
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        for name in _PATHS:
            given[name] = None if given[name] is None else Path(given[name])
        return cls(**given)

    @property
    def is_loopback(self) -> bool:
        """Whether nobody can reach the server from another machine."""
        return self.uds is not None or is_loopback(self.host)


def parser() -> argparse.ArgumentParser:
    """The command line, every option documented with its default and its variable."""
    made = argparse.ArgumentParser(
        prog="python -m app",
        description="Serve curlgrad: PyTorch-style tensors and autograd over HTTP.",
        epilog="Each option is also an environment variable, named in brackets; the command line wins. "
        "Without keys the server listens on this machine alone. `python -m app repair --data-dir DIR` makes damaged "
        "data readable again, as far as they are there, and says what is lost.",
    )
    for option in fields(Settings):
        variable = _PREFIX + option.name.upper()
        default = option.metadata["served"] or option.default
        doc = f"{option.metadata['doc']}{_default_text(default)} [{variable}]".replace("%", "%%")
        flag = "--" + option.name.replace("_", "-")
        parse, metavar = option.metadata["parse"], option.metadata["metavar"]
        if parse is _flag:
            made.add_argument(flag, action="store_const", const=True, default=None, help=doc)
        elif option.default == ():
            made.add_argument(flag, action="append", type=parse, metavar=metavar, default=None, help=doc)
        else:
            made.add_argument(flag, type=parse, metavar=metavar, default=None, help=doc)
    return made


def _default_text(default: Any) -> str:
    if default in (None, ()) or default is False:
        return ""
    if isinstance(default, float):
        return f" (default {default:g})"
    if isinstance(default, int) and default >= MIB:
        unit, name = (GIB, "GiB") if default % GIB == 0 else (MIB, "MiB") if default % MIB == 0 else (1, "")
        return f" (default {default // unit}{name})"
    return f" (default {default})"


def read(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of a command line and an environment. Ends the process with a message where they make no sense."""
    environment = os.environ if environment is None else environment
    made = parser()
    given = vars(made.parse_args(arguments))
    chosen: dict[str, Any] = {}
    for option in fields(Settings):
        value, parse = given[option.name], option.metadata["parse"]
        if value is None:
            value = _from_environment(made, option.name, option.default, parse, environment)
        if value is None and option.metadata["served"] is not None:
            value = parse(option.metadata["served"])
        if value is not None:
            chosen[option.name] = tuple(value) if isinstance(value, list) else value
    if chosen["data_dir"] is NOWHERE:
        chosen["data_dir"] = None
    settings = Settings(**chosen)
    if settings.sync not in ("always", "everysec", "no"):
        made.error(f"--sync: {settings.sync!r} is none of always, everysec, no")
    if settings.log_level not in ("debug", "info", "warning", "error"):
        made.error(f"--log-level: {settings.log_level!r} is none of debug, info, warning, error")
    if not settings.is_loopback and not settings.allow_open and not has_keys(settings):
        made.error(
            f"--host {settings.host}: no keys are set up, so whoever reaches that address could use, read and delete "
            "everything. Make one with `python -m app keys create`, listen on 127.0.0.1, or say --allow-open if that "
            "is what you want"
        )
    return settings


def keys_file(settings: Settings) -> Path | None:
    """Where the keys are; None where there is neither a file named nor a data directory."""
    if settings.keys_file is not None or settings.data_dir is None:
        return settings.keys_file
    return settings.data_dir / "keys.json"


def has_keys(settings: Settings) -> bool:
    """Whether callers need a key."""
    path = keys_file(settings)
    return path is not None and path.exists()


def _from_environment(
    made: argparse.ArgumentParser, name: str, default: Any, parse: Callable[[str], Any], environment: Mapping[str, str]
) -> Any:
    variable = _PREFIX + name.upper()
    text = environment.get(variable)
    if text is None:
        return None
    try:
        return [parse(part) for part in text.split(",") if part.strip()] if default == () else parse(text)
    except (argparse.ArgumentTypeError, ValueError) as error:
        made.error(f"{variable}: {error}")
