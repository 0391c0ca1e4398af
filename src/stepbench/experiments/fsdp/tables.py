"""The tables of fully sharded data parallelism: bytes, time, and the comparison with torch's own."""

from __future__ import annotations

from stepbench.experiments.fsdp.cell import PARTNERS
from stepbench.reporting import leaderboard as shared_leaderboard
from stepbench.reporting import paired, peaks, sharding_tables, units
from stepbench.reporting.frames import Results
from stepbench.reporting.paired import Target, Targets
from stepbench.reporting.tables import Table

DEVICE = "NVIDIA B200"
TARGETS: Targets = {"fsdp": Target(PARTNERS["fsdp"], 1.1, memory_ratio=1.05)}


def memory(results: Results) -> Table:
    """Return the bytes of each variant, predicted and measured."""
    return sharding_tables.memory(results)


def time(results: Results) -> Table:
    """Return the time of each variant."""
    return sharding_tables.time(results)


def beside(results: Results) -> Table:
    """Return the comparison with torch's own."""
    return paired.beside(results, TARGETS)


def leaderboard(results: Results) -> Table:
    """Return the public leaderboard of an 8B model's step with what is predicted of ours and what was measured here."""
    board = shared_leaderboard.read("experiments/fsdp/leaderboard.json")
    shown = shared_leaderboard.groups(board, results)
    rows = shared_leaderboard.published(board)
    vendor = peaks.vendor_figures(DEVICE)
    for group in shown:
        if group.point["source"] == "measured":
            rows.append(shared_leaderboard.measured(group, "step_s", shown))
        elif group.records and vendor:
            least = group.scalar("least_flops")  # of one rank
            seconds = least / vendor["flops_per_s"]["bf16"] if least else None
            peak = units.byte_count(group.scalar("predicted_peak_memory_bytes"))
            note = f"peak {peak} per rank; time: its least FLOPs at the peak of {DEVICE}, no less"
            rows.append(shared_leaderboard.predicted("fsdp", seconds, note, group))
    caption = (
        "One training step of the 8.13 B model: batch 2, context 32 768, vocabulary 151 936, bf16, AdamW. To predict "
        "its memory, and to measure it on two devices: make leaderboard-step."
    )
    return shared_leaderboard.table(board, rows, title="The public leaderboard of a training step", caption=caption)
