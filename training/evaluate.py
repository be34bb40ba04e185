"""Score a net on validation images: flips averaged, at each image's own size, every image counted once."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from datasets.files import Files
from datasets.framing import Framing
from datasets.salt import Tiles
from losses import metric, scores
from nets import Output, tta

THRESHOLD = 0.5  # of the probability; a better one is chosen after training, on out-of-fold tiles


class Scores(NamedTuple):
    """Means over images. The loss is that of each image and its flip; the others are of their averaged probability."""

    loss: float
    metric: float  # Kaggle's, 0..1; this and the next ones: see losses/scores.py
    accuracy: float
    iou: float
    dice: float
    micro_iou: float
    miou: float


@torch.no_grad()
def evaluate(
    model: nn.Module, framing: Framing, loss: Callable[[Output, Tensor], Tensor], tiles: Tiles | Files, batch: int
) -> Scores:
    """Scores of `model` on all `tiles`, in batches of `batch` and as many flips. Leaves it in evaluation mode."""
    model.eval()
    device = next((parameter.device for parameter in model.parameters()), None)
    total_loss, found = 0.0, []
    for piece in tiles.pieces(batch):
        framed = framing.fitting(piece.size)
        images, masks = piece.batch(range(len(piece)), tiles.channels, device), piece.masks.to(device)
        prediction = tta.predict(model, framed, images)
        both = framed.loss_mask(torch.cat([masks, masks.flip(-1)]))
        total_loss += len(piece) * loss(prediction.output.map(framed.loss_view), both).item()
        predicted = metric.decide(prediction.probability, THRESHOLD)
        found.append(scores.of_images(predicted.cpu(), masks.cpu(), prediction.probability.shape[1]))
    return Scores(total_loss / len(tiles), *scores.total(found))
