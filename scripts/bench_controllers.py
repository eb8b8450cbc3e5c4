"""Compare controllers on landscapes whose truth is known, with the noise of one training per arch.

Landscapes: `embedded`, the surrogate's prediction on the space mbconv plus a fixed normal draw
for each arch (--noise, points); `synthetic`, a table of 6,561 networks that is made up from a
seed; and a table of the user's (--table, docs/extend.md). Every controller runs through the same
engine and journal as `nas search`, and begins as it does with the reference designs of the space
that meet the target, where it has any. `hillclimb`, the trivial search to beat, is these and then
half random points, half mutations of the best. What counts is the *true* reward, without the
noise: of the arch that looked best so far, of the arch that is handed over (the best by the
posterior mean of all trials), and the best of all that were evaluated; all by reward alone, where
`nas search` under the hard reward puts what keeps to the target first. With --objective pareto it
is the area under the front of accuracy and the logarithm of FLOPs, as a share of the whole.

With --out every search that has ended is on file, and the same command goes on with the others:
take a controller's rows out of the file to measure it again. All that is on file is shown.

    python scripts/bench_controllers.py --out bench/rewards.csv --picture bench/rewards.png
    python scripts/bench_controllers.py --objective pareto --trials 400 --out bench/pareto.csv
    python scripts/bench_controllers.py --table my.parquet --space my_space.py --out bench/my.csv
"""

from __future__ import annotations

import argparse
import csv
import io
import multiprocessing
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from typing import Any

from lib import controller_search, controller_tables, flags, landscapes
from lib.controller_search import Job, tried
from lib.controller_tables import Row
from lib.landscapes import EMBEDDED, PARETO, SYNTHETIC, Landscape

from nas.cli.flags import pairs
from nas.core import registry
from nas.core.errors import OptionError
from nas.core.settings import whole
from nas.core.units import parse_count

POINTS = (10, 20, 30, 50, 100, 200, 300, 400, 1000, 2000, 4000, 8000)
CAPS = {"gp": 100}  # trials: its proposals take longer and longer
NAMES = f"{EMBEDDED},{SYNTHETIC}"


@flags.in_one_line
def main(words: Sequence[str] | None) -> int:
    """Compare; return 1 if a search failed."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is loaded; searches share cores
    given = arguments(words)
    try:
        return bench(given)
    except OSError as error:
        raise SystemExit(f"bench_controllers: {error}") from error
    except KeyboardInterrupt:
        more = "the same command goes on" if given.out else "nothing is kept without --out"
        print(f"interrupted: {more}", file=sys.stderr)
        return 130


def bench(given: argparse.Namespace) -> int:
    """Run the searches that are not on file, and show all that are.

    Raises:
        NasError: what is asked for cannot be.
        OSError: a file cannot be written.
    """
    jobs = list(jobs_of(given))
    kept = read(given.out) if given.out else []
    done = {row.key for row in kept}
    left = [job for job in jobs if job.key not in done]
    print(f"{len(jobs)} searches, {len(jobs) - len(left)} of them on file", file=sys.stderr)
    failed = 0
    for number, (job, rows, error) in enumerate(results(left, given.processes), 1):
        kept += rows
        failed += bool(error)
        if given.out:
            append(given.out, rows)
        what = f"{job.landscape.name} {job.reward} {job.controller} seed {job.seed}"
        told = f"FAILED: {error}" if error else f"{rows[-1].ms:.1f} ms a trial"
        print(f"{number}/{len(left)} {what}: {told}", file=sys.stderr)
    for line in controller_tables.lines(kept):
        print(line)
    if given.picture and kept:
        controller_tables.draw(given.picture, kept)
    return int(bool(failed))


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--controllers", help="names or paths, by commas (default: all)")
    parser.add_argument("--landscapes", help=f"(default: {NAMES}, or the --table alone)")
    parser.add_argument("--table", type=Path, help="a .csv or .parquet table of the user's")
    parser.add_argument("--space", help="of the table: a name or a .py file")
    parser.add_argument("--target-flops", help="of the table, as 30M (default: the median)")
    parser.add_argument("--rewards", default="hard,soft", help="hard, soft, absolute, accuracy")
    parser.add_argument("--objective", default="reward", choices=("reward", PARETO))
    parser.add_argument("--seeds", type=flags.positive, default=20)
    parser.add_argument("--trials", type=flags.positive, default=1000)
    parser.add_argument(
        "--points", help="evaluations to look at, by commas; of searches that are not on file"
    )
    parser.add_argument("--noise", type=float, default=0.3, help="percent points (0.3)")
    parser.add_argument("--option", action="append", default=[], metavar="CONTROLLER.NAME=VALUE")
    parser.add_argument(
        "--cap", action="append", default=[], help="CONTROLLER=TRIALS at most (gp=100)"
    )
    parser.add_argument(
        "--no-references", action="store_true", help="begin without the space's reference designs"
    )
    parser.add_argument(
        "--workers", type=flags.positive, default=1, help="evaluations in flight (virtual)"
    )
    parser.add_argument("--processes", type=flags.positive, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="a .csv file that is gone on with")
    parser.add_argument("--picture", type=Path, help="a .png file")
    given = parser.parse_args(words)
    if bool(given.table) != bool(given.space):
        parser.error("--table and --space belong together")
    if given.target_flops and not given.table:
        parser.error("--target-flops is of a --table; the others have their own")
    given.folder = given.out.parent if given.out else Path(tempfile.mkdtemp(prefix="bench-"))
    return given


def jobs_of(given: argparse.Namespace) -> Iterator[Job]:
    """Yield all searches, those of one seed together.

    Raises:
        NasError: an unknown controller, option, landscape or reward, or no such table.
    """

    rewards = [PARETO] if given.objective == PARETO else given.rewards.split(",")
    options = options_of(given.option)
    positive = whole(1).read
    caps = CAPS | {name: positive(most, "--cap") for name, most in pairs(given.cap).items()}
    counts = given.points.split(",") if given.points else POINTS
    points = [positive(count, "--points") for count in counts]
    names = controllers(given, options, rewards)
    places = places_of(given)
    tops = {
        (place, reward): landscapes.ceiling(place, reward, given.folder)
        for place, reward in product(places, rewards)
    }
    for (place, reward), top in tops.items():
        print(f"{place.name}, {reward}: {top.value:.2f}; {top.how}", file=sys.stderr)
    designs = {each: controller_search.designs(*each) for each in tops}
    for seed, (place, reward), name in product(range(given.seeds), tops, names):
        trials = min(given.trials, caps.get(name, given.trials))
        mine = tuple(sorted(options.get(name, {}).items()))
        begun = 0 if given.no_references else designs[place, reward]
        yield Job(
            *(place, reward, name, mine, trials, given.workers, begun, seed),
            points=tuple(sorted({*(p for p in points if p <= trials), trials})),
            ceiling=tops[place, reward],
        )


def places_of(given: argparse.Namespace) -> list[Landscape]:
    """Return the landscapes that are asked for.

    Raises:
        OptionError: an unknown one, or no such table.
    """

    found = []
    if given.table:
        asked = given.target_flops
        target = parse_count(asked, "--target-flops") if asked else None
        found.append(landscapes.of_table(given.table, given.space, target))
    for name in (given.landscapes or ("" if given.table else NAMES)).split(","):
        if name == EMBEDDED:
            found.append(landscapes.embedded(given.noise))
        elif name == SYNTHETIC:
            found.append(landscapes.synthetic(given.folder, given.noise))
        elif name:
            raise OptionError(f"--landscapes takes {NAMES}, not {name!r}; --table adds your own")
    return found


def options_of(texts: list[str]) -> dict[str, dict[str, Any]]:
    """Return the options of each controller."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in pairs(texts).items():
        controller, _, option = name.rpartition(".")
        found.setdefault(controller, {})[option] = value
    return found


