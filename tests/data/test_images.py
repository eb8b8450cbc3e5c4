"""Images: every common kind becomes RGB, upright; what is damaged says so in one short line."""

import io
import warnings
from collections.abc import Callable

import numpy as np
import pytest

from nas.data.images import MAX_PIXELS, decode, fitting_side, header, quiet, shrink

Image = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(0)
# smooth, so that JPEG keeps it
RAMP = np.stack(np.broadcast_arrays(*np.ogrid[0:120:40j, 0:200:60j], 90), -1).astype(np.uint8)


def encode(image: "Image.Image", kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


NOISE = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)


def photo(kind: str = "JPEG") -> bytes:
    return encode(Image.fromarray(RAMP), kind)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF", "GIF", "WEBP", "JPEG", "JPEG2000"])
def test_every_format_gives_rgb(kind: str) -> None:
    pixels = decode(photo(kind))
    assert pixels.shape == (40, 60, 3) and pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous and pixels.flags.writeable
    # GIF has 256 colours, JPEG and WebP are lossy
    assert np.abs(pixels.astype(int) - RAMP).mean() < (0.1 if kind in ("PNG", "BMP", "PPM") else 6)


def test_gray_and_one_bit() -> None:
    gray = RAMP[..., 1]
    assert (decode(encode(Image.fromarray(gray))) == gray[..., None]).all()
    bits = decode(encode(Image.fromarray(gray > 100)))
    assert (bits == 255 * (gray > 100)[..., None]).all()


def test_transparency_is_white_however_it_is_stored() -> None:
    alpha = np.full((40, 60, 4), (200, 0, 0, 255), np.uint8)
    alpha[:20, :, 3] = 0
    rgba = Image.fromarray(alpha)
    palette = rgba.convert("RGB").quantize(4)
    palette.putpixel((0, 0), 3)
    palette.putpalette([200, 0, 0] * 3 + [0, 0, 200])
    for pixels in (decode(encode(rgba)), decode(encode(rgba, "WEBP", lossless=True))):
        assert (pixels[:20] == 255).all() and (pixels[20:] == (200, 0, 0)).all()
    # a colour, and a table of opacities, as PNG has them for palettes
    for transparency in (3, bytes([255, 255, 255, 0])):
        pixels = decode(encode(palette, transparency=transparency))
        assert (pixels[0, 0] == 255).all() and (pixels[1, 1] == (200, 0, 0)).all()
    gray = decode(encode(Image.fromarray(alpha[..., [0, 3]], "LA")))
    assert (gray[:20] == 255).all() and (gray[20:] == 200).all()
    coloured = Image.new("RGB", (4, 4), (1, 2, 3))
    coloured.putpixel((0, 0), (9, 9, 9))
    keyed = decode(encode(coloured, transparency=(1, 2, 3)))
    assert (keyed[1:] == 255).all() and (keyed[0, 0] == 9).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_is_scaled_not_cut(kind: str) -> None:
    values = np.linspace(0, 65535, 2400).reshape(40, 60).astype(np.uint16)
    pixels = decode(encode(Image.fromarray(values), kind))
    assert (pixels == (values >> 8)[..., None]).all()


