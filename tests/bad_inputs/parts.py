"""Parts of the user's own, in .py files: absent, broken, of another kind, raising, ending it."""

from bad_inputs.row import Row, rows
from bad_inputs.world import SPACE

BODY = SPACE.partition("def decode")[2]


def space(body: str = "return None", rest: str = "") -> dict[str, str]:
    """Return space.py, whose decode has that body."""
    text = SPACE.partition("def decode")[0] + f"def decode(choices):\n    {body}\n"
    return {"s.py": text + (rest or 'SPACE = Space("mine", {"a": (1, 2)}, decode)\n')}


def device(body: str) -> dict[str, str]:
    """Return d.py, a device whose make has that body."""
    return {"d.py": f"def make(*, batch=1):\n    {body}\n"}


EVALUATOR = """
class E:
    title = "mine"
    def check(self, arch):
        {check}
    def evaluate(self, arch, *, seed=0):
        {evaluate}
def make():
    return E()
"""


def evaluator(evaluate: str = "return {'accuracy': 1.0}", check: str = "pass") -> dict[str, str]:
    return {"e.py": EVALUATOR.format(check=check, evaluate=evaluate)}


SAMPLER = """
import optuna, os, sys
OBJECTIVES = ("reward",)
class S(optuna.samplers.RandomSampler):
    def sample_independent(self, study, trial, name, distribution):
        {body}
def make(space, *, seed=0):
    return S(seed)
"""


def sampler(body: str) -> dict[str, str]:
    return {"c.py": SAMPLER.format(body=body)}


def exporter(
    check: str = "pass", write: str = "p.write_text('')", run: str = "pass"
) -> dict[str, str]:
    """Return f.py, an exporter whose functions have these bodies."""
    text = "FILE = 'x.bin'\ndef hint(p, s): return []\n"
    text += f"def check(s):\n    {check}\ndef write(s, p):\n    {write}\n"
    return {"f.py": text + f"def run(p, b, s):\n    {run}\n"}


