"""What a person sees: live progress on stderr, results on stdout."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from nas.core.quoting import command
from nas.core.units import amount, format_count
from nas.interfaces import SCORED, SPENT, ExecutorStatus, Metrics, Trial
from nas.searching.objective import Goal, pareto_front
from nas.searching.outcome.explanation import as_candidate, inherited, why
from nas.searching.progress import SearchProgress
from nas.searching.result import (
    Candidate,
    FinalResult,
    Gain,
    Leader,
    Posterior,
    SearchResult,
)
from nas.searching.time_budget import TIME_LIMIT

SHOWN = 5
SAVED = ("report.html", "best/arch.json", "trials.csv")
PAUSE = 1.0  # seconds between two lines where there is no terminal


@dataclass(frozen=True)
class Row:
    """One line of the leaderboard; `reward`: nan where it does not order them."""

    name: str
    metrics: Metrics
    reward: float = math.nan
    posterior: Posterior | None = None


class SearchScreen(SearchProgress):
    """On a terminal one live table with a bar and the time left; otherwise lines, PAUSE s apart."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._live: Live | None = None
        self._notice = self._waiting = ""
        self._last = -PAUSE

    def say(self, text: str) -> None:
        """Show one line before the start."""
        if text:
            self._console.print(text, highlight=False, soft_wrap=True)

    def begin(
        self,
        name: str,
        total: int,
        goal: Goal,
        references: Mapping[str, str],
        earlier: Sequence[Trial],
        fleet: Callable[[], ExecutorStatus] = lambda: ExecutorStatus(1, 0),
    ) -> None:
        """Start showing one study; `earlier` trials are those of before a resumption.

        `references`: names of reference designs by arch id.
        """
        self._name, self._total, self._goal = name, total, goal
        self._fleet = fleet
        self._references, self._done = references, 0
        self._best: list[Row] = []  # of a Pareto search the whole front, most accurate first
        for trial in earlier:
            self._count(trial)
        if not self._console.is_terminal:
            return self.say(fleet_line(fleet()))
        columns = (MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
        self._bar = Progress(TextColumn(name), BarColumn(), *columns, console=self._console)
        self._task = self._bar.add_task(name, total=total, completed=self._done)
        # the picture is made when it is shown, four times a second, not with each trial
        self._live = Live(
            get_renderable=self._picture,
            console=self._console,
            refresh_per_second=4,
            transient=True,
        )
        self._live.start()

    def trial(self, trial: Trial) -> None:
        """Show a finished trial."""
        self._count(trial)
        if self._live:
            self._bar.update(self._task, completed=self._done)
        elif trial.state != "duplicate":
            self._waiting = self._line(trial)
            if self._clock() >= self._last + PAUSE:
                self._flush()

    def _flush(self) -> None:
        """Print the last line that waits, if any: what came before it is in trials.csv."""
        if self._waiting:
            self.say(self._waiting)
            self._waiting, self._last = "", self._clock()

    def notice(self, text: str) -> bool:
        """Show a line below the live table; tell whether there is one. Safe in a signal handler."""
        self._notice = text
        return self._live is not None

    def end(self) -> None:
        """Stop showing it."""
        self._flush()
        if self._live:
            self._live.stop()
            self._live = None

    def _count(self, trial: Trial) -> None:
        if trial.state in SPENT:
            self._done += 1
        if trial.state in SCORED:
            self._rank(trial)

    def _rank(self, trial: Trial) -> None:
        name = self._title(trial)
        if cost := self._goal.pareto:
            rows = [*self._best, Row(name, trial.metrics)]
            points = [(r.metrics["accuracy"], -r.metrics.get(cost, math.inf)) for r in rows]
            self._best = [rows[index] for index in pareto_front(points)]
            return
        row = Row(name, trial.metrics, self._goal.reward_of(trial))
        self._best = sorted([*self._best, row], key=lambda r: -r.reward)[:SHOWN]

    def _picture(self) -> Group:
        board = leaderboard(spread(self._best, SHOWN))
        lines = [fleet_line(self._fleet()), self._notice]
        return Group(board, self._bar, *(line for line in lines if line))

    def _title(self, trial: Trial) -> str:
        name = self._references.get(trial.arch_id)
        return f"#{trial.number} {name}" if name else f"#{trial.number}"

    def _line(self, trial: Trial) -> str:
        head = f"{self._name} {self._done}/{self._total} {self._title(trial)} {trial.state}"
        tail = f" on {trial.node}" if trial.node else ""
        tail += f" after {_several(trial.retries, 'retry')}" if trial.retries else ""
        if not trial.values:
            return f"{head}: {trial.reason}{tail}"
        metrics = trial.metrics
        seen = f"{head} accuracy {accuracy(metrics)} flops {format_count(metrics['flops'])}"
        if cost := self._goal.pareto:
            own = "" if cost == "flops" else f" {amount(cost, metrics[cost])}"
            return f"{seen}{own} front of {len(self._best)}{tail}"
        worth = self._goal.reward_of(trial)
        best = self._best[0].reward if self._best else worth
        return f"{seen} reward {worth:.3f} best {best:.3f}{tail}"


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """Return up to `count` rows, evenly spread, the first and the last among them."""
    last, steps = len(rows) - 1, max(1, min(count, len(rows)) - 1)
    return [rows[round(i * last / steps)] for i in range(min(count, len(rows)))]


def fleet_line(fleet: ExecutorStatus) -> str:
    """Return in one line what works, or "" for one worker on this machine."""
    if fleet.workers == fleet.nodes == 1 and not (fleet.dashboard_url or fleet.message):
        return ""
    gpus = f", {fleet.gpus:g} GPUs" if fleet.gpus else ""
    where = f" on {_several(fleet.nodes, 'node')}{gpus}" if fleet.nodes > 1 or gpus else ""
    retries = f"; {_several(fleet.retries, 'retry')}" if fleet.retries else ""
    link = f"; dashboard {fleet.dashboard_url}" if fleet.dashboard_url else ""
    note = f"; {fleet.message}" if fleet.message else ""
    return f"{_several(fleet.workers, 'worker')}, {fleet.busy} busy{where}{retries}{link}{note}"


def _several(count: int, noun: str) -> str:
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun[:-1]}ies" if noun.endswith("y") else f"{count} {noun}s"


