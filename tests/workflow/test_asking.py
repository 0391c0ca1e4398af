"""How cells are asked for: by path, through the grid, through the second door; and what is said when that cannot be."""

import datetime
import json
import re
from pathlib import Path

import pytest
from tests.workflow.bench_copy import CONFIG, Copy

# Names that would do harm in a shell, a path, a format string or a terminal.
NAUGHTY = (
    "x; touch PWNED",
    "$(touch PWNED)",
    "`touch PWNED`",
    "../../PWNED",
    "x\ntouch PWNED",
    "<results>{size}",
    "{PWNED",
    "x" * 300,
    "\N{RIGHT-TO-LEFT OVERRIDE}onan",
    "nano ",
    "'; touch PWNED #",
    "",
)


def assert_harmless(copy: Copy) -> None:
    assert list(copy.root.parent.rglob("PWNED*")) == []


# -- cells -------------------------------------------------------------------------------------------------------------


def test_a_single_cell_outside_of_the_grid_is_measured_by_its_path(measured: Copy) -> None:
    with measured.measuring("toy/other,micro,7"):
        done = measured.snakemake("results/here/toy/behaviour~other,size~micro,replicate~7.json")
    assert done.code == 0
    assert "wildcards: behaviour=other, size=micro, replicate=7" in done.err


def test_a_dry_run_ends_with_the_reasons_each_once(measured: Copy) -> None:
    measured.set("protocol.seed", 7)
    measured.edit("src/stepbench/models/toy_kernel.py", "FACTOR = 1", "FACTOR = 2")
    done = measured.snakemake("-n", *measured.targets(), "results/here/toy/behaviour~new,size~nano,replicate~0.json")
    assert done.code == 0, done.err
    assert done.said == [
        "3 cells to measure: 1 missing, 2 stale",
        "2 (toy): definition: protocol.seed was 0, is 7; source: stepbench.models.toy_kernel changed",
    ]
    assert measured.snakemake("-n", "results/here/plain/label~a.json").said == []


def test_snakemake_needs_neither_a_number_of_cores_nor_a_home(fresh: Copy) -> None:
    """A container's user may have none (HOME=/); `/dev/null` cannot be written into by root either."""
    nowhere = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/cache"}
    done = fresh.python("-m", "snakemake", "results/here/plain/label~a.json", **nowhere)
    assert done.code == 0, done.err
    assert re.search(r"^\[1/1\] measuring plain label~a \(the last one\)$", done.err, re.MULTILINE)
    assert fresh.record("plain/a")["status"] == "ok"


def test_replicates_are_measured_in_rounds(fresh: Copy) -> None:
    """However the grid lists them, replicate 0 of all cells comes before replicate 1 of any."""
    behaviours = {"behaviour": ["b", "a"], "size": ["nano"], "replicate": [2, 0, 1]}
    fresh.set("experiments", {"toy": {"cpu": [behaviours, {"behaviour": ["c"], "replicate": [0, 1]}]}})
    paths = list(reversed(fresh.targets()))
    assert len(paths) == 8
    assert fresh.snakemake(*paths).code == 0
    started = sorted((json.loads((fresh.root / path).read_text()) for path in paths), key=lambda r: r["started"])
    assert [record["cell"]["replicate"] for record in started] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert len({record["scalars"]["pid"] for record in started}) == 8  # a fresh process each


@pytest.mark.slow
def test_five_thousand_cells_are_looked_through_in_seconds(fresh: Copy) -> None:
    cells = {
        "behaviour": [f"b{number}" for number in range(50)],
        "size": ["nano", "micro"],
        "replicate": list(range(50)),
    }
    fresh.set("experiments", {"toy": {"cpu": [cells]}})
    done = fresh.snakemake("-n")
    assert done.code == 0, done.err
    assert re.search(r"measure_toy\s+5000\b", done.out)
    # The promise is 15 s on an idle machine (docs/log.md); two workers share this one, and its time grows with that.
    assert done.processor_s < 40


