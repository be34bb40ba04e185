"""A model in ONNX says what the checkpoint says, and every inference command takes it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from folders import write_tiles

import nets
from command import BadInput
from inference import model
from inference.export import Options, export
from inference.segment import Options as Segment
from inference.segment import segment

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def save_net(path: Path, name: str, **arguments) -> Path:
    torch.manual_seed(0)
    config = {"labels": "", "extra": "", "precision": "float32", "threads": 1, "batch": 3}
    framing = {"variant": "resize", "tile_size": (64, 64), "image_size": 64}
    net = nets.build(name, **arguments)
    net.train()(torch.rand(4, 3, 64, 64))  # batch norm away from its beginning
    nets.save(path, net, config=config, framing=framing, native_size=(40, 48))
    return path


@pytest.mark.parametrize(
    ("name", "arguments"), [("fastnet", {"width": 8}), ("smp", {"encoder": "resnet18"})], ids=["fastnet", "smp"]
)
def test_segmenting_by_onnx_gives_the_checkpoints_probabilities(tmp_path: Path, name, arguments, capsys):
    checkpoint = save_net(tmp_path / "net.pt", name, **arguments)
    export(Options(checkpoint=str(checkpoint)))
    assert "of the model's" in capsys.readouterr().out
    write_tiles(tmp_path / "data", 3)
    found = []
    for path in (checkpoint, checkpoint.with_suffix(".onnx")):
        out = tmp_path / path.suffix[1:]
        segment(Segment(checkpoint=str(path), images=str(tmp_path / "data/images"), out=str(out), precision="float32"))
        found.append(cv2.imread(str(out / "probabilities/tile 1.png"), cv2.IMREAD_UNCHANGED).astype(int))
    assert np.abs(found[0] - found[1]).max() <= 66  # a thousandth


def test_refusals(tmp_path: Path):
    checkpoint = save_net(tmp_path / "net.pt", "fastnet", width=8)
    with pytest.raises(BadInput, match=r"does not end in \.onnx"):
        export(Options(checkpoint=str(checkpoint), out=str(tmp_path / "net.bin")))
    with pytest.raises(BadInput, match="--checkpoint is missing"):
        export(Options())
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(BadInput, match="no ONNX model that can be run"):
        model.load(tmp_path / "bad.onnx")