def accuracy(metrics: Mapping[str, float]) -> str:
    """Return accuracy with its standard deviation, in percent; a dash where there is none."""
    if "accuracy" not in metrics:
        return "–"
    return _spread(metrics["accuracy"], metrics.get("accuracy_std"))


def _spread(mean: float, deviation: float | None) -> str:
    return f"{mean:.2f} ±{deviation:.2f}" if deviation else f"{mean:.2f}"


def leaderboard(rows: Sequence[Row]) -> Table:
    """Return the table of the best archs and of what they are compared with."""
    table = Table(box=None, pad_edge=False)
    table.add_column("arch")
    latency = any("latency_ms" in row.metrics for row in rows)
    judged = any(row.posterior for row in rows)
    heads = ["accuracy %", *["posterior %"] * judged, "FLOPs (MACs)", "params"]
    valued = not all(math.isnan(row.reward) for row in rows)
    for title in (*heads, *["latency"] * latency, *["reward"] * valued):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        metrics = row.metrics
        cells = [_posterior(row.posterior)] if judged else []
        cells += [format_count(metrics["flops"]), format_count(metrics["params"])]
        if latency:
            cells.append(f"{metrics['latency_ms']:.3g} ms" if "latency_ms" in metrics else "–")
        if valued:
            cells.append("–" if math.isnan(row.reward) else f"{row.reward:.3f}")
        table.add_row(row.name, accuracy(metrics), *cells)
    return table


def _posterior(found: Posterior | None) -> str:
    return _spread(found.accuracy, found.accuracy_std) if found else "–"


def show_search(result: SearchResult, console: Console) -> None:
    """Print the end of a search: leaderboard, gains, where it is saved, what to do next."""
    rows = _rows(result)
    states = ", ".join(f"{n} {name}" for name, n in result.states.items() if n)
    space = result.space
    console.print(f"space {space.name}: {space.size:,} archs; controller {result.controller}")
    console.print(f"{result.proposals} proposals: {states}. {result.evaluator.title}")
    if result.warm_start:
        console.print(result.warm_start.line)
    if result.pareto:
        chosen = f"the net of the front with the best reward, {result.objective}"
        console.print(f"objectives: accuracy up, {result.pareto} down; handed over is {chosen}")
    else:
        console.print(f"reward = {result.objective}")
    if result.reward == "soft" and result.targets:
        console.print(
            "soft reward: its optimum does not depend on the target T (see docs/search.md)"
        )
    if not rows:
        console.print(f"no arch was evaluated: {why_none(result)}")
    else:
        console.print(leaderboard(rows))
        for line in filter(None, (why(result), *inherited(result))):
            console.print(line)
    if result.finals:
        console.print(finals_board(result.finals))
        deviation = result.finals[0].seed_deviation
        spread = (
            f"one training's deviation over seeds {deviation:.2f} points"
            if deviation
            else "one seed each, so the spread over seeds is unknown"
        )
        console.print(
            f"finals: validation accuracy with new seeds, mean ± standard error; {spread}. The "
            "test images were not read"
        )
        length = result.finals_length
        if length and length.text and length.enough:  # else it was said above
            console.print(f"finals: {length.text}", soft_wrap=True)
    if result.hypervolume:
        volumes = ", ".join(f"{name} {v:.3f}" for name, v in result.hypervolume.items())
        console.print(f"front of {result.front} archs (pareto.csv); hypervolume: {volumes}")
    for gain in result.gains:
        console.print(_gain(gain))
    console.print("FLOPs are multiply-adds (MACs); tools that count both report twice as many")
    saved = [name for name in SAVED if (result.run / name).is_file()]
    console.print(f"saved   {result.run}  ({', '.join(saved)})")
    if result.winner and result.training_flops:
        print_training(result, console)
    elif result.winner:
        console.print(f"next    {command('nas', 'scale', str(result.run), '--phi', '1..7')}")


