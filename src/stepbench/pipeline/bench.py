"""The bench: one checked configuration on this machine.

It knows which cells there are, where their files lie, what each number depends on, and what a file is worth today.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepbench.data import shards, tokens
from stepbench.experiments import experiment as experiments
from stepbench.experiments.experiment import Experiment
from stepbench.measure import environment
from stepbench.measure.measurement import PREDICTED
from stepbench.pipeline import cells, config, fingerprint, grids, records
from stepbench.process import lock

STATE_FOLDER = ".stepbench"
RUN_LOCK = Path(STATE_FOLDER, "run.lock")


@dataclass(frozen=True)
class State:
    """What a cell's file is worth today.

    Attributes:
        kind: `fresh`, `missing`, `stale`, or `failed` (fresh, but to be tried again).
        reasons: why it is stale or failed.
        record: the file's content where it could be read.
    """

    kind: str
    reasons: tuple[str, ...] = ()
    record: records.Record | None = None


class Bench:
    """One configuration on this machine.

    Args:
        settings: the merged content of config.yaml.
        root: the folder that holds results/.
        schema: the JSON Schema of the settings.
        files: the files that `settings` came from.
        checked: whether the process that started this one has checked the settings; it takes a third of a second.

    Raises:
        stepbench.pipeline.config.ConfigError: the configuration cannot be used; one line for each mistake.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        root: Path,
        schema: Path,
        files: Iterable[Path] = (),
        checked: bool = False,
    ) -> None:
        self.files = tuple(files)
        self.schema = schema
        if not checked:
            config.check(settings, schema=schema, files=self.files)
        self.settings = settings
        self.root = root
        try:
            self.device = environment.find_device(settings["device"])
        except ValueError as error:
            raise config.ConfigError(str(error)) from None
        self.scale = settings["scale"] if settings["scale"] != "auto" else ("gpu" if self.device == "cuda" else "cpu")
        if self.scale == "gpu" and self.device != "cuda":
            raise config.ConfigError(
                f"`scale` must be auto or cpu on a machine without a CUDA device, got gpu ({self.device})"
            )
        named = settings["machine"]
        self.machine = environment.machine_name(self.device) if named == "auto" else named
        self.threads = (
            environment.cores() if settings["protocol"]["threads"] == "auto" else settings["protocol"]["threads"]
        )

    @classmethod
    def open(cls, root: Path) -> Bench:
        """Return the bench of the config.yaml in `root`.

        Raises:
            stepbench.pipeline.config.ConfigError: see above.
        """
        file = root / "config.yaml"
        return cls(config.read(file), root=root, schema=root / config.SCHEMA, files=[file])

    # -- cells and files -----------------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The experiments that have cells on this scale, in the order of config.yaml."""
        return tuple(name for name, grid in self.settings["experiments"].items() if grid.get(self.scale))

    @functools.cache  # noqa: B019 (a bench lives as long as its process)
    def grid(self, name: str) -> tuple[Any, ...]:
        """Return the configured cells of an experiment, in the order in which they should be measured."""
        products = self.settings["experiments"].get(name, {}).get(self.scale) or []
        where = f"experiments.{name}.{self.scale}"
        return grids.in_rounds(grids.expand(experiments.load(name).cell, products, where=where))

    def path(self, name: str, cell: Any) -> Path:
        """Return a cell's record, relative to the root."""
        return Path(self.record(name, cells.name(cell)))

    def record(self, name: str, cell: str) -> str:
        """Return the record of a cell that is given by its name, relative to the root."""
        return f"results/{self.machine}/{name}/{cell}.json"

    @functools.cache  # noqa: B019
    def named(self, name: str) -> dict[str, Any]:
        """Return the configured cells of an experiment by their names."""
        return {cells.name(cell): cell for cell in self.grid(name)}

    @functools.cache  # noqa: B019
    def paths(self, name: str) -> list[str]:
        """Return the records of the configured cells of an experiment, for the input of a rule."""
        return [self.record(name, cell) for cell in self.named(name)]

    def locate(self, path: str | Path) -> tuple[Experiment, Any]:
        """Return the experiment and the cell of a record's path.

        Raises:
            ValueError: the path is not the canonical path of a cell on this machine.
        """
        parts = Path(path).parts
        if len(parts) != 4 or parts[0] != "results" or not parts[3].endswith(".json"):
            raise ValueError(
                f"a cell's path must be results/{self.machine}/<experiment>/<cell>.json, got {str(path)!r}"
            )
        if parts[1] != self.machine:
            raise ValueError(
                f"a cell can only be measured on its own machine, which is {self.machine} here, got {parts[1]!r}"
            )
        experiment = experiments.load(parts[2])
        cell = cells.parse(experiment.cell, parts[3].removesuffix(".json"))
        self.check_cell(cell)
        return experiment, cell

    def check_cell(self, cell: Any) -> None:
        """Refuse a cell that names a size or a preset which config.yaml does not have.

        Raises:
            ValueError: it does.
        """
        for axis, key in config.NAMED.items():
            valid = self.settings.get(key, {})
            if hasattr(cell, axis) and getattr(cell, axis) not in valid:
                raise ValueError(f"`{axis}` must be one of {', '.join(valid)}, got {getattr(cell, axis)!r}")

    def check_targets(self, targets: Iterable[str]) -> None:
        """Refuse targets that look like a record of this workflow and are none.

        Raises:
            stepbench.pipeline.config.ConfigError: one line for each.
        """
        errors = []
        for target in targets:
            parts = Path(target).parts
            if Path(target).is_relative_to(self.shards_dir):
                continue
            if parts[:1] == ("results",) and target.endswith(".json"):
                try:
                    self.locate(target)
                except ValueError as error:
                    errors.append(str(error))
        if errors:
            raise config.ConfigError("\n".join(errors))

    # -- what a number depends on --------------------------------------------------------------------------------------

    @property
    def protocol(self) -> dict[str, Any]:
        """The protocol on this scale: `seed`, `threads`, `warmup_steps`, `measured_steps`."""
        common = {key: value for key, value in self.settings["protocol"].items() if key not in ("cpu", "gpu")}
        return {**common, **self.settings["protocol"][self.scale], "threads": self.threads}

    @property
    def trust_prediction(self) -> bool:
        """Whether a cell that is predicted not to fit is not even started; no number depends on it."""
        return self.settings.get("trust_prediction", True)

    def definition(self, name: str, cell: Any) -> dict[str, Any]:
        """Return the settings that a cell of the experiment uses."""
        used = {key: self.settings[key] for key in experiments.load(name).settings if key != "protocol"}
        if "protocol" in experiments.load(name).settings:
            used["protocol"] = {key: value for key, value in self.protocol.items() if key != "threads"}
        if "data" in used:
            used["data"] = {key: used["data"][key] for key in ("source", "corpus_bytes")}
            if (source := self._source_file()) is not None:
                memo = self.root / STATE_FOLDER / "content"
                used["data"]["content"] = fingerprint.content(self.root / source, memo)
        self.check_cell(cell)
        used |= {
            axis: self.settings[key][getattr(cell, axis)] for axis, key in config.NAMED.items() if hasattr(cell, axis)
        }
        if self.shards(name, cell) is not None:
            used["shards_dir"] = str(self.shards_dir)  # another mount is another speed
        return used

    @property
    def source_memo(self) -> Path:
        """The folder that keeps what was found in source files, see `stepbench.pipeline.fingerprint.source`."""
        return self.root / STATE_FOLDER / "source"

    @functools.cache  # noqa: B019
    def _source(self, name: str) -> dict[str, str]:
        return fingerprint.source(f"{experiments.load(name).module}.measure", memo=self.source_memo)

    def forget_source(self) -> None:
        """Have the next fingerprint read the source files again."""
        self._source.cache_clear()

    def fingerprint(self, name: str, cell: Any) -> dict[str, Any]:
        """Return the cell's fingerprint as of now; source files are read once (see `forget_source`)."""
        return {
            "source": self._source(name),
            "definition": self.definition(name, cell),
            "software": self._software,
            "machine": self._machine,
        }

    @functools.cached_property
    def _software(self) -> dict[str, Any]:
        return {**fingerprint.software(), "driver": environment.driver()}

    @functools.cached_property
    def _machine(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "device_name": environment.device_name(self.device),
            "device_count": environment.device_count(self.device),
            "threads": self.threads,
        }

    def state(self, name: str, cell: Any) -> State:
        """Return what the cell's file is worth today."""
        path = self.root / self.path(name, cell)
        try:
            record = records.read(path)
        except FileNotFoundError:
            return State("missing")
        except records.RecordError as error:
            return State("stale", (str(error),))
        if record.experiment != name or record.cell != cells.as_dict(cell):
            return State("stale", (f"{path}: `cell` must be the one that the path names, got {record.cell}",))
        if reasons := fingerprint.difference(record.fingerprint, self.fingerprint(name, cell)):
            return State("stale", tuple(reasons), record)
        if record.status in records.RETRIED:
            return State("failed", (f"{record.status}: {record.reason}",), record)
        if not self.trust_prediction and record.status == "oom" and (record.reason or "").startswith(PREDICTED):
            return State("failed", (f"`trust_prediction` is false, and it was not started ({record.reason})",), record)
        return State("fresh", (), record)

    @functools.cached_property
    def token_path(self) -> Path:
        """The file of tokens that the models read."""
        data = self.settings["data"]
        return Path(
            tokens.token_path(
                Path("results", "data"), data["source"], self.settings["vocabulary"], data["corpus_bytes"]
            )
        )

    def check_data(self) -> None:
        """Refuse a source of tokens that cannot feed the configured cells, before anything is measured.

        Raises:
            stepbench.pipeline.config.ConfigError: one sentence that says why.
        """
        data, vocabulary = self.settings["data"], self.settings["vocabulary"]
        try:
            tokens.check_source(data["source"], vocabulary=vocabulary, contexts=self._contexts())
        except (ValueError, OSError) as error:
            raise config.ConfigError(str(error)) from None

    @property
    def text(self) -> list[str]:
        """The text file that the tokens are made of, where it is one that the user named."""
        source = self.settings["data"]["source"]
        return [source] if tokens.source_kind(source) == "text" else []

    def check_data_exists(self) -> None:
        """Refuse a source of tokens that is no file; unlike `check_data` this costs nothing.

        Raises:
            stepbench.pipeline.config.ConfigError: it is none, and a configured experiment reads it.
        """
        source = self._source_file()
        if source is not None and any(map(self.reads_tokens, self.names)) and not (self.root / source).is_file():
            raise config.ConfigError(f"`data.source` must be a file that exists, got {str(source)!r}")

    def prepare_tokens(self) -> None:
        """Tokenise the text that the models read.

        Raises:
            ValueError: the text is too short for the configured contexts.
        """
        data, vocabulary, output = self.settings["data"], self.settings["vocabulary"], self.root / self.token_path
        made = tokens.source_kind(data["source"]) != "npy"
        if made:
            tokens.prepare(data["source"], vocabulary=vocabulary, corpus_bytes=data["corpus_bytes"], output=output)
        try:
            tokens.open_tokens(output, vocabulary=vocabulary, context=max(self._contexts(), default=1))
        except ValueError:
            if made:  # or the next run would take the file's existence for its fitness
                output.unlink()
            raise

    @property
    def shards_dir(self) -> Path:
        """The folder in which data sets lie as shards, relative to the root or absolute."""
        return Path(self.settings["data"].get("shards_dir", "results/data/shards"))

    def shards(self, name: str, cell: Any) -> shards.ShardSet | None:
        """Return the data set that a cell reads from disk, or None if it reads none, or one that cannot be."""
        find = experiments.load(name).shards
        if find is None:
            return None
        try:
            return find(cell, self.settings.get("presets", {})[cell.preset], self.protocol["seed"])
        except ValueError:  # what is wrong with it is said when it is measured
            return None

    def inputs(self, name: str, cell: Any) -> list[str]:
        """Return the files that must be there before a cell is measured."""
        found = [str(self.token_path)] if self.reads_tokens(name) else []
        most = environment.device_count("cuda") if self.device == "cuda" else self.threads
        # A cell that asks for more ranks than this machine has will be refused; it needs no data set of 30 GB for that.
        if (data := self.shards(name, cell)) is not None and getattr(cell, "ranks", 1) <= most:
            found.append(str(self.shards_dir / data.name / shards.INDEX))
        return found

    def prepare_shards(self, folder: str) -> None:
        """Write the data set that the name of a folder in `shards_dir` defines.

        Raises:
            ValueError: the name is none.
            OSError: there is no space.
        """
        shards.write(shards.ShardSet.named(folder), self.root / self.shards_dir / folder)

    def _contexts(self) -> list[int]:
        reading = (name for name in self.names if self.reads_tokens(name))
        return [cell.context for name in reading for cell in self.grid(name) if hasattr(cell, "context")]

    @functools.cache  # noqa: B019
    def reads_tokens(self, name: str) -> bool:
        """Return whether the experiment reads a file of tokens."""
        return "data" in experiments.load(name).settings and self.settings["data"]["source"] != "synthetic"

    def _source_file(self) -> Path | None:
        source = self.settings["data"]["source"]
        return None if source in ("corpus", "synthetic") else Path(source)

    # -- one run at a time ---------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Hold this folder until the process ends, whichever way it ends.

        Raises:
            stepbench.process.lock.BusyError: another process holds it.
        """
        self._lock = lock.hold(self.root / RUN_LOCK, "this folder")

    def holder(self) -> int | None:
        """Return the process that holds this folder, or has held it last."""
        return lock.holder(self.root / RUN_LOCK)
