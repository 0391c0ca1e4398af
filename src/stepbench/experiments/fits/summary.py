"""What fits contributes to the report's summary: which card trains which size, and with what batch."""

from __future__ import annotations

from stepbench.experiments.fits import tables
from stepbench.reporting.frames import Results
from stepbench.reporting.summary import Contribution


def summarize(results: Results) -> Contribution:
    """Return the table of largest batches, if anything was predicted."""
    table = tables.batches(results)
    return Contribution(fits=[table] if table.rows else [])
