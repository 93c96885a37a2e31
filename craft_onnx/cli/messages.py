"""What a command says: results as JSON on stdout, everything else on stderr."""

import contextlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TextIO, TypeVar

import click

from craft_onnx.errors import CraftWarning

T = TypeVar("T")
_default_showwarning: Callable[..., None] = warnings.showwarning


def verbosity() -> int:
    """-1 with -q, 1 with -v, else 0, of the command that runs."""
    context = click.get_current_context(silent=True)
    return 0 if context is None else int(context.params.get("verbose", 0)) - int(context.params.get("quiet", 0))


def say(text: str, level: int = 0) -> None:
    """A message on stderr, unless the user asked for less."""
    if verbosity() >= level:
        click.echo(text, err=True)


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """With -v, say how long a step took."""
    start = time.perf_counter()
    yield
    say(f"{what}: {time.perf_counter() - start:.2f} s", level=1)


def counted(count: int, noun: str) -> str:
    """Such as "1 picture" and "2 pictures"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def result(value: Any) -> None:
    """A result on stdout, as JSON."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def progress(items: Iterable[T], label: str, length: int | None = None) -> AbstractContextManager[Iterable[T]]:
    """A progress bar on stderr, hidden where that is no terminal or with -q."""
    hidden = verbosity() < 0 or not sys.stderr.isatty()
    return click.progressbar(items, length=length, label=label, file=sys.stderr, hidden=hidden)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Our own warnings as a sentence, others as Python shows them."""
    if issubclass(category, CraftWarning):
        click.echo(f"Warning: {message}", err=True)
    else:
        _default_showwarning(message, category, filename, lineno, file, line)
