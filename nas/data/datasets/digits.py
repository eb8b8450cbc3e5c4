"""digits: 1,797 real handwritten digits, 8 × 8 gray, that come inside scikit-learn.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (its test part), UCI
Machine Learning Repository, 1998. No download; what tests and the README use.
"""

from __future__ import annotations

import os

import numpy as np

from nas.core.errors import MissingError
from nas.data.dataset import Dataset, Split

NAMES = ("digits",)


def matches(data: str) -> bool:
    """Return whether this is the name, and no folder of the user's is called so."""
    return data == "digits" and not os.path.exists(data)


def read(data: str, *, download: bool) -> Dataset:
    """Return the digits as one train split.

    Raises:
        MissingError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingError(
            f"digits come with scikit-learn ({error}): pip install scikit-learn"
        ) from error
    found = load_digits()
    # 0..16 ink counts of 4 × 4 blocks
    images = np.rint(found.images * (255 / 16)).astype(np.uint8)
    names = [f"digit {i}" for i in range(len(images))]
    split = Split(found.target.astype(np.int64), names, lambda i: images[i])
    return Dataset("digits", tuple("0123456789"), {"train": split}, "digits-1797")
