"""Command line, end to end: verbs, JSON, exit codes, one-line errors."""

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import START, Cli, wait_until

import nas

SEARCH = ("search", "--evaluator", "synthetic", "--target-flops", "400M", "--trials", "12")
IMPORTS = """
import sys
from nas.cli.program import main
sys.argv = ["nas", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert end.code == 0, end.code
loaded = {name.partition(".")[0] for name in sys.modules}
print("LOADED", *sorted(loaded & {"torch", "optuna", "numpy", "scipy", "plotly", "yaml"}))
"""


def one_object(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the only thing on stdout."""
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    data: dict[str, Any] = json.loads(done.stdout)
    assert data["schema"] == 1
    return data


def one_line(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """Return the only line there is: an error without a traceback."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("nas: ")
    return lines[0]


def test_the_main_path(cli: Cli, process: Cli, folder: Path) -> None:
    done = process(*SEARCH)
    assert done.returncode == 0
    for text in ("efficientnet_b0", "random search (12 trials)", "nas scale runs/search/search"):
        assert text in done.stdout
    assert "saved   runs/search/search" in done.stdout
    progress = done.stderr.splitlines()
    assert 1 < len(progress) <= 24 and all("reward" in line for line in progress)
    scaled = cli("scale", "--phi", "1..2")
    assert scaled.returncode == 0 and "runs/scale/scale" in scaled.stdout
    assert [line.split()[0] for line in scaled.stdout.splitlines()[2:4]] == ["b1", "b2"]
    reported = cli("report", "runs/search/search")
    assert reported.stdout == "runs/search/search/report.html\n"
    assert (folder / "runs/search/search/report.html").stat().st_size > 10_000
    assert "runs/search/search" in cli("ls", "runs").stdout


def test_search_json(cli: Cli) -> None:
    done = cli(*SEARCH, "--json")
    found = one_object(done)
    assert {"schema", "run", "best", "trials"} <= set(found)
    assert {"arch", "choices", "reward", "metrics"} <= set(found["best"])
    assert {"accuracy", "flops", "params"} <= set(found["best"]["metrics"])
    assert done.stderr  # progress
    quiet = cli(*SEARCH, "--json", "-q", "--resume")
    assert one_object(quiet) == found and quiet.stderr == ""


def test_scale_json(cli: Cli) -> None:
    found = one_object(
        cli("scale", "efficientnet_b0", "--phi", "1..3", "--rule", "released", "--json")
    )
    assert {"schema", "rule", "members"} <= set(found)
    keys = {"name", "phi", "depth", "width", "resolution", "params", "flops"}
    assert all(keys <= set(member) for member in found["members"])
    assert [member["resolution"] for member in found["members"]] == [240, 260, 300]
    assert found["members"][0]["params"] == 7_794_184


def test_cost_json(cli: Cli) -> None:
    found = one_object(cli("cost", "efficientnet_b0", "--json"))
    wanted = {"name": "efficientnet_b0", "params": 5_288_548, "resolution": 224}
    assert {key: found[key] for key in wanted} == wanted
    assert all(isinstance(found[key], int) for key in ("params", "flops", "activations"))
    larger = one_object(cli("cost", "efficientnet_b0", "--imgsz", "448", "--json"))
    assert larger["resolution"] == 448 and larger["flops"] > 3.9 * found["flops"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("plan", "--target-flops", "400M", "--evaluator", "synthetic"), "104,485,552,128"),
        (("show", "efficientnet_b0"), "stage 7"),
        (("cost", "resnet50"), "multiply-adds (MACs)"),
        (("ls", "spaces"), "mnasnet"),
        (("ls", "baselines"), "efficientnet_l2"),
        (("ls", "controllers"), "evolution"),
        (("ls", "evaluators"), "synthetic"),
        (("ls", "executors"), "local"),
        (("ls", "ops"), "mbconv"),
        (("ls", "recipes"), "efficientnet"),
        (("ls", "devices"), "onnxruntime"),
        (("ls", "runs"), "none yet"),
        (("--version",), nas.__version__),
        (("--help",), "search"),
        ((), "Usage: nas"),
    ],
)
def test_verbs_answer_on_stdout_alone(cli: Cli, arguments: tuple[str, ...], text: str) -> None:
    done = cli(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert text in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "--target-flops", "400M", "--evaluator", "synthetic", "--objective", "pareto"),
        ("show", "efficientnet_b0"),
        *(("ls", what) for what in ("spaces", "baselines", "controllers", "evaluators", "runs")),
    ],
)
def test_json_is_one_object(cli: Cli, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments, "--json")
    one_object(done)
    assert done.stderr == ""


