"""The Slurm job that this process is in: its other nodes, and a step on them."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence

# What a step inherits from the job, and not from the step that this process is in.
_KEPT = ("SLURM_CONF", "SLURM_JOB_ID", "SLURM_CLUSTER_NAME")


class SlurmError(RuntimeError):
    """This is no Slurm job, or none that can do what is asked for; the message says why."""


def other_nodes(count: int) -> list[str]:
    """Return the names of `count - 1` other nodes of this job.

    Raises:
        SlurmError: this process is in no job, in one with too few nodes, or on a machine that is no node of it.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or None in map(shutil.which, ("srun", "scontrol")):
        raise SlurmError(
            f"{count} nodes need a Slurm job of {count} nodes, or a command on each: "
            "`stepbench measure … --rendezvous HOST:PORT --node-rank RANK`"
        )
    # Not SLURM_JOB_NODELIST: in a step on one of the nodes it names that one alone.
    found = re.search(r"(?<!\w)NodeList=(\S+)", _asked(job, "--oneliner", "show", "job", job))
    if found is None:
        raise SlurmError(f"Slurm job {job} has no nodes (yet, or any more)")
    listed = found[1]
    names, me = _asked(job, "show", "hostnames", listed).split(), os.environ.get("SLURMD_NODENAME")
    if len(names) < count:
        raise SlurmError(f"{count} nodes need a Slurm job of {count} nodes, got {len(names)} ({listed})")
    if me not in names:  # such as a shell that `salloc` has started on a login node
        here = me or platform.node()
        raise SlurmError(f"this is {here}, which is no node of this Slurm job ({listed}); start it there with srun")
    return [name for name in names if name != me][: count - 1]


def _asked(job: str, *words: str) -> str:
    """Return what `scontrol` says.

    Raises:
        SlurmError: it refuses, such as for a job that is over.
    """
    done = subprocess.run(["scontrol", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SlurmError(f"scontrol cannot tell the nodes of Slurm job {job}: {done.stderr.strip()}")
    return done.stdout


def start(nodes: Sequence[str], command: Sequence[str], *, gpus: int) -> subprocess.Popen[bytes]:
    """Start a command once on each of these nodes.

    Args:
        nodes: of this job.
        command: its rank is that of its task, `SLURM_PROCID`.
        gpus: of each node that it may use; a step gets those that it asks for.
    """
    step = ["srun", f"--nodes={len(nodes)}", f"--ntasks={len(nodes)}", "--ntasks-per-node=1", "--overlap"]
    step += [f"--nodelist={','.join(nodes)}", "--cpu-bind=none", "--mem=0", "--kill-on-bad-exit=1"]
    step += [f"--gres=gpu:{gpus}"] if gpus else []
    environment = {
        name: value for name, value in os.environ.items() if name in _KEPT or not name.startswith(("SLURM_", "SRUN_"))
    }
    return subprocess.Popen([*step, *command], env=environment, stdin=subprocess.DEVNULL)
