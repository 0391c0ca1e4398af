import ast
import io
import itertools
import os
import pickle
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stepbench
from stepbench.data import corpus
from stepbench.data import tokens as module
from stepbench.data.tokens import batches, check_source, open_tokens, prepare, source_kind, synthetic, token_path

TEXT = "".join(f"def f{i}(x):\n    return x * {i}  # größer, 数 and 🙂\n" for i in range(400))


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "My text (1).txt"
    path.write_bytes(TEXT.encode())
    return path


def saved(path: Path, ids: Any, dtype: Any = np.uint16) -> Path:
    np.save(path, np.asarray(ids, dtype=dtype))
    return path


@pytest.mark.parametrize("source", ["", "corpse", "a/b.csv", "Corpus", "x.npz", None, 3, ["corpus"]])
def test_an_unknown_source_is_refused_with_the_valid_ones(source: Any) -> None:
    message = "`data.source` must be corpus, synthetic, a path that ends in .txt or a path that ends in .npy, got "
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared below
        check_source(source, vocabulary=300, contexts=[8])
    assert str(caught.value) == message + repr(source)


def test_a_token_file_is_named_after_its_definition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert token_path(tmp_path, "corpus", 10_000, 4_000_000) == tmp_path / "corpus~4000000~10000.npy"
    assert token_path(tmp_path, "data/ids.npy", 10_000, 4_000_000) == Path("data/ids.npy")
    definitions = [("/a/corpus.txt", 300, 9), ("/b/corpus.txt", 300, 9), ("/a/corpus.txt", 301, 9), ("corpus", 300, 9)]
    assert len({token_path(tmp_path, *definition) for definition in definitions}) == len(definitions)
    monkeypatch.chdir(tmp_path)
    assert token_path(tmp_path, "a.txt", 300, 9) == token_path(tmp_path, str(tmp_path / "a.txt"), 300, 9)
    with pytest.raises(ValueError, match=r"must be corpus or a path \(synthetic has no file\), got 'synthetic'"):
        token_path(tmp_path, "synthetic", 300, 9)


@pytest.mark.parametrize("name", ["$(touch PWNED).txt", "../..;x.txt", "{a}\n.txt", "🙂.txt", "x" * 240 + ".txt"])
def test_a_text_files_name_is_made_safe(name: str, tmp_path: Path) -> None:
    assert source_kind(name) == "text"
    path = token_path(tmp_path, name, 300, 1000)
    assert path.parent == tmp_path
    assert set(path.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-~.")
    assert len(path.name) < 80


def test_names_need_the_standard_library_alone() -> None:
    code = (
        "import sys; before = set(sys.modules); from pathlib import Path; from stepbench.data import tokens\n"
        "tokens.token_path(Path('x'), 'corpus', 300, 1000); tokens.token_path(Path('x'), 'a.txt', 300, 1000)\n"
        "names = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(names - sys.stdlib_module_names))"
    )
    # -S hides site-packages, so that nothing but the standard library could be imported by accident.
    command = [sys.executable, "-S", "-c", code]
    environment = {"PYTHONPATH": str(Path(stepbench.__file__).parents[1])}
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.strip() == "['stepbench']"


def test_tokens_decode_to_the_text_they_came_from(text_file: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    output = tmp_path / "made" / "text.npy"
    prepare(str(text_file), vocabulary=320, corpus_bytes=10**6, output=output)
    ids = open_tokens(output, vocabulary=320, context=128)
    tokenizer = Tokenizer.from_file(str(output.with_suffix(".tokenizer.json")))
    assert tokenizer.get_vocab_size() == 320
    assert ids.dtype == np.uint16
    assert int(ids.max()) > 255
    assert len(ids) < len(TEXT.encode())
    assert tokenizer.decode(ids.tolist()) == TEXT
    assert sorted(path.name for path in output.parent.iterdir()) == ["text.npy", "text.tokenizer.json"]


def test_the_same_text_gives_the_same_bytes_on_any_number_of_cores(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from stepbench.data.tokens import prepare\n"
        "prepare('corpus', vocabulary=400, corpus_bytes=200_000, output=Path(sys.argv[1]))"
    )
    made = []
    for threads in ("1", "4"):
        output = tmp_path / threads / "corpus.npy"
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        subprocess.run([sys.executable, "-c", code, str(output)], check=True, env=environment)
        made.append((output.read_bytes(), output.with_suffix(".tokenizer.json").read_bytes()))
    assert made[0] == made[1]


def test_the_corpus_is_the_standard_librarys_source_without_its_tests() -> None:
    library = Path(ast.__file__).parent
    found = corpus.read(3_000_000)
    assert len(found) == 3_000_000
    assert found.startswith((library / "__future__.py").read_bytes())
    assert Path(ast.__file__).read_bytes() in found
    # Python 3.11 keeps these tests inside the package, 3.12 in test/.
    assert not any(path.read_bytes() in found for path in library.glob("ctypes/test/test_b*.py"))
    assert found.decode().encode() == found


def test_a_corpus_longer_than_the_standard_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^`data.corpus_bytes` must be at most \d+, the length of .*, got 1000000000$"
    ):
        prepare("corpus", vocabulary=300, corpus_bytes=10**9, output=tmp_path / "x.npy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [*range(40, 60), 2000])
def test_text_is_cut_between_characters(text_file: Path, cut: int) -> None:
    text = module._decode(module._head(text_file, cut), str(text_file), cut=True)
    assert TEXT.startswith(text)
    assert cut - 3 <= len(text.encode()) <= cut


def test_a_large_vocabulary_takes_wider_ids(text_file: Path, tmp_path: Path) -> None:
    prepare(str(text_file), vocabulary=2**16 + 1, corpus_bytes=5000, output=tmp_path / "x.npy")
    assert open_tokens(tmp_path / "x.npy", vocabulary=2**16 + 1, context=8).dtype == np.uint32


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must hold text, got none"),
        (b"abc\xff" + b"d" * 100, "must be UTF-8 text, got byte 0xff at 3"),
        ("naïve 🙂".encode()[:-1], "must be UTF-8 text, got byte 0xf0 at 7"),
    ],
)
def test_what_is_no_text_is_refused_and_leaves_nothing(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        prepare(str(path), vocabulary=300, corpus_bytes=1000, output=tmp_path / "x.npy")
    for source in ("synthetic", "x.npy"):
        with pytest.raises(ValueError, match=r"must be corpus or a path that ends in \.txt to be tokenised, got"):
            prepare(source, vocabulary=300, corpus_bytes=1000, output=tmp_path / "y.npy")
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(b"old")

    def fail(file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        module.write_whole(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


ARRAY = "must hold a one-dimensional array of uint16 or uint32"


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(9), f"{ARRAY}, got float64 of shape [9]"),
        (np.ones((3, 9), "u2"), f"{ARRAY}, got uint16 of shape [3, 9]"),
        (np.uint16(3), f"{ARRAY}, got uint16 of shape []"),
        (np.ones(8, "u2"), "must hold at least context + 1 = 9 tokens, got 8"),
        (np.ones(0, "u2"), "must hold at least context + 1 = 9 tokens, got 0"),
        (
            np.array([1] * 9 + [100, 300], "u2"),
            "must hold ids from 0 and below the vocabulary (100), got 100 at token 9",
        ),
        (np.array([5, -1] + [1] * 9), "must hold ids from 0 and below the vocabulary (100), got -1 at token 1"),
        (
            np.array([2**32 - 1] + [1] * 9, "u4"),
            "must hold ids from 0 and below the vocabulary (100), got 4294967295 at token 0",
        ),
    ],
)
def test_a_file_that_cannot_feed_the_model_is_refused(array: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, array)
    for refuse in (
        lambda: open_tokens(path, vocabulary=100, context=8),
        lambda: check_source(str(path), vocabulary=100, contexts=[2, 8, 4]),
    ):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared below
            refuse()
        assert str(caught.value) == f"`{path}` {message}"


