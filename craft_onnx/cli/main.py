"""The group of commands: loads each from its own file when it is called, and turns errors into sentences."""

import importlib
import os
import signal
import sys
import warnings
from typing import Any

import click

from craft_onnx import __version__
from craft_onnx.cli.messages import show_warning
from craft_onnx.errors import CraftError

INTERRUPTED, BROKEN_PIPE = 130, 141  # 128 + the signal's number, as shells have it

# Command -> one line for the overview, so that `craft-onnx --help` loads nothing.
COMMANDS = {
    "run": "From a model file and a folder of pictures to a page that explains it.",
    "convert": "Convert a Keras, TensorFlow, PyTorch or ONNX model to a proven ONNX file.",
    "layers": "List the tensors where a model can be cut.",
    "split": "Cut a model in two and write it as a bundle.",
    "gradient": "Write the gradient of a model as an ONNX graph.",
    "fit": "Find the concepts of a class in pictures, and their importance.",
    "decompose": "Find what a concept of a bundle is made of at an earlier layer.",
    "explain": "Explain pictures with the concepts of a bundle.",
    "attribute": "Show which pixels matter for a class, by any attribution method.",
    "relevance": "Show which pixels a class rests on, through chosen channels or concepts.",
    "references": "Find the pictures of a set that speak for each channel of a layer.",
    "name": "Name a concept of a bundle.",
    "check": "Print versions and providers, and test this installation.",
    "demo": "Explain a model with a known shortcut, and check that it is found.",
}


class Commands(click.Group):
    """A click group whose commands are imported on use and whose errors are one sentence each."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the overview."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import `craft_onnx.cli.<name>` and return its `command`."""
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"craft_onnx.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; the package's own errors become a message and their exit code."""
        try:
            return super().invoke(ctx)
        except CraftError as error:
            raise _failure("\n".join(filter(None, [error.problem, error.remedy])), error.exit_code) from error
        except BrokenPipeError:  # whoever read our output has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(BROKEN_PIPE)
        except OSError as error:
            what = error.filename or "Reading or writing"
            raise _failure(f"{what} failed: {error.strerror or error}.", 2) from error
        except MemoryError as error:
            raise _failure(
                "There is not enough memory.\nUse smaller pictures, or a smaller --batch-size.", 2
            ) from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)


def _failure(message: str, code: int) -> click.ClickException:
    failure = click.ClickException(message)
    failure.exit_code = code  # type: ignore[misc]  # click declares it for the class
    return failure


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="craft-onnx")
def cli() -> None:
    """Explain image classifiers without the framework that trained them."""


def _terminate(number: int, frame: object) -> None:
    """Leave as on an interrupt, so that nothing half-written stays behind."""
    raise SystemExit(128 + number)


def main() -> None:
    """Entry point of `craft-onnx`."""
    warnings.showwarning = show_warning
    signal.signal(signal.SIGTERM, _terminate)
    cli(prog_name="craft-onnx")


if __name__ == "__main__":
    main()
