"""The documents are true: their Python runs, their commands and options exist, their links lead somewhere."""

import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest

from craft_onnx_models.birds import audit

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)(.*?)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What a page needs to be tested and does not show: <!-- test, lines of Python, -->.
HIDDEN = re.compile(r"^<!-- test\n(.*?)^-->", re.MULTILINE | re.DOTALL)
SHELLS = ("console", "bash", "sh", "shell")
# What stands between commands, outside of quotes.
SEPARATOR = r"""(?:&&|;)(?=(?:[^"]*"[^"]*")*[^"]*$)"""
FRAMEWORKS = ("torch", "tensorflow")


def blocks(text, *languages):
    """(info after the language, line number, code) of every fenced block in one of the languages."""
    for match in FENCE.finditer(text):
        if match[1] in languages:
            yield match[2].split(), text[: match.start()].count("\n") + 2, match[3]


def is_runnable(info):
    """Whether a block can run here: not marked `notest`, and the framework it names is installed."""
    missing = [name for name in FRAMEWORKS if name in info and not importlib.util.find_spec(name)]
    return "notest" not in info and not missing


def run_python(page, namespace):
    """Run the blocks of a page one after another in one namespace, in the current folder."""
    count = 0
    shown = HIDDEN.sub(lambda match: f"```python\n{match[1]}```", page.read_text(encoding="utf-8"))
    for info, line, code in blocks(shown, "python"):
        if is_runnable(info):
            # Empty lines bring the line numbers of a traceback in line with those of the page.
            exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)
            count += 1
    return count


def commands(text):
    """The arguments of every `craft-onnx` command in blocks for a shell and in `code`, one list a command."""
    shell = [line for _, _, code in blocks(text, *SHELLS) for line in joined(code).splitlines()]
    inline = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    for part in [part for line in [*shell, *inline] for part in re.split(SEPARATOR, line)]:
        yield from arguments_of(part.strip().removeprefix("$ "))


def joined(code):
    return re.sub(r"\\\n\s*", " ", code)


def arguments_of(line):
    """The arguments of `craft-onnx` in a line, also inside a container, or of a converter run as a module."""
    if re.match(r"\S*python -m craft_onnx_converters\.", line):
        yield ["convert", *words_of(line)[3:]]
    elif re.match(r"\S*craft-onnx \S", line):
        yield words_of(line)[1:]
    elif line.startswith("docker run ") and " craft-onnx " in line:
        yield words_of(line.partition(" craft-onnx ")[2])


def words_of(line):
    """Words up to a comment, a pipe or a redirection."""
    words = shlex.split(line, comments=True)
    ends = [i for i, word in enumerate(words) if word in ("|", ">", "2>")]
    return words[: ends[0]] if ends else words


def check_command(arguments):
    """None where command and options exist, else what is wrong."""
    from craft_onnx.cli.main import cli

    name, *rest = arguments
    if name == "COMMAND":  # stands for any
        return None
    if name.startswith("-"):
        return None if name in ("--help", "-h", "--version") else f"there is no option {name}"
    command = cli.get_command(click.Context(cli), name)
    if command is None:
        return f"there is no command {name}"
    known = {option: parameter for parameter in command.params for option in (*parameter.opts, "--help", "-h")}
    return next((f"{name} has no option {word}" for word in rest if is_unknown(word, known)), None)


def is_unknown(word, known):
    return re.match("--?[a-zA-Z]", word) is not None and word.split("=")[0] not in known


def anchors(text):
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text):
        target = "".join(target)
        if re.match("[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        found = file.exists() and file.is_relative_to(ROOT)
        if not found or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            yield target


def named(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "demo/bundle" in page.read_text(encoding="utf-8"):
        audit.prepare("shortcut", "demo/bundle")  # what `craft-onnx demo -o demo` has left
    run_python(page, {"__name__": "page", "__file__": str(page)})


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_and_options_exist(page):
    found = list(commands(page.read_text(encoding="utf-8")))
    assert [problem for arguments in found if (problem := check_command(arguments))] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page):
    assert list(broken_links(page)) == []


def test_the_index_has_every_page():
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    missing = [page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md" and page.name not in text]
    assert missing == []


def test_tests_that_are_named_exist():
    """Pages name the tests that hold a claim."""
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in re.findall(r"`(test_\w+)`", text) if f"def {name}(" not in code] == []
    assert [path for path in re.findall(r"`(tests/[\w/]+\.py)`", text) if not (ROOT / path).is_file()] == []


def test_what_is_wrong_is_found(tmp_path):
    """The checks themselves can fail."""
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ craft-onnx fit bundle --no-such-option\n$ craft-onnx nothing | cat\n```\n"
        "`craft-onnx split m.onnx`\n[x](missing.md)\n```bash\npip install x && bin/craft-onnx fit b \\\n  --wrong\n"
        "docker run --rm image craft-onnx split --bad # --worse\n```\n"
        "```python\nassert value == 1\n```\n```python notest\n1 / 0\n```\n"
    )
    found = [check_command(arguments) for arguments in commands(page.read_text())]
    assert found == [
        "fit has no option --no-such-option", "there is no command nothing", "fit has no option --wrong",
        "split has no option --bad", None,
    ]  # fmt: skip  # in the order of the page, then what stands in its text
    assert list(broken_links(page)) == ["missing.md"]
    assert run_python(page, {"value": 1}) == 1
    with pytest.raises(AssertionError):
        run_python(page, {"value": 2})
