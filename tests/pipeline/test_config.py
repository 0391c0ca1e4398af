"""Every mistake is one line with file, line and key; all mistakes are told at once, before any work."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from stepbench.pipeline import config
from stepbench.pipeline.config import ConfigError
from stepbench.pipeline.mistakes import KINDS

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / config.SCHEMA

TEXT = """\
machine: test-machine
device: cpu
scale: cpu
protocol:
  seed: 0
  threads: auto
  cpu: {warmup_steps: 3, measured_steps: 7}
  gpu: {warmup_steps: 5, measured_steps: 10}
limits:
  time_s: 900
  host_memory_gib: null
vocabulary: 10000
data:
  source: corpus
  corpus_bytes: 4000000
sizes:
  nano: {d_model: 128, d_ff: 512, layers: 4, heads: 4}
  2.7B: {d_model: 2560, d_ff: 10240, layers: 32, heads: 32}
experiments:
  warmup:
    cpu:
      - {size: [nano], warmup: [0, 1]}
      - {size: [2.7B], warmup: [5]}
  numerics:
    cpu:
      - case: [accumulation]
"""


MACHINE = (
    "`machine` must be auto or a name of at most 80 lower-case letters, digits, '.', '_' and '-' "
    "that begins with a letter or a digit"
)


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def mistakes(file: Path, text: str) -> list[str]:
    """Return what is said about a file, as `line: sentence`; the content goes in as Snakemake reads it."""
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        config.check(yaml.safe_load(text), schema=SCHEMA, files=[file])
    assert {mistake.kind for mistake in raised.value.mistakes} <= KINDS.keys()
    assert "\n".join(map(str, raised.value.mistakes)) == str(raised.value)
    return [line.removeprefix(f"{file}:") for line in str(raised.value).splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(TEXT)
    return path


def test_a_key_that_comes_from_elsewhere_and_stands_here_too_does_not_stand_twice(tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    path.write_text("first: &first\n  heads: 4\n  layers: 2\nsecond:\n  <<: *first\n  heads: 8\n")
    assert config.read(path)["second"] == {"heads": 8, "layers": 2}


def test_the_configuration_that_is_shipped_is_valid() -> None:
    file = ROOT / "config.yaml"
    config.check(config.read(file), schema=SCHEMA, files=[file])


def test_what_is_valid_is_returned_as_it_stands(file: Path) -> None:
    assert config.read(file) == yaml.safe_load(TEXT)
    config.check(config.read(file), schema=SCHEMA, files=[file])


# old text, new text, the sentence, and how many lines above the last one of the new text it is found if not there
MISTAKES: dict[str, tuple[str, str, str] | tuple[str, str, str, int]] = {
    "exponent without a point": (
        "time_s: 900",
        "time_s: 1e-3",
        "expected an exponent written like 1.0e-3, got `1e-3`, which YAML reads as a string",
    ),
    "no": (
        "device: cpu",
        "device: no",
        "expected `true` or `false`, got `no` (quote it to mean the string)",
    ),
    "octal": ("seed: 0", "seed: 010", "expected a whole number in plain decimal digits, got `010`"),
    "hexadecimal": ("seed: 0", "seed: 0x10", "expected a whole number in plain decimal digits, got `0x10`"),
    "underscore": ("seed: 0", "seed: 1_0", "expected a whole number in plain decimal digits, got `1_0`"),
    "sexagesimal": ("seed: 0", "seed: 1:30", "expected a whole number in plain decimal digits, got `1:30`"),
    "infinite": ("time_s: 900", "time_s: .inf", "expected a number in decimal digits such as 0.5, got `.inf`"),
    "not a number": (
        "host_memory_gib: null",
        "host_memory_gib: .nan",
        "expected a number in decimal digits such as 0.5, got `.nan`",
    ),
    "same key twice": (
        "vocabulary: 10000",
        "vocabulary: 10000\nvocabulary: 500",
        "duplicate key `vocabulary`",
    ),
    "same key twice, inside": (
        "layers: 4,",
        "layers: 4, layers: 4,",
        "duplicate key `layers`",
    ),
    "unknown key": (
        "vocabulary: 10000",
        "vocabulary: 10000\nvocabularly: 10000",
        "`vocabularly` is not a key of the configuration (did you mean vocabulary?); valid are machine, device, scale, "
        "protocol, limits, trust_prediction, vocabulary, data, network, prices, budget, cards, sizes, models, "
        "attention, presets, rungs, experiments",
    ),
    "unknown key, inside": (
        "cpu: {warmup_steps: 3,",
        "cpu: {warmup_stpes: 3, warmup_steps: 3,",
        "`protocol.cpu.warmup_stpes` is not a key of the configuration (did you mean warmup_steps?); "
        "valid are warmup_steps, measured_steps",
    ),
    "unknown scale of a grid": (
        "  numerics:\n    cpu:",
        "  numerics:\n    gpus:",
        "`experiments.numerics.gpus` is not a key of the configuration (did you mean gpu?); valid are cpu, gpu",
    ),
    "empty list": (
        "case: [accumulation]",
        "case: []",
        "`experiments.numerics.cpu[0].case` must be a list of at least one value, got []",
    ),
    "text for a list": (
        "case: [accumulation]",
        "case: accumulation",
        "`experiments.numerics.cpu[0].case` must be a list of at least one value, got 'accumulation'",
    ),
    "mapping for a list": (
        "      - case: [accumulation]",
        "      case: [accumulation]",
        "`experiments.numerics.cpu` must be a list of products of axis values, got {'case': ['accumulation']}",
        1,
    ),
    "text for a product": (
        "      - case: [accumulation]",
        "      - accumulation",
        "`experiments.numerics.cpu[0]` must be a mapping of axes to lists of values, got 'accumulation'",
    ),
    "null for a list": (
        "case: [accumulation]",
        "case: null",
        "`experiments.numerics.cpu[0].case` must be a list of at least one value, got None",
    ),
    "null": (
        "vocabulary: 10000",
        "vocabulary: null",
        "`vocabulary` must be a whole number from 2 to 4294967295, got None",
    ),
    "null for a section": (
        "limits:\n  time_s: 900\n  host_memory_gib: null",
        "limits:",
        "`limits` must be a mapping of time_s and host_memory_gib, got None",
    ),
    "zero": ("time_s: 900", "time_s: 0", "`limits.time_s` must be a number of seconds above 0, got 0"),
    "zero steps": (
        "measured_steps: 7",
        "measured_steps: 0",
        "`protocol.cpu.measured_steps` must be a whole number from 1, got 0",
    ),
    "negative": ("seed: 0", "seed: -1", "`protocol.seed` must be a whole number from 0, got -1"),
    "a point in a whole number": (
        "measured_steps: 7",
        "measured_steps: 7.0",
        "`protocol.cpu.measured_steps` must be a whole number from 1, got 7.0",
    ),
    "truth for a number": (
        "measured_steps: 7",
        "measured_steps: true",
        "`protocol.cpu.measured_steps` must be a whole number from 1, got True",
    ),
    "text for a number": (
        "vocabulary: 10000",
        "vocabulary: '10000'",
        "`vocabulary` must be a whole number from 2 to 4294967295, got '10000'",
    ),
    "threads": (
        "threads: auto",
        "threads: all",
        "`protocol.threads` must be auto or a whole number from 1 to 1024, got 'all'",
    ),
    "too little memory": (
        "host_memory_gib: null",
        "host_memory_gib: 0",
        "`limits.host_memory_gib` must be null (no limit) or a number above 0, got 0",
    ),
    "a device that does not exist": (
        "device: cpu",
        "device: tpu",
        "`device` must be one of auto, cuda, xpu, mps, cpu, got 'tpu'",
    ),
    "a machine in another folder": (
        "machine: test-machine",
        "machine: ../elsewhere",
        f"{MACHINE}, got '../elsewhere'",
    ),
    "a machine with a command": (
        "machine: test-machine",
        "machine: x; touch PWNED",
        f"{MACHINE}, got 'x; touch PWNED'",
    ),
    "a machine with a newline": (
        "machine: test-machine",
        'machine: "x\\n"',
        f"{MACHINE}, got 'x\\n'",
    ),
    "data that is neither": (
        "source: corpus",
        "source: corpus.csv",
        "`data.source` must be corpus, synthetic, or a path without {}<> that ends in .txt or .npy, got 'corpus.csv'",
    ),
    "data whose name Snakemake would take for a wildcard": (
        "source: corpus",
        "source: '{machine}.txt'",
        "`data.source` must be corpus, synthetic, or a path without {}<> that ends in .txt or .npy, "
        "got '{machine}.txt'",
    ),
    "data whose name Snakemake would take for a variable": (
        "source: corpus",
        "source: 'my<results>.txt'",
        "`data.source` must be corpus, synthetic, or a path without {}<> that ends in .txt or .npy, "
        "got 'my<results>.txt'",
    ),
    "heads that do not divide": (
        "nano: {d_model: 128, d_ff: 512, layers: 4, heads: 4}",
        "nano: {d_model: 128, d_ff: 512, layers: 4, heads: 5}",
        "`sizes.nano.heads` must divide d_model (128), got 5",
    ),
    "a size without layers": (
        "nano: {d_model: 128, d_ff: 512, layers: 4, heads: 4}",
        "nano: {d_model: 128, d_ff: 512, heads: 4}",
        "`sizes.nano.layers` must be given, got no layers",
    ),
    "a size that is not there": (
        "size: [nano]",
        "size: [nanno]",
        "`experiments.warmup.cpu` names the size 'nanno', which does not exist (did you mean nano?); "
        "valid are nano, 2.7B",
        1,
    ),
    "an experiment that is not there": (
        "  numerics:",
        "  numeric:",
        "`experiments.numeric` is not an experiment (did you mean numerics?); valid are ",
    ),
    "an axis that is not there": (
        "warmup: [0, 1]",
        "warmups: [0, 1], warmup: [0, 1]",
        "`experiments.warmup.cpu[0].warmups` is not an axis (did you mean warmup?); valid are size, warmup, replicate",
    ),
    "a value that is none": (
        "warmup: [5]",
        "warmup: ['5']",
        "`experiments.warmup.cpu[1].warmup` must hold values that are a whole number from 0 without leading "
        "zeros, got '5'",
    ),
    "a name with a command": (
        "case: [accumulation]",
        "case: [x; touch PWNED]",
        "`experiments.numerics.cpu[0].case` must hold values that are one of accumulation, autocast_fp16, "
        "autocast_bf16, got 'x; touch PWNED'",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_with_its_place(file: Path, name: str) -> None:
    old, new, sentence, above = (*MISTAKES[name], 0)[:4]
    assert TEXT.count(old) == 1
    text = TEXT.replace(old, new)
    found = mistakes(file, text)
    number = line_of(text, new.splitlines()[-1]) - above
    expected = [line for line in found if line.startswith(f"{number}: {sentence}")]
    assert len(expected) == 1, found
    # What YAML takes for something else may then be of the wrong type, too; that is said of the same key.
    assert len(found) == 1 or all(line.startswith(f"{number}: ") for line in found), found


@pytest.mark.parametrize("key", ["machine", "protocol", "limits", "sizes", "experiments"])
def test_a_missing_key_is_named(file: Path, key: str) -> None:
    content = yaml.safe_load(TEXT)
    del content[key]
    assert mistakes(file, yaml.safe_dump(content)) == [f"`{key}` must be given, and it is missing"]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"d_model": 0}, "`sizes.nano.d_model` must be a positive integer, got 0"),
        ({"heads": -4}, "`sizes.nano.heads` must be a positive integer, got -4"),
        ({"layers": 1.5}, "`sizes.nano.layers` must be a positive integer, got 1.5"),
        ({"width": 3}, "`sizes.nano` must hold only the fields d_model, d_ff, layers, heads, vocabulary, got 'width'"),
    ],
)
def test_a_size_that_cannot_be_built_is_named(file: Path, size: dict[str, Any], message: str) -> None:
    content = yaml.safe_load(TEXT)
    content["sizes"]["nano"].update(size)
    assert [line.partition(": ")[2] for line in mistakes(file, yaml.safe_dump(content))] == [message]


@pytest.mark.parametrize(
    "name",
    ["x; touch PWNED", "$(touch PWNED)", "../..", "a\nb", "nano\n", "{machine}", "x" * 300, "\u202eonan", 7, None],
)
def test_a_size_must_have_a_name_that_can_stand_in_a_path(file: Path, name: Any) -> None:
    content = yaml.safe_load(TEXT)
    content["sizes"][name] = content["sizes"]["nano"]
    (message,) = mistakes(file, yaml.safe_dump(content))
    assert "must be a name of at most 40 letters, digits, '.', '_' and '-', got " in message


def test_all_mistakes_are_told_at_once_with_their_places(file: Path) -> None:
    text = TEXT
    for name in ("octal", "no", "zero", "unknown key", "zero steps", "threads"):
        text = text.replace(*MISTAKES[name][:2])
    found = mistakes(file, text)
    # YAML's own first; of the word `no` both are said.
    parts = ["device: no", "seed: 010", "vocabularly", "device: no", "time_s: 0", "measured_steps: 0", "threads: all"]
    assert [line.partition(": ")[0] for line in found] == [str(line_of(text, part)) for part in parts]


def test_mistakes_that_the_schema_cannot_see_are_told_at_once(file: Path) -> None:
    text = TEXT
    names = ("heads that do not divide", "a size that is not there", "empty list", "a value that is none")
    for old, new, *_ in (MISTAKES[name] for name in names):
        text = text.replace(old, new)
    text = text.replace("d_ff: 10240, layers: 32", "d_ff: 0, layers: -1")
    found = mistakes(file, text)
    assert [line.partition("`")[2].partition("`")[0] for line in found] == [
        "sizes.nano.heads",
        "sizes.2.7B.d_ff",
        "sizes.2.7B.layers",
        "experiments.warmup.cpu[1].warmup",
        "experiments.numerics.cpu[0].case",
    ]
    assert all(line.partition(": ")[0].isdigit() for line in found), found


def test_what_the_schema_sees_and_what_it_cannot_are_told_at_once(file: Path) -> None:
    """Every kind of mistake in one file; each is told with its line, and none hides another."""
    text = TEXT
    names = (
        "octal",
        "no",
        "exponent without a point",
        "null",
        "zero steps",
        "threads",
        "same key twice, inside",
        "unknown key, inside",
        "heads that do not divide",
        "a size that is not there",
        "empty list",
        "an axis that is not there",
    )
    for old, new, *_ in (MISTAKES[name] for name in names if not name.startswith(("same", "heads", "unknown"))):
        text = text.replace(old, new)
    text = text.replace("cpu: {warmup_steps: 3,", "cpu: {warmup_stpes: 3, warmup_steps: 3,")
    text = text.replace("2.7B: {d_model: 2560,", "2.7B: {d_model: 2560, d_model: 2561,")
    text += "  collectives:\n    cpu:\n      - {operation: [copy], ranks: [0]}\n"
    found = mistakes(file, text)
    assert all(line.partition(": ")[0].isdigit() for line in found), found
    for sentence in (
        "expected a whole number in plain decimal digits, got `010`",
        "expected `true` or `false`, got `no`",
        "expected an exponent written like 1.0e-3, got `1e-3`",
        "duplicate key `d_model`",
        "`protocol.cpu.warmup_stpes` is not a key of the configuration (did you mean warmup_steps?)",
        "`protocol.cpu.measured_steps` must be a whole number from 1, got 0",
        "`protocol.threads` must be auto or a whole number",
        "`vocabulary` must be a whole number from 2 to 4294967295, got None",
        "`sizes.2.7B.heads` must divide d_model (2561), got 32",
        "`experiments.warmup.cpu[0].warmups` is not an axis (did you mean warmup?)",
        "`experiments.numerics.cpu[0].case` must be a list of at least one value, got []",
        "`experiments.collectives.cpu[0].operation` must hold values that are one of",
    ):
        assert sum(sentence in line for line in found) == 1, (sentence, found)


@pytest.mark.parametrize(
    ("threads", "ranks", "valid"),
    [
        ("2", "[2, 64]", "must be from 1 to `protocol.threads` (2), one thread for each rank, got 64"),
        ("auto", "[0, 2]", "must hold values that are a whole number from 1 without leading zeros, got 0"),
    ],
)
def test_more_ranks_than_threads_are_named(file: Path, threads: str, ranks: str, valid: str) -> None:
    text = TEXT.replace("threads: auto", f"threads: {threads}")
    text += f"  data_parallel:\n    cpu:\n      - {{size: [nano], strategy: [naive], context: [16], ranks: {ranks}}}\n"
    (found,) = mistakes(file, text)
    assert found == f"{len(text.splitlines())}: `experiments.data_parallel.cpu[0].ranks` {valid}"


GPT = TEXT.replace("heads: 4}", "heads: 4, vocabulary: 9999}")


def test_a_size_with_too_small_a_vocabulary_for_the_tokens_is_named(file: Path) -> None:
    assert mistakes(file, GPT) == [
        f"{line_of(GPT, 'nano:')}: `sizes.nano.vocabulary` must be at least `vocabulary` (10000), got 9999"
    ]


@pytest.mark.parametrize(
    "text", [GPT.replace("9999", "10000"), GPT.replace("9999", "50304"), GPT.replace("corpus\n", "synthetic\n")]
)
def test_a_size_may_have_any_vocabulary_that_holds_its_tokens(file: Path, text: str) -> None:
    file.write_text(text)
    config.check(yaml.safe_load(text), schema=SCHEMA, files=[file])


@pytest.mark.parametrize("value", ["1", "-3", "no_number", "50304.0", "true", "4294967296", "null"])
def test_a_sizes_vocabulary_has_the_range_of_every_vocabulary(file: Path, value: str) -> None:
    (found,) = mistakes(file, GPT.replace("9999", value))
    assert "`sizes.nano.vocabulary` must be a whole number from 2 to 4294967295, got " in found


def test_ranks_that_are_only_predicted_need_no_threads(file: Path) -> None:
    text = TEXT.replace("threads: auto", "threads: 2")
    text += (
        "  fsdp:\n    cpu:\n      - {source: [predicted], size: [nano], variant: [fsdp], context: [16], ranks: [64]}\n"
    )
    file.write_text(text)
    config.check(yaml.safe_load(text), schema=SCHEMA, files=[file])


def test_a_setting_from_the_command_line_has_no_line(file: Path) -> None:
    content = yaml.safe_load(TEXT)
    content["surprise"] = 1
    with pytest.raises(ConfigError, match=r"^`surprise` is not a key of the configuration; valid are machine"):
        config.check(content, schema=SCHEMA, files=[file])
    content.pop("surprise")
    content["limits"]["time_s"] = "fast"
    with pytest.raises(ConfigError, match=r"`limits.time_s` must be a number of seconds above 0, got 'fast'$"):
        config.check(content, schema=SCHEMA)


def test_each_of_several_files_is_read_strictly(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("limits: {time_s: no}\n")
    with pytest.raises(ConfigError, match=rf"^{other}:1: expected `true` or `false`, got `no`"):
        config.check(yaml.safe_load(TEXT), schema=SCHEMA, files=[file, other])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a mapping, got NoneType"),
        (b"- 1\n", "must be a mapping, got list"),
        (b"text\n", "must be a mapping, got str"),
        (b"a: [1\n", "must be YAML, got "),
        (b"a: {b: 1\nc: 2\n", "must be YAML, got "),
        (b"\tmachine: x\n", "must be YAML, got "),
        (b"machine: \xff\xfe\n", "must be YAML, got "),
        (b"machine: \x00\n", "must be YAML, got "),
        (b"machine: 2026-13-45\n", "must be YAML, got "),
        (b"machine: !!python/object/apply:os.system [touch PWNED]\n", "must be YAML, got "),
        (b"machine: &a [*a]\n", "must be YAML, got "),
        (b"machine: " + b"[" * 100_000, "must be YAML, got "),
        (b"? [1, 2]\n: 3\n", "must be YAML, got "),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        config.read(file)
    assert str(raised.value).startswith(f"{file}: {message}")
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be readable, got No such file or directory"):
        config.read(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "text", ["seed: '010'", "size: ['1e-3', \"no\"]", "size: [no-op, one.e3, 2e]", "x: -5", "y: 1.0e-3"]
)
def test_what_is_quoted_or_plain_is_taken_as_it_stands(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert config.read(file) == yaml.safe_load(text)
