"""Predict any images with a trained model: a folder, one file, a large raster, a seismic section. No labels needed.

    python -m inference.segment --checkpoint=runs/tiles/resize/fold0/swa.pt --images=photos --out=predictions
    python -m inference.segment --checkpoint=... --images=line.segy        # written back as SEG-Y too

Writes OUT/masks (the labels' own values), OUT/probabilities (16-bit PNG of round(65535 p), a file a label),
OUT/overlays, all at each image's own size, and OUT/images.csv with the share of each label. Images more than half as
large again as those of the training are predicted in overlapping windows of that size (inference/rasters.py); so are
all images by a model that pads. A raster needs some 40 bytes of memory a pixel.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

import command
import runfolder
from command import BadInput, at_least, choose
from datasets import files, panels, pictures, sections
from datasets.framing import Pad
from inference import model, rasters
from inference.model import Model
from inference.validate import write_probabilities
from losses import metric
from nets import tta
from nets.device import PRECISIONS

LARGER = 1.5  # times the training's size, from which on windows are predicted


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: str = ""  # a file that training or swa wrote
    images: str = ""  # a folder of images, or one file: an image or SEG-Y
    out: str = "predictions"  # folder to write
    windows: str = "auto"  # auto, always, never: whether images are predicted in overlapping windows
    overlap: float = 0.5  # share of a window, 0 .. 0.9
    threshold: float = 0.5  # 0..1, above which a pixel has the label; several labels: the most probable one counts
    overlays: bool = True  # images with their labels tinted
    probabilities: bool = True  # as 16-bit PNG
    batch: int = 0  # images or windows at once, each with its flip; 0 = as in training
    device: str = "auto"  # auto, cpu, cuda or mps
    precision: str = ""  # bf16, fp16, float32; empty = as in training

    def __post_init__(self) -> None:
        choose("precision", self.precision, ("", *PRECISIONS))
        choose("windows", self.windows, ("auto", "always", "never"))
        at_least("batch", self.batch, 0)
        if not 0 <= self.threshold <= 1:
            raise BadInput(f"--threshold={self.threshold} is no probability: give one from 0 to 1")
        if not 0 <= self.overlap <= 0.9:
            raise BadInput(f"--overlap={self.overlap} is not from 0 to 0.9: 0.5 blends well")


class Picture(NamedTuple):
    """One image to predict."""

    name: str
    image: Tensor  # (C, H, W) float32, 0..1


def segment(options: Options) -> None:
    """Write what the model says of every image that `options` name."""
    for flag in ("checkpoint", "images"):
        if not getattr(options, flag):
            raise BadInput(f"--{flag} is missing: --checkpoint=runs/RUN/pad/fold0/swa.pt --images=FOLDER_OR_FILE")
    loaded = model.load(options.checkpoint, options.device, options.precision, options.batch)
    out, source = Path(options.out), Path(options.images)
    rows = []
    if sections.is_section(source):
        section = sections.read(source, loaded.channels)
        probability = predict(options, loaded, section)
        rows.append(write(options, loaded, out, Picture(source.stem, section), probability))
        sections.write_like(source, out / f"{source.stem}_probability{source.suffix}", foreground(probability))
    else:
        found = pictures_of(source, loaded)
        for picture in tqdm(found, "segment", len(files_of(source, loaded)), unit="image", disable=None):
            rows.append(write(options, loaded, out, picture, predict(options, loaded, picture.image)))
    with runfolder.atomic(out / "images.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.6f", encoding="utf-8", lineterminator="\n")
    told = {"options": asdict(options), "checkpoint": runfolder.checksum(options.checkpoint)}
    runfolder.write_json(out / "images.json", told | {"made with": runfolder.provenance()})
    print(f"{out}/images.csv, masks: {len(rows)} images")


def files_of(source: Path, loaded: Model) -> files.Files:
    if not source.exists():
        raise BadInput(f"--images={source} is not there: give a folder of images or one file")
    found = files.open_images(source, loaded.extra)
    if found.channels != loaded.channels:
        raise BadInput(f"--images={source} has {found.channels} channels, the model takes {loaded.channels}")
    return found


def pictures_of(source: Path, loaded: Model) -> Iterator[Picture]:
    for piece in files_of(source, loaded).pieces(1, num_ahead=1):
        yield Picture(piece.names[0], piece.batch([0], loaded.channels)[0])


@torch.no_grad()
def predict(options: Options, loaded: Model, image: Tensor) -> Tensor:
    """Probabilities (K, H, W) of an image (C, H, W), as a whole or in windows."""
    size, native = tuple(image.shape[-2:]), native_size(loaded)
    larger = any(side > LARGER * usual for side, usual in zip(size, native, strict=True))
    in_windows = larger or isinstance(loaded.framing, Pad)  # padding fits one size of image alone
    window = native if options.windows == "always" or (options.windows == "auto" and in_windows) else size

    def said(windows: Tensor) -> Tensor:
        framed = loaded.framing.fitting(tuple(windows.shape[-2:]))
        return tta.predict(loaded.net, framed, windows.to(loaded.device)).probability

    return rasters.blend(image, window, options.overlap, loaded.batch, said)


def native_size(loaded: Model) -> tuple[int, int]:
    """Height and width of the images that the model was trained on."""
    return tuple(loaded.details.get("native_size", loaded.framing.tile_size))


def foreground(probability: Tensor) -> Tensor:
    """(K, H, W) -> (H, W): of any label."""
    return probability[0] if len(probability) == 1 else 1 - probability[0]


def write(options: Options, loaded: Model, out: Path, picture: Picture, probability: Tensor) -> dict[str, object]:
    """Write the files of one image; returns its row of images.csv."""
    labels = metric.decide(probability[None], options.threshold)[0].numpy()
    pictures.write(out / "masks" / f"{picture.name}.png", loaded.labels.values_of(labels))
    if options.overlays:
        pictures.write(out / "overlays" / f"{picture.name}.png", panels.overlay(picture.image.numpy(), labels))
    if options.probabilities:
        write_probabilities(out / "probabilities", picture.name, probability.numpy(), loaded)
    values = loaded.labels.values or (1,)
    shares = {f"share of {value}": float(np.mean(labels == number)) for number, value in enumerate(values, start=1)}
    height, width = labels.shape
    return {"name": picture.name, "height": height, "width": width} | shares


if __name__ == "__main__":
    command.run(segment, Options)
