"""What the losses of any number of classes have in common: probabilities and one-hot masks, class by class.

One channel of logits is a binary task (sigmoid); K channels are the background and K - 1 labels (softmax), and the mask
holds 0 for the background and 1 .. K - 1 for the labels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def probabilities(logits: Tensor) -> Tensor:
    """(N, K, H, W) logits -> (N, K, H, W) in 0..1; for K > 1 they add up to 1 at every pixel."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)


def one_hot(mask: Tensor, logits: Tensor) -> Tensor:
    """mask (N, H, W) -> (N, K, H, W) of the logits' type, K as they have."""
    check(logits, mask)
    if logits.shape[1] == 1:
        return (mask > 0).unsqueeze(1).to(logits.dtype)
    return F.one_hot(mask.long(), logits.shape[1]).movedim(-1, 1).to(logits.dtype)


def with_background(probability: Tensor) -> Tensor:
    """(N, 1, H, W) -> (N, 2, H, W), background first; more channels have one and stay as they are."""
    if probability.shape[1] > 1:
        return probability
    return torch.cat([1 - probability, probability], dim=1)


def foreground(maps: Tensor) -> Tensor:
    """Without the background channel, which only maps of several classes have."""
    return maps if maps.shape[1] == 1 else maps[:, 1:]


def check(logits: Tensor, mask: Tensor) -> None:
    if logits.ndim != 4 or mask.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            f"logits are {tuple(logits.shape)} and mask is {tuple(mask.shape)}, expected (N, K, H, W) and (N, H, W)"
        )
