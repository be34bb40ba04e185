"""Folders that may not be written: told in one sentence, and nothing is changed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_chain import OPTIONS, ROOT, environment, told, words


def unprivileged(arguments: list[str], runs: Path) -> subprocess.CompletedProcess:
    """As a user whom permissions hold back: root does without the rights by which they do not."""
    if os.getuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("a read-only folder: root has no setpriv here to become an ordinary user")
    without_rights = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.getuid() == 0 else []
    return subprocess.run(
        [*without_rights, *arguments], cwd=ROOT, env=environment(runs), capture_output=True, text=True
    )


@contextmanager
def closed(folder: Path) -> Iterator[None]:
    """Nothing below it may be written."""
    inside = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in inside:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in inside:
            path.chmod(0o755)


def content(run: Path) -> dict[Path, bytes]:
    """All but locks, whose own permissions let them tell who holds them."""
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}


STAGES = {
    "datasets.mosaic": ("--out={run}/mosaics.csv",),
    "training.train": ("demo", "--run=closed", "--fold=0", *OPTIONS.split(), "--epochs=5", "--schedule=constant"),
    "training.swa": ("--run=closed",),
    "inference.predict": ("--run=closed",),
    "postprocess.ensemble": ("--run=closed",),
    "postprocess.threshold": ("--run=closed",),
    "postprocess.rules": ("--run=closed",),
    "postprocess.submit": ("--run=closed",),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_folder_that_may_not_be_written_is_told(stage: str, tmp_path: Path, data: Path, whole: Path):
    run = tmp_path / "closed"
    shutil.copytree(whole, run)
    if stage == "training.train":
        shutil.rmtree(run / "pad" / "fold0")
    before = content(run)
    arguments = [word.format(run=run) for word in STAGES[stage]]
    with closed(run):
        told(
            unprivileged([sys.executable, "-m", stage, *arguments, f"--data={data}"], tmp_path),
            str(run),
            "is closed to this user (Permission denied)",
        )
    assert content(run) == before


def test_a_new_run_where_nothing_may_be_written_is_told(tmp_path: Path, data: Path):
    (tmp_path / "runs").mkdir(mode=0o555)
    finished = unprivileged(words(data, "new"), tmp_path / "runs")
    told(finished, str(tmp_path / "runs"), "is closed to this user (Permission denied)")
    assert list((tmp_path / "runs").iterdir()) == []
