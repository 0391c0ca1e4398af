"""Figures are drawn from every state that records can be in, look the same each time, and hide nothing."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from tests.reporting import synthetic
from tests.reporting.conftest import results

from stepbench.experiments import experiment as experiments
from stepbench.experiments.end_to_end import figures as end_to_end
from stepbench.experiments.end_to_end import speedup_figure
from stepbench.reporting import comparisons, figures, roofline
from stepbench.reporting.statistics import MIN_PROCESSES, Verdict

NAMES = ("ceilings", "end_to_end", "warmup", "numerics", "attention")


@functools.cache  # the session's bench is drawn once for all tests
def drawn_once(bench, name) -> dict[str, Figure]:
    return drawn(bench, name)


def drawn(bench, name) -> dict[str, Figure]:
    return experiments.load(name).plot(results(bench, name))


def texts(figure):
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(lambda each: hasattr(each, "get_text"))]


def test_the_same_records_give_the_same_bytes(full, tmp_path):
    name = "numerics"  # the writeup's own test has the other pictures in it
    for folder in ("a", "b"):
        figures.write(drawn(full, name), tmp_path / folder)
    for found in experiments.load(name).figure_names:
        svg = (tmp_path / "a" / f"{found}.svg").read_bytes()
        assert svg == (tmp_path / "b" / f"{found}.svg").read_bytes()
        png = (tmp_path / "a" / f"{found}.png").read_bytes()
        assert png == (tmp_path / "b" / f"{found}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert b"<svg" in svg
        assert b"<dc:date>" not in svg


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_drawn_when_nothing_was_measured(empty, name, tmp_path):
    figures.write(drawn(empty, name), tmp_path)
    assert {path.stem for path in tmp_path.glob("*.svg")} == set(experiments.load(name).figure_names)


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_drawn_when_everything_failed(empty, name, tmp_path):
    for cell in empty.grid(name):
        synthetic.write(empty, name, cell, status="oom", reason="MemoryError: <b>no</b>")
    figures.write(drawn(empty, name), tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == len(experiments.load(name).figure_names)


@pytest.mark.parametrize("name", NAMES)
def test_axes_are_labelled_and_legends_lie_outside_of_them(full, name):
    for figure in drawn_once(full, name).values():
        figure.canvas.draw()
        assert any(axes.get_xlabel() for axes in figure.axes) or figure.get_supxlabel()
        for legend in figure.legends:
            box = legend.get_window_extent()
            assert not any(axes.get_window_extent().overlaps(box) for axes in figure.axes)


def test_the_description_is_kept_in_the_file(full, tmp_path):
    figures.write({"phases": drawn_once(full, "end_to_end")["phases"]}, tmp_path)
    text = figures.read(tmp_path / "phases.json").description
    assert text.startswith("Held constant: ")
    assert "precision fp32" in text
    assert "precision fp32" in (tmp_path / "phases.svg").read_text()


def test_a_figure_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """Ctrl-C in the moment in which the last of its files is about to be there."""
    figures.write({"x": figures.nothing("First.")}, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == ["x.json", "x.png", "x.svg"]
    replace = os.replace

    def interrupt(source, target):
        if str(target).endswith(".png"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        figures.write({"x": figures.nothing("Second.")}, tmp_path)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    assert after["x.png"] == before["x.png"]


def test_a_description_is_escaped_in_the_file(tmp_path):
    figures.write({"x": figures.nothing("<script>alert(1)</script> & more")}, tmp_path)
    svg = (tmp_path / "x.svg").read_text()
    assert "<script" not in svg
    assert figures.read(tmp_path / "x.json").description == "<script>alert(1)</script> & more"


def test_phases_show_shares_and_what_failed(empty):
    first, *rest = [cell for cell in empty.grid("end_to_end") if (cell.passes, cell.replicate) == ("train_step", 0)]
    samples = {f"{phase}_s": [seconds] * 7 for phase, seconds in zip(("forward", "backward"), (1.0, 3.0), strict=True)}
    synthetic.write(empty, "end_to_end", first, samples=samples | {"step_s": [4.0] * 7})
    for cell in rest:
        synthetic.write(empty, "end_to_end", cell, status="oom", reason="MemoryError: x")
    found = texts(drawn(empty, "end_to_end")["phases"])
    assert {"25", "75", "no numbers: oom"} <= set(found)


def test_a_cell_without_numbers_is_a_cross_over_the_context(empty):
    for cell in empty.grid("end_to_end"):
        fields = synthetic.decoder_step(empty, cell, synthetic.np.random.default_rng(0), 0.01)
        failed = {"status": "oom", "reason": "MemoryError: x"}
        synthetic.write(
            empty, "end_to_end", cell, **(failed if (cell.size, cell.context) == ("micro", 128) else fields)
        )
    assert "no numbers" in texts(drawn(empty, "end_to_end")["context"])


def test_what_is_noisy_is_hollow_and_the_legend_says_so(full, empty):
    assert not any(text.startswith("hollow") for text in texts(drawn_once(full, "end_to_end")["phases"]))
    for cell in empty.grid("end_to_end"):
        fields = synthetic.decoder_step(empty, cell, synthetic.np.random.default_rng(0), 0.3)
        synthetic.write(empty, "end_to_end", cell, **fields)
    for name in ("phases", "context"):
        told = [text for text in texts(drawn(empty, "end_to_end")[name]) if text.startswith("hollow: ")]
        assert all("noisy" in text for text in told)
        assert told


def test_warm_up_samples_are_crosses_and_all_there(full):
    figure = drawn_once(full, "warmup")["warmup"]
    crosses = [line for axes in figure.axes for line in axes.lines if line.get_marker() == "x"]
    assert sorted(len(line.get_xdata()) for line in crosses) == [1, 5]


def pairs(bench):
    return comparisons.pairs(results(bench, "end_to_end"), "precision", "fp32")


def test_speed_ups_show_ratio_and_verdict(full):
    found = texts(drawn_once(full, "end_to_end")["speedups"])
    assert "bf16 against fp32" in found
    assert any("FASTER" in text for text in found)
    assert any("UNCLEAR" in text for text in found)  # compiled has one process


def test_where_some_pairs_have_enough_processes_only_these_are_drawn(full):
    (pair,) = pairs(full)
    lonely = dataclasses.replace(pair, comparison=dataclasses.replace(pair.comparison, processes=(1, 1)))
    assert speedup_figure.shown({"a": [lonely, pair], "b": [lonely]}) == {"a": [pair], "b": [lonely]}
    assert pair.processes >= MIN_PROCESSES
    many = speedup_figure.shown({"a": [pair] * 100, "b": [pair]})
    assert sum(map(len, many.values())) == speedup_figure.MAX_ROWS


def test_a_ratio_without_bounds_does_not_stretch_the_axis(full):
    (pair,) = pairs(full)
    wild = dataclasses.replace(
        pair.comparison, low=1e-9, high=1e9, verdict=Verdict.UNCLEAR, processes=(2, 2), ratio=1.2
    )
    figure = speedup_figure.ratios({"a": [dataclasses.replace(pair, comparison=wild)]}, "")
    low, high = figure.axes[0].get_xlim()
    assert 0.5 < low < high < 2


def test_the_roofline_has_roofs_and_products(full):
    found = results(full, "ceilings")
    products = roofline.products(found.groups())
    assert {point.flops_per_byte for point in products if point.dtype == "fp32"} == {
        n / 6 for n in (256, 512, 1024, 2048)
    }
    labels = texts(experiments.load("ceilings").plot(found)["roofline"])
    assert any(text.startswith("fp32 1") and text.endswith("GFLOP/s") for text in labels)


def test_training_steps_stand_under_the_same_roofs(full):
    found = results(full, "end_to_end")
    steps = roofline.steps(found.groups())
    assert {point.dtype for point in steps} == {"fp32", "bf16"}
    labels = texts(experiments.load("end_to_end").plot(found)["roofline"])
    assert any(text.startswith("fp32 1") and text.endswith("GFLOP/s") for text in labels)
    assert "training step" in labels


def test_the_vendors_roof_is_dashed(full):
    found = results(full, "ceilings")
    vendor = dataclasses.replace(found.peaks, vendor_flops_per_s={"fp32": 2e11, "tf32": 3e11}, vendor_bytes_per_s=4e10)
    figure = roofline.draw(vendor, [], "")
    dashed = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in dashed] == [2e11]  # none for a dtype that was not measured


def test_roofs_near_each_other_share_their_text(full):
    found = results(full, "ceilings").peaks
    near = dataclasses.replace(found, measured={"fp32": found.measured["fp32"], "tf32": found.measured["fp32"]})
    assert [names for names, _ in roofline._roofs(near)] == [["fp32", "tf32"]]


def luminance(color):
    red, green, blue = to_rgb(color)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_phases_differ_in_grey_as_well():
    greys = sorted(luminance(figures.PHASE_COLORS[phase]) for phase in ("forward", "backward", "optimizer"))
    assert all(b - a > 0.05 for a, b in itertools.pairwise(greys))
    assert len(set(figures.PHASE_MARKERS.values())) == len(figures.PHASE_MARKERS)


def test_drawing_leaves_the_settings_of_matplotlib_alone(full):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    drawn(full, "numerics")
    assert dict(mpl.rcParams) == before


def test_an_empty_list_of_points_is_a_sentence(tmp_path):
    figure = end_to_end._phases([], "")
    assert end_to_end.NO_NUMBERS in texts(figure)


def test_a_legend_has_as_many_columns_as_fit():
    for label, columns in (("short", 5), ("so long that five do not fit", 2)):
        figure = figures.new(2, "a picture")
        axes = figure.subplots()
        for number in range(5):
            axes.plot([1, 2], [number, number], label=f"{label} {number}")
        figures.legend_above(figure, 5)
        figure.canvas.draw()
        (legend,) = figure.legends
        assert legend._ncols == columns
        assert legend.get_window_extent().x1 <= figure.bbox.x1


@pytest.mark.parametrize("which", ["x", "y"])
@pytest.mark.parametrize(("low", "high"), [(1.0, 3000.0), (0.2, 0.9), (0.071, 0.073), (1.02, 1.05)])
def test_a_logarithmic_axis_can_be_read_however_little_it_spans(which, low, high):
    figure = figures.new(2, "a picture")
    axes = figure.subplots()
    axes.plot([low, high], [low, high])
    figures.log_axis(axes, which)
    figure.canvas.draw()
    axis = axes.xaxis if which == "x" else axes.yaxis
    first, last = axes.get_xlim() if which == "x" else axes.get_ylim()
    told = [
        float(label.get_text())
        for label, place in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True)
        if first <= place <= last and label.get_text()
    ]
    assert 2 <= len(told) == len(set(told)) <= 13


def test_points_say_what_they_show_and_which_records_it_rests_on(full, tmp_path):
    figures.write(experiments.load("end_to_end").plot(results(full, "end_to_end")), tmp_path)
    kept = figures.read(tmp_path / "phases.json")
    svg = (tmp_path / "phases.svg").read_text()
    assert len(kept.points) > 10
    for name, said in kept.points.items():
        assert f'id="{name}"' in svg
        assert said["records"]
        assert all((full.root / path).is_file() for path in said["records"])
    texts_ = [said["text"] for said in kept.points.values()]
    assert any(re.match(r"nano.*, forward: [\d.]+ .s \[", text) for text in texts_), texts_
    assert len(figures.read(tmp_path / "speedups.json").points) == 3
    assert figures.read(tmp_path / "roofline.json").points
    figures.write({"none": figures.nothing("Nothing here.")}, tmp_path)
    assert figures.read(tmp_path / "none.json").empty == "Nothing here."


def test_hollow_means_a_warning_and_nothing_else(empty):
    grid = [cell for cell in empty.grid("end_to_end") if cell.replicate == 0]
    for cell, spread in zip(grid, [0.4] + [0.01] * len(grid), strict=False):
        values = synthetic.decoder_step(empty, cell, np.random.default_rng(3), spread)
        synthetic.write(empty, "end_to_end", cell, **values)
    for name in ("phases", "roofline", "context"):
        figure = drawn(empty, "end_to_end")[name]
        faces = [line.get_markerfacecolor() for axes in figure.axes for line in axes.lines if line.get_gid()]
        assert "white" in faces, name
        assert len(set(faces)) > 1, name
        assert any(text.startswith("hollow: ") for text in texts(figure)), name


def test_coordinates_are_hundredths_and_scales_are_exact(full, tmp_path):
    figures.write(drawn(full, "numerics"), tmp_path)
    svg = next(tmp_path.glob("*.svg")).read_text()
    assert re.search(r"^L \d+\.\d\d ", svg, re.MULTILINE)
    assert not re.search(r"^[ML] \d+\.\d{3}|[xy]=\"\d+\.\d{3}", svg, re.MULTILINE)
    assert "scale(0.015625)" in svg
    assert "scale(0.095 -0.095)" in svg
