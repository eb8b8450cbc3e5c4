"""What a finished training shows that its user must know before it is used. Pure.

One sentence, "" where nothing is wrong: on the screen, in result.json and config.json as `warning`,
in the card, and from `val`, `predict` and `export` of these weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

# of the images of the largest class alone being named as rightly: the best epoch was chosen of many
LEVEL = 0.01
BLOWN_UP = 2  # times the loss of guessing
AT_THE_START = 0.1  # of the epochs, within which no best epoch should be
FEW_EPOCHS = 5  # of which no share tells anything
FIELD = "warning"
Row = Mapping[str, float]


def diagnose(rows: Sequence[Row], labels: Sequence[int], classes: int, taught: bool = False) -> str:
    """Return what is wrong with a training, or "".

    `rows` of its epochs, as results.csv has them, or the one of the linear probe that was kept;
    `labels` of the validation images. `taught`: there is no training loss to be compared with
    guessing: a teacher's terms are in it, or nothing was trained.
    """
    scored = [row for row in rows if "val_top1" in row]
    if not scored:
        return ""
    best = max(scored, key=lambda row: row["val_top1"])
    diverged = _diverged(scored, classes, ("val_loss",) if taught else ("train_loss", "val_loss"))
    return diverged or _guesses(best, labels) or _early(best, scored, len(labels))


def _diverged(rows: Sequence[Row], classes: int, losses: Sequence[str]) -> str:
    guessing = math.log(max(2, classes))
    for name in losses:
        loss, words = rows[-1][name], "training" if name == "train_loss" else "validation"
        if not loss < BLOWN_UP * guessing:
            return (
                f"this training diverged: its {words} loss ended at {loss:.3g}, where guessing has "
                f"{guessing:.2f}; train again with a lower rate, or --recipe auto"
            )
    return ""


def _guesses(best: Row, labels: Sequence[int]) -> str:
    count = len(labels)
    if not count:
        return ""
    largest = max(labels.count(label) for label in set(labels))
    right = round(best["val_top1"] / 100 * count)
    if count > 1 and largest < count and at_least(right, count, largest / count) <= LEVEL:
        return ""
    if right == count > largest:  # too few images for any test: all right is all there is
        return ""
    return (
        f"this training is not shown to be better than always naming the largest class: "
        f"{best['val_top1']:.1f} % of {count} validation images, the largest class is "
        f"{100 * largest / count:.1f} % of them; train longer, or look at the data (nas doctor)"
    )


def _early(best: Row, rows: Sequence[Row], count: int) -> str:
    epoch, epochs = int(best["epoch"]), int(rows[-1]["epoch"])
    if epochs < FEW_EPOCHS or epoch > max(1, AT_THE_START * epochs):
        return ""
    later = max(row["val_top1"] for row in rows if row["epoch"] > epoch)
    share = (best["val_top1"] + later) / 200
    if best["val_top1"] - later <= 100 * math.sqrt(share * (1 - share) / max(1, count)):
        return ""  # as good later, but for the noise of so few images
    return (
        f"the best epoch of this training was {epoch} of {epochs}: what came after did not help; "
        "the rate may be too high, or the images too few"
    )


def at_least(right: int, count: int, share: float) -> float:
    """Return the probability of `right` or more of `count`, each with probability `share`."""
    from scipy.special import bdtrc

    return 1.0 if right <= 0 else float(bdtrc(right - 1, count, share))
