"""A trained model as inference uses it: on its device, with all that its checkpoint tells."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import nets
from command import BadInput
from datasets import framing, labels
from datasets.framing import Framing
from datasets.labels import Labels
from nets.device import fabric as make_fabric


@dataclass(frozen=True)
class Model:
    net: nn.Module  # behind Fabric's autocast, in evaluation mode
    config: dict[str, Any]  # of its training
    details: dict[str, Any]  # everything in the checkpoint beside the weights
    framing: Framing
    channels: int
    classes: int
    batch: int
    device: torch.device

    @property
    def labels(self) -> Labels:
        return labels.parse(self.config.get("labels", ""), self.config.get("other_labels", False))

    @property
    def extra(self) -> list[str]:
        """Folders of further channels."""
        return self.config.get("extra", "").split()


def load(path: Path | str, device: str = "auto", precision: str = "", batch: int = 0) -> Model:
    """The model of a checkpoint. Empty precision and a batch of 0: as in its training. Raises BadInput."""
    if not Path(path).is_file():
        raise BadInput(f"{path} is not there: give a checkpoint, such as runs/RUN/pad/fold0/swa.pt")
    net, details = nets.load(path)
    config = details["config"]
    fabric = make_fabric(device, precision or config["precision"], config["threads"])
    channels, classes = net.arguments["channels"], net.arguments["classes"]
    model = fabric.setup(net.to(memory_format=torch.channels_last)).eval()
    framed = framing.build(**details["framing"])
    return Model(model, config, details, framed, channels, classes, batch or config["batch"], fabric.device)