@pytest.mark.parametrize("dtype", module.DTYPES)
def test_ids_of_every_dtype_give_the_same_batches(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.arange(300).astype(dtype))
    check_source(str(path), vocabulary=300, contexts=[8])
    tokens = open_tokens(path, vocabulary=300, context=8)
    assert tokens.dtype == np.dtype(dtype)
    reference = open_tokens(saved(tmp_path / "y.npy", range(300)), vocabulary=300, context=8)
    drawn, expected = (next(batches(each, batch=4, context=8, seed=0)) for each in (tokens, reference))
    assert all(torch.equal(one, other) for one, other in zip(drawn, expected, strict=True))


@pytest.mark.parametrize("vocabulary", [300, 70_000])
@pytest.mark.parametrize("dtype", ["int64", "int32", "uint64", ">u2"])
def test_ids_of_another_integer_type_are_refused_with_the_line_that_converts_them(
    dtype: str, vocabulary: int, tmp_path: Path
) -> None:
    """int64 is NumPy's default. What does not fit is refused for that, as a conversion would wrap it around."""
    path = tmp_path / "it's mine.npy"
    np.save(path, np.arange(300).astype(dtype))
    with pytest.raises(ValueError, match=rf"{ARRAY}, got {dtype} of shape \[300\]; this converts it") as caught:
        open_tokens(path, vocabulary=vocabulary, context=8)
    interpreter, option, code = shlex.split(str(caught.value).partition("converts it: ")[2])
    assert (interpreter, option) == ("python", "-c")
    exec(code)  # noqa: S102
    tokens = open_tokens(path, vocabulary=vocabulary, context=8)
    assert tokens.tolist() == list(range(300))
    assert tokens.dtype == (np.uint16 if vocabulary == 300 else np.uint32)
    np.save(path, np.full(20, 65_536 + 7))
    with pytest.raises(ValueError, match=r"below the vocabulary \(300\), got 65543 at token 0$"):
        open_tokens(path, vocabulary=300, context=8)


