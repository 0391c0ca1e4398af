"""Where tokens come from: a data source becomes a file of token ids, and that file becomes batches.

`data.source` of config.yaml is one of

    corpus       the Python standard library's own source text, which every machine that runs stepbench has
    <path>.txt   any other UTF-8 text
    <path>.npy   token ids, one-dimensional, uint16 or uint32
    synthetic    seeded uniform ids, no file

Text is tokenised once by a byte-level BPE trained on it. A token file is memory-mapped, never loaded whole, and is
checked before anything is measured. numpy, tokenizers and torch are imported by the functions that need them: parsing
the Snakefile takes the names of files from this module and nothing else.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
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

BYTE_ALPHABET = 256
# Text is tokenised in pieces so that tokenizers has something to spread over the cores. Their length is part of the
# result (no token crosses a seam), so it must never depend on the machine.
PIECE_CHARACTERS = 65_536
# 64 MiB of uint32 at a time: a token file may be larger than memory.
CHECKED_AT_ONCE = 16 * 2**20


def source_kind(source: str) -> Kind:
    """Return which kind of source `data.source` names.

    Raises:
        ValueError: If it names none.
    """
    kinds: dict[str, Kind] = {"corpus": "corpus", "synthetic": "synthetic", ".txt": "text", ".npy": "npy"}
    kind = kinds.get(source) or kinds.get(Path(source).suffix) if isinstance(source, str) else None
    if kind is None:
        raise ValueError(f"`data.source` must be {SOURCES}, got {source!r}")
    return kind


def token_path(folder: Path, source: str, vocabulary: int, corpus_bytes: int) -> Path:
    """Return the file that holds the tokens of `source`; its name is its whole definition.

    The corpus is `corpus~<corpus_bytes>~<vocabulary>.npy` in `folder`. A text file takes its own name there, reduced
    to what is safe in paths and shells, and eight digits of its absolute path's hash. A .npy file is used in its place.

    Raises:
        ValueError: If the source is unknown, or synthetic, which has no file.
    """
    kind = source_kind(source)
    if kind == "synthetic":
        raise ValueError("`data.source` must be corpus or a path to have a token file, got 'synthetic'")
    if kind == "npy":
        return Path(source)
    name = "corpus" if kind == "corpus" else _safe_name(Path(source))
    return folder / f"{name}~{corpus_bytes}~{vocabulary}.npy"


def check_source(source: str, *, vocabulary: int, contexts: Iterable[int]) -> None:
    """Refuse a data source that cannot feed a model of this vocabulary at all of these contexts.

    Nothing is tokenised: how many tokens a text gives is known when `prepare` has run, and `open_tokens` checks it.

    Raises:
        FileNotFoundError: If the source is a path at which no file lies.
        ValueError: If the source is unknown, a .npy file is refused by `open_tokens`, a text has fewer bytes than the
            longest context needs tokens, or text is to be tokenised into fewer entries than there are bytes.
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
    """Tokenise a text source; the same text gives the same bytes, on any number of cores.

    Writes `output`, a .npy of uint16 (uint32 from 65 537 entries on), and before it `<stem>.tokenizer.json` beside it.
    Both appear whole or not at all.

    Args:
        source: `corpus` or the path of a UTF-8 text.
        vocabulary: Entries of the byte-level BPE that is trained on the text; a short text may give fewer.
        corpus_bytes: Where the text is cut. The standard library must be that long; another text may be shorter.
        output: The path that `token_path` names.

    Raises:
        FileNotFoundError: If no text lies at the path.
        ValueError: If the source holds no text, the text is empty or not UTF-8, the standard library is too short, or
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
    # The token file is the one that a rule waits for, so it comes last.
    write_whole(output.with_suffix(".tokenizer.json"), lambda file: file.write(tokenizer.to_str(pretty=True).encode()))
    write_whole(output, lambda file: np.save(file, ids))


def open_tokens(path: Path, *, vocabulary: int, context: int) -> TokenArray:
    """Memory-map a token file after checking all of it.

    Args:
        path: A .npy file of token ids.
        vocabulary: Every id must be below it. The whole file is read once for this, 64 MiB at a time.
        context: The file must hold one window of context + 1 tokens.

    Returns:
        The ids, `[tokens]`, uint16 or uint32, read-only.

    Raises:
        FileNotFoundError: If no file lies there.
        ValueError: If it is not .npy, has another dtype or shape, is too short, or has ids outside the vocabulary.
    """
    import numpy as np

    tokens = _mapped(_existing(path, "a .npy file of token ids"))
    if tokens.ndim != 1 or tokens.dtype not in (np.uint16, np.uint32):
        found = f"{tokens.dtype} of shape {list(tokens.shape)}"
        raise ValueError(f"`{path}` must hold a one-dimensional array of uint16 or uint32, got {found}")
    if len(tokens) < context + 1:
        raise ValueError(f"`{path}` must hold at least context + 1 = {context + 1} tokens, got {len(tokens)}")
    for start in range(0, len(tokens), CHECKED_AT_ONCE):
        chunk = tokens[start : start + CHECKED_AT_ONCE]
        if int(chunk.max()) >= vocabulary:
            first = int(np.argmax(chunk >= vocabulary))
            found = f"{chunk[first]} at token {start + first}"
            raise ValueError(f"`{path}` must hold ids below the vocabulary ({vocabulary}), got {found}")
    return tokens


def batches(tokens: TokenArray, *, batch: int, context: int, seed: int) -> Iterator[Batch]:
    """Yield endless batches of windows at random offsets; the same seed gives the same batches.

    Args:
        tokens: What `open_tokens` returned for this context.
        batch: Windows in a batch.
        context: Tokens in a window.
        seed: Of a generator of its own; no global random state is read or changed.

    Yields:
        Inputs and targets, int64 `[batch, context]` on the CPU; a target is the token after its input.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    while True:
        offsets = random.integers(0, len(tokens) - context, size=batch)
        yield _inputs_and_targets(np.stack([tokens[offset : offset + context + 1] for offset in offsets]))


def synthetic(*, vocabulary: int, batch: int, context: int, seed: int) -> Iterator[Batch]:
    """Yield endless batches of uniformly random ids, shaped as those of `batches`; the same seed gives the same ids."""
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
    except Exception as error:  # a damaged header leaves numpy as anything: tokenize.TokenError, struct.error, KeyError
        # numpy's further lines advise allow_pickle, the one thing not to do with a file of unknown origin.
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"`{path}` must be a whole .npy file of token ids, got a damaged one: {reason}") from error


def _inputs_and_targets(windows: np.ndarray) -> Batch:
    import numpy as np
    import torch

    # Two contiguous tensors, as a copy to a device makes of them anyway; views of one window would keep its odd stride.
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
        raise ValueError(f"`vocabulary` must be at least {BYTE_ALPHABET} for text, one entry a byte, got {vocabulary}")


def _head(path: Path, size_bytes: int) -> bytes:
    with _existing(path, "a text file").open("rb") as file:
        return file.read(size_bytes)


def _decode(raw: bytes, source: str, *, cut: bool) -> str:
    # An incremental decoder holds a character back that the cut went through, where bytes.decode would refuse it.
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
    """Have `write` fill a file that appears whole or not at all.

    Raises:
        OSError: it cannot be written; the error names the file, which that of a write does not.
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
