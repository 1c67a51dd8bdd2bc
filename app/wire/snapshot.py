"""A session as one safetensors file: its tensors under their names, and about them one metadata entry, `curlgrad`.

Any reader of safetensors sees a state dict. What the format lacks, complex128, is float64 with a last dimension of 2,
as `torch.view_as_real` has it; the entry says which those are. engine/portable.py says what is in the
entry, which is JSON (an infinite threshold of the print options is the string "Infinity" there).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from app.wire import safetensors
from app.wire.arrays import Body, Parts
from engine.errors import Hint, Invalid, Malformed
from engine.service import ArrayData, TensorAnswer

ENTRY = "curlgrad"
MEDIA_TYPE = safetensors.MEDIA_TYPE
_INFINITY = "Infinity"


def write(snapshot: Mapping[str, Any]) -> tuple[dict[str, str], Parts]:
    """The file of what the engine says of a session: `about`, and `tensors` with values."""
    about = dict(snapshot["about"])
    options = about["print_options"]
    about["print_options"] = {name: _INFINITY if value == math.inf else value for name, value in options.items()}
    tensors = {key: _as_pairs(answer) for key, answer in snapshot["tensors"].items()}
    return safetensors.write(tensors, {ENTRY: json.dumps(about, allow_nan=False)})


def _as_pairs(answer: TensorAnswer) -> TensorAnswer:
    if answer.dtype != "complex128" or answer.values is None:
        return answer
    pairs = np.ascontiguousarray(answer.values).reshape(-1).view(np.float64).reshape(*answer.shape, 2)
    return replace(answer, dtype="float64", values=pairs)


def read(body: Body) -> dict[str, Any]:
    """What `write` wrote: {"about", "arrays"}. The engine checks what the description says.

    Raises Malformed where the bytes are no safetensors file, Invalid where the file is of no session.
    """
    file = safetensors.read_file(body)
    arrays, metadata = file.tensors, file.metadata
    if ENTRY not in metadata:
        raise Invalid(
            f"the file is of no session: its metadata have no entry {ENTRY!r}",
            code="no-snapshot",
            hint=Hint("snapshot-how"),
        )
    try:
        about = json.loads(metadata[ENTRY])
    except (ValueError, RecursionError):
        raise Malformed(f"the metadata entry {ENTRY!r} is not JSON", hint=Hint("snapshot-how")) from None
    options = about.get("print_options") if type(about) is dict else None
    if type(options) is dict and options.get("threshold") == _INFINITY:
        options["threshold"] = math.inf
    rows = about.get("tensors") if type(about) is dict else None
    if type(rows) is dict:
        for key, row in rows.items():
            found = arrays.get(key)
            if found is not None and type(row) is dict and row.get("dtype") == "complex128":
                arrays[key] = _of_pairs(found)
    return {"about": about, "arrays": arrays}


def _of_pairs(data: ArrayData) -> ArrayData:
    """complex128 of its parts; what cannot be that stays as it is, and is refused as not as described."""
    if data.dtype != "float64" or data.array.ndim == 0 or data.array.shape[-1] != 2:
        return data
    array = np.ascontiguousarray(data.array)
    return ArrayData(array.reshape(-1).view(np.complex128).reshape(array.shape[:-1]), "complex128")
