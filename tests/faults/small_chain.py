"""Every stage by make on a competition of forty tiles, in processes of their own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

import nets

ROOT = Path(__file__).parent.parent.parent
MODEL = "pad/fold0"
OPTIONS = "--width=8 --epochs=4 --coarse_epochs=1 --batch=4 --augmentation=saltnet"  # of the preset demo
TARGETS = ("final.pt", "swa.pt", "test.csv")  # of a model; and those of the run, in the order they are made
OF_RUN = ("ensemble.json", "threshold.json", "mosaics.csv", "rules.json", "submission.csv")


def environment(runs: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "ARGS"))}
    return kept | {"SALTWORKS_RUNS": str(runs), "TQDM_DISABLE": "1"}


def words(data: Path, run: str, goal: str = "all") -> list[str]:
    """The command that makes the submission of one model."""
    start = ["make", "--no-print-directory", f"PYTHON={sys.executable}", goal, f"RUN={run}", f"DATA={data}"]
    return [*start, "PRESET=demo", "NUM_FOLDS=2", "FOLD=0", "VARIANT=pad", f"ARGS={OPTIONS}"]


def make(runs: Path, data: Path, run: str, goal: str = "all", **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        words(data, run, goal), cwd=ROOT, env=environment(runs), capture_output=True, text=True, **options
    )


def start(runs: Path, data: Path, run: str) -> subprocess.Popen:
    """In a process group of its own, so that all of it can be killed at once."""
    output = (runs / f"{run}.log").open("a")
    return subprocess.Popen(
        words(data, run), cwd=ROOT, env=environment(runs), stdout=output, stderr=output, start_new_session=True
    )


def kill(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def targets(folder: Path) -> dict[Path, int]:
    """What make has made so far in a run, and when."""
    paths = [folder / MODEL / name for name in TARGETS] + [folder / name for name in OF_RUN]
    return {path: path.stat().st_mtime_ns for path in paths if path.exists()}


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp") or path.name in ("next.pt", "previous.pt")]


def differences(one: Path, other: Path) -> list[str]:
    """Files of two runs that should be equal bit for bit, and are not. Times, paths and the run's name may differ."""
    found = []
    for name in ("final.pt", "latest.pt", "best-loss.pt", "best-metric.pt", "best-accuracy.pt", "swa.pt"):
        first, second = (nets.load(folder / MODEL / name)[0].state_dict() for folder in (one, other))
        if any(not torch.equal(first[key], second[key]) for key in first.keys() | second.keys()):
            found.append(name)
    of_model = [f"{MODEL}/{name}" for name in ("metrics.csv", "oof.npy", "oof.csv", "test.npy", "test.csv")]
    of_run = ("folds.csv", "oof.npy", "test.npy", "masks.npy", "changes.csv", "mosaics.csv", "submission.csv")
    for name in (*of_model, *of_run):
        if (one / name).read_bytes() != (other / name).read_bytes():
            found.append(name)
    return found


def told(finished: subprocess.CompletedProcess, *said: str) -> None:
    """One sentence on stderr beside make's own lines, with these words."""
    assert finished.returncode != 0
    assert "Traceback" not in finished.stderr and "Exception" not in finished.stderr, finished.stderr
    errors = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and all(word in errors[0] for word in said), finished.stderr
