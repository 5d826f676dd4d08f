"""Texts of a backbone that stays as it is: embedded once, to the same as in the model."""

from pathlib import Path

import pytest
import torch

from hub.toy_models import write_text_model
from redifu.inference.feature_cache import EmbeddedTexts
from redifu.inference.loading import load_pretrained


def dialogue(*texts: str | None) -> dict:
    return {"id": "a", "utterances": [{"speaker": "Ana", "text": text} for text in texts]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("frozen") / "model")


def test_a_batch_says_the_same_with_texts_embedded(folder: Path) -> None:
    model, processor = load_pretrained(folder)
    given = [dialogue("great never", None, "well"), dialogue("never")]
    plain, embedded = processor(given), EmbeddedTexts(model, alone=True)(processor(given))
    assert "input_ids" not in embedded and "attention_mask" not in embedded
    with torch.no_grad():
        torch.testing.assert_close(model(**embedded).logits, model(**plain).logits)


def test_a_text_is_embedded_once_and_always_to_the_same_bits(folder: Path) -> None:
    model, processor = load_pretrained(folder)
    rows: list[int] = []
    backbone = model.redifu.text_backbone
    backbone.register_forward_hook(lambda module, arguments, output: rows.append(1))
    texts = EmbeddedTexts(model, alone=True)
    first = texts(processor([dialogue("great", "great never well")]))["text_features"]
    assert len(rows) == 2
    assert torch.equal(texts(processor([dialogue("great")]))["text_features"][0], first[0, :1])
    assert len(rows) == 2
    # As when a run goes on: what stands beside a text in its first batch is another.
    assert torch.equal(
        EmbeddedTexts(model, alone=True)(processor([dialogue("great")]))["text_features"][0], first[0, :1]
    )


def test_a_batch_without_texts_stays_as_it_is(folder: Path) -> None:
    model, processor = load_pretrained(folder)
    batch = processor([dialogue(None)])
    assert EmbeddedTexts(model, alone=True)(batch) is batch and "text_features" not in batch
