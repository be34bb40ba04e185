"""A folder of files that is there as a whole or not at all."""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import runfolder
from command import BadInput


@contextmanager
def new_folder(data: Path, content: Collection[str], sign: str) -> Iterator[Path]:
    """A temporary folder beside `data`, put in its place when the block ends and removed when it fails.

    `data` may be absent, empty, or one made before: then it holds the file `sign` and nothing but `content`.
    Raises BadInput for any other.
    """
    data = data.resolve()
    check_replaceable(data, content, sign)
    temporary, old = (data.with_name(f".{data.name}.{what}.{os.getpid()}.tmp") for what in ("new", "old"))
    runfolder.remove_leftovers(data.parent, f"{data.name}.")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if data.exists():
            data.rename(old)
        temporary.rename(data)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not data.exists():
            old.rename(data)
        shutil.rmtree(old, ignore_errors=True)


def check_replaceable(data: Path, content: Collection[str], sign: str) -> None:
    if not data.exists():
        return
    if not data.is_dir():
        raise BadInput(f"{data} is a file, expected a folder to make: name another one")
    names = {path.name for path in data.iterdir()}
    if names and (sign not in names or names - set(content)):
        raise BadInput(f"{data} holds files that this command did not make: name another folder or empty this one")
