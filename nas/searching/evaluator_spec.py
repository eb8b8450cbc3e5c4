"""What a search asks its workers for: an evaluator with its options, and how they are reached."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Protocol

from nas.core import registry
from nas.core.errors import OptionError
from nas.core.registry import Part
from nas.evaluation.parent import AUTO, NONE
from nas.interfaces import EvaluatorSpec, Executor
from nas.searching.settings import SearchSettings

# settings that are options of an evaluator that trains
TRAINING = (
    "data",
    "image_column",
    "label_column",
    "download",
    "init",
    "recipe",
    "recipe_options",
    "epochs",
    "trial_time",
    "fraction",
    "train_imgsz",
    "batch_size",
)
# settings that are options of an executor
CLUSTER = ("address", "cpus_per_trial", "gpus_per_trial")
# options of an executor that the search sets, not the user
EXECUTORS = ("workers", "isolate", "folder", "seconds")


class ExecutorSettings(Protocol):
    """Settings that say who evaluates: those of a search or of a scaling, with those of CLUSTER."""

    @property
    def executor(self) -> str: ...

    @property
    def executor_options(self) -> Mapping[str, Any]: ...


def executor_of(settings: ExecutorSettings) -> Part[Executor]:
    """Return who evaluates, with the options of its own flags and of --executor-option.

    Raises:
        OptionError: no such executor, or it takes no such option.
    """
    given = {name: getattr(settings, name) for name in CLUSTER}
    options = {**{k: v for k, v in given.items() if v is not None}, **settings.executor_options}
    return registry.part("executors", settings.executor, options, EXECUTORS)


def spec_of(settings: SearchSettings) -> EvaluatorSpec:
    """Return what workers make: the evaluator with its options, and a device that measures."""
    name = settings.evaluator or ("training" if settings.data else "surrogate")
    known = registry.option_defaults("evaluators", name)
    options = {**settings.evaluator_options, **_data_options(settings, name, known)}
    takes_device = "device" in known
    if settings.space and "space" in known:
        options = {"space": settings.space, **options}
    if settings.target_latency and not settings.device:
        raise OptionError(
            "--target-latency needs a --device to say whose latency: "
            f"{', '.join(registry.names('devices'))} of this machine"
            + (", or one that the evaluator predicts" if takes_device else "")
        )
    if settings.device is None:
        return EvaluatorSpec(name, options)
    if settings.device in registry.names("devices"):
        return EvaluatorSpec(name, options, settings.device)
    if takes_device:
        return EvaluatorSpec(name, {**options, "device": settings.device})
    raise OptionError(
        f"--device of evaluator {name} takes one of {', '.join(registry.names('devices'))}, "
        f"which measures the latency on this machine, not {settings.device!r}"
    )


def with_init(spec: EvaluatorSpec, source: str) -> EvaluatorSpec:
    """Return a specification whose trainings start from other weights; of none from nothing."""
    options = {name: value for name, value in spec.options.items() if name != "init"}
    return replace(spec, options=options if source == NONE else {**options, "init": source})


def of_length(spec: EvaluatorSpec, epochs: int, fraction: float) -> EvaluatorSpec:
    """Return a specification of trainings of another length; a linear probe alone has none."""
    known = registry.option_defaults("evaluators", spec.evaluator)
    length = {"epochs": epochs, "fraction": fraction, "probe": epochs == 0}
    if not spec.options.get("probe"):
        del length["probe"]
    length = {name: value for name, value in length.items() if name in known}
    return replace(spec, options={**spec.options, **length})


def _data_options(
    settings: SearchSettings, evaluator: str, known: Collection[str]
) -> dict[str, Any]:
    """Return the settings of a training, as options of an evaluator that trains."""
    given = {name: getattr(settings, name) for name in TRAINING}
    probe = {"probe": True} if given["epochs"] == 0 else {}
    given = {**{name: value for name, value in given.items() if value}, **probe}
    if given.get("init") == NONE:
        del given["init"]
    elif not settings.init and not settings.space and "init" in known:
        given |= {"init": settings.evaluator_options.get("init", AUTO)}
    for name in given:
        if name not in known:
            flag = "--" + name.replace("_", "-").removesuffix("s" * name.endswith("options"))
            way = "leave it out" if settings.data else "give --data"
            raise OptionError(f"{flag} belongs to trainings, and {evaluator} trains nothing: {way}")
    if "data" in known and not settings.data and "data" not in settings.evaluator_options:
        raise OptionError(f"evaluator {evaluator} needs --data: your images")
    return given
