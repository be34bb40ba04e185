"""Draw a run's largest mosaics: tiles in their places, labels, and the predictions there are.

    python -m postprocess.mosaics --run=saltnet --data=datasets/tgs [--largest=6]

Labelled tiles have a blue frame and their salt is blue; an orange line encloses salt that is predicted (out of fold
where the tile is labelled). Needs mosaics.csv (`make mosaics`); predictions only if the run has them.
Writes runs/RUN/mosaics.png.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

import command
import runfolder
from command import BadInput, at_least
from datasets import mosaic, predictions, salt
from datasets.predictions import SCALE
from postprocess import stages

matplotlib.use("agg")

BLUE, ORANGE = "#2a6fdb", "#e8730c"
GAP = 235  # grey of places without a tile


@dataclass(frozen=True, kw_only=True)
class Options:
    """Draw the mosaics of a run."""

    data: str = "datasets/tgs"  # a folder in Kaggle's layout
    run: str = "saltnet"  # folder under runs/
    largest: int = 6  # mosaics to draw

    def __post_init__(self) -> None:
        at_least("largest", self.largest, 1)


def draw(options: Options) -> None:
    """Write mosaics.png."""
    folder = stages.existing_run(options.run)
    path = stages.require(folder, "mosaics.csv")
    train, test = salt.load_train(options.data), salt.load_test(options.data)
    table = mosaic.read(path, [*train.names, *test.names])
    if table.empty:
        raise BadInput(f"{path} places no tile, so there is nothing to draw: expected data whose tiles have neighbours")
    table = table[table["mosaic"] < options.largest]
    wanted = set(table["id"])
    greys = {
        name: image
        for tiles in (train, test)
        for name, image in zip(tiles.names, mosaic.as_grey(tiles.images.numpy()), strict=True)
        if name in wanted
    }
    labels = {name: mask for name, mask in zip(train.names, train.masks.numpy(), strict=True) if name in wanted}
    figure = picture(table, greys, labels, predicted(folder, wanted))
    with runfolder.atomic(folder / "mosaics.png") as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    print(f"{folder / 'mosaics.png'}: {table['mosaic'].nunique()} mosaics, {len(table)} tiles, {len(labels)} labelled")


def predicted(folder: Path, wanted: set[str]) -> dict[str, np.ndarray]:
    """Probabilities (H, W) in 0..1 of those wanted that the run has predicted."""
    found = {}
    for stem in ("test", "oof"):
        if (folder / f"{stem}.csv").exists():
            stored = predictions.read(folder / stem)
            found |= {name: stored.pixels[i] / SCALE for i, name in enumerate(stored.names) if name in wanted}
    return found


def picture(
    table: pd.DataFrame, greys: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], probability: Mapping
) -> Figure:
    """A figure of all mosaics in `table`, one below the other; maps are (H, W) by id."""
    groups = [cells for _, cells in table.groupby("mosaic")]
    widths, heights = zip(*(cells[["column", "row"]].max() + 1 for cells in groups), strict=True)
    width = min(20.0, max(8.0, 0.75 * max(widths)))
    ratio = [height / max(widths) for height in heights]
    figure = Figure(figsize=(width, sum(ratio) * width + 0.45 * len(groups) + 0.5), layout="constrained")
    axes = figure.subplots(len(groups), 1, squeeze=False, height_ratios=ratio)[:, 0]
    for axis, cells in zip(axes, groups, strict=True):
        draw_mosaic(axis, cells, greys, labels, probability)
        axis.set_xlim(-0.5, max(widths) * side(greys)[1] - 0.5)
    handles = [
        Patch(facecolor="none", edgecolor=BLUE, label="labelled tile"),
        Patch(facecolor=BLUE, alpha=0.5, label="labelled salt"),
    ]
    if probability:
        handles.append(Patch(facecolor="none", edgecolor=ORANGE, linewidth=2, label="predicted salt (0.5 and more)"))
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False)
    return figure


def side(tiles: Mapping[str, np.ndarray]) -> tuple[int, int]:
    return next(iter(tiles.values())).shape


def draw_mosaic(axis, cells: pd.DataFrame, greys: Mapping, labels: Mapping, probability: Mapping) -> None:
    height, width = side(greys)
    axis.imshow(stitched(cells, greys, GAP), cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    salt_labelled = stitched(cells, labels, 0)
    if salt_labelled.any():
        overlay = np.zeros((*salt_labelled.shape, 4), np.float32)
        overlay[salt_labelled > 0] = (*matplotlib.colors.to_rgb(BLUE), 0.4)
        axis.imshow(overlay, interpolation="nearest")
    salt_predicted = stitched(cells, probability, 0.0)
    if salt_predicted.max() > 0.5:
        axis.contour(salt_predicted, levels=[0.5], colors=ORANGE, linewidths=1.2)
    for name, row, column in cells[["id", "row", "column"]].itertuples(index=False):
        if name in labels:
            corner = (column * width + 1.5, row * height + 1.5)
            axis.add_patch(Rectangle(corner, width - 4, height - 4, fill=False, edgecolor=BLUE, linewidth=1))
    number, weakest = cells["mosaic"].iloc[0], cells["strength"].min()
    axis.set_title(f"mosaic {number}: {len(cells)} tiles, weakest place {weakest:.2f}", loc="left", fontsize=10)
    axis.set_axis_off()


def stitched(cells: pd.DataFrame, tiles: Mapping[str, np.ndarray], empty: float) -> np.ndarray:
    """One array of all tiles of a mosaic in their places; `empty` where there is none in `tiles`."""
    places = cells[["id", "row", "column"]]
    rows, columns = places["row"].max() + 1, places["column"].max() + 1
    if not (known := [name for name in places["id"] if name in tiles]):
        return np.full((rows, columns), empty)
    height, width = tiles[known[0]].shape
    whole = np.full((rows, height, columns, width), empty, tiles[known[0]].dtype)
    for name, row, column in places.itertuples(index=False):
        if name in tiles:
            whole[row, :, column] = tiles[name]
    return whole.reshape(rows * height, columns * width)


if __name__ == "__main__":
    command.run(draw, Options)
