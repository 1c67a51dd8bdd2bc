"""What a start does not read, since later changes say all that it did: whatever the history, nobody can tell."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.commit import whole
from engine.durability import recovery
from engine.durability.records import scan
from engine.errors import EngineError
from engine.rebuild import Rebuild
from engine.session import Session
from tests.devices import cuda
from tests.engine.durability.houses import House, QuickFiles, bits, kill, look
from tests.engine.programs import step
from tests.engine.test_commit import packed, replay

NAMES = st.sampled_from(["a", "b", "c"])
SHAPES = st.sampled_from([[], [0], [1], [3], [2, 3], [3, 1], [600]])
DTYPES = st.sampled_from(["float32", "float32", "float64", "bfloat16", "complex64", "int64", "bool"])
MANY = 150


def keep(made: dict[str, Any], name: str) -> dict[str, Any]:
    return {"steps": [made], "keep": {"y": name}}


def together(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One program that does what several do; what they call their results is kept apart."""
    steps: list[dict[str, Any]] = []
    kept: dict[str, Any] = {"keep": {}, "keep_all": {}}
    for number, part in enumerate(parts):
        made = [out for one in part.get("steps", ()) if isinstance(out := one.get("out"), str)]
        names = {name: f"{name}{number}" for name in made}
        for one in part.get("steps", ()):
            args = {
                key: names.get(value, value) if isinstance(value, str) else value for key, value in one["args"].items()
            }
            steps.append({**one, "args": args, **({"out": names[one["out"]]} if "out" in one else {})})
        for how, told in kept.items():
            told.update({names.get(name, name): to for name, to in part.get(how, {}).items()})
    return {"steps": steps, **{how: told for how, told in kept.items() if told}}


# Programs by what they do, of names from few, so that they meet. Many are refused, which changes nothing.
makes = st.builds(lambda n, size, d: keep(step("ones", "y", size=size, dtype=d), n), NAMES, SHAPES, DTYPES)
leaves = st.builds(lambda n, size: keep(step("ones", "y", size=size, requires_grad=True), n), NAMES, SHAPES)
computes = st.builds(lambda n, m, k: keep(step("mul", "y", input=m, other=k), n), NAMES, NAMES, NAMES)
adds = st.builds(lambda n, m: keep(step("add", "y", input=m, other=1), n), NAMES, NAMES)
views = st.builds(lambda n, m: keep(step("view", "y", input=m, size=[-1]), n), NAMES, NAMES)
aliases = st.builds(lambda n, m: keep(step("detach", "y", input=m), n), NAMES, NAMES)
twice = st.builds(
    lambda n, m: {"steps": [step("neg", "y", input=n), step("abs", "z", input=n)], "keep": {"y": m, "z": n}},
    NAMES,
    NAMES,
)
parts = st.builds(
    lambda n: {"steps": [step("split", "y", input=n, split_size_or_sections=1)], "keep": {"y": "p"}}, NAMES
)
unnamed = st.builds(lambda n: {"steps": [step("add", "y", input=n, other=2)], "keep_all": {"y": None}}, NAMES)
renames = st.builds(lambda n, m: {"steps": [step("add_", input=n, other=1)], "keep": {n: m}}, NAMES, NAMES)
calls = st.builds(lambda n, m: {"keep": {n: m}}, NAMES, NAMES)
releases = st.builds(lambda n: {"steps": [step("_release", input=n)]}, NAMES)
in_place = st.builds(
    lambda n, op: {"steps": [step(op, input=n)]},
    NAMES,
    st.sampled_from(["zero_", "t_", "squeeze_", "exp_", "uniform_"]),
)
resizes = st.builds(lambda n, size: {"steps": [step("resize_", input=n, size=size)]}, NAMES, SHAPES)
sets = st.builds(lambda n, m: {"steps": [step("set_", input=n, source=m)]}, NAMES, NAMES)
draws = st.builds(lambda n: keep(step("randn", "y", size=[3]), n), NAMES)
backwards = st.builds(
    lambda n, again: {"steps": [step("sum", "s", input=n), step("backward", input="s", retain_graph=again)]},
    NAMES,
    st.booleans(),
)
retains = st.builds(lambda n: {"steps": [step("retain_grad", input=n)]}, NAMES)
grads = st.builds(
    lambda n, m: {"steps": [step("add", "y", input=f"{n}.grad", other=1)], "keep": {"y": m}}, NAMES, NAMES
)
flags = st.builds(lambda n: {"steps": [step("requires_grad_", input=n)]}, NAMES)
defaults = st.builds(lambda d: {"steps": [step("set_default_dtype", d=d)]}, st.sampled_from(["float32", "float64"]))
prints = st.builds(lambda p: {"steps": [step("set_printoptions", precision=p)]}, st.integers(2, 6))
SINGLE = st.one_of(
    *[makes, adds, releases, adds, releases, computes, makes] * 2,
    *[
        leaves,
        views,
        aliases,
        twice,
        parts,
        unnamed,
        renames,
        calls,
        in_place,
        resizes,
        sets,
        draws,
        backwards,
        retains,
    ],
    *[grads, flags, defaults, prints],
)
PROGRAMS = st.one_of(SINGLE, SINGLE, st.lists(SINGLE, min_size=2, max_size=3).map(together))


