"""Score a checkpoint on labelled images, one by one and in total, and write what it sees.

    python -m inference.validate --checkpoint=runs/tiles/resize/fold0/swa.pt [--plots=True --masks=True]
    python -m inference.validate --checkpoint=... --data=another/folder --threshold=0.4

Without --data, the images that the model's fold held out: the totals are those of its training at that epoch. With it,
every labelled image of that folder. Writes scores.csv (a row an image, then their mean and the micro average) and
totals.json; with --plots, image, probability, prediction, truth and errors side by side; with --masks, predictions in
the labels' own values; with --probabilities, 16-bit PNG of round(65535 p), a file a label; all at the images' size.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import command
import runfolder
from command import BadInput, at_least, choose
from datasets import folds, layouts, panels, pictures
from datasets.files import Files
from datasets.salt import Tiles
from inference import model
from inference.model import Model
from losses import metric, scores
from losses.scores import OfImages
from nets import tta
from nets.device import PRECISIONS

COLUMNS = ("iou", "dice", "accuracy", "metric")  # of scores.csv, beside the name


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: str = ""  # a file that training or swa wrote
    data: str = ""  # a folder of labelled images; empty = what the model's fold held out
    out: str = ""  # folder to write; empty = beside the checkpoint, NAME-validation
    threshold: float = 0.5  # 0..1, above which a pixel has the label; several labels: the most probable one counts
    plots: bool = False  # a picture an image, named by its score
    masks: bool = False  # predicted masks
    probabilities: bool = False  # probabilities as 16-bit PNG
    decimal_comma: bool = False  # scores.csv with ; between columns and , in numbers
    batch: int = 0  # images at once, each with its flip; 0 = as in training
    device: str = "auto"  # auto, cpu, cuda or mps
    precision: str = ""  # bf16, fp16, float32; empty = as in training

    def __post_init__(self) -> None:
        choose("precision", self.precision, ("", *PRECISIONS))
        at_least("batch", self.batch, 0)
        if not 0 <= self.threshold <= 1:
            raise BadInput(f"--threshold={self.threshold} is no probability: give one from 0 to 1")


def validate(options: Options) -> None:
    """Write the scores of the checkpoint that `options` name, and the pictures they ask for."""
    if not options.checkpoint:
        raise BadInput("--checkpoint is missing: give a file such as runs/RUN/pad/fold0/swa.pt")
    loaded = model.load(options.checkpoint, options.device, options.precision, options.batch)
    source = images_of(options, loaded)
    path = Path(options.checkpoint)
    of_data = f"-{Path(options.data).name}" if options.data else ""
    out = Path(options.out) if options.out else path.with_name(f"{path.stem}-validation{of_data}")
    out.mkdir(parents=True, exist_ok=True)
    found = list(tqdm(score(options, loaded, source, out), "validate", disable=None))
    total, values = scores.total(found), loaded.labels.values or ("object",)
    write_table(out / "scores.csv", source.names, found, total, options.decimal_comma)
    runfolder.write_json(
        out / "totals.json",
        total._asdict()
        | {"iou of labels": dict(zip(map(str, values), scores.iou_of_labels(found).tolist(), strict=True))}
        | {"images": len(source), "data": options.data or loaded.config["data"]}
        | {"threshold": options.threshold, "checkpoint": str(path)}
        | {"made with": runfolder.provenance()},
    )
    told = ", ".join(f"{name} {value:.4f}" for name, value in total._asdict().items())
    print(f"{out}/scores.csv: {len(source)} images, {told}")


def images_of(options: Options, loaded: Model) -> Tiles | Files:
    """The labelled images to score."""
    config = loaded.config
    source = layouts.load_labelled(options.data or config["data"], loaded.labels, loaded.extra)
    if source.channels != loaded.channels:
        raise BadInput(
            f"{options.data or config['data']} has images of {source.channels} channels, expected {loaded.channels} "
            f"as {options.checkpoint} was trained on"
        )
    if not options.data:
        path = runfolder.folds_file(config["run"])
        if runfolder.checksum(path) != config["folds"]:
            raise BadInput(f"{path} is not the split that {options.checkpoint} was trained with: name images by --data")
        names = folds.members(folds.read(path, source.names), config["fold"])[1]
        source = source.select(names[: config["limit_tiles"] or None])
    if not len(source):
        raise BadInput(f"{options.data} has no labelled image: give a folder that has some")
    return source


@torch.no_grad()
def score(options: Options, loaded: Model, source: Tiles | Files, out: Path) -> Iterator[OfImages]:
    """Scores of each batch; writes what is asked for on the way."""
    for piece in source.pieces(loaded.batch):
        images = piece.batch(range(len(piece)), loaded.channels, loaded.device)
        prediction = tta.predict(loaded.net, loaded.framing.fitting(piece.size), images)
        predicted = metric.decide(prediction.probability, options.threshold).cpu()
        found = scores.of_images(predicted, piece.masks.cpu(), loaded.classes)
        yield found
        if options.plots or options.masks or options.probabilities:
            for i, name in enumerate(piece.names):
                image, probability = (x[i].float().cpu().numpy() for x in (images, prediction.probability))
                truth = piece.masks[i].cpu().numpy()
                view = View(name, image, probability, predicted[i].numpy(), truth, found.iou[i])
                write_views(options, loaded, out, view)


class View(NamedTuple):
    """One image and what is said of it."""

    name: str
    image: np.ndarray  # (C, H, W) in 0..1
    probability: np.ndarray  # (K, H, W)
    predicted: np.ndarray  # (H, W) label map
    truth: np.ndarray  # (H, W) label map
    iou: Tensor  # ()


def write_views(options: Options, loaded: Model, out: Path, view: View) -> None:
    if options.plots:
        picture = panels.side_by_side(view.image, view.probability, view.predicted, view.truth)
        pictures.write(out / "plots" / f"{view.name}_iou_{view.iou:.2f}.png", picture)
    if options.masks:
        pictures.write(out / "masks" / f"{view.name}.png", loaded.labels.values_of(view.predicted))
    if options.probabilities:
        write_probabilities(out / "probabilities", view.name, view.probability, loaded)


def write_probabilities(folder: Path, name: str, probability: np.ndarray, loaded: Model) -> None:
    """NAME.png for one class; NAME_VALUE.png for each of several labels, VALUE being that of the mask files."""
    if len(probability) == 1:
        pictures.write(folder / f"{name}.png", np.rint(65535 * probability[0]).astype(np.uint16))
        return
    for value, part in zip(loaded.labels.values, probability[1:], strict=True):
        pictures.write(folder / f"{name}_{value}.png", np.rint(65535 * part).astype(np.uint16))


def write_table(path: Path, names: list[str], found: list[OfImages], total: scores.Total, decimal_comma: bool) -> None:
    """A row an image; then the mean over images, and the micro average, which exists of the IoU alone."""

    def text(value: float) -> str:
        return f"{value:.6f}".replace(".", "," if decimal_comma else ".")

    each = {column: torch.cat([getattr(part, column) for part in found]).tolist() for column in COLUMNS}
    rows = [[name, *(text(each[column][i]) for column in COLUMNS)] for i, name in enumerate(names)]
    rows.append(["mean of images", *(text(getattr(total, column)) for column in COLUMNS)])
    rows.append(["all pixels as one", text(total.micro_iou), "", "", ""])
    with runfolder.atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=";" if decimal_comma else ",", lineterminator="\n")
        writer.writerows([["name", *COLUMNS], *rows])


if __name__ == "__main__":
    command.run(validate, Options)
