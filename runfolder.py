"""How runs/ is laid out and written: paths, atomic writes, checksums, locks, provenance.

    runs/RUN/{folds.csv, folds.origin.json}
    runs/RUN/VARIANT/foldK/{config.json, metrics.csv, times.csv, latest.pt, best-*.pt, final.pt, swa.pt, oof.*, test.*}
    runs/RUN/{oof.*, test.*, ensemble.json, threshold.json, mosaics.csv, rules.json, changes.csv, masks.npy}
    runs/RUN/submission.csv

SALTWORKS_RUNS in the environment moves runs/ elsewhere.
"""

import fcntl
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from command import BadInput

UNTOUCHED = 600  # seconds after which a temporary file is nobody's
SEAL = "sha256 of the above"
ROOT = Path(__file__).parent
PACKAGES = ("torch", "torchvision", "lightning-fabric", "timm", "pretrainedmodels", "numpy", "opencv-python-headless")


def runs() -> Path:
    """The folder of all runs, relative to the working folder where it lies below it (messages stay short)."""
    folder = Path(os.environ.get("SALTWORKS_RUNS") or ROOT / "runs")
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def run_folder(run: str) -> Path:
    """runs/RUN. A name of letters, digits, dots, dashes and underscores, which Make and the shell take as it is."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", run):
        raise BadInput(f"--run={run!r} is not a run's name: use letters, digits, '.', '-' and '_' (spaces break Make)")
    return runs() / run


def model_folder(run: str, variant: str, fold: int) -> Path:
    """runs/RUN/VARIANT/foldK."""
    return run_folder(run) / variant / f"fold{fold}"


def folds_file(run: str) -> Path:
    """runs/RUN/folds.csv. Raises BadInput if it is missing or not as it was written."""
    path = run_folder(run) / "folds.csv"
    if not path.exists():
        raise BadInput(f"{path} is missing: run `python -m datasets.folds --run={run} --data=...` first")
    refuse_changed(path)
    return path


def refuse_moved(path: Path, config: Mapping[str, Any], run: str, variant: str, fold: int) -> None:
    """Raise BadInput for a checkpoint in another model's place or beside other folds than its own.

    `config` is the checkpoint's. There it would be scored on tiles that it has trained on.
    """
    if (config["variant"], config["fold"]) != (variant, fold):
        raise BadInput(f"{path} is the model {config['variant']}/fold{config['fold']}: move it back to its place")
    table = folds_file(run)
    if checksum(table) != config["folds"]:
        raise BadInput(f"{table} is not the one that {path} was trained with: restore it, or train under another RUN")


def models(run: str, file: str = "final.pt") -> list[Path]:
    """Folders VARIANT/foldK of the run that have `file`, in the order of variants and folds."""
    found = (path.parent for path in run_folder(run).glob(f"*/fold*/{file}"))
    numbered = [folder for folder in found if folder.name.removeprefix("fold").isdecimal()]
    return sorted(numbered, key=lambda folder: (folder.parent.name, int(folder.name.removeprefix("fold"))))


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends and removed when it fails.

    An OSError of the block, of a full disk for example, names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with errors_of(path, temporary):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def errors_of(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let an OSError name `path` where it names nothing, as that of a write does, or what is in `temporary`."""
    try:
        yield
    except OSError as error:
        inside = temporary is not None and str(error.filename).startswith(str(temporary))
        if error.errno and (error.filename is None or inside):
            error.filename, error.filename2 = str(path), None
        raise


def write_text(path: Path | str, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: dict[str, Any]) -> None:
    """`value` with a checksum of all the rest as its last entry."""
    sealed = value | {SEAL: seal(value)}
    write_text(path, json.dumps(sealed, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """What `write_json` wrote, without its checksum. Raises BadInput where it is damaged; files without one pass."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not readable JSON ({error}): delete it and run its stage again") from error
    if isinstance(found, dict) and SEAL in found and found.pop(SEAL) != seal(found):
        remedy = f"delete it and run its stage again (if you changed it on purpose, remove its line {SEAL!r})"
        raise BadInput(f"{path} is not as it was written, by its checksum: {remedy}")
    return found


def seal(value: dict[str, Any]) -> str:
    """SHA-256 of a dict as it comes back from JSON, in hexadecimal."""
    stored = json.loads(json.dumps(value))
    return hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()


def write_with_origin(path: Path, text: str, **origin: Any) -> None:
    """A table, and beside it NAME.origin.json with the table's checksum, `origin`, and what it was made with."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_json(path.with_suffix(".origin.json"), {"sha256": digest} | origin | {"made with": provenance()})
    write_text(path, text)  # last: its presence says that both are there


def refuse_changed(path: Path) -> None:
    """Raise BadInput for a table that is not what `write_with_origin` wrote. One without NAME.origin.json passes."""
    told = path.with_suffix(".origin.json")
    if not told.is_file():
        return
    found = read_json(told)
    if not isinstance(found, dict) or found.get("sha256") != checksum(path):
        raise BadInput(
            f"{path} is not as it was written, by its checksum in {told.name}: restore it or make it again; if you "
            f"changed it on purpose, remove {told}"
        )


def checksum(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; a second process is told who holds it and since when.

    The kernel drops the lock with its process, however that ends, so a killed run leaves nothing to clean up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "ab+", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            minutes = (time.time() - os.fstat(file.fileno()).st_mtime) / 60
            owner = f"{file.read().decode(errors='replace').strip()}, {minutes:,.0f} min ago"
            raise BadInput(f"{folder} is in use by {owner}: wait for it or stop it") from None
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        with errors_of(folder / ".lock"):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode())
        remove_leftovers(folder)
        yield


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove temporary files and folders (.NAME....PID.tmp) of processes that were killed while they wrote.

    What nobody has touched for a while is left over even if there is a process of that number: it is another's by now.
    """
    for path in folder.glob(f".{glob.escape(name)}*.tmp"):
        owner = re.search(r"\.([0-9]{1,9})\.tmp$", path.name)
        if not owner:
            continue  # not ours
        recent = time.time() - path.lstat().st_mtime < UNTOUCHED
        if recent and int(owner[1]) != os.getpid() and is_alive(int(owner[1])):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True  # somebody else's
    except ProcessLookupError:
        return False
    return True


@cache
def commit() -> str:
    """The git commit of the code, with '+' behind it where the work tree differs; 'unknown' outside a checkout."""
    try:
        head = git_output("rev-parse", "HEAD")
        return head + ("+" if git_output("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def git_output(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def provenance() -> dict[str, str]:
    """What a result was made with: commit, Python, machine and library versions."""
    found = {"commit": commit(), "python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
