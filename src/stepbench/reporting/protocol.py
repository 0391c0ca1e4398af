"""How it was measured and how numbers are told, in sentences that name the constants which the code uses."""

from __future__ import annotations

from collections.abc import Sequence

from stepbench.pipeline.bench import Bench
from stepbench.pipeline.records import Record
from stepbench.reporting import marks, statistics, steps
from stepbench.reporting.findings import listing, plural

_SOURCES = {"corpus": "the source text of Python's standard library", "synthetic": "random token ids"}

STATISTICS = (
    f"Medians carry a {100 * statistics.INTERVAL_LEVEL:.0f} % interval. Where a cell was measured in several "
    f"processes, it is over their medians (Student's t on logarithms), and the median shown is their geometric mean. "
    f"Where there is one process, it is within that process (interpolated order statistics) and tells nothing about "
    f"another.",
    f"Ratios carry a {100 * statistics.RATIO_LEVEL:.0f} % interval (Welch's t on the logarithms of process medians). "
    f"FASTER and SLOWER need an interval that excludes 1, the consent of the exact permutation test (p at most "
    f"{statistics.PERMUTATION_LEVEL}), and an effect above {100 * statistics.NEGLIGIBLE:.0f} %. SAME needs an interval "
    f"that leaves no room for {100 * statistics.SAME_WITHIN:.0f} %. The rest is UNCLEAR, and so is whatever has fewer "
    f"than {statistics.MIN_PROCESSES} processes a side.",
    marks.GRADES,
    f"Marks. {marks.legend(marks.MEANING)}.",
    f"Model FLOPs utilisation (MFU): {steps.FLOP_FORMULA}; what activation checkpointing would compute again is not "
    f"counted (the convention of PaLM, arXiv:2204.02311, and Megatron-LM, arXiv:2104.04473).",
)


def sentences(bench: Bench, used: Sequence[Record]) -> list[str]:
    """Return the protocol of these records and the rules of the statistics, a sentence or a few in each text."""
    protocol, source = bench.protocol, bench.settings["data"]["source"]
    clocks = sorted({str(record.protocol["clock"]) for record in used if record.protocol.get("clock")})
    timed = f"; times from the {listing(clocks)}" if clocks else ""
    return [
        f"Each cell is measured in a process of its own: {plural(protocol['warmup_steps'], 'step')} of warm-up, then "
        f"{plural(protocol['measured_steps'], 'step')} by phases and as many as a whole. Where there are replicates, "
        "all cells' replicate 0 comes before any replicate 1.",
        f"Seed {protocol['seed']}; {plural(bench.threads, 'thread')} on the CPU{timed}.",
        f"Tokens: {_SOURCES.get(source, f'the file {source}')}, with a vocabulary of {bench.settings['vocabulary']}.",
        *STATISTICS,
    ]
