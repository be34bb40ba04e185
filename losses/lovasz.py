"""The Lovasz hinge, vectorised over the batch, its symmetric form, and the Lovasz-softmax of several classes.

Berman, Triki & Blaschko 2018, "The Lovasz-Softmax loss", algorithm 1, https://arxiv.org/abs/1705.08790,
with elu(error) + 1 in place of relu(error): pixels that are right by more than the margin still pull a little.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from losses.classes import one_hot
from losses.precision import in_float32


@in_float32
def lovasz_hinge(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean over images of the Lovasz hinge, a convex surrogate of 1 - IoU.

    logits (N, H, W), before the sigmoid; mask (N, H, W), 0 or 1. An empty mask gives elu(1 + largest logit) + 1.
    """
    errors, salt = _errors(logits, mask)
    return _images(errors, salt, _salt_weights).mean()


@in_float32
def symmetric_lovasz(logits: Tensor, mask: Tensor, non_empty_only: bool = False) -> Tensor:
    """Mean over images of (hinge(logits, mask) + hinge(-logits, 1 - mask)) / 2.

    logits (N, H, W), before the sigmoid; mask (N, H, W), 0 or 1. With `non_empty_only` the mean is over the images
    with salt, the same ones in both halves; without any it is 0, with zero gradients.
    An empty mask gives (elu(1 + largest logit) + 1 + mean over pixels of elu(1 + logit) + 1) / 2.
    """
    errors, salt = _errors(logits, mask)
    losses = _images(errors, salt, _symmetric_weights)
    if not non_empty_only:
        return losses.mean()
    kept = salt.any(dim=1)
    return losses.where(kept, 0).sum() / kept.sum().clamp(min=1)


@in_float32
def lovasz_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean over images, and over the classes that an image has, of the Jaccard loss's Lovasz extension.

    logits (N, K, H, W), before the softmax; mask (N, H, W), 0 .. K - 1. Section 3 of the paper.
    """
    target = one_hot(mask, logits).flatten(2).flatten(0, 1) > 0  # (N * K, pixels)
    probability = logits.softmax(dim=1).flatten(2).flatten(0, 1)
    errors = torch.where(target, 1 - probability, probability)
    losses = (errors * _weights(errors, target, _salt_weights)).sum(dim=1).view(logits.shape[:2])
    present = target.any(dim=1).view(logits.shape[:2])
    return (losses.where(present, 0).sum(dim=1) / present.sum(dim=1)).mean()


def _errors(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Margin violations 1 - logit * (+1 for salt, -1 else) and salt as bool, both (N, pixels).

    Negated logits with the complement of the mask have the very same errors: one sort serves both halves.
    """
    if logits.shape != mask.shape:
        raise ValueError(f"logits are {tuple(logits.shape)} and mask is {tuple(mask.shape)}, expected (N, H, W) twice")
    logits, salt = logits.flatten(1), mask.flatten(1) > 0
    return 1 - torch.where(salt, logits, -logits), salt


def _images(errors: Tensor, salt: Tensor, weights_of) -> Tensor:
    """Loss of each image (N,): the sum of elu(error) + 1, weighted by the rise in Jaccard loss at the error's rank."""
    # elu(error) + 1 without the loss of digits that 1 + (exp(error) - 1) has where a pixel is right
    surrogate = F.relu(errors) + errors.clamp(max=0).exp()
    return (surrogate * _weights(errors, salt, weights_of)).sum(dim=1)


@torch.no_grad()
def _weights(errors: Tensor, salt: Tensor, weights_of) -> Tensor:
    """Of each pixel (N, pixels): constant wherever the loss is differentiable."""
    order = _descending(errors)
    ranked = weights_of(salt.gather(1, order), errors.dtype)
    return torch.empty_like(errors).scatter_(1, order, ranked)


def _salt_weights(salt: Tensor, dtype: torch.dtype) -> Tensor:
    """How much the Jaccard loss of the salt rises when the pixels to the left are wrong and this one turns wrong too.

    salt (N, pixels), bool, by falling error. In closed form, as differences of two Jaccard losses lose all digits:
    a missed pixel leaves the union and takes one from the intersection, a false one adds one to the union.
    """
    total = salt.sum(dim=1, keepdim=True, dtype=torch.int32)
    intersection = (total - salt.cumsum(dim=1, dtype=torch.int32)).to(dtype)
    union = intersection + torch.arange(1, salt.shape[1] + 1, dtype=dtype, device=salt.device)
    weights = torch.where(salt, 1, intersection / (union - 1).clamp_(min=1)) / union
    weights[:, 0] = torch.where(total[:, 0] == 0, 1, weights[:, 0])  # no salt: the first false pixel costs it all
    return weights


def _symmetric_weights(salt: Tensor, dtype: torch.dtype) -> Tensor:
    return (_salt_weights(salt, dtype) + _salt_weights(~salt, dtype)) / 2


def _descending(errors: Tensor) -> Tensor:
    """Ranks (N, pixels): the position of the largest error first, ties by position.

    On a CPU, NumPy sorts 64-bit integers (here: the float's bits, then its position) much faster than torch argsorts.
    """
    if errors.device.type != "cpu" or errors.dtype != torch.float32:
        return errors.argsort(dim=1, descending=True, stable=True)
    bits = (-errors.detach()).contiguous().view(torch.int32)
    bits = bits ^ (bits >> 31 & 0x7FFFFFFF)  # negative floats count downwards: now the bits order as the floats do
    keys = bits.long() << 32 | torch.arange(errors.shape[1])
    return torch.from_numpy(np.sort(keys.numpy(), axis=1)) & 0xFFFFFFFF
