"""Write the report from records, tables and figures."""

from stepbench.pipeline import workflow

workflow.write_up(snakemake)
