"""A trained model as inference uses it: on its device, with all that its checkpoint (or ONNX file) tells."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import nets
from command import BadInput
from datasets import framing, labels
from datasets.framing import Framing
from datasets.labels import Labels
from nets.device import fabric as make_fabric


@dataclass(frozen=True)
class Model:
    net: nn.Module  # behind Fabric's autocast, in evaluation mode; or one that runs by ONNX
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


METADATA = "saltworks"  # key in an ONNX file of what a checkpoint would tell


class OnnxNet(nn.Module):
    """A net of an ONNX file, by onnxruntime on the CPU."""

    def __init__(self, path: Path):
        super().__init__()
        self.session = onnx_session(path)

    def forward(self, images: Tensor) -> nets.Output:
        (logits,) = self.session.run(None, {"images": images.float().cpu().numpy()})
        return nets.Output(torch.from_numpy(logits))


def load(path: Path | str, device: str = "auto", precision: str = "", batch: int = 0) -> Model:
    """The model of a checkpoint or ONNX file. Empty precision, batch of 0: as in its training. Raises BadInput."""
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path} is not there: give a checkpoint, such as runs/RUN/pad/fold0/swa.pt")
    if path.suffix == ".onnx":
        net = OnnxNet(path).eval()
        details = metadata(net, path)
        arguments, where = details["arguments"], torch.device("cpu")
    else:
        net, details = nets.load(path)
        arguments, config = net.arguments, details["config"]
        fabric = make_fabric(device, precision or config["precision"], config["threads"])
        net, where = fabric.setup(net.to(memory_format=torch.channels_last)).eval(), fabric.device
    config, framed = details["config"], framing.build(**details["framing"])
    channels, classes = arguments["channels"], arguments["classes"]
    return Model(net, config, details, framed, channels, classes, batch or config["batch"], where)


def metadata(net: OnnxNet, path: Path) -> dict[str, Any]:
    """What inference.export wrote into the file."""
    text = net.session.get_modelmeta().custom_metadata_map.get(METADATA)
    if text is None:
        raise BadInput(f"{path} does not tell how its images are framed: write it with inference.export")
    return json.loads(text)


def onnx_session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise BadInput(f"{path} needs onnxruntime: pip install onnxruntime (requirements-extras.txt)") from None
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no base class
        reason = " ".join(str(error).split())[:160]
        raise BadInput(f"{path} is no ONNX model that can be run ({reason}): export it again") from error
