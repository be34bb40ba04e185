"""One optimiser step, and which images go into it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import get_total_norm

import nets
from command import BadInput
from losses import metric
from training.feed import Batch
from training.setup import Job

Group = Sequence[Tensor]  # indices of each batch of an optimiser step


class Figures(NamedTuple):
    """Of a step: () each and on the device, as reading them would wait for a GPU; numbers once they are read."""

    loss: Tensor  # mean over the group's images, as the next one
    metric: Tensor  # Kaggle's at threshold 0.5
    gradient_norm: Tensor  # of all parameters together, before the optimiser


def seed_epoch(seed: int, epoch: int) -> torch.Generator:
    """All randomness of an epoch follows from (seed, epoch): dropout's from torch's, the rest from this generator."""
    number = seed * 1_000_003 + epoch
    torch.manual_seed(number)
    return torch.Generator().manual_seed(number)


def epoch_groups(count: int, batch: int, accumulate: int, generator: torch.Generator) -> list[Group]:
    """Shuffled indices as groups of `accumulate` batches, one optimiser step each.

    Tiles that fill no group sit this epoch out; a data set smaller than one group is one group.
    """
    group = min(batch * accumulate, count)
    order = torch.randperm(count, generator=generator)[: count // group * group]
    groups = [part.split(batch) for part in order.split(group)]
    if batch == 1 or group % batch != 1 or group == 1:
        return groups
    return [parts[:-1] for parts in groups]  # a last batch of one cannot be normalised by itself


def train_step(
    job: Job, group: Group, batches: Iterator[Batch], generator: torch.Generator, image_size: int
) -> Figures:
    """One optimiser step over a group of batches, shown to the net at `image_size` pixels.

    `batches` hands over the images of `group` (Job.feed). Nothing in it waits for the device.
    """
    size = sum(len(indices) for indices in group)
    total = torch.zeros(2, device=job.fabric.device)
    for part, _ in enumerate(group, start=1):
        images, masks = job.augment(*next(batches), generator)
        with job.fabric.no_backward_sync(job.model, enabled=part < len(group)):
            try:
                output = forward(job, images, image_size)
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                remedy = "give a larger --batch, or more images"
                raise BadInput(f"a batch of {len(images)} cannot be normalised by this net: {remedy}") from error
            loss = job.loss(output.map(job.framing.loss_view), job.framing.loss_mask(masks))
            job.fabric.backward(loss * (len(images) / size))
        total += torch.stack([loss.detach(), batch_metric(job, output, masks)]) * (len(images) / size)
    norm = gradient_norm(job)
    job.optimizer.step()
    job.optimizer.zero_grad()
    return Figures(*total, norm)


def forward(job: Job, images: Tensor, image_size: int) -> nets.Output:
    """What the net says of tiles (N, C, H, W), always at the framing's size; it sees them at `image_size` pixels."""
    framed = job.framing.frame(images)
    full = framed.shape[-2:]
    if image_size == full[0]:
        return job.model(framed.contiguous(memory_format=torch.channels_last))
    shrunk = F.interpolate(framed, (image_size, image_size), mode="bilinear", antialias=True)
    output = job.model(shrunk.contiguous(memory_format=torch.channels_last))
    return output.map(lambda logits: F.interpolate(logits, full, mode="bilinear"))


@torch.no_grad()
def batch_metric(job: Job, output: nets.Output, masks: Tensor) -> Tensor:
    """Kaggle's metric of a training batch at threshold 0.5, at the tiles' size, as a tensor on the device."""
    logits = job.framing.unframe(output.logits.detach())
    scores = metric.over_labels(metric.tenths, metric.decide(logits, 0.0), masks, logits.shape[1])
    return scores.float().mean() / 10


@torch.no_grad()
def gradient_norm(job: Job) -> Tensor:
    """() of all gradients; those of fp16 lose their scale here, and the optimiser knows."""
    if job.scaler:
        job.scaler.unscale_(job.optimizer.optimizer)
    return get_total_norm([parameter.grad for parameter in job.net.parameters() if parameter.grad is not None])
