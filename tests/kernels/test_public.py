"""The public face of the kernels: one import, and names that are read without torch."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest
import torch

from stepbench import kernels
from stepbench.kernels.contract import Implementation
from stepbench.kernels.names import IMPLEMENTATIONS, modules


def test_attention_can_be_imported_and_called() -> None:
    from stepbench.kernels import attention

    q, k, v = torch.randn(3, 1, 2, 8, 16)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(attention(q, k, v, is_causal=True, impl="tiled"), expected)


@pytest.mark.parametrize("name", kernels.__all__)
def test_every_public_name_exists_and_is_listed(name: str) -> None:
    assert getattr(kernels, name) is not None
    assert name in dir(kernels)


def test_a_name_that_is_not_public_is_refused() -> None:
    with pytest.raises(AttributeError, match=r"module 'stepbench.kernels' has no attribute 'attend'"):
        _ = kernels.attend


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_the_registry_names_an_implementation(name: str) -> None:
    module, _, attribute = IMPLEMENTATIONS[name].partition(":")
    assert modules(name) == (module,)
    assert isinstance(getattr(importlib.import_module(module), attribute), Implementation)


def test_names_are_read_without_torch() -> None:
    script = "import sys; from stepbench.kernels import names; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
