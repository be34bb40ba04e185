import pytest
import torch
from torch import nn

import nets
from nets.recompute import recompute

ENCODERS = ("resnet18", "vgg11_bn", "se_resnext50_32x4d")
NETS = [("fastnet", {"width": 8}), *(("saltnet", {"encoder": encoder}) for encoder in ENCODERS)]


def kept_bytes(net: nn.Module, images: torch.Tensor) -> int:
    """Of the tensors that a forward pass saves for the backward pass, beside those of the net."""
    own = {tensor.data_ptr() for tensor in net.state_dict(keep_vars=True).values()}
    sizes = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net(images)
    return sum(sizes.values())


@pytest.mark.parametrize(("name", "arguments"), NETS)
def test_same_gradients_and_statistics_bit_for_bit_with_dropout(name, arguments):
    images = torch.rand(2, 3, 64, 64)
    outcomes = []
    for again in (False, True):
        torch.manual_seed(0)
        net = nets.build(name, **arguments).train()
        if again:
            recompute(net.blocks)
        torch.manual_seed(1)
        output = net(images)
        sum(x.sum() for x in (output.logits, *output.level_logits)).backward()
        gradients = {key: parameter.grad for key, parameter in net.named_parameters() if parameter.grad is not None}
        outcomes.append((output.logits.detach(), gradients, dict(net.named_buffers())))
    kept, recomputed = outcomes
    assert torch.equal(kept[0], recomputed[0])
    for one, other in zip(kept[1:], recomputed[1:], strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_less_is_kept():
    net, images = nets.build("saltnet", encoder="resnet18").train(), torch.rand(2, 3, 64, 64)
    before = kept_bytes(net, images)
    recompute(net.blocks)
    assert kept_bytes(net, images) < 0.6 * before


def test_timms_nets_have_decoders_to_recompute():
    with torch.device("meta"):
        net = nets.build("saltnet", encoder="timm/resnet18")
    assert len(net.blocks) == 6
