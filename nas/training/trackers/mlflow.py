"""MLflow: where MLFLOW_TRACKING_URI says, else what `mlflow ui` opens in this directory."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.interfaces import Tracker
from nas.training.tracking import need, remember, remembered

LONGEST = 500  # characters of a parameter's value that every server takes


def make(folder: Path, name: str, config: dict[str, Any]) -> Tracker:
    """Return a tracker of experiment $MLFLOW_EXPERIMENT_NAME (default: nas).

    Raises:
        MissingError: mlflow is not installed.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
    need("mlflow")
    run_id = remembered(folder, "mlflow")
    made = MLflow(name, config, run_id)
    remember(folder, "mlflow", made.run_id)
    return made


class MLflow:
    """One run of mlflow, through its client: the fluent functions would set globals."""

    def __init__(self, name: str, config: dict[str, Any], run_id: str) -> None:
        self._mlflow = need("mlflow")
        self._client = self._mlflow.MlflowClient()
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "nas"))
        if run_id:
            self._client.update_run(run_id, "RUNNING")
            self.run_id = run_id
        else:
            self.run_id = self._client.create_run(experiment, run_name=name).info.run_id
            self._write(config)
        self.title = f"mlflow ui --backend-store-uri {self._mlflow.get_tracking_uri()}"

    def row(self, step: int, numbers: Mapping[str, float]) -> None:
        now = round(time.time() * 1000)
        metric = self._mlflow.entities.Metric
        self._client.log_batch(
            self.run_id, metrics=[metric(key, value, now, step) for key, value in numbers.items()]
        )

    def close(self) -> None:
        self._client.set_terminated(self.run_id)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _write(self, config: dict[str, Any]) -> None:
        param = self._mlflow.entities.Param
        pairs = flat(config).items()
        params = [param(key, str(value)[:LONGEST]) for key, value in pairs]
        self._client.log_batch(self.run_id, params=params)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, its keys joined by dots."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