class Told(House):
    """A house that remembers its commits as they were made."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, files=QuickFiles())
        self.made: list[bytes] = []

    def make(self, id: str, opened: dict[str, Any]) -> Session:
        def told(commit: Any) -> None:
            self.made.append(packed(commit))
            self.commits.append(commit)

        return House.made(id, opened, told)

    def plain(self) -> Session:
        """The session, from all of its commits."""
        return Session.rebuild(
            [msgpack.unpackb(one, strict_map_key=False, unicode_errors="surrogatepass") for one in self.made],
            "s",
            owner="ann",
            seed=5,
            incarnation="0badcafe",
        )


def everything(session: Session) -> list[Any]:
    """All that a session is, its order included."""
    retained = session.ctx.retained
    return [
        bits(session),
        list(session.tensors),
        list(session.names),
        packed(whole(session)),
        session.ctx.ledger.held,
        session.ctx.print_options,
        sorted(t.uid for t in retained if t.retains) if retained else [],
        [session.etag(t) for t in session.tensors.values()],
    ]


def tried(session: Session, program: dict[str, Any]) -> Any:
    """What a session says to a program."""
    try:
        found = replay(session, program)["results"]
        return {name: None if answer is None else answer.values.tobytes() for name, answer in found.items()}
    except EngineError as error:
        return error.code, error.detail


@settings(max_examples=MANY, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.lists(st.tuples(PROGRAMS, st.booleans()), min_size=1, max_size=30), st.integers(0, 40), PROGRAMS)
def test_a_session_of_which_little_is_read_is_the_one_of_which_all_is(
    history: list[tuple[dict[str, Any], bool]], saved: int, after: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "a"
        house = Told(folder)
        session = house.open("s")
        keyed = []
        for number, (program, has_key) in enumerate(history):
            if number == saved:
                house.store.save("s", session)
                keyed.clear()
            key = [f"POST k{number}", "d"] if has_key else None
            try:
                house.change("s", program, key=key)
            except EngineError:
                continue
        kill(house.store)
        again = House(folder, files=QuickFiles())
        fast = again.store.load("s")
        plain = house.plain()
        assert everything(fast) == everything(plain)
        assert bits(fast) == bits(session)
        found = again.store.kept["s"].answers
        known = house.store.kept["s"].answers
        assert found is not None
        assert known is not None
        assert [row[:2] + row[3:] for row in found.rows()] == [row[:2] + row[3:] for row in known.rows()]
        for program in (
            after,
            {"steps": [step("sum", "s", input="a"), step("backward", input="s")], "return": ["a.grad"]},
        ):
            said = tried(session, program)
            assert tried(fast, program) == said
            assert tried(plain, program) == said
            assert bits(fast) == bits(session)
        kill(again.store)


def test_what_a_commit_replaces_is_there_for_the_rest_of_it(tmp_path: Path) -> None:
    """Nothing but what is replaced holds what another row speaks of: a view's base, memory that the tape saved, a node
    that was freed."""
    leaf = {"data": [1.0, 2.0], "requires_grad": True}
    house = House(tmp_path / "a", files=QuickFiles())
    house.open("s")
    house.run(
        "s",
        inputs={"w": leaf, "x": {"data": [3.0, 4.0]}, "v": {"data": [5.0, 6.0]}, "z": {"data": [7.0, 8.0]}},
        keep={n: n for n in "wxvz"},
    )
    house.change("s", keep(step("view", "y", input="x", size=[2, 1]), "x"))
    house.change("s", keep(step("ones", "y", size=[2]), "x"))
    products = [step("mul", "y", input="w", other="x"), step("mul", "q", input="w", other="v")]
    moved = [step("set_", input=name, source="z") for name in "xv"]
    house.run("s", *products, *moved, keep={"y": "y", "q": "q"})
    house.run("s", step("mul", "u", input="w", other="w"), keep={"u": "u"})
    house.run("s", step("sum", "l", input="u"), step("backward", input="l"), step("mul_", input="u", other="w"))
    kill(house.store)
    again = House(tmp_path / "a", files=QuickFiles())
    assert bits(again.store.load("s")) == house.states["s"][-1]
    kill(again.store)


def life(house: House) -> None:
    """Tensors made anew, let go of, held by others, in few bytes."""
    one = step("add", "y", input="x", other=1)
    house.open("s")
    house.run("s", inputs={"x": {"data": [1.5]}}, keep={"x": "x"})
    for number in range(4):
        house.change("s", keep(one, "x"), key=["POST k", "d"] if number == 2 else None)
    house.run("s", one, keep={"y": "y"})
    house.run("s", step("view", "v", input="y", size=[1, 1]), keep={"v": "v"})
    house.run("s", step("_release", input="y"))
    house.change("s", keep(one, "z"))
    house.run("s", step("_release", input="z"))
    house.run("s", step("add_", input="x", other=1))
    house.change("s", keep(one, "x"))
    house.change("s", keep(one, "x"))
    house.run("s", step("_release", input="x"))


def test_a_log_of_what_is_let_go_of_cut_anywhere_is_what_there_was(tmp_path: Path) -> None:
    house = House(tmp_path / "a", files=QuickFiles())
    life(house)
    word = house.store.log.segments[0].sync_word
    kill(house.store)
    (path,) = (tmp_path / "a").glob("*.log")
    whole_log = path.read_bytes()
    ends = [found.start + found.size for found in scan(memoryview(whole_log), word)]
    states: list[Any] = [None, None, *house.states["s"]]  # before the table, before the session
    for cut in range(len(whole_log) + 1):
        folder = tmp_path / "b" / str(cut)
        folder.mkdir(parents=True)
        (folder / path.name).write_bytes(whole_log[:cut])
        found, aside = look(folder)
        assert not aside
        assert found.get("s") == states[sum(end <= cut for end in ends)], cut
        shutil.rmtree(folder)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is taken in from now on."""
    taken: list[Any] = []
    apply = Rebuild.apply
    monkeypatch.setattr(Rebuild, "apply", lambda work, commit: (taken.append(commit), apply(work, commit))[1])
    return taken


