"""Every shortcut in a net computes what the plain formulation does: outputs, gradients, running statistics."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench import plain
from nets.enlarged import convolve_enlarged, enlarge
from nets.grouped import GroupedConv2d, block_diagonal, merged_groups
from nets.saltnet import SaltNet


def without_dropout(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    return net


def saltnet(encoder: str) -> nn.Module:
    torch.manual_seed(0)
    net = without_dropout(SaltNet(encoder)).double()
    for name, parameter in net.named_parameters():  # the contexts' zeros would hide what comes before them
        if "context" in name:
            nn.init.normal_(parameter, std=0.1)
    return net


@pytest.mark.parametrize("encoder", ["resnet18", "timm/convnext_atto"])
def test_saltnet_is_the_plain_net(encoder: str):
    torch.manual_seed(1)
    images = torch.rand(2, 3, 32, 64, dtype=torch.float64)
    outcomes = []
    for net in (saltnet(encoder), plain.net(saltnet(encoder))):
        output = net(images.to(memory_format=torch.channels_last))
        maps = [output.logits, *output.level_logits]
        torch.manual_seed(2)
        value = sum((x * torch.randn(x.shape, dtype=torch.float64)).sum() for x in [*maps, output.image_logits])
        gradients = torch.autograd.grad(value, list(net.parameters()), materialize_grads=True)
        outcomes.append(([*maps, output.image_logits], gradients, dict(net.named_buffers())))
    ours, plainly = outcomes
    torch.testing.assert_close(ours[0], plainly[0], rtol=1e-9, atol=1e-9)
    largest = max(gradient.abs().max() for gradient in plainly[1])
    torch.testing.assert_close(ours[1], plainly[1], rtol=1e-7, atol=float(1e-10 * largest))
    torch.testing.assert_close(ours[2], plainly[2], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("small", "size"), [((1, 1), (7, 9)), ((2, 3), (16, 12)), ((4, 4), (32, 32)), ((4, 4), (8, 8))]
)
def test_convolving_an_enlarged_map(small, size):
    torch.manual_seed(0)
    x = torch.randn(2, 5, *small, dtype=torch.float64, requires_grad=True)
    conv = nn.Conv2d(5, 3, 3, padding=1).double()
    with torch.autocast("cpu", enabled=False):
        found, expected = convolve_enlarged(x, size, conv.weight, conv.bias), conv(enlarge(x, size))
    torch.testing.assert_close(found, expected)
    direction, inputs = torch.randn_like(expected), [x, *conv.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, direction), torch.autograd.grad(expected, inputs, direction)
    )
    torch.testing.assert_close(
        convolve_enlarged(x, size, conv.weight), F.conv2d(enlarge(x, size), conv.weight, padding=1)
    )


@pytest.mark.parametrize(("groups", "inputs", "outputs"), [(64, 2, 4), (32, 4, 4), (6, 1, 2), (4, 64, 64), (3, 5, 5)])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_merged_groups_are_the_grouped_convolution(groups, inputs, outputs, precision, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    conv = nn.Conv2d(groups * inputs, groups * outputs, 3, 2, 1, groups=groups, bias=False)
    conv.weight.data = conv.weight.bfloat16().float()  # so that both precisions convolve the same numbers
    merged = GroupedConv2d.like(conv)
    assert merged.weight is conv.weight
    assert merged.state_dict().keys() == conv.state_dict().keys()
    x = torch.randint(-4, 5, (2, groups * inputs, 6, 5)).float().requires_grad_()
    expected = conv(x)
    direction = torch.randint(-4, 5, expected.shape).float()
    gradients = torch.autograd.grad(expected, [x, conv.weight], direction)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        found = merged(x)
    assert found.dtype == precision
    close = {"rtol": 1e-2, "atol": 1e-2} if precision == torch.bfloat16 else {}
    torch.testing.assert_close(found.float(), expected, **close)
    found = torch.autograd.grad(found, [x, conv.weight], direction.to(precision))
    torch.testing.assert_close(found, gradients, **{name: 10 * value for name, value in close.items()})


def test_block_diagonal_weight_by_hand():
    weight = torch.tensor([[1.0], [2], [3], [4]])[..., None, None]  # four groups of one channel
    assert block_diagonal(weight, 4, 2)[..., 0, 0].tolist() == [[1, 0], [0, 2], [3, 0], [0, 4]]
    assert block_diagonal(weight, 4, 1) is weight
    shapes = ((64, 2), (64, 16), (32, 4), (6, 1), (8, 64), (3, 5))
    assert [merged_groups(*shape) for shape in shapes] == [16, 2, 8, 2, 1, 3]
