"""The roofline: how fast an operation can be, given its FLOPs per byte that it must move.

Source: Williams, Waterman and Patterson 2009, Roofline, Communications of the ACM 52(4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stepbench.reporting import drawing, figures, units
from stepbench.reporting.marks import Mark
from stepbench.reporting.peaks import Peaks, rates
from stepbench.reporting.points import Group
from stepbench.reporting.steps import WHOLE, flops

DTYPE_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}
DTYPE_COLORS = dict(zip(DTYPE_BYTES, figures.PALETTE, strict=False))

# Bytes per parameter that a step must move, in fp32: forward and backward pass read weights, the backward pass writes
# gradients, and AdamW reads weight, gradient and two moments and writes weight and moments.
WEIGHT_BYTES = {"forward": 4, "forward_backward": 12, "train_step": 40}


CROWD = 60  # from this many points on they are smaller and transparent
NEAR = 1.25  # roofs within this ratio share a line of text


@dataclass(frozen=True)
class Point:
    """One measured operation in the picture; its marker tells what it is, its colour the dtype."""

    flops_per_byte: float
    flops_per_s: float
    dtype: str
    marker: str
    label: str
    group: Group
    marks: tuple[Mark, ...]


def products(groups: Sequence[Group]) -> list[Point]:
    """Return the points of square matrix products, which read two matrices and write one."""
    found = []
    for group in groups:
        for rate in rates(group.records):
            if rate.operation == "matmul":
                intensity = rate.work / (3 * rate.extent**2 * DTYPE_BYTES[rate.dtype])
                marks = tuple(dict.fromkeys((*rate.seconds.marks, *group.marks)))
                label = "square matrix product"
                found.append(Point(intensity, rate.per_s, rate.dtype, "o", label, group, marks))
    return found


def steps(groups: Sequence[Group]) -> list[Point]:
    """Return the points of a decoder's steps, at the intensity that they would have if activations cost nothing."""
    found = []
    for group in groups:
        whole, work, parameters = group.summary(f"{WHOLE}_s"), flops(group), group.scalar("parameters")
        if whole is not None and work and parameters and whole.median:
            moved = WEIGHT_BYTES[group.point["passes"]] * parameters
            dtype = group.point["precision"]
            rate = work / whole.median
            found.append(Point(work / moved, rate, dtype, "^", "training step", group, tuple(whole.marks)))
    return found


@figures.styled
def draw(peaks: Peaks, points: Sequence[Point], description: str) -> Figure:
    """Draw the machine's roofs and the points below them."""
    if not peaks.measured and not points:
        return figures.nothing("No machine peak has been measured yet.")
    figure = figures.new(4.4, description)
    axes = figure.subplots()
    xs = [point.flops_per_byte for point in points]
    low, high = 0.5 * min([*xs, 1.0]), 2.5 * max([*xs, 100.0])
    for dtype in dict.fromkeys([*peaks.measured, *(point.dtype for point in points)]):
        axes.plot([], [], "s", color=DTYPE_COLORS[dtype], label=dtype)
    for marker, label in dict.fromkeys((point.marker, point.label) for point in points):
        axes.plot([], [], marker, color=figures.MUTED, label=label)
    _draw_roofs(axes, peaks, low, high)
    crowded = len(points) > CROWD
    for point in points:
        color = DTYPE_COLORS[point.dtype]
        style: dict[str, Any] = {
            "color": color,
            "markeredgecolor": color if point.marks else "white",
            "markeredgewidth": 1.1 if point.marks else 0.5,
            "markerfacecolor": drawing.face(axes, color, point.marks),
            "markersize": 5.5 if crowded else 7,
            "alpha": 0.6 if crowded else 1.0,
            "zorder": 3,
        }
        (made,) = axes.plot(point.flops_per_byte, point.flops_per_s, point.marker, **style)
        told = f"{units.flop_rate(point.flops_per_s)} at {point.flops_per_byte:.3g} FLOPs per byte"
        drawing.tell(made, point.group, told, marks=point.marks)
    axes.set_xlim(low, high)
    figures.log_axis(axes, "x")
    figures.log_axis(axes, "y", units.flop_tick)
    axes.set_xlabel("arithmetic intensity (FLOPs per byte that must be moved)")
    axes.set_ylabel("rate")
    figures.legend_above(figure, 6)
    return figure


def _draw_roofs(axes: Axes, peaks: Peaks, low: float, high: float) -> None:
    """Draw the slope of the memory and one roof for each dtype; the vendor's dashed where it is known."""
    slope = peaks.copy.per_s if peaks.copy else None
    top = max((rate.per_s for rate in peaks.measured.values()), default=None)
    if slope:
        end = min(high, top / slope) if top else high
        axes.plot([low, end], [low * slope, end * slope], color=figures.INK, linewidth=1.8)
        _write(axes, f"memory, {units.byte_rate(slope)}", low**0.7 * end**0.3, low**0.7 * end**0.3 * slope, (9, -9))
    for names, levels in _roofs(peaks):
        for name, rate in zip(names, levels, strict=True):
            axes.plot(
                [max(low, rate / slope) if slope else low, high], [rate] * 2, color=DTYPE_COLORS[name], linewidth=1.8
            )
        told = " and ".join(f"{name} {units.flop_rate(rate)}" for name, rate in zip(names, levels, strict=True))
        _write(axes, told, max(low, max(levels) / slope) if slope else low, max(levels), (14, 4))
    for dtype, vendor in peaks.vendor_flops_per_s.items():
        if dtype in peaks.measured:
            start = vendor / peaks.vendor_bytes_per_s if peaks.vendor_bytes_per_s else low
            style: dict[str, Any] = {"color": DTYPE_COLORS[dtype], "linewidth": 1.0, "linestyle": (0, (5, 3))}
            axes.plot([start, high], [vendor] * 2, **style)


def _roofs(peaks: Peaks) -> list[tuple[list[str], list[float]]]:
    """Return the roofs from below; those so near to each other that their names would overlap share a line of text."""
    found: list[tuple[list[str], list[float]]] = []
    for dtype, rate in sorted(peaks.measured.items(), key=lambda each: each[1].per_s):
        if found and rate.per_s < NEAR * found[-1][1][-1]:
            found[-1][0].append(dtype)
            found[-1][1].append(rate.per_s)
        else:
            found.append(([dtype], [rate.per_s]))
    return found


def _write(axes: Axes, text: str, x: float, y: float, offset: tuple[float, float]) -> None:
    axes.annotate(text, (x, y), xytext=offset, textcoords="offset points", fontsize=8.5)
