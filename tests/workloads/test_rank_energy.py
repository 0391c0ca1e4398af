"""The energy of a step on ranks: all work until all are done, and one counter counts each device once."""

from typing import Any

import pytest
from tests.workloads import energy_on_ranks

from stepbench.parallel.launch import launch
from stepbench.workloads import rank_energy

GPU = {"steps": 900, "region_s": 1.1, "counter": "a GPU's"}


def test_the_energy_of_a_step_is_the_sum_of_what_the_devices_took() -> None:
    found = rank_energy.together([{**GPU, "joules": 2.0}, {**GPU, "joules": 3.0, "steps": 800}])
    assert found == (
        {"step_energy_joules": 5.0, "energy_steps": 800, "energy_region_s": 1.1},
        {"energy_counter": "a GPU's, of 2"},
    )
    # Of two ranks on a CPU one reads the counter of both.
    assert rank_energy.together([{**GPU, "joules": 2.0}, None])[0]["step_energy_joules"] == 2.0


@pytest.mark.parametrize("found", [[None, None], [{**GPU, "joules": None}, {**GPU, "joules": 2.0}]])
def test_what_one_device_does_not_tell_is_not_told_of_all(found: list[Any]) -> None:
    assert rank_energy.together(found) == ({}, {})


def test_ranks_on_a_cpu_read_its_counter_once_and_run_as_many_steps() -> None:
    watts = {"told": [500.0, 900.0], "standing": [0.0, 900.0], "missing": [None, 900.0]}
    arguments = {"watts": watts}
    first, second = launch(energy_on_ranks.count, 2, arguments=arguments, backend="gloo", deadline_s=100)
    for case in watts:
        assert first[case]["calls"] == second[case]["calls"], case
        assert second[case]["told"] is None  # the first rank of a node counts for all
    told = first["told"]["told"]
    assert told["counter"] == "a counter"
    assert told["region_s"] >= 0.1
    assert told["joules"] == pytest.approx(500 * told["region_s"] / told["steps"], rel=0.01)
    assert first["standing"]["told"]["joules"] is None
    assert (first["missing"]["told"], first["missing"]["calls"]) == (None, 0)
