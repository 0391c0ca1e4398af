"""A copy of the workflow in its own folder, with toy experiments that take no time, for real Snakemake runs.

With the toys torch is a stub of three names, because every measuring process imports it, which takes two seconds. The
version in the fingerprint then comes from a file that a test can edit.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from tests.processes import PROMISED_S

REPOSITORY = Path(__file__).parents[2]
COPIED = (
    "Snakefile",
    "rules",
    "workflow_scripts",
    "report",
    "profiles",
    "config.yaml",
    "config.schema.yaml",
    "src/stepbench",
)
GENERATED = shutil.ignore_patterns(
    "__pycache__", "first.md", "first.html", "writeup.md", "writeup.html", "all_measured*", "failures.txt"
)
MACHINE = "here"
MARK = "STEPBENCH_TEST_COPY"

# A folder as one text: a line `# -- name` starts the file of that name.
TOY = '''
# -- cell.py
"""The axes."""

from __future__ import annotations

from dataclasses import dataclass

from stepbench.pipeline import cells

TITLE = "Toy"
QUESTION = "Does the pipeline keep its promises?"
SETTINGS = ("protocol",)
READS = ()


@dataclass(frozen=True)
class Cell(cells.Cell):
    """A measurement that takes no time or fails in one way."""

    behaviour: str
    size: str = "nano"
    replicate: int = 0
# -- measure.py
"""Does the pipeline keep its promises?"""

from __future__ import annotations

from stepbench.experiments.toy.cell import Cell
from stepbench.measure.measurement import Measurement, Setting
from stepbench.models import toy_kernel


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Do what the cell says."""
    return toy_kernel.work(cell.behaviour, setting)
# -- tables.py
"""The table."""

from __future__ import annotations

from stepbench.reporting.frames import Results
from stepbench.reporting.points import is_ok
from stepbench.reporting.tables import Table


def toy(results: Results) -> Table:
    """Return one row for each cell that has a number."""
    rows = [{axis: row[axis] for axis in results.axes} for row in results.rows if is_ok(row)]
    return Table("Toy", "Nothing is held constant.", rows)
# -- figures.py
"""The figure."""

from __future__ import annotations

from matplotlib.figure import Figure

from stepbench.reporting import figures
from stepbench.reporting.frames import Results


def toy(results: Results) -> Figure:
    """Return an empty figure."""
    return figures.nothing("A toy has nothing to show.")
# -- findings.py
"""The findings."""

from __future__ import annotations

from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, said
from stepbench.reporting.frames import Results
from stepbench.reporting.points import is_ok


def find(results: Results) -> list[Finding]:
    """Return how many cells there are."""
    return said("count", [f"There are {sum(map(is_ok, results.rows))} toys."], Evidence.of(results.groups()))
'''

KERNEL = '''
"""The behaviour of a toy."""

import os
import signal
import sys
import time

import torch

from stepbench.measure.measurement import Measurement, UnsupportedError

FACTOR = 1


def work(behaviour, setting):
    """Behave."""
    if behaviour == "raises":
        raise RuntimeError("this toy is broken\\nand says so at length")
    if behaviour == "greedy":
        return Measurement(scalars={"held_bytes": len(bytearray(64 * 2**30))})
    if behaviour == "unsupported":
        raise UnsupportedError("no machine can do this")
    if behaviour == "endless":
        time.sleep(600)
    if behaviour == "leaves":
        print("goodbye", flush=True)
        os._exit(3)
    if behaviour == "cuda":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    if behaviour == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour in ("gated", "deaf"):  # reports that it has started, and waits for the gate
        with open(os.environ["TOY_BEGUN"], "w") as begun:
            begun.write(f"{os.getpid()}\\n")
        with open(os.environ["TOY_GATE"]) as gate:
            gate.read()
    return Measurement(samples={"step_s": [0.25 * FACTOR, 0.5 * FACTOR]}, scalars={"pid": os.getpid()})