def test_progress_tells_which_cell_and_what_is_left(fresh: Copy) -> None:
    done = fresh.measure()
    lines = [line.strip() for line in done.err.splitlines() if re.match(r"\[\d/\d\]|\s+measured ", line)]
    told = [re.sub(r"\d+\.\d+ s", "… s", line) for line in lines]
    # Which cell of a round comes first is Snakemake's choice.
    names = {"toy behaviour~fine,size~nano,replicate~0", "toy behaviour~fine,size~micro,replicate~0", "plain label~a"}
    assert [line.split()[0] for line in told[::2]] == ["[1/3]", "[2/3]", "[3/3]"]
    assert [re.search(r"\(.*\)", line)[0] for line in told[::2]] == ["(2 left)", "(1 left)", "(the last one)"]
    assert {re.sub(r".* measuring | \(.*", "", line) for line in told[::2]} == names
    assert set(told[1::2]) == {f"measured {name}: … s" for name in names}


def test_a_record_says_when_where_and_how(template: Copy) -> None:
    record = template.record("toy/fine,nano,0")
    assert (record["experiment"], record["cell"]) == ("toy", {"behaviour": "fine", "size": "nano", "replicate": 0})
    assert record["status"] == "ok"
    assert record["samples"] == {"step_s": [0.25, 0.5]}
    assert datetime.datetime.fromisoformat(record["started"]).utcoffset() == datetime.timedelta()
    assert record["fingerprint"].keys() == {"source", "definition", "software", "machine"}
    assert {"before", "after", "cpu", "os", "python", "git_commit", "driver"} <= record["environment"].keys()
    assert record["environment"]["driver"] == "570.1"
    assert record["protocol"]["threads"] == 1
    assert record["protocol"]["protocol"]["seed"] == 0


# -- the second door ---------------------------------------------------------------------------------------------------


def test_cells_are_listed_by_axis_experiment_and_state(measured: Copy) -> None:
    micro = "results/here/toy/behaviour~fine,size~micro,replicate~0.json"
    assert {path: state.split("  ")[0] for path, state in measured.states("--where", "size=micro").items()} == {
        micro: "fresh"
    }
    assert measured.kinds("plain") == {"plain/a": "fresh"}
    measured.set("protocol.seed", 3)
    assert measured.states("--state", "stale", "--where", "size=micro", "--where", "behaviour=fine") == {
        micro: "stale  definition: protocol.seed was 0, is 3"
    }
    assert measured.states("--where", "size=giant") == {}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("cells", "--where", "sise=nano"),
            "`--where` must name an axis, got 'sise'; valid are behaviour, label, replicate, size",
        ),
        (("cells", "--where", "size"), "`--where` must be AXIS=VALUE, got 'size'"),
        (
            ("cells", "--where", "replicate=x"),
            "`replicate` must be a whole number from 0 without leading zeros, got 'x'",
        ),
        (("cells", "toys"), "an experiment must be one of attention, ceilings, "),
        (("measure", "toys", "behaviour~fine"), "an experiment must be one of attention, ceilings, "),
        (
            ("measure", "toy", "size~nano"),
            "`behaviour` must be given (a word of letters, digits, '.', '_' and '-'), got ",
        ),
        (("measure", "toy", "behaviour~fine,size~giant"), "`size` must be one of nano, micro, got 'giant'"),
        (
            ("measure", "toy", "behaviour~fine,behaviour~fine"),
            "`behaviour` must be given once, got it twice in ",
        ),
        (
            ("measure", "toy", "behaviour~fine,replicate~01"),
            "`replicate` must be a whole number from 0 without leading zeros",
        ),
        (
            ("measure", "toy", "behaviour~x; touch PWNED"),
            "`behaviour` must be a word of letters, digits, '.', '_' and '-'",
        ),
        (
            ("--root", "nowhere", "cells"),
            "nowhere/config.yaml: a configuration file must be readable, got No such file or directory; run this in a "
            "clone of stepbench, or name its folder with --root",
        ),
    ],
)
def test_what_the_command_line_cannot_understand_is_one_sentence(
    measured: Copy, words: tuple[str, ...], sentence: str
) -> None:
    done = measured.python("-m", "stepbench", *words)
    assert done.code == 2
    assert len(done.said) == 1, done.err
    assert done.said[0].startswith(sentence)
    assert "Traceback" not in done.err
    assert_harmless(measured)


