"""ONNX in, ONNX out: load and check, normalize, cut, split, fold. Pure functions; nothing is run here."""
