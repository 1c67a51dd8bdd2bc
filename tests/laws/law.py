"""A law: a sentence, the operations and dtypes it is about, and a check of one case. `holds` runs it over samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import EngineError
from engine.op import COMPOSITE, INPLACE, PRIMITIVE, REGISTRY, SPECIAL, VIEW, Op
from tests.laws.excluded import reason
from tests.laws.harness import Broken, Case, operations, samples_of


@dataclass(frozen=True)
class Law:
    name: str
    sentence: str
    applies: Callable[[Op], bool]
    check: Callable[[Case], None]
    dtypes: tuple[str, ...]

    def holds(self, name: str, device: str) -> None:
        """Raises Broken with every sample of the operation for which the law does not hold."""
        numbers = [i for i, s in enumerate(samples_of(name)) if reason(self.name, name, repr(s)) is None]
        self.holds_for(name, numbers, device)

    def holds_for(self, name: str, numbers: Sequence[int], device: str) -> None:
        broken = []
        for number in numbers:
            for wanted in self.dtypes:
                case: Any = f"{name}{samples_of(name)[number]!r} on {device}"
                try:
                    with np.errstate(all="ignore"):
                        case = Case(name, number, device, wanted)
                        if wanted == self.dtypes[0] or sum(t.dtype is None for t in case.drawn) > (wanted == "mixed"):
                            self.check(case)  # else the sample fixes its dtypes
                except EngineError as e:  # not for this dtype: the law of metas looks after how that is refused
                    if wanted == self.dtypes[0]:
                        broken.append(f"{self.name}: {case}: refused: {type(e).__name__}: {e} [{_where(e)}]")
                except Broken as e:
                    broken.append(f"{self.name}: {case}: {e}")
                except Exception as e:  # noqa: BLE001  a crash breaks the law too
                    broken.append(f"{self.name}: {case}: {type(e).__name__}: {e} [{_where(e)}]")
        if broken:
            raise Broken("\n".join(broken))


def _where(e: BaseException) -> str:
    tb, last = e.__traceback__, ""
    while tb is not None:
        code = tb.tb_frame.f_code
        last = f"{code.co_filename.rpartition('/')[2]}:{tb.tb_lineno}"
        tb = tb.tb_next
    return last


LAWS: dict[str, Law] = {}


def law(
    name: str, applies: Callable[[Op], bool], dtypes: tuple[str, ...] = ("float64",)
) -> Callable[[Callable[[Case], None]], Law]:
    """Makes a law of a check; its docstring's first sentence is the law."""

    def made(check: Callable[[Case], None]) -> Law:
        found = Law(name, " ".join((check.__doc__ or "").split()), applies, check, dtypes)
        LAWS[name] = found
        return found

    return made


def subjects(found: Law) -> list[str]:
    """The operations that a law is about."""
    return [name for name in operations() if found.applies(REGISTRY[name]) and reason(found.name, name) is None]


# ---------------------------------------------------------------- what laws are about


def functional(op: Op) -> bool:
    """Operations that leave their inputs as they are."""
    return op.kind in (PRIMITIVE, VIEW, COMPOSITE) and not op.mutates


def differentiable(op: Op) -> bool:
    return functional(op) and op.differentiable


def primitive(op: Op) -> bool:
    return op.kind == PRIMITIVE and not op.mutates


def in_place(op: Op) -> bool:
    return op.kind == INPLACE


def changes_input(op: Op) -> bool:
    """Operations on tensors themselves whose name says that they change the first one."""
    return op.kind == SPECIAL and op.name.endswith("_")


def anything(op: Op) -> bool:
    return True
