"""Score a net on validation tiles: flips averaged, at the tiles' own size, every tile counted once."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from datasets.framing import Framing
from datasets.salt import Tiles
from losses import metric
from nets import Output, tta

THRESHOLD = 0.5  # of the probability; a better one is chosen after training, on out-of-fold tiles


class Scores(NamedTuple):
    """Means over tiles. The loss is that of each tile and its flip; the others are of their averaged probability."""

    loss: float
    metric: float  # Kaggle's, 0..1
    accuracy: float  # share of pixels
    iou: float


@torch.no_grad()
def evaluate(
    model: nn.Module, framing: Framing, loss: Callable[[Output, Tensor], Tensor], tiles: Tiles, batch: int
) -> Scores:
    """Scores of `model` on all `tiles`, in batches of `batch` tiles and as many flips. Leaves it in evaluation mode."""
    model.eval()
    total = torch.zeros(len(Scores._fields), dtype=torch.float64)
    for indices in torch.arange(len(tiles), device=tiles.images.device).split(batch):
        images, masks = tiles.batch(indices), tiles.masks[indices]
        prediction = tta.predict(model, framing, images)
        predicted = (prediction.probability.squeeze(1) > THRESHOLD).cpu()
        both = framing.loss_mask(torch.cat([masks, masks.flip(-1)]))
        value = loss(prediction.output.map(framing.loss_view), both)
        masks = masks.cpu()  # the scores are in float64, which not every device has
        sums = (
            len(indices) * value.cpu().double(),
            metric.tenths(predicted, masks).sum().double() / 10,
            metric.pixel_accuracy(predicted, masks).sum(),
            metric.iou(predicted, masks).sum(),
        )
        total += torch.stack(sums)
    return Scores(*(total / len(tiles)).tolist())
