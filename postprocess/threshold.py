"""Choose the threshold of the pixel probabilities, on out-of-fold tiles only.

    python -m postprocess.threshold --run=saltnet --data=datasets/tgs

Tries 0.20 .. 0.80 in steps of 0.01. The best replaces 0.5 only when the lower bound of its paired 95 % bootstrap
interval over 0.5 is above 0. It was chosen on the tiles that score it, so that its gain is an upper estimate.
Writes threshold.json: the curve, the best, its gain, and the threshold that the next stage takes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import command
import runfolder
from datasets import salt
from datasets.predictions import Predictions
from losses.compare import paired_gain
from postprocess import scores, stages

GRID = [hundredths / 100 for hundredths in range(20, 81)]
DEFAULT = 0.5
INPUTS = ("oof.csv", "oof.npy")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choose the threshold of a run."""

    data: str = "datasets/tgs"  # a folder in Kaggle's layout, for the masks of the labelled tiles
    run: str = "saltnet"  # folder under runs/


def threshold(options: Options) -> None:
    """Write threshold.json. Reads no test tile."""
    folder = stages.existing_run(options.run)
    stages.read_stage(folder, "ensemble.json", {})
    oof = stages.read_predictions(folder, "oof")
    tiles = salt.load_train(options.data).select(oof.names)
    stages.refuse_other_size(oof, tiles, folder / "oof.npy")
    found = search(oof, tiles.masks)
    found |= {"made from": stages.checksums(folder, INPUTS), "written": {}, "made with": runfolder.provenance()}
    with stages.together(folder, ["threshold.json"]) as temporary:
        runfolder.write_json(temporary / "threshold.json", found)
    report(folder, found)


def search(oof: Predictions, truth: Tensor) -> dict[str, Any]:
    """The curve over GRID, the best of it (of equals the one nearest to 0.5), its gain, and what is taken."""
    tenths = scores.tenths_on_grid(oof, truth, GRID)
    default = GRID.index(DEFAULT)
    best = min(range(len(GRID)), key=lambda i: (-tenths[:, i].sum(), abs(i - default)))
    gain = paired_gain(tenths[:, default] / 10, tenths[:, best] / 10)
    kept = gain.low > 0
    return {
        "threshold": GRID[best] if kept else DEFAULT,
        "kept": bool(kept),
        "best": GRID[best],
        "gain": scores.gain(gain),
        "tiles": len(tenths),
        "out of fold": scores.score(tenths[:, best if kept else default]),
        "all empty": scores.score(scores.tenths_of_empty(truth)),
        "curve": [{"threshold": GRID[i]} | scores.score(tenths[:, i]) for i in range(len(GRID))],
    }


def report(folder: Path, found: dict[str, Any]) -> None:
    gain = found["gain"]
    print(
        f"best threshold {found['best']:.2f}: {gain['mean']:+.4f} over {DEFAULT} (95 % {gain['low']:+.4f} to "
        f"{gain['high']:+.4f}, {found['tiles']:,} tiles): {'kept' if found['kept'] else f'not kept, {DEFAULT} stays'}"
    )
    print(f"wrote {folder / 'threshold.json'}")


if __name__ == "__main__":
    command.run(threshold, Options)
