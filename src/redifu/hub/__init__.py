"""Publishing on the Hugging Face Hub: the card of a model, its remote code, and the upload."""
