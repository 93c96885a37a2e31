"""Third parties' chatter, silenced while they work and not a moment longer."""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

LOGGERS = ("tensorflow", "absl", "tf2onnx", "torch.onnx", "torch.export", "onnxscript", "onnx_ir")


class _Collector(logging.Handler):
    """Keeps messages instead of printing them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """Hide warnings, messages and prints of the frameworks inside the block, and yield the list of the messages.

    Warnings of third parties about each other (deprecated calls, missing torchvision) say nothing to our users, and
    the numerical comparison that follows a conversion is what catches those that matter.
    """
    collector = _Collector()
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))  # AutoGraph prints there in a notebook
        for name in LOGGERS:
            stack.enter_context(_diverted(logging.getLogger(name), collector))
        yield collector.messages


@contextlib.contextmanager
def _diverted(logger: logging.Logger, handler: logging.Handler) -> Iterator[None]:
    handlers, propagate = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate


@contextlib.contextmanager
def native_quiet() -> Iterator[None]:
    """Hide what C++ writes to stderr inside the block: TensorFlow has no switch for its messages at the start."""
    sys.stderr.flush()
    with Path(os.devnull).open("wb") as nowhere, _duplicate(2) as saved:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)


@contextlib.contextmanager
def _duplicate(descriptor: int) -> Iterator[int]:
    saved = os.dup(descriptor)
    try:
        yield saved
    finally:
        os.close(saved)


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Environment variables inside the block, except those that the user has set."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
