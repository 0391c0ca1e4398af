"""The figure of collectives."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepbench.reporting import drawing, figures, units
from stepbench.reporting.columns import axis_words
from stepbench.reporting.frames import Results
from stepbench.reporting.message_fits import Fit, bus_bytes_per_s, bus_factor, fits, message_bytes
from stepbench.reporting.points import Group

COLUMNS = 2


@figures.styled
def bandwidth(results: Results) -> Figure:
    """Draw bus bandwidth over the message's bytes, a panel for each backend and number of ranks, with the fits."""
    panels: dict[tuple[str, int, int], list[Group]] = {}
    for group in results.groups():
        if group.summary("call_s") is not None:
            where = (group.point["backend"], group.point["ranks"], group.point["nodes"])
            panels.setdefault(where, []).append(group)
    if not panels:
        return figures.nothing("No collective has numbers.")
    rows = -(-len(panels) // COLUMNS)
    columns = min(COLUMNS, len(panels))
    figure = figures.new(0.9 + 2.9 * rows, "Both axes are logarithmic.")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
    fitted = fits(results)
    for axes, ((backend, ranks, nodes), groups) in zip(grid, panels.items(), strict=False):
        for place, operation in enumerate(figures.order(groups, "operation")):
            known = [group for group in groups if group.point["operation"] == operation]
            line = next(
                (f for f in fitted if (f.operation, f.backend, f.ranks, f.nodes) == (operation, backend, ranks, nodes)),
                None,
            )
            _draw(axes, known, line, place)
        axes.set_title(f"{ranks} ranks, {backend}" + (f", {nodes} nodes" if nodes > 1 else ""))
        axes.set_xlabel("bytes of the message")
    for axes in list(grid):
        axes.set_visible(False)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    shown[0].set_ylabel("bus bandwidth")
    figures.log_axis(shown[0], "y", lambda value: units.byte_rate(value))
    for axes in shown:
        figures.log_axis(axes, "x", lambda value: units.byte_count(value))
        sizes = sorted({message_bytes(group) for groups in panels.values() for group in groups})
        axes.set_xticks(sizes, [units.byte_count(size) for size in sizes])
        axes.set_xticks([], minor=True)
    figures.legend_above(figure, 4)
    return figure


def _draw(axes: Axes, groups: list[Group], line: Fit | None, place: int) -> None:
    color, marker = figures.PALETTE[place], figures.MARKERS[place]
    for group in groups:
        summary = group.summary("call_s")
        if summary is None:
            continue
        rate = bus_bytes_per_s(group, summary.median)
        (made,) = axes.plot(
            message_bytes(group),
            rate,
            marker,
            color=color,
            markerfacecolor=drawing.face(axes, color, summary.marks),
            label=axis_words(group.point["operation"]),
        )
        drawing.tell(made, group, f"{units.byte_rate(rate)}, {figures.with_interval(summary)}", marks=summary.marks)
    if line is not None:
        sizes = sorted(message_bytes(group) for group in groups)
        low, high = sizes[0], sizes[-1]
        along = [low * (high / low) ** (step / 60) for step in range(61)]
        factor = bus_factor(line.operation, line.ranks)
        axes.plot(along, [size / line.seconds(size) * factor for size in along], color=color, linewidth=1, alpha=0.7)
