"""Models for others: the Hugging Face Hub, with card, remote code and upload, and exports to ONNX."""
