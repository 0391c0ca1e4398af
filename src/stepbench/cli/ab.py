"""`stepbench ab`: the same cells on two sides, process by process in turn, until the interval decides."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepbench import terminal
from stepbench.cli.output import (
    FAILED_EXIT_CODE,
    add_configuration,
    add_format,
    open_bench,
    print_tables,
    setting,
)
from stepbench.experiments import experiment as experiments
from stepbench.pipeline import config
from stepbench.pipeline.bench import RUN_LOCK, Bench
from stepbench.process import interruption, lock
from stepbench.process.side import Side, SideError, side

if TYPE_CHECKING:
    from stepbench.comparison.ab import Measured, Result

MINUTES = 20.0
SIDES = ("a", "b")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "ab", help="compare two commits, two Python environments or two settings, measured in turn"
    )
    parser.add_argument("experiment", help=f"one of {', '.join(experiments.names())}")
    parser.add_argument("cells", nargs="+", metavar="CELL", help="axis=value,axis=value,…")
    for name in SIDES:
        parser.add_argument(
            f"--{name}", metavar="REF", help=f"side {name}: a commit, branch or tag (default: these files)"
        )
        parser.add_argument(f"--{name}-python", metavar="PATH", default=sys.executable, help="its interpreter")
        parser.add_argument(
            f"--{name}-config",
            metavar="KEY=VALUE",
            action="append",
            default=[],
            help="its setting, such as protocol.seed=1",
        )
    parser.add_argument(
        "--allow", metavar="KEY", action="append", default=[], help="a key of config.yaml in which the sides may differ"
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"the budget (default: {MINUTES:.0f})")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to keep it (default: results/MACHINE/ab/)")
    add_format(parser)
    add_configuration(parser)
    parser.set_defaults(run=ab)


def ab(options: argparse.Namespace) -> int:
    """Measure both sides in turn, print the verdicts, and keep all records in a file."""
    from stepbench.comparison import ab as trials  # 0.2 s
    from stepbench.reporting import tables

    bench = open_bench(options)
    if not options.minutes > 0:
        raise ValueError(f"`--minutes` must be above 0, got {options.minutes:g}")
    told = [*options.allow, *(text.partition("=")[0] for name in SIDES for text in vars(options)[f"{name}_config"])]
    lock.hold(bench.root / RUN_LOCK, "this folder")
    interruption.leave_on_signals()  # through what removes the sides' folders; a side's process is killed with it
    file = options.out or _file(bench)
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(_side(name, options)) for name in SIDES]

        def keep(found: Sequence[Measured]) -> list[Result]:
            results = [trials.result(each) for each in found if each.trial.processes]
            if not results:
                return []
            trials.write(file, results, {each.name: _described(each) for each in sides}, options.minutes)
            return results

        found = [trials.Measured(cell) for cell in options.cells]
        try:
            _measure(options.experiment, found, sides, told, time.monotonic() + 60 * options.minutes)
        except (SideError, trials.TrialError, SystemExit) as error:
            why = "stopped" if isinstance(error, SystemExit) else str(error)
            kept = f"; what was measured is in {file}" if keep(found) else ""
            terminal.say(f"{why}{kept}")
            if isinstance(error, SystemExit):
                raise
            return FAILED_EXIT_CODE
        results = keep(found)
    print_tables([tables.show(trials.table(results))], options.format)
    to = sys.stdout if options.format is None else sys.stderr
    for text in dict.fromkeys(text for each in results for text in each.differences):
        print(f"a to b: {text}", file=to)
    print(file, file=to)
    return 0


def _measure(
    experiment: str, found: Sequence[Measured], sides: Sequence[Side], told: Sequence[str], deadline: float
) -> None:
    """Measure each undecided cell on both sides, round by round, at least five times and until the deadline."""
    from stepbench.comparison import in_turn

    longest_s: dict[str, float] = {}
    for round_ in itertools.count():
        waiting = [each for each in found if not each.trial.decided and _has_time(each, longest_s, deadline)]
        if not waiting:
            return
        for each in waiting:
            start = time.monotonic()
            for one in in_turn.order(sides, round_):
                each.add(one.name, one.measure(experiment, each.cell))
            longest_s[each.cell] = max(longest_s.get(each.cell, 0.0), time.monotonic() - start)
            if round_ == 0 and (untold := each.untold(told)):
                what = "; ".join(map(str, untold))
                raise ValueError(f"the sides differ in more than was named ({what}); `--allow KEY` names what is meant")
            each.trial.look()
            _say(each)


def _has_time(each: Measured, longest_s: dict[str, float], deadline: float) -> bool:
    from stepbench.reporting.statistics import MIN_PROCESSES

    expected_s = longest_s.get(each.cell, 0.0)
    return each.trial.processes < MIN_PROCESSES or time.monotonic() + expected_s <= deadline


def _say(each: Measured) -> None:
    from stepbench.reporting import units

    trial = each.trial
    last = ", ".join(
        f"{name} {units.seconds(side[-1])}" for name, side in zip(SIDES, (trial.baseline, trial.other), strict=True)
    )
    verdict = f": {trial.comparison.verdict.value}" if trial.comparison is not None else ""
    terminal.say(f"[{trial.processes} a side] {each.cell}: {last}{verdict}", sign="")


def _side(name: str, options: argparse.Namespace) -> contextlib.AbstractContextManager[Side]:
    settings: dict[str, Any] = {}
    for file in options.configfile:
        settings = config.merge(settings, config.read(file))
    given = vars(options)[f"{name}_config"]
    for text in (*options.config, *given):
        settings = config.merge(settings, _nested(text))
    return side(
        name,
        home=options.root,
        ref=vars(options)[name],
        python=vars(options)[f"{name}_python"],
        settings=settings,
        told=tuple(given),
    )


def _nested(text: str) -> dict[str, Any]:
    """Return the mapping that `a.b=value` stands for; the value is YAML."""
    path, found = setting(text, "a setting")
    for key in reversed(path.split(".")):
        found = {key: found}
    return dict(found)


def _described(each: Side) -> dict[str, Any]:
    return {
        "ref": each.ref,
        "commit": each.commit,
        "python": each.python,
        "settings": each.settings,
    }


def _file(bench: Bench) -> Path:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    return bench.root / "results" / bench.machine / "ab" / f"{now}.json"
