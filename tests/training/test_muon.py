import copy

import pytest
import torch
from torch import nn

from training.muon import BETAS, COEFFICIENTS, ITERATIONS, MOMENTUM, UPDATE, Muon, is_orthogonalised, orthogonalised


def small_net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.Conv2d(12, 10, 3), nn.Conv2d(10, 12, 1), nn.Conv2d(12, 1, 1)
    )
    return net.to(memory_format=torch.channels_last)


def step(net: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    images = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    net(images).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("shape", [(2, 10, 40), (1, 40, 10), (3, 16, 16)])
def test_orthogonalised_matrices_keep_their_directions_and_level_their_strengths(shape: tuple[int, ...]):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1)).double()
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonalised(matrices)
    inner = u.mT @ found @ v.mT  # diagonal where the singular directions are the same
    torch.testing.assert_close(inner, torch.diag_embed(inner.diagonal(dim1=1, dim2=2)), atol=1e-9, rtol=0)
    assert inner.diagonal(dim1=1, dim2=2)[:, :-2].min() > 0.6  # the weakest of a square matrix take more iterations
    assert inner.diagonal(dim1=1, dim2=2).max() < 1.3


@pytest.mark.parametrize("shape", [(3, 12, 50), (2, 50, 12)])
def test_iterating_on_the_gram_matrix_is_iterating_on_the_matrix(shape: tuple[int, ...]):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    a, b, c = COEFFICIENTS
    expected = matrices.double() / matrices.double().norm(dim=(1, 2), keepdim=True)
    for _ in range(ITERATIONS):
        gram = expected @ expected.mT
        expected = a * expected + b * gram @ expected + c * gram @ gram @ expected
    torch.testing.assert_close(orthogonalised(matrices).double(), expected, atol=1e-4, rtol=0)


def test_zero_stays_zero():
    assert not orthogonalised(torch.zeros(1, 4, 6)).any()


def test_only_convolutions_between_hidden_channels_are_orthogonalised():
    names = [name for name, parameter in small_net().named_parameters() if is_orthogonalised(parameter)]
    assert names == ["2.weight", "3.weight"]


def test_all_others_step_as_adamw_does():
    ours, theirs = small_net(), small_net()
    muon = Muon(ours.parameters(), lr=1e-2, weight_decay=0.1)
    adamw = torch.optim.AdamW(theirs.parameters(), 1e-2, BETAS, weight_decay=0.1)
    for seed in range(5):
        for net, optimizer in ((ours, muon), (theirs, adamw)):
            for number, parameter in enumerate(net.parameters()):
                generator = torch.Generator().manual_seed(100 * seed + number)
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-7) != is_orthogonalised(a), name


def test_a_first_step_has_the_size_that_update_names():
    weight = nn.Parameter(torch.zeros(16, 16, 3, 3))
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    Muon([weight], lr=0.1).step()
    assert weight.square().mean().sqrt().item() == pytest.approx(0.1 * UPDATE, rel=0.15)
    assert (weight * weight.grad).sum() < 0  # downhill


def test_momentum_is_nesterovs():
    gradients = [torch.randn(12, 12, 1, 1, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    weight = nn.Parameter(torch.zeros(12, 12, 1, 1))
    optimizer = Muon([weight], lr=1.0)
    momentum = torch.zeros(12, 12)
    for gradient in gradients:
        weight.grad, before = gradient.clone(), weight.detach().clone()
        optimizer.step()
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * gradient[:, :, 0, 0]
        ahead = MOMENTUM * momentum + (1 - MOMENTUM) * gradient[:, :, 0, 0]
        expected = -UPDATE * 12**0.5 * orthogonalised(ahead[None])[0]
        torch.testing.assert_close((weight - before)[:, :, 0, 0], expected, atol=1e-5, rtol=1e-4)


def test_resumes_bit_for_bit():
    whole, first = small_net(), small_net()
    optimizer = Muon(whole.parameters(), lr=1e-2, weight_decay=0.1)
    for seed in range(4):
        step(whole, optimizer, seed)
    optimizer = Muon(first.parameters(), lr=1e-2, weight_decay=0.1)
    for seed in range(2):
        step(first, optimizer, seed)
    state, second = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(first)
    optimizer = Muon(second.parameters(), lr=1e-2, weight_decay=0.1)
    optimizer.load_state_dict(state)
    for seed in range(2, 4):
        step(second, optimizer, seed)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))
