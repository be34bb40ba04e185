import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.plain import object_context
from nets import blocks
from nets.blocks import ABN, Join, ObjectContext
from nets.enlarged import enlarge


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_object_context_equals_materialised_softmax(layout):
    torch.manual_seed(0)
    module = ObjectContext(12, dropout=0.0).double()
    nn.init.normal_(module.context.weight)
    x = torch.randn(2, 12, 5, 7, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    fused, plain = module(x), object_context(module, x)
    torch.testing.assert_close(fused, plain)
    direction = torch.randn_like(fused)
    inputs = [x, *module.parameters()]
    of_fused = torch.autograd.grad(fused, inputs, direction)
    of_plain = torch.autograd.grad(plain, inputs, direction)
    torch.testing.assert_close(of_fused, of_plain)
    assert all(gradient.any() for gradient in of_fused[1:4])  # the key's and value's own


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_object_context_never_holds_the_whole_matrix(layout, precision):
    """PyTorch takes a fused form, forward and backward: without the plain one to fall back on, it raises otherwise."""
    module = ObjectContext(16, dropout=0.2)
    nn.init.normal_(module.context.weight)
    x = torch.randn(2, 16, 6, 10).to(memory_format=layout).requires_grad_()
    fused = sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION])
    with fused, torch.autocast("cpu", precision, enabled=precision is not torch.float32):
        output = module(x)
        assert module.key(x).dtype == precision
        output.float().square().mean().backward()
    assert x.grad.any()
    assert module.key[0].weight.grad.any()


def test_positions_of_channels_last_maps_are_no_copy():
    x = torch.arange(48.0).view(2, 4, 2, 3)
    rows = blocks.positions(x)
    assert rows.shape == (2, 1, 6, 4)
    assert rows[1, 0, 5].tolist() == x[1, :, 1, 2].tolist()
    x = x.to(memory_format=torch.channels_last)
    assert torch.equal(blocks.positions(x), rows)
    assert blocks.positions(x).data_ptr() == x.data_ptr()


def test_object_context_starts_with_the_input_alone():
    module = ObjectContext(8, dropout=0.3)
    assert not module.context.weight.any()
    assert not module.context.bias.any()
    x = torch.randn(2, 8, 4, 4)
    before = module.eval()(x)
    nn.init.normal_(module.value.weight)
    assert torch.equal(module(x), before)


def test_dropout_is_of_whole_maps_and_only_behind_the_merge():
    dropouts = [module for module in ObjectContext(8, 0.3).modules() if isinstance(module, nn.Dropout2d | nn.Dropout)]
    assert [(type(module), module.p) for module in dropouts] == [(nn.Dropout2d, 0.3)]
    assert blocks.decoder(8, 8, 8)[2].merge[2].p == 0.2
    assert blocks.Head(8, 8, 1)[0].p == 0.5


def test_abn_is_norm_then_leaky_relu():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5)
    module = ABN(3)
    nn.init.normal_(module.weight)
    expected = F.leaky_relu(F.batch_norm(x, None, None, module.weight, module.bias, training=True), 0.01)
    kept = x.clone()
    torch.testing.assert_close(module(x), expected)
    assert torch.equal(x, kept)
    assert module.state_dict().keys() == nn.BatchNorm2d(3).state_dict().keys()


def test_abn_gradient_is_right_despite_working_in_place():
    torch.manual_seed(0)
    x = torch.randn(3, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ABN(2).double(), (x,))


def test_join_concatenates_in_order():
    first, second = torch.zeros(1, 2, 3, 3), torch.ones(1, 1, 3, 3)
    assert torch.equal(Join()(first, second), torch.cat([first, second], 1))
    assert Join()(first) is first


def test_decoder_doubles_the_size_and_compiles_as_one_graph():
    module = blocks.decoder(6, 4, 3).eval()
    maps = torch.randn(1, 4, 3, 5), torch.randn(1, 2, 3, 5)
    assert module(*maps).shape == (1, 3, 6, 10)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*maps), module(*maps))


def test_enlarge_is_free_at_the_same_size():
    x = torch.rand(1, 2, 4, 6)
    assert enlarge(x, x.shape[-2:]) is x
    assert enlarge(x, (8, 6)).shape == (1, 2, 8, 6)
