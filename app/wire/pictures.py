"""image/png and image/jpeg: a picture as uint8, height x width x channels.

What `numpy.array(PIL.Image.open(f))` gives, with one difference: a grey picture has one channel and not none, as
torchvision's decode_image has it, so that a picture always has three dimensions and `permute` [2, 0, 1] always gives
torch's channels x height x width. RGB has 3 channels, grey with alpha 2, RGBA 4. A palette is replaced by its colours
(with alpha if it has transparent ones), black and white is 0 and 255, CMYK becomes RGB. 16 bits a channel would lose
half their bits and are refused. The orientation that a camera noted is not applied, as PIL does not.

The size is read from the header and held against a limit before a pixel is decoded.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image

from engine.errors import Hint, Malformed, TooLarge, WrongType
from engine.service import ArrayData

PNG = "image/png"
JPEG = "image/jpeg"
MAX_PIXELS = 50_000_000  # 200 MB as RGBA; a small file may claim billions
_FORMATS = {PNG: "PNG", JPEG: "JPEG"}
_AS_IS = ("L", "LA", "RGB", "RGBA")


def read(body: bytes, media_type: str) -> ArrayData:
    """The picture in `body`, which must be of this media type.

    Raises Malformed where it is none or broken off, WrongType for 16 bits a channel, TooLarge for more than MAX_PIXELS.
    """
    kind = _FORMATS[media_type]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is the lower one
            with Image.open(io.BytesIO(body), formats=(kind,)) as picture:
                _check(picture, body, kind)
                decoded = _plain(picture)
    except Image.DecompressionBombError:
        raise _too_large("") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError) as error:
        # Pillow says so of files that are broken in one way or another: nothing else is done inside.
        raise Malformed(
            f"the body is not a {kind} picture that can be read: {type(error).__name__}",
            code="not-a-picture",
            hint=Hint("picture-how"),
        ) from None
    array = np.array(decoded, np.uint8)
    return ArrayData(np.ascontiguousarray(array.reshape(decoded.height, decoded.width, -1)), "uint8")


def _check(picture: Image.Image, body: bytes, kind: str) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise _too_large(f" of {picture.height} x {picture.width}")
    # Pillow narrows the 16-bit colours of a PNG silently; byte 24, in the header, is the depth.
    if picture.mode.startswith(("I", "F")) or (kind == "PNG" and body[24:25] == b"\x10"):
        raise WrongType(
            "the picture has 16 bits a channel; 8 are read", code="picture-depth", hint=Hint("picture-depth")
        )


def _plain(picture: Image.Image) -> Image.Image:
    """The decoded picture in one of the modes that are channels of 8 bits."""
    picture.load()
    if picture.mode in _AS_IS:
        return picture.copy()
    if picture.mode == "1":
        return picture.convert("L")
    return picture.convert("RGBA" if picture.mode == "P" and "transparency" in picture.info else "RGB")


def _too_large(size: str) -> TooLarge:
    return TooLarge(
        f"the picture{size} has more than {MAX_PIXELS} pixels", code="picture-too-large", hint=Hint("picture-size")
    )
