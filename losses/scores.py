"""Scores of predicted label maps, image by image and in total: the same in training and in inference.validate."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from losses import metric


class OfImages(NamedTuple):
    """Of N images, each (N,) float64; of several labels the mean over them, without the background."""

    metric: Tensor  # Kaggle's for TGS salt, 0..1
    accuracy: Tensor  # share of pixels, the background too
    iou: Tensor  # 1 where a label is neither there nor predicted
    dice: Tensor
    intersection: Tensor  # pixels, over all labels
    union: Tensor


class Total(NamedTuple):
    """Means over images, and `micro_iou` of all images as if they were one: its pixels count alike, not its images."""

    metric: float
    accuracy: float
    iou: float
    dice: float
    micro_iou: float


def of_images(predicted: Tensor, masks: Tensor, classes: int) -> OfImages:
    """predicted and masks (N, H, W) on the CPU: label maps of `classes` classes, or 0 and 1 for one."""
    over_labels = partial(metric.over_labels, prediction=predicted, mask=masks, classes=classes)
    pairs = [(predicted == label, masks == label) for label in range(1, max(classes, 2))]
    overlaps = [metric.overlap(*pair) for pair in pairs]
    return OfImages(
        metric=over_labels(metric.tenths).double() / 10,
        accuracy=metric.pixel_accuracy(predicted, masks),
        iou=over_labels(metric.iou),
        dice=over_labels(metric.dice),
        intersection=sum(one for one, _ in overlaps).double(),
        union=sum(one for _, one in overlaps).double(),
    )


def total(parts: list[OfImages]) -> Total:
    """Of all images of all parts."""
    each = OfImages(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
    means = [each.metric, each.accuracy, each.iou, each.dice]
    union = each.union.sum()
    micro = each.intersection.sum() / union if union else torch.ones(())
    return Total(*(values.mean().item() for values in means), micro.item())
