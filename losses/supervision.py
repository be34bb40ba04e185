"""Deep supervision: a function of all that a net returns (nets.Output) and of the mask."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from losses.lovasz import symmetric_lovasz
from losses.precision import in_float32

IMAGE_WEIGHT = 0.05  # of the classifier "has salt"
LEVEL_WEIGHT = 0.1  # of each decoder level's logits


def deep_supervision(output: Any, mask: Tensor) -> Tensor:
    """0.05 BCE(image logit) + 0.1 sum over levels of symLovasz on tiles with salt + symLovasz(final logits).

    mask (N, H, W), 0 or 1, as the loss sees it: an image has salt when this mask has any. A net without image or
    level logits has no such terms. The 9th-place solution of TGS salt.
    """
    loss = symmetric_lovasz(_only_class(output.logits), mask)
    if output.image_logits is not None:
        loss = loss + IMAGE_WEIGHT * _bce(output.image_logits, (mask > 0).flatten(1).any(dim=1))
    for level in output.level_logits:
        loss = loss + LEVEL_WEIGHT * symmetric_lovasz(_only_class(level), mask, non_empty_only=True)
    return loss


@in_float32
def _bce(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype))


def _only_class(logits: Tensor) -> Tensor:
    """(N, 1, H, W) -> (N, H, W)."""
    if logits.ndim != 4 or logits.shape[1] != 1:
        raise ValueError(f"logits are {tuple(logits.shape)}, expected one class: (N, 1, H, W)")
    return logits[:, 0]
