"""A synthetic data set of (source, target) pairs, in memory or on disk as numbered shards of about 128 MB.

The same definition gives the same tokens wherever they lie, on any machine, so that an epoch from disk and one from
memory train on the same samples. On disk a folder holds `shard_0000.bin`, `shard_0001.bin` … and `index.json`, which is
written last and states dtype, shapes, counts, the seed and a checksum of each shard:

    one sample:  source [context], then target [context + 1], little-endian uint16
    one shard:   samples one after the other, nothing else

numpy and torch are imported by the functions that need them: parsing the Snakefile takes names of folders from here.
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
# Left on the disk beside what is written: other programs, and the records themselves, need some.
SPARE_BYTES = 256 * 2**20
_HASHED_AT_ONCE = 8 * 2**20


class ShardError(ValueError):
    """A shard or its index is not what the index says; the message names the file."""


@dataclass(frozen=True)
class ShardSet:
    """The definition of a data set; two equal ones hold equal bytes.

    Attributes:
        megabytes: 10⁶ bytes, rounded down to whole samples.
        context: tokens of a source; a target has one more, because it is shifted by one.
        vocabulary: every token is below it; at most 65 536.
        seed: of the tokens.

    Raises:
        ValueError: it cannot be made.
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
        """The name of its folder, which is its whole definition."""
        return f"{self.megabytes}mb~{self.context}~{self.vocabulary}~{self.seed}"

    @classmethod
    def named(cls, name: str) -> ShardSet:
        """Return the data set of a folder's name.

        Raises:
            ValueError: the name is none.
        """
        match = re.fullmatch(PATTERN, name)
        if match is None:
            raise ValueError(
                f"a folder of shards must be named <megabytes>mb~<context>~<vocabulary>~<seed>, got {name!r}"
            )
        return cls(*(int(number) for number in re.findall(r"\d+", name)))

    @property
    def sample_tokens(self) -> int:
        """The tokens of one sample, source and target."""
        return 2 * self.context + 1

    @property
    def sample_bytes(self) -> int:
        """The bytes of one sample."""
        return self.sample_tokens * ITEM_BYTES

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return self.megabytes * MEGABYTE // self.sample_bytes

    @property
    def shard_samples(self) -> list[int]:
        """How many samples each shard holds; all the same but the last."""
        full = max(1, SHARD_BYTES // self.sample_bytes)
        return [min(full, self.samples - start) for start in range(0, self.samples, full)]


# Of a folder's name, for the rule that makes shards.
PATTERN = r"(?:[1-9][0-9]*)mb~(?:[1-9][0-9]*)~(?:[1-9][0-9]*)~(?:0|[1-9][0-9]*)"


def generate(definition: ShardSet, shard: int) -> Samples:
    """Return the samples of one shard, `[samples, 2·context + 1]`, uniformly random; each shard by itself."""
    import numpy as np

    random = np.random.default_rng([definition.seed, shard])
    shape = (definition.shard_samples[shard], definition.sample_tokens)
    return random.integers(0, definition.vocabulary, size=shape, dtype=np.uint16).astype(DTYPE, copy=False)


def write(definition: ShardSet, folder: Path) -> None:
    """Write all shards into `folder`, and last the index.

    Shards that are there already are written again: an index that is missing says nothing good about them.

    Raises:
        OSError: there is not enough space on the disk, or the folder cannot be written to.
    """
    needed = definition.samples * definition.sample_bytes
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free + sum(file.stat().st_size for file in folder.glob("shard_*.bin"))
    if free < needed + SPARE_BYTES:
        raise OSError(errno.ENOSPC, f"{free} bytes are free and {needed + SPARE_BYTES} needed", str(folder))
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
    """Return where the shards of a data set lie in its folder."""
    return [folder / f"shard_{shard:04}.bin" for shard in range(len(definition.shard_samples))]


def refuse(folder: Path, sentence: str) -> None:
    """Leave an index in place of a data set that cannot be written, so that what would read it can say why."""
    write_whole(folder / INDEX, lambda stream: stream.write(json.dumps({REFUSED: sentence}).encode()))


def check(definition: ShardSet, folder: Path) -> list[Path]:
    """Return the files of the shards in `folder` after reading all of each.

    Raises:
        ShardError: the index or a shard is missing, cut, altered, or of another data set, or could not be written; then
            the index goes, so that the next run tries again.
    """
    entries = _entries(definition, folder)
    for entry in entries:
        file = folder / entry["file"]
        if not file.is_file():
            raise ShardError(f"{file}: the index names this shard, and it is missing")
        if file.stat().st_size != entry["bytes"]:
            raise ShardError(f"{file}: a shard must have {entry['bytes']} bytes, got {file.stat().st_size}")
        if _digest(file) != entry["sha256"]:
            raise ShardError(f"{file}: its bytes must fit the checksum in {INDEX}, but the file was altered")
    return files(definition, folder)


def in_memory(definition: ShardSet) -> list[Samples]:
    """Return all shards as arrays."""
    return [generate(definition, shard) for shard in range(len(definition.shard_samples))]


def _header(definition: ShardSet) -> dict[str, Any]:
    """Return what an index states of the whole data set."""
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
    """Return what the index says of each shard.

    Raises:
        ShardError: it cannot be believed, or is of another data set.
    """
    file = folder / INDEX
    try:
        index = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise ShardError(f"{file}: a folder of shards must have an index, and it is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ShardError(f"{file}: must be a whole JSON document, got {' '.join(str(error).split())}") from None
    if isinstance(index, dict) and isinstance(refused := index.get(REFUSED), str):
        file.unlink()
        raise ShardError(refused[:MAX_SHOWN])
    wanted = _header(definition)
    found = index if isinstance(index, dict) else {}
    for key, value in wanted.items():
        if type(found.get(key)) is not type(value) or found[key] != value:
            raise ShardError(f"{file}: `{key}` must be {value!r}, got {str(found.get(key))[:80]!r}")
    entries = found.get("shards")
    # Names are what this module writes, never what a file asks for: an index cannot lead out of its folder.
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
            raise ShardError(f"{file}: `shards` must have a checksum of {each['file']}")
    return entries


def _digest(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_HASHED_AT_ONCE):
            found.update(block)
    return found.hexdigest()
