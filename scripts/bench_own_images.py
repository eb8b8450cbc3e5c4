"""What starting from weights is worth on a folder of photographs, at equal multiply-adds.

    python scripts/bench_own_images.py --data ./photos --targets 100M,30M --seeds 0,1,2 --out out

Rows, each with the default flags of `nas.train` and `nas.search`:

    probe     the pretrained parent at the pixels that meet the target, its head alone trained
    parent    the parent at these pixels, fine-tuned
    nothing   the same network from random weights, for the seconds that `parent` took
    search    the network that a search under the target hands over, with its weights

`--teachers none,pretrained` does all but the probe with each of these teachers. The test split is
read once for each finished network. Its standard error is by the number of images; that over the
seeds stands beside it. CPU seconds are user and system time of all processes of a row: for `search`
its candidates, the random search beside it and the finals too. Each row is a process of its own and
a line of OUT/rows.csv when it is done, so a benchmark that was stopped goes on with the same
command; of a row that was stopped in its middle the CPU seconds are those since then, marked >. OUT
also gets table.md and table.json. `--train` and `--search` add settings of the two verbs to all
rows, such as `--search time_limit=20m`.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from lib import flags, tables
from lib.processes import alone

import nas
from nas.cli.flags import pairs
from nas.core import run_folder
from nas.core.ledger import Ledger
from nas.core.units import parse_count
from nas.data.dataset import open_dataset

ROWS = ("probe", "parent", "nothing", "search")
PIXELS = range(512, 30, -2)  # even: a network halves them
NO_TEACHER = "none"
HEAD = (
    "row | target | teacher | pixels | FLOPs | params | test % | mean | ± seeds | ± images | CPU s"
)


@dataclass(frozen=True)
class Finished:
    """A finished network; accuracies in percent, `error` of the test's `n` images."""

    row: str
    target: str
    teacher: str
    seed: int
    net: str
    arch_id: str
    pixels: int
    flops: int
    params: int
    val: float
    test: float
    error: float
    n: int
    cpu_seconds: float
    seconds: float
    resumed: int
    run: str

    @property
    def key(self) -> Key:
        return Key(self.row, self.target, self.teacher, self.seed)


class Key(NamedTuple):
    """A row of the benchmark, which may be done or not."""

    row: str
    target: str
    teacher: str
    seed: int


@flags.in_one_line
def main(words: Sequence[str] | None) -> int:
    """Do the rows that are missing, then print the table; return 1 if one failed."""
    asked = parse(words)
    if asked.job:
        print(json.dumps(run_job(json.load(sys.stdin))))
        return 0
    dataset = open_dataset(asked.data)
    check_settings(asked, dataset.fingerprint)
    parent = nas.load_arch(asked.parent)
    parent = replace(parent, head=replace(parent.head, classes=len(dataset.classes)))
    ledger = Ledger(asked.out / "rows.csv", Finished)
    for key in keys(asked):
        done = key in {each.key for each in ledger.rows}
        if not done and (found := do(asked, ledger, parent, key)):
            ledger.append(found)
            print(f"{' '.join(map(str, key))}: test {found.test:.2f} %", flush=True)
    mine = set(keys(asked))
    finished = [each for each in ledger.rows if each.key in mine]
    report(asked.out, finished)
    return int(len(finished) < len(mine))