def test_what_was_let_go_of_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path / "a", files=QuickFiles())
    house.open("s")
    house.run("s", inputs={"x": {"data": [1.0, 2.0]}}, keep={"x": "x"})
    for number in range(40):
        house.change("s", keep(step("add", "y", input="x", other=1), "x"), key=["POST k", "d"] if number % 3 else None)
        house.change("s", keep(step("add", "y", input="x", other=1), "y"))
        house.run("s", step("_release", input="y"))
    kill(house.store)
    taken = counted(monkeypatch)
    again = House(tmp_path / "a", files=QuickFiles())
    assert bits(again.store.load("s")) == house.states["s"][-1]
    assert len(taken) == 2, "what made the one that is left, and the last change of all"
    for back in range(2, 20):  # as repair does where the newest cannot be read
        again.store.kept["s"].forget_last()
        assert bits(again.store.load("s")) == house.states["s"][-back]
    kill(again.store)


@pytest.mark.parametrize(
    "holds",
    [
        step("view", "v", input="y", size=[2, 1]),
        step("detach", "v", input="y"),
        step("mul", "v", input="w", other="y"),
        step("add", "v", input="y", other=2),
        [step("add", "v", input="x", other=1), *[step("view", f"v{n}", input="y", size=[1, 2]) for n in range(70)]],
    ],
    ids=["a view", "an alias", "what the tape saved", "an edge of the tape", "one of many"],
)
def test_what_something_else_holds_is_read(tmp_path: Path, holds: Any) -> None:
    house = House(tmp_path / "a", files=QuickFiles())
    house.open("s")
    house.run(
        "s",
        inputs={"x": {"data": [1.0, 2.0]}, "w": {"data": [3.0, 4.0], "requires_grad": True}},
        keep={"x": "x", "w": "w"},
    )
    house.change("s", keep(step("ones", "y", size=[2], requires_grad=True), "y"))
    steps = holds if isinstance(holds, list) else [holds]
    house.run("s", *steps, keep={made["out"]: made["out"] for made in steps})
    house.run("s", step("_release", input="y"))
    house.change("s", keep(step("add", "y", input="x", other=1), "x"))
    kill(house.store)
    again = House(tmp_path / "a", files=QuickFiles())
    session = again.store.load("s")
    assert recovery.NOTHING not in again.store.kept["s"].parts[:3]
    assert bits(session) == house.states["s"][-1]
    kill(again.store)


def test_tensors_of_a_device_come_back_to_it(tmp_path: Path) -> None:
    house = House(tmp_path / "a", files=QuickFiles())
    house.open("s", device=cuda().name)
    for dtype in ("float32", "bfloat16", "bool"):
        house.change("s", keep(step("ones", "y", size=[2, 3], dtype=dtype), dtype))
    house.change("s", keep(step("ones", "y", size=[2], device="cpu"), "here"))
    house.run("s", step("add_", input="float32", other=1))
    kill(house.store)
    again = House(tmp_path / "a", files=QuickFiles())
    session = again.store.load("s")
    assert bits(session) == house.states["s"][-1]
    assert {name: t.device for name, t in session.names.items()} == {
        **dict.fromkeys(("float32", "bfloat16", "bool"), cuda().name),
        "here": "cpu",
    }
    assert session.ctx.ledger.on_devices == house.sessions["s"].ctx.ledger.on_devices
    kill(again.store)
