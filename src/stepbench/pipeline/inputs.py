"""The files that cells read: checking and preparing them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stepbench import terminal
from stepbench.data import shards, tokens
from stepbench.measure import devices, software
from stepbench.pipeline import config, fingerprint, own_files
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.cells import Cell
from stepbench.process import storage

COMPILING = ("compiled", "flex", "triton")  # how the names begin


def of(bench: Bench, cell: Cell) -> list[str]:
    """Return the files that must exist before a cell is measured."""
    found = [str(bench.token_path)] if bench.reads_tokens(cell.experiment) else []
    most = bench.threads if bench.device == "cpu" else bench.host.device_count
    # A cell with more ranks than this machine allows is recorded as unsupported; do not write its 30 GB for that.
    if (data := bench.shards(cell)) is not None and getattr(cell, "ranks", 1) <= most:
        found.append(str(bench.shards_dir / data.name / shards.INDEX))
    return found


def check(bench: Bench, cells: Sequence[Cell] | None = None) -> None:
    """Check that the source of tokens is usable and that kernels can be compiled, before anything is measured.

    It warns on standard error if the driver cannot be asked.

    Args:
        bench: the configuration.
        cells: what will be measured; all configured cells where None.

    Raises:
        stepbench.pipeline.config.ConfigError: it is not; the message says why.
    """
    if (reason := lacks_compiler(bench, bench.cells if cells is None else cells)) is not None:
        raise config.ConfigError(reason)
    tell_unasked(bench)
    vocabulary = bench.settings["vocabulary"]
    try:
        tokens.check_source(bench.source, vocabulary=vocabulary, contexts=_contexts(bench))
    except (ValueError, OSError) as error:
        raise config.ConfigError(str(error)) from None


def lacks_compiler(bench: Bench, cells: Sequence[Cell]) -> str | None:
    """Return why cells that compile kernels for a GPU would fail, with how many there are; or None.

    Of a described machine nothing is said here: this process is somewhere else.
    """
    if bench.device == "cpu" or bench.host.described or (missing := software.lacks_compiler()) is None:
        return None
    count = sum(_compiles(bench, cell) for cell in cells)
    return f"{count} cells use Triton or torch.compile, and there is {missing}" if count else None


def tell_unasked(bench: Bench) -> None:
    """Print that the driver of this machine's GPUs cannot be asked, if it measures and that is so."""
    on_gpu = devices.KINDS[bench.device].is_gpu
    if on_gpu and not bench.host.described and (sentence := devices.unasked()) is not None:
        terminal.say(sentence)


def _compiles(bench: Bench, cell: Cell) -> bool:
    rung = bench.settings.get("rungs", {}).get(getattr(cell, "rung", None), {})
    used = (str(rung.get(axis, getattr(cell, axis, ""))) for axis in ("implementation", "attention", "head"))
    return any(name.startswith(COMPILING) for name in used)


def check_exist(bench: Bench) -> None:
    """Check that the source of tokens and the files of models and kernels exist; unlike `check` this is fast.

    Raises:
        stepbench.pipeline.config.ConfigError: one is not a file, and a configured cell reads it.
    """
    files = {file for cell in bench.cells for file in own_files.files(bench.settings, cell)}
    missing = [file for file in files if not (bench.root / file).is_file()]
    if missing:
        raise config.ConfigError(*(f"`{file}` must be a file that exists" for file in sorted(missing)))
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
        digest = _digest(bench)
        tokens.prepare(bench.source, vocabulary=vocabulary, corpus_bytes=data["corpus_bytes"], output=output)
        if digest is not None:
            storage.write_atomically(_note(output), digest)
    try:
        tokens.open_tokens(output, vocabulary=vocabulary, context=max(_contexts(bench), default=1))
    except ValueError:
        if made:  # otherwise the next run would use the file because it exists
            output.unlink()
        raise


def make(bench: Bench, cell: Cell) -> None:
    """Make the files that a cell reads where they are not there, or are those of a text that has changed since.

    Snakemake asks for them only where a record is not fresh, and looks at the file times of a text alone.

    Raises:
        ValueError: the text is too short for the configured contexts.
        OSError: the disk has too little space, or the folder is not writable.
    """
    if bench.reads_tokens(cell.experiment) and not _has_tokens(bench):
        prepare_tokens(bench)
    data = bench.shards(cell)
    if data is not None and any(not (bench.root / path).exists() for path in of(bench, cell)):
        prepare_shards(bench, data.name)


def _has_tokens(bench: Bench) -> bool:
    path = bench.root / bench.token_path
    if not path.exists():
        return False
    digest = _digest(bench)
    try:
        return digest is None or _note(path).read_text(encoding="utf-8") == digest
    except FileNotFoundError:
        return False


def _digest(bench: Bench) -> str | None:
    """Return the digest of the text that is tokenised, or None if the source is no text of the user's."""
    return fingerprint.content(bench.root / bench.text[0], bench.memo("content")) if bench.text else None


def _note(path: Path) -> Path:
    """Return the file that holds the digest of the text of a token file."""
    return path.with_suffix(".text")


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
