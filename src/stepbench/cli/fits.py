"""`stepbench fits`: whether a step fits into memory, and what would make it fit; needs no GPU."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stepbench.cli.output import FAILED_EXIT_CODE, add_configuration, add_format, console, open_bench, print_tables
from stepbench.experiments.fits.cell import Cell
from stepbench.pipeline.mistakes import hint

if TYPE_CHECKING:
    from stepbench.experiments.fits.question import Way
    from stepbench.measure.envelope import Envelope
    from stepbench.reporting.tables import Shown

UNITS = {"MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "MB": 10**6, "GB": 10**9, "TB": 10**12}
MOST_RANKS = 65_536
# An option of the command -> its value where it is not given. All are axes of the experiment's cells.
AXES = {
    "precision": "fp32",
    "parameter_dtype": "fp32",
    "attention": "naive",
    "head": "whole",
    "groups": "none",
    "optimizer": "adamw_foreach",
}


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("fits", help="predict whether a training step fits into memory, and what would help")
    parser.add_argument("--size", required=True, help="one of config.yaml")
    parser.add_argument("--context", required=True, type=_count, metavar="TOKENS", help="tokens per sequence")
    parser.add_argument("--batch", default=4, type=_count, metavar="SEQUENCES", help="sequences (default: 4)")
    parser.add_argument(
        "--memory",
        metavar="AMOUNT",
        help="what the step may take, such as 24GiB, or a card of config.yaml, of whose memory it may take all but "
        "0.75 GiB (default: each of these cards)",
    )
    for name, default in AXES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", default=default, help=f"an axis (default: {default})")
    shared = "GPUs that shard parameters, gradients and optimizer state by FSDP (default: 1)"
    parser.add_argument("--ranks", default=1, type=_ranks, help=shared)
    add_format(parser)
    add_configuration(parser)
    parser.set_defaults(run=fits)


def fits(options: argparse.Namespace) -> int:
    """Print whether the step fits, the edges, and what would make it fit; fail if the step does not fit."""
    from stepbench.experiments.fits.ways import cards as cards_of  # late, as all that brings NumPy

    bench = open_bench(options)
    cards = cards_of(bench.settings)
    memory = {options.memory: amount(options.memory, cards)} if options.memory else cards
    if not memory:
        raise ValueError("`--memory` must be given where config.yaml has no `cards`")
    from stepbench.experiments.fits import question  # 3 s, of torch
    from stepbench.measure.measurement import Setting
    from stepbench.process import failures
    from stepbench.reporting import units
    from stepbench.workloads.fits import find

    axes = {name: getattr(options, name) for name in AXES} | ({"ranks": options.ranks} if options.ranks > 1 else {})
    cell = Cell(source="predicted", size=options.size, **axes)
    bench.check_cell(cell)
    setting = Setting(bench.device, bench.protocol, bench.definition(cell))
    try:
        spec = question.step(cell, setting, context=options.context, batch=options.batch)
        if len(memory) > 1:
            found, words = find(spec, setting), f"{options.size}, {_words(axes)}"
            cards_table = _of_cards(found, memory, words, context=spec.context, batch=spec.batch)
            print_tables([cards_table], options.format)
            return 0
        ((name, limit_bytes),) = memory.items()
        ways = question.ask(spec, setting, limit_bytes)
    except Exception as error:
        if failures.kind_of(error) == "exception":
            raise
        raise ValueError(failures.sentence(error)) from None
    asked, *others = ways
    if options.format is not None:
        print_tables([_of_ways(ways, context=spec.context, batch=spec.batch)], options.format)
        return 0 if asked.fits else FAILED_EXIT_CODE
    usable = " that it may take" if name in cards else ""
    told = "fits" if asked.fits else "does not fit"
    needed = units.byte_count(asked.peak_bytes) + (" on each rank" if options.ranks > 1 else "")
    console.print(
        f"{options.size}, context {spec.context}, batch {spec.batch}, {_words(axes)}: a training step needs {needed} "
        f"(predicted on {bench.device}) and {told} into {name} ({units.byte_count(limit_bytes)}{usable}).",
        markup=False,
    )
    console.print(
        f"At context {spec.context} the largest batch that fits is {asked.largest_batch or 'none'}; "
        f"at batch {spec.batch} the largest context is {asked.largest_context or 'none'}.",
        markup=False,
    )
    if others:
        print_tables([_of_ways(others, context=spec.context, batch=spec.batch)], None)
    return 0 if asked.fits else FAILED_EXIT_CODE


def amount(text: str, cards: Mapping[str, int]) -> int:
    """Return the bytes that `--memory` asks for.

    Raises:
        ValueError: it is neither an amount with a unit nor a card.
    """
    if text in cards:
        return cards[text]
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]i?B)", text)
    if match is None or match[2] not in UNITS or not 0 < float(match[1]) < math.inf:
        units = ", ".join(UNITS)
        raise ValueError(
            f"`--memory` must be an amount above 0 with a unit ({units}), such as 24GiB, or a card of config.yaml, got "
            f"{text!r}{hint(text, cards)}"
        )
    return round(float(match[1]) * UNITS[match[2]])


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


def _ranks(text: str) -> int:
    if (count := _count(text)) > MOST_RANKS:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MOST_RANKS}, got {text!r}")
    return count


def _words(axes: Mapping[str, Any]) -> str:
    from stepbench.reporting.columns import axis_words

    return ", ".join(f"{axis_words(name)} {axis_words(found)}" for name, found in axes.items())


def _of_ways(ways: Sequence[Way], *, context: int, batch: int) -> Shown:
    from stepbench.reporting import tables, units
    from stepbench.reporting.columns import value

    rows = [
        {
            "change": " + ".join(way.changes),
            "peak_bytes": way.peak_bytes,
            "fits": "yes" if way.fits else "no",
            "largest_batch": way.largest_batch,
            "largest_context": way.largest_context,
        }
        for way in ways
    ]
    columns = [
        value("change", numeric=False),
        value("peak_bytes", "peak", units.byte_count),
        value("fits", numeric=False),
        value("largest_batch", f"largest batch at context {context}"),
        value("largest_context", f"largest context at batch {batch}"),
    ]
    return tables.show(tables.Table("What would change that", "All numbers are predicted.", rows, columns))


def _of_cards(found: Envelope, memory: Mapping[str, int], words: str, *, context: int, batch: int) -> Shown:
    from stepbench.experiments.fits.ways import HEADROOM
    from stepbench.reporting import tables, units
    from stepbench.reporting.columns import value

    peak_bytes = found.peak_bytes(batch, context)
    rows = [
        {
            "card": name,
            "memory_bytes": limit_bytes,
            "fits": "yes" if peak_bytes <= limit_bytes else "no",
            "largest_batch": found.largest_batch(context, limit_bytes),
            "largest_context": found.largest_context(batch, limit_bytes),
        }
        for name, limit_bytes in memory.items()
    ]
    columns = [
        value("card", numeric=False),
        value("memory_bytes", "memory for a step", units.byte_count),
        value("fits", numeric=False),
        value("largest_batch", f"largest batch at context {context}"),
        value("largest_context", f"largest context at batch {batch}"),
    ]
    caption = (
        f"A training step at context {context} and batch {batch} needs {units.byte_count(peak_bytes)}. {HEADROOM} "
        "All numbers are predicted."
    )
    return tables.show(tables.Table(words, caption, rows, columns))
