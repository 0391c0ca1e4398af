"""The style of figures, their parts, and how they are written.

Colours are Okabe and Ito's, which people with any of the common colour deficiencies can tell apart; a marker or a
position repeats the distinction. A figure's label is its description: what it holds constant and how to read it. It
stands in the picture's metadata, and in a small JSON file beside it.

Source: Okabe and Ito 2008, Color Universal Design, https://jfly.uni-koeln.de/color/.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter

from stepbench.measure.memory_timeline import CATEGORIES
from stepbench.process.storage import write_atomically
from stepbench.reporting import units
from stepbench.reporting.drawing import HOLLOW, Drawing, Kept, Measured, face, rounded, tell
from stepbench.reporting.points import Group
from stepbench.reporting.statistics import Summary, Verdict
from stepbench.reporting.steps import PHASES, WHOLE

P = ParamSpec("P")

INK = "#222222"
MUTED = "#6b6b6b"
GRID = "#e3e3e3"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DARK = ("#0072B2", "#D55E00", "#009E73")  # those of them on which white can be read
LABELLED_SHARE = 7  # in percent; a number does not fit into less
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PHASE_COLORS = dict(zip((*PHASES, WHOLE), ("#0072B2", "#E69F00", "#009E73", INK), strict=True))
PHASE_MARKERS = dict(zip((*PHASES, WHOLE), ("o", "s", "^", "D"), strict=True))
VERDICT_COLORS = {
    Verdict.FASTER: "#0072B2",
    Verdict.SLOWER: "#D55E00",
    Verdict.SAME: MUTED,
    Verdict.UNCLEAR: "#a8a8a8",
}
CATEGORY_COLORS = dict(zip(CATEGORIES, ("#0072B2", "#56B4E9", "#009E73", "#D55E00", "#E69F00"), strict=True))
NO_NUMBERS = "None of the cells of this figure has numbers; the tables give the reasons."
WIDTH_INCHES = 7.6
PNG_DPI = 200  # twice the 100 at which a page shows it

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9a9a9a",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": "#9a9a9a",
    "ytick.color": "#9a9a9a",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.autolayout": False,  # a figure without a layout engine has none, whatever the user's matplotlibrc says
    "figure.constrained_layout.use": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "stepbench",
}

# How many decades an axis spans -> where its ticks stand in each.
_Ticks = tuple[tuple[float, tuple[float, ...]], ...]
_CLOSE = (0.5, (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0))
_TICKS_UP: _Ticks = (_CLOSE, (1.0, (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)), (3.0, (1.0, 2.0, 5.0)), (math.inf, (1.0,)))
# Texts that stand side by side need more room.
_TICKS_ALONG: _Ticks = (_CLOSE, (1.3, (1.0, 2.0, 5.0)), (3.0, (1.0, 3.0)), (math.inf, (1.0,)))


def styled(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """Have a function that returns a figure draw in the house style."""

    @functools.wraps(function)
    def draw(*arguments: P.args, **keywords: P.kwargs) -> Figure:
        with mpl.rc_context(_STYLE):
            return function(*arguments, **keywords)

    return draw


def new(height_inches: float, description: str, *, width_inches: float = WIDTH_INCHES) -> Drawing:
    """Return an empty figure whose parts are laid out so that none covers another."""
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05, wspace=0.04)
    figure = Drawing(figsize=(width_inches, height_inches), layout=layout)
    figure.set_label(" ".join(description.split()))
    return figure


def write(figures: Mapping[str, Figure], folder: Path) -> None:
    """Write `<name>.svg`, `.png` and `.json` of each figure into `folder`; the same figure gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        description = str(figure.get_label())
        with mpl.rc_context(_STYLE):
            layout = figure.get_layout_engine()
            if layout is not None and figure.axes:
                layout.execute(figure)
            figure.set_layout_engine(None)  # each file would lay it out again, and draw it twice for that
            svg = io.StringIO()
            figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Description": description})
            write_atomically(folder / f"{name}.svg", rounded(svg.getvalue()))
            png = {"Software": None, "Description": description}
            pixels = io.BytesIO()
            figure.savefig(pixels, format="png", dpi=PNG_DPI, metadata=png)
            write_atomically(folder / f"{name}.png", pixels.getvalue())
        drawn = figure if isinstance(figure, Drawing) else Drawing()
        held = Kept(description, drawn.sentence, drawn.said())
        write_atomically(folder / f"{name}.json", json.dumps(dataclasses.asdict(held), ensure_ascii=False) + "\n")


def read(file: Path) -> Kept:
    """Return what `write` has put into a figure's JSON.

    Raises:
        FileNotFoundError: there is none.
    """
    return Kept(**json.loads(file.read_text(encoding="utf-8")))


@styled
def nothing(sentence: str) -> Figure:
    """Return a figure that shows a sentence: why there is nothing to draw."""
    figure = new(1.1, sentence)
    figure.sentence = sentence
    figure.text(0.5, 0.5, sentence, ha="center", va="center", color=MUTED, wrap=True)
    return figure


# -- parts of figures --------------------------------------------------------------------------------------------------


