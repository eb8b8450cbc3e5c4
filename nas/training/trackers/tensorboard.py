"""TensorBoard: event files in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.interfaces import Tracker
from nas.training.tracking import need


def make(folder: Path, name: str, config: dict[str, Any]) -> Tracker:
    """Return a tracker that writes event files to `tensorboard/` in the folder.

    Raises:
        MissingError: tensorboard is not installed.
    """
    need("tensorboard")
    return TensorBoard(folder / "tensorboard", config)


class TensorBoard:
    """Scalars by epoch; the configuration as text."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.title = f"tensorboard --logdir {folder}"
        self._writer = need("torch.utils.tensorboard").SummaryWriter(str(folder))
        text = json.dumps(config, indent=1, default=str)
        self._writer.add_text("config", f"```json\n{text}\n```")

    def row(self, step: int, numbers: Mapping[str, float]) -> None:
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()  # an epoch is rare, and a kill comes unasked

    def close(self) -> None:
        self._writer.close()