PLAN = "plan --evaluator synthetic --target-flops 400M --trials 100"


def test_plan_tells_the_work_and_what_it_costs(cli: Cli) -> None:
    found = one_object(cli(*f"{PLAN} --workers 4 --price 7200 --json".split()))
    assert (found["trials"], found["final_trainings"]) == (200, 0)
    assert found["references"] == 3  # among the trials
    seconds = found["seconds_per_trial"]
    assert found["worker_hours"] == pytest.approx(200 * seconds / 3600)
    assert found["projected_seconds"] == pytest.approx(200 * seconds / 4)
    assert found["cost"] == pytest.approx(2 * 200 * seconds)
    assert found["gpu_hours"] is None and not found["early_stopping"]
    text = cli(*f"{PLAN} --no-random-search --price 2.5".split()).stdout
    assert "100 evaluations" in text and "at 2.5 a worker-hour" in text


def test_plan_without_a_price_or_times_has_no_cost(cli: Cli) -> None:
    found = one_object(cli(*f"{PLAN} --json".split()))
    assert found["price"] is found["cost"] is None and found["worker_hours"] > 0
    unknown = one_object(cli("plan", "--space", "mnasnet", "--price", "2", "--json"))
    assert unknown["problem"] and unknown["worker_hours"] is unknown["cost"] is None


def test_plan_bills_shares_of_gpus(cli: Cli, tmp_path: Path) -> None:
    part = tmp_path / "cluster.py"
    part.write_text("def make(work, *, workers=0, gpus_per_trial=0.0): ...\n", encoding="utf-8")
    line = f"{PLAN} --executor {part} --gpus-per-trial 0.25 --price 3"
    found = one_object(cli(*f"{line} --json".split()))
    assert found["gpu_hours"] == pytest.approx(found["worker_hours"] / 4)
    assert found["cost"] == pytest.approx(3 * found["gpu_hours"])
    assert "at 3 a GPU-hour" in cli(*line.split()).stdout


@pytest.mark.parametrize(
    ("limit", "hours", "seconds"),
    [(None, 118 / 60, 118 * 60 / 4), (600.0, 4 * 600 / 3600, 600)],
)
def test_a_time_limit_caps_the_bill(limit: float | None, hours: float, seconds: float) -> None:
    from nas.searching.plan import ExpectedWork, bill

    found = bill(ExpectedWork(100, 9, 2.0, 3, 4, limit), 60.0, 0.5, 3.0)
    assert found["worker_hours"] == pytest.approx(hours)
    assert found["gpu_hours"] == pytest.approx(hours / 2)
    assert found["cost"] == pytest.approx(1.5 * hours)
    assert found["projected_seconds"] == pytest.approx(seconds)