EXPORT = "export tiny.json --format f.py"
DATA = "import sys, os\ndef read(data, *, download):\n    {}\n"
S = "search --evaluator synthetic --trials 2 -q --space s.py"
C = "search --evaluator synthetic --trials 2 -q --controller c.py"
V = "search --trials 2 -q --space space.py --evaluator e.py"
W = "plan --space space.py --evaluator e.py"
K = "train tiny.json --data images --epochs 1 -q"
T = "train tiny.json --data images --epochs 1 -q --tracker none"
D = "doctor --data d.py"
IMPORT = [
    (f"{S}", "no file s.py for --space"),
    (f"{S}", "s.py cannot be imported: SyntaxError", {"s.py": "def decode(:\n"}),
    (f"{S}", "s.py cannot be imported: ZeroDivisionError", {"s.py": "1 / 0\n"}),
    (
        f"{S}",
        "s.py cannot be imported: ModuleNotFoundError: No module named 'tensorflow'",
        {"s.py": "import tensorflow\n"},
    ),
    (
        f"{S}",
        "s.py cannot be imported|ends the process (exit code 3)",
        {"s.py": "import sys\nsys.exit(3)\n"},
    ),
    (
        f"{S}",
        "s.py cannot be imported|ends the process (exit code 7)",
        {"s.py": "import os\nos._exit(7)\n"},
    ),
    (
        f"{S}",
        "s.py cannot be imported|ends the process (exit code None)",
        {"s.py": "raise SystemExit\n"},
    ),
    (f"{S}", "s.py cannot be imported: RecursionError", {"s.py": "def f(): f()\nf()\n"}),
    (f"{S}", "s.py cannot be imported", {"s.py": b"\xff\xfe\x00"}),
    (f"{S}", "s.py cannot be imported", {"s.py": b"x = '\xe9'\n"}),
    (f"{S}", "s.py does not define SPACE", {"s.py": ""}),
    (f"{S}", "SPACE of s.py must be a nas.interfaces.Space, not dict", {"s.py": "SPACE = {}\n"}),
    (f"{S}", "must be a nas.interfaces.Space, not type", {"s.py": "class SPACE: ...\n"}),
    (f"{S}", "s.py cannot be imported|MemoryError", {"s.py": "raise MemoryError\n"}),
    (
        f"{S}",
        "s.py cannot be imported: Odd",
        {"s.py": "class Odd(Exception): ...\nraise Odd('a\\nb\\x1b[31m')\n"},
    ),
]
SPACES = [
    (f"{S}", "decode gives no Arch|NoneType", space()),
    (f"{S}", "decode fails on {'a': 1}|KeyError: 'b'", space('return choices["b"]')),
    (f"{S}", "ends the process (exit code 5)", space("import sys; sys.exit(5)")),
    (f"{S}", "ends the process (exit code 6)", space("import os; os._exit(6)")),
    (f"{S}", "decode fails on|RecursionError", space("return decode(choices)")),
    (f"{S}", "decode gives no Arch|dict", space("return {'stages': []}")),
    (f"{S}", "stage 1: channels must be|0", space('return Arch("x", (Stage("conv", 0),))')),
    (f"{S}", "at least one stage", space('return Arch("x", ())')),
    (f"{S}", "no op named 'none'", space('return Arch("x", (Stage("none", 8),))')),
    (f"{S}", "needs at least one choice", space(rest='SPACE = Space("m", {}, decode)')),
    (
        f"{S}",
        "needs at least one choice, each with an option",
        space(rest='SPACE = Space("m", {"a": ()}, decode)'),
    ),
    (f"{S}", "has the option None", space(rest='SPACE = Space("m", {"a": (None,)}, decode)')),
    (f"{S}", "has the option [1]", space(rest='SPACE = Space("m", {"a": ([1],)}, decode)')),
    (f"{S}", "a has an option twice", space(rest='SPACE = Space("m", {"a": (1, 1)}, decode)')),
    (f"{S}", "m", space(rest='SPACE = Space("m", {3: (1, 2)}, decode)')),
    (f"{S}", "choices", space(rest='SPACE = Space("m", [1, 2], decode)')),
    (f"{S}", "a", space(rest='SPACE = Space("m", {"a": 5}, decode)')),
    (f"{S}", "decode", space(rest='SPACE = Space("m", {"a": (1, 2)}, "decode")')),
    (
        f"{S}",
        "valid fails on|NameError",
        space(rest='SPACE = Space("m", {"a": (1, 2)}, decode, valid=lambda c: x)'),
    ),
    (
        f"{S}",
        "no probed point is valid",
        space(rest='SPACE = Space("m", {"a": (1, 2)}, decode, valid=lambda c: False)'),
    ),
    (
        f"{S}",
        "valid fails|ends the process",
        space(rest='SPACE = Space("m", {"a": (1, 2)}, decode, valid=lambda c: exit(2))'),
    ),
    ("plan --evaluator synthetic --space s.py", "decode gives no Arch", space()),
    (
        "proxy-check --data images --space s.py --archs 2 --long-epochs 1",
        "to no network",
        space(),
    ),
    (
        "search --evaluator synthetic --space s.py",
        "missing 1 required positional argument|s.py",
        {"s.py": 'from nas.interfaces import Space\nSPACE = Space("m", {})\n'},
    ),
]
EVALUATORS = [
    (V, "no file e.py for --evaluator"),
    (V, "e.py cannot be imported: NameError", {"e.py": "hello\n"}),
    (V, "e.py does not define make", {"e.py": "x = 1\n"}),
    (
        V,
        "evaluator e.py cannot be made: ValueError: no GPU",
        {"e.py": "def make():\n    raise ValueError('no GPU')\n"},
    ),
    (
        V,
        "cannot be made|ends the process (exit code 9)",
        {"e.py": "import os\ndef make():\n    os._exit(9)\n"},
    ),
    (
        V,
        "cannot be made|ends the process (exit code 'bye')",
        {"e.py": "def make():\n    exit('bye')\n"},
    ),
    (V, "e.py", {"e.py": "make = 3\n"}),
    (V, "e.py", {"e.py": "def make():\n    return None\n"}),
    (V, "e.py", {"e.py": "def make(path):\n    return 1\n"}),
    (f"{V} --evaluator-option depth=2", "no option 'depth'", evaluator()),
    (V, "check of e.py fails: TypeError", evaluator(check="raise TypeError('of kind')")),
    (
        V,
        "check of e.py fails|ends the process (exit code 4)",
        evaluator(check="import os; os._exit(4)"),
    ),
    (W, "the evaluator fails: RuntimeError", evaluator(check="raise RuntimeError")),
]
FAILING = [
    (V, "ZeroDivisionError", evaluator("return {'accuracy': 1 / 0}")),
    (V, "the evaluator gave no accuracy", evaluator("return {}")),
    (V, "AttributeError|NoneType", evaluator("return None")),
    (V, "could not convert string to float", evaluator("return {'accuracy': 'good'}")),
    (V, "accuracy is nan", evaluator("return {'accuracy': float('nan')}")),
    (V, "latency_ms is inf", evaluator("return {'accuracy': 1.0, 'latency_ms': float('inf')}")),
    (V, "accuracy is 1e+07", evaluator("return {'accuracy': 1e7}")),
    (V, "a metric 'state'", evaluator("return {'accuracy': 1.0, 'state': 3}")),
    (
        V,
        "every evaluation failed|ends the process (exit code 3)",
        evaluator("import sys; sys.exit(3)"),
    ),
    (V, "RecursionError", evaluator("return self.evaluate(arch)")),
    (V, "MemoryError", evaluator("raise MemoryError")),
    (V, "ends the process (exit code 8)", evaluator("import os; os._exit(8)")),
]
CONTROLLERS = [
    (C, "no file c.py for --controller"),
    (
        C,
        "c.py does not define OBJECTIVES",
        {"c.py": "def make(space, *, seed=0):\n    return None\n"},
    ),
    (C, "c.py does not define make", {"c.py": "OBJECTIVES = ('reward',)\n"}),
    (
        C,
        "cannot pursue --objective reward",
        {"c.py": "OBJECTIVES = ('pareto',)\ndef make(space, *, seed=0): ...\n"},
    ),
    (C, "OBJECTIVES", {"c.py": "OBJECTIVES = 3\ndef make(space, *, seed=0): ...\n"}),
    (
        C,
        "cannot be made: KeyError: 'kernel'",
        {
            "c.py": "OBJECTIVES = ('reward',)\ndef make(space, *, seed=0):\n    space.choices['kernel']\n"
        },
    ),
    (
        C,
        "c.py gives 'random', which has no before_trial",
        {"c.py": "OBJECTIVES = ('reward',)\ndef make(space, *, seed=0):\n    return 'random'\n"},
    ),
    (
        C,
        "cannot be made|ends the process (exit code 1)",
        {
            "c.py": "import os\nOBJECTIVES = ('reward',)\ndef make(space, *, seed=0):\n    os._exit(1)\n"
        },
    ),
]
SAMPLERS = [
    (C, "controller|RuntimeError: stuck", sampler("raise RuntimeError('stuck')")),
    (C, "controller|ends the process (exit code 2)", sampler("sys.exit(2)")),
    (C, "controller|ends the process (exit code 3)", sampler("os._exit(3)")),
    (C, "controller|'nothing'", sampler("return 'nothing'")),
]
RECIPES = [
    (f"{T} --recipe r.py", "no file r.py for --recipe"),
    (f"{T} --recipe r.py", "r.py does not define RECIPE", {"r.py": ""}),
    (f"{T} --recipe r.py", "r.py must be a Recipe", {"r.py": "RECIPE = {'lr': 1}\n"}),
    (
        f"{T} --recipe r.py",
        "cannot be imported: TypeError",
        {"r.py": "from nas.training.recipe import Recipe\nRECIPE = Recipe(speed=1)\n"},
    ),
    (f"{T} --recipe r.py", "ends the process", {"r.py": "quit()\n"}),
    (
        f"{T} --recipe r.py --epochs 2",
        "lr of recipe",
        {
            "r.py": "import dataclasses\nfrom nas.training.recipes.proxy import RECIPE as P\nRECIPE = dataclasses.replace(P, lr=-1)\n"
        },
    ),
]
DATASETS = [
    (D, "no file d.py for --data"),
    (D, "d.py does not define read", {"d.py": ""}),
    (D, "read of d.py gave no Dataset: AttributeError", {"d.py": DATA.format("return None")}),
    (
        D,
        "read of d.py gave no Dataset: OSError",
        {"d.py": DATA.format("raise OSError('no network')")},
    ),
    (D, "ends the process (exit code 5)", {"d.py": DATA.format("sys.exit(5)")}),
    (D, "ends the process (exit code 6)", {"d.py": DATA.format("os._exit(6)")}),
    (D, "read of d.py gave no Dataset: TypeError", {"d.py": "def read():\n    return 1\n"}),
]
READ = [
    ("train tiny.json --data d.py", "d.py gave no Dataset", {"d.py": DATA.format("return 5")}),
    ("search --data d.py --trials 2", "d.py gave no Dataset", {"d.py": DATA.format("return []")}),
]
OTHERS = [
    ("bench tiny.json --device d.py", "no file d.py for --device"),
    (
        "bench tiny.json --device d.py",
        "device d.py cannot be made: RuntimeError: unplugged",
        device("raise RuntimeError('unplugged')"),
    ),
    ("bench tiny.json --device d.py", "d.py", device("return None")),
    ("bench tiny.json --device d.py", "ends the process", device("import os; os._exit(0)")),
    (EXPORT, "no file f.py for --format"),
    (EXPORT, "f.py does not define", {"f.py": "x = 1\n"}),
    (
        EXPORT,
        "check of f.py fails: RuntimeError: too wide",
        exporter(check="raise RuntimeError('too wide')"),
    ),
    (
        EXPORT,
        "check of f.py fails|ends the process (exit code 4)",
        exporter(check="import os; os._exit(4)"),
    ),
    ("search --evaluator synthetic --executor x.py --trials 1", "no file x.py for --executor"),
    (
        "search --evaluator synthetic --executor x.py --trials 1",
        "executor x.py cannot be made: RuntimeError: no queue",
        {"x.py": "def make(work, *, workers=0):\n    raise RuntimeError('no queue')\n"},
    ),
    (
        "search --evaluator synthetic --executor x.py --trials 1 -q",
        "x.py",
        {"x.py": "def make(work, *, workers=0):\n    return None\n"},
    ),
    (f"{K} --recipe proxy --tracker t.py", "no file t.py for --tracker"),
    (
        f"{K} --recipe proxy --tracker t.py",
        "tracker t.py cannot be made: ConnectionError",
        {"t.py": "def make(folder, name, config):\n    raise ConnectionError('down')\n"},
    ),
    ("search --data images --space space.py --trials 1 --pruner p.py", "no file p.py for --pruner"),
    (
        "search --data images --space space.py --trials 1 --pruner p.py",
        "pruner p.py cannot be made: KeyError",
        {"p.py": "def make(*, rungs):\n    {}[1]\n"},
    ),
    (
        "search --data images --space space.py --trials 1 --pruner p.py",
        "pruner",
        {"p.py": "def make(*, rungs):\n    return 5\n"},
    ),
]
EXPORTS = [
    (EXPORT, "cannot be exported: KeyError: 'conv'", exporter(write="{}['conv']")),
    (
        EXPORT,
        "cannot be exported: it ends the process (exit code 3)",
        exporter(write="import os; os._exit(3)"),
    ),
    (
        EXPORT,
        "x.bin was written and cannot be run: ValueError: torn",
        exporter(run="raise ValueError('torn')"),
    ),
    (EXPORT, "x.bin is written, but run of f.py fails|ends the process", exporter(run="exit(1)")),
    (EXPORT, "x.bin", exporter(run="return None")),
]
ALL = ("images", "arch", "space")
ROWS: list[Row] = [
    *rows(*IMPORT, *SPACES, *EVALUATORS, *CONTROLLERS, *RECIPES, *OTHERS, world=ALL),
    *rows(*DATASETS, world=ALL, code=1, printed=True),
    *rows(*READ, world=ALL),
    *rows(*FAILING, *EXPORTS, world=ALL, code=1, keeps=False),
    *rows(*SAMPLERS, world=ALL, keeps=False),
    Row(S, ("s.py",), special=("s.py", "fifo")),
    Row(S, ("s.py",), special=("s.py", "folder")),
    Row(D, ("no file d.py",), special=("d.py", "/dev/zero"), code=1, printed=True),
]
