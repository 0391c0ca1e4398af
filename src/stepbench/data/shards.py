"""A synthetic data set of (source, target) pairs, in memory or on disk as numbered shards of about 128 MB.

The same definition gives the same tokens in memory and on disk, on any machine, so that an epoch from disk and one from
memory train on the same samples. A folder on disk contains `shard_0000.bin`, `shard_0001.bin`, … and `index.json`,
which is written last and states dtype, shapes, counts, the seed and a checksum of each shard:

    one sample:  source [context], then target [context + 1], little-endian uint16
    one shard:   consecutive samples, nothing else

Functions import numpy themselves, because the Snakefile imports this module for the names of folders.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepbench.data.tokens import write_whole

if TYPE_CHECKING:
    import numpy as np

    Samples = np.ndarray[tuple[int, int], np.dtype[np.uint16]]

VERSION = 1
INDEX = "index.json"
REFUSED = "refused"
MAX_SHOWN = 500
DTYPE = "<u2"
ITEM_BYTES = 2
MAX_VOCABULARY = 2**16
SHARD_BYTES = 128_000_000
MEGABYTE = 1_000_000
# Kept free on the disk for other programs and for the records themselves.
SPARE_BYTES = 256 * 2**20
_HASHED_AT_ONCE = 8 * 2**20


class ShardError(ValueError):
    """A shard or its index is missing, damaged or of another data set; the message names the file."""


@dataclass(frozen=True)
class ShardSet:
    """The definition of a data set; equal definitions give equal bytes.

    Attributes:
        megabytes: size in 10⁶ bytes, rounded down to whole samples.
        context: tokens per source; a target has one more, because it is shifted by one.
        vocabulary: number of token ids, 2 to 65 536.
        seed: seed of the random tokens, at least 0.

    Raises:
        ValueError: a value is out of range, or `megabytes` is less than one sample.
    """

    megabytes: int
    context: int
    vocabulary: int
    seed: int

    def __post_init__(self) -> None:
        if not 2 <= self.vocabulary <= MAX_VOCABULARY:
            raise ValueError(f"`vocabulary` of shards must be from 2 to {MAX_VOCABULARY}, got {self.vocabulary}")
        if self.context < 1 or self.seed < 0:
            raise ValueError(f"`context` must be from 1 and `seed` from 0, got {self.context} and {self.seed}")
        if self.samples < 1:
            raise ValueError(
                f"`megabytes` must hold at least one sample of {self.sample_bytes} bytes, got {self.megabytes}"
            )

    @property
    def name(self) -> str:
        """The name of its folder, which states the whole definition."""
        return f"{self.megabytes}mb~{self.context}~{self.vocabulary}~{self.seed}"

    @classmethod
    def named(cls, name: str) -> ShardSet:
        """Return the data set that a folder's name defines.

        Raises:
            ValueError: the name is not `<megabytes>mb~<context>~<vocabulary>~<seed>`.
        """
        match = re.fullmatch(PATTERN, name)
        if match is None:
            raise ValueError(
                f"a folder of shards must be named <megabytes>mb~<context>~<vocabulary>~<seed>, got {name!r}"
            )
        return cls(*(int(number) for number in re.findall(r"\d+", name)))

    @property
    def sample_tokens(self) -> int:
        """Tokens per sample, source and target."""
        return 2 * self.context + 1

    @property
    def sample_bytes(self) -> int:
        """Bytes per sample."""
        return self.sample_tokens * ITEM_BYTES

    @property
    def samples(self) -> int:
        """The number of samples."""
        return self.megabytes * MEGABYTE // self.sample_bytes

    @property
    def shard_samples(self) -> list[int]:
        """The number of samples in each shard; only the last may differ."""
        full = max(1, SHARD_BYTES // self.sample_bytes)
        return [min(full, self.samples - start) for start in range(0, self.samples, full)]


# Pattern of a folder's name, for the rule that writes shards.
PATTERN = r"(?:[1-9][0-9]*)mb~(?:[1-9][0-9]*)~(?:[1-9][0-9]*)~(?:0|[1-9][0-9]*)"


def generate(definition: ShardSet, shard: int) -> Samples:
    """Return the samples of one shard, uint16 `[samples, 2·context + 1]`, uniformly random and seeded per shard."""
    import numpy as np

    random = np.random.default_rng([definition.seed, shard])
    shape = (definition.shard_samples[shard], definition.sample_tokens)
    return random.integers(0, definition.vocabulary, size=shape, dtype=np.uint16).astype(DTYPE, copy=False)


def write(definition: ShardSet, folder: Path) -> None:
    """Write all shards into `folder`, then the index.

    Existing shards are written again: without an index they cannot be trusted.

    Raises:
        OSError: the disk has too little space, or the folder is not writable.
    """
    needed = definition.samples * definition.sample_bytes
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free + sum(file.stat().st_size for file in folder.glob("shard_*.bin"))
    if free < needed + SPARE_BYTES:
        raise OSError(errno.ENOSPC, f"{needed + SPARE_BYTES} bytes needed, {free} free", str(folder))
    (folder / INDEX).unlink(missing_ok=True)
    for left_over in (*folder.glob("shard_*.bin"), *folder.glob(".*.bin.*"), *folder.glob(f".{INDEX}.*")):
        left_over.unlink()
    entries = [_write_shard(definition, shard, file) for shard, file in enumerate(files(definition, folder))]
    index = {**_header(definition), "shards": entries}
    text = json.dumps(index, indent=1).encode()
    write_whole(folder / INDEX, lambda stream: stream.write(text + b"\n"))


def _write_shard(definition: ShardSet, shard: int, file: Path) -> dict[str, Any]:
    """Write one shard and return its entry in the index."""
    tokens = generate(definition, shard)
    write_whole(file, lambda stream: stream.write(tokens.data))
    return {"file": file.name, "samples": len(tokens), "bytes": tokens.nbytes, "sha256": _digest(file)}


def files(definition: ShardSet, folder: Path) -> list[Path]:
    """Return the paths of a data set's shards in its folder."""
    return [folder / f"shard_{shard:04}.bin" for shard in range(len(definition.shard_samples))]