def test_a_cell_is_measured_without_snakemake(measured: Copy) -> None:
    with measured.measuring("toy/fine,micro,3"):
        done = measured.python("-m", "stepbench", "measure", "toy", "size~micro,replicate~3,behaviour~fine")
    assert done.code == 0, done.err
    assert "results/here/toy/behaviour~fine,size~micro,replicate~3.json" in done.out
    assert re.search(r"step\s.*\b2\b.*375", done.out)
    with measured.measuring("toy/raises,nano,0"):
        done = measured.python("-m", "stepbench", "measure", "toy", "behaviour~raises")
    assert done.code == 1
    assert "error: RuntimeError: this toy is broken" in done.out
    with measured.measuring():
        assert "Nothing to be done" in measured.measure().err  # both doors write the same records


# -- targets that cannot be --------------------------------------------------------------------------------------------


def test_targets_that_are_no_cells_are_one_sentence_each(measured: Copy) -> None:
    targets = {
        "results/here/toy/behaviour~fine,size~giant,replicate~0.json": "`size` must be one of nano, micro, got 'giant'",
        "results/here/toy/behaviour~fine,size~nano,replicate~00.json": "`replicate` must be a whole number from 0",
        "results/here/toy/behaviour~fine,size~nano.json": "a cell must name the axes behaviour, size, replicate",
        "results/here/toy/size~nano,behaviour~fine,replicate~0.json": "a cell must name the axes behaviour, size, repl",
        "results/there/plain/label~a.json": "the machine of a cell's path must be this machine, here, got 'there'",
        "results/here/toys/label~a.json": "an experiment must be one of attention, ceilings, ",
        "results/here/plain/deep/label~a.json": "a cell's path must be results/here/<experiment>/<cell>.json, got ",
    }
    with measured.measuring():
        done = measured.snakemake(*targets)
    assert done.code == 2
    assert len(done.said) == len(targets), done.err
    for said, sentence in zip(done.said, targets.values(), strict=True):
        assert said.startswith(sentence)
    assert "Traceback" not in done.err


def test_names_are_refused_and_do_nothing(measured: Copy) -> None:
    with measured.measuring():
        done = measured.snakemake(*(f"results/here/plain/label~{name}.json" for name in NAUGHTY))
    assert done.code == 2
    # A path is cut at its slashes before it is looked at; every other name is refused as a value.
    assert len(done.said) == len(NAUGHTY), done.err
    assert all(
        re.match(r"`label` must be a word of|a cell's name must have at most 240|a cell's path must be", said)
        for said in done.said
    )
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in done.err
    assert_harmless(measured)


def test_a_text_with_an_odd_name_is_data_all_the_same(fresh: Copy) -> None:
    name = "a'; touch PWNED #$(touch PWNED)é 数\u202e.txt"  # of one that is not quoted nothing could be made
    (fresh.root / name).write_text("one two three " * 3000)
    fresh.set("data", {"source": name, "corpus_bytes": 20000})
    fresh.set("experiments", {"plain": {"cpu": [{"label": ["a"]}]}})
    done = fresh.measure()
    assert done.code == 0, done.err
    assert fresh.record("plain/a")["status"] == "ok"
    assert_harmless(fresh)


def test_a_forced_cell_makes_the_tokens_that_were_deleted(fresh: Copy) -> None:
    fresh.set("experiments", {"plain": {"cpu": [{"label": ["a"]}]}})
    (fresh.root / "text.txt").write_text("one two three " * 3000)
    fresh.set("data", {"source": "text.txt", "corpus_bytes": 20000})
    target = "results/here/plain/label~a.json"
    assert fresh.snakemake(target).code == 0
    (tokens,) = (fresh.root / "results" / "data").glob("*.npy")
    tokens.unlink()
    done = fresh.snakemake("-f", target)
    assert done.code == 0, done.err
    assert fresh.record("plain/a")["status"] == "ok"
    assert tokens.exists()


# -- configurations that cannot be -------------------------------------------------------------------------------------


def test_a_number_inside_of_braces_on_the_command_line_names_the_way_that_works(fresh: Copy) -> None:
    done = fresh.snakemake("-n", "--config", "limits={time_s: 5}")
    assert done.code == 2
    assert "got '5'" in done.said[0]
    assert done.said[1].endswith("write it to a file and use `--configfile`")
    assert fresh.python("-m", "stepbench", "plan", "--config", "limits={time_s: 5}").code == 0


