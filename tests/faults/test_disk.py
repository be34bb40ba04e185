"""A full disk: told in one sentence, and nothing is lost."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_chain import ROOT, differences, environment, leftovers, make, targets, told, words


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
