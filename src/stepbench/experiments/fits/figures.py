"""The figure of fits: the predicted peak over the batch, with the memory of cards."""

from __future__ import annotations

from matplotlib.figure import Figure

from stepbench.experiments.fits import ways
from stepbench.experiments.fits.ways import CONTEXT
from stepbench.reporting import figures
from stepbench.reporting.columns import varying
from stepbench.reporting.frames import Results

BATCHES = tuple(2**power for power in range(9))


@figures.styled
def batches(results: Results) -> Figure:
    """Draw the predicted peak of each model over the batch, a panel for each way to train."""
    found = ways.predicted(results)
    if not found:
        return figures.nothing(figures.NO_NUMBERS)
    axes_shown = varying([way.group.point for way in found], ways.AXES)
    kinds: dict[str, list[ways.Way]] = {}
    for way in found:
        point = way.group.point
        name = ", ".join(f"{axis.replace('_', ' ')} {point[axis]}" for axis in axes_shown) or "one way to train"
        kinds.setdefault(name, []).append(way)
    columns = min(2, len(kinds))
    rows = -(-len(kinds) // columns)
    figure = figures.new(0.6 + 3.0 * rows, f"Predicted peak of a training step at context {CONTEXT}.")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    sizes = list(dict.fromkeys(str(way.group.point["size"]) for way in found))
    for axes, (name, members) in zip(panels, kinds.items(), strict=False):
        axes.set_title(name)
        for way in members:
            index = sizes.index(str(way.group.point["size"]))
            peaks = [way.envelope.peak_bytes(batch, CONTEXT) / ways.GIB for batch in BATCHES]
            axes.plot(BATCHES, peaks, color=figures.PALETTE[index % len(figures.PALETTE)], label=sizes[index])
        for card, memory_bytes in ways.cards(results.settings).items():
            axes.axhline(memory_bytes / ways.GIB, color=figures.MUTED, linewidth=0.6, linestyle=":")
            axes.text(
                BATCHES[-1], memory_bytes / ways.GIB, card, fontsize=6.5, color=figures.MUTED, ha="right", va="bottom"
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xlabel("batch")
        axes.set_ylabel("predicted peak (GiB)")
    for axes in panels[len(kinds) :]:
        axes.set_visible(False)
    figures.legend_above(figure, len(sizes))
    return figure
