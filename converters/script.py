"""The converters as scripts: the same command as `craft-onnx convert`, without its group of commands."""

import sys
import warnings

import click

from craft_onnx.cli.convert import command
from craft_onnx.cli.messages import show_warning
from craft_onnx.errors import CraftError


def main() -> None:
    """Run `craft-onnx convert` with this process's arguments; a user's mistake ends in a sentence and its exit code."""
    warnings.showwarning = show_warning
    try:
        command.main()
    except CraftError as error:
        click.echo(f"Error: {error.problem}\n{error.remedy}".rstrip(), err=True)
        sys.exit(error.exit_code)
