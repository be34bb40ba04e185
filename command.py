"""Every command of Saltworks starts here: typed options by Fire, errors in one sentence.

A command is a frozen dataclass of options, a function that takes it, and

    if __name__ == "__main__":
        command.run(train, PRESETS)  # or one options class instead of a dict of presets

Fire builds the dataclass only; the function runs after every flag has been understood, so a misspelt one costs nothing.
"""

import dataclasses
import difflib
import errno
import inspect
import os
import re
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import fire
from fire.decorators import SetParseFns

Options = type | partial  # an options dataclass, or one with other defaults
HELP = {"-h", "--help"}
STOPPED = "stopped; the same command goes on from the last finished epoch or stage"
GRACE = 3.0  # seconds that Ctrl-C leaves a step, or a batch, to end by itself
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
JOINERS = "\u200c\u200d"  # between letters of Persian, of Indic scripts
COMMENT = re.compile(r"^    (\w+): .*?  # (.*)$", re.MULTILINE)  # of a dataclass's field


class BadInput(ValueError):
    """What a user can cause and mend. The message is one sentence: got, expected, remedy."""


def fits_a_line(text: str) -> bool:
    """Whether a message of one line can hold a name: no ends of lines, nothing that hides or turns other letters."""
    hidden = {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    return hidden <= set(JOINERS)


def choose(flag: str, got: str, choices: Iterable[str]) -> None:
    """Raise BadInput if `got` is none of the choices (an empty one is not named)."""
    choices = list(choices)
    if got not in choices:
        raise BadInput(f"--{flag}={got} is not known: choose one of {', '.join(filter(None, choices))}")


def at_least(flag: str, got: float, least: float) -> None:
    """Raise BadInput if `got` is below `least`."""
    if not got >= least:
        raise BadInput(f"--{flag}={got} is too small: give {least} or more")


def run(function: Callable[[Any], None], options: Options | dict[str, Options], argv: list[str] | None = None) -> None:
    """Parse `argv` (default: the command line) into options and call `function` with them.

    Ends the process with code 1 after one line on stderr for bad input and for what the system refuses (a full disk),
    and with 130 within seconds after Ctrl-C.
    SALTWORKS_TRACEBACK=1 in the environment shows the traceback as well.
    """
    argv = sys.argv[1:] if argv is None else argv
    if HELP & set(argv):
        print(help_text(options, argv[0]))
        return
    try:
        check(options, argv)
        with ended_by_interrupt():
            function(fire.Fire(typed(options), command=argv, name=sys.argv[0], serialize=lambda _: None))
    except (BadInput, OSError) as error:
        if os.environ.get("SALTWORKS_TRACEBACK"):
            raise
        sys.exit(f"error: {error if isinstance(error, BadInput) else of_system(error)}")
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        sys.exit(130)


def of_system(error: OSError) -> str:
    """What the operating system refuses, as a sentence with its remedy."""
    place, reason = error.filename or "a file", error.strerror or str(error)
    if error.errno in FULL:
        return f"{place} cannot be written ({reason}): make room and give the same command again, which goes on"
    if error.errno in CLOSED:
        return f"{place} is closed to this user ({reason}): change its permissions, or name another folder"
    return f"{place}: {reason}" if error.filename else reason


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """Ctrl-C ends the process GRACE seconds later at the latest, wherever it is.

    Python hears signals between its own instructions only, and one step of a large net on a CPU is a minute without
    any. Nothing is lost by so sudden an end: files get their names when they are whole.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    threading.Thread(target=end_after_interrupt, args=(heard,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(told)  # which ends the thread


def end_after_interrupt(heard: int) -> None:
    """Read the numbers of signals until there will be no more."""
    while signals := os.read(heard, 64):
        if signal.SIGINT in signals:
            time.sleep(GRACE)
            print(STOPPED, file=sys.stderr, flush=True)
            os._exit(130)
    os.close(heard)


def help_text(options: Options | dict[str, Options], preset: str) -> str:
    """What the command's module says of itself, and a line per flag: its default and the comment beside its field."""
    about = [(sys.modules["__main__"].__doc__ or "").strip(), ""]
    if isinstance(options, dict):
        name = preset if preset in options else next(iter(options))
        others = ", ".join(other for other in options if other != name)
        about.append(f"Flags, with the defaults of the preset {name} (others: {others}):")
        options = options[name]
    else:
        about.append("Flags, with their defaults:")
    chosen, comments = getattr(options, "keywords", {}), field_comments(options)
    lines = []
    for field in fields(options):
        value = chosen.get(field.name, "..." if field.default is dataclasses.MISSING else field.default)
        lines.append((f"  --{field.name}={value}".ljust(34) + f"  {comments.get(field.name, '')}").rstrip())
    return "\n".join(about + lines)


def field_comments(options: Options) -> dict[str, str]:
    """The comment on the line of each field, of base classes too."""
    cls = options.func if isinstance(options, partial) else options
    found = {}
    for base in reversed(cls.__mro__[:-1]):
        found |= dict(COMMENT.findall(inspect.getsource(base)))
    return found


def check(options: Options | dict[str, Options], argv: list[str]) -> None:
    """Refuse unknown presets, flags and stray words before Fire sees them."""
    if isinstance(options, dict):
        name = argv[0] if argv else "no preset"
        if name not in options:
            raise BadInput(f"got {name!r}, expected a preset first: one of {', '.join(options)}")
        options, argv = options[name], argv[1:]
    known = {field.name: field.type for field in fields(options)}
    words = iter(argv)
    for word in words:
        name, has_value, _ = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("--"):
            raise BadInput(f"got the word {word!r}, expected flags of the form --name=value")
        if name not in known and known.get(name.removeprefix("no")) is not bool:
            close = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean --{close[0]}" if close else f"the flags are {', '.join('--' + k for k in known)}"
            raise BadInput(f"got --{name}, which this command does not know: {remedy}")
        if not has_value and known.get(name) not in (bool, None):
            next(words, None)


def typed(options: Options | dict[str, Options]) -> Any:
    """Have Fire read each flag by its field's type instead of its look (`--run=297e78` is a name)."""
    if isinstance(options, dict):
        return {name: typed(preset) for name, preset in options.items()}
    return SetParseFns(**{field.name: partial(parse, field) for field in fields(options)})(options)


def fields(options: Options) -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(options.func if isinstance(options, partial) else options)


def parse(field: dataclasses.Field, text: str) -> Any:
    """`text` as the field's type: str, int, float or bool."""
    if field.type is bool:
        if text.lower() in ("true", "1", "yes", "false", "0", "no"):
            return text.lower() in ("true", "1", "yes")
    else:
        try:
            return field.type(text)
        except ValueError:
            pass
    raise BadInput(
        f"--{field.name}={text} is not of type {field.type.__name__}: write for example --{field.name}={field.default}"
    )
