"""Scores of predicted label maps, image by image and in total: the same in training and in inference.validate."""

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
    intersection: Tensor  # (N, labels) pixels, int64
    union: Tensor


class Total(NamedTuple):
    """Means over images, and IoU of all images as if they were one, where a label that is never found counts as 0."""

    metric: float
    accuracy: float
    iou: float
    dice: float
    micro_iou: float  # of the pixels of all labels together
    miou: float  # mean over labels of each one's


def of_images(predicted: Tensor, masks: Tensor, classes: int) -> OfImages:
    """predicted and masks (N, H, W) on the CPU: label maps of `classes` classes, or 0 and 1 for one."""
    overlaps = [metric.overlap(predicted == label, masks == label) for label in range(1, max(classes, 2))]
    intersection, union = (torch.stack(counts, dim=1) for counts in zip(*overlaps, strict=True))
    iou = metric.iou_of_counts(intersection, union)
    return OfImages(
        metric=metric.tenths_of_counts(intersection, union).double().mean(1) / 10,
        accuracy=metric.pixel_accuracy(predicted, masks),
        iou=iou.mean(1),
        dice=(2 * iou / (1 + iou)).mean(1),
        intersection=intersection,
        union=union,
    )


def total(parts: list[OfImages]) -> Total:
    """Of all images of all parts."""
    each = joined(parts)
    means = [values.mean().item() for values in (each.metric, each.accuracy, each.iou, each.dice)]
    micro = metric.iou_of_counts(each.intersection.sum(), each.union.sum()).item()
    return Total(*means, micro, iou_of_labels(parts).mean().item())


def iou_of_labels(parts: list[OfImages]) -> Tensor:
    """(labels,): over the pixels of all images; 1 for a label that is neither there nor predicted anywhere."""
    each = joined(parts)
    return metric.iou_of_counts(each.intersection.sum(dim=0), each.union.sum(dim=0))


def joined(parts: list[OfImages]) -> OfImages:
    return OfImages(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
