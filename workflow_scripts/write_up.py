"""Write the report from records, tables and figures."""

from stepbench import workflow

workflow.write_up(snakemake)
