"""Images beyond 8 bits and with transparency: what becomes black, white and background, and where
it is kept."""

import io
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from nas.core.errors import RunError
from nas.data.dataset import Dataset, Split, open_dataset
from nas.data.depth import measured
from nas.data.images import PLAIN, Decoding, decode
from nas.data.splits import make_splits
from nas.exporting import plain
from nas.training.doctor import doctor
from nas.training.predict import predict, read_image
from nas.training.train import train
from nas.training.trained import load_trained, trained_input
from nas.training.val import val

Image = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(0)


def encode(pixels: npt.NDArray[np.generic], kind: str = "PNG", mode: str | None = None) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, kind)
    return file.getvalue()


def split_of(*files: bytes, suffix: str = ".png") -> Split:
    labels = np.arange(len(files), dtype=np.int64) % 2
    return Split(labels, [f"{i}{suffix}" for i in range(len(files))], lambda i: files[i])


def noise(low: float, high: float, kind: type[np.generic] = np.uint16) -> npt.NDArray[np.generic]:
    return RNG.uniform(low, high, (40, 40)).astype(kind)


def folder(root: Path, suffix: str, **classes: npt.NDArray[np.generic]) -> Path:
    for name, pixels in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(12):
            kind = "PNG" if suffix == ".png" else "TIFF"
            (root / name / f"{i}{suffix}").write_bytes(encode(np.roll(pixels, i, 0), kind))
    return root


@pytest.mark.parametrize(
    "kind, low, high, container",
    [
        (np.uint16, 0, 4096, "PNG"),  # 12 of 16 bits
        (np.uint16, 300, 360, "PNG"),
        (np.uint16, 0, 65536, "PNG"),
        (np.int32, -1000, 3000, "TIFF"),  # Hounsfield units
        (np.int32, 0, 1 << 20, "TIFF"),
        (np.float32, 0, 1, "TIFF"),
        (np.float32, -40, 120, "TIFF"),
    ],
)
def test_the_range_that_is_used_becomes_black_to_white(
    kind: type[np.generic], low: float, high: float, container: str
) -> None:
    files = [encode(noise(low, high, kind), container) for _ in range(6)]
    found = measured(split_of(*files))
    between = found.fractions if kind is np.float32 else found.whole
    assert between is not None
    assert np.allclose(between, (low, high), atol=0.02 * (high - low))
    pixels = np.stack([decode(file, decoding=found) for file in files])
    assert pixels.min() == 0 and pixels.max() == 255
    assert len(np.unique(pixels)) >= min(256, 0.9 * (high - low)) or kind is np.float32


def test_a_hot_pixel_does_not_darken_the_rest_and_sparse_light_is_kept() -> None:
    dim = noise(1000, 1100)
    dim[0, 0] = 65535
    found = measured(split_of(encode(dim)))
    assert found.whole is not None and found.whole[1] < 1101
    dark = np.zeros((64, 64), np.uint16)
    dark[3, 3] = 900
    assert measured(split_of(encode(dark))).whole == (0, 900)


def test_what_has_no_range_is_left_as_it_is() -> None:
    gray = np.full((8, 8), 7, np.uint16)
    assert measured(split_of(encode(gray), b"", b"no image")) == PLAIN
    assert measured(split_of(encode(noise(0, 256, np.uint8)))) == PLAIN
    lacking = noise(0, 1, np.float32).astype(np.float32)
    lacking[:4] = np.nan
    found = measured(split_of(encode(lacking, "TIFF")))
    assert (decode(encode(lacking, "TIFF"), decoding=found)[:4] == 0).all()
    assert measured(split_of(encode(np.full((8, 8), np.nan, np.float32), "TIFF"))) == PLAIN


def icon(colour: int, share: float = 0.3) -> bytes:
    pixels = np.full((40, 40, 4), (colour, colour, colour, 0), np.uint8)
    pixels[: int(40 * share), :, 3] = 255
    return encode(pixels)


@pytest.mark.parametrize(
    "colours, background",
    [
        ((0, 10, 20), 255),
        ((100, 180, 250), 0),
        ((100,) * 30 + (250,), 255),  # few
        ((255, 250, 255), 0),
        ((255, 0), 128),
    ],
)
def test_what_would_vanish_on_white_gets_another_background(
    colours: tuple[int, ...], background: int
) -> None:
    files = [icon(colour) for colour in colours]
    found = measured(split_of(*files))
    assert found.background == background
    shown = [decode(file, decoding=found) for file in files]
    if background != 255:  # nothing is lost
        assert all(int(pixels.max()) - int(pixels.min()) > 90 for pixels in shown)