def test_plan_counts_the_finals_of_a_search_that_trains() -> None:
    from nas.searching.plan import expected_work
    from nas.searching.settings import SearchSettings
    from nas.searching.setup import prepare

    def work(**more: object) -> tuple[int, int]:
        found = expected_work(
            prepare(SearchSettings.model_validate({"data": "digits", "trials": 10, **more}))
        )
        return found.trials, found.final_trainings

    assert work() == (20, (2 * 3 + 1) * 3)  # and the best reference
    assert work(random_search=False, finalists=2, final_seeds=5) == (10, 15)
    assert work(finalists=0) == (20, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("search --space mbcnv", "no space named 'mbcnv' (did you mean 'mbconv'?)"),
        ("search --space nowhere.py", "no file nowhere.py"),
        ("search --target-flops 400Q", "--target-flops takes a size such as 400M"),
        ("search --target-flops 1M", "reachable are"),
        ("search --target-latency 2", "--target-latency takes a time with its unit"),
        ("search --controller evolutoin", "did you mean 'evolution'"),
        ("plan --target-latency 2ms --evaluator synthetic", "--target-latency needs a --device"),
        (
            "search --controller evolution --controller-option popolation=3",
            "did you mean 'population'",
        ),
        ("search --controller evolution --controller-option population", "name=value"),
        ("search --controller evolution --controller-option population=x", "takes a whole number"),
        ("search --evaluator sythetic", "did you mean 'synthetic'"),
        ("search --reward sof", "did you mean 'soft'"),
        ("search --reward soft --w 0.07 --target-flops 400M", "--w must lie in"),
        ("search --objective pareto --controller evolution", "use one of"),
        ("search --objective pareto --w -1 --target-flops 400M", "--w has no effect"),
        ("search --trials many", "--trials"),
        ("search --trials 0", "--trials takes a whole number of at least 1"),
        ("search --time-limit soon", "--time-limit takes a duration"),
        ("search --name ../x", "--name takes a plain folder name"),
        ("search --project file", "choose another with --project"),
        ("search --config none.yaml", "cannot read none.yaml"),
        ("search --config bad.yaml", "search has no setting 'spice' (did you mean 'space'?)"),
        ("search --trails 3", "No such option: --trails"),
        ("serch", "No such command 'serch'"),
        ("plan --target-flops -3", "must be positive"),
        ("plan --price free", "--price takes a number"),
        ("plan --price 0", "--price takes what an hour costs"),
        ("search --price 2", "No such option: --price"),
        ("scale efficientnet_b9", "did you mean 'efficientnet_b"),
        ("scale efficientnet_b0 --phi nonsense", "--phi takes numbers and ranges"),
        ("scale efficientnet_b0 --rule formla", "did you mean 'formula'"),
        ("scale efficientnet_b0 --alpha 0.3", "alpha"),
        ("scale", "no finished search under runs/search"),
        ("scale efficientnet_b0 --project file", "choose another with --project"),
        ("cost resnet19", "did you mean 'resnet18'"),
        ("cost other.json", "arch schema 99 cannot be read here"),
        ("cost text.json", "is not JSON"),
        ("cost efficientnet_b0 --imgsz 5", "resolution must be a whole number of at least 32"),
        ("show .", "holds no best/arch.json"),
        ("report .", "."),
        ("ls space", "did you mean 'spaces'"),
        ("search --space no_space.py", "does not define SPACE"),
        ("search --space channels.py", "channels must be a whole number of at least 1, not 0"),
        ("search --space strides.py", "shrinks below one pixel"),
        ("search --space key.py", "decode fails on"),
        ("search --space syntax.py", "cannot be imported: SyntaxError"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    cli: Cli,
    folder: Path,
    arguments: str,
    message: str,
) -> None:
    space = (folder / "space.py").read_text()
    broken = {
        "channels.py": ("(16, 24, 32)", "(16, 0)"),
        "strides.py": ("stride=2, expansion", "stride=64, expansion"),
        "key.py": ('choices["channels"]', 'choices["width"]'),
        "no_space.py": ("SPACE =", "PLACE ="),
        "syntax.py": ("return", "retrun"),
    }
    for name, (old, new) in broken.items():
        (folder / name).write_text(space.replace(old, new))
    (folder / "file").write_text("")
    (folder / "bad.yaml").write_text("spice: mbconv\n")
    arch = {**nas.load_arch("resnet18").to_dict(), "schema": 99}
    (folder / "other.json").write_text(json.dumps(arch))
    (folder / "text.json").write_text("hello")
    given = arguments.split()
    if given[0] == "search" and "--evaluator" not in given:
        given += ["--evaluator", "synthetic"]
    assert message in one_line(cli(*given))
    assert not (folder / "runs").exists()


def test_a_foreign_journal_is_refused_and_a_truncated_one_mended(cli: Cli, folder: Path) -> None:
    first = one_object(cli(*SEARCH, "--json", "--name", "mine"))
    journal = folder / "runs/search/mine/journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole[: len(whole) * 2 // 3])
    again = one_object(cli(*SEARCH, "--json", "--name", "mine", "--resume"))
    assert again["best"] == first["best"] and again["random"] == first["random"]
    for content in (b"not ours\n", whole[1:], whole.replace(b'"op_code"', b'"code"', 1)):
        journal.write_bytes(content)
        text = one_line(cli(*SEARCH, "--name", "mine", "--resume"))
        assert "mine/journal.log line 1 is not a record of an Optuna journal" in text
        assert journal.read_bytes() == content
    lines = whole.splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[1:]))  # its head is gone
    assert "its head is lost" in one_line(cli(*SEARCH, "--name", "mine", "--resume"))


