"""Write a trained model as ONNX, and check that it says what the model says.

    python -m inference.export --checkpoint=runs/tiles/resize/fold0/swa.pt --out=model.onnx
    python -m inference.segment --checkpoint=model.onnx --images=photos

Input `images` (N, channels, S, S) float32 in 0..1, framed; output `logits` (N, classes, S, S), before the activation.
The file carries framing, labels and the rest as metadata, so that segment and validate take it in place of a
checkpoint. Needs onnx, onnxruntime and onnxscript (requirements-extras.txt).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import command
import nets
import runfolder
from command import BadInput
from inference.model import METADATA, onnx_session

TOLERANCE = 1e-3  # of logits, absolute plus the same share of them
CHECKED = (1, 3)  # images in the batches that are compared


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: str = ""  # a file that training or swa wrote
    out: str = ""  # the file to write; empty = beside the checkpoint, NAME.onnx


class Logits(nn.Module):
    """A net that returns nothing but its logits."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images).logits


def export(options: Options) -> None:
    """Write the file; nothing is left of one that does not agree with the model."""
    if not options.checkpoint:
        raise BadInput("--checkpoint is missing: give a file such as runs/RUN/pad/fold0/swa.pt")
    path = Path(options.checkpoint)
    out = Path(options.out) if options.out else path.with_suffix(".onnx")
    if out.suffix != ".onnx":
        raise BadInput(f"--out={out} does not end in .onnx, by which inference knows it: name it so")
    net, details = nets.load(path)
    size = details["framing"]["image_size"]
    example = torch.rand(2, net.arguments["channels"], size, size, generator=torch.Generator().manual_seed(0))
    with runfolder.atomic(out) as temporary:
        convert(Logits(net).eval(), example, temporary)
        add_metadata(temporary, details | {"arguments": net.arguments})
        worst = max(difference(Logits(net), temporary, example[:1].repeat(count, 1, 1, 1)) for count in CHECKED)
        if worst > TOLERANCE:
            raise BadInput(f"{path} says other things as ONNX (logits differ by {worst:.2g}): it cannot be exported")
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, logits within {worst:.1e} of the model's")


def convert(net: nn.Module, example: Tensor, path: Path) -> None:
    try:
        import onnxscript  # noqa: F401 - torch's exporter needs it and says so in many lines
    except ImportError:
        raise BadInput("export needs onnx, onnxruntime and onnxscript: see requirements-extras.txt") from None
    batch = torch.export.Dim("batch", min=1)
    torch.onnx.export(
        net,
        (example,),
        str(path),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes={"images": {0: batch}},
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def add_metadata(path: Path, details: dict[str, object]) -> None:
    import onnx

    model = onnx.load(path)
    kept = {name: details[name] for name in ("config", "framing", "native_size", "arguments") if name in details}
    onnx.helper.set_model_props(model, {METADATA: json.dumps(kept)})
    onnx.save(model, path)


@torch.no_grad()
def difference(net: nn.Module, path: Path, images: Tensor) -> float:
    """The largest difference of logits, relative to 1 plus their size."""
    expected = net.eval()(images).numpy()
    (found,) = onnx_session(path).run(None, {"images": images.numpy()})
    return float((np.abs(found - expected) / (1 + np.abs(expected))).max())


if __name__ == "__main__":
    command.run(export, Options)
