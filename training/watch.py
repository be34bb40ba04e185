"""What the steps of an epoch tell: means for metrics.csv, and the end of a training whose numbers are none any more."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from command import BadInput
from training.step import Group, Said

EVERY = 50  # steps between two looks: each waits for the device
IN_A_ROW = 30  # steps that fp16 may skip one after another: its scale begins at 2^16 and halves at each
EXPLODED = 100  # times the median gradient norm
REMEDY = "try a lower --lr or --precision=float32"


@dataclass
class Watch:
    """One epoch's steps. Raises BadInput, naming the images, where a loss or a gradient is not finite.

    fp16 has few large numbers: its optimiser skips steps whose gradients overflow and takes a smaller scale for the
    next. There only many such steps in a row are the end.
    """

    epoch: int
    names: Sequence[str]  # of the training images
    skips: bool  # whether the optimiser skips steps that are not finite
    groups: list[Group] = field(default_factory=list)
    waiting: list[Tensor] = field(default_factory=list)  # (3,) of each step since the last look, on the device
    steps: list[Said] = field(default_factory=list)  # numbers

    def note(self, group: Group, said: Said) -> None:
        self.groups.append(group)
        self.waiting.append(torch.stack(said))
        if len(self.waiting) == EVERY:
            self.look()

    def look(self) -> None:
        for values in torch.stack(self.waiting).tolist() if self.waiting else ():
            self.steps.append(Said(*values))
            patience = IN_A_ROW if self.skips else 1
            if len(self.steps) >= patience and not any(map(is_finite, self.steps[-patience:])):
                self.stop(len(self.steps) - 1)
        self.waiting.clear()

    def stop(self, step: int) -> None:
        said = self.steps[step]
        names = [self.names[index] for indices in self.groups[step] for index in indices.tolist()]
        raise BadInput(
            f"in step {step} of epoch {self.epoch} the loss is {said.loss:.4g} and the gradient's norm "
            f"{said.gradient_norm:.4g}, not finite, with the images {' '.join(names)}: {REMEDY}; {kept(self.epoch)}"
        )

    def row(self) -> dict[str, float]:
        """Means over the epoch's steps, for metrics.csv; of the gradient's norm the median and the largest."""
        self.look()
        sound = [step for step in self.steps if is_finite(step)]
        if not sound:
            self.stop(0)
        norms = sorted(step.gradient_norm for step in sound)
        found = {
            "train_loss": sum(step.loss for step in sound) / len(sound),
            "train_metric": sum(step.metric for step in sound) / len(sound),
            "gradient_norm": norms[len(norms) // 2],
            "largest_gradient_norm": norms[-1],
        }
        return found | ({"skipped_steps": len(self.steps) - len(sound)} if self.skips else {})


def is_finite(said: Said) -> bool:
    return math.isfinite(said.loss) and math.isfinite(said.gradient_norm)


def has_exploded(row: dict[str, float]) -> bool:
    return row["largest_gradient_norm"] > EXPLODED * row["gradient_norm"]


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
