"""A watermark planted on photographs, and the audit that must find it: ``python -m craft_onnx_models.watermark``."""
