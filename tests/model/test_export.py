"""torch.export of the whole model; torch.compile without graph breaks, and not anew for each length."""

import pytest
import torch
from torch._dynamo.utils import counters

from model.tiny_models import VARIANTS, random_modality_mask, text_model, tiny_batch, tiny_model
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


def test_new_lengths_are_not_compiled_anew() -> None:
    torch.compiler.reset()
    model = text_model("bert", visual_size=None)
    compiled = torch.compile(model, backend="eager")
    generator = torch.Generator().manual_seed(0)
    graphs = []
    # (dialogues, utterances, tokens): a first batch, another one, one of a single dialogue, then new ones.
    for dialogues, utterances, tokens in (
        *((2, 5, 7), (3, 9, 12), (1, 4, 5), (4, 12, 20), (2, 7, 9)),
        *((3, 30, 14), (2, 11, 25), (5, 6, 6), (2, 40, 18), (3, 17, 11)),
    ):
        batch = tiny_batch(*[utterances] * dialogues)
        del batch["text_features"], batch["visual_features"]
        widths = torch.randint(1, tokens + 1, (dialogues * utterances,), generator=generator)
        batch["attention_mask"] = (torch.arange(widths.max()) < widths[:, None]).long()
        batch["input_ids"] = torch.randint(5, 40, batch["attention_mask"].shape, generator=generator)
        with torch.no_grad():
            torch.testing.assert_close(compiled(**batch).logits, model(**batch).logits, rtol=0, atol=1e-5)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert graphs[3:] == [graphs[2]] * 7
