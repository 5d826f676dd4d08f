"""Inference: loading, batches, predictions, explanations and sessions."""
