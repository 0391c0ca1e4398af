"""Which lines count as a device's: read from small texts, without a device."""

import textwrap

import pytest
from tests.fake_gpu import device_lines


def lines(text: str, **more: bool) -> list[int]:
    return sorted(device_lines.lines_of(textwrap.dedent(text).lstrip("\n"), **more))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def f():\n    a = 1\n    torch.cuda.synchronize()\n    return a\n", [3]),
        ('def f(d):\n    if d == "cuda":\n        a = 1\n    else:\n        a = 2\n    return a\n', [3]),
        ('def f(d):\n    if d != "cuda":\n        return None\n    a = 1\n    return a\n', [4, 5]),
        ('def f(d):\n    if d != "cuda":\n        a = 0\n    else:\n        a = 1\n    return a\n', [5]),
        ("def f(d):\n    if not KINDS[d].is_gpu:\n        return 0\n    return 1\n", [4]),
        ('def f(d):\n    """About torch.cuda."""\n    return d\n', []),
        ("@triton.jit\ndef f(d):\n    torch.cuda.synchronize()\n", []),
        ("torch.cuda.init()\n", []),  # an import enters it
    ],
)
def test_a_line_is_a_devices_where_its_text_says_so(text: str, found: list[int]) -> None:
    assert lines(text) == found


def test_of_a_module_for_devices_every_statement_inside_of_a_function_counts() -> None:
    text = """
    A = 1

    class C:
        b = 2

        def f(self):
            \"\"\"Do.\"\"\"
            def g():
                return 1
            return g()
    """
    assert lines(text, whole=True) == [9, 10]


def test_the_package_has_such_lines_in_every_module_that_is_named() -> None:
    found = device_lines.all_lines()
    assert set(device_lines.WHOLE) <= set(found)
    assert sum(map(len, found.values())) > 300
