"""The plain U-Net: two convolutions a level, skips joined by concatenation, bilinear enlargement.

Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597, with batch norm, padding and dropout.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.images import Normalise, check_counts, check_images
from nets.output import Output

LEVELS = (64, 128, 256, 512, 512)  # channels


class UNet(nn.Module):
    """Images (N, channels, H, W) in 0..1, H and W from 16 on -> Output with logits (N, classes, H, W).

    `norm=False` leaves batch norm out, to see what it is worth. `dropout` is a share of single values.
    """

    def __init__(self, classes: int = 1, channels: int = 3, dropout: float = 0.2, norm: bool = True):
        super().__init__()
        check_counts(classes=classes, channels=channels)
        self.channels = channels
        self.normalise = Normalise(channels)
        self.dropout = nn.Dropout(dropout)
        first, *deeper = LEVELS
        self.first = DoubleConv(channels, first, norm=norm)
        self.down = nn.ModuleList()
        for inputs, outputs in zip(LEVELS, deeper, strict=False):
            self.down.append(DoubleConv(inputs, outputs, norm=norm))
        self.up = nn.ModuleList()
        inputs = LEVELS[-1]
        for skip in reversed(LEVELS[:-1]):
            both, outputs = inputs + skip, max(skip // 2, LEVELS[0])
            self.up.append(DoubleConv(both, outputs, middle=both // 2, norm=norm))
            inputs = outputs
        self.head = nn.Conv2d(inputs, classes, 1)

    @property
    def blocks(self) -> list[nn.Module]:
        """The parts whose activations are worth computing again (see nets.recompute)."""
        return [self.first, *self.down, *self.up]

    def forward(self, images: Tensor) -> Output:
        check_images(images, self.channels, multiple=1, least=16)
        maps = [self.first(self.normalise(images))]
        for stage in self.down:
            maps.append(stage(self.dropout(F.max_pool2d(maps[-1], 2))))
        x = maps.pop()
        for stage in self.up:
            skip = maps.pop()
            enlarged = F.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=True)
            x = stage(self.dropout(torch.cat([skip, enlarged], dim=1)))
        return Output(self.head(x))


class DoubleConv(nn.Sequential):
    """3x3 convolution, batch norm and ReLU, twice; `middle` channels between them."""

    def __init__(self, inputs: int, outputs: int, middle: int = 0, norm: bool = True):
        layers = []
        for a, b in ((inputs, middle or outputs), (middle or outputs, outputs)):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b) if norm else nn.Identity(), nn.ReLU()]
        super().__init__(*layers)
