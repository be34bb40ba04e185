"""Devices and precisions: nothing falls back silently."""

import pytest
import torch

from command import BadInput
from nets import device


def test_auto_is_float32_where_bf16_would_be_emulated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "computes_in_bf16", lambda name: False)
    assert device.resolve_precision("auto", "cpu") == "float32"
    monkeypatch.setattr(device, "computes_in_bf16", lambda name: True)
    assert device.resolve_precision("auto", "cpu") == "bf16"
    assert device.resolve_precision("float32", "cpu") == "float32"


def test_an_absent_device_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "available_devices", lambda: ["cpu"])
    with pytest.raises(BadInput, match="--device=cuda is not on this machine: choose one of cpu"):
        device.fabric("cuda")


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(BadInput, match="fp16 needs a GPU"):
        device.fabric("cpu", "fp16")


def test_images_reach_the_net_unrounded_under_autocast():
    running = device.fabric("cpu", "bf16", threads=1)
    model = running.setup_module(torch.nn.Identity())
    image = torch.tensor([1 / 65535])
    assert model(image + 0.5) == image + 0.5  # bf16 would make it 0.5
    net = running.setup_module(torch.nn.Linear(1, 1))
    seen = []
    net._forward_module.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    assert net(image).dtype == torch.float32 and seen == [torch.bfloat16]


def test_threads_are_those_asked_for():
    before = torch.get_num_threads()
    try:
        device.fabric("cpu", "float32", threads=1)
        assert torch.get_num_threads() == 1
        device.fabric("cpu", "float32")
        assert torch.get_num_threads() == device.num_cores()
    finally:
        torch.set_num_threads(before)
