"""What the steps of an epoch tell: means for metrics.csv, and the end of a training whose numbers are none any more."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean as mean
from statistics import median

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from command import BadInput
from training.step import Figures, Group

EVERY = 50  # steps between two looks: each waits for the device
EXPLODED = 100  # times the median gradient norm
REMEDY = "try a lower --lr or --precision=float32"


@dataclass
class Watch:
    """One epoch's steps. Raises BadInput, naming the images, where a loss or a gradient is not finite.

    fp16 has few large numbers: its scaler skips steps whose gradients overflow and takes half the scale for the next.
    There the end is a scale below one, at which the gradients themselves are not finite.
    """

    epoch: int
    names: Sequence[str]  # of the training images
    scaler: GradScaler | None = None  # of fp16
    groups: list[Group] = field(default_factory=list)
    waiting: list[Tensor] = field(default_factory=list)  # (3,) of each step since the last look, on the device
    steps: list[Figures] = field(default_factory=list)  # numbers

    def note(self, group: Group, said: Figures) -> None:
        self.groups.append(group)
        self.waiting.append(torch.stack(said))
        if len(self.waiting) == EVERY:
            self.look()

    def look(self) -> None:
        for values in torch.stack(self.waiting).tolist() if self.waiting else ():
            self.steps.append(Figures(*values))
            if not self.scaler and not is_finite(self.steps[-1]):
                self.stop(len(self.steps) - 1)
        self.waiting.clear()
        if self.scaler and self.steps and not is_finite(self.steps[-1]) and self.scaler.get_scale() < 1:
            self.stop(len(self.steps) - 1)

    def stop(self, step: int) -> None:
        said = self.steps[step]
        names = [self.names[index] for indices in self.groups[step] for index in indices.tolist()]
        raise BadInput(
            f"in step {step} of epoch {self.epoch} the loss is {said.loss:.4g} and the gradient's norm "
            f"{said.gradient_norm:.4g}, not finite, with the images {' '.join(names)}: {REMEDY}; {kept(self.epoch)}"
        )

    def row(self) -> dict[str, float | None]:
        """Means over the epoch's steps, for metrics.csv; of the gradient's norm the median and the largest.

        None if all steps were skipped, as may be in the first epoch of a small data set in fp16.
        """
        self.look()
        sound = [step for step in self.steps if is_finite(step)]
        losses, scores, norms = zip(*sound, strict=True) if sound else ((), (), ())
        found = {
            "train_loss": mean(losses) if sound else None,
            "train_metric": mean(scores) if sound else None,
            "gradient_norm": median(norms) if sound else None,
            "largest_gradient_norm": max(norms, default=None),
        }
        return found | ({"skipped_steps": len(self.steps) - len(sound)} if self.scaler else {})


def is_finite(said: Figures) -> bool:
    return math.isfinite(said.loss) and math.isfinite(said.gradient_norm)


def has_exploded(row: dict[str, float | None]) -> bool:
    return row["gradient_norm"] is not None and row["largest_gradient_norm"] > EXPLODED * row["gradient_norm"]


def refuse_broken_weights(net: nn.Module, epoch: int) -> None:
    """Raise BadInput if a weight or a running statistic is not finite, before it gets into a checkpoint."""
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise BadInput(f"after epoch {epoch} the weight {name} is not finite: {REMEDY}; {kept(epoch)}")


def refuse_broken_loss(loss: float | None, epoch: int) -> None:
    """Raise BadInput if the validation loss is not finite; None is one that was not computed."""
    if loss is not None and not math.isfinite(loss):
        raise BadInput(f"the validation loss of epoch {epoch} is {loss}, not finite: {REMEDY}; {kept(epoch)}")


def kept(epoch: int) -> str:
    """Where the last good weights are."""
    return f"latest.pt holds epoch {epoch - 1}" if epoch else "no checkpoint was written yet"
