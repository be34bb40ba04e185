"""The stages after one another by make, on twelve tiles, in a folder whose name has spaces and umlauts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from competition import write_competition

ROOT = Path(__file__).parent.parent
TINY = "--net=fastnet --width=8 --weights=none --image_size=104 --epochs=1 --batch=4 --limit-tiles=4 --threads=1"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a competition in it and runs beside, both behind awkward names."""
    folder = tmp_path_factory.mktemp("Salz 塩 tiles")
    write_competition(folder / "mein data")
    image = next((folder / "mein data" / "train" / "images").iterdir())
    shutil.move(image, folder / "elsewhere.png")
    image.symlink_to(folder / "elsewhere.png")
    (folder / "runs").mkdir()
    return folder


def make(place: Path, *words: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "ARGS"))}
    # make takes no target with spaces: runs stay in a plain relative path through a link
    link = place.parent / "runs"
    if not link.exists():
        link.symlink_to(place / "runs")
    environment["SALTWORKS_RUNS"] = str(link)
    command = [
        "make",
        "--no-print-directory",
        f"PYTHON={sys.executable}",
        "RUN=one",
        f"DATA={place / 'mein data'}",
        *words,
    ]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_one_model_goes_the_whole_way(place: Path):
    trained = make(place, "train", "FOLD=0", "VARIANT=pad", "NUM_FOLDS=3", f"ARGS={TINY}")
    assert trained.returncode == 0, trained.stderr
    assert "1 to go" in trained.stdout
    submitted = make(place, "submit")
    assert submitted.returncode == 0, submitted.stderr
    assert "training.train" not in submitted.stdout
    assert "1 of 6 models are trained and used; missing: pad/fold1 pad/fold2 resize/fold0" in submitted.stderr
    run = place / "runs" / "one"
    sample = pd.read_csv(place / "mein data" / "sample_submission.csv", dtype=str)
    written = pd.read_csv(run / "submission.csv", dtype=str)
    assert written["id"].tolist() == sample["id"].tolist()
    assert submitted.stdout.count("out-of-fold metric") == 1 and "Nothing to do" not in submitted.stdout
    assert not [path for path in run.rglob("*") if path.name.endswith(".tmp")]


def test_made_again_nothing_runs_and_another_config_is_refused(place: Path):
    again = make(place, "submit")
    assert again.returncode == 0 and "python" not in again.stdout.lower()
    assert "Nothing to do" in again.stdout and again.stdout.count("out-of-fold metric") == 1
    other = make(place, "train", "FOLD=0", "VARIANT=pad", f"ARGS={TINY} --lr=0.5")
    assert other.returncode != 0
    assert "pad/fold0 holds a model of another config (lr: " in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "FOLD=7", "VARIANT=pad", f"ARGS={TINY}"], "got fold 7, expected one of 0..2"),
        (["train", "FOLD=1", "ARGS=--epohcs=3"], "did you mean --epochs"),
        (["verify", "DATA=nowhere"], "nowhere"),
    ],
)
def test_bad_requests_end_in_one_sentence(place: Path, words: list[str], message: str):
    result = make(place, *words)
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert "error: " in result.stderr
