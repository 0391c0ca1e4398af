"""What a strategy of ours may cost beside torch's own."""

from __future__ import annotations

from stepbench.reporting.paired_tables import Bar, Bars

BARS: Bars = {"sharded_broadcast": Bar("torch_zero", 1.0, memory_ratio=1.0)}