def check_settings(asked: argparse.Namespace, fingerprint: str) -> None:
    """Keep what all rows have in common.

    Raises:
        OptionError: the rows that are there are of other images or settings.
    """
    path = asked.out / "settings.json"
    own = {"data": fingerprint, "parent": asked.parent, "threads": asked.threads}
    own |= {"train": sorted(asked.train), "search": sorted(asked.search)}
    kept = run_folder.read_json(path) if path.exists() else own
    if kept != own:
        differ = ", ".join(name for name in own if own[name] != kept.get(name))
        raise nas.OptionError(f"{asked.out} has rows of another {differ}: name another --out")
    run_folder.write_json(path, own)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--data", help="a folder of class folders or of parquet files")
    parser.add_argument("--targets", type=_words, default=["127M", "100M", "30M"])
    parser.add_argument("--rows", type=_words, default=list(ROWS), help=",".join(ROWS))
    parser.add_argument("--teachers", type=_words, default=[NO_TEACHER])
    parser.add_argument(
        "--seeds", type=lambda text: [*map(int, text.split(","))], default=[0, 1, 2]
    )
    parser.add_argument("--parent", default="efficientnet_lite0")
    parser.add_argument("--out", type=Path, default=Path("runs/own_images"))
    parser.add_argument("--train", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--search", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--limit", default="15m", help="of `nothing` where there is no `parent`")
    parser.add_argument("--threads", default="1", help="of torch, in each row")
    parser.add_argument("--job", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(words)
    if unknown := set(asked.rows) - set(ROWS):
        parser.error(f"--rows takes some of {', '.join(ROWS)}, not {', '.join(sorted(unknown))}")
    if not asked.data and not asked.job:
        parser.error("--data is needed: a folder of class folders or of parquet files")
    return asked


def _words(text: str) -> list[str]:
    return text.split(",")


def keys(asked: argparse.Namespace) -> Iterator[Key]:
    """Yield what is to be done: all of a seed before the next; `parent` before `nothing`."""
    for seed in asked.seeds:
        for target in asked.targets:
            for row in (row for row in ROWS if row in asked.rows):
                for teacher in [NO_TEACHER] if row == "probe" else asked.teachers:
                    yield Key(row, target, teacher, seed)


def do(
    asked: argparse.Namespace, ledger: Ledger[Finished], parent: nas.Arch, key: Key
) -> Finished | None:
    """Do one row in a process of its own; None where it failed, which is told."""
    name = "-".join(map(str, key)).replace("/", "_").replace(":", "_")
    verb = "search" if key.row == "search" else "train"
    settings = {"data": asked.data, "seed": key.seed, "name": name, "resume": True}
    settings |= {"project": str((asked.out / "runs").resolve())}
    settings |= {} if key.teacher == NO_TEACHER else {"teacher": key.teacher}
    if verb == "search":
        settings |= {"target_flops": key.target, **pairs(asked.search)}
    else:
        settings |= {"arch": asked.parent, "imgsz": pixels(parent, key.target)}
        settings |= of_training(asked, ledger, key)
    resumed = (asked.out / "runs" / verb / name).exists()
    before = cpu_seconds()
    job = json.dumps({"verb": verb, "settings": settings})
    found = alone(__file__, ["--job"], job, {"OMP_NUM_THREADS": asked.threads})
    if "reason" in found:
        print(f"{' '.join(map(str, key))}: {found['reason']}", file=sys.stderr, flush=True)
        return None
    spent = round(cpu_seconds() - before, 1)
    return Finished(*key, cpu_seconds=spent, resumed=int(resumed), **found)


def of_training(asked: argparse.Namespace, ledger: Ledger[Finished], key: Key) -> dict[str, Any]:
    """Return the settings that tell the rows of trainings apart."""
    more = pairs(asked.train)
    if key.row == "probe":
        alike = {name: more[name] for name in more if name not in ("epochs", "time_limit")}
        return {**alike, "probe": True}
    if key.row == "parent":
        return more
    same = key._replace(row="parent")
    seconds = [each.seconds for each in ledger.rows if each.key == same]
    limit = {} if "epochs" in more else {"time_limit": seconds[0] if seconds else asked.limit}
    return {**more, **limit, "init": "none"}


def pixels(parent: nas.Arch, target: str) -> int:
    """Return the most pixels at which a network keeps to some multiply-adds."""
    most = parse_count(target, "--targets")
    fitting = (side for side in PIXELS if nas.count(parent, side).flops <= most)
    if found := next(fitting, 0):
        return found
    raise nas.OptionError(
        f"{parent.name} is above {target} at {PIXELS[-1]} pixels: raise --targets"
    )


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Call a verb; return what the table has of its network."""
    return (trained if job["verb"] == "train" else searched)(job["settings"])


def trained(settings: dict[str, Any]) -> dict[str, Any]:
    done = nas.train(settings.pop("arch"), tracker=["none"], **settings)
    own: dict[str, Any] = {"net": done.arch, "arch_id": done.arch_id, "pixels": done.imgsz}
    own |= {"flops": done.flops, "params": done.params, "seconds": round(done.seconds, 1)}
    own |= {"val": done.val.top1 if done.val else math.nan, "run": str(done.run)}
    return {**own, **test_score(done.test or nas.val(done.run, split="test"))}


def searched(settings: dict[str, Any]) -> dict[str, Any]:
    done = nas.search(**settings)
    best = done.best
    own: dict[str, Any] = {
        "net": best.label or best.name,
        "arch_id": best.arch_id,
        "run": str(done.run),
    }
    own |= {"pixels": best.arch.resolution, "seconds": round(done.seconds, 1)}
    own |= {name: int(best.metrics[name]) for name in ("flops", "params")}
    own |= {"val": best.metrics["accuracy"]}
    return {**own, **test_score(nas.val(done.run, split="test"))}


def test_score(score: Any) -> dict[str, Any]:
    return {"test": score.top1, "error": score.standard_error, "n": score.n}


def cpu_seconds() -> float:
    """Return user and system time of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report(out: Path, finished: Sequence[Finished]) -> None:
    """Print the table and write it as Markdown and as JSON."""
    groups: dict[Key, list[Finished]] = {}  # of all seeds, under the key of seed 0
    for each in finished:
        groups.setdefault(each.key._replace(seed=0), []).append(each)
    order = sorted(groups, key=lambda k: (-parse_count(k.target), ROWS.index(k.row), k.teacher))
    text = tables.markdown(HEAD.split(" | "), [cells(groups[key]) for key in order])
    lines = [text, "", *(line for key in order for line in gain(groups, key))]
    print("\n".join(lines))
    run_folder.write_text(out / "table.md", "\n".join(lines) + "\n")
    run_folder.write_json(out / "table.json", {"rows": [asdict(each) for each in finished]})


def cells(group: Sequence[Finished]) -> list[str]:
    """Return a line of the table: the seeds of one row; of several networks the ranges."""
    first, tests = group[0], [each.test for each in group]
    error = statistics.mean(each.error for each in group)
    return [
        *(first.row, first.target, first.teacher),
        span([each.pixels for each in group], ".0f"),
        span([each.flops / 1e6 for each in group], ".1f") + "M",
        span([each.params / 1e6 for each in group], ".2f") + "M",
        ", ".join(f"{test:.1f}" for test in tests),
        f"{statistics.mean(tests):.1f}",
        number(deviation(tests)),
        f"{error:.1f} (n = {first.n})",
        ", ".join(f"{'>' * each.resumed}{each.cpu_seconds:,.0f}" for each in group),
    ]


def gain(groups: Mapping[Key, Sequence[Finished]], key: Key) -> list[str]:
    """Return what a row adds to the parent without a teacher at the same target, seed by seed."""
    alike = Key("parent", key.target, NO_TEACHER, 0)
    base = {each.seed: each.test for each in groups.get(alike, [])}
    more = [each.test - base[each.seed] for each in groups[key] if each.seed in base]
    if not more or key == alike:
        return []
    told = f"{statistics.mean(more):+.1f} ± {number(deviation(more))} points"
    return [
        f"{key.row}, teacher {key.teacher}, over {key.target}'s parent: {told} ({len(more)} seeds)"
    ]


def deviation(values: Sequence[float]) -> float:
    """Return the standard error of a mean; nan of a single value."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def span(values: Sequence[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low}–{high}"


if __name__ == "__main__":
    sys.exit(main())
