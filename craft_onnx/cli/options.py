"""Families of options, one decorator each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from craft_onnx.description import PRESETS
from craft_onnx.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])


class _NamedPath(click.Path):
    """A path; an empty one, as of an unset variable, is not taken for the current folder."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Refuse the empty text."""
        if value == "":
            self.fail("the path is empty.", parameter, context)
        return super().convert(value, parameter, context)


PathType = _NamedPath(path_type=Path)


def _none_empty(context: click.Context, parameter: click.Parameter, given: Any) -> Any:
    if "" in (given if isinstance(given, tuple) else (given,)):
        raise click.BadParameter("the path is empty.")
    return given


images = click.argument("images", nargs=-1, required=True, callback=_none_empty)


def source(metavar: str) -> Callable[[F], F]:
    """The model to convert: a path or package.module:factory."""
    return click.argument("source", metavar=metavar, callback=_none_empty)


def _all(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def output(help: str) -> Callable[[F], F]:
    """-o/--output and --force."""
    return _all(
        click.option("-o", "--output", type=PathType, required=True, help=help),
        click.option("--force", is_flag=True, help="Replace the output if it exists."),
    )


verbosity = _all(
    click.option("-v", "--verbose", is_flag=True, help="Say more."),
    click.option("-q", "--quiet", is_flag=True, help="Say nothing but results, warnings and errors."),
)

running = _all(
    click.option("--providers", default="cpu", show_default=True, help="Execution providers, in order, e.g. cuda,cpu."),
    click.option("--threads", type=click.IntRange(1), help="Threads of one run. [default: all cores]"),
)

batches = click.option(
    "--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Pictures or crops a run."
)

seed = click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random.")


def _numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """Comma-separated numbers."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number or numbers separated by commas.") from None


def _shape(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Comma-separated positive integers."""
    numbers = _numbers(context, parameter, text)
    if numbers is None:
        return None
    if any(number != int(number) or number < 1 for number in numbers):
        raise click.BadParameter(f"{text!r} is not made of positive whole numbers.")
    return tuple(int(number) for number in numbers)


converting = _all(
    click.option("--input-shape", callback=_shape, help="Shape of one input without the batch, e.g. 3,224,224."),
    click.option("--inputs", multiple=True, help="Input tensor of a frozen .pb graph, e.g. input:0."),
    click.option("--outputs", multiple=True, help="Which of several outputs holds the scores, e.g. logits:0."),
    click.option(
        "--allow-pickle", is_flag=True, help="Load a pickled PyTorch module. This EXECUTES CODE from the file."
    ),
    click.option("--keep-softmax", is_flag=True, help="Keep a final Softmax; CRAFT works on logits."),
    click.option("--bake-preprocessing", is_flag=True, help="Put the arithmetic into the graph: raw uint8 RGB input."),
)

preprocessing = _all(
    click.option("--preset", type=click.Choice(list(PRESETS)), help="How the model's pictures were preprocessed."),
    click.option("--scale", callback=_numbers, help="Factor on pixels 0..255, before mean and std."),
    click.option("--mean", callback=_numbers, help="Subtracted after scaling: one number or one a channel."),
    click.option("--std", callback=_numbers, help="Divided by at last: one number or one a channel."),
    click.option("--channel-order", type=click.Choice(["rgb", "bgr", "gray"]), help="Order the model expects."),
    click.option("--resize-to", type=click.IntRange(1), help="Shorter side before a centre crop. [default: no crop]"),
    click.option(
        "--interpolation",
        type=click.Choice(["area", "bilinear", "bicubic"]),
        help="How pictures are resized. [default: area, which averages when shrinking]",
    ),
    click.option("--size", callback=_shape, help="Height,width of the input, where the model leaves them open."),
)

PREPROCESSING_FIELDS = ("preset", "scale", "mean", "std", "channel_order", "resize_to", "interpolation", "size")


def preprocessing_fields(options: dict[str, Any]) -> dict[str, Any]:
    """Take the preprocessing options that were given out of a command's options."""
    fields = {name: options.pop(name, None) for name in PREPROCESSING_FIELDS}
    if fields["scale"] is not None:
        if len(fields["scale"]) != 1:
            raise InputError(f"--scale {fields['scale']} is not one number.", "Use --std for a factor per channel.")
        fields["scale"] = fields["scale"][0]
    return {name: value for name, value in fields.items() if value is not None}


class Numbers(click.ParamType):
    """A positive number, or several: 5:30 are those from 5 to 30, 5:30:5 every fifth of them."""

    name = "N or N:N"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> range:
        """A range, of one number where one was given."""
        parts = str(value).split(":")
        if len(parts) == 1:
            number = click.IntRange(1).convert(value, parameter, context)
            return range(number, number + 1)
        if not all(part.isdecimal() for part in parts) or len(parts) > 3 or min(map(int, parts)) < 1:
            self.fail(f"{value!r} is neither a positive number nor a range such as 5:30.", parameter, context)
        first, last, step = [*map(int, parts), 1][:3]
        if last < first:
            self.fail(f"{value!r} holds no number.", parameter, context)
        return range(first, last + 1, step)


fitting = _all(
    click.option(
        "-k",
        "--number-of-concepts",
        type=Numbers(),
        default="10",
        show_default=True,
        help="Concepts to find; of a range such as 5:30 the number that error, stability and redundancy speak for.",
    ),
    click.option(
        "--patch-size", type=click.IntRange(2), help="Side of the crops, pixels of the input. [default: 2/7 of it]"
    ),
    click.option(
        "--factoriser",
        type=click.Choice(["nmf", "semi_nmf"]),
        default="nmf",
        show_default=True,
        help="How to find concepts: NMF needs activations that are not negative, semi-NMF takes signed ones.",
    ),
    click.option(
        "--nb-design",
        type=click.IntRange(2),
        default=256,
        show_default=True,
        help="Points of a Sobol design, where importances are sampled.",
    ),
    click.option("--keep-all", is_flag=True, help="Fit on all pictures, not only on those predicted as the class."),
)


class ConceptPath(click.ParamType):
    """The concepts that lead to sub-concepts: 3, 3/0 for those of a sub-concept, layer4/3 for those at a cut."""

    name = "N, N/N or CUT/N"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """As `craft_onnx.concepts.banks.find_bank` takes them: numbers, and the name of a cut before its number."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split("/")
        if all(part.isdecimal() for part in parts):
            return tuple(int(part) for part in parts)
        cut, _, number = str(value).rpartition("/")
        if not cut or not number.isdecimal():
            problem = f"{value!r} is neither the number of a concept nor such as 3/0 or layer4/3."
            self.fail(problem, parameter, context)
        return cut, int(number)


def _joined(context: click.Context, parameter: click.Parameter, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """One path of those that were given, None of none."""
    return tuple(part for path in given for part in path) or None


sub_concepts = click.option(
    "--parent",
    type=ConceptPath(),
    multiple=True,
    callback=_joined,
    help="Take the sub-concepts of this concept: its number; 3/0 goes on to those of its sub-concept 0.",
)

choosing_class = _all(
    click.option(
        "--class-id", type=click.IntRange(0), help="The class to explain. [default: the one predicted most often]"
    ),
    click.option("--class-name", help="The class to explain, by its name among the labels."),
)

labels = click.option("--labels", type=PathType, help="Names of the classes: JSON, or a text file with one a line.")
