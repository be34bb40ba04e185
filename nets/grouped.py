"""Grouped convolution for CPUs with matrix units, which lie idle where a group has a few channels only.

In bfloat16, neighbouring groups are merged into one of MERGED channels whose weight is block-diagonal: more
multiplications, most of them by zero, but all of them in full tiles. The result is the same but for rounding. How much
that gains has not been measured yet. In float32 the groups stay: merged to 16 or 32 channels they were 0.3 to 0.9 times
as fast (AVX2).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MERGED = 32  # input channels of a merged group: a tile's depth in bfloat16


class GroupedConv2d(nn.Conv2d):
    """nn.Conv2d with the weights, the state-dict keys and the initialisation of a plain one."""

    @classmethod
    def like(cls, conv: nn.Conv2d) -> "GroupedConv2d":
        """With the parameters of `conv` themselves, not copies."""
        shape = (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation)
        with torch.device("meta"):
            new = cls(*shape, groups=conv.groups, bias=conv.bias is not None)
        new.weight, new.bias = conv.weight, conv.bias
        return new

    def forward(self, x: Tensor) -> Tensor:
        merge = merged_groups(self.groups, self.in_channels // self.groups) if in_matrix_units(x) else 1
        weight = block_diagonal(self.weight, self.groups, merge)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups // merge)


def in_matrix_units(x: Tensor) -> bool:
    """Whether a convolution of x is one of bfloat16 on a CPU with AMX."""
    if x.device.type != "cpu" or not torch.cpu._is_amx_tile_supported():
        return False
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return dtype == torch.bfloat16


def merged_groups(groups: int, channels: int) -> int:
    """How many groups of `channels` input channels become one: a divisor of `groups`."""
    return math.gcd(groups, max(1, MERGED // channels))


def block_diagonal(weight: Tensor, groups: int, merge: int) -> Tensor:
    """weight (O, I, k, k) of `groups` groups as one of groups / merge groups: (O, merge I, k, k), zeros beside I."""
    if merge == 1:
        return weight
    blocks = weight.unflatten(0, (groups // merge, merge, -1)).unsqueeze(3)  # (groups / merge, merge, o, 1, I, k, k)
    place = torch.eye(merge, dtype=weight.dtype, device=weight.device).view(1, merge, 1, merge, 1, 1, 1)
    return (blocks * place).flatten(3, 4).flatten(0, 2)
