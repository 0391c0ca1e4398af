from functools import partial

from stepbench import staleness
from stepbench.interruption import leave_if_ended
from stepbench.workflow import (
    heeded,
    measuring_command,
    open_bench,
    start_run,
    wildcards_of,
)

BENCH = open_bench(workflow, config)
SHARDS_DIR = BENCH.shards_dir
MEASURE = measuring_command(workflow, BENCH)

# The records of an experiment's configured cells, and the input functions that name what makes a record, or what is rendered from records, stale.
needs = heeded(workflow, partial(staleness.needs, BENCH))
rendered = heeded(workflow, partial(staleness.rendered, BENCH))
priority_of_round = staleness.priority
records = BENCH.paths
COMPARED = staleness.compared(BENCH)


# Not a wildcard: Snakemake looks rules up by how their outputs begin.
pathvars:
    results=f"results/{BENCH.machine}",


wildcard_constraints:
    **wildcards_of(),
