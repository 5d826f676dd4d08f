"""Texts of a backbone that is not trained: each is embedded once in a run, and not in every epoch."""

from typing import Any

import torch
from torch import Tensor

from redifu.model.configuration_redifu import MODALITIES


class FrozenTexts:
    """Puts text_features, as the model's own backbone makes them, in the place of tokens."""

    def __init__(self, model: Any):
        """Remember the embeddings of a ReDiFuForEmotionRecognition whose text backbone stays as it is."""
        self._embed = model.redifu.embed
        self._known: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, batch: Any) -> Any:
        """Embed the texts of a batch that a ReDiFuProcessor made; one without texts stays as it is.

        Returns:
            The batch, with text_features (batch, utterances, size), zero where there is no text, instead of
            input_ids and attention_mask.
        """
        if "input_ids" not in batch:
            return batch
        ids, mask = batch.pop("input_ids"), batch.pop("attention_mask").bool()
        rows = torch.stack([self._row(each[real]) for each, real in zip(ids, mask, strict=True)])
        present = batch["modality_mask"][..., MODALITIES.index("text")].bool()
        batch["text_features"] = rows.new_zeros(*present.shape, rows.shape[-1])
        batch["text_features"][present] = rows
        return batch

    def _row(self, tokens: Tensor) -> Tensor:
        # By itself: padded among others, the last bits of a run would depend on where it was stopped.
        key = tuple(tokens.tolist())
        if key not in self._known:
            with torch.no_grad():
                self._known[key] = self._embed("text", tokens[None])[0]
        return self._known[key]
