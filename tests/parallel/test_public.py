"""The public face: names are resolved when they are used, and importing one strategy does not import all."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from stepbench import parallel
from stepbench.parallel.names import STRATEGIES, modules
from stepbench.parallel.replica import Strategy
from stepbench.parallel.strategies import strategy


def test_the_public_names_can_be_imported() -> None:
    from stepbench.parallel import FSDP, BucketedDDP, FlatDDP, NaiveDDP, OverlappedDDP, ShardedOptimizer, parallelize

    classes = (NaiveDDP, FlatDDP, OverlappedDDP, BucketedDDP, ShardedOptimizer, FSDP)
    assert {each.__module__.rpartition(".")[2] for each in classes} == {
        "naive",
        "flat",
        "overlapped",
        "bucketed",
        "sharded_optimizer",
        "fsdp",
    }
    assert callable(parallelize)


@pytest.mark.parametrize("name", parallel.__all__)
def test_every_public_name_exists_and_is_listed(name: str) -> None:
    assert getattr(parallel, name) is not None
    assert name in dir(parallel)


def test_a_name_that_is_not_public_is_refused() -> None:
    with pytest.raises(AttributeError, match=r"module 'stepbench.parallel' has no attribute 'NoDDP'"):
        _ = parallel.NoDDP


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_registry_names_a_strategy_of_a_module_of_its_own(name: str) -> None:
    (module,) = modules(name)
    assert isinstance(strategy(name), Strategy)
    assert strategy(name) is importlib.import_module(module).STRATEGY
    assert [other for other in STRATEGIES if modules(other) == (module,)] == [name]


def test_modules_of_several_names_come_once_each() -> None:
    assert modules("naive", "bucketed", "naive") == ("stepbench.parallel.naive", "stepbench.parallel.bucketed")


def test_one_strategy_does_not_import_the_others_and_names_import_no_torch() -> None:
    script = """
import sys
from stepbench.parallel import names
assert "torch" not in sys.modules
from stepbench.parallel import NaiveDDP
others = {names.modules(each)[0] for each in names.STRATEGIES if each not in ("naive", "none")}
print(sorted(others & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
