"""Everything that answers: loading, batches, predictions, explanations, sessions."""
