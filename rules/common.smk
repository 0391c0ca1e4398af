from functools import partial

from stepbench.pipeline import staleness, workflow as asked
from stepbench.pipeline.state import States
from stepbench.pipeline.workflow import start_run
from stepbench.process.interruption import leave_if_ended

BENCH = asked.open_bench(workflow, config)
STATES = States(BENCH)
SHARDS_DIR = BENCH.shards_dir
MEASURE = asked.measuring_command(workflow, BENCH)
COMPARED = staleness.compared(BENCH)

# Input functions that name what makes a record, or what is rendered from records, stale.
needs = asked.heeded(workflow, partial(staleness.needs, STATES))
rendered = asked.heeded(workflow, partial(staleness.rendered, STATES))
# The records that an experiment's tables and figures are made of, and the files that are made of them.
records = partial(staleness.records, BENCH)
rendered_files = partial(asked.rendered_files, BENCH, report)
priority_of_round = staleness.priority


# Not a wildcard: Snakemake looks rules up by how their outputs begin.
pathvars:
    results=f"results/{BENCH.machine}",


wildcard_constraints:
    **asked.wildcards_of(),
