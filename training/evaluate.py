"""Score a net on validation tiles: flips averaged, at the tiles' own size, every tile counted once."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from datasets.files import Files
from datasets.framing import Framing
from datasets.salt import Tiles
from losses import metric
from nets import Output, tta

THRESHOLD = 0.5  # of the probability; a better one is chosen after training, on out-of-fold tiles


class Scores(NamedTuple):
    """Means over tiles. The loss is that of each tile and its flip; the others are of their averaged probability."""

    loss: float
    metric: float  # Kaggle's, 0..1; of several labels their mean
    accuracy: float  # share of pixels
    iou: float


@torch.no_grad()
def evaluate(
    model: nn.Module, framing: Framing, loss: Callable[[Output, Tensor], Tensor], tiles: Tiles | Files, batch: int
) -> Scores:
    """Scores of `model` on all `tiles`, in batches of `batch` tiles and as many flips. Leaves it in evaluation mode."""
    model.eval()
    device = next((parameter.device for parameter in model.parameters()), None)
    total = torch.zeros(len(Scores._fields), dtype=torch.float64)
    for piece in tiles.pieces(batch):
        framed = framing.fitting(piece.size)
        images, masks = piece.batch(range(len(piece)), tiles.channels, device), piece.masks.to(device)
        prediction = tta.predict(model, framed, images)
        both = framed.loss_mask(torch.cat([masks, masks.flip(-1)]))
        value = loss(prediction.output.map(framed.loss_view), both)
        predicted = metric.decide(prediction.probability, THRESHOLD).cpu()
        masks = masks.cpu()  # the scores are in float64, which not every device has
        of_labels = partial(
            metric.over_labels, prediction=predicted, mask=masks, classes=prediction.probability.shape[1]
        )
        sums = (
            len(piece) * value.cpu().double(),
            of_labels(metric.tenths).sum().double() / 10,
            metric.pixel_accuracy(predicted, masks).sum(),
            of_labels(metric.iou).sum(),
        )
        total += torch.stack(sums)
    return Scores(*(total / len(tiles)).tolist())
