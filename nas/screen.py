"""What a person sees: live progress on stderr, results on stdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from nas.interfaces import SPENT, Trial
from nas.objective import Objective, reward
from nas.units import format_bytes, format_count, format_seconds

SHOWN = 5
Row = Mapping[str, Any]


class Progressing:
    """On a terminal one live table with a bar and the time left; otherwise a line per trial."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._notice = ""

    def say(self, text: str) -> None:
        """Show one line before the start."""
        if text:
            self._console.print(text, highlight=False, soft_wrap=True)

    def begin(
        self,
        name: str,
        total: int,
        objective: Objective,
        references: list[dict[str, Any]],
        earlier: Sequence[Trial],
    ) -> None:
        """Start showing one study; `earlier` trials are those of before a resumption."""
        self._name, self._total, self._objective = name, total, objective
        self._references, self._done = references, 0
        self._best: list[Row] = []
        for trial in earlier:
            self._count(trial)
        if not self._console.is_terminal:
            return
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
        else:
            self._console.print(self._line(trial), highlight=False, soft_wrap=True)

    def notice(self, text: str) -> bool:
        """Show a line below the live table; tell whether there is one. Safe in a signal handler."""
        self._notice = text
        return self._live is not None

    def end(self) -> None:
        """Stop showing it."""
        if self._live:
            self._live.stop()
            self._live = None

    def _count(self, trial: Trial) -> None:
        if trial.state in SPENT:
            self._done += 1
        if trial.state == "done":
            self._rank(trial)

    def _rank(self, trial: Trial) -> None:
        row = {
            "name": f"#{trial.number}",
            "metrics": trial.metrics,
            "reward": reward(trial.metrics, self._objective),
        }
        ranked = sorted([*self._best, row], key=lambda r: -r["reward"])
        self._best = ranked[:SHOWN]

    def _picture(self) -> Group:
        board = leaderboard([*self._best, *self._references])
        return Group(board, self._bar, *([self._notice] if self._notice else []))

    def _line(self, trial: Trial) -> str:
        head = f"{self._name} {self._done}/{self._total} #{trial.number} {trial.state}"
        if not trial.values:
            return f"{head}: {trial.reason}"
        own = reward(trial.metrics, self._objective)
        best = self._best[0]["reward"] if self._best else own
        metrics = trial.metrics
        return (
            f"{head} accuracy {accuracy(metrics)} flops {format_count(metrics['flops'])} "
            f"reward {own:.3f} best {best:.3f}"
        )


def silent() -> Progressing:
    """Return a screen that shows nothing."""
    return Progressing(Console(quiet=True, force_terminal=False))


def accuracy(metrics: Mapping[str, float]) -> str:
    """Return accuracy with its standard deviation, in percent."""
    deviation = metrics.get("accuracy_std")
    shown = f"{metrics['accuracy']:.2f}"
    return f"{shown} ±{deviation:.2f}" if deviation else shown


