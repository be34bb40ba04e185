"""Losses of regions: how well whole areas overlap, from sums over pixels.

Each takes logits (N, K, H, W) and a mask (N, H, W), see losses/classes.py, and gives a float32 scalar that is 0 for a
perfect prediction. `over` says what is one region: all images of the "batch" together, or each "image" on its own.
The mean is over labels, without the background unless it says so (and over images).
"""

import torch
from torch import Tensor

from losses.classes import foreground, one_hot, probabilities, with_background
from losses.precision import in_float32

SMOOTH = 1.0  # pixels added above and below: an empty mask that stays empty costs nothing
OVER = {"batch": (0, 2, 3), "image": (2, 3)}  # the dimensions that are summed


@in_float32
def dice(logits: Tensor, mask: Tensor, over: str = "batch") -> Tensor:
    """1 - (2 TP + 1) / (2 TP + FP + FN + 1). Milletari et al. 2016 (V-Net), https://arxiv.org/abs/1606.04797"""
    hit, false, missed = counts(logits, mask, over)
    return 1 - ((2 * hit + SMOOTH) / (2 * hit + false + missed + SMOOTH)).mean()


@in_float32
def jaccard(logits: Tensor, mask: Tensor, over: str = "batch") -> Tensor:
    """1 - (TP + 1) / (TP + FP + FN + 1). Rahman & Wang 2016, https://doi.org/10.1007/978-3-319-50835-1_22"""
    return 1 - tversky_index(logits, mask, over, 1, 1).mean()


@in_float32
def tversky(logits: Tensor, mask: Tensor, over: str = "batch") -> Tensor:
    """1 - (TP + 1) / (TP + 0.3 FP + 0.7 FN + 1). Salehi et al. 2017, https://arxiv.org/abs/1706.05721"""
    return 1 - tversky_index(logits, mask, over, 0.3, 0.7).mean()


@in_float32
def focal_tversky(logits: Tensor, mask: Tensor, over: str = "batch") -> Tensor:
    """Tversky's loss of each region to the power of 3/4. Abraham & Khan 2019, https://arxiv.org/abs/1810.07842"""
    return (1 - tversky_index(logits, mask, over, 0.3, 0.7)).clamp(min=1e-6).pow(0.75).mean()


@in_float32
def asymmetric(logits: Tensor, mask: Tensor, over: str = "batch") -> Tensor:
    """1 - F_1.5, which holds a missed pixel 2.25 times as dear as a false one: (TP + 1) / (TP + w FN + (1 - w) FP + 1).

    w = 1.5^2 / (1 + 1.5^2). Hashemi et al. 2018, https://arxiv.org/abs/1803.11078
    """
    weight = 1.5**2 / (1 + 1.5**2)
    return 1 - tversky_index(logits, mask, over, 1 - weight, weight).mean()


@in_float32
def generalised_dice(logits: Tensor, mask: Tensor, over: str = "batch") -> Tensor:
    """1 - 2 sum_c w_c TP_c / sum_c w_c (P_c + Y_c) over all classes, the background too, w_c = 1 / Y_c^2.

    A class that the mask lacks weighs as much as the rarest one that it has. Sudre et al. 2017,
    https://arxiv.org/abs/1707.03237
    """
    probability, target = with_background(probabilities(logits)), with_background(one_hot(mask, logits))
    hit, predicted, true = (x.sum(OVER[over]) for x in (probability * target, probability, target))
    weight = torch.where(true > 0, true, torch.inf).pow(-2)
    weight = torch.where(true > 0, weight, weight.amax(dim=-1, keepdim=True))
    smooth = 1e-6 * weight.amax(dim=-1)
    overlap = (2 * (weight * hit).sum(-1) + smooth) / ((weight * (predicted + true)).sum(-1) + smooth)
    return 1 - overlap.mean()


@in_float32
def penalty_dice(logits: Tensor, mask: Tensor, over: str = "batch") -> Tensor:
    """G / (1 + 2.5 (1 - G)) of the generalised Dice loss G. Yang et al. 2019, https://doi.org/10.48550/arXiv.1908.01359"""
    loss = generalised_dice(logits, mask, over)
    return loss / (1 + 2.5 * (1 - loss))


@in_float32
def sensitivity_specificity(logits: Tensor, mask: Tensor, over: str = "batch") -> Tensor:
    """0.1 of the mean squared error inside of the regions + 0.9 of that outside.

    Brosch et al. 2015, section 2.3, https://doi.org/10.1007/978-3-319-24574-4_1
    """
    probability, target = foreground(probabilities(logits)), foreground(one_hot(mask, logits))
    squared = (target - probability).square()
    inside, outside = (
        (squared * side).sum(OVER[over]) / (side.sum(OVER[over]) + SMOOTH) for side in (target, 1 - target)
    )
    return (0.1 * inside + 0.9 * outside).mean()


def counts(logits: Tensor, mask: Tensor, over: str) -> tuple[Tensor, Tensor, Tensor]:
    """Soft numbers of hit (TP), false (FP) and missed (FN) pixels of each label: (labels,), or (N, labels) by image."""
    probability, target = foreground(probabilities(logits)), foreground(one_hot(mask, logits))
    hit = (probability * target).sum(OVER[over])
    return hit, probability.sum(OVER[over]) - hit, target.sum(OVER[over]) - hit


def tversky_index(logits: Tensor, mask: Tensor, over: str, false_weight: float, missed_weight: float) -> Tensor:
    hit, false, missed = counts(logits, mask, over)
    return (hit + SMOOTH) / (hit + false_weight * false + missed_weight * missed + SMOOTH)
