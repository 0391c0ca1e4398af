"""Whether a machine runs on its battery, from a folder of power supplies."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from stepbench.measure import battery, environment

MAINS = {"type": "Mains", "online": "1"}
UNPLUGGED = {"type": "Mains", "online": "0"}
FULL = {"type": "Battery", "status": "Full"}
EMPTYING = {"type": "Battery", "status": "Discharging"}
MOUSE = {"type": "Battery", "status": "Discharging", "scope": "Device"}


def supplies(folder: Path, *found: dict[str, str]) -> Path:
    for number, each in enumerate(found):
        own = folder / f"supply{number}"
        own.mkdir()
        for name, content in each.items():
            (own / name).write_text(f"{content}\n")
    return folder


@pytest.mark.skipif(battery.sys.platform != "linux", reason="Linux' folder")
@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ((), None),
        ((MAINS,), None),
        ((MAINS, MOUSE), None),
        ((MAINS, FULL), False),
        ((UNPLUGGED, EMPTYING), True),
        ((UNPLUGGED, EMPTYING, MOUSE), True),
        ((MAINS, EMPTYING), True),  # a load above what the supply gives
        ((EMPTYING, FULL), True),  # the second of two batteries
        (({"type": "USB", "online": "0"}, MAINS, {"type": "Battery", "status": "Unknown"}), False),
        ((UNPLUGGED, {"type": "Battery", "status": "Unknown"}), True),
        (({"type": "Battery"},), None),
        (({"type": "Battery", "status": "Not charging"},), False),
        (({"online": "0"}, {"type": "Mains"}, FULL), False),
    ],
)
def test_a_machine_on_its_battery_is_told_from_one_that_is_plugged_in(
    tmp_path: Path, found: tuple[dict[str, str], ...], expected: bool | None
) -> None:
    assert battery.in_use(supplies(tmp_path, *found)) is expected


def test_it_is_read_before_and_after_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in (True, False, None):
        monkeypatch.setattr(battery, "in_use", lambda answer=answer: answer)
        assert environment.state("cpu")["on_battery"] is answer


@pytest.mark.parametrize(
    ("answer", "expected"), [(None, None), (True, False), (False, True), (OSError, None), (NotImplementedError, None)]
)
def test_elsewhere_psutil_is_asked(monkeypatch: pytest.MonkeyPatch, answer: object, expected: bool | None) -> None:
    def sensors() -> SimpleNamespace | None:
        if isinstance(answer, type):
            raise answer
        return None if answer is None else SimpleNamespace(power_plugged=answer)

    monkeypatch.setattr(battery.sys, "platform", "darwin")
    monkeypatch.setattr(psutil, "sensors_battery", sensors, raising=False)
    assert battery.in_use() is expected
