import pytest

from stepbench.experiments.fits import edge


@pytest.mark.parametrize(("last", "expected"), [(7, 7), (7, 3), (7, 30), (0, 0), (0, 9), (5, 0), (1, 2)])
def test_the_edge_is_found_wherever_it_is_expected(last: int, expected: int) -> None:
    found = edge.find(lambda batch: batch <= last, expected)
    assert found.last == last
    assert (last + 1, False) in found.tried
    assert last == 0 or (last, True) in found.tried


def test_two_tries_are_enough_where_the_prediction_holds() -> None:
    assert len(edge.find(lambda batch: batch <= 43, 43).tried) == 2
