"""Test-time augmentation: the prediction of a tile is the mean over itself and its mirror image."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from datasets.framing import Framing
from nets.output import Output


class Prediction(NamedTuple):
    """Of N tiles; probabilities are float32 in 0..1."""

    probability: Tensor  # (N, classes, H, W) at the tiles' own size
    image_probability: Tensor  # (N,) that the tile has any salt, or any label
    output: Output  # of the 2N framed images, N as they are and then N flipped, at the framing's size


@torch.no_grad()
def predict(net: nn.Module, framing: Framing, images: Tensor) -> Prediction:
    """Flip-averaged prediction for images (N, C, H, W) in 0..1, each tile and its flip in one batch of 2N.

    The net has to be in evaluation mode. One class is a sigmoid, several a softmax, the background first. Without an
    image branch, image_probability is the highest of any pixel and label.
    """
    assert not net.training, "a prediction needs net.eval(), else it depends on chance and changes the batch norms"
    output = net(framing.frame(torch.cat([images, images.flip(-1)])))
    # Unframed first, flipped back second: padding is not symmetric (13 and 14 pixels), so that in the other order the
    # two predictions would lie one pixel apart.
    logits = output.logits.float()
    probability = framing.unframe(logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1))
    probability, flipped = probability.chunk(2)
    probability = (probability + flipped.flip(-1)) / 2
    if output.image_logits is None:
        labels = probability if logits.shape[1] == 1 else probability[:, 1:]
        return Prediction(probability, labels.amax(dim=(1, 2, 3)), output)
    image_probability = torch.sigmoid(output.image_logits.float()).view(2, -1).mean(dim=0)
    return Prediction(probability, image_probability, output)