def test_an_id_outside_the_vocabulary_is_found_in_any_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKED_AT_ONCE", 7)
    for position in range(30):
        path = saved(tmp_path / "x.npy", np.arange(30) == position)
        with pytest.raises(ValueError, match=rf"from 0 and below the vocabulary \(1\), got 1 at token {position}$"):
            open_tokens(path, vocabulary=1, context=8)
        assert len(open_tokens(path, vocabulary=2, context=8)) == 30


def foreign_files() -> dict[str, bytes]:
    whole, zipped, objects = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(whole, np.arange(100, dtype=np.uint16))
    np.savez(zipped, np.arange(100))
    np.save(objects, np.array([None, {}], dtype=object), allow_pickle=True)
    raw = whole.getvalue()
    return {
        "empty": b"",
        "pickle": pickle.dumps([1, 2, 3]),
        "npz": zipped.getvalue(),
        "objects": objects.getvalue(),
        "magic alone": raw[:6],
        "half a header": raw[:60],
        "half the data": raw[:-100],
        "broken header": raw.replace(b"(100,)", b"(100(("),
        "negative length": raw.replace(b"(100,)", b"(-10,)"),
        "huge length": raw.replace(b"(100,), }" + b" " * 19, b"(" + b"9" * 22 + b",), }"),
        "unknown version": raw[:6] + b"\x09" + raw[7:],
    }


@pytest.mark.parametrize("name", foreign_files())
def test_what_is_no_npy_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(foreign_files()[name])
    with pytest.raises(ValueError, match=r"^`[^\n]*` must be a whole \.npy file of token ids, got [^\n]+$") as caught:
        open_tokens(path, vocabulary=100, context=8)
    assert "pickle" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.npy", "missing.txt", "folder.npy"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.npy").mkdir()
    path = tmp_path / name
    with pytest.raises(
        FileNotFoundError, match=r"^`.*` must be a (text file|\.npy file of token ids), got no file at "
    ):
        check_source(str(path), vocabulary=300, contexts=[8])


def test_sources_that_can_feed_the_model_pass_the_check(text_file: Path, tmp_path: Path) -> None:
    for source in ("corpus", "synthetic", str(text_file), str(saved(tmp_path / "x.npy", range(300)))):
        check_source(source, vocabulary=300, contexts=(64, 299))


def test_text_that_is_too_short_or_too_wide_for_the_vocabulary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("abc")
    with pytest.raises(ValueError, match=r"must hold at least context \+ 1 = 5 bytes of text, got 3"):
        check_source(str(path), vocabulary=300, contexts=[4])
    for source in ("corpus", str(path)):
        with pytest.raises(ValueError, match="`vocabulary` must be at least 256 for text, one entry per byte, got 100"):
            check_source(source, vocabulary=100, contexts=[2])


def test_a_target_is_the_token_after_its_input(tmp_path: Path) -> None:
    tokens = open_tokens(saved(tmp_path / "x.npy", range(1000)), vocabulary=1000, context=16)
    assert isinstance(tokens, np.memmap)
    assert not tokens.flags.writeable
    random = synthetic(vocabulary=1000, batch=3, context=16, seed=0)
    for from_file in itertools.islice(batches(tokens, batch=3, context=16, seed=0), 5):
        from_nowhere = next(random)
        for part in (*from_file, *from_nowhere):
            assert (part.dtype, part.shape, part.is_contiguous()) == (torch.int64, (3, 16), True)
        for inputs, targets in (from_file, from_nowhere):
            assert torch.equal(inputs[:, 1:], targets[:, :-1])
        assert torch.equal(from_file[1], from_file[0] + 1)
        assert 0 <= from_nowhere[0].min() < 100 < 900 < from_nowhere[0].max() < 1000


@pytest.mark.parametrize("length", [8, 10])
def test_every_window_can_be_drawn_and_none_beyond_the_end(length: int, tmp_path: Path) -> None:
    tokens = open_tokens(saved(tmp_path / "x.npy", range(length)), vocabulary=10, context=7)
    drawn = [inputs[:, 0] for inputs, _ in itertools.islice(batches(tokens, batch=8, context=7, seed=0), 20)]
    assert set(torch.cat(drawn).tolist()) == set(range(length - 7))


def test_a_seed_fixes_the_batches_and_nothing_else_does(tmp_path: Path) -> None:
    tokens = open_tokens(saved(tmp_path / "x.npy", range(1000)), vocabulary=1000, context=16)
    for draw in (
        lambda seed: list(itertools.islice(batches(tokens, batch=2, context=16, seed=seed), 3)),
        lambda seed: list(itertools.islice(synthetic(vocabulary=50, batch=2, context=16, seed=seed), 3)),
    ):
        first = torch.stack([inputs for inputs, _ in draw(3)])
        torch.manual_seed(99)
        before = torch.get_rng_state()
        assert torch.equal(torch.stack([inputs for inputs, _ in draw(3)]), first)
        assert torch.equal(torch.get_rng_state(), before)
        assert not torch.equal(torch.stack([inputs for inputs, _ in draw(4)]), first)
        assert not torch.equal(first[0], first[1])