def test_16_bit_of_the_other_byte_order() -> None:
    values = np.array([[0, 300, 65535]], ">u2")
    pixels = decode(encode(Image.frombytes("I;16B", (3, 1), values.tobytes()), "TIFF"))
    assert pixels[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_of_several_pictures_the_first_is_taken(kind: str) -> None:
    other = Image.new("RGB", (60, 40))
    options = {"save_all": True, "append_images": [other], "lossless": True}
    data = encode(Image.fromarray(RAMP), kind, **options)
    assert np.abs(decode(data).astype(int) - RAMP).mean() < 6
    assert header(data).format == ("JPEG" if kind == "MPO" else kind)


def test_cmyk_and_other_colours() -> None:
    red = Image.new("RGB", (16, 16), (220, 20, 20))
    for mode in ("CMYK", "YCbCr"):
        pixels = decode(encode(red.convert(mode), "JPEG"))
        assert np.abs(pixels.astype(int) - (220, 20, 20)).max() < 12, mode
    lab = decode(encode(red.convert("RGB").convert("LAB"), "TIFF"))
    assert lab.shape == (16, 16, 3)


@pytest.mark.parametrize("fractions", [True, False])
def test_numbers_without_a_range_are_refused(fractions: bool) -> None:
    values = np.full((4, 4), 0.5, np.float32) if fractions else np.full((4, 4), 1 << 20, np.int32)
    with pytest.raises(OSError, match="no fixed range"):
        decode(encode(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_image(orientation: int) -> None:
    # where the pixel at the top left of the stored image is seen
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0)}
    corner |= {5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    stored = np.zeros((20, 30, 3), np.uint8)
    stored[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(stored), "JPEG", exif=exif, quality=95)
    pixels = decode(data)
    assert pixels.shape == ((20, 30, 3) if orientation < 5 else (30, 20, 3))
    assert pixels[corner[orientation]].min() > 240 and pixels.mean() < 60
    assert header(data).turned == (orientation != 1)


def test_damaged_exif_is_no_reason_to_lose_a_photo() -> None:
    data = encode(Image.fromarray(RAMP), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")
    with quiet():
        assert decode(data).shape == RAMP.shape


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda data: b"", "empty file"),
        (lambda data: data[: len(data) // 2], "truncated|no readable image"),
        (lambda data: data[:-40], "truncated|no readable image"),
        (lambda data: data[:60], "truncated|no readable image"),
        (
            lambda data: b"<!DOCTYPE html><html>",
            "no readable image: it starts with b'<!DOCTYPE ht'",
        ),
        (lambda data: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no readable image"),
        (lambda data: b"\0" * 5000, "no readable image"),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_damage_has_a_short_reason(
    kind: str, damage: Callable[[bytes], bytes], reason: str
) -> None:
    with quiet(), pytest.raises(OSError, match=reason) as caught:
        decode(damage(encode(Image.fromarray(NOISE), kind)))
    assert "\n" not in str(caught.value) and 5 <= len(str(caught.value)) <= 120


def test_no_damage_gives_another_kind_of_error() -> None:
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"):
        data = np.frombuffer(photo(kind), np.uint8)
        for _ in range(60):
            hurt = data.copy()
            places = RNG.integers(0, min(len(data), 400), 8)
            hurt[places] = RNG.integers(0, 256, 8)
            with quiet():
                try:
                    assert decode(hurt.tobytes()).shape[2] == 3
                except OSError as error:
                    assert str(error)


@pytest.mark.parametrize("side", [9_600, 13_500])  # Pillow warns of the first, refuses the second
@pytest.mark.parametrize("action", ["error", "ignore"])
def test_a_bomb_is_an_error(side: int, action: str) -> None:
    data = encode(Image.new("1", (side, side)))
    assert len(data) < 100_000 and side**2 > MAX_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter(action)  # type: ignore[arg-type]
        for look in (decode, header):
            with pytest.raises(OSError, match="pixels; up to 89,478,485 are safe"):
                look(data)


def test_header_tells_format_and_mode_whatever_the_name_says() -> None:
    assert header(encode(Image.new("L", (4, 4)))) == ("PNG", "L", False)
    assert header(photo()) == ("JPEG", "RGB", False)
    assert header(np.zeros((4, 4), np.uint8)) == ("array", "L", False)


def test_arrays_pass() -> None:
    gray = RAMP[..., 0]
    assert (decode(gray) == gray[..., None]).all() and (decode(RAMP) == RAMP).all()
    for wrong in (RAMP.astype(np.float32), RAMP[..., :2], RAMP[:0], np.zeros(3, np.uint8)):
        with pytest.raises(OSError, match="an array of"):
            decode(wrong)  # type: ignore[arg-type]


def test_a_large_jpeg_is_decoded_small_but_never_too_small() -> None:
    large = encode(Image.fromarray(np.repeat(np.repeat(RAMP, 16, 0), 16, 1)), "JPEG")
    assert decode(large).shape == (640, 960, 3)
    assert decode(large, at_least=32).shape == (80, 120, 3)
    assert decode(large, at_least=100).shape == (320, 480, 3)
    assert decode(large, at_least=500).shape == (640, 960, 3)
    whole, part = shrink(decode(large), 32), shrink(decode(large, at_least=32), 32)
    assert np.abs(whole.astype(int) - part).mean() < 2


def test_shrink_takes_the_short_side_and_never_enlarges() -> None:
    assert shrink(RAMP, 20).shape == (20, 30, 3)
    assert shrink(RAMP.swapaxes(0, 1), 20).shape == (30, 20, 3)
    assert shrink(RAMP, 40) is RAMP and shrink(RAMP, 64) is RAMP
    fine = np.indices((64, 64)).sum(0)[..., None] % 2 * np.full(3, 255)
    # without antialiasing a checkerboard would become black or white
    assert abs(shrink(fine.astype(np.uint8), 16).mean() - 127.5) < 2


def test_the_fitting_side_is_a_multiple_of_32() -> None:
    found = [fitting_side(s) for s in (8, 31, 32, 63, 64, 160, 213.5, 224, 4000)]
    assert found == [32, 32, 32, 32, 64, 160, 192, 224, 224]
