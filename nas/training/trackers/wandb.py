"""Weights & Biases: offline unless the user has logged in or set WANDB_MODE."""

from __future__ import annotations

import contextlib
import netrc
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.interfaces import Tracker
from nas.training.tracking import need, remember, remembered


def make(folder: Path, name: str, config: dict[str, Any]) -> Tracker:
    """Return a tracker of project $WANDB_PROJECT (default: nas); its files lie in the folder.

    Raises:
        MissingError: wandb is not installed.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when it is imported
    need("wandb")
    run_id = remembered(folder, "wandb") or uuid.uuid4().hex
    made = Wandb(folder, name, config, run_id)
    remember(folder, "wandb", run_id)
    return made


class Wandb:
    """One run of wandb, with the epoch as its step."""

    def __init__(self, folder: Path, name: str, config: dict[str, Any], run_id: str) -> None:
        wandb = need("wandb")
        # the console belongs to the live bar, and stdout to the result
        settings = wandb.Settings(console="off", silent=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "nas"),
            name=name,
            id=run_id,
            resume="allow",
            dir=str(folder),
            config=config,
            mode=mode(),
            settings=settings,
        )
        self._run.define_metric("*", step_metric="epoch")
        files = folder / "wandb" / "offline-run-*"
        offline = f"offline; upload: wandb sync {files}"
        self.title: str = offline if self._run.offline else self._run.url or "switched off"

    def row(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log({**numbers, "epoch": step})

    def close(self) -> None:
        self._run.finish()


def mode() -> str | None:
    """Return None, which leaves it to wandb, if the user has set it up; else offline."""
    if os.environ.get("WANDB_MODE") or os.environ.get("WANDB_API_KEY"):
        return None
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").rpartition("//")[2]
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        if netrc.netrc(os.environ.get("NETRC")).authenticators(host.partition("/")[0]):
            return None
    return "offline"
