"""Bring docs/cli.md up to date: `python docs/make_cli.py` writes usage and options, `--examples` runs the examples too.

The examples run in the order of the page, in an empty folder with the demo model and drawn pictures of two classes.
"""

import argparse
import os
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import click

from craft_onnx.cli.main import COMMANDS, cli

PAGE = Path(__file__).with_name("cli.md")
GENERATED = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(?=<!-- end -->)", re.DOTALL)
EXAMPLE = re.compile(r"(?<=^```console\n)(\$ .*?)(?=^```)", re.MULTILINE | re.DOTALL)
LINES = 24  # of output shown
METAVARS = {"integer range": "N", "float range": "X", "path": "PATH", "text": "TEXT"}


def updated(text: str) -> str:
    """The page with the usage and the options of every command as they are now."""
    return GENERATED.sub(lambda match: f"{match[1]}\n{reference(match[2])}\n\n", text)


def reference(name: str) -> str:
    """Usage, description and table of options of a command."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    arguments = [_argument(parameter) for parameter in command.params if isinstance(parameter, click.Argument)]
    usage = " ".join(["craft-onnx", name, *arguments, "[OPTIONS]"])
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    rows = [f"| {_flags(option)} | {_meaning(option)} |" for option in options]
    paragraphs = [" ".join(paragraph.split()) for paragraph in (command.help or "").split("\n\n")]
    return "\n\n".join([f"```\n{usage}\n```", *paragraphs, "\n".join(["| Option | Meaning |", "|---|---|", *rows])])


def _argument(parameter: click.Argument) -> str:
    name = parameter.metavar or (parameter.name or "").upper()
    return f"{name}..." if parameter.nargs == -1 else name


def _flags(option: click.Option) -> str:
    names = ", ".join(f"`{flag}`" for flag in option.opts)
    if option.is_flag:
        return names
    if isinstance(option.type, click.Choice):
        return f"{names} {', '.join(option.type.choices)}"
    return f"{names} {METAVARS.get(option.type.name, option.type.name)}"


def _meaning(option: click.Option) -> str:
    """The help text; defaults in brackets become a sentence."""
    text = re.sub(r" \[default: (.*)\]$", r" Default: \1.", (option.help or "").replace("|", "\\|"))
    if option.required:
        text += " Required."
    if option.multiple:
        text += " May be given several times."
    return text + (f" Default: {option.default}." if option.show_default else "")


def with_examples(text: str) -> str:
    """The page with the output of every example as it is now."""
    with tempfile.TemporaryDirectory() as folder:
        _prepare(Path(folder))
        return EXAMPLE.sub(lambda match: _rerun(match[1], Path(folder)), text)


def _prepare(folder: Path) -> None:
    """The demo model, the names of its classes, and pictures of two of them."""
    from craft_onnx.show.overlay import write_png
    from craft_onnx_models.birds import TAGGED, TWIN, class_names, draw_many, model_path

    (folder / "birds.onnx").write_bytes(model_path().read_bytes())
    (folder / "labels.txt").write_text("\n".join(class_names()), encoding="utf-8")
    (folder / "birds").mkdir()
    for i, bird in enumerate(draw_many(40, classes=[TAGGED, TWIN])):
        write_png(folder / "birds" / f"bird-{i:02d}.png", bird.picture)


def _rerun(example: str, folder: Path) -> str:
    """The command lines of an example, each with what it prints, cut after some lines."""
    commands = re.findall(r"^\$ (.*)$", example, re.MULTILINE)
    return "".join(f"$ {command}\n{_output(command, folder)}" for command in commands)


def _output(command: str, folder: Path) -> str:
    """What a command shows on a terminal."""
    environment = {**os.environ, "COLUMNS": "110", "OMP_NUM_THREADS": "2"}
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(shlex.split(command), cwd=folder, env=environment, text=True, **both)
    lines = done.stdout.strip().splitlines()
    shown = lines if len(lines) <= LINES else [*lines[:LINES], "...", *_after_results(lines)]
    return "".join(f"{line}\n" for line in shown)


def _after_results(lines: list[str]) -> list[str]:
    """The messages after the JSON."""
    ends = [i for i, line in enumerate(lines) if line in ("}", "]")]
    return lines[ends[-1] + 1 :] if ends else []


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--examples", action="store_true", help="run the examples again")
    text = updated(PAGE.read_text(encoding="utf-8"))
    if parser.parse_args().examples:
        text = with_examples(text)
    PAGE.write_text(text, encoding="utf-8")
    assert all(f"`craft-onnx {name}`" in text for name in COMMANDS)


if __name__ == "__main__":
    main()
