"""This host's own addresses."""

from stepbench.parallel import addresses


def test_loopback_is_tried_last() -> None:
    found = addresses.of_this_host()
    assert any(each.startswith("127.") for each in found)
    assert found == sorted(found, key=lambda address: address.startswith("127."))
    assert addresses.interface("127.0.0.1") is not None
    assert addresses.interface("192.0.2.1") is None
