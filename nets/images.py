"""How a net meets its images: normalised by figures that it carries, and of a shape that it can take."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from command import BadInput

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of R, G and B in 0..1, over ImageNet's training images
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """(x - mean) / std per channel, into a new tensor; mean and std are buffers, so they travel with the net.

    The three figures given serve any number of channels: one channel gets their mean, more take them in turn
    (R, G, B, R, G, ...), which is also how `weights.adapt` spreads a first convolution made for three.
    """

    def __init__(
        self, channels: int = 3, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        super().__init__()
        self.register_buffer("mean", spread(mean, channels))
        self.register_buffer("std", spread(std, channels))

    def set(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Take the figures of the training data instead, one of each for every channel."""
        for buffer, values in ((self.mean, mean), (self.std, std)):
            buffer.copy_(torch.tensor(values).view_as(buffer))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def spread(values: Sequence[float], channels: int) -> Tensor:
    """`values` for `channels` channels, shape (1, channels, 1, 1)."""
    if channels == 1:
        values = [sum(values) / len(values)]
    return torch.tensor([values[channel % len(values)] for channel in range(channels)]).view(1, -1, 1, 1)


def check_counts(**counts: int) -> None:
    """Refuse anything but whole numbers from 1, such as classes=0."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise BadInput(f"got {name}={count!r}, expected a whole number from 1")


def check_images(images: Tensor, channels: int, multiple: int, least: int = 1) -> None:
    """Refuse a batch that is not (N, channels, H, W) with H and W multiples of `multiple`, `least` or more."""
    if images.dim() != 4 or images.shape[1] != channels:
        raise BadInput(f"got images of shape {tuple(images.shape)}, this net expects (N, {channels}, H, W)")
    height, width = images.shape[-2:]
    if min(height, width) < least:
        raise BadInput(f"got images of {height}x{width} pixels, this net expects {least} or more on each side")
    if height % multiple or width % multiple or not (height and width):
        nearest = [max(multiple, -(-side // multiple) * multiple) for side in (height, width)]
        raise BadInput(
            f"got images of {height}x{width} pixels, this net expects multiples of {multiple}; "
            f"pad or resize them to {nearest[0]}x{nearest[1]}"
        )
