"""Where people run this: odd folder names, other disks, hosts without names, and what Snakemake offers around a run.

Each situation is from somebody's report about another tool of this kind.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.workflow.bench_copy import Copy

pytestmark = pytest.mark.slow  # real runs, one after the other

ODD = "a b'ö,x=1 {y} %s #z"
MOST_ARCHIVED_BYTES = 20 * 2**20
MEASURE = ("-m", "stepbench", "measure")
COLLECTIVE = (*MEASURE, "collectives", "operation=all_reduce,backend=gloo,ranks=2,payload_bytes=4096")
COMPILED = (*MEASURE, "end_to_end", "size=nano,context=16,batch=1,passes=forward,implementation=compiled")
ISOLATES = os.name == "posix" and os.geteuid() == 0 and shutil.which("unshare") is not None
OPTIONS = """
--summary
-D
--list-changes code
--list-input-changes
--list-untracked
--dag dot toy
--rulegraph dot toy
--list-rules
--unlock
--rerun-incomplete toy
--cores all -n toy
-j 2 -n toy
--until render_toy toy
-n --omit-from measure_toy toy
--delete-all-output -n toy
-R render_toy -- toy
-F toy
--report {scratch}/report.html toy
"""


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """A measured copy whose path has spaces, quotes, braces and more; its results are a link to another folder."""
    folder = tmp_path_factory.mktemp("odd")
    copy = Copy.make(folder / ODD)
    (folder / "disk").mkdir()
    (copy.root / "results").symlink_to(folder / "disk")
    done = copy.snakemake("toy")
    assert done.code == 0, done.err
    assert list((folder / "disk").glob("here/toy/*.json"))
    yield copy
    copy.close()


def assert_is_quiet(copy: Copy, *words: str) -> None:
    done = copy.snakemake("-n", *words)
    assert done.code == 0, done.err
    assert "Nothing to be done" in done.out + done.err


def test_a_folder_of_any_name_and_a_link_to_it_hold_the_same_results(odd: Copy) -> None:
    assert_is_quiet(odd, "toy")
    link = odd.root.parent / "link"
    link.symlink_to(odd.root)
    done = subprocess.run(
        [odd.python_path, "-m", "snakemake", "-n", "toy"],
        cwd=link, env={**odd.environment, "PWD": str(link)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Nothing to be done" in done.stdout + done.stderr


def test_what_snakemake_offers_around_a_run_works(odd: Copy) -> None:
    odd.scratch.mkdir(exist_ok=True)
    failed = {}
    for line in OPTIONS.strip().splitlines():
        words = [word.format(scratch=odd.scratch) for word in line.split()]
        done = odd.snakemake(*words)
        if done.code != 0:
            failed[line] = done.err[-500:]
    assert failed == {}
    assert_is_quiet(odd, "toy")


def test_an_archive_holds_the_sources_and_no_results(odd: Copy) -> None:
    """Snakemake packs what git tracks and what no rule makes; environments, results and caches stay out of it."""
    (odd.root / ".gitignore").write_text("/results\n.snakemake/\n.stepbench/\n__pycache__/\n.venv\n")
    (odd.root / ".venv").mkdir()
    (odd.root / ".venv/large").write_bytes(bytes(2 * MOST_ARCHIVED_BYTES))
    subprocess.run(["git", "init", "-q"], cwd=odd.root, check=True)
    subprocess.run(["git", "add", "-A"], cwd=odd.root, check=True)
    file = odd.scratch / "archive.tar"
    done = odd.snakemake("--archive", str(file))
    assert done.code == 0, done.err
    assert file.stat().st_size < MOST_ARCHIVED_BYTES
    with tarfile.open(file) as archive:
        names = archive.getnames()
    assert {"Snakefile", "config.yaml", "rules/toy.smk", "src/stepbench/pipeline/bench.py"} <= set(names)
    assert [name for name in names if name.startswith(("results", ".venv", ".git/"))] == []


def test_a_profile_with_every_trigger_measures_nothing_again(odd: Copy) -> None:
    profile = odd.scratch / "profile"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "config.yaml").write_text("rerun-triggers: [mtime, params, input, software-env, code]\n")
    assert_is_quiet(odd, "--profile", str(profile), "toy")


# -- hosts -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    copy = Copy.make(tmp_path_factory.mktemp("hosts") / "bench", toys=False)
    copy.set("data.source", "synthetic")
    yield copy
    copy.close()


def isolated(flags: Sequence[str], before: str, words: Sequence[str]) -> list[str]:
    """Return a command line in namespaces of its own, after a shell command in them."""
    return ["unshare", *flags, "sh", "-c", f"{before}; exec {shlex.join(words)}"]


@pytest.mark.skipif(not ISOLATES, reason="namespaces of its own need root and unshare")
@pytest.mark.parametrize(
    ("flags", "before", "words"),
    [
        (["-m"], "mount --bind /dev/null /etc/passwd; export HOME=/nonexistent", COMPILED),
        (["-u"], "hostname no-such-host.example", COLLECTIVE),
        (["-n"], "ip link set lo up || ifconfig lo up", COLLECTIVE),
        (["-p", "-f", "--mount-proc"], ":", COLLECTIVE),
    ],
    ids=["a user without an entry, compiled", "a host whose name nobody knows", "loopback alone", "a PID namespace"],
)
def test_a_cell_is_measured_in_a_container_of_this_kind(
    plain: Copy, flags: list[str], before: str, words: tuple[str, ...]
) -> None:
    done = plain.run(*isolated(flags, before, [plain.python_path, *words]))
    assert done.code == 0, done.out + done.err
    assert "quality" in done.out


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3", "MASTER_ADDR": "10.255.255.1", "MASTER_PORT": "29500"}
        | {"TORCHELASTIC_RUN_ID": "x", "SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"},
        {"http_proxy": "http://10.255.255.1:3128", "https_proxy": "http://10.255.255.1:3128"},
        {"OMP_PROC_BIND": "true", "OMP_PLACES": "cores"},
        {"LC_ALL": "C", "LANG": "C", "TERM": "dumb"},
    ],
    ids=["a launcher's variables", "proxies", "bound threads", "no locale and no terminal"],
)
def test_a_collective_is_measured_whatever_a_shell_has_set(plain: Copy, variables: dict[str, str]) -> None:
    done = plain.python(*COLLECTIVE, **variables)
    assert done.code == 0, done.out + done.err
    assert "quality" in done.out


def test_another_machines_record_is_refused_by_name(odd: Copy) -> None:
    done = odd.snakemake("-n", "results/elsewhere/toy/behaviour~fine,size~nano,replicate~0.json")
    assert done.code == 2
    assert any("must be this machine, here, got 'elsewhere'" in each for each in done.said)
    assert not Path(odd.root / "results/elsewhere").exists()
