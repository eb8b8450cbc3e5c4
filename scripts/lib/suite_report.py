"""What `bench_training.py` and `gpu_suite.py` measured, as Markdown; the suite's goals judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lib import tables

SCHEMA = 1
PROMISED = 540.0  # seconds
RATIOS = ((("ours", "ceiling"), 0.9), (("ours", "timm"), 1.3))


class Done(NamedTuple):
    """What became of a part: `lines`, the JSON objects that it printed; `reason`, of a failure."""

    name: str
    seconds: float
    reason: str
    lines: list[dict[str, Any]]


class Goal(NamedTuple):
    """`met` is None where nothing was measured."""

    text: str
    found: str
    met: bool | None


def conclude(
    done: Sequence[Done], data: str, trials: int, seconds: float, *, smoke: bool
) -> dict[str, Any]:
    """Return the report as JSON data. `data` says what was searched on, `trials` how many asked."""
    parts = {part.name: part for part in done}
    goals = [
        *ratio_goals("no policy", parts.get("training")),
        *ratio_goals("the recipe's policy", parts.get("policy")),
        search_goal(parts.get("search"), data, trials, seconds),
    ]
    return {
        "schema": SCHEMA,
        "data": data,
        "smoke": smoke,
        "seconds": round(seconds, 1),
        "parts": [part._asdict() for part in done],
        "goals": [goal._asdict() for goal in goals],
    }


def ratio_goals(what: str, part: Done | None) -> list[Goal]:
    rows = [row for line in (part.lines if part else []) for row in line.get("ratios", [])]
    found = {tuple(row["of"]): row["medians"] for row in rows}
    goals = []
    for (one, other), least in RATIOS:
        value = found.get((one, other))
        shown = "not measured" if value is None else f"{value:.3f}"
        text = f"images a second, {one} / {other} at least {least:g} ({what})"
        goals.append(Goal(text, shown, None if value is None else value >= least))
    return goals


def search_goal(part: Done | None, data: str, trials: int, seconds: float) -> Goal:
    text = f"a search of {trials} trials, the suite within {PROMISED:.0f} s ({data})"
    if not part or not part.lines:
        return Goal(text, "not measured", None)
    spent = max(int(line.get("tried", 0)) for line in part.lines)
    found = f"{spent} trials in {part.seconds:.0f} s, the suite {seconds:.0f} s"
    return Goal(text, found, spent >= trials and seconds < PROMISED)


def markdown(report: Mapping[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = [f"data: {report['data']}; {report['seconds']} s in all", ""]
    for part in report["parts"]:
        lines += [f"## {part['name']}: {part['reason'] or 'done'}, {part['seconds']} s", ""]
        for key, table in TABLES.items():
            lines += table([line for line in part["lines"] if key in line])
    note = " (a smoke run: they say nothing)" if report["smoke"] else ""
    lines += [f"## Goals{note}", ""]
    words = {True: "met", False: "NOT met", None: "unknown"}
    lines += [f"goal: {g['text']}: {g['found']}: {words[g['met']]}" for g in report["goals"]]
    return "\n".join(lines) + "\n"


def grid(head: str, rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table; `head` has its columns apart by |. Nothing, where there are no rows."""
    return [*tables.markdown(head.split(" | "), rows).splitlines(), ""] if rows else []


def training_tables(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    shown: list[str] = []
    for line in lines:
        settings = ", ".join(f"{key} {value}" for key, value in line["settings"].items())
        shown += [line["machine"], f"load {line['load']} a core; {settings}", *line["notes"], ""]
        speeds = line["images_per_second"].items()
        head = f"images a second ({line['settings']['clock']} time) | median | quartiles | rounds"
        shown += grid(
            head, [[name, *middle(values, 1), str(len(values))] for name, values in speeds]
        )
        head = "ratio | of the medians | of the rounds, median | quartiles"
        shown += grid(head, [ratio_cells(row) for row in line["ratios"]])
    return shown


def ratio_cells(row: Mapping[str, Any]) -> list[str]:
    return [" / ".join(row["of"]), f"{row['medians']:.3f}", *middle(row["rounds"], 3)]


def middle(values: Sequence[float], digits: int) -> tuple[str, str]:
    """Return the median, and the quartiles; of a single value, that."""
    low, median, high = (f"{value:,.{digits}f}" for value in tables.quartiles(values))
    return median, f"{low}–{high}" if len(values) > 1 else "-"


def memory_tables(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = []
    for line in lines:
        cells = [line["arch"], str(line["batch"])]
        for peak in line["peaks"].values():
            error = peak["estimate"] / peak["measured"] - 1
            cells += [f"{peak['measured'] / 2**20:,.0f}", f"{error:+.1%}"]
        rows.append(cells if line["peaks"] else [*cells, line["reason"], "", "", ""])
    return grid("arch | batch | inference, MiB | estimate | training, MiB | estimate", rows)


def family_tables(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = []
    for line in lines:
        cells = [line["member"], str(line["pixels"]), str(line["batch"])]
        if line["measured"]:
            speed = line["images_per_second"]
            cells += [f"{line['measured'] / 2**20:,.0f}", f"{line['difference']:+.1%}"]
            cells.append("" if speed is None else f"{speed:,.1f}")
        else:
            cells += [line["reason"], "", ""]
        rows.append(cells)
    return grid("member | pixels | batch | training, MiB | estimate | images a second", rows)


def search_tables(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    shown = []
    for line in lines:
        metrics = (line["best"] or {}).get("metrics", {})
        best = ", ".join(f"{name} {value:,.6g}" for name, value in metrics.items())
        ended = line["stopped"] or "all trials done"
        shown += [line["evaluator"]["title"], f"best: {best or 'none'}", f"ended: {ended}", ""]
    return shown


def tried_tables(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        [str(line["tried"]), *(str(line["states"].get(state, 0)) for state in STATES), at_once]
        for line in lines
        for at_once in [str(line["at_once"] or "unknown")]
    ]
    return grid(f"trained | {' | '.join(STATES)} | at once", rows)


def pretrained_tables(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    shown: list[str] = []
    for line in lines:
        settings = ", ".join(f"{key} {value}" for key, value in line["settings"].items())
        shown += [f"{line['pretrained']} on {line['device']}; {settings}", ""]
        far = {name: line["logits"][name] for name in ("float32", "bfloat16")}
        rows = [[n, f"{row['difference']:.2g}", f"{row['same']:.0%}"] for n, row in far.items()]
        largest = f"{line['logits']['largest']:.2g}"
        shown += grid(f"logits (largest {largest}) | off the CPU's by | same class", rows)
        shown += grid(
            "from weights | top-1 % | images a second | seconds | peak, MiB",
            [pretrained_cells(name, row) for name, row in line["rows"].items()],
        )
    return shown


def pretrained_cells(name: str, row: Mapping[str, Any]) -> list[str]:
    def told(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    memory = row["peak_bytes"] and row["peak_bytes"] / 2**20
    rate = told(row["images_per_second"], ",.1f")
    return [name, told(row["top1"], ".1f"), rate, str(row["seconds"]), told(memory, ",.0f")]


STATES = ("done", "stopped", "failed", "duplicate", "rejected")
# how the printed objects that have this key are shown
TABLES: dict[str, Callable[[Sequence[Mapping[str, Any]]], list[str]]] = {
    "ratios": training_tables,
    "peaks": memory_tables,
    "pixels": family_tables,
    "pretrained": pretrained_tables,
    "proposals": search_tables,
    "tried": tried_tables,
}
