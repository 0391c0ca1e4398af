"""Tokens: a data source becomes a file of token ids, and that file becomes batches.

`data.source` of config.yaml is one of

    corpus       the source text of the Python standard library, which every machine that runs stepbench has
    <path>.txt   any other UTF-8 text
    <path>.npy   token ids, one-dimensional, of one of the dtypes in DTYPES
    synthetic    seeded uniform ids, no file

Text is tokenised once by a byte-level BPE that is trained on it. A token file is memory-mapped, never loaded whole, and
checked before anything is measured. Functions import numpy, tokenizers and torch themselves, because the Snakefile
imports this module for the names of files.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from stepbench.data import corpus

if TYPE_CHECKING:
    import numpy as np
    import tokenizers
    import torch

    TokenArray = np.ndarray[tuple[int], np.dtype[np.uint16 | np.uint32]]
    Batch = tuple[torch.Tensor, torch.Tensor]

Kind = Literal["corpus", "text", "npy", "synthetic"]
SOURCES = "corpus, synthetic, a path that ends in .txt or a path that ends in .npy"

DTYPES = ("uint16", "uint32")  # of this machine's byte order
BYTE_ALPHABET = 256
# Text is tokenised in pieces so that tokenizers can use several cores. Their length affects the result (no token
# crosses the boundary of two pieces), so it must not depend on the machine.
PIECE_CHARACTERS = 65_536
# 64 MiB of uint32 at a time: a token file may be larger than memory.
CHECKED_AT_ONCE = 16 * 2**20


def source_kind(source: str) -> Kind:
    """Return which kind of source `data.source` names.

    Raises:
        ValueError: If it names no kind of source.
    """
    kinds: dict[str, Kind] = {"corpus": "corpus", "synthetic": "synthetic", ".txt": "text", ".npy": "npy"}
    kind = kinds.get(source) or kinds.get(Path(source).suffix) if isinstance(source, str) else None
    if kind is None:
        raise ValueError(f"`data.source` must be {SOURCES}, got {source!r}")
    return kind


def token_path(folder: Path, source: str, vocabulary: int, corpus_bytes: int) -> Path:
    """Return the path of the token file of `source`; the name states the whole definition.

    The corpus is `corpus~<corpus_bytes>~<vocabulary>.npy` in `folder`. The tokens of a text file are named after it,
    with only the characters that are safe in paths and shells and eight digits of a hash of its absolute path. A .npy
    file is used where it is.

    Raises:
        ValueError: If the source is unknown, or synthetic, which has no file.
    """
    kind = source_kind(source)
    if kind == "synthetic":
        raise ValueError("`data.source` must be corpus or a path (synthetic has no file), got 'synthetic'")
    if kind == "npy":
        return Path(source)
    name = "corpus" if kind == "corpus" else _safe_name(Path(source))
    return folder / f"{name}~{corpus_bytes}~{vocabulary}.npy"


def check_source(source: str, *, vocabulary: int, contexts: Iterable[int]) -> None:
    """Check that a data source is usable with this vocabulary and these contexts.

    Nothing is tokenised. The number of tokens of a text is known only after `prepare`; `open_tokens` checks it.

    Raises:
        FileNotFoundError: If the source is a path without a file.
        ValueError: If the source is unknown, `open_tokens` rejects a .npy file, a text has fewer bytes than the
            longest context needs tokens, or the vocabulary is smaller than the alphabet of bytes.
    """
    kind = source_kind(source)
    context = max(contexts, default=1)
    if kind == "npy":
        open_tokens(Path(source), vocabulary=vocabulary, context=context)
    if kind in ("corpus", "text"):
        _check_byte_alphabet(vocabulary)
    if kind == "text":
        size_bytes = _existing(Path(source), "a text file").stat().st_size
        if size_bytes < context + 1:
            raise ValueError(
                f"`{source}` must hold at least context + 1 = {context + 1} bytes of text, got {size_bytes}"
            )


def prepare(source: str, *, vocabulary: int, corpus_bytes: int, output: Path) -> None:
    """Tokenise a text source; the same text gives the same bytes on any number of cores.

    Writes `<stem>.tokenizer.json` and then `output`, a .npy file of uint16 (uint32 from 65 537 entries on). Both are
    written atomically.

    Args:
        source: `corpus` or the path of a UTF-8 text.
        vocabulary: Entries of the byte-level BPE that is trained on the text; a short text may give fewer.
        corpus_bytes: Bytes of text to use. The standard library must have that many; another text may be shorter.
        output: The path that `token_path` returns.

    Raises:
        FileNotFoundError: If there is no file at the path.
        ValueError: If the source is not text, the text is empty or not UTF-8, the standard library is too short, or
            the vocabulary is smaller than the alphabet of bytes.

    Source: Sennrich et al. 2016 (arXiv:1508.07909), section 3.2; over bytes as in Radford et al. 2019, GPT-2, 2.2.
    """
    import numpy as np

    kind = source_kind(source)
    if kind not in ("corpus", "text"):
        raise ValueError(f"`data.source` must be corpus or a path that ends in .txt to be tokenised, got {source!r}")
    _check_byte_alphabet(vocabulary)
    raw = corpus.read(corpus_bytes) if kind == "corpus" else _head(Path(source), corpus_bytes)
    text = _decode(raw, source, cut=len(raw) == corpus_bytes)
    pieces = [text[start : start + PIECE_CHARACTERS] for start in range(0, len(text), PIECE_CHARACTERS)]
    tokenizer = _train(pieces, vocabulary)
    dtype = np.uint16 if vocabulary <= 2**16 else np.uint32
    ids = np.concatenate([np.asarray(piece.ids, dtype=dtype) for piece in tokenizer.encode_batch_fast(pieces)])
    # The token file is the rule's output, so it is written last.
    write_whole(output.with_suffix(".tokenizer.json"), lambda file: file.write(tokenizer.to_str(pretty=True).encode()))
    write_whole(output, lambda file: np.save(file, ids))


def open_tokens(path: Path, *, vocabulary: int, context: int) -> TokenArray:
    """Memory-map a token file after checking all of it.

    Args:
        path: A .npy file of token ids.
        vocabulary: Every id must be below it. The whole file is read once to check this, part by part.
        context: The file must have at least context + 1 tokens.

    Returns:
        The ids, `[tokens]`, of one of `DTYPES`, read-only.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is not .npy, has another dtype or shape, is too short, or has ids outside the vocabulary.
    """
    import numpy as np

    tokens = _mapped(_existing(path, "a .npy file of token ids"))
    fits = tokens.ndim == 1 and tokens.dtype in map(np.dtype, DTYPES)
    told = (
        f"`{path}` must hold a one-dimensional array of {' or '.join(DTYPES)}, "
        f"got {tokens.dtype} of shape {list(tokens.shape)}"
    )
    if not fits and (tokens.ndim != 1 or tokens.dtype.kind not in "iu"):
        raise ValueError(told)
    if len(tokens) < context + 1:
        raise ValueError(f"`{path}` must hold at least context + 1 = {context + 1} tokens, got {len(tokens)}")
    for start in range(0, len(tokens), CHECKED_AT_ONCE):
        chunk = tokens[start : start + CHECKED_AT_ONCE]
        if int(chunk.max()) >= vocabulary or int(chunk.min()) < 0:
            first = int(np.argmax((chunk >= vocabulary) | (chunk < 0)))
            found = f"{chunk[first]} at token {start + first}"
            raise ValueError(f"`{path}` must hold ids from 0 and below the vocabulary ({vocabulary}), got {found}")
    if not fits:  # such as int64, NumPy's default; its ids are within range, so nothing is lost
        dtype = DTYPES[0] if vocabulary <= 2**16 else DTYPES[1]
        converts = f"import numpy as np; np.save({str(path)!r}, np.load({str(path)!r}).astype(np.{dtype}))"
        raise ValueError(f"{told}; this converts it: python -c {shlex.quote(converts)}")
    return tokens


def batches(tokens: TokenArray, *, batch: int, context: int, seed: int) -> Iterator[Batch]:
    """Yield endless batches of windows at random offsets; the same seed gives the same batches.

    Args:
        tokens: The ids that `open_tokens` returned for this context.
        batch: Windows per batch.
        context: Tokens per window.
        seed: Seed of a separate generator; no global random state is read or changed.

    Yields:
        Inputs and targets, int64 `[batch, context]` on the CPU; a target is the token after its input.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    while True:
        offsets = random.integers(0, len(tokens) - context, size=batch)
        yield _inputs_and_targets(np.stack([tokens[offset : offset + context + 1] for offset in offsets]))


