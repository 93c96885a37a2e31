"""Commands as processes: what they load, signals, pipes, full disks, what is said where."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

FORBIDDEN = (
    "onnx", "onnx_ir", "onnxscript", "scipy", "sklearn", "matplotlib", "pandas", "torch", "tensorflow",
    "google.protobuf",
)  # fmt: skip  # one line reads as the list it is
COMMAND = (sys.executable, "-m", "craft_onnx.cli.main")
LONG_FIT = ("--class-id", 0, "--patch-size", 2, "-k", 12)  # thousands of crops


def as_text(arguments):
    return [str(argument) for argument in arguments]


def process(*arguments, **options):
    return subprocess.Popen([*COMMAND, *as_text(arguments)], stderr=subprocess.PIPE, text=True, **options)


def test_explain_loads_nothing_but_the_base_packages(fitted, pictures, tmp_path):
    code = (
        "import sys\nfrom craft_onnx.cli.main import cli\n"
        "cli(sys.argv[1:], standalone_mode=False)\n"
        f"print([name for name in {FORBIDDEN} if name in sys.modules], file=sys.stderr)"
    )
    arguments = as_text(["explain", fitted, pictures / "red_00.png", "-o", tmp_path / "e", "-q"])
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"


def test_a_cold_explain_takes_less_than_two_seconds_of_a_processor(fitted, pictures, tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments = as_text(["explain", fitted, pictures / "red_00.png", "-o", tmp_path / "e"])
    subprocess.run([*COMMAND, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2  # 0.6 s on a quiet machine


def test_help_loads_no_command():
    code = (
        "import sys\nfrom craft_onnx.cli.main import cli\ncli(['--help'], standalone_mode=False)\n"
        "print([name for name in ('numpy', 'cv2', 'craft_onnx.cli.run') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "[]" and "explain" in done.stdout


@pytest.mark.parametrize("command", ["fit", "run"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_nothing(entries, bundle, converted, pictures, tmp_path, command, number, code):
    arguments = ("fit", bundle, pictures) if command == "fit" else ("run", converted, pictures, "-o", tmp_path / "o")
    before = entries(tmp_path)
    with process(
        *arguments, *LONG_FIT, stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    ) as running:
        for line in running.stderr:
            if line.startswith("Looking for"):
                break
        running.send_signal(number)
        out, err = running.communicate(timeout=300)
    assert running.returncode == code
    assert out == "" and "Traceback" not in err
    assert [entry for entry in entries(tmp_path) if not entry.endswith(".lock")] == before


def test_a_reader_that_leaves_early_is_no_error(model):
    reader, writer = os.pipe()
    os.close(reader)
    with process("layers", model, "--json", stdout=writer) as running:
        os.close(writer)
        err = running.communicate(timeout=300)[1]
    assert running.returncode == 141
    assert "Traceback" not in err and "Error" not in err


def test_a_full_disk_on_stdout_is_a_sentence(model):
    with Path("/dev/full").open("w") as full, process("layers", model, stdout=full) as running:
        err = running.communicate(timeout=300)[1]
    assert running.returncode == 2
    assert "No space left on device" in err and "Traceback" not in err


@pytest.mark.parametrize("command", ["explain", "convert", "split", "run"])
def test_a_full_disk_leaves_nothing(entries, fitted, converted, pictures, tmp_path, command):
    """A limit on the size of files stands in for the end of the disk."""
    output = ("-o", tmp_path / "o")
    arguments = {
        "explain": ("explain", fitted, pictures, *output),
        "run": ("run", converted, pictures, *output, "-k", 3),
    }.get(command, (command, converted, *output))
    before = entries(tmp_path)
    with process(
        *arguments, stdout=subprocess.PIPE, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
    ) as running:
        out, err = running.communicate(timeout=300)
    assert running.returncode == 2, err
    assert out == "" and "Traceback" not in err
    assert entries(tmp_path) == before


def test_results_and_messages_do_not_mix(fitted, pictures, tmp_path):
    """Not a terminal: no progress bar; stdout is JSON alone."""
    (tmp_path / "bad.png").write_text("no picture")
    files = [pictures / "red_00.png", tmp_path / "bad.png"]
    for options, messages in (([], 2), (["-q"], 1), (["-v"], 4)):
        arguments = as_text(["explain", fitted, *files, "-o", tmp_path / "e", "--force", *options])
        done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True)
        assert len(json.loads(done.stdout)) == 1
        assert "\r" not in done.stderr and "%" not in done.stderr
        assert len(done.stderr.splitlines()) == messages, done.stderr
        assert done.stderr.startswith("Warning: 1 of 2 pictures is skipped") or options == ["-v"]


def read_terminal(shown):
    """What is shown until nobody holds the terminal any more, which is an error of input on Linux."""
    with contextlib.suppress(OSError):
        while data := os.read(shown, 4096):
            yield data.decode(errors="replace")
    os.close(shown)


@pytest.mark.parametrize(("options", "bars"), [([], ("Predicting", "Cutting crops", "Importances")), (["-q"], ())])
def test_a_terminal_shows_progress(bundle, pictures, options, bars):
    shown, terminal = os.openpty()
    arguments = as_text(["fit", bundle, pictures, "--class-id", 0, "-k", 3, "--patch-size", 12, *options])
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=terminal, text=True) as running:
        os.close(terminal)
        text = "".join(read_terminal(shown))
        out = running.communicate(timeout=300)[0]
    assert json.loads(out)["n_images"] == 6
    assert all(f"{bar}  [" in text for bar in bars) and ("100%" in text) == bool(bars), text


def test_verbose_says_how_long_and_how_exact_each_step_is(run, bundle, converted, pictures, tmp_path):
    done = run("run", converted, pictures, "-o", tmp_path / "o", "-k", 3, "-v")
    for words in ("Converted and proven", "batchnorm: relative error", "Predicted 13 pictures on cpu:", "Importances:"):
        assert words in done.err
    quiet = run("run", converted, pictures, "-o", tmp_path / "o2", "-k", 3, "-q")
    assert quiet.err == "" and quiet.json["n_images"] == 6
