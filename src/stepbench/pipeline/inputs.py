"""The files that cells read: checking and preparing them."""

from __future__ import annotations

from stepbench.data import shards, tokens
from stepbench.measure import environment, software
from stepbench.pipeline import config
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.cells import Cell


def of(bench: Bench, cell: Cell) -> list[str]:
    """Return the files that must exist before a cell is measured."""
    found = [str(bench.token_path)] if bench.reads_tokens(cell.experiment) else []
    most = environment.device_count("cuda") if bench.device == "cuda" else bench.threads
    # A cell with more ranks than this machine allows is recorded as unsupported; do not write its 30 GB for that.
    if (data := bench.shards(cell)) is not None and getattr(cell, "ranks", 1) <= most:
        found.append(str(bench.shards_dir / data.name / shards.INDEX))
    return found


def check(bench: Bench) -> None:
    """Check that torch supports the device and that the source of tokens is usable, before anything is measured.

    Raises:
        stepbench.pipeline.config.ConfigError: one of them is not; the message says why.
    """
    data, vocabulary = bench.settings["data"], bench.settings["vocabulary"]
    try:
        software.check_build(bench.device)
        tokens.check_source(data["source"], vocabulary=vocabulary, contexts=_contexts(bench))
    except (ValueError, OSError) as error:
        raise config.ConfigError(str(error)) from None


def check_exist(bench: Bench) -> None:
    """Check that the source of tokens exists; unlike `check` this is fast.

    Raises:
        stepbench.pipeline.config.ConfigError: it is not a file, and a configured experiment reads it.
    """
    source = bench.source_file
    if source is not None and any(map(bench.reads_tokens, bench.names)) and not (bench.root / source).is_file():
        raise config.ConfigError(f"`data.source` must be a file that exists, got {str(source)!r}")


def prepare_tokens(bench: Bench) -> None:
    """Tokenise the text that the models read.

    Raises:
        ValueError: the text is too short for the configured contexts.
    """
    data, vocabulary, output = bench.settings["data"], bench.settings["vocabulary"], bench.root / bench.token_path
    made = tokens.source_kind(data["source"]) != "npy"
    if made:
        tokens.prepare(data["source"], vocabulary=vocabulary, corpus_bytes=data["corpus_bytes"], output=output)
    try:
        tokens.open_tokens(output, vocabulary=vocabulary, context=max(_contexts(bench), default=1))
    except ValueError:
        if made:  # otherwise the next run would use the file because it exists
            output.unlink()
        raise


def prepare_shards(bench: Bench, folder: str) -> None:
    """Write the data set that the name of a folder in `shards_dir` defines.

    Raises:
        ValueError: the name does not define a data set.
        OSError: the disk has too little space, or the folder is not writable.
    """
    shards.write(shards.ShardSet.named(folder), bench.root / bench.shards_dir / folder)


def _contexts(bench: Bench) -> list[int]:
    reading = (cell for cell in bench.cells if bench.reads_tokens(cell.experiment))
    return [cell.context for cell in reading if hasattr(cell, "context")]
