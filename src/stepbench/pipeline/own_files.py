"""The files of models and attention kernels of the user's own that a cell depends on; they are read, and never run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepbench.measure import software
from stepbench.models.own import OwnModel, is_own
from stepbench.pipeline import config, fingerprint
from stepbench.pipeline.cells import Cell

KERNEL = "kernel"
KERNELS = "kernels"  # by name, of a cell with several steps; see `Cell.learned`


def entries(settings: Mapping[str, Any], cell: Cell) -> dict[str, dict[str, Any]]:
    """Return what config.yaml says of the size, the preset, … and the kernel that a cell names.

    Args:
        settings: the configuration.
        cell: of that configuration.

    Returns:
        By axis; under `KERNEL` an attention kernel of the user's own, if the cell names one.
    """
    named = (axis for axis in config.NAMED if hasattr(cell, axis))
    found = {axis: config.entries(settings, axis)[getattr(cell, axis)] for axis in named}
    for axis in (each for each in cell.axes() if each.section is not None):
        own = settings.get(str(axis.section), {})
        if (name := getattr(cell, axis.name)) in own:
            found[KERNEL] = {"function": own[name]}
    return found


def files(settings: Mapping[str, Any], cell: Cell) -> set[Path]:
    """Return the user's files that a cell names, relative to the root; not those that it has from other records."""
    named = (*entries(settings, cell).values(), *cell.learned(settings, {}).get(KERNELS, {}).values())
    return {file for entry in named if (file := file_of(entry)) is not None}


def file_of(entry: Mapping[str, Any]) -> Path | None:
    """Return the user's file that an entry names, relative to the root, or None."""
    if "function" in entry:
        return Path(entry["function"].rpartition(":")[0])
    return Path(OwnModel(**entry).path) if is_own(entry) else None


def with_content(entry: dict[str, Any], root: Path, memo: Path) -> dict[str, Any]:
    """Return an entry with the digest of the file that it names, and the version of what builds it; others as they are.

    Args:
        entry: of config.yaml.
        root: the folder that its path is relative to.
        memo: the folder that caches digests.
    """
    if (file := file_of(entry)) is None:
        return entry
    built_by = {"transformers": software.transformers_version()} if "hf" in entry else {}
    return {**entry, "content": fingerprint.content(root / file, memo), **built_by}
