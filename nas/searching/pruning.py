"""The pruner of a search, and what of its settings belongs to trainings alone."""

from __future__ import annotations

from optuna.pruners import BasePruner

from nas.core import registry
from nas.core.errors import OptionError
from nas.core.registry import Part
from nas.evaluation.packing import check_asked
from nas.interfaces import TrainingEvaluator
from nas.searching.objective import Goal
from nas.searching.settings import SearchSettings


def pruner_of(
    settings: SearchSettings, goal: Goal, evaluator: TrainingEvaluator, evaluator_name: str
) -> Part[BasePruner]:
    """Return the pruner, with all settings of trainings checked.

    Raises:
        OptionError: an unknown one, or a setting that has no effect here or contradicts another.
    """
    steps = evaluator.rungs
    wanted = settings.pruner or settings.pruner_options
    if goal.pareto and wanted and settings.pruner != "none":
        raise OptionError(
            "--pruner has no effect with --objective pareto, where no trial is worse than another "
            "before both objectives are known: leave it out"
        )
    if not steps:
        _check_untrained(settings)
    _check_finals(settings, evaluator_name)
    if asked := settings.trials_per_device:
        check_asked(asked)
        if settings.workers:
            raise OptionError("--trials-per-device sets the number of --workers: give one of them")
        if settings.executor != "local":
            raise OptionError(
                f"--trials-per-device measures this machine, and executor {settings.executor} uses "
                "others: leave it out; on a cluster --gpus-per-trial 0.5 lets two share a GPU"
            )
    shortest, longest = settings.trial_time_limit, settings.trial_time
    if shortest and longest and shortest <= longest:
        raise OptionError(
            "--trial-time-limit would give up every candidate within its --trial-time: leave it out"
        )
    if longest and (settings.final_epochs or settings.final_fraction):
        raise OptionError(
            "--trial-time gives trainings of the finals the time of a candidate: leave "
            "--final-epochs and --final-fraction out"
        )
    # an intact parent is far ahead after an epoch, when what lacks channels has only begun to mend
    stops = steps and not goal.pareto and not evaluator.parent
    name = settings.pruner or ("halving" if stops else "none")
    pruner: Part[BasePruner] = registry.part("pruners", name, settings.pruner_options, ("rungs",))
    pruner.make(rungs=steps or (1,))
    return pruner


def _check_finals(settings: SearchSettings, evaluator: str) -> None:
    """Refuse a length of the finals that the evaluator cannot be given.

    Raises:
        OptionError: it has no such option.
    """
    known = registry.option_defaults("evaluators", evaluator)
    for name in ("epochs", "fraction"):
        if getattr(settings, f"final_{name}") and name not in known:
            raise OptionError(
                f"--final-{name} needs an evaluator with the option {name}, which {evaluator} is "
                "not: leave it out"
            )


def _check_untrained(settings: SearchSettings) -> None:
    """Refuse what has an effect on trainings only.

    Raises:
        OptionError: one of these was given; the message names it.
    """
    given = {
        "--pruner": settings.pruner or settings.pruner_options,
        "--trials-per-device": settings.trials_per_device,
        "--finalists": settings.finalists is not None,
        "--final-seeds": settings.final_seeds is not None,
        "--final-epochs": settings.final_epochs is not None,
        "--final-fraction": settings.final_fraction is not None,
    }
    for flag, is_given in given.items():
        if is_given:
            raise OptionError(f"{flag} belongs to trainings: give --data")
