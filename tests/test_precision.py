"""precision.py: the only module that asks for float64, and moves a tensor before it widens it."""

import ast

import pytest
import torch
from helpers.runs import ROOT
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from vae_exp import precision

SOURCE = ROOT / "src" / "vae_exp"


def asks_for_float64(node: ast.AST) -> bool:
    """`x.double()`, `torch.double`, `torch.float64`; numpy's float64 lies on the CPU."""
    if not (isinstance(node, ast.Attribute) and node.attr in ("double", "float64")):
        return False
    return not (isinstance(node.value, ast.Name) and node.value.id == "np")


def test_no_other_module_asks_for_float64():
    found = {
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in SOURCE.rglob("*.py")
        if path != SOURCE / "precision.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if asks_for_float64(node)
    }
    assert not found, "a device may have no float64: use precision.on_cpu or precision.exact"


class NoFloat64(TorchDispatchMode):
    """A device without float64, as Apple's mps."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.device.type != "cpu":
            assert result.dtype != torch.float64
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int64])
def test_a_tensor_comes_to_the_cpu_before_it_is_widened(dtype):
    # Fake tensors have a device and no numbers: no such machine is needed.
    with FakeTensorMode(), NoFloat64():
        x = precision.on_cpu(torch.ones(3, device="mps", dtype=dtype))
    assert (x.device.type, x.dtype) == ("cpu", torch.float64)


def test_on_cpu_keeps_the_numbers():
    x = torch.rand(100)
    assert torch.equal(precision.on_cpu(x).float(), x)
    assert precision.on_cpu(x).dtype == torch.float64


@pytest.mark.parametrize(("device", "dtype"), [("mps", torch.float32), ("cpu", torch.float64), ("cuda", torch.float64)])
def test_exact_is_what_the_device_has(device, dtype):
    with FakeTensorMode():
        assert precision.exact(torch.ones(1, device=device)) == dtype
