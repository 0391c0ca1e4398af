"""Write the page that draws every record of every known machine."""

from stepbench.pipeline import jobs

jobs.explore(snakemake)
