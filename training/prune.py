"""List, or remove, checkpoints that no stage needs any more.

    python -m training.prune --run=saltnet            # lists them
    python -m training.prune --run=saltnet --remove   # removes them

A finished model needs no latest.pt, and one that is averaged and has predicted needs no best-*.pt either.
final.pt and swa.pt stay.
"""

from dataclasses import dataclass
from pathlib import Path

import command
import runfolder
from command import BadInput
from datasets.framing import VARIANTS


@dataclass(frozen=True, kw_only=True)
class Options:
    """Remove checkpoints that no stage needs any more."""

    run: str = "saltnet"  # folder under runs/
    remove: bool = False  # without it they are only listed


def prune(options: Options) -> None:
    """Print every superfluous checkpoint with its size, and remove them if asked."""
    if not runfolder.run_folder(options.run).is_dir():
        raise BadInput(f"{runfolder.run_folder(options.run)} is missing: give the --run of a folder under runs/")
    models = [folder for folder in runfolder.models(options.run) if folder.parent.name in VARIANTS]
    found = [path for folder in models for path in superfluous(folder)]
    total = sum(path.stat().st_size for path in found)
    for path in found:
        print(f"{path}  {path.stat().st_size / 1e6:,.1f} MB")
        if options.remove:
            path.unlink()
    verb = "removed" if options.remove else "can be removed with --remove"
    print(f"{len(found)} checkpoints, {total / 1e9:.2f} GB, {verb}")


def superfluous(folder: Path) -> list[Path]:
    """Checkpoints of a finished model that nothing reads any more."""
    done = (folder / "swa.pt").exists() and (folder / "test.csv").exists()
    names = ("latest.pt", "previous.pt", *(["*best-*.pt"] if done else []))
    return sorted(path for name in names for path in folder.glob(name))


if __name__ == "__main__":
    command.run(prune, Options)
