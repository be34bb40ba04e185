"""Typed flags and errors in one sentence."""

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

import command
from command import BadInput


@dataclass(frozen=True, kw_only=True)
class Options:
    """Do something."""

    run: str = "a"
    fold: int = 0  # the fold that validates
    lr: float = 1e-3
    remove: bool = False


@dataclass(frozen=True, kw_only=True)
class Further(Options):
    name: str  # needed


PRESETS = {"plain": Options, "other": partial(Options, fold=5)}


def parsed(*argv: str, options=PRESETS) -> Options:
    seen = []
    command.run(seen.append, options, list(argv))
    return seen[0]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("plain",), Options()),
        (("other", "--run=297e78"), Options(run="297e78", fold=5)),  # a name, not a number
        (("other", "--run=007"), Options(run="007", fold=5)),
        (("plain", "--run", "None"), Options(run="None")),
        (("plain", "--fold", "3", "--lr=2"), Options(fold=3, lr=2.0)),
        (("plain", "--remove"), Options(remove=True)),
        (("plain", "--remove=False"), Options()),
        (("plain", "--noremove", "--fold=2"), Options(fold=2)),
    ],
)
def test_flags_have_their_fields_types(argv: tuple[str, ...], expected: Options):
    assert parsed(*argv) == expected
    assert type(parsed(*argv).lr) is float


def test_a_command_without_presets():
    assert parsed("--fold=2", options=Options) == Options(fold=2)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "got 'no preset', expected a preset first: one of plain, other"),
        (("fast",), "got 'fast', expected a preset"),
        (("plain", "--folds=3"), "got --folds, which this command does not know: did you mean --fold"),
        (("plain", "--zzz=3"), "the flags are --run, --fold, --lr, --remove"),
        (("plain", "--fold=x"), "--fold=x is not of type int: write for example --fold=0"),
        (("plain", "--remove=perhaps"), "--remove=perhaps is not of type bool"),
        (("plain", "stray"), "got the word 'stray', expected flags"),
        (("plain", "--fold=1", "stray"), "got the word 'stray', expected flags"),
    ],
)
def test_bad_flags_end_in_one_sentence_before_any_work(argv: tuple[str, ...], message: str):
    with pytest.raises(SystemExit) as stopped:
        command.run(lambda options: pytest.fail("it ran"), PRESETS, list(argv))
    assert message in stopped.value.code
    assert stopped.value.code.startswith("error: ") and "\n" not in stopped.value.code


@pytest.mark.parametrize("error", [BadInput("got this, expected that"), FileNotFoundError("no such file")])
def test_errors_of_the_user_show_no_traceback(error: Exception):
    def fail(options: Options) -> None:
        raise error

    with pytest.raises(SystemExit, match=str(error)):
        command.run(fail, Options, [])


def test_errors_of_ours_keep_their_traceback():
    def fail(options: Options) -> None:
        raise KeyError("a mistake in the code")

    with pytest.raises(KeyError):
        command.run(fail, Options, [])


@pytest.mark.parametrize("argv", [["--help"], ["plain", "--fold=1", "--help"], ["other", "-h"]])
def test_help_runs_nothing_and_tells_every_flag(argv: list[str], capsys: pytest.CaptureFixture):
    command.run(lambda options: pytest.fail("it ran"), PRESETS, argv)
    told = capsys.readouterr().out
    default = 5 if argv[0] == "other" else 0
    assert f"--fold={default}".ljust(30) in told and "the fold that validates" in told
    assert "--lr=0.001" in told and "others: " in told


def test_help_tells_the_comments_of_base_classes(capsys: pytest.CaptureFixture):
    command.run(lambda options: pytest.fail("it ran"), Further, ["--help"])
    told = capsys.readouterr().out
    assert "the fold that validates" in told and "--name=..." in told and "needed" in told


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/a.pt"), r"runs/a\.pt cannot be written .*make room"),
        (OSError(errno.EACCES, "Permission denied", "runs/r"), r"runs/r is closed to this user .*permissions"),
        (OSError(errno.EIO, "Input/output error", "x.png"), r"x\.png: Input/output error"),
        (OSError("no number"), "no number"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(error: OSError, said: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SALTWORKS_TRACEBACK", raising=False)

    def refused(options: Options) -> None:
        raise error

    with pytest.raises(SystemExit, match=f"^error: {said}"):
        command.run(refused, Options, [])


DEEP = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"  # minutes in a library that hears no signal
LIGHT = "time.sleep(60)"


COMMAND = """
import dataclasses, hashlib, time
import command

@dataclasses.dataclass
class Options:
    pass

def work(options):
    print("in", flush=True)
    {}

command.run(work, Options)
"""


@pytest.mark.parametrize("work", [DEEP, LIGHT])
def test_ctrl_c_ends_within_five_seconds(work: str, tmp_path: Path):
    (tmp_path / "work.py").write_text(COMMAND.format(work))
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "work.py")],
        env=dict(os.environ) | {"PYTHONPATH": str(Path(command.__file__).parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - started < 5
    assert process.returncode == 130 and errors.strip() == command.STOPPED
