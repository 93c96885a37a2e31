"""Operators in float64 for ONNX's reference evaluator, where its own are missing, slow or wrong; by PyTorch."""

OPERATORS = []