def controllers(
    given: argparse.Namespace, options: Mapping[str, Mapping[str, Any]], rewards: Sequence[str]
) -> list[str]:
    """Return the controllers to compare: those asked for, or all that can pursue the objective.

    Raises:
        OptionError: an unknown controller or option, or one that cannot pursue it.
    """

    objective = PARETO if rewards == [PARETO] else "reward"
    asked = given.controllers.split(",") if given.controllers else None
    names = []
    for name in asked or registry.names("controllers"):
        fixed = ("seed", "constraint_violation", "excess", "goal", "draw")
        registry.check_options("controllers", name, options.get(name, {}), fixed)
        if objective in registry.export("controllers", name, "OBJECTIVES"):
            names.append(name)
        elif asked:
            raise OptionError(f"controller {name} cannot pursue --objective {objective}")
    for name in options:
        if name not in names:
            raise OptionError(f"--option {name or '?'}.NAME=VALUE: no such controller is compared")
    return names


def results(jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, list[Row], str]]:
    """Yield each search with its rows, or with why it failed, in the order in which they end."""
    if processes == 1 or len(jobs) < 2:
        yield from ((job, *tried(job)) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(processes, context) as pool:
        futures = {pool.submit(tried, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                error = future.exception()  # a process that was killed
                yield (futures[future], *(([], repr(error)) if error else future.result()))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def read(path: Path) -> list[Row]:
    """Return the searches on file; what a kill has left of one is cut off.

    Raises:
        OptionError: the file is no such file.
    """

    if not path.exists():
        return []
    head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
    if head.strip() != ",".join(Row._fields):
        raise OptionError(f"{path} is of something else, or of an earlier version: name another")
    told = [Row.of(cells) for cells in csv.reader(line for line in lines if line.endswith("\n"))]
    rows = [row for row in told if row]
    counts = Counter(row.key for row in rows)
    whole = [row for row in rows if counts[row.key] == row.rows]
    if len(whole) < len(lines):
        text = head + "".join(map(line_of, whole))
        path.with_suffix(".part").write_text(text, encoding="utf-8")
        path.with_suffix(".part").replace(path)
    return whole


def append(path: Path, rows: Sequence[Row]) -> None:
    """Add a search to the file, in one write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "" if path.exists() else ",".join(Row._fields) + "\n"
    with path.open("a", encoding="utf-8") as file:
        file.write(head + "".join(map(line_of, rows)))


def line_of(row: Row) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()


if __name__ == "__main__":
    sys.exit(main())
