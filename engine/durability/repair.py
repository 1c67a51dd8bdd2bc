"""`python -m app repair --data-dir DIR`: makes damaged data readable again, as far as they are there.

A session that is set aside gets back the newest state that is whole: its snapshot, and its changes up to the first that
is missing or damaged. Every session is then written as a snapshot and the log begins anew. What is replaced or cannot
be read is moved to `repaired-<time>` beside the workers' folders, and nothing is deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.durability.files import Files, Locked
from engine.durability.log import Segment
from engine.durability.recovery import Kept, recover
from engine.durability.store import DataDir, Store
from engine.errors import EngineError, Unavailable

Make = Callable[[str, dict[str, Any]], Any]


def repair(path: Path, make: Make, files: Files | None = None) -> list[str]:
    """Repairs all workers' folders; what was found and done, in sentences. Raises Unavailable while a server runs."""
    files = files or Files()
    try:
        data = DataDir(path, files)
    except Locked as owner:
        raise Unavailable(f"a server uses {path} (process {owner}): end it first") from None
    try:
        report = []
        for folder in data.folders():
            if not folder.name.startswith("repaired-"):
                report += _repair_folder(folder, make, files)
        return report or [f"{path} holds no data"]
    finally:
        data.close()


def _repair_folder(folder: Path, make: Make, files: Files) -> list[str]:
    found = recover(folder, files, change=False)
    damaged = [kept for kept in found.kept.values() if kept.damage]
    report = [f"{folder.name}: {len(found.kept)} sessions, {len(found.segments)} segments of log"]
    report += [f"  {problem}" for problem in found.problems]
    if found.torn:
        report.append(f"  {found.torn} records at the end were never finished, and are dropped")
    if not damaged and not found.problems:
        return [*report, "  nothing is damaged"]
    aside = folder.parent / f"repaired-{time.strftime('%Y%m%d-%H%M%S')}-{folder.name}"
    new = folder.parent / f"{folder.name}.new"
    store = Store(new, make=make, files=files, thread=False, lsn=found.lsn)
    segments = {segment.number: segment for segment in found.segments}
    try:
        for kept in found.kept.values():
            report += _salvage(store, kept, segments)
        store.ended += found.ended
    finally:
        store.close()
    files.rename(folder, aside)
    files.rename(new, folder)
    files.sync_folder(folder.parent)
    return [*report, f"  what was there before is in {aside.name}"]


def _salvage(store: Store, kept: Kept, segments: dict[int, Segment]) -> list[str]:
    """Takes a session over, up to its first damage."""
    why = kept.damage
    name = kept.opened.get("name") or kept.id
    if not kept.opened:
        return [f"  session {name}: lost, nothing says how it began ({why})"]
    kept.damage = None
    while True:
        try:
            store.take(kept, segments)
            break
        except EngineError as error:
            return [f"  session {name}: lost ({error.detail})"]
        except Exception as problem:  # noqa: BLE001 - a change that cannot be read: without it, and what followed
            if not kept.places:
                return [f"  session {name}: lost ({why or problem})"]
            why = why or str(problem)
            kept.forget_last()
    if why is None:
        return []
    return [f"  session {name}: as it was after its change {kept.n}; what came later is lost ({why})"]
