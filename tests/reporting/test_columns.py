"""How a point is distinguished from others."""

from types import SimpleNamespace
from typing import Any

from stepbench.reporting.columns import differences, variant, where


def point(**axes: Any) -> Any:
    return SimpleNamespace(point=axes)


SHOWN = [
    point(variant="fsdp", size="nano", precision="fp32", prefetch=1),
    point(variant="fsdp", size="nano", precision="bf16", prefetch=2),
    point(variant="ddp", size="xl", precision="fp32", prefetch=None),
]


def test_a_point_is_named_by_what_differs() -> None:
    assert differences(SHOWN[1], SHOWN[:2]) == "bf16, prefetch 2"
    assert differences(SHOWN[1], SHOWN) == "variant fsdp, nano, bf16, prefetch 2"
    assert differences(SHOWN[1], SHOWN, "variant", "precision") == "nano, prefetch 2"
    assert differences(SHOWN[2], SHOWN[2:]) == ""


def test_the_size_stands_first_even_where_there_is_one() -> None:
    assert where(SHOWN[1], SHOWN[:2]) == "nano, bf16, prefetch 2"
    assert where(SHOWN[2], SHOWN[2:]) == "xl"
    assert where(point(context=64), [point(context=64), point(context=32)]) == "context 64"


def test_a_variant_is_told_from_others_of_its_name_alone() -> None:
    assert [variant(each, SHOWN, "variant", "precision") for each in SHOWN] == [
        "fsdp (prefetch 1)",
        "fsdp (prefetch 2)",
        "ddp",
    ]
