"""How the images of a data set become 8-bit RGB: by the range of values that they really use.

16-bit files often use 10 or 12 of their bits, fractions have any range, and what is white on a
transparent ground would vanish on white. What is found here belongs to a trained model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.core.system import processors
from nas.data.dataset import Dataset, Split
from nas.data.identity import fingerprint
from nas.data.images import PLAIN, Array, Decoding, Range, layers, values
from nas.data.pixels import in_order

SAMPLED = 128  # images of the train split that are looked at
# neither more than 8 bits nor transparency
_FLAT = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".bmp"})
_OUTER = 0.001  # of an image's values, on either side: dead and hot pixels, burnt-in marks
_MOST_VALUES = 1 << 20  # of an image
_VISIBLE, _NEAR, _LOST = 128, 16, 0.9
# what can lie behind transparent pixels, in the order of preference
_BACKGROUNDS = (255, 0, 128)
_FEW_LOST = 0.05


@dataclass(frozen=True)
class _Seen:
    """What one image says: its range of values, or on which backgrounds it would vanish."""

    whole: Range | None = None
    fractions: Range | None = None
    vanishes: tuple[bool, ...] = ()


def with_decoding(dataset: Dataset) -> Dataset:
    """Return the data set with the decoding that its train split asks for, in all splits.

    Black and white are the least and the greatest value of up to 128 training images, but for the
    outer thousandth of each image's; what lies beyond in others is cut. The background is white;
    black or gray where over a twentieth of the images would vanish on white.
    """
    decoding = measured(dataset.splits["train"])
    if decoding == PLAIN:
        return dataset
    splits = {name: decoded_as(split, decoding) for name, split in dataset.splits.items()}
    return dataclasses.replace(dataset, splits=splits, notes=(*dataset.notes, *_notes(decoding)))


def decoded_as(split: Split, decoding: Decoding) -> Split:
    """Return a split that is decoded in this way."""
    known = split.fingerprint
    own = fingerprint([known, decoding]) if known and decoding != split.decoding else known
    return dataclasses.replace(split, decoding=decoding, fingerprint=own)


def measured(split: Split) -> Decoding:
    """Return the decoding that some images spread over a split ask for."""
    asked = [i for i, name in enumerate(split.names) if PurePath(name).suffix.lower() not in _FLAT]
    chosen = asked[:: max(1, -(-len(asked) // SAMPLED))]

    def several(positions: range) -> list[_Seen]:
        return [_look(split, chosen[i]) for i in positions]

    seen = list(in_order(several, len(chosen), processors()))
    vanished = [one.vanishes for one in seen if one.vanishes]
    lost = [sum(column) for column in zip(*vanished, strict=True)]
    some_lost = bool(lost) and lost[0] > _FEW_LOST * len(vanished)
    return Decoding(
        _range([one.whole for one in seen if one.whole]),
        _range([one.fractions for one in seen if one.fractions]),
        _BACKGROUNDS[lost.index(min(lost))] if some_lost else PLAIN.background,
    )


def _range(found: Sequence[Range]) -> Range | None:
    """Return the range of all, or None where all values are the same."""
    if not found:
        return None
    low, high = min(low for low, _ in found), max(high for _, high in found)
    return (low, high) if high > low else None


def _look(split: Split, i: int) -> _Seen:
    try:
        data = split.read(i)
        if not isinstance(data, bytes):
            return _Seen()
        found = values(data)
        if found is None:
            return _Seen(vanishes=_vanishes(layers(data)))
    except Exception:  # a broken image is told of where it is decoded; a reader may be the user's
        return _Seen()
    between = _used(found)
    return _Seen(whole=between) if found.dtype.kind in "iu" else _Seen(fractions=between)


def _used(found: npt.NDArray[Any]) -> Range | None:
    """Return the range of an image's values without the outer ones."""
    known = found[np.isfinite(found)]
    if not known.size:
        return None
    some = known[:: max(1, known.size // _MOST_VALUES)]
    low, high = np.quantile(some, (_OUTER, 1 - _OUTER), method="nearest")
    # a few bright pixels on an even ground are the content
    return (float(low), float(high)) if high > low else (float(known.min()), float(known.max()))


def _vanishes(found: tuple[Array, Array] | None) -> tuple[bool, ...]:
    """Return for each background whether what is visible of an image is hardly told from it."""
    if found is None:
        return ()
    gray, alpha = found
    visible = gray[alpha >= min(_VISIBLE, int(alpha.max()))].astype(np.int64)
    return tuple(bool((np.abs(visible - level) < _NEAR).mean() > _LOST) for level in _BACKGROUNDS)


def _notes(decoding: Decoding) -> Iterator[str]:
    for kind, between in (
        ("whole numbers beyond 8 bits", decoding.whole),
        ("fractions", decoding.fractions),
    ):
        if between:
            yield (
                f"{kind}: {between[0]:g} becomes black and {between[1]:g} white, the range of the "
                "training images"
            )
    if decoding.background != PLAIN.background:
        name = "black" if decoding.background == 0 else "gray"
        yield f"transparency on {name}: on white some images would vanish"
