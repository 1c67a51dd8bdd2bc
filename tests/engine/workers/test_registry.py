"""The session map: owners, names, what was lost and what was deleted."""

from __future__ import annotations

import re

import pytest

from engine.errors import Gone, Invalid, LimitExceeded, NameTaken, NoSuchSession
from engine.workers.registry import REMEMBERED, Record, Registry


@pytest.fixture
def registry() -> Registry:
    return Registry(20)


def make(registry: Registry, name: str | None = None, owner: str = "ann", worker: str = "w") -> Record:
    return registry.add(owner, name, worker, 1, "cpu")


def test_found_by_id_and_by_name_by_its_owner_alone(registry: Registry) -> None:
    record = make(registry, "mine")
    assert registry.find("ann", "mine") is record
    assert registry.find("ann", record.id) is record
    for ref in ("mine", record.id):
        with pytest.raises(NoSuchSession):
            registry.find("bob", ref)
    other = make(registry, "mine", "bob")
    assert registry.find("bob", "mine") is other


def test_ids_cannot_be_guessed(registry: Registry) -> None:
    ids = {make(registry).id for _ in range(20)}
    assert len(ids) == 20
    assert all(re.fullmatch(r"s-[0-9a-f]{32}", i) for i in ids), "128 bits"


def test_default_is_to_be_made_and_then_found(registry: Registry) -> None:
    assert registry.find("ann", "default") is None
    record = make(registry, "default")
    assert registry.find("ann", "default") is record
    assert registry.find("bob", "default") is None


def test_a_taken_name_is_refused_and_changes_nothing(registry: Registry) -> None:
    record = make(registry, "x")
    with pytest.raises(NameTaken):
        make(registry, "x")
    other = make(registry, "y")
    with pytest.raises(NameTaken):
        registry.rename(other, "x")
    assert registry.find("ann", "x") is record
    assert registry.find("ann", "y") is other
    assert len(registry.page("ann", 10, None)[0]) == 2


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-a", ".a", "é", "a\n", "x" * 256, "s-" + "0" * 32])
def test_names_that_cannot_be(registry: Registry, name: str) -> None:
    with pytest.raises(Invalid) as caught:
        make(registry, name)
    assert caught.value.code == "bad-name"


def test_renaming(registry: Registry) -> None:
    record = make(registry, "a")
    registry.rename(record, "b")
    registry.rename(record, "b")
    assert registry.find("ann", "b") is record
    with pytest.raises(NoSuchSession):
        registry.find("ann", "a")
    registry.rename(record, None)
    with pytest.raises(NoSuchSession):
        registry.find("ann", "b")
    assert registry.find("ann", record.id) is record


def test_the_limit_is_per_owner(registry: Registry) -> None:
    for _ in range(20):
        make(registry)
    with pytest.raises(LimitExceeded) as caught:
        make(registry)
    assert caught.value.facts == {"held": 20, "limit": 20}
    make(registry, owner="bob")
    registry.remove(registry.page("ann", 1, None)[0][0])
    make(registry)


def test_a_deleted_session_is_unknown_and_may_be_deleted_again(registry: Registry) -> None:
    record = make(registry, "x")
    registry.remove(record)
    registry.remove(record)
    for ref in ("x", record.id):
        with pytest.raises(NoSuchSession):
            registry.find("ann", ref)
        assert registry.forget("ann", ref)
        assert not registry.forget("bob", ref)
    assert not registry.forget("ann", "y")
    assert registry.count("w") == 0


def test_lost_sessions_say_why_to_their_owner(registry: Registry) -> None:
    record, safe = make(registry, "x"), make(registry, "y", worker="v")
    assert registry.lose("w", "it fell over", 12.5) == [record]
    for ref in ("x", record.id, "x"):
        with pytest.raises(Gone) as caught:
            registry.find("ann", ref)
        assert caught.value.code == "session-lost"
        assert caught.value.facts == {"worker": "w", "why": "it fell over", "lost_at": 12.5}
        with pytest.raises(NoSuchSession):
            registry.find("bob", ref)
    assert registry.find("ann", "y") is safe
    assert registry.page("ann", 10, None)[0] == [safe]
    again = make(registry, "x")
    assert registry.find("ann", "x") is again, "the name is free again"
    with pytest.raises(Gone):
        registry.find("ann", record.id)


def test_a_lost_default_is_said_once(registry: Registry) -> None:
    record = make(registry, "default")
    registry.lose("w", "", 0.0)
    with pytest.raises(Gone):
        registry.find("ann", "default")
    assert registry.find("ann", "default") is None
    with pytest.raises(Gone):
        registry.find("ann", record.id)


def test_deleting_what_was_lost(registry: Registry) -> None:
    record = make(registry, "x")
    registry.lose("w", "", 0.0)
    assert registry.forget("ann", "x")
    assert registry.forget("ann", record.id)
    with pytest.raises(NoSuchSession):
        registry.find("ann", "x")
    assert registry.forget("ann", "x")


def test_memory_of_what_is_gone_is_bounded(registry: Registry) -> None:
    first = make(registry)
    registry.remove(first)
    for _ in range(REMEMBERED):
        registry.remove(make(registry))
    assert not registry.forget("ann", first.id)


def test_pages(registry: Registry) -> None:
    records = [make(registry) for _ in range(5)]
    make(registry, owner="bob")
    first, cursor = registry.page("ann", 2, None)
    assert first == records[:2]
    registry.remove(records[1])
    second, cursor = registry.page("ann", 2, cursor)
    assert second == records[2:4]
    third, cursor = registry.page("ann", 2, cursor)
    assert (third, cursor) == (records[4:], None)
    assert registry.page("nobody", 2, None) == ([], None)
    for bad in ("", "-1", "x", "9" * 30, "²"):
        with pytest.raises(Invalid):
            registry.page("ann", 2, bad)