def leaderboard(rows: Sequence[Row]) -> Table:
    """Return the table of the best archs and their company."""
    table = Table(box=None, pad_edge=False)
    table.add_column("arch")
    latency = any("latency_ms" in row["metrics"] for row in rows)
    for title in ("accuracy %", "FLOPs (MACs)", "params", *["latency"] * latency, "reward"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        metrics = row["metrics"]
        costs = [format_count(metrics["flops"]), format_count(metrics["params"])]
        if latency:
            costs.append(f"{metrics['latency_ms']:.3g} ms")
        table.add_row(row["name"], accuracy(metrics), *costs, f"{row['reward']:.3f}")
    return table


def show_search(result: Row, console: Console) -> None:
    """Print the end of a search: leaderboard, gains, where it is saved, what to do next."""
    leaders = result["leaders"]
    company = [*result["references"], *([result["random"]] if result["random"] else [])]
    rows = [
        {**row, "name": f"{place}. trial {row['number']}"} for place, row in enumerate(leaders, 1)
    ]
    if company:
        budget = f" ({result['random']['trials']} trials)" if result["random"] else ""
        rows += [
            {**row, "name": row["name"] + (budget if row["name"] == "random search" else "")}
            for row in company
        ]
    states = ", ".join(f"{n} {name}" for name, n in result["states"].items() if n)
    space = result["space"]
    console.print(
        f"space {space['name']}: {space['size']:,} archs; controller {result['controller']}"
    )
    console.print(f"{result['proposals']} proposals: {states}. {result['evaluator']['title']}")
    if result["pareto"]:
        console.print(f"objectives: accuracy up, {result['pareto']} down")
    console.print(f"reward = {result['objective']}")
    if result["reward"] == "soft" and result["targets"]:
        console.print(
            "soft reward: its optimum does not depend on the target T (see docs/search.md)"
        )
    if not rows:
        console.print("no arch was evaluated: every proposal was rejected or failed")
    else:
        console.print(leaderboard(rows))
    if result["finals"]:
        console.print(finals_board(result))
        deviation = result["finals"][0]["seed_deviation"]
        console.print(
            "finals: validation accuracy with new seeds, mean ± standard error; one training's "
            f"deviation over seeds {deviation:.2f} points. The test images were not read"
        )
    if result["hypervolume"]:
        volumes = ", ".join(f"{name} {v:.3f}" for name, v in result["hypervolume"].items())
        console.print(f"front of {result['front']} archs (pareto.csv); hypervolume: {volumes}")
    for gain in result["gains"]:
        console.print(_gain(gain))
    console.print("FLOPs are multiply-adds (MACs); tools that count both report twice as many")
    console.print(f"saved   {result['run']}  (report.html, best/arch.json, trials.csv)")
    if result["best"] and result["training_flops"]:
        print_training(result, console)
    elif result["best"]:
        console.print(f"next    nas scale {result['run']} --phi 1..7")


def print_training(result: Row, console: Console) -> None:
    """Print what the trainings cost and what to do with the winner."""
    spent, rival = format_count(result["training_flops"]), result["random"]
    other = f"; random search {format_count(rival['training_flops'])}" if rival else ""
    console.print(f"trained {spent} multiply-adds{other}")
    if result["finals"]:
        console.print(
            f"weights {result['run']}/best/model.safetensors: the winner, shortly trained"
        )
    console.print(f"next    nas train {result['run']} --data {result['data']}")


def finals_board(result: Row) -> Table:
    """Return the table of the last round, best first."""
    table = Table(box=None, pad_edge=False)
    for title in ("finalist", "accuracy %", "each seed", "in the search", "reward"):
        table.add_column(title, justify="left" if title == "finalist" else "right", no_wrap=True)
    for row in sorted(result["finals"], key=lambda row: -row["reward"]):
        seeds = " ".join(f"{value:.2f}" for value in row["accuracies"])
        cells = [accuracy(row), seeds, f"{row['searched']:.2f}", f"{row['reward']:.3f}"]
        table.add_row(row["name"], *cells)
    return table


def _gain(gain: Row) -> str:
    start = f"over {gain['over']}: reward {gain['reward']:+.3f}, accuracy {gain['accuracy']:+.2f}"
    if gain["accuracy_std"] is None:
        return f"{start} points (noise unknown)"
    noise = ": smaller than the noise, no gain shown" if gain["within_noise"] else ""
    return f"{start} ±{gain['accuracy_std']:.2f} points{noise}"


def show_family(result: Row, console: Console) -> None:
    """Print a scaled family: what was asked, what came of it, what it costs."""
    base = result["baseline"]
    console.print(
        f"rule {result['rule']} on {base['name']}: {format_count(base['flops'])} multiply-adds, "
        f"{format_count(base['params'])} params"
    )
    table = Table(box=None, pad_edge=False)
    titles = (
        "member",
        "φ",
        "depth",
        "width",
        "pixels",
        "FLOPs",
        "× base",
        "2^φ",
        "params",
        "activations",
        "training memory",
    )
    for title in titles:
        table.add_column(title, justify="left" if title == "member" else "right", no_wrap=True)
    for member in result["members"]:
        table.add_row(*_member(member))
    console.print(table)
    console.print(
        "depth and width: asked → after rounding. FLOPs are multiply-adds. Training memory: an "
        "estimate per image in float32; weights, gradients and optimiser come on top"
    )
    console.print(f"saved   {result['run']}  (report.html, family.csv, b*/arch.json)")


def _member(member: Row) -> list[str]:
    return [
        member["name"],
        f"{member['phi']:g}",
        f"{member['depth']:.2f} → {member['rounded_depth']:.2f}",
        f"{member['width']:.2f} → {member['rounded_width']:.2f}",
        str(member["resolution"]),
        format_count(member["flops"]),
        f"{member['flops_ratio']:.2f}",
        f"{member['two_to_phi']:.4g}",
        format_count(member["params"]),
        format_count(member["activations"]),
        format_bytes(member["training_bytes_per_image"]),
    ]


def show_plan(found: Row, console: Console) -> None:
    """Print what a search can reach and will take."""
    size, choices = found["size"], found["choices"]
    console.print(f"space {found['space']}: {size:,} archs ({size:.3g}), {choices} choices")
    for name, reach in found["reachable"].items():
        unit = {"flops": " multiply-adds", "latency_ms": " ms"}.get(name, "")
        low, high = format_count(reach["least"]), format_count(reach["most"])
        console.print(f"reachable {name}: {low} to {high}{unit}")
    for name, share in found["shares"].items():
        console.print(
            f"of {found['random_archs']} random archs: {share['at_or_under']:.1%} at or under "
            f"{name} {format_count(share['target'])}, {share['within_5_percent']:.1%} within 5 %"
        )
    console.print(f"reward = {found['objective']}")
    console.print(f"evaluator: {found['evaluator']}")
    console.print(_projection(found))


def _projection(found: Row) -> str:
    if found["problem"]:
        return f"no times: {found['problem']}"
    return (
        f"{found['trials']} evaluations (random search included) at "
        f"{format_seconds(found['seconds_per_trial'])} on {found['workers']} worker(s): "
        f"{format_seconds(found['projected_seconds'])}; besides, controller {found['controller']} "
        f"takes {format_seconds(found['seconds_per_proposal'])} a proposal at the start"
    )


def show_arch(found: Row, console: Console) -> None:
    """Print an arch stage by stage."""
    arch = found["arch"]
    table = Table(box=None, pad_edge=False)
    for title in (
        "stage",
        "op",
        "k",
        "exp",
        "SE",
        "skip",
        "stride",
        "input",
        "channels",
        "layers",
        "params",
        "FLOPs",
    ):
        table.add_column(title, justify="left" if title in ("stage", "op") else "right")
    stem, head = arch["stem"], arch["head"]
    ends = {
        "stem": ["conv", stem["kernel"], "", "", "", stem["stride"]],
        "head": ["conv 1x1, pool, linear" if head["channels"] else "pool, linear", *[""] * 5],
    }
    for row in found["stages"]:
        index = int(row["name"].split()[-1]) - 1 if row["name"] not in ends else None
        stage = arch["stages"][index] if index is not None else None
        cells = (
            ends[row["name"]]
            if stage is None
            else [
                stage["op"],
                stage["kernel"],
                f"{stage['expansion']:g}",
                f"{stage['se']:g}",
                stage["skip"],
                stage["stride"],
            ]
        )
        size = f"{row['size'][0]}×{row['size'][1]}"
        layers = stage["layers"] if stage else 1
        costs = [format_count(row["params"]), format_count(row["flops"])]
        shown = [row["name"], *cells, size, row["channels"], layers, *costs]
        table.add_row(*(str(cell) for cell in shown))
    console.print(f"{found['name']}  id {found['id']}")
    console.print(table)
    _print_costs(found, console)
    _print_claims(found, console)


def _print_claims(found: Row, console: Console) -> None:
    """Print what is published and what the surrogate predicts."""
    figures, predicted = found["published"], found["predicted"]
    if figures:
        numbers = [f"top-1 {figures['top1']} %"] if figures["top1"] else []
        numbers += [f"params {format_count(figures['params'])}"] if figures["params"] else []
        numbers += [f"FLOPs {format_count(figures['flops'])}"] if figures["flops"] else []
        console.print(f"published    {', '.join(numbers)} ({figures['source']})")
        if figures["note"]:
            console.print(f"             {figures['note']}")
    if predicted:
        console.print(f"predicted    {accuracy(predicted)} % by {predicted['evaluator']}")


def show_cost(found: Row, console: Console) -> None:
    """Print what an arch costs, and what other counters say of it."""
    console.print(f"{found['name']} at {found['resolution']} pixels")
    _print_costs(found, console)
    for name, counts in found.get("counters", {}).items():
        numbers = ", ".join(f"{key} {value:,}" for key, value in counts.items())
        console.print(f"{name:<12} {numbers}")
    if "counters" in found:
        console.print("torch's operations are halved; thop's extra is batch norm and pooling")


def _print_costs(found: Row, console: Console) -> None:
    """Print costs in both conventions of FLOPs."""
    flops = found["flops"]
    per_image = format_bytes(found["training_bytes_per_image"])
    console.print(f"params       {found['params']:,}  (+ {found['buffers']:,} norm statistics)")
    console.print(
        f"FLOPs        {flops:,} multiply-adds (MACs); {2 * flops:,} counting both operations"
    )
    console.print(f"activations  {found['activations']:,}")
    console.print(
        f"memory       float32, estimated: training {per_image} an image + "
        f"{format_bytes(found['training_bytes'])}; inference "
        f"{format_bytes(found['inference_bytes'])}"
    )


def show_listing(rows: list[dict[str, Any]], console: Console) -> None:
    """Print rows as a table."""
    if not rows:
        console.print("none yet")
        return
    table = Table(box=None, pad_edge=False)
    for title in rows[0]:
        justify: Any = "right" if _is_number(rows[0][title]) else "left"
        table.add_column(title, justify=justify, no_wrap=not console.is_terminal)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console.print(table)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return " ".join(f"{key}={inner}" for key, inner in value.items())
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else str(value)
