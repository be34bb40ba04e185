from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from command import BadInput
from losses import LOSSES, build
from losses.lovasz import symmetric_lovasz


class Output(NamedTuple):
    """What nets return, by its attributes alone."""

    logits: Tensor
    level_logits: tuple[Tensor, ...] = ()
    image_logits: Tensor | None = None


def deep_output(num_tiles=4, size=12, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator).to(dtype).requires_grad_()

    levels = tuple(random(num_tiles, 1, size, size) for _ in range(5))
    return Output(random(num_tiles, 1, size, size), levels, random(num_tiles))


def mask_with_empty_ones(num_tiles=4, size=12):
    mask = torch.zeros(num_tiles, size, size, dtype=torch.uint8)
    mask[0, :5], mask[2, 3, 4] = 1, 1
    return mask


def test_deep_supervision_is_the_weighted_sum_of_its_terms():
    output, mask = deep_output(), mask_with_empty_ones()
    has_salt = torch.tensor([1.0, 0.0, 1.0, 0.0])
    levels = sum(symmetric_lovasz(level[has_salt == 1, 0], mask[has_salt == 1]) for level in output.level_logits)
    expected = (
        0.05 * F.binary_cross_entropy_with_logits(output.image_logits, has_salt)
        + 0.1 * levels
        + symmetric_lovasz(output.logits[:, 0], mask)
    )
    torch.testing.assert_close(LOSSES["saltnet"](output, mask), expected)


def test_deep_supervision_without_salt():
    output, mask = deep_output(), torch.zeros(4, 12, 12, dtype=torch.uint8)
    loss = LOSSES["saltnet"](output, mask)
    loss.backward()
    image = F.binary_cross_entropy_with_logits(output.image_logits, torch.zeros(4))
    torch.testing.assert_close(loss, 0.05 * image + symmetric_lovasz(output.logits[:, 0], mask))
    assert all(torch.equal(level.grad, torch.zeros_like(level)) for level in output.level_logits)


def test_deep_supervision_of_a_plain_net_is_lovasz():
    output, mask = Output(deep_output().logits), mask_with_empty_ones()
    assert torch.equal(LOSSES["saltnet"](output, mask), LOSSES["lovasz"](output, mask))


def test_bce_and_lovasz_bce_by_hand():
    output = Output(torch.zeros(1, 1, 1, 2))
    mask = torch.tensor([[[1, 0]]])
    assert LOSSES["bce"](output, mask).item() == pytest.approx(0.693147, abs=1e-6)  # ln 2
    assert LOSSES["lovasz"](output, mask).item() == pytest.approx(2)  # both errors are 1, weights sum to 1
    assert LOSSES["lovasz_bce"](output, mask).item() == pytest.approx(2 + 0.5 * 0.693147, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_a_float32_scalar_with_gradients(name, dtype):
    output, mask = deep_output(dtype=dtype), mask_with_empty_ones()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LOSSES[name](output, mask)
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    reference = Output(
        output.logits.float(), tuple(x.float() for x in output.level_logits), output.image_logits.float()
    )
    assert torch.equal(loss, LOSSES[name](reference, mask))
    loss.backward()
    used = [output.logits, *output.level_logits, output.image_logits] if name == "saltnet" else [output.logits]
    assert all(tensor.grad.isfinite().all() and tensor.grad.any() for tensor in used)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_falls_to_the_right_answer(name):
    mask = mask_with_empty_ones()
    logits = torch.zeros(4, 1, 12, 12, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(80):
        optimizer.zero_grad()
        LOSSES[name](Output(logits), mask).backward()
        optimizer.step()
    assert torch.equal(logits[:, 0] > 0, mask == 1)


def test_build():
    assert build("saltnet") is LOSSES["saltnet"]
    with pytest.raises(BadInput, match="got the loss 'dice', expected one of saltnet"):
        build("dice")


def test_several_classes_are_refused():
    with pytest.raises(ValueError, match="one class"):
        LOSSES["lovasz"](Output(torch.zeros(2, 3, 8, 8)), torch.zeros(2, 8, 8))