def test_an_image_that_is_transparent_throughout_keeps_its_colours() -> None:
    pixels = RNG.integers(0, 256, (8, 8, 4), dtype=np.uint8)
    pixels[..., 3] = 0
    assert (decode(encode(pixels)) == pixels[..., :3]).all()
    with_gray = encode(pixels[..., [0, 3]])
    assert (decode(with_gray) == pixels[..., :1]).all()


FILES = {
    "16 bit": (encode(noise(200, 460)), Decoding(whole=(210.0, 450.0))),
    "16 bit, upper byte": (encode(noise(0, 65536)), PLAIN),
    "32 bit": (encode(noise(-900, 900, np.int32), "TIFF"), Decoding(whole=(-800.0, 800.0))),
    "float": (encode(noise(0, 3, np.float32), "TIFF"), Decoding(fractions=(0.5, 2.5))),
    "one bit": (encode(noise(0, 2, np.uint8) > 0), PLAIN),
    "gray": (encode(noise(0, 256, np.uint8)), PLAIN),
    "palette": (encode(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8), mode="P"), PLAIN),
    "transparent": (icon(255), Decoding(background=0)),
    "gray and alpha": (encode(RNG.integers(0, 256, (40, 40, 2), dtype=np.uint8)), PLAIN),
    "half": (encode(RNG.integers(0, 256, (40, 40, 4), dtype=np.uint8)), Decoding(background=128)),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_standalone_export_decodes_alike(kind: str) -> None:
    data, decoding = FILES[kind]
    ours = decode(data, decoding=decoding)
    theirs = plain.to_rgb(
        Image.open(io.BytesIO(data)),
        whole=decoding.whole,
        fractions=decoding.fractions,
        background=decoding.background,
    )
    assert np.array_equal(np.asarray(theirs), ours)


def test_all_splits_are_decoded_as_train_asks_for(tmp_path: Path) -> None:
    root = folder(tmp_path, ".png", lo=noise(240, 360), hi=noise(300, 420))
    found: Dataset = make_splits(open_dataset(str(root)))
    one = found.splits["train"].decoding
    assert one.whole is not None and 235 < one.whole[0] < 250 and 410 < one.whole[1] < 425
    assert all(split.decoding == one for split in found.splits.values())
    assert any("whole numbers beyond 8 bits: 24" in note for note in found.notes)
    plain_one = open_dataset(str(root)).splits["train"]
    assert plain_one.fingerprint not in {split.fingerprint for split in found.splits.values()}


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_trained_model_keeps_how_its_images_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    kind = np.uint16 if suffix == ".png" else np.float32
    root = folder(tmp_path / "data", suffix, lo=noise(240, 300, kind), hi=noise(380, 460, kind))
    settings = {"imgsz": 32, "epochs": 2, "batch_size": 8, "recipe": "proxy", "tracker": ["none"]}
    run = Path(train("mobilenet_v3_small", data=str(root), **settings)["run"])
    taken = trained_input(load_trained(run)[1])
    between = taken.decoding.whole if suffix == ".png" else taken.decoding.fractions
    assert between is not None and between[0] < 250 and between[1] > 450
    dark = read_image(root / "lo" / f"0{suffix}", taken)
    light = read_image(root / "hi" / f"0{suffix}", taken)
    assert not isinstance(dark, str) and not isinstance(light, str)
    assert dark.mean() < 80 and light.mean() > 160  # as in training, not 1 and 1 of 255
    other = folder(tmp_path / "other", suffix, lo=noise(240, 300, kind))
    said = predict(run, [other])["images"]
    hits = sum(row["top"][0]["class"] == "lo" for row in said)
    assert val(run, data=other)["top1"] == pytest.approx(100 * hits / 12)

    config = run / "config.json"
    told = json.loads(config.read_text())
    del told["checksum"]  # as one who edits it has to
    for odd in ({"whole": [5, 1]}, {"fractions": "x"}, {"background": 300}, [1]):
        config.write_text(json.dumps({**told, "decoding": odd}))
        with pytest.raises(RunError, match="decoding"):
            load_trained(run)


def test_doctor_tells_depth_and_what_shows_nothing(tmp_path: Path) -> None:
    root = folder(tmp_path / "deep", ".png", lo=noise(240, 360), hi=noise(300, 420))
    found = doctor(str(root))
    deep = found["data"]["depth"]["modes"]["I;16"]
    assert deep["images"] == 24 and 235 < deep["values"][0] < deep["values"][1] < 425
    assert deep["levels"] > 100
    assert any("(9 bits)" in finding["finding"] for finding in found["findings"])
    masks = folder(tmp_path / "masks", ".png", a=noise(0, 2, np.uint8), b=noise(0, 3, np.uint8))
    told = [f["finding"] for f in doctor(str(masks))["findings"]]
    assert any("24 of 24 images show next to nothing" in finding for finding in told)
