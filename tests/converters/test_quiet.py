"""What the frameworks say while they work is hidden, and nothing else."""

import logging
import warnings

import pytest

from craft_onnx_converters.quiet import quiet


def test_prints_warnings_and_logs_are_hidden_inside(capsys):
    with quiet() as messages:
        print("WARNING: AutoGraph could not transform that")
        warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
        logging.getLogger("tensorflow").warning("retracing")
    assert capsys.readouterr().out == "" and messages == ["retracing"]


def test_they_are_shown_again_afterwards(capsys):
    with pytest.raises(KeyError), quiet():
        raise KeyError
    print("done")
    with pytest.warns(UserWarning):
        warnings.warn("shown", stacklevel=1)
    assert capsys.readouterr().out == "done\n"
