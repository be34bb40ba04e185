"""Typed flags and errors in one sentence."""

from dataclasses import dataclass
from functools import partial

import pytest

import command
from command import BadInput


@dataclass(frozen=True, kw_only=True)
class Options:
    """Do something."""

    run: str = "a"
    fold: int = 0
    lr: float = 1e-3
    remove: bool = False


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


def test_help_runs_nothing(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stopped:
        command.run(lambda options: pytest.fail("it ran"), PRESETS, ["plain", "--help"])
    assert stopped.value.code == 0
    assert "--fold" in "".join(capsys.readouterr())
