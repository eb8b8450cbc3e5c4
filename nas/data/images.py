"""One image: from an encoded file of any common kind to uint8 RGB, and to a smaller size."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nas.core.errors import MissingError, first_line

if TYPE_CHECKING:
    from PIL import Image

Array = npt.NDArray[np.uint8]

# what a file name promises; what is inside decides. Nothing else is opened: Pillow would hand
# PostScript to a program
SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pbm": "PPM",
    ".pnm": "PPM",
    ".avif": "AVIF",
    ".jp2": "JPEG2000",
}
# MPO: a JPEG with a second picture behind it, as phones write
FORMATS = (*dict.fromkeys(SUFFIXES.values()), "MPO")
# a file of some bytes may claim any size; Pillow only warns above this many
MAX_PIXELS = 89_478_485
_ORIENTATION = 0x0112


class Header(NamedTuple):
    """What an encoded image says of itself. `turned`: its EXIF asks for a rotation or a flip."""

    format: str
    mode: str
    turned: bool


Range = tuple[float, float]


@dataclass(frozen=True)
class Decoding:
    """How images become 8-bit RGB where that is a choice.

    `whole`, `fractions`: the values that become black and white, of whole numbers beyond 8 bits and
    of fractions; None: 0 and 65535 (the upper byte), and fractions cannot be read. `background`:
    the gray level behind what is transparent.
    """

    whole: Range | None = None
    fractions: Range | None = None
    background: int = 255


PLAIN = Decoding()


def decode(
    data: bytes | Array, *, at_least: int | None = None, decoding: Decoding = PLAIN
) -> Array:
    """Return an image as RGB (H, W, 3), turned as its EXIF says, transparency on a background.

    Gray, palette, 16-bit, CMYK and other images are converted; of an animation the first frame is
    taken. Where all is transparent the colours are taken as they are. With `at_least` the caller
    needs a short side of that many pixels only, and a larger JPEG may be decoded at 1/2, 1/4 or 1/8
    of its size, never below twice `at_least`.

    Raises:
        OSError: empty, truncated, no image or too large to be safe; the message is a short reason.
        MissingError: Pillow is not installed.
    """
    if not isinstance(data, bytes):
        return _from_array(data)
    image = _open(data)
    with _reasons():
        if at_least:
            image.draft(None, (2 * at_least, 2 * at_least))
        image.load()
        return np.array(_rgb(_upright(image), decoding))


def values(data: bytes) -> npt.NDArray[Any] | None:
    """Return the values (H, W) of an image of more than 8 bits; None of another.

    They are of a type of whole numbers or of fractions, as the file has them.

    Raises:
        OSError: as `decode`.
    """
    image = _open(data)
    if image.mode != "F" and not image.mode.startswith("I"):
        return None
    with _reasons():
        image.load()
        return np.asarray(image)


def layers(data: bytes) -> tuple[Array, Array] | None:
    """Return gray (H, W) and opacity (H, W) of an image that is transparent in part, else None.

    Raises:
        OSError: as `decode`.
    """
    image = _open(data)
    with _reasons():
        if not _has_alpha(image):
            return None
        image.load()
        layer = image.convert("RGBA")
        alpha = np.asarray(layer)[..., 3]
        return None if not alpha.any() or alpha.all() else (np.asarray(layer.convert("L")), alpha)


def header(data: bytes | Array) -> Header:
    """Return what an image is, without decoding it.

    Raises:
        OSError: empty, no image or too large to be safe.
    """
    if not isinstance(data, bytes):
        return Header("array", "L" if data.ndim == 2 else "RGB", False)
    image = _open(data)
    with _reasons():
        name = "JPEG" if image.format == "MPO" else str(image.format)
        return Header(name, image.mode, _is_turned(image))


def shrink(pixels: Array, side: int) -> Array:
    """Return an image (H, W, 3) with its short side reduced to `side`, antialiased.

    A smaller image is returned as it is.
    """
    from PIL import Image

    height, width = pixels.shape[:2]
    short = min(height, width)
    if short <= side:
        return pixels
    size = (round(width * side / short), round(height * side / short))
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def fitting_side(short: float) -> int:
    """Return the side to train at for images of this short side: a multiple of 32 in 32..224.

    Images are not enlarged, but for those below 32 pixels: five halvings leave one pixel of 32.
    """
    return int(min(max(32 * (short // 32), 32), 224))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Pillow's warnings about odd files off the screen, also those of other threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(data: bytes) -> Image.Image:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingError(f"images are read by Pillow ({error}): pip install pillow") from error
    if not data:
        raise OSError("empty file")
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    try:
        image = Image.open(io.BytesIO(data), formats=known)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise OSError(_too_large("too many")) from None
    except Exception as error:
        raise OSError(f"no readable image: it starts with {data[:12]!r}") from error
    if image.width * image.height > MAX_PIXELS:
        raise OSError(_too_large(f"{image.width} × {image.height}"))
    return image


def _too_large(size: str) -> str:
    return f"{size} pixels; up to {MAX_PIXELS:,} are safe to decode"


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """Turn whatever a decoder raises on a damaged file into OSError with a short reason."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise OSError(first_line(error, 100)) from error