'''

# The same experiment with other axes, other imports and other settings.
OTHER = (
    TOY.replace("Toy", "Plain")
    .replace("toy_kernel.work(cell.behaviour, setting)", 'Measurement(samples={"step_s": [1.0]})')
    .replace("from stepbench.models import toy_kernel\n", "")
    .replace('    behaviour: str\n    size: str = "nano"\n    replicate: int = 0', "    label: str")
    .replace('["behaviour", "size", "replicate"]', '["label"]')
    .replace('SETTINGS = ("protocol",)', 'SETTINGS = ("data", "vocabulary")')
    .replace("toy", "plain")
)

# An experiment that reads a data set from disk, whose size is an axis.
READER = (
    TOY.replace("Toy", "Reader")
    .replace("from stepbench.models import toy_kernel", "from stepbench.data import shards")
    .replace(
        "return toy_kernel.work(cell.behaviour, setting)",
        "files = shards.check(data_set.find(cell, {}, 0), setting.shards)\n"
        '    return Measurement(samples={"read_s": [1.0]}, scalars={"shards": len(files)})',
    )
    .replace(
        "from stepbench.experiments.toy.cell",
        "from stepbench.experiments.toy import data_set\nfrom stepbench.experiments.toy.cell",
    )
    .replace("    behaviour: str\n", "    preset: str\n")
    .replace('    size: str = "nano"\n    replicate: int = 0', "    megabytes: int")
    .replace('["behaviour", "size", "replicate"]', '["preset", "megabytes"]')
    .replace(
        "# -- tables.py",
        '# -- data_set.py\n"""The data set."""\n\nfrom stepbench.data.shards import ShardSet\n\n\n'
        'def find(cell, preset, seed):\n    """Return the data set."""\n'
        "    return ShardSet(cell.megabytes, 100, 300, seed)\n# -- tables.py",
        1,
    )
    .replace("toy", "reader")
)

STUBS = {
    "torch/__init__.py": """
        import os
        class OutOfMemoryError(RuntimeError): ...
        _threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count()))
        def set_num_threads(count):
            global _threads
            _threads = count
        def get_num_threads(): return _threads
        """,
    "torch/version.py": "__version__ = '2.13.0'\ncuda: str | None = None\n",
    "triton-3.7.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: triton\nVersion: 3.7.1\n",
    # A driver without a device, so that a test can change the driver's version.
    "pynvml.py": """
        class NVMLError(Exception): ...
        def nvmlInit(): ...
        def nvmlShutdown(): ...
        def nvmlDeviceGetCount(): return 0
        def nvmlSystemGetDriverVersion(): return "570.1"
        """,
}

# The axes of the toys, and the values of those that a product may leave out.
AXES = {
    "toy": ("behaviour", "size", "replicate"),
    "plain": ("label",),
    "reader": ("preset", "megabytes"),
    "ranked": ("behaviour",),
}
DEFAULTS = {"size": "nano", "replicate": 0}

CONFIG: dict[str, Any] = {
    "machine": MACHINE,
    "device": "cpu",
    "scale": "cpu",
    "protocol": {
        "seed": 0,
        "threads": 1,
        "cpu": {"warmup_steps": 1, "measured_steps": 2},
        "gpu": {"warmup_steps": 1, "measured_steps": 2},
    },
    "limits": {"time_s": 120, "host_memory_gib": None},
    "vocabulary": 300,
    "data": {"source": "synthetic", "corpus_bytes": 20000},
    "sizes": {
        "nano": {"d_model": 32, "d_ff": 64, "layers": 1, "heads": 2},
        "micro": {"d_model": 64, "d_ff": 32, "layers": 1, "heads": 2},
    },
    "experiments": {
        "toy": {"cpu": [{"behaviour": ["fine"], "size": ["nano", "micro"]}]},
        "plain": {"cpu": [{"label": ["a"]}]},
    },
}


@dataclass(frozen=True)
class Done:
    """The result of a command."""

    code: int
    out: str
    err: str
    seconds: float
    processor_s: float

    @property
    def said(self) -> list[str]:
        """The messages of stepbench itself, one per line."""
        lines = (self.out + self.err).splitlines()
        return [line.removeprefix("stepbench: ") for line in lines if line.startswith("stepbench: ")]


class Copy:
    """A copy of the workflow under `root`."""

    patience_s = 240.0  # with one command

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stubs = root.parent / f"{root.name}-stubs"
        self.scratch = root.parent / f"{root.name}-tmp"
        self.running: list[subprocess.Popen[str]] = []
        self.settings: dict[str, Any] = {}

    # -- making one ----------------------------------------------------------------------------------------------------

    @classmethod
    def make(cls, root: Path, *, toys: bool = True) -> Copy:
        """Copy the repository's workflow to `root`, with the toys and their configuration or unchanged."""
        copy = cls(root)
        for name in COPIED:
            source, target = REPOSITORY / name, root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=GENERATED)
            else:
                shutil.copy(source, target)
        if not toys:
            copy.settings = yaml.safe_load((root / "config.yaml").read_text())
            return copy
        for name, text in STUBS.items():
            copy._write(copy.stubs / name, text)
        copy._write(root / "src/stepbench/models/toy_kernel.py", KERNEL)
        copy.add_experiment("toy", TOY, "behaviour~{behaviour},size~{size},replicate~{replicate}")
        copy.add_experiment("plain", OTHER, "label~{label}")
        copy.configure(CONFIG)
        return copy

    @classmethod
    def duplicate(cls, other: Copy, root: Path) -> Copy:
        """Duplicate a copy with its results, like a clone that contains results but nothing of Snakemake's."""
        copy = cls(root)
        shutil.copytree(other.root, root, ignore=shutil.ignore_patterns(".snakemake", ".stepbench"))
        shutil.copytree(other.stubs, copy.stubs)
        copy.settings = json.loads(json.dumps(other.settings))
        return copy

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))

    def add_experiment(self, name: str, module: str, pattern: str) -> None:
        """Add an experiment as in CONTRIBUTING: folder, rules file, include, caption; the grid comes later."""
        _, *parts = module.split("# -- ")
        for part in ("__init__.py\n", *parts):
            file, _, text = part.partition("\n")
            self._write(self.root / "src/stepbench/experiments" / name / file, text)
        rules = (self.root / "rules/warmup.smk").read_text()
        rules = rules.replace("size~{size},warmup~{warmup},replicate~{replicate}", pattern).replace("warmup", name)
        (self.root / f"rules/{name}.smk").write_text(rules)
        (self.root / f"report/captions/{name}.rst").write_text(f"{name}\n    What {name} shows.\n")
        self.edit(
            "Snakefile", 'include: "rules/warmup.smk"\n', f'include: "rules/warmup.smk"\ninclude: "rules/{name}.smk"\n'
        )

    # -- editing it ----------------------------------------------------------------------------------------------------

    def configure(self, config: Mapping[str, Any]) -> None:
        """Write config.yaml."""
        self.settings = json.loads(json.dumps(config))
        (self.root / "config.yaml").write_text(yaml.safe_dump(self.settings, sort_keys=False))

    def set(self, path: str, value: Any) -> None:
        """Change one setting, such as `protocol.seed`."""
        config = json.loads(json.dumps(self.settings))
        *parents, last = path.split(".")
        section = config
        for key in parents:
            section = section[key]
        section[last] = value
        self.configure(config)

    def edit(self, name: str, old: str, new: str) -> Path:
        """Replace a text that occurs once in a file."""
        path = self.root / name
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {path}"
        path.write_text(text.replace(old, new))
        return path

    # -- running it ----------------------------------------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every command in the copy; the copied package comes before the installed one."""
        self.scratch.mkdir(exist_ok=True)
        # Unbuffered, Snakemake writes a line and its end apart, and a message of ours may come between them.
        outside = {"SNAKEMAKE_PROFILE", "CUDA_VISIBLE_DEVICES", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
        return {
            **{name: value for name, value in os.environ.items() if name not in outside},
            MARK: str(self.root),
            "PYTHONPATH": f"{self.root / 'src'}{os.pathsep}{self.stubs}",
            "TMPDIR": str(self.scratch),
            "XDG_CACHE_HOME": str(self.scratch / "cache"),
            "MPLCONFIGDIR": str(self.scratch / "matplotlib"),
            "TOY_BEGUN": str(self.scratch / "begun"),
            "TOY_GATE": str(self.scratch / "gate"),
            "TOY_RANKS": str(self.scratch / "ranks"),
            "STEPBENCH_PASS": f"{MARK},TOY_BEGUN,TOY_GATE,TOY_RANKS",
        }

    @property
    def output(self) -> Path:
        """The file with the output of every process from `start`."""
        return self.root.parent / f"{self.root.name}.out"

    def run(self, *words: str, **environment: str) -> Done:
        """Run a command in the copy and return its result, whatever its exit status."""
        start, used = time.monotonic(), _processor_s()
        done = subprocess.run(
            words,
            cwd=self.root,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=self.patience_s,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - start, _processor_s() - used)

    @property
    def python_path(self) -> str:
        """The Python interpreter for all commands."""
        return sys.executable

    def python(self, *words: str, **environment: str) -> Done:
        """Run Python in the copy."""
        return self.run(self.python_path, *words, **environment)

    def snakemake(self, *words: str, **environment: str) -> Done:
        """Run Snakemake in the copy."""
        return self.python("-m", "snakemake", "--cores", "1", *words, **environment)

    def measure(self, *words: str, **environment: str) -> Done:
        """Run Snakemake for the records of all configured cells."""
        return self.snakemake(*self.targets(), *words, **environment)

    def start(self, *words: str, program: str | Path = sys.executable, **environment: str) -> subprocess.Popen[str]:
        """Start Python in its own session, like a terminal, and return immediately; its output goes to a file."""
        with self.output.open("a") as output:
            process = subprocess.Popen(
                [program, *words],
                cwd=self.root,
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                # A shell ignores SIGINT in background processes, and children inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                text=True,
            )
        self.running.append(process)
        return process

    # -- looking at it -------------------------------------------------------------------------------------------------

    def targets(self) -> list[str]:
        """Return the record paths of the configured cells, without starting a process, which would take 0.5 s."""
        config = yaml.safe_load((self.root / "config.yaml").read_text())
        return [
            f"results/{config['machine']}/{name}/{_cell(name, values)}.json"
            for name, scales in config["experiments"].items()
            for product in scales.get("cpu", ())
            for values in itertools.product(*(product.get(axis, [DEFAULTS.get(axis)]) for axis in AXES[name]))
        ]

    def states(self, *words: str) -> dict[str, str]:
        """Return each configured cell's path with its state and reasons, as `stepbench cells` prints them."""
        done = self.python("-m", "stepbench", "cells", *words)
        assert done.code == 0, done.err
        return dict(line.split("  ", 1) for line in done.out.splitlines())

    def kinds(self, *words: str) -> dict[str, str]:
        """Return each configured cell's short name with the kind of its state."""
        return {short(path): state.partition(" ")[0] for path, state in self.states(*words).items()}

    def record(self, name: str) -> dict[str, Any]:
        """Return a record's content by its short name."""
        return json.loads(self.path(name).read_text())

    def path(self, name: str) -> Path:
        """Return the path of a record by its short name, such as `toy/fine,nano,0`."""
        return self.root / "results" / MACHINE / _long(name)

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Return identity and content of each record."""
        paths = sorted((self.root / "results").glob("*/*/*~*.json"))
        return {short(str(path)): (path.stat().st_ino, path.read_bytes()) for path in paths}

    @contextlib.contextmanager
    def measuring(self, *expected: str) -> Iterator[None]:
        """Assert that the block measures exactly these cells and leaves every other record's file alone."""
        before = self.files()
        yield
        after = self.files()
        assert sorted(name for name in after if before.get(name) != after[name]) == sorted(expected)
        assert before.keys() <= after.keys()

    def half_files(self) -> list[str]:
        """Return the files that an interrupted write would leave under results/."""
        return [str(path) for path in (self.root / "results").rglob("*") if path.name.startswith(".")]

    # -- cells that wait -----------------------------------------------------------------------------------------------

    def make_gate(self) -> None:
        """Make the pipes through which `gated` cells report that they have started, and wait."""
        for name in ("TOY_BEGUN", "TOY_GATE"):
            with contextlib.suppress(FileExistsError):
                os.mkfifo(self.environment[name])

    def wait_for_cell(self, limit_s: float = 60.0) -> int:
        """Wait until a gated cell has started, and return its process id."""
        descriptor = os.open(self.environment["TOY_BEGUN"], os.O_RDONLY | os.O_NONBLOCK)
        try:
            ready, _, _ = select.select([descriptor], [], [], limit_s)
            assert ready, self.output.read_text()
            os.set_blocking(descriptor, True)
            text = b""
            while not text.endswith(b"\n"):
                more = os.read(descriptor, 100)
                assert more, self.output.read_text()
                text += more
            return int(text)
        finally:
            os.close(descriptor)

    def open_gate(self) -> None:
        """Let the waiting gated cell end."""
        Path(self.environment["TOY_GATE"]).write_text("go")

    # -- processes -----------------------------------------------------------------------------------------------------

    def processes(self) -> list[psutil.Process]:
        """Return the living processes that were started from this copy."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                    continue
                here = process.cwd().startswith(str(self.root))
                if here or process.environ().get(MARK) == str(self.root):
                    found.append(process)
        return found

    def assert_nobody_lives(self, within_s: float = PROMISED_S) -> None:
        """Assert that no process that was started from this copy is alive after `within_s` at the latest."""
        _, alive = psutil.wait_procs(self.processes(), timeout=within_s)
        alive = [process for process in alive if process in self.processes()]
        said = [" ".join(process.cmdline()) for process in alive]
        for process in alive:
            process.kill()
        assert said == []

    def close(self) -> None:
        """Kill what a test has started, and assert that no other process is left."""
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.assert_nobody_lives()


def _processor_s() -> float:
    """Return the processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def short(path: str) -> str:
    """Return `toy/fine,nano,0` for a record's path, with the machine in front if it is another one."""
    machine, experiment, name = Path(path).parts[-3:]
    values = re.sub(r"[a-z_]+~", "", name.removesuffix(".json"))
    return f"{'' if machine == MACHINE else machine + ':'}{experiment}/{values}"


def _long(name: str) -> str:
    experiment, _, values = name.partition("/")
    return f"{experiment}/{_cell(experiment, values.split(','))}.json"


def _cell(experiment: str, values: Iterable[Any]) -> str:
    return ",".join(f"{axis}~{value}" for axis, value in zip(AXES[experiment], values, strict=True))
