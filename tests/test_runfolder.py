"""The layout of runs/, atomic writes, locks."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import runfolder
from command import BadInput


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SALTWORKS_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def test_layout(runs: Path):
    assert runfolder.model_folder("first", "pad", 3) == runs / "first" / "pad" / "fold3"


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b", ".hidden", "-flag", "größe"])
def test_names_that_break_make_are_refused(name: str):
    with pytest.raises(BadInput, match="not a run's name"):
        runfolder.run_folder(name)


def test_models_in_the_order_of_folds(runs: Path):
    for place in ("resize/fold1", "pad/fold10", "pad/fold9", "pad/fold9-copy"):
        runfolder.write_text(runs / "r" / place / "final.pt", "")
    assert [str(folder.relative_to(runs / "r")) for folder in runfolder.models("r")] == [
        "pad/fold9",
        "pad/fold10",
        "resize/fold1",
    ]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path: Path):
    path = tmp_path / "file"
    runfolder.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), runfolder.atomic(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_round_trip_and_damage(tmp_path: Path):
    runfolder.write_json(tmp_path / "a.json", {"größe": [1, 0.5]})
    assert runfolder.read_json(tmp_path / "a.json") == {"größe": [1, 0.5]}
    (tmp_path / "a.json").write_text('{"cut')
    with pytest.raises(BadInput, match=r"a\.json is not readable JSON"):
        runfolder.read_json(tmp_path / "a.json")


def test_lock_is_told_and_dies_with_its_process(tmp_path: Path):
    hold = "with runfolder.lock(pathlib.Path(sys.argv[1])):\n print('in', flush=True)\n time.sleep(60)"
    code = f"import runfolder, time, pathlib, sys\n{hold}"
    holder = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=runfolder.ROOT, stdout=subprocess.PIPE)
    holder.stdout.readline()
    with pytest.raises(BadInput, match=f"in use by process {holder.pid} on .* since"), runfolder.lock(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with runfolder.lock(tmp_path):
        pass


def test_what_a_killed_process_left_is_cleared_under_the_lock(tmp_path: Path):
    (tmp_path / ".latest.pt.123.tmp").write_text("half")
    (tmp_path / "latest.pt").write_text("whole")
    with runfolder.lock(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {".lock", "latest.pt"}


def test_provenance_names_commit_and_versions():
    found = runfolder.provenance()
    assert found["torch"][0].isdigit() and found["commit"]
    json.dumps(found)


def test_a_changed_json_is_told_and_one_without_a_checksum_passes(tmp_path: Path):
    path = tmp_path / "a.json"
    runfolder.write_json(path, {"threshold": 0.42, "rules": [{"kept": True}], "by fold": {1: 0.5}})
    assert runfolder.read_json(path)["by fold"] == {"1": 0.5}
    text = path.read_text()
    path.write_text(text.replace("0.42", "0.43"))
    with pytest.raises(
        BadInput, match=r"a\.json is not as it was written, by its checksum: delete it .* remove its line"
    ):
        runfolder.read_json(path)
    path.write_text('{"threshold": 0.43}')
    assert runfolder.read_json(path) == {"threshold": 0.43}


def test_a_changed_table_is_told(tmp_path: Path):
    path = tmp_path / "folds.csv"
    runfolder.write_with_origin(path, "id,fold\na,0\nb,1\n", seed=3)
    runfolder.refuse_changed(path)
    assert runfolder.read_json(tmp_path / "folds.origin.json")["seed"] == 3
    path.write_text("id,fold\na,1\nb,1\n")
    with pytest.raises(
        BadInput, match=r"folds\.csv is not as it was written.* changed it on purpose, remove .*folds\.origin\.json"
    ):
        runfolder.refuse_changed(path)
    (tmp_path / "folds.origin.json").unlink()
    runfolder.refuse_changed(path)


def test_leftovers_of_the_living_stay(tmp_path: Path):
    alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".a.csv.{alive.pid}.tmp").write_text("half")
    (tmp_path / f".b.csv.{dead.pid}.tmp").write_text("half")
    (tmp_path / f".making-x.{dead.pid}.tmp").mkdir()
    (tmp_path / f".old.csv.{alive.pid}.tmp").write_text("of a process that had this number")
    os.utime(tmp_path / f".old.csv.{alive.pid}.tmp", (0, 0))
    (tmp_path / ".backup.tmp").mkdir()  # somebody else's
    runfolder.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f".a.csv.{alive.pid}.tmp", ".backup.tmp"}
    alive.communicate()


def test_an_error_of_the_disk_names_the_file_not_its_temporary_one(tmp_path: Path):
    with pytest.raises(OSError, match=r"No space left on device: '.*/a\.csv'"), runfolder.atomic(tmp_path / "a.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="images/x"), runfolder.atomic(tmp_path / "a.csv"):
        raise OSError(errno.EIO, "Input/output error", "images/x")
