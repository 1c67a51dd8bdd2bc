"""torch.cuda: which devices there are, and what is held on them. A session asks about its own tensors.

Sources: PyTorch's documentation of torch.cuda. Without CUDA the questions that PyTorch answers then are answered here
too (no devices, nothing allocated); the others are refused in its words.
"""

from __future__ import annotations

from typing import Any

from engine.backend import Backend, devices_hint
from engine.context import Context
from engine.declare import Device, special
from engine.errors import Hint, NoSuchDevice


def _offered(ctx: Context) -> list[str]:
    """The server's CUDA devices; a session that is empty still moves to the one that it asks for."""
    return [name for name in ctx.offered if name.startswith("cuda")]


def _named(ctx: Context, device: str | int | None) -> str:
    """The device that is meant: by number, by name, or the session's own or first one. Raises NoSuchDevice."""
    have = _offered(ctx)
    if not have:
        raise NoSuchDevice(
            "Torch not compiled with CUDA enabled", hint=devices_hint("cuda", ctx.offered), param="device"
        )
    if device is None or device == "cuda":
        own = [ctx.default_backend.name, *ctx.devices]
        return next((name for name in own if name.startswith("cuda")), have[0])
    return f"cuda:{device}" if isinstance(device, int) else device


def _backend(ctx: Context, device: str | int | None) -> Backend:
    name = _named(ctx, device)
    if not name.startswith("cuda"):
        raise NoSuchDevice(
            f"Expected a cuda device, but got: {name}", hint=Hint("device-here", devices=_offered(ctx)), param="device"
        )
    return ctx.find(name)


@special(family="cuda", name="cuda.is_available", returns="value", example={})
def is_available(ctx: Context) -> bool:
    """Whether this server has a CUDA device."""
    return bool(_offered(ctx))


@special(family="cuda", name="cuda.device_count", returns="value", example={})
def device_count(ctx: Context) -> int:
    """How many CUDA devices this server has."""
    return len(_offered(ctx))


@special(family="cuda", name="cuda.current_device", returns="value", example={})
def current_device(ctx: Context) -> int:
    """The number of the device that "cuda" stands for in this session. Refused where there is none."""
    return int(_named(ctx, None).partition(":")[2])


@special(family="cuda", name="cuda.get_device_name", returns="value", example={})
def get_device_name(ctx: Context, device: Device | int | None = None) -> str:
    """What the device is, as its maker calls it. Refused where there is none."""
    return _backend(ctx, device).model


@special(family="cuda", name="cuda.memory_allocated", returns="value", example={})
def memory_allocated(ctx: Context, device: Device | int | None = None) -> int:
    """Bytes that this session's tensors, gradients and tapes take on the device; 0 where there is none."""
    if not _offered(ctx):
        return 0
    return ctx.ledger.on_devices.get(_backend(ctx, device).name, 0)


@special(family="cuda", name="cuda.memory_reserved", returns="value", example={})
def memory_reserved(ctx: Context, device: Device | int | None = None) -> int:
    """Bytes that the server's allocator holds on the device, for all sessions; 0 where there is none."""
    if not _offered(ctx):
        return 0
    backend = _backend(ctx, device)
    memory = backend.memory()
    return ctx.ledger.on_devices.get(backend.name, 0) if memory is None else memory["held"]


@special(family="cuda", name="cuda.mem_get_info", returns="value", example={})
def mem_get_info(ctx: Context, device: Device | int | None = None) -> Any:
    """Free and total bytes of the device's memory. Refused where there is none; a simulated one has the session's."""
    backend = _backend(ctx, device)
    memory = backend.memory()
    if memory is not None:
        return [memory["free"], memory["total"]]
    return [max(0, ctx.ledger.limit - ctx.ledger.held), ctx.ledger.limit]


@special(family="cuda", name="cuda.synchronize", returns="value", example={})
def synchronize(ctx: Context, device: Device | int | None = None) -> None:
    """Waits until the device has computed all that was asked of it. Refused where there is none."""
    _backend(ctx, device).synchronize()


@special(family="cuda", name="cuda.empty_cache", returns="value", example={})
def empty_cache(ctx: Context) -> None:
    """Gives memory that nothing uses back to the device; nothing happens where there is none."""
    for backend in ctx.backends:
        backend.free_unused()