def refuse(folder: Path, sentence: str) -> None:
    """Write an index that says why the data set could not be written; `check` raises this sentence."""
    write_whole(folder / INDEX, lambda stream: stream.write(json.dumps({REFUSED: sentence}).encode()))


def check(definition: ShardSet, folder: Path) -> list[Path]:
    """Return the paths of the shards in `folder` after verifying the checksum of each.

    Raises:
        ShardError: the index or a shard is missing, truncated, modified or of another data set, or the data set could
            not be written; in the last case the index is deleted, so that the next run tries again.
    """
    entries = _entries(definition, folder)
    for entry in entries:
        file = folder / entry["file"]
        if not file.is_file():
            raise ShardError(f"{file}: the shard is missing, and {INDEX} lists it")
        if file.stat().st_size != entry["bytes"]:
            raise ShardError(f"{file}: a shard must have {entry['bytes']} bytes, got {file.stat().st_size}")
        if _digest(file) != entry["sha256"]:
            raise ShardError(f"{file}: checksum mismatch: the shard was modified after it was written")
    return files(definition, folder)


def in_memory(definition: ShardSet) -> list[Samples]:
    """Return all shards as arrays."""
    return [generate(definition, shard) for shard in range(len(definition.shard_samples))]


def _header(definition: ShardSet) -> dict[str, Any]:
    """Return the part of the index that describes the whole data set."""
    return {
        "version": VERSION,
        "dtype": DTYPE,
        "megabytes": definition.megabytes,
        "context": definition.context,
        "vocabulary": definition.vocabulary,
        "seed": definition.seed,
        "samples": definition.samples,
        "sample_tokens": definition.sample_tokens,
    }


def _entries(definition: ShardSet, folder: Path) -> list[dict[str, Any]]:
    """Return the index's entry for each shard.

    Raises:
        ShardError: the index is missing, damaged or of another data set.
    """
    file = folder / INDEX
    try:
        index = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise ShardError(f"{file}: the index of the shards is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ShardError(f"{file}: not a complete JSON document: {' '.join(str(error).split())}") from None
    if isinstance(index, dict) and isinstance(refused := index.get(REFUSED), str):
        file.unlink()
        raise ShardError(refused[:MAX_SHOWN])
    wanted = _header(definition)
    found = index if isinstance(index, dict) else {}
    for key, value in wanted.items():
        if type(found.get(key)) is not type(value) or found[key] != value:
            raise ShardError(f"{file}: `{key}` must be {value!r}, got {str(found.get(key))[:80]!r}")
    entries = found.get("shards")
    # The names come from this module and not from the file, so an index cannot point outside its folder.
    expected = [
        {"file": each.name, "samples": samples, "bytes": samples * definition.sample_bytes}
        for each, samples in zip(files(definition, file.parent), definition.shard_samples, strict=True)
    ]
    if not isinstance(entries, list) or len(entries) != len(expected):
        raise ShardError(f"{file}: `shards` must list {len(expected)} shards")
    for entry, each in zip(entries, expected, strict=True):
        if not isinstance(entry, dict) or {key: entry.get(key) for key in each} != each:
            raise ShardError(f"{file}: `shards` must have the entry {each}, got {str(entry)[:120]}")
        if not isinstance(entry.get("sha256"), str):
            raise ShardError(f"{file}: `shards` must have a checksum for {each['file']}")
    return entries


def _digest(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_HASHED_AT_ONCE):
            found.update(block)
    return found.hexdigest()
