"""The short-time Fourier transform and its inverse."""

from __future__ import annotations

from typing import Any

from engine.carriers import K
from engine.declare import Array, composite, op
from engine.dtypes import COMPLEX, FLOAT, scalar_type, tensor_type
from engine.errors import DtypeMismatch, Invalid, ShapeMismatch
from engine.op import Spec
from engine.ops.common import not_implemented
from engine.ops.fft import BY_N, BY_ROOT, UNSCALED
from engine.samples import C, S, T
from engine.shapes import text, wrap_dim

_HAMMING = T(4, values=[0.1, 0.9, 1.0, 0.6], dtype="float32", grad=False)

# ---------------------------------------------------------------- PyTorch's words


def _type(F: Any, x: Any) -> str:
    return tensor_type(F.dtype(x))


def _call(F: Any, name: str, x: Any, n_fft: int, hop: int, width: int, window: Any, **options: Any) -> str:
    """The call as PyTorch shows it in front of what is wrong with it."""
    shown = "None" if window is None else f"{_type(F, window)}{{{text(F.shape(window))}}}"
    rest = "".join(f", {key}={'None' if value is None else int(value)}" for key, value in options.items())
    return (
        f"{name}({_type(F, x)}{text(F.shape(x))}, n_fft={n_fft}, hop_length={hop}, win_length={width}, "
        f"window={shown}{rest}) "
    )


_ONESIDED = "Cannot have onesided output if window or input is complex"


# ---------------------------------------------------------------- forth


def _centred(F: Any, window: Any, n_fft: int, length: int) -> Any:
    left = (n_fft - length) // 2
    return F.constant_pad_nd(window, (left, n_fft - length - left), 0)


def _check_frames(F: Any, x: Any, count: int, n_fft: int, hop: int) -> None:
    """Refuses frames that reach beyond the signal, as PyTorch does where it pads by one less than a frame needs."""
    n, total = F.shape(x)
    size = F.dtype(x).itemsize
    if n and (count - 1) * hop + n_fft > total:
        needed = ((n - 1) * total + (count - 1) * hop + n_fft) * size
        raise ShapeMismatch(
            f"setStorage: sizes {text((n, count, n_fft))}, strides {text((total, hop, 1))}, storage offset 0, and "
            f"itemsize {size} requiring a storage size of {needed} are out of bounds for storage of size "
            f"{n * total * size}",
            param="align_to_window",
        )


