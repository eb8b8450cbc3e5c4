"""Scale: a baseline in, a family of larger (or smaller) archs out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nas.core import run_folder
from nas.core.errors import NasError, OptionError
from nas.core.quoting import command
from nas.core.resume import find_run, opening
from nas.core.settings import takes
from nas.core.units import parse_phis
from nas.models import compound, cost
from nas.models.arch import Arch
from nas.models.load import anchored, latest_search, load_arch, named
from nas.scaling.fit import coefficients, fitting
from nas.scaling.fit.setup import FitPlan, prepare_fit
from nas.scaling.progress import ScalingProgress
from nas.scaling.result import FamilyBase, Member, ScaleResult
from nas.scaling.settings import (
    COEFFICIENTS,
    SHAPED,
    ScaleSettings,
    changeable,
)
from nas.scaling.setup import BASE, INTERRUPTED, ScaleSetup
from nas.searching.evaluator_spec import CLUSTER, executor_of
from nas.searching.start.old_settings import scale_args
from nas.training.settings import NOTHING

SCHEMA = 1
RESULT, FAMILY = "result.json", "family.csv"
COLUMNS = (
    "name",
    "phi",
    "depth",
    "width",
    "resolution",
    "requested_resolution",
    "rounded_depth",
    "rounded_width",
    "rounded_resolution",
    "params",
    "flops",
    "flops_ratio",
    "two_to_phi",
    "activations",
    "training_bytes_per_image",
    "training_bytes",
)


@takes(ScaleSettings)
def scale(
    base: str | Path | Arch | Mapping[str, Any] | None = None,
    *,
    project: str | Path = "runs",
    name: str | None = None,
    resume: bool = False,
    screen: ScalingProgress | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> ScaleResult:
    """Scale a baseline; return the family (`rule`, `members`, `run`, ...).

    `to_dict()` of it is what `nas scale --json` prints.

    `base` is a search run, a baseline's name, an arch.json, an Arch or its data; without it the
    latest search under `project` is taken. `settings` are the command's flags with underscores:
    `nas.scale("efficientnet_b0", phi="1..7", rule="released")`; `rule` is one of
    `nas.models.compound.RULES`. Writes project/scale/name with b1/arch.json and so on, family.csv
    and report.html. `fit` finds the coefficients on images first, `train` trains every member;
    `resume` goes on with the run of that name, or with the latest one, of this base and these
    settings; what says where and how much at once may be changed.

    Raises:
        OptionError: no such base, rule or phi, a coefficient below 1, or a wrong setting.
        RunError: the folder is in use, damaged or cannot be written.
    """
    project = Path(project)
    chosen = _anchored(ScaleSettings.model_validate(settings), project)
    source = latest_search(project) if base is None else base
    arch = load_arch(source)
    base_name = named(source) if isinstance(source, str | Path) else arch.name
    setup = ScaleSetup(chosen, arch, base_name, project)
    arguments = {"base": base_name, **chosen.model_dump()}
    screen = screen or ScalingProgress()
    folder = _found(project, name, arguments, arch) if resume else None
    screen.say(opening(folder, resume))
    if folder:
        given = {k for k, value in settings.items() if value is not None} & changeable(chosen)
        changed = {key: getattr(chosen, key) for key in given}
        return go_on(folder, changed, screen=screen, interrupted=interrupted)
    setup, plan = _check(setup)
    folder = run_folder.create("scale", name, project, arguments)
    run_folder.write_json(folder / BASE, arch.to_dict())
    screen.run = str(folder)
    return _scale(setup, plan, folder, screen, interrupted)


def go_on(
    folder: Path,
    changed: Mapping[str, Any],
    *,
    screen: ScalingProgress | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> ScaleResult:
    """Go on with a scaling, with the base and the settings that it was started with.

    `changed`: other values of settings of `nas.scaling.settings.FREE`, in force from now on.

    Raises:
        RunError: the folder is in use or damaged.
    """
    before = scale_args(run_folder.read_args(folder))
    arguments = {**before, **_elsewhere(before, changed), **changed}
    source = str(arguments.pop("base", ""))
    kept = folder / BASE
    arch = load_arch(kept if kept.exists() else source)
    setup = ScaleSetup(ScaleSettings.model_validate(arguments), arch, source, folder.parent.parent)
    setup, plan = _check(setup, folder)
    screen = screen or ScalingProgress()
    screen.run = str(folder)
    if before != {"base": source, **arguments}:
        with run_folder.lease(folder):
            run_folder.write_args(folder, {"base": source, **arguments})
    return _scale(setup, plan, folder, screen, interrupted)


def _elsewhere(before: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """Return what goes when another executor takes over: the options of the one before."""
    if changed.get("executor", before.get("executor")) == before.get("executor"):
        return {}
    return {**dict.fromkeys(CLUSTER), "executor_options": {}}


def _anchored(chosen: ScaleSettings, project: Path) -> ScaleSettings:
    """Return the settings with absolute paths, so that the run goes on from any directory."""
    return chosen.model_copy(
        update={
            "data": chosen.data and anchored(chosen.data),
            "init": _place(chosen.init, project),
            "teacher": chosen.teacher and _place(chosen.teacher, project),
            "recipe": _recipe(chosen.recipe),
            "fit_recipe": _recipe(chosen.fit_recipe),
        }
    )


def _place(init: str | None, project: Path) -> str | None:
    """Return a source of weights as a path from the root, where it is one."""
    if init in (None, NOTHING):
        return init
    from nas.training.trained import VERBS
    from nas.training.weights.sources import is_named

    return init if is_named(init) else anchored(str(run_folder.find(init, VERBS, project)))


def _recipe(name: str | None) -> str | None:
    return anchored(name) if name and name.endswith(".py") else name


def _found(project: Path, name: str | None, given: Mapping[str, Any], base: Arch) -> Path | None:
    """Return the run to go on with: of that name, or the latest, of this base and these settings.

    Raises:
        RunError: the run of that name was started with other settings, or from another base.
    """
    free = changeable(ScaleSettings.model_validate({k: v for k, v in given.items() if k != "base"}))

    def foreign(folder: Path) -> str:
        if not (folder / BASE).exists() or load_arch(folder / BASE).id == base.id:
            return ""
        return (
            f"{folder} was started from another network, which {given['base']} was then: go on "
            f"with it by `{command('nas', 'resume', folder)}`, or name another run"
        )

    asked = {key: value for key, value in given.items() if key not in free}
    return find_run("scale", project, name, asked, read=_stored, foreign=foreign)


def _stored(folder: Path) -> dict[str, Any]:
    return scale_args(run_folder.read_args(folder))


def _check(setup: ScaleSetup, folder: Path | None = None) -> tuple[ScaleSetup, FitPlan | None]:
    """Refuse a family that cannot be before anything is written.

    Return the setup, with its images and weights where members are trained, and the fit, if one is
    due. `folder`: of a run that has begun.
    """
    executor_of(setup.settings)  # refuses what there is none of
    family = _members(setup, fitting.given(setup, coefficients.PAPER))
    _check_coefficients(setup.settings)
    if setup.settings.train:
        # numpy, torch and more: only where something is trained
        from nas.scaling import base_weights, member_setup

        member_setup.check_names(setup.settings, [member.name for member in family])
        setup = member_setup.with_data(base_weights.with_weights(setup, folder))
    return setup, prepare_fit(setup) if setup.settings.fit else None


def _check_coefficients(chosen: ScaleSettings) -> None:
    """Refuse coefficients that the rule does not read.

    Raises:
        OptionError: there is one; the message names it.
    """
    typed = [name for name in COEFFICIENTS if getattr(chosen, name) is not None]
    if typed and chosen.rule not in SHAPED:
        raise OptionError(
            f"rule {chosen.rule} reads no --{typed[0]}: use --rule {' or '.join(SHAPED)}, or leave "
            "it out"
        )


def _members(setup: ScaleSetup, found: coefficients.Coefficients) -> list[compound.ScaledArch]:
    chosen = setup.settings
    return compound.family(
        setup.arch,
        parse_phis(chosen.phi),
        rule=chosen.rule,
        alpha=found.alpha,
        beta=found.beta,
        gamma=found.gamma,
        fixed_ends=chosen.fixed_ends,
    )


def _scale(
    setup: ScaleSetup,
    plan: FitPlan | None,
    folder: Path,
    screen: ScalingProgress,
    interrupted: Callable[[], bool],
) -> ScaleResult:
    def stop() -> str:
        return INTERRUPTED if interrupted() else ""

    with run_folder.lease(folder):
        run_folder.write_environment(folder)
        found, stopped = fitting.settle(setup, plan, folder, screen, stop)
        if found is None:
            empty = _result(setup, folder, coefficients.PAPER, [])
            return dataclasses.replace(empty, coefficients=None, stopped=stopped)
        if setup.settings.train:  # only now: coefficients belong to the base as it came
            from nas.scaling import base_weights, member_setup

            base_weights.keep_weights(setup, folder)
            setup = member_setup.fitted_to_data(base_weights.built_as_weights(setup))
        result = _result(setup, folder, found, _members(setup, found))
        error: NasError | None = None
        if setup.settings.train:
            from nas.scaling import members

            result, error = members.train_members(setup, folder, result, screen, stop)
        # whatever no other member would have escaped, what is trained is told first
        with contextlib.suppress(*([NasError] if error else [])):
            _write(folder, result)
        if error:
            error.run = str(folder)
            raise error
    return result


def _result(
    setup: ScaleSetup,
    folder: Path,
    found: coefficients.Coefficients,
    members: list[compound.ScaledArch],
) -> ScaleResult:
    arch, chosen = setup.arch, setup.settings
    return ScaleResult(
        schema=SCHEMA,
        run=folder,
        base=setup.source,
        phi=chosen.phi,
        rule=chosen.rule,
        alpha=found.alpha,
        beta=found.beta,
        gamma=found.gamma,
        coefficients=found if chosen.rule in SHAPED else None,
        fit=fitting.read(folder) if chosen.fit else None,
        fixed_ends=chosen.fixed_ends,
        baseline=FamilyBase(name=arch.name, arch=arch, **_costs(arch, arch)),
        members=tuple(_row(member, arch) for member in members),
    )


def _row(member: compound.ScaledArch, base: Arch) -> Member:
    """Return one member: multipliers as asked for, resolution in pixels."""
    return Member(
        name=member.name,
        phi=member.phi,
        depth=member.requested.depth,
        width=member.requested.width,
        resolution=member.arch.resolution,
        requested_resolution=member.requested.resolution,
        rounded_depth=member.rounded.depth,
        rounded_width=member.rounded.width,
        rounded_resolution=member.rounded.resolution,
        two_to_phi=2**member.phi,
        **_costs(member.arch, base),
        arch=member.arch,
    )


def _costs(arch: Arch, base: Arch) -> dict[str, Any]:
    own = cost.count(arch)
    return {
        "params": own.params,
        "flops": own.flops,
        "flops_ratio": own.flops / cost.count(base).flops,
        "activations": own.activations,
        "training_bytes_per_image": own.training_bytes_per_image,
        "training_bytes": own.training_bytes,
    }


def _write(folder: Path, result: ScaleResult) -> None:
    for member in result.members:
        run_folder.write_text(folder / member.name / "arch.json", member.arch.to_json() + "\n")
    columns: tuple[str, ...] = COLUMNS
    rows = [[member[column] for column in COLUMNS] for member in result.members]
    if result.trained_on:
        from nas.scaling import members

        columns += members.COLUMNS
        for row, member in zip(rows, result.members, strict=True):
            row += members.cells(result, member)
        members.describe(folder, result)
    run_folder.write_csv(folder / FAMILY, columns, rows)
    run_folder.write_json(folder / RESULT, result.to_dict())
