"""What a strategy of ours may cost beside torch's own."""

from __future__ import annotations

from stepbench.reporting.paired_tables import Bar, Bars

BARS: Bars = {"fsdp": Bar("torch_fsdp2", 1.1, memory_ratio=1.05)}
