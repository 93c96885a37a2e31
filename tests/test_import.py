import subprocess
import sys

HEAVY = ("onnxruntime", "onnx", "onnx_ir", "matplotlib", "sklearn", "scipy", "click", "cv2", "torch", "tensorflow")


def test_import_is_light():
    code = f"import sys, craft_onnx; print([m for m in {HEAVY} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


def test_every_public_name_resolves():
    import craft_onnx

    assert all(getattr(craft_onnx, name) is not None for name in craft_onnx.__all__)


def test_an_unknown_name_is_an_attribute_error():
    import craft_onnx

    assert not hasattr(craft_onnx, "Nothing")