def ending(result: SearchResult) -> str:
    """Return in a sentence why a search ended early, and how it goes on; "" where it did not."""
    stopped, ends = result.stopped, result.ends
    if stopped != TIME_LIMIT:
        return f"stopped early: {stopped}" if stopped else ""
    resume = "`--resume --time-limit 20m` goes on"
    if not result.leaders:
        return f"the time limit passed before a candidate was evaluated; {resume}"
    random, seeds = result.random, len(result.finals[0].accuracies) if result.finals else 0
    reached = {
        "search": f"the search after {_several(result.trials, 'trial')}",
        "random search": "random search "
        + (f"after {_several(random.trials, 'trial')}" if random else "before it had an accuracy"),
        "finals": "the finals "
        + (f"after {_several(seeds, 'seed')}" if seeds else "before each net was trained"),
    }
    cut = " and ".join(text for stage, text in reached.items() if ends.get(stage) == TIME_LIMIT)
    return f"the time limit ended {cut}; {resume}"


def why_none(result: SearchResult) -> str:
    """Return why no arch has an accuracy."""
    states = result.states
    if result.stopped:
        return result.stopped
    for state, reason in (("failed", "every evaluation failed"), ("rejected", "none was allowed")):
        if states.get(state):
            return f"{reason} ({states[state]} {state}); the reasons are in trials.csv"
    return "none was proposed"


def _place(result: SearchResult, place: int) -> str:
    """Return the rank of a leader; the nets of a front have none, one of them is the result."""
    if not result.pareto:
        return f"{place}. "
    best = result.winner
    chosen = best and result.leaders[place - 1].arch_id == best.arch_id
    return "★ " if chosen else "  "


def _rows(result: SearchResult) -> list[Row]:
    """Return the rows of the leaderboard: the search's best, references, random search's best."""
    rows = [
        _row(result, each, f"{_place(result, place)}trial {each.number}{_note(each)}")
        for place, each in enumerate(result.leaders, 1)
    ]
    shown = {each.arch_id for each in result.leaders}
    others = [each for each in result.references if each.arch_id not in shown]
    rows += [_row(result, as_candidate(result, each), each.name) for each in others]
    if random := result.random:
        name = f"{random.name} ({random.trials} trials)"
        rows.append(_row(result, as_candidate(result, random), name))
    counted = result.references_counted
    return rows + [Row(f"{each.name}, {each.reason}", each.metrics) for each in counted]


def _row(result: SearchResult, each: Candidate, name: str) -> Row:
    reward = math.nan if result.pareto else each.reward  # no order of a front
    return Row(name, each.metrics, reward, each.posterior)


def _note(leader: Leader) -> str:
    taken = " (earlier)" if leader.state == "earlier" else ""
    return f" ({leader.reference})" if leader.reference else taken


def print_training(result: SearchResult, console: Console) -> None:
    """Print the cost of the trainings and the next commands."""
    spent, rival = format_count(result.training_flops), result.random
    other = f"; random search {format_count(rival.training_flops)}" if rival else ""
    console.print(f"trained {spent} multiply-adds{other}")
    if training := result.weights:
        console.print(f"weights {result.run}/best/model.safetensors: of {training}")
    train = command("nas", "train", str(result.run), "--data", result.data or "IMAGES")
    use = command("nas", "predict", str(result.run), "IMAGES")
    # whose finals are as long as a training of its own
    console.print(f"next    {use if result.parent and result.finals else train}")


def finals_board(finals: Sequence[FinalResult]) -> Table:
    """Return the table of the last round, best first."""
    table = Table(box=None, pad_edge=False)
    for title in ("finalist", "accuracy %", "each seed", "in the search", "reward"):
        table.add_column(title, justify="left" if title == "finalist" else "right", no_wrap=True)
    for row in sorted(finals, key=lambda row: -row.reward):
        seeds = " ".join(f"{value:.2f}" for value in row.accuracies)
        seen = "–" if row.searched is None else f"{row.searched:.2f}"
        cells = [_spread(row.accuracy, row.accuracy_std), seeds, seen, f"{row.reward:.3f}"]
        table.add_row(row.name, *cells)
    return table


def _gain(gain: Gain) -> str:
    over = "the search's best" if gain.over == "search" else gain.over
    start = f"over {over}: reward {gain.reward:+.3f}, accuracy {gain.accuracy:+.2f}"
    if gain.accuracy_std is None:
        return f"{start} points (noise unknown)"
    noise = ": smaller than the noise, no gain shown" if gain.within_noise else ""
    return f"{start} ±{gain.accuracy_std:.2f} points{noise}"
