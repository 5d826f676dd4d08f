"""torch.export of the whole model, and torch.compile of the fusion without graph breaks."""

import pytest
import torch

from model.tiny_models import VARIANTS, random_modality_mask, tiny_batch, tiny_model
from redifu.model import MODALITIES

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("variant", ["meld", "causal", "whole"])
def test_an_exported_model_takes_other_batches(variant: str) -> None:
    model = tiny_model(**VARIANTS[variant])
    given, other = tiny_batch(5, 3), tiny_batch(9, 2, 4)
    for batch in (given, other):
        batch["modality_mask"] = random_modality_mask(batch["utterance_mask"])
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(model, (), given, dynamic_shapes=dict.fromkeys(given, free))
    for batch in (given, other):
        torch.testing.assert_close(
            exported.module()(**batch).logits, model(**batch).logits, rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_fusion_compiles_without_graph_breaks(variant: str) -> None:
    model = tiny_model(**VARIANTS[variant])
    fusion = model.redifu.fusion
    streams = {name: torch.randn(2, 5, 16) for name in MODALITIES}
    present = {name: torch.rand(2, 5) < 0.7 for name in MODALITIES}
    given = {"present": present, "positions": torch.arange(5).expand(2, -1)}
    compiled = torch.compile(fusion, fullgraph=True, backend="aot_eager")
    actual, expected = compiled(streams, **given), fusion(streams, **given)
    for name in MODALITIES:
        torch.testing.assert_close(actual.streams[name], expected.streams[name], rtol=0, atol=1e-5)
