from functools import partial

from stepbench.pipeline import staleness, workflow as asked
from stepbench.pipeline.state import States
from stepbench.pipeline.workflow import start_run
from stepbench.process.interruption import leave_if_ended

BENCH = asked.open_bench(workflow, config)
STATES = States(BENCH)
asked.explain_dry_run(STATES, workflow)
SHARDS_DIR = BENCH.shards_dir
MEASURE = asked.measuring_command(workflow, BENCH)
DESCRIBE = asked.describing_command()
NODE = asked.node_resources(BENCH)
WHOLE_NODE = asked.whole_node()
nodes = asked.nodes
COMPARED = staleness.compared(BENCH)

# Input functions: for what is stale they return a marker file that lists the reasons.
needs = asked.refuse_ignored_markers(workflow, partial(staleness.needs, STATES))
rendered = asked.refuse_ignored_markers(workflow, partial(staleness.rendered, STATES))
# The records that an experiment's tables, figures and findings read, and the files of these.
records = partial(staleness.records, BENCH)
rendered_files = partial(asked.rendered_files, BENCH, report)
priority_of_round = staleness.priority
# What a first report is made of, and whether there is something that it would not have.
FIRST_RECORDS = staleness.first_records(BENCH)
is_first = staleness.first_report(STATES)


# Not a wildcard: Snakemake finds rules by the beginning of their outputs.
pathvars:
    results=f"results/{BENCH.machine}",


wildcard_constraints:
    **asked.wildcards_of(),
