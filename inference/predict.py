"""Predict with one model: its held-out tiles and the test tiles, flips averaged, at the tiles' own size.

    python -m inference.predict --run=saltnet --variant=pad --fold=0 --data=datasets/tgs

Writes oof.{npy,csv} and test.{npy,csv} beside the model's weights. Loads no weights but the checkpoint's.
--mosaics=FILE blends in windows over the borders between placed tiles (inference/windows.py): an experiment.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

import command
import runfolder
from command import BadInput, at_least, choose
from datasets import folds, layouts, mosaic, predictions, salt
from datasets.framing import Framing
from datasets.salt import Tiles
from inference import windows
from inference.model import load
from inference.windows import Said
from nets import tta
from nets.device import PRECISIONS

CHUNK = 512  # test tiles in memory at a time: 5 MB at 101 x 101 pixels


@dataclass(frozen=True, kw_only=True)
class Options:
    """Predict the held-out and the test tiles of one model."""

    data: str = "datasets/tgs"  # a folder in Kaggle's layout
    run: str = "saltnet"  # folder under runs/
    variant: str = "pad"  # pad or resize
    fold: int = 0  # that validated the model
    checkpoint: str = "swa"  # name without .pt
    mosaics: str = ""  # a table of datasets.mosaic, to predict across the borders of placed tiles too; empty = not
    batch: int = 0  # tiles at once, each with its flip; 0 = as in training
    device: str = "auto"  # auto, cpu, cuda or mps
    precision: str = ""  # bf16, fp16, float32; empty = as in training

    def __post_init__(self) -> None:
        choose("precision", self.precision, ("", *PRECISIONS))
        at_least("batch", self.batch, 0)


def predict(options: Options) -> None:
    """Write the probabilities of the model that `options` names."""
    folder = runfolder.model_folder(options.run, options.variant, options.fold)
    path = folder / f"{options.checkpoint}.pt"
    if not path.exists():
        raise BadInput(f"{path} is missing: run `make {'swa' if options.checkpoint == 'swa' else 'train'}` first")
    loaded = load(path, options.device, options.precision, options.batch)
    runfolder.refuse_moved(path, loaded.config, options.run, options.variant, options.fold)
    model, framed, batch, device = loaded.net, loaded.framing, loaded.batch, loaded.device
    held, names = held_out(options), salt.test_names(options.data)
    for tiles in chain([held], salt.stream_test(options.data, CHUNK)):
        refuse_other_size(path, tiles, framed)  # any fault of the data is told now, not after hours of work
    with runfolder.lock(folder):
        across = across_borders(options, [*held.names, *names], model, framed, batch, device)
        (folder / "test.csv").unlink(missing_ok=True)  # the sign that both are there, of the same weights
        tell_windows(folder / predictions.WINDOWS, options.mosaics)
        write(folder / "oof", held.names, probabilities(model, framed, [held], batch, device, across))
        test = salt.stream_test(options.data, batch * max(1, CHUNK // batch))
        made = {"checkpoint": runfolder.checksum(path), "options": asdict(options), "made with": runfolder.provenance()}
        runfolder.write_json(folder / "predict.json", made)
        write(folder / "test", names, probabilities(model, framed, test, batch, device, across))


def tell_windows(path: Path, mosaics: str) -> None:
    """Leave word of the table by which windows were predicted, as others must not be averaged with these."""
    path.unlink(missing_ok=True)
    if mosaics:
        with runfolder.atomic(path) as temporary:
            temporary.write_text(runfolder.checksum(mosaics) + "\n")


def held_out(options: Options) -> Tiles:
    """The labelled tiles that the model never saw."""
    if layouts.layout_of(options.data) != "salt":
        raise BadInput(
            f"--data={options.data} is no salt competition: use inference.validate for labelled images, or "
            "`make predict IMAGES=... CHECKPOINT=...` for any"
        )
    tiles = salt.load_train(options.data)
    table = folds.read(runfolder.folds_file(options.run), tiles.names)
    return tiles.select(folds.members(table, options.fold)[1])


def refuse_other_size(path: Path, tiles: Tiles, framed: Framing) -> None:
    got, expected = tiles.size, tuple(framed.tile_size)
    if len(tiles) and got != expected:
        raise BadInput(f"{path} was trained on tiles of {expected} px, got {got} px: give the --data it was trained on")


def write(stem: Path, names: Sequence[str], found: Iterable[tuple[Tensor, Tensor]]) -> None:
    predictions.write(stem, names, tqdm(found, f"predict {stem.name}", unit="batch", disable=None))
    print(f"{stem}.npy: {len(names):,} tiles")


@torch.no_grad()
def probabilities(
    model: nn.Module,
    framed: Framing,
    pieces: Iterable[Tiles],
    batch: int,
    device: torch.device,
    across: Mapping[str, Said],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Per batch: pixel probabilities (n, H, W) and image probabilities (n,), float32; `across` borders by name."""
    for tiles in pieces:
        for indices in torch.arange(len(tiles)).split(batch):
            prediction = tta.predict(model, framed, tiles.batch(indices, device=device))
            pixels = prediction.probability.squeeze(1)
            for place, index in enumerate(indices.tolist()):
                if said := across.get(tiles.names[index]):
                    pixels[place] = said.blend(pixels[place])
            yield pixels, prediction.image_probability


def across_borders(
    options: Options, names: Sequence[str], model: nn.Module, framed: Framing, batch: int, device: torch.device
) -> dict[str, Said]:
    """What windows over the borders of --mosaics say of the tiles `names`; nothing without it."""
    if not options.mosaics:
        return {}
    parts = (salt.load_train(options.data), salt.load_test(options.data))
    home = {name: (tiles, index) for tiles in parts for index, name in enumerate(tiles.names)}
    borders = windows.pairs(mosaic.read(options.mosaics, list(home)), set(names))

    def image(name: str) -> Tensor:
        tiles, index = home[name]
        return tiles.batch([index])[0]

    def predicted(images: Tensor) -> Tensor:
        return tta.predict(model, framed, images.to(device)).probability.squeeze(1)

    return windows.say(borders, set(names), image, predicted, batch)


if __name__ == "__main__":
    command.run(predict, Options)
