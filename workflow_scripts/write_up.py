"""Write the report from records, tables and figures."""

from stepbench.pipeline import jobs

jobs.write_up(snakemake)
