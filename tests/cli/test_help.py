"""Every command and option is explained, in --help and in docs/cli.md."""

import importlib.util
import re
from pathlib import Path

import click
import pytest

from craft_onnx.cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cli.md"
CONTEXT = click.Context(cli)


def options_of(name):
    command = cli.get_command(CONTEXT, name)
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


def arguments_of(name):
    command = cli.get_command(CONTEXT, name)
    return [parameter for parameter in command.params if isinstance(parameter, click.Argument)]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name):
    for option in options_of(name):
        assert option.help and re.match(r"[A-Z]", option.help) and re.search(r"[.\])]$", option.help), option.name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_is_explained(run, name):
    text = run(name, "--help").out
    described = text.split("Options:")[0].split("\n", 2)[2]
    for argument in arguments_of(name):
        assert (argument.metavar or argument.name.upper()).removesuffix("...") in described


@pytest.mark.parametrize("name", COMMANDS)
def test_conventions_hold(name):
    flags = {flag for option in options_of(name) for flag in option.opts}
    assert {"-v", "-q", "--verbose", "--quiet"} <= flags
    assert ("--output" in flags) == ("--force" in flags)
    assert ("--providers" in flags) == ("--threads" in flags)


def test_the_overview_lists_every_command(run):
    text = " ".join(run("--help").out.split())
    for name, line in COMMANDS.items():
        assert f" {name} " in text and line in text


def test_version(run):
    from craft_onnx import __version__

    assert __version__ in run("--version").out


def sections():
    """Heading -> text of every second-level section of the page."""
    parts = re.split(r"^## `craft-onnx (.+)`$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_is_documented():
    assert list(sections()) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_with_its_output(name):
    examples = re.findall(r"^```console\n\$ craft-onnx (\w+).*?^```", sections()[name], re.MULTILINE | re.DOTALL)
    assert name in examples


def test_the_page_says_what_the_commands_do():
    """Usage, options and defaults are generated: `python docs/make_cli.py` brings the page up to date."""
    spec = importlib.util.spec_from_file_location("make_cli", ROOT / "docs" / "make_cli.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = PAGE.read_text(encoding="utf-8")
    assert module.updated(text) == text
    for name in COMMANDS:
        for option in options_of(name):
            for flag in option.opts:
                assert f"`{flag}`" in sections()[name]
