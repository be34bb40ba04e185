import pytest
import torch
import torch.nn.functional as F
from outputs import Output, deep_output, mask_with_empty_ones

from losses import build
from losses.lovasz import symmetric_lovasz


def test_deep_supervision_is_the_weighted_sum_of_its_terms():
    output, mask = deep_output(), mask_with_empty_ones()
    has_salt = torch.tensor([1.0, 0.0, 1.0, 0.0])
    levels = sum(symmetric_lovasz(level[has_salt == 1, 0], mask[has_salt == 1]) for level in output.level_logits)
    expected = (
        0.05 * F.binary_cross_entropy_with_logits(output.image_logits, has_salt)
        + 0.1 * levels
        + symmetric_lovasz(output.logits[:, 0], mask)
    )
    torch.testing.assert_close(build("saltnet")(output, mask), expected)


def test_deep_supervision_without_salt():
    output, mask = deep_output(), torch.zeros(4, 12, 12, dtype=torch.uint8)
    loss = build("saltnet")(output, mask)
    loss.backward()
    image = F.binary_cross_entropy_with_logits(output.image_logits, torch.zeros(4))
    torch.testing.assert_close(loss, 0.05 * image + symmetric_lovasz(output.logits[:, 0], mask))
    assert all(torch.equal(level.grad, torch.zeros_like(level)) for level in output.level_logits)


def test_deep_supervision_of_a_plain_net_is_lovasz():
    output, mask = Output(deep_output().logits), mask_with_empty_ones()
    assert torch.equal(build("saltnet")(output, mask), build("lovasz")(output, mask))


def test_several_classes_are_refused():
    with pytest.raises(ValueError, match="one class"):
        build("saltnet")(Output(torch.zeros(2, 3, 8, 8)), torch.zeros(2, 8, 8))
