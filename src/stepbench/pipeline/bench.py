"""A bench: one checked configuration on this machine, with its cells and the paths of their files."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stepbench.data import tokens
from stepbench.data.shards import ShardSet
from stepbench.experiments import experiment as experiments
from stepbench.measure import devices, interconnect
from stepbench.pipeline import capability, config, fingerprint, grids, machine, own_files, records
from stepbench.pipeline.cells import Cell

STATE_FOLDER = ".stepbench"
RUN_LOCK = Path(STATE_FOLDER, "run.lock")
GPU_SCALES = ("gpu_quick", "gpu")  # both with the protocol `gpu`, so that a cell of both is measured once
NO_EXPERIMENTS = ("logs", "tables", "figures", "findings", "history", "ab")  # folders that contain no records


class Bench:
    """One configuration on this machine.

    Attributes:
        host: the machine that measures.
        machine: the name of the folder below results/: the host's, with `data.name` behind it where there is one.

    Args:
        settings: the merged content of config.yaml.
        root: the folder that contains results/.
        schema: the JSON Schema of the settings.
        files: the files that `settings` was read from.
        checked: whether the parent process has already checked the settings, which takes a third of a second.

    Raises:
        stepbench.pipeline.config.ConfigError: the configuration is invalid; one line per mistake.
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
        self.host = self._host()
        self.device = self.host.device
        # Sources of tokens that have a name stand beside each other, like machines.
        self.machine = "-".join(filter(None, (self.host.name, settings["data"].get("name"))))
        on_gpu = devices.KINDS[self.device].is_gpu
        self.scale = settings["scale"] if settings["scale"] != "auto" else ("gpu_quick" if on_gpu else "cpu")
        if self.scale in GPU_SCALES and not on_gpu:
            told = f"`scale` must be auto or cpu on a machine without a GPU, got {self.scale} ({self.device})"
            if (name := settings["machine"]) != "auto":
                told += f"; if {name} is another machine, have it describe itself: {machine.file_of(Path(), name)}"
            raise config.ConfigError(told)
        threads = settings["protocol"]["threads"]
        self.threads = self.host.cpu_cores if threads == "auto" else threads

    def _host(self) -> machine.Machine:
        """Return the machine that measures: the described one that config.yaml names, or this one."""
        name, device = self.settings["machine"], self.settings["device"]
        found = None if name == "auto" else machine.described(self.root, name)
        if found is not None and device not in ("auto", found.device):
            file = machine.file_of(Path(), name)
            raise config.ConfigError(f"`device` must be auto or {found.device}, as in {file}, got {device}")
        try:
            return found or machine.here(device, name)
        except ValueError as error:
            raise config.ConfigError(str(error)) from None

    @classmethod
    def open(cls, root: Path, *, files: Iterable[Path] = (), settings: Mapping[str, Any] | None = None) -> Bench:
        """Return the bench of the config.yaml in `root`.

        Args:
            root: the folder that contains config.yaml.
            files: more configuration files, each merged over those before it.
            settings: merged over all files.

        Raises:
            stepbench.pipeline.config.ConfigError: the configuration is invalid.
        """
        files = [root / "config.yaml", *files]
        merged: dict[str, Any] = {}
        for each in (*map(config.read, files), settings or {}):
            merged = config.merge(merged, each)
        return cls(merged, root=root, schema=root / config.SCHEMA, files=files)

    # -- cells and their records ---------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The experiments that have cells on this scale, in the order of config.yaml."""
        return tuple(name for name, own in self.settings["experiments"].items() if grids.parts(own, self.scale))

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All configured cells on this scale, in the order of config.yaml."""
        return tuple(cell for name in self.names for cell in self.grid(name))

    @functools.cache  # noqa: B019 (a bench lives as long as its process)
    def grid(self, name: str, *, first: bool = False) -> tuple[Any, ...]:
        """Return the configured cells of an experiment, or those of a first report, in the order of measurement."""
        parts = grids.parts(self.settings["experiments"].get(name, {}), self.scale, first=first)
        found = grids.expand_all(experiments.load(name).cell, parts, where=("experiments", name))
        if self.is_without_bf16:
            found = capability.without_bf16(found, self.settings.get("rungs", {}))
        return grids.in_rounds(found)

    @functools.cached_property
    def interconnect(self) -> Mapping[str, Any]:
        """The machine's links, see `stepbench.measure.interconnect`; asked for where they are not described."""
        return self.host.interconnect if self.host.described else interconnect.describe(self.device)

    @functools.cached_property
    def is_without_bf16(self) -> bool:
        """Whether the quick grid, which is for any GPU, is one without bfloat16 here."""
        return self.scale == "gpu_quick" and capability.lacks_bf16(self.host)

    def path(self, cell: Cell) -> Path:
        """Return the path of a cell's record, relative to the root."""
        return cell.path(self.machine)

    @functools.cache  # noqa: B019
    def named(self, name: str) -> dict[str, Any]:
        """Return the configured cells of an experiment by their names."""
        return {cell.name: cell for cell in self.grid(name)}

    @functools.cache  # noqa: B019
    def paths(self, *names: str) -> list[str]:
        """Return the record paths of all configured cells of these experiments, for the input of a rule."""
        return [f"results/{self.machine}/{name}/{cell}.json" for name in names for cell in self.named(name)]

    def locate(self, path: str | Path) -> Cell:
        """Return the cell of a record's path.

        Raises:
            ValueError: the path is not the canonical path of a cell on this machine.
        """
        parts = Path(path).parts
        if len(parts) != 4 or parts[0] != "results" or not parts[3].endswith(".json"):
            raise ValueError(
                f"a cell's path must be results/{self.machine}/<experiment>/<cell>.json, got {str(path)!r}"
            )
        if parts[1] != self.machine:
            raise ValueError(f"the machine of a cell's path must be this machine, {self.machine}, got {parts[1]!r}")
        cell = experiments.cell_at(Path(path))
        self.check_cell(cell)
        return cell

    def check_cell(self, cell: Cell) -> None:
        """Check that config.yaml defines the size or preset of a cell, and an attention kernel of one's own.

        Raises:
            ValueError: it does not.
        """
        named = {axis: list(config.entries(self.settings, axis)) for axis in config.NAMED if hasattr(cell, axis)}
        for axis in cell.axes():
            if axis.section is not None:
                named[axis.name] = [*(axis.choices or ()), *self.settings.get(axis.section, {})]
        for name, valid in named.items():
            if getattr(cell, name) not in valid:
                raise ValueError(f"`{name}` must be one of {', '.join(valid)}, got {getattr(cell, name)!r}")

    def check_targets(self, targets: Iterable[str]) -> None:
        """Check the targets that look like records of this workflow.

        Raises:
            stepbench.pipeline.config.ConfigError: some are not the path of a cell on this machine; one line for each.
        """
        errors = []
        for target in targets:
            parts = Path(target).parts
            if Path(target).is_relative_to(self.shards_dir):
                continue
            rendered = len(parts) > 2 and parts[2] in NO_EXPERIMENTS
            if parts[:1] == ("results",) and target.endswith(".json") and not rendered:
                try:
                    self.locate(target)
                except ValueError as error:
                    errors.append(str(error))
        if errors:
            raise config.ConfigError(*errors)

    # -- what a cell uses ----------------------------------------------------------------------------------------------

    @property
    def protocol(self) -> dict[str, Any]:
        """The protocol on this scale: `seed`, `threads`, `warmup_steps`, `measured_steps`."""
        common = {key: value for key, value in self.settings["protocol"].items() if key not in ("cpu", "gpu")}
        own = self.settings["protocol"]["gpu" if self.scale in GPU_SCALES else "cpu"]
        return {**common, **own, "threads": self.threads}

    @property
    def trust_prediction(self) -> bool:
        """Whether a cell whose predicted memory does not fit is not started; no number depends on it."""
        return self.settings.get("trust_prediction", True)

    def definition(self, cell: Cell) -> dict[str, Any]:
        """Return the settings that a cell uses, the part `definition` of its fingerprint."""
        wanted = experiments.load(cell.experiment).settings
        used = {key: self.settings[key] for key in wanted if key != "protocol"}
        if "protocol" in wanted:
            used["protocol"] = {key: value for key, value in self.protocol.items() if key != "threads"}
        if "data" in used:
            used["data"] = {key: used["data"][key] for key in ("source", "corpus_bytes")}
            if (source := self.source_file) is not None:
                used["data"]["content"] = fingerprint.content(self.root / source, self.memo("content"))
        self.check_cell(cell)
        memo = self.memo("content")
        for key, entry in own_files.entries(self.settings, cell).items():
            used[key] = own_files.with_content(entry, self.root, memo)
        below = cell.builds_on(self.grid(cell.experiment))
        used |= cell.learned(self.settings, {each: self._record(each) for each in below})
        for name, entry in used.get(own_files.KERNELS, {}).items():
            used[own_files.KERNELS][name] = own_files.with_content(entry, self.root, memo)
        if self.shards(cell) is not None:
            used["shards_dir"] = str(self.shards_dir)  # another disk has another speed
        return used

    def _record(self, cell: Cell) -> records.Record | None:
        """Return the record of a cell if it holds numbers, fresh or not."""
        try:
            found = records.read(self.root / self.path(cell))
        except (FileNotFoundError, records.RecordError):
            return None
        return found if found.ok else None

    def memo(self, kind: str) -> Path:
        """Return the folder that caches digests of files for other processes."""
        return self.root / STATE_FOLDER / kind

    @functools.cached_property
    def architecture(self) -> str | None:
        """Whose tile shapes count in a fingerprint; see `stepbench.pipeline.capability.tiles_of`."""
        return capability.tiles_of(self.host)

    # -- data files ---------------------------------------------------------------------------------------------------

    @functools.cache  # noqa: B019
    def reads_tokens(self, name: str) -> bool:
        """Return whether an experiment reads a token file."""
        return "data" in experiments.load(name).settings and self.settings["data"]["source"] != "synthetic"

    @functools.cached_property
    def token_path(self) -> Path:
        """The token file that the models read."""
        data = self.settings["data"]
        if tokens.source_kind(data["source"]) == "npy":
            return Path(data["source"])
        folder = Path("results", "data")
        return tokens.token_path(folder, self.source, self.settings["vocabulary"], data["corpus_bytes"])

    @property
    def source(self) -> str:
        """`data.source` as it can be opened: a path is relative to the root, wherever this process stands."""
        if self.source_file is None:
            return str(self.settings["data"]["source"])
        path, here = self.root / self.source_file, Path.cwd()
        return str(path.relative_to(here) if path.is_relative_to(here) else path)

    @property
    def source_file(self) -> Path | None:
        """The user's file that is the source of tokens, or None."""
        source = self.settings["data"]["source"]
        return None if source in ("corpus", "synthetic") else Path(source)

    @property
    def text(self) -> list[str]:
        """The user's text file that is tokenised, if there is one."""
        source = self.settings["data"]["source"]
        return [source] if tokens.source_kind(source) == "text" else []

    @property
    def shards_dir(self) -> Path:
        """The folder of the data sets' shards, relative to the root or absolute."""
        return Path(self.settings["data"].get("shards_dir", "results/data/shards"))

    def shards(self, cell: Cell) -> ShardSet | None:
        """Return the data set that a cell reads from disk, or None if it reads none or its definition is invalid."""
        find = experiments.load(cell.experiment).shards
        if find is None:
            return None
        try:
            return find(cell, self.settings.get("presets", {})[cell.preset], self.protocol["seed"])  # type: ignore[attr-defined]
        except ValueError:  # measuring the cell reports the mistake
            return None