def synthetic(*, vocabulary: int, batch: int, context: int, seed: int) -> Iterator[Batch]:
    """Yield endless batches of uniformly random ids, shaped like those of `batches`; equal seeds give equal ids."""
    import numpy as np

    random = np.random.default_rng(seed)
    while True:
        yield _inputs_and_targets(random.integers(0, vocabulary, size=(batch, context + 1)))


def _mapped(path: Path) -> np.memmap:
    import numpy as np

    try:
        return np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # a damaged header makes numpy raise tokenize.TokenError, struct.error, KeyError, …
        # numpy's further lines advise allow_pickle, which is unsafe for a file of unknown origin.
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"`{path}` must be a whole .npy file of token ids, got a damaged one: {reason}") from error


def _inputs_and_targets(windows: np.ndarray) -> Batch:
    import numpy as np
    import torch

    # Two contiguous tensors, as after a copy to a device; views of one window would keep its odd stride.
    inputs, targets = (np.ascontiguousarray(part, dtype=np.int64) for part in (windows[:, :-1], windows[:, 1:]))
    return torch.from_numpy(inputs), torch.from_numpy(targets)


def _safe_name(path: Path) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:40] or "text"
    return f"{slug}-{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:8]}"


def _existing(path: Path, wanted: str) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"`{path}` must be {wanted}, got no file at {path.absolute()}")
    return path


def _check_byte_alphabet(vocabulary: int) -> None:
    if vocabulary < BYTE_ALPHABET:
        least = f"at least {BYTE_ALPHABET} for text, one entry per byte"
        raise ValueError(f"`vocabulary` must be {least}, got {vocabulary}")


def _head(path: Path, size_bytes: int) -> bytes:
    with _existing(path, "a text file").open("rb") as file:
        return file.read(size_bytes)


def _decode(raw: bytes, source: str, *, cut: bool) -> str:
    # An incremental decoder ignores a character that the cut split, where bytes.decode would raise.
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(raw, final=not cut)
    except UnicodeDecodeError as error:
        raise ValueError(f"`{source}` must be UTF-8 text, got byte {raw[error.start]:#04x} at {error.start}") from error
    if not text:
        raise ValueError(f"`{source}` must hold text, got none")
    return text


def _train(pieces: list[str], vocabulary: int) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(pieces, trainer)
    return tokenizer


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file atomically; `write` receives the open file.

    Raises:
        OSError: the file cannot be written; the error names the file, which an error of `write()` itself does not.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)
