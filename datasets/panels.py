"""Pictures of predictions: image, probability, truth and errors side by side, and masks laid over images."""

import cv2
import numpy as np

# Matplotlib's tab10: one colour a label, in turn.
COLOURS = np.array(
    [
        (31, 119, 180),
        (255, 127, 14),
        (44, 160, 44),
        (214, 39, 40),
        (148, 103, 189),
        (140, 86, 75),
        (227, 119, 194),
        (127, 127, 127),
        (188, 189, 34),
        (23, 190, 207),
    ],
    np.uint8,
)
HIT, FALSE, MISSED = (235, 235, 235), (213, 94, 0), (0, 114, 178)  # told apart by the colour-blind too (Okabe & Ito)
GAP = 6  # pixels between panels
DARK = 0.25  # largest value of an image that is stretched to be seen


def side_by_side(
    image: np.ndarray, probability: np.ndarray, predicted: np.ndarray, truth: np.ndarray | None
) -> np.ndarray:
    """RGB (H, W', 3): image (C, H, W) in 0..1, probability (K, H, W), label maps (H, W); errors if there is a truth."""
    single = len(probability) == 1
    panels = [picture(image), shaded(probability), coloured(predicted, single)]
    if truth is not None:
        panels += [coloured(truth, single), errors(predicted, truth)]
    gap = np.full((image.shape[1], GAP, 3), 255, np.uint8)
    return np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)


def picture(image: np.ndarray) -> np.ndarray:
    """(C, H, W) in 0..1 -> RGB (H, W, 3) uint8, of its first three channels; stretched where it is dark."""
    largest = image[:3].max(initial=0)
    scale = 255 / largest if 0 < largest < DARK else 255
    return np.rint(scale * image[:3].transpose(1, 2, 0).clip(0, 1)).astype(np.uint8)


def shaded(probability: np.ndarray) -> np.ndarray:
    """(K, H, W) -> RGB: one class in grey; of several, each label's colour by its probability."""
    if len(probability) == 1:
        return np.repeat(np.rint(255 * probability[0, ..., None]).astype(np.uint8), 3, axis=2)
    mixed = sum(p[..., None] * COLOURS[number % len(COLOURS)] for number, p in enumerate(probability[1:]))
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def coloured(labels: np.ndarray, single: bool) -> np.ndarray:
    """Label map (H, W) -> RGB, the background black; the label white where there is but a single one."""
    palette = np.concatenate([[(0, 0, 0)], COLOURS[np.arange(255) % len(COLOURS)]]).astype(np.uint8)
    if single:
        palette[1] = 255
    return palette[labels]


def errors(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """RGB: hits light, false pixels orange, missed ones blue, one label for another orange; the rest black."""
    found = np.zeros((*truth.shape, 3), np.uint8)
    found[(predicted == truth) & (truth > 0)] = HIT
    found[(predicted != truth) & (predicted > 0)] = FALSE
    found[(predicted == 0) & (truth > 0)] = MISSED
    return found


def overlay(image: np.ndarray, labels: np.ndarray, strength: float = 0.4) -> np.ndarray:
    """RGB of image (C, H, W) in 0..1 with each label tinted and outlined."""
    found = picture(image).astype(np.float32)
    for label in range(1, int(labels.max(initial=0)) + 1):
        colour, mask = COLOURS[(label - 1) % len(COLOURS)], labels == label
        found[mask] = (1 - strength) * found[mask] + strength * colour
        outline = mask & (cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1) == 0)
        found[outline] = colour
    return np.rint(found).astype(np.uint8)
