"""PyTorch to ONNX: .pt2 programs, TorchScript files, pickled modules and modules in memory.

Runs as a script too: ``python from_torch.py net.pt2 -o model.onnx``.
"""

import contextlib
import io
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from craft_onnx.errors import CraftError, InputError, UnsupportedOperator
from craft_onnx.extras import require
from craft_onnx_converters.exported import Exported, Options
from craft_onnx_converters.loading import existing_file, first_line, loading
from craft_onnx_converters.quiet import environment, quiet

FACTORY = "Give a factory instead, package.module:factory, a function that returns the net."
# A batch of 1 would be taken for a constant, or for an axis to broadcast along.
TRACED_BATCH = 2
TRAINING_ARGUMENT = {"batch_norm": 5, "dropout": 2}  # position of `training` in aten's signature


def export(source: str | Path | Any, options: Options) -> Exported:
    """Export a PyTorch model with its own evaluation beside it.

    Parameters
    ----------
    source : path or torch.nn.Module
        A file of torch.export.save (.pt2), torch.jit.save or, with `options.allow_pickle`, torch.save of a whole
        module; or a module in memory, which is exported in evaluation mode. Pickles inside a .pt2 are refused without
        `options.allow_pickle`, but PyTorch does not promise that a program from a stranger is safe to load.
    options : Options
        `input_shape` (without the batch) is needed for everything but .pt2.

    Raises
    ------
    InputError
        If the file is missing, corrupt, holds weights only or a pickle without permission; if the net cannot be traced.
    UnsupportedOperator
        If the exporter lacks an operator of the net.
    MissingExtra
        If PyTorch is not installed.
    """
    torch = require("torch", "torch")
    if isinstance(source, torch.nn.Module):
        return export_module(source, options)
    path = existing_file(Path(source))
    return _EXPORTERS[content(path)](path, options)


def content(path: Path) -> str:
    """What a PyTorch file holds: "program" (torch.export), "script" (TorchScript) or "pickle" (torch.save)."""
    if not zipfile.is_zipfile(path):
        return "pickle"
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] or name for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise InputError(f"{path} is not a whole PyTorch file ({error}).", "Save it again.") from error
    if any(name == "serialized_exported_program.json" or name.startswith("models/") for name in names):
        return "program"
    return "script" if "constants.pkl" in names else "pickle"


def export_module(net: Any, options: Options, source: Path | None = None) -> Exported:
    """Export a torch.nn.Module, in evaluation mode and with a dynamic batch where the net allows it."""
    torch = require("torch", "torch")
    _refuse_other_types(net)
    example = torch.zeros(TRACED_BATCH, *_input_shape(options), dtype=torch.float32)
    with _evaluation_mode(net), quiet(), torch.no_grad():
        program, batch = _trace(net, example)
        model = _export_program(program)

    def evaluate(x: NDArray[np.float32]) -> NDArray[np.float32]:
        with _evaluation_mode(net):
            return _evaluate(net, x)

    return Exported(model, evaluate, "torch", source, batch)


def _export_pt2(path: Path, options: Options) -> Exported:
    torch = require("torch", "torch")
    allowed = {} if options.allow_pickle else {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}
    remedy = "Save it again with torch.export.save, with this version of PyTorch."
    with quiet(), environment(**allowed), loading(path, "a program of torch.export", remedy):
        program = torch.export.load(path)
    _refuse_training(program, path)
    with quiet(), torch.no_grad():
        model = _export_program(program)
        module = program.module()
    return Exported(model, lambda x: _evaluate(module, x), "torch", path, _static_batch(program))