def point(
    axes: Axes,
    x: float,
    y: float,
    summary: Summary,
    *,
    along: str,
    of: Measured | None = None,
    what: str = "",
    text: Callable[[float | None], str] = units.seconds,
    **style: Any,
) -> None:
    """Draw a median with its interval along `x` or `y`; the other coordinate is given. With a warning it is hollow.

    Args:
        axes: where to draw.
        x: the position, ignored along `x`.
        y: the position, ignored along `y`.
        summary: the median and its interval.
        along: `x` or `y`, the axis that the values lie on.
        of: the point of the grid, to which the page's figure leads.
        what: the quantity, where the figure has several.
        text: from a value to what the page says of it.
        style: `color`, `marker`, `label` and others of matplotlib's errorbar.
    """
    value = summary.median
    low, high = (value if bound is None else bound for bound in (summary.low, summary.high))
    errors = [[max(0.0, value - low)], [max(0.0, high - value)]]
    style["markerfacecolor"] = face(axes, style.get("color", INK), summary.marks)
    drawn: Any = {"capsize": 2.5, "elinewidth": 1.3, "linestyle": "none", "zorder": 3} | style
    if along == "x":
        made = axes.errorbar([value], [y], xerr=errors, **drawn)
    else:
        made = axes.errorbar([x], [value], yerr=errors, **drawn)
    if of is not None:
        tell(made[0], of, with_interval(summary, text), what, summary.marks)


def with_interval(summary: Summary, text: Callable[[float | None], str] = units.seconds) -> str:
    """Return a median with its interval, each in the unit that suits it."""
    if summary.low is None or summary.high is None:
        return text(summary.median)
    return f"{text(summary.median)} [{text(summary.low)}, {text(summary.high)}]"


def shares(
    axes: Axes, position: float, parts: Mapping[str, float], colors: Sequence[str], of: Measured | None = None
) -> None:
    """Draw one bar of 100 % whose pieces are parts of a whole, each with its share on it where that fits.

    `of` is the point of the grid, to which the page's figure leads.
    """
    total, left = sum(parts.values()), 0.0
    for (name, part), color in zip(parts.items(), colors, strict=True):
        share = 100 * part / total if total else 0.0
        (bar,) = axes.barh(position, share, left=left, height=0.64, color=color, edgecolor="white", label=name)
        if of is not None:
            tell(bar, of, f"{share:.2g} %", name)
        if share >= LABELLED_SHARE:
            ink = "white" if color in DARK else INK
            axes.text(left + share / 2, position, f"{share:.0f}", ha="center", va="center", color=ink, fontsize=9)
        left += share


def rows(axes: Axes, labels: Sequence[str], **style: Any) -> None:
    """Lay out rows from the top, one for each label, at the positions 0, 1, 2 and so on."""
    axes.set_yticks(range(len(labels)), labels, **style)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def share_axis(axes: Axes, label: str) -> None:
    """Give axes of `shares` a scale of percent and no frame."""
    axes.set_xlim(0, 100)
    axes.set_xlabel(label)
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(left=False)


def log_axis(axes: Axes, which: str, text: Callable[[float], str] | None = None) -> None:
    """Make an axis logarithmic with plain numbers on it, closer ones where it spans little."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    decades = _decades(low, high)
    subs = next(subs for limit, subs in (_TICKS_ALONG if which == "x" else _TICKS_UP) if decades < limit)
    locator: Locator = LogLocator(base=10, subs=subs, numticks=30)
    if decades > 0 and sum(low <= tick <= high for tick in locator.tick_values(low, high)) < 2:  # it spans too little
        locator = MaxNLocator(4)
    axis.set_major_locator(locator)
    axis.set_major_formatter(FuncFormatter(lambda value, _: (text or _plain_number)(value)))
    axis.set_minor_formatter(NullFormatter())


def legend_above(figure: Figure, columns: int) -> None:
    """Put one legend of all axes above them, where it covers nothing; what has the same label stands in it once.

    It has fewer columns where they do not fit the width of the figure, and says what a hollow point means if one was
    drawn.
    """
    if isinstance(figure, Drawing) and figure.hollow:
        label = f"hollow: {', '.join(figure.hollow)}"
        figure.axes[0].plot([], [], "o", color=MUTED, markerfacecolor=HOLLOW, label=label)
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(text, handle)
    # Bare lines come last: they stand for what is missing where the rest has intervals.
    entries = dict(sorted(entries.items(), key=lambda entry: isinstance(entry[1], Line2D)))
    for number in range(columns, 0, -1) if entries else ():
        # The layout leaves no room for a frame's padding, so the legend would reach into the axes.
        legend = figure.legend(
            list(entries.values()), list(entries), loc="outside upper left", ncols=number, borderpad=0
        )
        if number == 1 or legend.get_window_extent().width <= 0.97 * figure.bbox.width:
            break
        legend.remove()


def duration(seconds: float) -> str:
    """Return a duration for an axis, such as `20 ms`."""
    unit = units.pick(units.SECONDS, [seconds])
    return f"{seconds / unit.size:g} {unit.name}"


def order(groups: Sequence[Group], axis: str) -> list[Any]:
    """Return the values of an axis in the order in which they come up."""
    return list(dict.fromkeys(group.point[axis] for group in groups))


def _decades(low: float, high: float) -> float:
    return math.log10(high / low) if low > 0 and high > low else 0.0


def _plain_number(value: float) -> str:
    return f"{value:g}" if 1e-4 <= abs(value) < 1e6 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
