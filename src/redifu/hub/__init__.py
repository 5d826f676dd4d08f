"""Sharing models: the Hugging Face Hub with cards and remote code, and ONNX export."""
