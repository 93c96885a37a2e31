"""Frameworks to ONNX: the only place that imports PyTorch or TensorFlow."""
