"""What a strategy of ours may cost beside torch's own."""

from __future__ import annotations

from stepbench.reporting.paired_tables import Bar, Bars

BARS: Bars = {"bucketed": Bar("torch_ddp", 1.02)}
