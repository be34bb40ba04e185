"""A full disk and folders that may not be written: told in one sentence, and nothing is lost."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_chain import OPTIONS, ROOT, differences, environment, leftovers, make, targets, words

from datasets import synthetic


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("competition") / "data"
    synthetic.write(synthetic.Options(data=str(folder), num_train=40, num_test=12))
    return folder


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that had room."""
    runs = tmp_path_factory.mktemp("room")
    made = make(runs, data, "whole")
    assert made.returncode == 0, made.stderr
    return runs / "whole"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory of 24 MB; skipped where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk: this user may not mount one ({mounted.stderr.decode().strip()})")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, room: int) -> Path:
    """A file that leaves `room` bytes."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - room)))
    return ballast


def told(finished: subprocess.CompletedProcess, *said: str) -> None:
    """One sentence on stderr beside make's own lines, with these words."""
    assert finished.returncode != 0
    assert "Traceback" not in finished.stderr and "Exception" not in finished.stderr, finished.stderr
    errors = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and all(word in errors[0] for word in said), finished.stderr


@pytest.mark.parametrize("room", [20_000, 500_000, 2_000_000, 5_000_000])
def test_a_full_disk_is_told_and_the_run_goes_on_with_room(room: int, small_disk: Path, data: Path, whole: Path):
    """More room, and more of the chain is done before it is told."""
    ballast = fill(small_disk, room)
    told(make(small_disk, data, "full"), str(small_disk), "cannot be written (No space left on device): make room")
    before = targets(small_disk / "full")
    ballast.unlink()
    finished = make(small_disk, data, "full")
    assert finished.returncode == 0, finished.stderr
    assert before.items() <= targets(small_disk / "full").items()
    assert differences(whole, small_disk / "full") == []
    assert leftovers(small_disk / "full") == []


@pytest.mark.parametrize("kilobytes", [8, 300])
def test_a_limit_of_file_sizes_is_told(kilobytes: int, tmp_path: Path, data: Path, whole: Path):
    limited = f"ulimit -f {kilobytes} && exec " + " ".join(f"'{word}'" for word in words(data, "limited"))
    finished = subprocess.run(
        ["bash", "-c", limited], cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True
    )
    told(finished, str(tmp_path), "cannot be written (File too large): make room")
    finished = make(tmp_path, data, "limited")
    assert finished.returncode == 0, finished.stderr
    assert differences(whole, tmp_path / "limited") == []


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