def _export_script(path: Path, options: Options) -> Exported:
    torch = require("torch", "torch")
    with quiet(), loading(path, "TorchScript", "Save it again with torch.jit.save."):
        net = torch.jit.load(path, map_location="cpu").eval()
    example = torch.zeros(TRACED_BATCH, *_input_shape(options))
    written = io.BytesIO()
    axes = {"input": {0: "batch"}, "output": {0: "batch"}}
    with quiet(), _exporter_errors(), torch.no_grad():
        # The exporter of torch.export does not take TorchScript.
        torch.onnx.export(
            net,
            (example,),
            written,
            dynamo=False,
            opset_version=18,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes=axes,
            # Leaves BatchNorm in place, with its name: our own normalization merges it and keeps the name.
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    model = ir.from_proto(require("onnx", "torch").load_model_from_string(written.getvalue()))
    return Exported(model, lambda x: _evaluate(net, x), "torch", path)


def _export_pickle(path: Path, options: Options) -> Exported:
    torch = require("torch", "torch")
    if not options.allow_pickle:
        raise _why_not_unpickled(path)
    with quiet(), loading(path, "a pickled module", FACTORY):
        net = torch.load(path, map_location="cpu", weights_only=False)
    if not isinstance(net, torch.nn.Module):
        raise _holds_weights(path, net)
    return export_module(net, options, path)


_EXPORTERS: dict[str, Callable[[Path, Options], Exported]] = {
    "program": _export_pt2,
    "script": _export_script,
    "pickle": _export_pickle,
}


def _why_not_unpickled(path: Path) -> InputError:
    """What is wrong with a pickle, found without executing it."""
    torch = require("torch", "torch")
    try:
        with quiet():
            return _holds_weights(path, torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        if "Unsupported" not in str(error):
            return _not_pytorch(path, error)
        return InputError(
            f"{path} is a pickled module, and loading it executes code from the file.",
            f"If you trust its origin, allow it with --allow-pickle (allow_pickle=True). {FACTORY}",
        )
    except Exception as error:  # a bad file: torch.load raises EOFError, RuntimeError, KeyError, ...
        return _not_pytorch(path, error)


def _not_pytorch(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is not a PyTorch file ({first_line(error)}).", "Is it whole?")


def _holds_weights(path: Path, loaded: Any) -> InputError:
    keys = ", ".join(map(repr, list(loaded)[:3])) if isinstance(loaded, dict) else ""
    kind = f"a {type(loaded).__name__} with {keys}, ..." if keys else f"a {type(loaded).__name__}"
    return InputError(f"{path} holds weights, not a model ({kind}).", FACTORY)


def _input_shape(options: Options) -> tuple[int, ...]:
    if options.input_shape is None:
        raise InputError(
            "The shape of the net's input is not known.", "Give it, for example --input-shape 3,224,224 (no batch)."
        )
    return tuple(options.input_shape)


def _refuse_other_types(net: Any) -> None:
    """Weights elsewhere than on the CPU or in another type than float32 cannot be compared with the ONNX file."""
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if tensor.device.type != "cpu" or (tensor.is_floating_point() and str(tensor.dtype) != "torch.float32"):
            raise InputError(
                f"The net's {name} is {tensor.dtype} on {tensor.device}, not float32 on the CPU.",
                "Convert net.cpu().float().",
            )


@contextlib.contextmanager
def _evaluation_mode(net: Any) -> Iterator[None]:
    """The net in evaluation mode inside the block, every part of it as before afterwards."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _evaluate(net: Any, x: NDArray[np.float32]) -> NDArray[np.float32]:
    torch = require("torch", "torch")
    with quiet(), torch.no_grad():
        outputs = torch.utils._pytree.tree_leaves(net(torch.from_numpy(x)))  # model outputs of transformers are dicts
    if len(outputs) != 1:
        raise InputError(f"The net has {len(outputs)} outputs, one is needed.", "Wrap it so that it returns logits.")
    output: NDArray[np.float32] = outputs[0].numpy()
    return output


def _trace(net: Any, example: Any) -> tuple[Any, int | None]:
    """An exported program, and the batch size it is bound to if the net allows no other."""
    torch = require("torch", "torch")
    batch = torch.export.Dim("batch")
    try:
        return torch.export.export(net, (example,), dynamic_shapes=({0: batch},)), None
    except Exception as error:  # torch._dynamo's exceptions have no public base
        if "specialized it to be a constant" not in str(error):
            raise _untraceable(error) from error
    try:
        return torch.export.export(net, (example,)), TRACED_BATCH
    except Exception as error:
        raise _untraceable(error) from error


def _untraceable(error: Exception) -> InputError:
    return InputError(
        f"torch.export cannot trace the net ({type(error).__name__}: {first_line(error)}).",
        "Does its input shape fit? A net with data-dependent control flow converts as TorchScript: torch.jit.trace it.",
    )


def _export_program(program: Any) -> ir.Model:
    """ONNX of an exported program, with BatchNorm folded and the names of the modules in the nodes' metadata."""
    torch = require("torch", "torch")
    require("onnxscript", "torch")
    with _exporter_errors():
        exported = torch.onnx.export(_without_wide_attention(program), dynamo=True, verbose=False)
    model: ir.Model = exported.model
    return model


def _without_wide_attention(program: Any) -> Any:
    """Attention over windows has five axes, of which the exporter takes four: as matrix products it takes any."""
    torch = require("torch", "torch")
    attention = torch.ops.aten.scaled_dot_product_attention.default
    calls = [node for node in program.graph.nodes if node.target is attention]
    if all(call.args[0].meta["val"].ndim == 4 for call in calls):
        return program

    def products(*arguments: Any, **options: Any) -> Any:
        return torch.ops.aten._scaled_dot_product_attention_math(*arguments, **options)[0]

    return program.run_decompositions({attention: products})


@contextlib.contextmanager
def _exporter_errors() -> Iterator[None]:
    """The exporter's pages of advice as one sentence, naming the operators it lacks."""
    try:
        yield
    except CraftError:
        raise
    except Exception as error:
        missing = sorted(set(re.findall(r"(?:OpOverload\(op='|operator ')(aten[.:]+\w+|\w+::\w+)", str(error))))
        if missing:
            raise UnsupportedOperator(
                f"PyTorch's ONNX exporter cannot convert {', '.join(missing)}.",
                "Write that part of the net with other operators.",
            ) from error
        cause = error.__cause__ or error
        raise InputError(
            f"PyTorch's ONNX exporter failed ({type(cause).__name__}: {first_line(cause)}).", "Is the net traceable?"
        ) from error


def _refuse_training(program: Any, path: Path) -> None:
    for node in program.graph.nodes:
        for kind, position in TRAINING_ARGUMENT.items():
            if str(node.target).startswith(f"aten.{kind}.") and node.args[position] is True:
                raise InputError(
                    f"{path} was exported in training mode ({node.name} depends on chance or on the batch).",
                    "Export it again after net.eval().",
                )


def _static_batch(program: Any) -> int | None:
    """The batch size a program is bound to, None if it is dynamic."""
    names = program.graph_signature.user_inputs
    if len(names) != 1:
        raise InputError(f"The program has {len(names)} inputs, one picture is needed.", "Export a net of one input.")
    (node,) = [node for node in program.graph.nodes if node.name == names[0]]
    length = node.meta["val"].shape[0]
    return length if isinstance(length, int) else None


if __name__ == "__main__":
    from craft_onnx_converters.script import main

    main()
