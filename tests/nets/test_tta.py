import pytest
import torch
from torch import nn

from datasets import framing
from nets import tta
from nets.output import Output


class Same(nn.Module):
    """Logits whose sigmoid is the input, up to rounding; exactly so for 0 and 1."""

    def forward(self, images: torch.Tensor) -> Output:
        return Output(torch.where(images.frac() == 0, (images - 0.5) * 1e4, images.logit()))


class Local(nn.Module):
    """A net that is not symmetric, with an image branch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, images: torch.Tensor) -> Output:
        logits = self.conv(images)
        return Output(logits, (), logits[:, 0].amax(dim=(1, 2)))


@pytest.mark.parametrize("tile_size", [(101, 101), (64, 97)])
def test_padding_gives_the_tile_exactly(tile_size):
    """Flipped back before the crop, one of the two predictions would lie a pixel aside."""
    torch.manual_seed(0)
    tiles = torch.randint(0, 2, (3, 1, *tile_size)).float()
    prediction = tta.predict(Same().eval(), framing.build("pad", tile_size), tiles)
    assert torch.equal(prediction.probability, tiles)


def test_resizing_gives_the_tile_within_its_bound():
    torch.manual_seed(0)
    tiles = torch.rand(3, 1, 101, 101)
    prediction = tta.predict(Same().eval(), framing.build("resize", (101, 101)), tiles)
    step = max(tiles.diff(dim=2).abs().max(), tiles.diff(dim=3).abs().max())
    assert (prediction.probability - tiles).abs().max() <= step * 101 / 128
    ramp = torch.linspace(0.1, 0.9, 101).expand(1, 1, 101, 101)
    found = tta.predict(Same().eval(), framing.build("resize", (101, 101)), ramp).probability
    torch.testing.assert_close(found[..., 1:-1], ramp[..., 1:-1], rtol=0, atol=1e-5)  # no shift, not even half a pixel


@pytest.mark.parametrize("variant", framing.VARIANTS)
def test_a_flipped_tile_gets_the_flipped_prediction(variant):
    torch.manual_seed(0)
    net, tiles = Local().eval(), torch.rand(4, 3, 51, 51)
    frame = framing.build(variant, (51, 51), image_size=64)
    plain, flipped = tta.predict(net, frame, tiles), tta.predict(net, frame, tiles.flip(-1))
    torch.testing.assert_close(flipped.probability, plain.probability.flip(-1))
    torch.testing.assert_close(flipped.image_probability, plain.image_probability)


def test_one_batch_and_one_prediction_per_tile():
    """Flips are averaged, not counted as samples of their own."""
    torch.manual_seed(0)
    net, tiles = Local().eval(), torch.rand(4, 3, 51, 51)
    calls = []
    net.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0]))
    frame = framing.build("pad", (51, 51), image_size=64)
    prediction = tta.predict(net, frame, tiles)
    (batch,) = calls
    assert torch.equal(batch, torch.cat([frame.frame(tiles), frame.frame(tiles.flip(-1))]))
    assert prediction.output.logits.shape == (8, 2, 64, 64)
    assert prediction.probability.shape == (4, 2, 51, 51)
    first, second = torch.sigmoid(prediction.output.image_logits).split(4)
    torch.testing.assert_close(prediction.image_probability, (first + second) / 2)


def test_without_an_image_branch_the_highest_pixel_counts():
    tiles = torch.rand(2, 1, 51, 51)
    prediction = tta.predict(Same().eval(), framing.build("pad", (51, 51), image_size=64), tiles)
    torch.testing.assert_close(prediction.image_probability, tiles.amax(dim=(1, 2, 3)))


def test_probabilities_are_float32_whatever_the_net_computes_in():
    net = Local().eval().bfloat16()
    tiles = torch.rand(2, 3, 51, 51).bfloat16()
    prediction = tta.predict(net, framing.build("pad", (51, 51), image_size=64), tiles)
    assert prediction.probability.dtype == prediction.image_probability.dtype == torch.float32
    assert not prediction.probability.requires_grad


def test_a_net_in_training_mode_is_refused():
    with pytest.raises(AssertionError, match="eval"):
        tta.predict(Local(), framing.build("pad", (51, 51), image_size=64), torch.rand(1, 3, 51, 51))
