"""The parts that SaltNet is made of: activated batch norm, object context, decoders, logit heads.

Every convolution here has a bias and PyTorch's default initialisation, except the context's output (zero).
"""

from collections.abc import Iterable, Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets.enlarged import convolve_enlarged, enlarge

SLOPE = 0.01  # of the leaky ReLU in every ABN
DECODER_DROPOUT = 0.2  # of whole maps, behind a decoder's object context
HEAD_DROPOUT = 0.5  # of whole maps, before every logit


class ABN(nn.BatchNorm2d):
    """Batch norm followed by leaky ReLU ("activated batch norm"), with the state-dict keys of a plain one."""

    def forward(self, x: Tensor) -> Tensor:
        # In place on the norm's own fresh output, which its backward pass does not need: saves a map per norm.
        return F.leaky_relu(super().forward(x), SLOPE, inplace=True)


class ObjectContext(nn.Module):
    """Every position is described by the positions like it: self-attention over all pixels, beside the input itself.

    (N, C, H, W) -> (N, C, H, W). Query and key are one shared transform to C / 2 channels. The context's last
    convolution starts at zero, so that at first the input alone counts.
    Yuan & Wang 2018, "OCNet", the base form, https://arxiv.org/abs/1809.00916
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        inner = channels // 2
        self.key = nn.Sequential(nn.Conv2d(channels, inner, 1), ABN(inner))
        self.value = nn.Conv2d(channels, inner, 1)
        self.context = nn.Conv2d(inner, channels, 1)
        self.merge = nn.Sequential(nn.Conv2d(2 * channels, channels, 1), ABN(channels), nn.Dropout2d(dropout))
        nn.init.zeros_(self.context.weight)
        nn.init.zeros_(self.context.bias)

    def forward(self, x: Tensor) -> Tensor:
        key, value = positions(self.key(x)), positions(self.value(x))
        # Scales by 1 / sqrt(key channels). A fused form, which never holds the (H W, H W) matrix, is taken only for
        # tensors whose rows are contiguous, as those of `positions` are; for others PyTorch falls back to the matrix.
        found = F.scaled_dot_product_attention(key, key, value)
        found = found.squeeze(1).transpose(1, 2).unflatten(2, x.shape[-2:])
        _, norm, dropout = self.merge
        return dropout(norm(F.conv2d(torch.cat([found, x], dim=1), *self.merging())))

    def merging(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of `context` and the merge's convolution in one: nothing bends between the two."""
        merge, context = self.merge[0], self.context
        of_context, of_input = merge.weight.split([context.out_channels, merge.in_channels - context.out_channels], 1)
        of_found = of_context.flatten(1) @ context.weight.flatten(1)
        bias = merge.bias + of_context.flatten(1) @ context.bias
        return torch.cat([of_found[:, :, None, None], of_input], dim=1), bias


def positions(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 1, H W, C): one head, a contiguous row per pixel. No copy where x is channels_last."""
    return x.flatten(2).transpose(1, 2).contiguous().unsqueeze(1)


class Join(nn.Sequential):
    """Concatenates its inputs' channels, then runs its modules in turn."""

    def forward(self, *maps: Tensor) -> Tensor:
        return super().forward(torch.cat(maps, dim=1) if len(maps) > 1 else maps[0])


def decoder(inputs: int, middle: int, outputs: int) -> Join:
    """conv3x3 - ABN - object context - transposed conv: twice the height and width."""
    return Join(
        conv3x3(inputs, middle),
        ABN(middle),
        ObjectContext(middle, DECODER_DROPOUT),
        nn.ConvTranspose2d(middle, outputs, kernel_size=4, stride=2, padding=1),
    )


def plain_decoder(inputs: int, middle: int, outputs: int) -> Join:
    """Two times conv3x3 - ABN, at the same height and width."""
    return Join(conv3x3(inputs, middle), ABN(middle), conv3x3(middle, outputs), ABN(outputs))


class Head(nn.Sequential):
    """Dropout - conv3x3 - ABN - conv1x1 of all maps, each enlarged to `size`, concatenated: pixel logits."""

    def __init__(self, inputs: int, middle: int, classes: int) -> None:
        super().__init__(
            nn.Dropout2d(HEAD_DROPOUT), conv3x3(inputs, middle), ABN(middle), nn.Conv2d(middle, classes, 1)
        )

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        dropout, conv, norm, last = self
        weights = conv.weight.split([x.shape[1] for x in maps], dim=1)
        biases = [conv.bias] + [None] * (len(maps) - 1)
        parts = zip(maps, weights, biases, strict=True)
        return last(norm(sum_of(convolve_enlarged(dropout(x), size, weight, bias) for x, weight, bias in parts)))


class Hypercolumn(nn.Sequential):
    """Dropout - conv1x1 of all levels, each enlarged to `size`, concatenated.

    A level is projected before it is enlarged: the two commute, as enlarging treats all channels alike.
    Hariharan et al. 2015, https://arxiv.org/abs/1411.5752
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Dropout2d(HEAD_DROPOUT), nn.Conv2d(inputs, outputs, 1))

    def forward(self, levels: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        dropout, conv = self
        weights = conv.weight.split([level.shape[1] for level in levels], dim=1)
        biases = [conv.bias] + [None] * (len(levels) - 1)
        by_size: dict[tuple[int, ...], list[Tensor]] = {}  # levels of one size are enlarged together
        for level, weight, bias in zip(levels, weights, biases, strict=True):
            by_size.setdefault(level.shape[-2:], []).append(F.conv2d(dropout(level), weight, bias))
        return sum_of(enlarge(sum_of(projected), size) for projected in by_size.values())


def sum_of(tensors: Iterable[Tensor]) -> Tensor:
    """Added up in the first one's memory, which has to be new: the output of a convolution or of enlarging."""
    return reduce(Tensor.add_, tensors)


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
