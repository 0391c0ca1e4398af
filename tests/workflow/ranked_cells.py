"""An experiment on two ranks that are real, and of which the second goes wrong in one way."""

from __future__ import annotations

from tests.workflow.bench_copy import TOY, Copy

WORK = """
    found = ranks.call(on_ranks.run, setting, ranks=2, behaviour=cell.behaviour)
    return Measurement(samples=ranks.by_rank(found))
"""

RANKED = (
    TOY.replace("Toy", "Ranked")
    .replace("from stepbench.models import toy_kernel", "from stepbench.workloads import ranks")
    .replace(
        "from stepbench.experiments.toy.cell",
        "from stepbench.experiments.toy import on_ranks\nfrom stepbench.experiments.toy.cell",
    )
    .replace("    return toy_kernel.work(cell.behaviour, setting)\n", WORK.lstrip("\n"))
    .replace('    size: str = "nano"\n    replicate: int = 0', "")
    .replace('["behaviour", "size", "replicate"]', '["behaviour"]')
    .replace("toy", "ranked")
)

ON_RANKS = '''
"""What the two ranks do: meet, tell their process and the time, go wrong or not, and meet again."""

import os
import signal
import time

import torch
from torch import distributed


def run(*, setting, behaviour):
    """Go wrong as rank 1; rank 0 waits for it in an all-reduce."""
    distributed.all_reduce(torch.ones(1))
    if behaviour == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(os.environ["TOY_RANKS"], "a") as told:
        told.write(f"{behaviour} {os.getpid()} {time.time()}\\n")
    if distributed.get_rank() == 1:
        if behaviour == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if behaviour == "raises":
            raise ValueError("the second rank has had enough\\nand says so at length")
        if behaviour == "leaves":
            os._exit(0)
        if behaviour in ("deaf", "waits"):
            while True:
                time.sleep(3600)
    distributed.all_reduce(torch.ones(1))
    return {"samples": {"step_s": [1.0], "threads": [torch.get_num_threads()]}}
'''


def add_to(copy: Copy) -> None:
    """Add the experiment to a copy of the workflow."""
    copy.add_experiment("ranked", RANKED, "behaviour~{behaviour}")
    (copy.root / "src/stepbench/experiments/ranked/on_ranks.py").write_text(ON_RANKS.lstrip("\n"))


def configure(copy: Copy, *behaviours: str, time_s: float) -> None:
    """Ask for these cells, with a thread for each rank."""
    settings = copy.settings["protocol"] | {"threads": 2}
    limits = {"time_s": time_s, "host_memory_gib": None}
    experiments = {"ranked": {"cpu": [{"behaviour": list(behaviours)}]}}
    copy.configure(copy.settings | {"protocol": settings, "limits": limits, "experiments": experiments})