def _upright(image: Image.Image) -> Image.Image:
    """Return a loaded image turned as its EXIF says; damaged EXIF says nothing."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image) if _is_turned(image) else image
    except MemoryError:
        raise
    except Exception:
        return image


def _is_turned(image: Image.Image) -> bool:
    return image.getexif().get(_ORIENTATION, 1) not in (0, 1)


def _rgb(image: Image.Image, decoding: Decoding) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I"):
        return _from_whole(image, decoding.whole)
    if image.mode == "F":
        if decoding.fractions is None:
            raise OSError("mode F: fractions have no fixed range from black to white")
        return _scaled(np.asarray(image), decoding.fractions)
    if _has_alpha(image):
        layer = image.convert("RGBA")
        if layer.getchannel("A").getextrema() == (0, 0):
            return layer.convert("RGB")  # else nothing would be left
        behind = Image.new("RGBA", layer.size, (decoding.background,) * 3 + (255,))
        return Image.alpha_composite(behind, layer).convert("RGB")
    return image.convert("RGB")


def _has_alpha(image: Image.Image) -> bool:
    if image.mode.startswith(("I", "F")):
        return False
    return "A" in image.mode.upper().replace("LAB", "") or "transparency" in image.info


def _from_whole(image: Image.Image, whole: Range | None) -> Image.Image:
    """Return whole numbers of more than 8 bits as RGB; Pillow itself would cut at 255."""
    from PIL import Image

    found = np.asarray(image)
    if whole is not None:
        return _scaled(found, whole)
    found = found.astype(np.int64)
    if found.min() < 0 or found.max() > 65535:
        raise OSError("mode I: whole numbers beyond 16 bits have no fixed range")
    return Image.fromarray((found >> 8).astype(np.uint8)).convert("RGB")


def _scaled(found: npt.NDArray[Any], between: Range) -> Image.Image:
    """Return numbers as gray, the range from black to white; what is none is black."""
    from PIL import Image

    low, high = between
    shares = np.nan_to_num((found.astype(np.float64) - low) / (high - low), nan=0.0)
    levels = np.floor(255 * np.clip(shares, 0, 1) + 0.5).astype(np.uint8)
    return Image.fromarray(levels).convert("RGB")


def _from_array(data: Array) -> Array:
    if data.dtype != np.uint8:
        raise OSError(f"an array of {data.dtype}, not uint8")
    if data.ndim == 2:
        data = data[..., None]
    if data.ndim != 3 or data.shape[2] not in (1, 3) or not data.size:
        raise OSError(f"an array of shape {data.shape}, not (H, W) or (H, W, 3)")
    return np.ascontiguousarray(np.broadcast_to(data, (*data.shape[:2], 3)))