def test_all_mistakes_of_a_configuration_are_told_before_any_work(fresh: Copy) -> None:
    fresh.edit("config.yaml", "vocabulary: 300", "vocabulary: 1e3\nvocabularly: 3")
    fresh.edit("config.yaml", "time_s: 120", "time_s: -1")
    expected = [
        "expected an exponent written like 1.0e-3, got `1e3`, which YAML reads as a string",
        "`vocabularly` is not a key of the configuration (did you mean vocabulary?)",
        "`limits.time_s` must be a number of seconds above 0, got -1",
        "`vocabulary` must be a whole number from 2 to 4294967295, got '1e3'",
    ]
    for done in (fresh.snakemake("results/here/plain/label~a.json"), fresh.python("-m", "stepbench", "cells")):
        assert done.code == 2
        assert "Traceback" not in done.err
        said = [re.fullmatch(r".*config\.yaml:\d+: (.*)", line) for line in done.said]
        assert all(said), done.said
        assert [match[1][: len(sentence)] for match, sentence in zip(said, expected, strict=True) if match] == expected
    assert fresh.files() == {}


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("scale", "gpu", "`scale` must be auto or cpu on a machine without a GPU, got gpu (cpu)"),
        ("device", "cuda", "`device` must be one that this machine has (cpu), got cuda"),
        ("machine", "x; touch PWNED", "`machine` must be auto or a name of at most 80 lower-case letters"),
        ("sizes", {"../../PWNED": CONFIG["sizes"]["nano"]}, "`sizes` must be a name of at most 40 letters, digits"),
    ],
)
def test_settings_that_this_machine_cannot_have_are_one_sentence(
    fresh: Copy, path: str, value: object, sentence: str
) -> None:
    fresh.set("experiments", {"plain": {"cpu": [{"label": ["a"]}]}})
    fresh.set(path, value)
    for done in (fresh.snakemake("results/here/plain/label~a.json"), fresh.python("-m", "stepbench", "cells")):
        assert done.code == 2
        assert len(done.said) == 1, done.err
        assert sentence in done.said[0]
        assert "Traceback" not in done.err
    assert_harmless(fresh)


@pytest.mark.parametrize(
    ("source", "content", "sentence"),
    [
        ("absent.npy", None, "`data.source` must be a file that exists, got 'absent.npy'"),
        ("absent.txt", None, "`data.source` must be a file that exists, got 'absent.txt'"),
        ("empty.txt", "", "`empty.txt` must hold at least context + 1 = 2 bytes of text, got 0"),
        ("text.npy", "this is no array", "text.npy"),
    ],
)
def test_data_that_cannot_be_read_is_one_sentence_before_any_measurement(
    fresh: Copy, source: str, content: str | None, sentence: str
) -> None:
    if content is not None:
        (fresh.root / source).write_text(content)
    fresh.set("data", {"source": source, "corpus_bytes": 20000})
    done = fresh.measure()
    assert done.code not in (0, None)
    assert len(done.said) == 1, done.err
    assert sentence in done.said[0]
    assert "Traceback" not in done.err
    assert fresh.files() == {}
    if content is not None:
        assert (fresh.root / source).read_text() == content


def test_an_experiment_is_one_folder_one_rules_file_an_include_a_caption_and_its_grid(fresh: Copy) -> None:
    """What `Copy.add_experiment` has touched is all that the toys need, next to what the repository holds."""
    repository = Path(__file__).parents[2]
    theirs = {
        str(path.relative_to(fresh.root))
        for folder in ("rules", "workflow_scripts", "report", "profiles", "src", "Snakefile", "config.yaml")
        for path in ([fresh.root / folder] if (fresh.root / folder).is_file() else (fresh.root / folder).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
        if not (repository / path.relative_to(fresh.root)).exists()
        or (repository / path.relative_to(fresh.root)).read_bytes() != path.read_bytes()
    }
    assert theirs == {
        "Snakefile",
        "config.yaml",
        "rules/toy.smk",
        "rules/plain.smk",
        "report/captions/toy.rst",
        "report/captions/plain.rst",
        *(
            f"src/stepbench/experiments/{name}/{part}.py"
            for name in ("toy", "plain")
            for part in ("__init__", "cell", "measure", "tables", "figures", "findings")
        ),
        "src/stepbench/models/toy_kernel.py",
    }
    added = set((fresh.root / "Snakefile").read_text().splitlines()) - set(
        (repository / "Snakefile").read_text().splitlines()
    )
    assert added == {'include: "rules/toy.smk"', 'include: "rules/plain.smk"'}
