"""`stepbench ab` for real: commits in work trees, processes in turn. A step sleeps, whatever else runs."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.workflow.bench_copy import CONFIG, Copy

from stepbench.comparison import ab
from stepbench.reporting.statistics import Verdict

pytestmark = pytest.mark.slow  # real runs, one after the other

KERNEL = "src/stepbench/models/toy_kernel.py"
SLEEPING = """    if behaviour == "steady":
        from stepbench.measure import timing
        from stepbench.measure.clock import HostClock

        clock = HostClock(lambda: None, "host clock")
        return Measurement(samples={"step_s": timing.time_whole(lambda: time.sleep(0.10), clock=clock, repeats=3)})
"""
LEAST = ("--minutes", "0.001")  # five processes a side, and no more


def git(copy: Copy, *words: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return subprocess.run(
        ["git", *who, "-C", str(copy.root), *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def commits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """A repository with three commits: `steady`, one in which a step takes a fifth longer, one with another seed."""
    copy = Copy.make(tmp_path_factory.mktemp("ab") / "bench")
    copy.edit(KERNEL, '    if behaviour == "raises":\n', f'{SLEEPING}    if behaviour == "raises":\n')
    copy.configure({**CONFIG, "experiments": {"toy": {"cpu": [{"behaviour": ["steady"]}]}}})
    (copy.root / ".gitignore").write_text("__pycache__/\n.stepbench/\n/results/\n")
    git(copy, "init", "-q", "-b", "main")
    git(copy, "add", "-A")
    git(copy, "commit", "-q", "-m", "steady")
    git(copy, "tag", "steady")
    copy.edit(KERNEL, "time.sleep(0.10)", "time.sleep(0.10 + 0.02)")
    git(copy, "commit", "-q", "-a", "-m", "slower")
    git(copy, "tag", "slower")
    copy.set("protocol.seed", 1)
    git(copy, "commit", "-q", "-a", "-m", "another seed")
    yield copy
    copy.close()


def left(copy: Copy) -> list[Path]:
    """Return what sides have left behind: their folders and git's notes of work trees."""
    return [*copy.scratch.glob("stepbench-*/"), *(copy.root / ".git").glob("worktrees/*")]


def test_a_commit_against_itself_is_no_difference(commits: Copy) -> None:
    file = commits.scratch / "same.json"
    done = commits.python(
        "-m", "stepbench", "ab", "--a", "steady", "--b", "steady", "toy", "behaviour=steady", *LEAST, "--out", str(file)
    )
    assert done.code == 0, done.err
    (found,) = ab.read(file)
    assert found.comparison.verdict in (Verdict.SAME, Verdict.UNCLEAR)
    assert found.comparison.processes == (5, 5)
    assert found.differences == ()
    starts = sorted((record.started, side) for side in ab.SIDES for record in found.records[side])
    assert "".join(side for _, side in starts) == "abbaabbaab"
    assert left(commits) == []
    assert not (commits.root / "results/here/toy").exists()  # nothing of it is among the user's records


def test_a_commit_whose_step_takes_a_fifth_longer_is_slower_and_the_file_says_why(commits: Copy) -> None:
    done = commits.python("-m", "stepbench", "ab", "--a", "steady", "--b", "slower", "toy", "behaviour=steady", *LEAST)
    assert done.code == 0, done.err
    (file,) = (commits.root / "results/here/ab").glob("*.json")
    (found,) = ab.read(file)
    assert found.comparison.verdict is Verdict.SLOWER
    assert found.comparison.ratio == pytest.approx(100 / 120, rel=0.05)
    assert found.differences == ("source: stepbench.models.toy_kernel changed",)
    assert "SLOWER" in done.out
    assert "a to b: source: stepbench.models.toy_kernel changed" in done.out
    content = json.loads(file.read_text())
    assert content["sides"]["b"]["commit"] == git(commits, "rev-parse", "slower")
    assert left(commits) == []


def test_sides_whose_definitions_differ_are_refused_until_the_difference_is_named(commits: Copy) -> None:
    words = ("-m", "stepbench", "ab", "--a", "slower", "toy", "behaviour=steady", *LEAST)
    done = commits.python(*words)
    assert done.code == 2
    assert done.said == [
        "the sides differ in more than was named (definition: protocol.seed was 0, is 1); "
        "`--allow KEY` names what is meant"
    ]
    assert left(commits) == []


def test_a_side_that_cannot_measure_says_why(commits: Copy) -> None:
    done = commits.python("-m", "stepbench", "ab", "--a", "steady", "toy", "behaviour=raises", *LEAST)
    assert done.code == 1
    assert done.said == ["side a: error: RuntimeError: this toy is broken"]
    done = commits.python("-m", "stepbench", "ab", "--a", "steady", "toy", "behavior=steady", *LEAST)
    assert done.code == 1
    assert "side a: exit status 2: stepbench: `behavior` is not an axis" in done.said[0]
    done = commits.python("-m", "stepbench", "ab", "--b", "nowhere", "toy", "behaviour=steady")
    assert (done.code, done.said[0].partition(" the")[0]) == (2, "a side must be a commit of")
    done = commits.python("-m", "stepbench", "ab", "--b-python", "/nowhere/python", "toy", "behaviour=steady")
    assert (done.code, done.said) == (
        2,
        ["`--b-python` must be an interpreter that can be executed, got '/nowhere/python'"],
    )
    assert left(commits) == []