@composite(
    family="fft",
    samples=[
        S(T(10), 4, return_complex=True),
        S(T(2, 9), 4, 2, 4, _HAMMING, center=False, return_complex=True),
        S(T(9), 4, win_length=3, normalized=True, onesided=False, pad_mode="constant", return_complex=False),
        S(C(8), 4),
        S(T(9), 4, 2, 2, center=False, align_to_window=True, return_complex=True),
    ],
)
def stft(
    F: Any,
    input: Array,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Array | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Array:
    """Transforms of the frames of a signal, each times a window: (batch, frequencies, frames).

    A frame has `n_fft` samples and begins `hop_length` (n_fft // 4) after the one before; with `center` it is its
    middle that is there, and the signal is padded. Real results have real and imaginary parts as a last dimension.
    """
    if center and align_to_window is not None:
        raise Invalid("stft align_to_window should only be set when center = false", param="align_to_window")
    shape = F.shape(input)
    x = input
    if center:
        x = F.reshape(x, (1,) * (3 - len(shape)) + shape)
        x = F.pad(x, [n_fft // 2, n_fft // 2], pad_mode)
        x = F.reshape(x, F.shape(x)[-len(shape) :])
    hop = n_fft >> 2 if hop_length is None else hop_length
    length = n_fft if win_length is None else win_length
    complex_window = window is not None and F.dtype(window).is_complex
    as_complex = return_complex
    if as_complex is None:
        as_complex = F.dtype(input).is_complex or complex_window
        if not as_complex:
            raise Invalid(
                "stft requires the return_complex parameter be given for real inputs, and will further require that "
                "return_complex=True in a future PyTorch release.",
                param="return_complex",
            )
    call = _call(
        F,
        "stft",
        x,
        n_fft,
        hop,
        length,
        window,
        normalized=normalized,
        onesided=onesided,
        return_complex=return_complex,
        align_to_window=align_to_window,
    )
    if F.dtype(input).category < FLOAT:
        raise DtypeMismatch(call + ": expected a tensor of floating point or complex values", param="input")
    if len(shape) not in (1, 2):
        raise ShapeMismatch(call + ": expected a 1D or 2D tensor", param="input")
    if len(shape) == 1:
        x = F.unsqueeze(x, 0)
    total = F.shape(x)[1]
    if not 0 < n_fft <= total:
        raise ShapeMismatch(f"{call}: expected 0 < n_fft < {total}, but got n_fft={length}", param="n_fft")
    if hop <= 0:
        raise Invalid(f"{call}: expected hop_length > 0, but got hop_length={hop}", param="hop_length")
    if not 0 < length <= n_fft:
        raise Invalid(f"{call}: expected 0 < win_length <= n_fft, but got win_length={length}", param="win_length")
    if window is not None and F.shape(window) != (length,):
        raise ShapeMismatch(
            f"{call}: expected a 1D window tensor of size equal to win_length={length}, but got window with size "
            f"{text(F.shape(window))}",
            param="window",
        )
    if align_to_window:
        left = (n_fft - length) // 2
        x = F.constant_pad_nd(x, (left, left), 0)
        _check_frames(F, x, 1 + (total - length) // hop, n_fft, hop)
    frames = F.unfold(x, 1, n_fft, hop)
    if window is not None or length < n_fft:
        taper = window
        if taper is None:
            taper = F.new_ones(input, (length,))
        if length < n_fft:
            taper = _centred(F, taper, n_fft, length)
        frames = F.mul(frames, taper)
    d = F.dtype(frames)
    if d.reduced:
        raise DtypeMismatch(
            f"MKL FFT doesn't support tensors of type: {scalar_type(d)}", code="dtype-not-implemented", param="input"
        )
    scale = BY_ROOT if normalized else UNSCALED
    if d.is_complex:
        if onesided:
            raise Invalid(_ONESIDED, param="onesided")
        made = F._fft_c2c(frames, (2,), scale, True)
    else:
        made = F._fft_r2c(frames, (2,), scale, onesided is None or onesided)
    made = F.transpose(made, 1, 2)
    if len(shape) == 1:
        made = F.squeeze(made, 0)
    return made if as_complex else F.view_as_real(made)


# ---------------------------------------------------------------- back


def _envelope_meta(k: K, input: Spec, call: str) -> Spec:
    if input.dtype.category < FLOAT:
        raise not_implemented("istft", input.dtype)
    if not input.numel:
        raise ShapeMismatch(
            "min(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim with the "
            "'dim' argument.",
            param="input",
        )
    return input


@op(family="fft", meta=_envelope_meta, save={"input": ()}, samples=[S(T(3, low=0.5, high=2.0), "")])
def _envelope(k: K, input: Array, call: str) -> Array:
    """What overlapping windows add up to: the input, refused where it is 0 somewhere, since it is a divisor."""
    return input.copy()


@_envelope.guard
def _(k: K, input: Any, call: str) -> None:
    if float(k.xp.abs(input).min()) < 1e-11:
        raise Invalid(f"{call}window overlap add min: 1", code="window-overlap", param="window")


@_envelope.vjp
def _(F: Any, saved: Any, g: Any, need: Any) -> Any:
    return g


@composite(
    family="fft",
    samples=[
        S(C(3, 5), 4),
        S(C(2, 3, 5), 4, 2, 4, _HAMMING, length=9),
        S(C(4, 4), 4, 1, 3, normalized=True, onesided=False, return_complex=True),
        S(C(4, 4), 4, onesided=False, length=5),
    ],
)
def istft(
    F: Any,
    input: Array,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Array | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Array:
    """The signal of which `input` is the `stft`, by least squares.

    Overlapping frames are added up and divided by the sum of the squared windows (Griffin and Lim, 1984). `length` cuts
    the signal, or fills it up with zeros.
    """
    hop = n_fft >> 2 if hop_length is None else hop_length
    width = n_fft if win_length is None else win_length
    if not F.dtype(input).is_complex:
        raise DtypeMismatch(
            "istft requires a complex-valued input tensor matching the output from stft with return_complex=True.",
            param="input",
        )
    shape = F.shape(input)
    ndim = len(shape) + 1
    wrap_dim(-2, ndim)
    wrap_dim(-3, ndim)
    bins, frames = shape[-2], shape[-1]
    total = n_fft + hop * (frames - 1)
    call = _call(
        F,
        "istft",
        input,
        n_fft,
        hop,
        width,
        window,
        center=center,
        normalized=normalized,
        onesided=onesided,
        length=length,
        return_complex=return_complex,
    )

    def refuse(words: str, param: str) -> None:
        raise ShapeMismatch(f"{call}: {words}", param=param)

    if 0 in shape:
        refuse("input tensor cannot be empty.", "input")
    if ndim not in (3, 4):
        refuse(f"expected a tensor with 3 or 4 dimensions, but got {ndim}", "input")
    one = bins != n_fft if onesided is None else onesided
    where = "expected the frequency dimension (3rd to the last) of the input tensor to match n_fft"
    if one and n_fft // 2 + 1 != bins:
        refuse(f"{where} / 2 + 1 when onesided=True, but got {bins}", "n_fft")
    if not one and n_fft != bins:
        refuse(f"{where} when onesided=False, but got {bins}", "n_fft")
    if not 0 < hop <= width:
        refuse("expected 0 < hop_length <= win_length", "hop_length")
    if not 0 < width <= n_fft:
        refuse("expected 0 < win_length <= n_fft", "win_length")
    if window is not None and F.shape(window) != (width,):
        refuse("Invalid window shape. window has to be 1D and length of `win_length`", "window")
    taper = window if window is not None else F.new_ones(F.real(input), (width,))
    if width != n_fft:
        taper = _centred(F, taper, n_fft, width)
    x = F.transpose(F.unsqueeze(input, 0) if ndim == 3 else input, 1, 2)
    scale = BY_ROOT if normalized else BY_N
    if return_complex:
        if one:
            raise Invalid(_ONESIDED, param="onesided")
        x = F._fft_c2c(x, (2,), scale, False)
    else:
        if window is not None and F.dtype(window).category == COMPLEX:
            raise Invalid("Complex windows are incompatible with return_complex=False", param="window")
        if not one:
            x = F._slice(x, 2, 0, n_fft // 2 + 1, 1)
        x = F._fft_c2r(x, (2,), scale, n_fft)
    y = F._unfold_backward(F.mul(x, taper), (F.shape(x)[0], total), 1, n_fft, hop)
    squares = F.expand(F.pow(taper, 2), (1, frames, n_fft))
    squares = F._unfold_backward(squares, (1, total), 1, n_fft, hop)
    start = n_fft // 2 if center else 0
    end = start + length if length is not None else -(n_fft // 2) if center else total
    start, end, _ = slice(start, end).indices(total)
    y, squares = (F._slice(z, 1, start, max(end, start), 1) for z in (y, squares))
    made = F.div(y, F._envelope(squares, call))
    if ndim == 3:
        made = F.squeeze(made, 0)
    if length is not None and length > F.shape(made)[-1]:
        made = F.constant_pad_nd(made, (0, length - F.shape(made)[-1]), 0)
    return made
