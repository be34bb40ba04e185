"""Losses of pixels: a mean over all of them, from logits (N, K, H, W) and a mask (N, H, W), see losses/classes.py."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from losses.classes import check, foreground, one_hot, probabilities
from losses.precision import in_float32
from losses.regions import SMOOTH, counts, dice

HARDEST = 0.1  # share of the pixels that top_k keeps


@in_float32
def cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean cross entropy, binary for one class."""
    return entropies(logits, mask).mean()


@in_float32
def focal(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean of a_t (1 - p_t)^2 CE per pixel, p_t what the true class gets; a_t 0.25 for the one class, 0.75 without.

    Several classes have no a_t. Lin et al. 2017, section 3, https://arxiv.org/abs/1708.02002
    """
    entropy = entropies(logits, mask)
    loss = (1 - (-entropy).exp()).square() * entropy
    return (loss * torch.where(mask > 0, 0.25, 0.75)).mean() if logits.shape[1] == 1 else loss.mean()


@in_float32
def top_k(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean cross entropy of the tenth of each image's pixels that has the highest. Wu et al. 2016 (bootstrapped CE),
    https://arxiv.org/abs/1604.04339
    """
    entropy = entropies(logits, mask).flatten(1)
    return entropy.topk(max(1, round(HARDEST * entropy.shape[1])), dim=1).values.mean()


@in_float32
def combo(logits: Tensor, mask: Tensor) -> Tensor:
    """(1/2 CE + 1 - Dice) / 2: the published sum with alpha = beta = 1/2, raised by 1/2 so that perfect is 0.

    Dice over the batch. Taghanaki et al. 2019, equation 3, https://arxiv.org/abs/1805.02798
    """
    return (cross_entropy(logits, mask) / 2 + dice(logits, mask)) / 2


@in_float32
def exp_log(logits: Tensor, mask: Tensor) -> Tensor:
    """0.8 mean_c (-ln Dice_c)^0.3 + 0.2 mean_x w_c(x) (CE of x)^0.3, w_c = sqrt(all pixels / pixels of c).

    Dice over the batch, labels without background. Wong et al. 2018, section 2.1, https://arxiv.org/abs/1809.00076
    """
    hit, false, missed = counts(logits, mask, "batch")
    overlap = (2 * hit + SMOOTH) / (2 * hit + false + missed + SMOOTH)
    regions = (-overlap.log()).clamp(min=1e-6).pow(0.3).mean()
    classes = mask.long().clamp(max=1) if logits.shape[1] == 1 else mask.long()
    share = torch.bincount(classes.flatten(), minlength=max(2, logits.shape[1])) / mask.numel()
    weight = share.clamp(min=1 / mask.numel()).rsqrt()[classes]
    return 0.8 * regions + 0.2 * (weight * entropies(logits, mask).clamp(min=1e-6).pow(0.3)).mean()


@in_float32
def distance_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean cross entropy, each pixel weighted 1 on average and 3 times as much at a border as farthest from it.

    The weights fall in step with the distance to the nearest border between classes; an image without one has weights
    of 1. Caliva et al. 2019 (distance map penalised loss), https://arxiv.org/abs/1908.03679
    """
    entropy = entropies(logits, mask)
    return (entropy * border_weights(mask).to(entropy)).mean()


@in_float32
def boundary(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean of p times the signed distance to the label's border, in image sides; 0 where a label is absent.

    Negative inside, so a perfect prediction is its minimum, below 0. Meant beside a region loss ("dice+0.1boundary"),
    as a lone one it may settle for nothing. Kervadec et al. 2019, equation 5, https://arxiv.org/abs/1812.07032
    """
    probability, target = foreground(probabilities(logits)), foreground(one_hot(mask, logits))
    return (probability * signed_distances(target).to(probability)).mean()


def entropies(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross entropy of each pixel, (N, H, W)."""
    check(logits, mask)
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], (mask > 0).to(logits.dtype), reduction="none")
    return F.cross_entropy(logits, mask.long(), reduction="none")


def border_weights(mask: Tensor) -> Tensor:
    """(N, H, W) float32 of mean 1 per image."""
    weights = [image_weights(image) for image in mask.cpu().numpy().astype(np.uint8)]
    return torch.from_numpy(np.stack(weights)).to(mask.device)


def image_weights(mask: np.ndarray) -> np.ndarray:
    labels = np.unique(mask)
    if len(labels) == 1:
        return np.ones(mask.shape, np.float32)
    distance = sum(distance_inside(mask == label) for label in labels)
    weight = 3 - 2 * distance / distance.max()
    return weight / weight.mean()


def signed_distances(target: Tensor) -> Tensor:
    """target (N, labels, H, W), 0 or 1 -> the same shape, float32: pixels to the other side, negative inside."""
    maps = [signed_distance(label > 0) for image in target.cpu().numpy() for label in image]
    return torch.from_numpy(np.stack(maps)).view(target.shape).to(target.device)


def signed_distance(inside: np.ndarray) -> np.ndarray:
    if inside.all() or not inside.any():
        return np.zeros(inside.shape, np.float32)
    return (distance_inside(~inside) - distance_inside(inside)) / max(inside.shape)


def distance_inside(mask: np.ndarray) -> np.ndarray:
    """Of each pixel inside to the nearest one outside, in pixels; 0 outside."""
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
