"""The Slurm job that this process is in: its other nodes, and a step on them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence

# What a step inherits from the job, and not from the step that this process is in.
_KEPT = ("SLURM_CONF", "SLURM_JOB_ID", "SLURM_CLUSTER_NAME")


class SlurmError(RuntimeError):
    """This is no Slurm job, or none that can do what is asked for; the message says why."""


def other_nodes(count: int) -> list[str]:
    """Return the names of the other nodes of this job, so many that with this one there are `count`.

    Raises:
        SlurmError: this process is in no job, in one with too few nodes, or on a machine that is no node of it.
    """
    listed = os.environ.get("SLURM_JOB_NODELIST")
    if listed is None or "SLURM_JOB_ID" not in os.environ or None in map(shutil.which, ("srun", "scontrol")):
        raise SlurmError(
            f"{count} nodes need a Slurm job of {count} nodes, or a command on each: "
            "`stepbench measure … --rendezvous HOST:PORT --node-rank RANK`"
        )
    done = subprocess.run(["scontrol", "show", "hostnames", listed], capture_output=True, text=True, check=False)
    names, me = done.stdout.split(), os.environ.get("SLURMD_NODENAME")
    if done.returncode:
        raise SlurmError(f"scontrol cannot tell the nodes of this Slurm job ({listed}): {done.stderr.strip()}")
    if len(names) < count:
        raise SlurmError(f"{count} nodes need a Slurm job of {count} nodes, got {len(names)} ({listed})")
    if me not in names:  # such as a shell that `salloc` has started on a login node
        here = me or platform.node()
        raise SlurmError(f"this is {here}, which is no node of this Slurm job ({listed}); start it there with srun")
    return [name for name in names if name != me][: count - 1]


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