def test_a_run_in_use_is_refused_with_who_has_it(cli: Cli, folder: Path) -> None:
    slow = ("search", "--evaluator", "ledger.py", "--evaluator-option", "sleep=600", "--name", "x")
    with subprocess.Popen([*START, *slow, "-q"], stdout=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None and not (folder / "ledger.txt").exists():
                time.sleep(0.02)
            text = one_line(cli(*slow, "--resume"))
        finally:
            process.kill()
    assert f"runs/search/x is in use by process {process.pid} on" in text


@contextlib.contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_costs_nothing(cli: Cli) -> None:
    whole = one_object(cli(*SEARCH, "--json", "-q", "--name", "calm"))
    told: set[str] = set()
    sizes = random.Random(0).sample(range(6_000, 90_000), 3)
    for limit in sorted(sizes):
        with full_disk(limit):
            done = cli(*SEARCH, "-q", "--name", "full", "--resume")
        told.add(one_line(done))
    assert any("every finished trial is kept: make room and repeat" in text for text in told)
    found = one_object(cli(*SEARCH, "--json", "-q", "--name", "full", "--resume"))
    for key in ("best", "random", "trials", "states"):
        assert found[key] == whole[key]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_project_is_one_line(cli: Cli, folder: Path) -> None:
    (folder / "locked").mkdir(mode=0o500)
    assert "choose another with --project" in one_line(cli(*SEARCH, "--project", "locked"))


def test_ctrl_c_stops_cleanly_and_the_printed_command_goes_on(cli: Cli, folder: Path) -> None:
    slow = ["search", "--evaluator", "ledger.py", "--evaluator-option", "sleep=0.05"]
    slow += ["--trials", "40", "--name", "it's mine"]
    pipe, ledger = subprocess.PIPE, folder / "ledger.txt"
    with subprocess.Popen([*START, *slow], stdout=pipe, stderr=pipe, text=True) as process:
        wait_until(lambda: ledger.exists() and len(ledger.read_text().split()) >= 3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "Traceback" not in err and "stopping after the running trial" in err
    assert "saved   runs/search/it's mine" in out
    command = err.splitlines()[-1].removeprefix("resume with: ")
    asked = ledger.read_text().split()
    assert 0 < len(asked) < 40
    # the printed line is for a shell, in which `nas` is this interpreter's
    program = (
        f"nas() {{ {sys.executable} -c 'from nas.cli.program import main; main()' \"$@\"; }}; "
    )
    done = subprocess.run(
        ["bash", "-c", program + command + " --json -q"], capture_output=True, text=True
    )
    assert one_object(done)["trials"] == 40
    archs = ledger.read_text().split()
    assert archs[: len(asked)] == asked and len(archs) == len(set(archs))


def test_a_second_ctrl_c_stops_at_once(folder: Path) -> None:
    slow = ["search", "--evaluator", "ledger.py", "--evaluator-option", "sleep=600"]
    with subprocess.Popen([*START, *slow], stderr=subprocess.PIPE, text=True) as process:
        wait_until((folder / "ledger.txt").exists)
        process.send_signal(signal.SIGINT)
        assert process.stderr
        heard = next(line for line in process.stderr if "stopping after the running" in line)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=500)  # less than the evaluation takes
    assert process.returncode == 130
    assert "Traceback" not in heard + err and "--resume" in err


COSTLY = """
from nas.searching.samplers import Proposer

OBJECTIVES = ("reward",)

def make(space, *, seed):
    most = {name: options[-1] for name, options in space.choices.items()}
    return Proposer(space, lambda past, rng: most, seed)
"""


def test_nothing_within_the_budget_is_exit_code_3(cli: Cli, folder: Path) -> None:
    # our own controllers propose within the target, one of the user's need not
    (folder / "costly.py").write_text(COSTLY)
    given = ("--space", "space.py", "--evaluator", "synthetic", "--controller", "costly.py")
    least = ("--target-flops", "430K", "--trials", "1", "--no-random-search")
    done = cli("search", *given, *least)
    assert done.returncode == 3, done.stderr
    assert "next    nas scale" in done.stdout


def test_an_evaluator_that_fails_is_exit_code_1_and_one_line(cli: Cli) -> None:
    given = ("search", "--evaluator", "ledger.py", "--evaluator-option", "fail=all", "-q")
    text = one_line(cli(*given), code=1)
    assert "the last 20 evaluations all failed: ValueError: no luck today" in text


def test_debug_shows_the_traceback(cli: Cli) -> None:
    done = cli("cost", "resnet19", "--debug")
    assert "Traceback" in done.stderr and "OptionError" in done.stderr


@pytest.mark.parametrize(
    "verb", ["", "search", "resume", "train", "val", "predict", "scale", "doctor", "bench"]
)
def test_help_imports_nothing_heavy(folder: Path, verb: str) -> None:
    arguments = [*verb.split(), "--help"]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].split() == ["LOADED"]
    assert "Usage:" in done.stdout


