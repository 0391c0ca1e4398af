"""Machines side by side: what is compared with what, at which price, and what is refused."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.reporting import synthetic, synthetic_on_ranks

from stepbench.cli import main as command_line
from stepbench.comparison import brief, document, headlines, machines, pairs
from stepbench.comparison.machines import Machine
from stepbench.comparison.pairs import Difference
from stepbench.experiments import experiment as experiments
from stepbench.pipeline import bundle, cells, config, staleness
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States
from stepbench.reporting import statistics
from stepbench.reporting.prices import Price

GRIDS: dict[str, Any] = {
    "end_to_end": [{"size": ["nano"], "context": [64], "replicate": [0, 1, 2, 3, 4]}],
    "attention": [{"implementation": ["naive"], "seq": [128], "head_dim": [64]}],
    "collectives": [{"operation": ["all_reduce"], "backend": ["gloo"], "ranks": [2], "payload_bytes": [2**20]}],
    "encoder_decoder": [{"preset": ["3.5M"], "data": ["memory"], "megabytes": [3], "ranks": [2], "steps": [8]}],
}
HERE, THERE = "imaginary-2c", "rented-8x"


def bench_named(root: Path, name: str, **changes: Any) -> Bench:
    settings = synthetic.settings(**GRIDS) | {"machine": name} | changes
    return Bench(settings, root=root, schema=synthetic.ROOT / config.SCHEMA)


def fill(bench: Bench, *, factor: float = 1.0, seed: int = 0) -> None:
    """Write records of a machine on which everything takes a given multiple of the usual time."""
    synthetic.fill(bench, "end_to_end", "attention", seed=seed, spread=0.002)
    synthetic_on_ranks.fill(bench, "collectives", "encoder_decoder", seed=seed, spread=0.002)
    if factor != 1.0:
        for name in GRIDS:
            for cell in bench.grid(name):
                record = States(bench).of(cell).record
                assert record
                scaled = {key: _times(values, factor) for key, values in record.samples.items()}
                synthetic.write(bench, name, cell, samples=scaled, scalars=record.scalars)


def _times(values: list[Any], factor: float) -> list[Any]:
    return [_times(each, factor) if isinstance(each, list) else each * factor for each in values]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("both")
    fill(bench_named(root, THERE), factor=0.5, seed=1)
    fill(bench_named(root, HERE))
    return root


@pytest.fixture
def both(made: Path, tmp_path: Path) -> Bench:
    """This machine, and another one that takes half as long for everything."""
    return bench_named(Path(shutil.copytree(made, tmp_path / "bench")), HERE)


def pair_of(bench: Bench, **prices: Price) -> tuple[Machine, Machine]:
    found = {machine.name: machine for machine in machines.load(States(bench))}
    here, there = found[HERE], found[THERE]
    return (
        dataclasses.replace(here, price=prices.get("here", here.price)),
        dataclasses.replace(there, price=prices.get("there", there.price)),
    )


# -- what is compared --------------------------------------------------------------------------------------------------


def test_every_headline_is_a_ratio_with_a_verdict(both: Bench) -> None:
    found = pairs.compare(*pair_of(both))
    assert [pair.mine.metric.name for pair in found.pairs] == [metric.name for metric in headlines.METRICS]
    assert all(pair.comparison.ratio == pytest.approx(2.0, rel=0.05) for pair in found.pairs)
    by_metric = {pair.mine.metric.name: pair.comparison for pair in found.pairs}
    step = by_metric["whole training step"]
    assert (step.verdict, step.processes) == (statistics.Verdict.FASTER, (5, 5))
    assert step.low is not None
    assert step.high is not None
    assert step.low < 2 < step.high
    assert by_metric["training epoch"].verdict is statistics.Verdict.UNCLEAR  # one process a side
    assert (found.unlike, found.alone) == ((), ((), ()))


def test_a_document_is_kept_as_values_and_says_the_same_at_another_level(both: Bench, tmp_path: Path) -> None:
    made = document.build(pair_of(both, here=CHEAP, there=DEAR))
    (tmp_path / "comparison.json").write_text(document.dump(made))
    kept = document.read(tmp_path / "comparison.json")
    assert (
        document.markdown(kept) == document.markdown(made) == document.document(pair_of(both, here=CHEAP, there=DEAR))
    )
    deeper = document.markdown(kept, level=2)
    assert deeper.startswith("## Machines compared\n")
    assert "\n#### rented-8x over imaginary-2c\n" in deeper
    links = re.findall(r"\]\((\.\./results/[^)]+)\)", deeper)
    assert {link.split("/")[2] for link in links} == {HERE, THERE}
    assert all((both.root / "report" / link).resolve().is_file() for link in links)


def test_rates_are_work_over_the_median_time(both: Bench) -> None:
    here, _ = pair_of(both)
    found = {each.metric.name: each for each in headlines.headlines(here.records)}
    (cell,) = both.grid("encoder_decoder")
    record = States(both).of(cell).record
    assert record
    epochs = sorted(max(step) for step in zip(*record.samples["epoch_s"], strict=True))
    assert found["training epoch"].rate == pytest.approx(record.scalars["samples_per_epoch"] / epochs[1])
    steps = [record for record in here.records if record.experiment == "end_to_end"]
    assert len(found["whole training step"].medians_s) == len(steps) == 5
    sums = sorted(f + b for f, b in zip(steps[0].samples["forward_s"], steps[0].samples["backward_s"], strict=True))
    assert found["forward and backward"].medians_s[0] == pytest.approx(sums[len(sums) // 2])


def test_another_protocol_is_not_compared_and_said_why(tmp_path: Path) -> None:
    protocol = synthetic.settings()["protocol"]
    other = protocol | {"cpu": protocol["cpu"] | {"measured_steps": 99}}
    fill(bench_named(tmp_path, THERE, protocol=other))
    here = bench_named(tmp_path, HERE)
    fill(here)
    found = pairs.compare(*pair_of(here))
    assert found.pairs == ()
    assert len(found.unlike) == len(headlines.METRICS)
    mine = protocol["cpu"]["measured_steps"]
    assert all(
        f"protocol.measured_steps is {mine} here, 99 there" in map(str, each.differences) for each in found.unlike
    )
    text = document.document(list(pair_of(here)))
    assert "Not comparable, because the settings differ:" in text


def test_another_size_under_the_same_name_is_not_compared(tmp_path: Path) -> None:
    sizes = synthetic.settings()["sizes"] | {"nano": {"d_model": 64, "d_ff": 512, "layers": 4, "heads": 4}}
    fill(bench_named(tmp_path, THERE, sizes=sizes))
    here = bench_named(tmp_path, HERE)
    fill(here)
    found = pairs.compare(*pair_of(here))
    assert {each.mine.metric.name for each in found.unlike} == {"forward and backward", "whole training step"}
    assert all("size.d_model is 128 here, 64 there" in map(str, each.differences) for each in found.unlike)


def test_where_shards_lie_belongs_to_the_machine(tmp_path: Path) -> None:
    grid = {"encoder_decoder": {"cpu": [GRIDS["encoder_decoder"][0] | {"data": ["disk"]}]}}
    data = synthetic.settings()["data"]
    for name, folder in ((THERE, "/mnt/fast"), (HERE, "/mnt/slow")):
        bench = bench_named(tmp_path, name, experiments=grid, data=data | {"shards_dir": folder})
        synthetic_on_ranks.fill(bench)
    assert len(pairs.compare(*pair_of(bench)).pairs) == 1


def test_other_code_is_a_note(both: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (both.root / "results" / THERE).glob("collectives/*.json"):
        from stepbench.pipeline import records

        record = records.read(path)
        records.write(path, dataclasses.replace(record, fingerprint=record.fingerprint | {"source": {"x": "old"}}))
    found = pairs.compare(*pair_of(both))
    noted = {pair.mine.metric.name for pair in found.pairs if pair.notes}
    assert noted == {"all-reduce, bus bandwidth"}


def test_what_only_one_machine_has_is_counted(tmp_path: Path) -> None:
    here = bench_named(tmp_path, HERE)
    fill(here)
    synthetic_on_ranks.fill(bench_named(tmp_path, THERE), "collectives")
    found = pairs.compare(*pair_of(here))
    assert (len(found.pairs), *map(len, found.alone)) == (1, 4, 0)


def test_stale_numbers_of_this_machine_are_not_compared(both: Bench) -> None:
    today = bench_named(both.root, HERE, vocabulary=9999)
    found = {machine.name: machine for machine in machines.load(States(today))}
    assert {record.experiment for record in found[HERE].records} == {"attention", "collectives", "encoder_decoder"}


# -- prices ------------------------------------------------------------------------------------------------------------

CHEAP, DEAR = Price(1.0, "EUR", "2026-11-21", "a list"), Price(4.0, "EUR", "2026-11-20", "another list")


def test_prices_make_work_per_money_the_cost_of_an_epoch_and_where_it_breaks_even(both: Bench) -> None:
    here, there = pair_of(both, here=CHEAP, there=DEAR)
    found = pairs.compare(here, there)
    table = document._costs(here, there, found)
    assert table
    rows = {row["metric"]: row for row in table.rows}
    assert set(rows) == {"forward and backward", "whole training step", "training epoch"}
    for pair in found.pairs:
        if pair.mine.metric.name in rows:
            row = rows[pair.mine.metric.name]
            assert row["mine_per_money"] == pytest.approx(pair.mine.rate * 3600)
            assert row["other_per_money"] == pytest.approx(pair.other.rate * 3600 / 4)
            assert row["per_money_ratio"] == pytest.approx(0.5, rel=0.05)
            assert row["break_even_per_device_hour"] == pytest.approx(2.0, rel=0.05)
    epoch = next(pair for pair in found.pairs if pair.mine.metric.name == "training epoch")
    seconds = epoch.mine.work / epoch.mine.rate
    assert rows["training epoch"]["mine_epoch_cost"] == pytest.approx(seconds / 3600)
    assert rows["training epoch"]["other_epoch_cost"] == pytest.approx(seconds / 2 / 3600 * 4, rel=0.05)
    text = document.document([here, there])
    assert (
        "1.00 EUR per device-hour (2026-11-21, a list); rented-8x: 4.00 EUR per device-hour (2026-11-20, another list)"
        in text
    )


def test_many_devices_cost_as_many_prices(both: Bench) -> None:
    here, there = pair_of(both, here=CHEAP, there=DEAR)
    on_gpus = tuple(
        dataclasses.replace(record, environment=record.environment | {"device": "cuda"}) for record in there.records
    )
    there = dataclasses.replace(there, records=on_gpus)
    table = document._costs(here, there, pairs.compare(here, there))
    assert table
    rows = {row["metric"]: row for row in table.rows}
    assert rows["whole training step"]["break_even_per_device_hour"] == pytest.approx(2.0, rel=0.05)
    assert rows["training epoch"]["break_even_per_device_hour"] == pytest.approx(1.0, rel=0.05)  # two ranks


def test_one_price_alone_still_says_where_it_breaks_even(both: Bench) -> None:
    text = document.document(list(pair_of(both, here=CHEAP)))
    assert "break-even price" in text
    assert "Without a value in any row: rented-8x, per EUR; ratio." in text
    assert "Costs" not in document.document(list(pair_of(both)))


def test_two_currencies_are_not_compared(both: Bench) -> None:
    text = document.document(list(pair_of(both, here=CHEAP, there=Price(4.0, "USD"))))
    assert "because the prices are in different currencies: 1 EUR and 4 USD." in text


def test_prices_come_from_the_configuration_and_the_command_line(both: Bench) -> None:
    told = {THERE: {"per_device_hour": 2.5, "currency": "CHF", "date": "2026-11-01", "source": "a list"}}
    bench = bench_named(both.root, HERE, prices=told)
    found = machines.load(States(bench))
    assert {machine.name: machine.price for machine in found}[THERE] == Price(2.5, "CHF", "2026-11-01", "a list")
    changed = {machine.name: machine.price for machine in machines.priced(found, [f"{HERE}=0.5"])}
    assert changed[HERE] == Price(0.5, "CHF")
    assert changed[THERE] == Price(2.5, "CHF", "2026-11-01", "a list")
    for wrong in ("nobody=1", f"{HERE}=0", f"{HERE}=-1", f"{HERE}=nan", f"{HERE}=inf", HERE, f"{HERE}=1;2"):
        with pytest.raises(ValueError, match="`--price` must be <machine>=<amount above 0>"):
            machines.priced(found, [wrong])


@pytest.mark.parametrize(
    ("price", "problem"),
    [
        ({"per_device_hour": 0, "currency": "USD", "date": "2026-11-01", "source": "x"}, "an amount of money above 0"),
        ({"per_device_hour": 1, "currency": "dollars", "date": "2026-11-01", "source": "x"}, "three capital letters"),
        ({"per_device_hour": 1, "currency": "USD", "date": "yesterday", "source": "x"}, "a date in quotes"),
        ({"per_device_hour": 1, "currency": "USD"}, "`prices.rented-8x.date` must be given"),
        (
            {"purchase": 1, "currency": "USD", "date": "2026-11-01", "source": "x"},
            "either per_device_hour, or ",
        ),
    ],
)
def test_a_price_that_is_none_is_refused(tmp_path: Path, price: dict[str, Any], problem: str) -> None:
    with pytest.raises(config.ConfigError, match=problem):
        bench_named(tmp_path, HERE, prices={THERE: price})


def test_a_price_makes_the_comparison_stale_and_nothing_else(both: Bench) -> None:
    told = {THERE: {"per_device_hour": 2.5, "currency": "CHF", "date": "2026-11-01", "source": "a list"}}
    for kind in ("comparison", "writeup"):
        staleness.mark_rendered(both, kind)
        assert staleness.rendered(States(both), kind)(None) == []
    dearer = bench_named(both.root, HERE, prices=told)
    assert len(staleness.rendered(States(dearer), "comparison")(None)) == 1
    assert len(staleness.rendered(States(dearer), "writeup")(None)) == 1  # its summary says what training costs
    assert all(States(dearer).of(cell).kind == "fresh" for name in GRIDS for cell in dearer.grid(name))


def test_a_merged_record_makes_the_comparison_stale(both: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    staleness.mark_rendered(both, "comparison")
    assert staleness.rendered(States(both), "comparison")(None) == []
    third = bench_named(tmp_path_factory.mktemp("third"), "third-1x")
    fill(third)
    bundle.merge(both, bundle.pack(third, third.root))
    assert len(staleness.rendered(States(both), "comparison")(None)) == 1
    assert "third-1x" in {machine.name for machine in machines.load(States(both))}


# -- what others say ---------------------------------------------------------------------------------------------------


def test_published_tables_are_bundles_that_can_be_believed_and_say_where_they_are_from() -> None:
    files = sorted(machines.PUBLISHED.glob("*.json"))
    assert len(files) >= 4
    for file in files:
        content = json.loads(file.read_text())
        assert content["version"] == bundle.VERSION
        assert content["machine"] == file.stem
        assert content["published"]["source"]
        machine = machines._published(file, None)
        assert machine.published
        for name, record in content["records"].items():
            folder, _, stem = name.removesuffix(".json").partition("/")
            cell = cells.parse(experiments.load(folder).cell, stem)
            assert (record["experiment"], record["cell"]) == (folder, cell.values)
            assert record["samples"] == {}
            assert record["fingerprint"] == {}


def on_a_named_host(machine: Machine) -> Machine:
    named = (
        dataclasses.replace(record, environment={**record.environment, "cpu": "Named CPU"})
        for record in machine.records
    )
    return dataclasses.replace(machine, records=tuple(named))


def test_published_means_are_compared_with_measured_ones_and_noted(tmp_path: Path) -> None:
    bench = bench_named(tmp_path, HERE)
    fill(bench)
    mine, *others = machines.load(States(bench))
    # All that is shared is Gloo's, whose host the documents do not name.
    assert not [pair for other in others for pair in pairs.compare(mine, other).pairs]
    shared = {}
    for other in others:
        for pair in pairs.compare(mine, on_a_named_host(other)).pairs:
            shared[other.name] = pair
    assert set(shared) == {"nvidia-geforce-rtx-4060-laptop-gpu-1x-published", "nvidia-geforce-rtx-5090-2x-published"}
    pair = shared["nvidia-geforce-rtx-5090-2x-published"]
    assert pair.mine.metric.name == "all-reduce, bus bandwidth"
    assert pair.other.rate == pytest.approx(2**20 / 1.177e-3)
    assert pair.comparison.verdict is statistics.Verdict.UNCLEAR
    assert "published means" in pair.notes
    text = document.document([mine, *others])
    assert "Published, not measured by stepbench:" in text
    assert "No cell in common with apple-m4-macbook-air" in text


def test_a_published_protocol_that_is_another_is_not_compared() -> None:
    files = {file.stem: machines._published(file, None) for file in machines.PUBLISHED.glob("*.json")}
    laptop = on_a_named_host(files["nvidia-geforce-rtx-4060-laptop-gpu-1x"])
    other = dataclasses.replace(
        laptop,
        records=tuple(
            dataclasses.replace(each, protocol={"warmup_steps": 3}) if each.protocol else each
            for each in laptop.records
        ),
    )
    found = pairs.compare(laptop, other)
    assert {pair.mine.metric.name for pair in found.pairs} == {"all-reduce, bus bandwidth"}
    assert all(each.differences == (Difference("warmup_steps", 5, 3),) for each in found.unlike)
    assert len(found.unlike) == 5


def test_damaged_records_of_others_are_counted_and_never_shown(both: Bench) -> None:
    (file, *_) = sorted((both.root / "results" / THERE / "collectives").glob("*.json"))
    file.write_text(file.read_text().replace('"message_bytes": 1048576', '"message_bytes": 9048576'))
    (both.root / "results" / THERE / "attention" / "x~<script>.json").write_text("{}")
    here, there = pair_of(both)
    assert len(there.refused) == 2
    text = document.document([here, there])
    assert "2 records unreadable." in text
    assert "| all-reduce, bus bandwidth |" not in text
    assert "<script>" not in text


def test_a_record_from_elsewhere_without_sense_has_no_headline(both: Bench) -> None:
    """Its checksum may be right all the same."""
    here, there = pair_of(both)
    changed = {
        "end_to_end": {"scalars": {"tokens_per_step": "many"}},
        "attention": {"samples": {"forward_s": [1.0], "backward_s": [1.0, 2.0]}},
        "collectives": {"cell": {"operation": "all_reduce", "backend": "gloo", "ranks": 0, "payload_bytes": 4}},
        "encoder_decoder": {"samples": {}},
    }
    odd = tuple(dataclasses.replace(each, **changed[each.experiment]) for each in there.records)
    assert headlines.headlines(odd) == []
    vague = tuple(dataclasses.replace(each, fingerprint={"definition": [1]}) for each in there.records)
    assert len(pairs.compare(here, dataclasses.replace(there, records=vague)).pairs) == 5


def test_every_replicate_must_be_alike(both: Bench) -> None:
    here, there = pair_of(both)
    last = max(number for number, each in enumerate(there.records) if each.experiment == "end_to_end")
    records = list(there.records)
    definition = records[last].fingerprint["definition"] | {"vocabulary": 7}
    records[last] = dataclasses.replace(records[last], fingerprint={"definition": definition})
    found = pairs.compare(here, dataclasses.replace(there, records=tuple(records)))
    assert {each.mine.metric.name for each in found.unlike} == {"forward and backward", "whole training step"}
    assert all(each.differences == (Difference("vocabulary", 10000, 7),) for each in found.unlike)


def test_a_published_machine_is_never_the_one_that_is_here(tmp_path: Path) -> None:
    bench = bench_named(tmp_path, "nvidia-geforce-rtx-5090-2x")
    fill(bench)
    names = [machine.name for machine in machines.load(States(bench))]
    assert len(set(names)) == len(names)
    assert names[0] == "nvidia-geforce-rtx-5090-2x"


def test_what_the_rules_compare_is_what_has_headlines() -> None:
    """The Snakefile is read without pandas, so the names stand twice."""
    assert set(staleness.COMPARED) == {metric.experiment for metric in headlines.METRICS}


# -- the terminal ------------------------------------------------------------------------------------------------------


def test_two_machines_are_compared_in_a_terminal(
    both: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Bench, "open", lambda _root, **_more: both)
    assert command_line.main(["compare", HERE, THERE, "--price", f"{HERE}=3.00"]) == 0
    out = capsys.readouterr().out
    assert "# Machines compared" in out
    assert "3.00 per device-hour" in out
    assert command_line.main(["compare", HERE, "nobody"]) == 2
    assert "a machine must be one of imaginary-2c, rented-8x, " in capsys.readouterr().err
    assert command_line.main(["compare", HERE]) == 2
    assert "two machines or more" in capsys.readouterr().err


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    mine = machines.load(States(bench_named(tmp_path, HERE)))[0]
    assert "imaginary-2c has no measurements that can be compared yet." in document.document([mine, mine])
    full = dataclasses.replace(mine, records=(None,))  # type: ignore[arg-type]
    assert "No other machine is known" in document.document([full])


# -- in brief ----------------------------------------------------------------------------------------------------------


def test_in_brief_a_machine_has_its_ratio_its_costs_and_when_buying_pays(both: Bench) -> None:
    bought = Price.of(
        {
            "purchase": 1000,
            "lifetime_hours": 10_000,
            "watts": 500,
            "price_per_kwh": 0.4,
            "utilisation": 0.5,
            "currency": "EUR",
            "date": "2026-11-20",
            "source": "a shop",
        }
    )
    assert bought.per_device_hour == pytest.approx(0.2 + 0.2)
    here, there = pair_of(both, here=bought, there=DEAR)
    found = brief.of(here, there, pairs.compare(here, there))
    assert found.ratio == pytest.approx(2, rel=0.05)
    # The rented one does twice the work for 4 an hour, so this one's work is worth 2 an hour, less 0.2 of energy.
    assert found.break_even_hours == pytest.approx(1000 / 1.8, rel=0.06)
    mine, other = found.costs
    assert mine
    assert other
    assert other / mine == pytest.approx(4 / 0.4 / 2, rel=0.05)
    text = brief.sentence(found, HERE)
    assert text.startswith(f"{THERE} runs at 2.0")
    assert f"EUR on {HERE} and " in text
    assert "Buying pays after 5" in text


def test_in_brief_with_nothing_shared_there_are_commands_for_what_is_missing(both: Bench) -> None:
    here, there = pair_of(both, here=CHEAP)
    bare = dataclasses.replace(here, records=())
    found = brief.of(bare, there, pairs.compare(bare, there))
    assert (found.ratio, found.break_even_hours) == (None, None)
    assert found.commands
    assert all(each.startswith("stepbench measure end_to_end size=") for each in found.commands)
    assert "can be compared" in brief.sentence(found, HERE)


def test_briefs_survive_their_file(both: Bench, tmp_path: Path) -> None:
    made = document.build(list(pair_of(both, here=CHEAP, there=DEAR)))
    file = tmp_path / "comparison.json"
    file.write_text(document.dump(made), encoding="utf-8")
    assert document.read(file).briefs == made.briefs
    assert made.briefs[0].ratio


# -- what others published ---------------------------------------------------------------------------------------------


def test_published_results_have_a_table_even_where_no_cell_is_shared(tmp_path: Path) -> None:
    bench = bench_named(tmp_path, HERE)
    made = document.build(machines.load(States(bench)))
    assert made.published
    rows = [row.values for row in made.published.rows]
    devices = {row["device"] for row in rows}
    assert {"NVIDIA GeForce RTX 5090", "one NVIDIA H100", "host of NVIDIA GeForce RTX 4060 Laptop GPU"} <= devices
    board = [row for row in rows if row["device"] == "one NVIDIA H100"]
    assert [row["time_s"] for row in board] == pytest.approx([5.364e-3, 6.778e-3, 11.07e-3, 22.59e-3, 28.45e-3, 80e-3])
    # 3.5 times the two products of the forward pass, of which the mask leaves half.
    assert board[0]["rate_per_s"] == pytest.approx(3.5 * 2 * 16 * 16384**2 * 64 / 5.364e-3)
    assert "## What others published" in document.markdown(made)


def test_gloo_is_compared_where_both_hosts_are_known_alone(both: Bench) -> None:
    here, there = pair_of(both)
    gloo = [pair for pair in pairs.compare(here, there).pairs if pair.mine.cell.get("backend") == "gloo"]
    assert gloo
    assert all("a number of the host's CPU" in pair.notes for pair in gloo)
    unnamed = tuple(
        dataclasses.replace(record, environment={**record.environment, "cpu": None}) for record in there.records
    )
    found = pairs.compare(here, dataclasses.replace(there, records=unnamed))
    assert not [pair for pair in found.pairs if pair.mine.cell.get("backend") == "gloo"]
    (unlike,) = [each for each in found.unlike if each.mine.cell.get("backend") == "gloo"]
    assert str(unlike.differences[0]).endswith("not stated there")
