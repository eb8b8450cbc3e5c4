"""How much training a candidate gets, and when it is asked for its accuracy. Pure."""

from __future__ import annotations

import dataclasses

from nas.core.errors import OptionError

SMALLEST = 32  # pixels a side that every network takes
ACCELERATORS = ("auto", "cpu", "cuda", "mps")


def check_budget(fraction: float, train_imgsz: int, batch_size: int, accelerator: str) -> None:
    """Do nothing if a budget can be.

    Raises:
        OptionError: the first part that cannot; the message names its limits.
    """
    if not 0 <= fraction <= 1:
        raise OptionError(f"fraction must be above 0 and at most 1, not {fraction}")
    if train_imgsz and train_imgsz < SMALLEST:
        raise OptionError(f"train_imgsz must be at least {SMALLEST} pixels, not {train_imgsz}")
    if batch_size < 0:
        raise OptionError(f"batch_size must be at least 1, not {batch_size}")
    if accelerator not in ACCELERATORS:
        known = ", ".join(ACCELERATORS)
        raise OptionError(f"accelerator must be one of {known}, not {accelerator!r}")


@dataclasses.dataclass(frozen=True)
class TrainingBudget:
    """How much training a candidate gets; epochs and batch_size of 0: as the recipe has it.

    `seconds`: instead of epochs, which are hundredths of a candidate's own then; 0: none. `probe`:
    a linear probe is all.
    """

    epochs: int
    fraction: float
    imgsz: int
    batch_size: int
    seconds: float = 0.0
    probe: bool = False


def rungs(epochs: int, first: int = 1) -> tuple[int, ...]:
    """Return the epochs at which a training is evaluated: powers of two, and the last.

    None before epoch `first`.
    """
    if epochs < 1:
        raise OptionError(f"epochs must be at least 1, not {epochs}")
    steps = [2**power for power in range(epochs.bit_length()) if first <= 2**power < epochs]
    return (*steps, epochs)
