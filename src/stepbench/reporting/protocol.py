"""The protocol and the statistics in words, with the constants that the code uses."""

from __future__ import annotations

from collections.abc import Sequence

from stepbench.pipeline.bench import Bench
from stepbench.pipeline.records import Record
from stepbench.reporting import statistics, steps
from stepbench.reporting.findings import listing, plural

_SOURCES = {"corpus": "the source text of Python's standard library", "synthetic": "random token ids"}

STATISTICS = (
    f"Medians have a {100 * statistics.INTERVAL_LEVEL:.0f} % interval. With several processes it is over their medians "
    f"(Student's t on logarithms), and the median shown is their geometric mean. With one process it is within that "
    f"process (interpolated order statistics) and says nothing about another.",
    f"Ratios have a {100 * statistics.RATIO_LEVEL:.0f} % interval (Welch's t on the logarithms of process medians). "
    f"FASTER and SLOWER need an interval that excludes 1, agreement of the exact permutation test (p at most "
    f"{statistics.PERMUTATION_ERRORS * (1 - statistics.RATIO_LEVEL):.2g}), and an effect above "
    f"{100 * statistics.NEGLIGIBLE:.0f} %. SAME needs an interval that excludes effects "
    f"of {100 * statistics.SAME_WITHIN:.0f} %. Everything else is UNCLEAR, and so is every comparison with fewer than "
    f"{statistics.MIN_PROCESSES} processes a side.",
    f"Model FLOPs utilisation (MFU): {steps.FLOP_FORMULA}. Recomputation by activation checkpointing is not counted "
    f"(the convention of PaLM, arXiv:2204.02311, and Megatron-LM, arXiv:2104.04473).",
)


def sentences(bench: Bench, used: Sequence[Record]) -> list[str]:
    """Return the protocol of these records and the rules of the statistics, one text for each."""
    protocol, source = bench.protocol, bench.settings["data"]["source"]
    clocks = sorted({str(record.protocol["clock"]) for record in used if record.protocol.get("clock")})
    timed = f"; clock: {listing(clocks)}" if clocks else ""
    return [
        f"Each cell is measured in a process of its own: {plural(protocol['warmup_steps'], 'step')} of warm-up, then "
        f"{plural(protocol['measured_steps'], 'step')} by phases and as many as a whole. Replicate 0 of every cell "
        "runs before any replicate 1.",
        f"Seed {protocol['seed']}; {plural(bench.threads, 'thread')} on the CPU{timed}.",
        f"Tokens: {_SOURCES.get(source, f'the file {source}')}, with a vocabulary of {bench.settings['vocabulary']}.",
        *STATISTICS,
    ]