def test_to_list_parts_imports_nothing_heavy(folder: Path) -> None:
    words = [sys.executable, "-c", IMPORTS, "ls", "spaces"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["LOADED", "yaml"]  # of args.yaml


@pytest.mark.parametrize("verb", ["search", "train", "proxy-check"])
def test_every_flag_of_a_verb_is_in_its_help_with_its_default(cli: Cli, verb: str) -> None:
    from nas.searching.fidelity.settings import ProxySettings
    from nas.searching.settings import SearchSettings
    from nas.training.settings import TrainSettings

    settings = {"search": SearchSettings, "train": TrainSettings, "proxy-check": ProxySettings}[
        verb
    ]
    shown = cli(verb, "--help", COLUMNS="200").stdout
    for name in settings.model_fields:
        flag = "--" + name.replace("_", "-").removesuffix("s" if name.endswith("options") else "")
        assert flag in shown
    assert "[default: 0]" in shown  # of --seed
    assert ("--target-macs" in shown) == (verb != "train")


def test_a_shell_completes_verbs_and_their_flags(cli: Cli) -> None:
    asked = {
        "_NAS_COMPLETE": "complete_bash",
        "COMP_WORDS": "nas search --target",
        "COMP_CWORD": "2",
    }
    done = cli(**asked)
    assert (done.returncode, done.stderr) == (0, "")
    flags = done.stdout.split()
    assert flags == ["--target-flops", "--target-macs", "--target-params", "--target-latency"]
    assert cli(**asked | {"COMP_WORDS": "nas prox", "COMP_CWORD": "1"}).stdout == "proxy-check\n"


def test_the_package_runs_as_a_module(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nas", "--version"], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == (f"nas {nas.__version__}\n", "")


def test_colour_is_for_terminals_only(cli: Cli) -> None:
    plain = cli(*SEARCH)
    assert "\x1b" not in plain.stdout + plain.stderr
    forced = cli("ls", "spaces", FORCE_COLOR="1", NO_COLOR="1")
    assert "\x1b[3" not in forced.stdout  # bold may stay, colour may not


def test_a_stream_that_knows_no_greek(process: Cli) -> None:
    done = process("scale", "efficientnet_b0", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "b7" in done.stdout
    assert one_object(process("show", "efficientnet_b0", "--json", PYTHONIOENCODING="ascii"))


def test_a_reader_that_leaves_is_no_error(folder: Path) -> None:
    command = f"{sys.executable} -c 'from nas.cli.program import main; main()' ls baselines | true"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True)
    assert done.stderr == b""


def test_the_functions_do_what_the_verbs_do(cli: Cli, folder: Path) -> None:
    shown = one_object(cli(*SEARCH, "--json", "-q", "--name", "verb"))
    found = nas.search(evaluator="synthetic", target_flops="400M", trials=12, name="function")
    assert found["best"] == shown["best"] and found["references"] == shown["references"]
    scaled = one_object(cli("scale", "efficientnet_b0", "--phi", "1..2", "--json"))
    assert nas.scale("efficientnet_b0", phi="1..2")["members"] == scaled["members"]
    counted = one_object(cli("cost", "efficientnet_b0", "--json"))
    assert nas.count(nas.load_arch("efficientnet_b0")).flops == counted["flops"]
