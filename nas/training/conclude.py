"""What a training leaves: data.json from its start; its result and card at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.core import run_folder
from nas.models.cost import count
from nas.training import distributed, model_card
from nas.training.diagnosis import FIELD, diagnose
from nas.training.loop import RESULTS
from nas.training.probe import probe_rows, read_probe
from nas.training.progress import best
from nas.training.result import HeldOutScore, TrainResult, ValScore
from nas.training.setup import Ready
from nas.training.state import Row
from nas.training.trained import CONFIG, config, load_trained
from nas.training.val import finite
from nas.training.validation import Score, validate

SCHEMA, INTERRUPTED = 1, "interrupted"
NEVER_BETTER = "no epoch was better on val than the linear probe, which is what was kept"
RESULT, CONFUSION = "result.json", "confusion_matrix.json"


def described_data(ready: Ready) -> dict[str, Any]:
    """Return data.json: which images a run is of, and how they were split."""
    return {
        "schema": SCHEMA,
        "arch_id": ready.job.arch.id,
        "data": ready.settings.data,
        **_columns(ready),
        "name": ready.dataset.name,
        "fingerprint": ready.dataset.fingerprint,
        "splits": {name: len(split) for name, split in ready.dataset.splits.items()},
        "notes": list(ready.data.notes),
    }


def _columns(ready: Ready) -> dict[str, str]:
    """Return the columns that were named, which other commands read again."""
    named = {key: getattr(ready.settings, key) for key in ("image_column", "label_column")}
    return {key: column for key, column in named.items() if column}


def _config(ready: Ready, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return config.json: what is needed to use the weights, and where they come from."""
    return config(ready.job.arch, ready.data) | {
        "metrics": dict(metrics),
        "recipe": ready.job.recipe.name,
        "data": ready.settings.data,
        **_columns(ready),
        "fingerprint": ready.dataset.fingerprint,
        "split": "val",
    }


def earlier(folder: Path) -> list[Row]:
    """Return the epochs of before, as results.csv has them."""
    rows = run_folder.read_csv(folder / RESULTS)
    return [{name: float(cell) for name, cell in row.items() if cell} for row in rows]


def partial(folder: Path, epochs: int) -> TrainResult:
    """Return the result of a training that was interrupted: no test, nothing is saved of it."""
    rows, top = earlier(folder), best([*probe_rows(folder), *earlier(folder)])
    return TrainResult(
        schema=SCHEMA,
        run=folder,
        stopped=INTERRUPTED,
        epochs=epochs,
        epochs_done=len(rows),
        best_epoch=int(top["epoch"]),
        val=ValScore(top1=top["val_top1"]),
        probe=read_probe(folder),
    )


def tested(ready: Ready, folder: Path) -> Score:
    """Return the score of the best weights on the test split, which nothing else reads."""
    job = ready.job
    model = load_trained(folder)[0].to(job.device)
    batches = ready.data.test().ordered(job.batch_size, distributed.rank(), distributed.world())
    return validate(model, batches, len(ready.data.classes), device=job.device, amp=job.mixed)


def conclude(ready: Ready, folder: Path, rows: list[Row], score: Score) -> TrainResult:
    """Write what a finished training leaves; result.json, which says that it is, last."""
    result = _result(ready, folder, rows, score)
    scores = {"val": result.val, "test": result.test}
    metrics = {f"{split}_{k}": v for split, of in scores.items() for k, v in (of or {}).items()}
    run_folder.write_json(folder / CONFIG, _config(ready, metrics) | {FIELD: result.warning})
    run_folder.write_text(folder / "README.md", model_card.write(result, ready.job.recipe))
    if matrix := score.confusion.matrix() if score.confusion else None:
        counts = {"schema": SCHEMA, "classes": list(ready.data.classes), "counts": matrix}
        run_folder.write_json(folder / CONFUSION, counts)
    run_folder.write_json(folder / RESULT, result.to_dict())
    return result


def _result(ready: Ready, folder: Path, rows: list[Row], score: Score) -> TrainResult:
    """Return result.json; accuracies are in percent, errors in points."""
    job, data, probed = ready.job, ready.data, read_probe(folder)
    top = best([*probe_rows(folder), *rows])
    cost = count(job.arch)
    labels = ready.dataset.splits["val"].labels.tolist()
    val = {k.removeprefix("val_"): finite(v) for k, v in top.items() if k.startswith("val_")}
    validated = Score(top["val_top1"], top["val_top5"], top["val_loss"], len(data.val))
    seconds = sum(row["seconds"] for row in rows)
    never = [NEVER_BETTER] if rows and not top["epoch"] else []
    images = sum(row["seconds"] * row["images_per_second"] for row in rows)
    return TrainResult(
        schema=SCHEMA,
        run=folder,
        stopped="",
        arch=job.arch.name,
        arch_id=job.arch.id,
        params=cost.params,
        flops=cost.flops,
        recipe=job.recipe.name,
        epochs=job.epochs,
        epochs_done=len(rows),
        best_epoch=int(top["epoch"]),
        val=ValScore.from_dict(
            {**val, "n": len(data.val), "standard_error": validated.standard_error}
        ),
        test=HeldOutScore(
            top1=score.top1,
            top5=score.top5,
            loss=finite(score.loss),
            n=score.count,
            standard_error=score.standard_error,
        ),
        classes=tuple(data.classes),
        data=ready.dataset.name,
        splits={"train": len(data.train), "val": len(data.val), "test": score.count},
        imgsz=data.size,
        device=job.device,
        seconds=seconds + (probed.seconds if probed else 0.0),
        images_per_second=images / seconds if seconds else 0.0,
        notes=(*data.notes, *never),
        # what was kept is diagnosed: of a probe that no epoch was better than, the probe
        warning=diagnose(
            [top] if never else rows,
            labels,
            len(data.classes),
            taught=bool(never) or job.teacher is not None,
        ),
        probe=probed,
        teacher=job.teacher.facts.score() if job.teacher else None,
    )
