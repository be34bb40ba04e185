"""The competition's metric and other scores of masks, exact in integers, one score per image."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

LEVELS = range(10, 20)  # IoU thresholds 0.50, 0.55 .. 0.95 as twentieths


def tenths(prediction: Tensor, mask: Tensor) -> Tensor:
    """Ten times the score of each image, (N,) int64 in 0..10.

    prediction and mask (N, H, W), bool or 0 / 1. The count of thresholds that the IoU is strictly greater than; with
    an empty mask 10 for an empty prediction and 0 for any other. Kaggle TGS salt, "Evaluation".
    """
    return tenths_of_counts(*overlap(prediction, mask))


def tenths_of_counts(intersection: Tensor, union: Tensor) -> Tensor:
    """`tenths` from the pixels in both masks and in either, integers of any one shape."""
    levels = torch.arange(LEVELS.start, LEVELS.stop, device=union.device)  # made there: no copy to wait for
    passed = (20 * intersection[..., None] > levels * union[..., None]).sum(dim=-1)
    return torch.where(union == 0, len(LEVELS), passed)


def decide(scores: Tensor, threshold: float) -> Tensor:
    """Label map (N, H, W) of scores (N, K, H, W), uint8: above the threshold for one class, else the highest one."""
    return (scores[:, 0] > threshold).to(torch.uint8) if scores.shape[1] == 1 else scores.argmax(1).to(torch.uint8)


def over_labels(score: Callable[[Tensor, Tensor], Tensor], prediction: Tensor, mask: Tensor, classes: int) -> Tensor:
    """Mean over the labels of a score (N,) of masks; prediction and mask (N, H, W) are label maps of `classes` classes.

    One class is one label, more are the background, which does not count, and the labels.
    """
    if classes == 1:
        return score(prediction, mask)
    return sum(score(prediction == label, mask == label) for label in range(1, classes)) / (classes - 1)


def metric(prediction: Tensor, mask: Tensor) -> float:
    """Mean score over the images, 0..1: the number on the leaderboard. Shapes as in `tenths`."""
    if len(mask) == 0:
        raise ValueError("got no images, expected at least one: their mean score is not defined")
    return tenths(prediction, mask).sum().item() / (10 * len(mask))


def iou(prediction: Tensor, mask: Tensor) -> Tensor:
    """Intersection over union of each image, (N,) float64; 1 when both are empty. Shapes as in `tenths`."""
    return iou_of_counts(*overlap(prediction, mask))


def iou_of_counts(intersection: Tensor, union: Tensor) -> Tensor:
    """`iou` from the pixels in both masks and in either, numbers of any one shape."""
    return torch.where(union == 0, 1.0, intersection.double() / union.clamp(min=1))


def dice(prediction: Tensor, mask: Tensor) -> Tensor:
    """2 intersection / (sum of both areas) of each image, (N,) float64; 1 when both are empty. As `iou`."""
    share = iou(prediction, mask)
    return 2 * share / (1 + share)


def pixel_accuracy(prediction: Tensor, mask: Tensor) -> Tensor:
    """Share of the pixels that agree, of each image, (N,) float64. Masks or label maps, (N, H, W) both."""
    wrong = prediction != mask
    return 1 - overlap(wrong, wrong)[0].double() / mask[0].numel()


def standard_error(scores: Tensor) -> float:
    """Standard error of the mean of scores (N,), in their own unit; nan for fewer than two."""
    scores = torch.as_tensor(scores, dtype=torch.float64)
    return scores.std().item() / math.sqrt(len(scores)) if len(scores) > 1 else math.nan


def overlap(prediction: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels in both and in either, (N,) int64 each."""
    if prediction.shape != mask.shape:
        raise ValueError(f"prediction is {tuple(prediction.shape)} and mask {tuple(mask.shape)}, expected equal shapes")
    if prediction.is_floating_point() or mask.is_floating_point():
        raise ValueError(
            f"got {prediction.dtype} and {mask.dtype}, expected masks: compare probabilities to a threshold"
        )
    prediction, mask = prediction.bool(), mask.bool()
    return _count(prediction & mask), _count(prediction | mask)


def _count(mask: Tensor) -> Tensor:
    """True pixels of each image, (N,) int64."""
    mask = mask.flatten(1)
    if mask.device.type == "cpu":  # NumPy adds up bytes 20 times as fast as torch
        return torch.from_numpy(np.add.reduce(mask.numpy().view(np.uint8), axis=1, dtype=np.int64))
    return mask.sum(dim=1)
