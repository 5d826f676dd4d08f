"""The optional text backbone: what it is given, what it gives, and that it travels with the fusion."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForSequenceClassification

from model.tiny_models import (
    LABELS,
    TEXT_CONFIGS,
    random_labels,
    text_model,
    tiny_batch,
    tiny_config,
    tiny_model,
)
from redifu.model import ReDiFuForEmotionRecognition
from redifu.model.backbones import encode_texts, mean_pooling

PAD = 1


@pytest.fixture(scope="module", params=TEXT_CONFIGS)
def model(request: pytest.FixtureRequest) -> ReDiFuForEmotionRecognition:
    return text_model(request.param)


def tokens(*widths: int, seed: int = 0) -> dict[str, Tensor]:
    """Texts of so many tokens, padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(widths)) < torch.tensor(widths)[:, None]
    ids = torch.randint(5, 40, mask.shape, generator=generator).masked_fill(~mask, PAD)
    return {"input_ids": ids, "attention_mask": mask.long()}


def batch_of_texts(*lengths: int, widths: tuple[int, ...]) -> dict[str, Tensor]:
    """Dialogues of so many utterances whose text comes as tokens."""
    batch = tiny_batch(*lengths)
    del batch["text_features"]
    return {**batch, **tokens(*widths)}


def embeddings(backbone: nn.Module, texts: dict[str, Tensor]) -> Tensor:
    """The mean of each text's token states, encoded alone."""
    rows = []
    for ids, mask in zip(texts["input_ids"], texts["attention_mask"].bool(), strict=True):
        rows.append(backbone(input_ids=ids[mask][None]).last_hidden_state[0].mean(0))
    return torch.stack(rows)


def test_tokens_give_what_their_mean_pooled_embeddings_give(model: ReDiFuForEmotionRecognition) -> None:
    batch = batch_of_texts(3, 2, widths=(4, 9, 2, 5, 7))
    grid = torch.zeros(2, 3, 12)
    grid[batch["utterance_mask"]] = embeddings(model.redifu.text_backbone, batch)
    ready = {name: value for name, value in batch.items() if name not in ("input_ids", "attention_mask")}
    expected = model(**ready, text_features=grid).logits[batch["utterance_mask"]]
    actual = model(**batch).logits[batch["utterance_mask"]]
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_only_real_utterances_with_text_reach_the_backbone(model: ReDiFuForEmotionRecognition) -> None:
    batch = batch_of_texts(5, 1, 2, widths=(3, 6, 4, 2, 5))
    batch["modality_mask"] = torch.ones(3, 5, 3, dtype=torch.bool)
    batch["modality_mask"][0, 1, 0] = batch["modality_mask"][0, 4, 0] = batch["modality_mask"][2, 0, 0] = (
        False
    )
    seen: list[Tensor] = []
    hook = model.redifu.text_backbone.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    model(**batch)
    hook.remove()
    assert sum(len(ids) for ids in seen) == 5
    assert sum(ids.numel() for ids in seen) <= batch["input_ids"].numel()
    encoded = sorted(row[row != PAD].tolist() for ids in seen for row in ids)
    assert encoded == sorted(row[row != PAD].tolist() for row in batch["input_ids"])


def test_texts_go_to_their_utterances_row_by_row(model: ReDiFuForEmotionRecognition) -> None:
    batch = batch_of_texts(4, 3, widths=(3, 6, 4, 2))
    batch["modality_mask"] = torch.ones(2, 4, 3, dtype=torch.bool)
    batch["modality_mask"][:, :, 0] = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 1]])
    states = model(**batch, output_hidden_states=True).hidden_states["text_projected"]
    here = batch["modality_mask"][..., 0] & batch["utterance_mask"]
    projected = model.redifu.projections["text"](embeddings(model.redifu.text_backbone, batch))
    torch.testing.assert_close(states[here], projected, rtol=0, atol=1e-5)
    assert not states[~here].any()


def test_a_dialogue_alone_equals_the_dialogue_in_a_batch(model: ReDiFuForEmotionRecognition) -> None:
    batch = batch_of_texts(1, 3, widths=(3, 9, 4, 6))
    alone = {name: value[1:] for name, value in batch.items() if len(value) == 2}
    alone |= {name: value[1:] for name, value in tokens(3, 9, 4, 6).items()}
    torch.testing.assert_close(model(**batch).logits[1:], model(**alone).logits, rtol=0, atol=1e-5)


def test_content_of_padded_tokens_and_their_number_change_nothing(model: ReDiFuForEmotionRecognition) -> None:
    batch = batch_of_texts(3, widths=(3, 6, 4))
    before = model(**batch).logits
    wider = {name: nn.functional.pad(batch[name], (0, 5)) for name in ("input_ids", "attention_mask")}
    wider["input_ids"][wider["attention_mask"] == 0] = 17
    torch.testing.assert_close(model(**{**batch, **wider}).logits, before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk_tokens", [1, 7, 20, 10_000])
def test_chunks_give_the_same_as_one_go(model: ReDiFuForEmotionRecognition, chunk_tokens: int) -> None:
    texts = tokens(5, 2, 11, 1, 7, 7, 3)
    backbone = model.redifu.text_backbone
    calls: list[int] = []
    hook = backbone.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    pooled = encode_texts(
        backbone, texts["input_ids"], texts["attention_mask"].bool(), chunk_tokens=chunk_tokens
    )
    hook.remove()
    assert max(calls) <= max(chunk_tokens, 11)
    torch.testing.assert_close(pooled, embeddings(backbone, texts), rtol=0, atol=1e-5)


def test_mean_pooling_of_nothing_is_zero() -> None:
    states = torch.randn(2, 3, 4)
    pooled = mean_pooling(states, torch.tensor([[True, False, True], [False] * 3]))
    torch.testing.assert_close(pooled[0], (states[0, 0] + states[0, 2]) / 2)
    assert not pooled[1].any()


def test_the_loss_reaches_every_parameter_of_backbone_and_fusion(model: ReDiFuForEmotionRecognition) -> None:
    batch = batch_of_texts(4, 2, widths=(4, 9, 2, 5, 7, 3))
    named = dict(model.named_parameters())
    loss = model(**batch, labels=random_labels(batch)).loss
    values = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    assert [name for name, value in zip(named, values, strict=True) if value is None] == []
    backbone = [value for name, value in zip(named, values, strict=True) if "text_backbone" in name]
    assert backbone and all(value.isfinite().all() for value in backbone)
    assert sum(bool(value.any()) for value in backbone) >= len(backbone) - 2


def test_a_frozen_backbone_gets_no_gradient(model: ReDiFuForEmotionRecognition) -> None:
    batch = batch_of_texts(2, widths=(4, 9))
    backbone = model.redifu.text_backbone.requires_grad_(False)
    model(**batch, labels=random_labels(batch)).loss.backward()
    assert all(value.grad is None for value in backbone.parameters())
    assert model.redifu.projections["text"].weight.grad.any()
    backbone.requires_grad_(True)
    model.zero_grad()


@pytest.mark.parametrize("missing", ["some", "all"])
def test_without_text_the_other_streams_are_read(model: ReDiFuForEmotionRecognition, missing: str) -> None:
    batch = tiny_batch(3)
    del batch["text_features"]
    batch["modality_mask"] = torch.ones(1, 3, 3, dtype=torch.bool)
    without = model(
        **{**batch, "modality_mask": batch["modality_mask"].index_fill(2, torch.tensor(0), False)}
    )
    if missing == "all":
        batch["modality_mask"][..., 0] = False
        empty = {"input_ids": torch.zeros(0, 4, dtype=torch.long), "attention_mask": torch.zeros(0, 4)}
        assert torch.equal(model(**batch, **empty).logits, without.logits)
        assert torch.equal(model(**{**batch, "modality_mask": None}).logits, without.logits)
    else:
        batch["modality_mask"][0, 1, 0] = False
        assert model(**batch, **tokens(4, 3)).logits.isfinite().all()


def test_checkpointing_and_autocast_reach_the_backbone(model: ReDiFuForEmotionRecognition) -> None:
    batch = batch_of_texts(3, widths=(4, 9, 2))
    exact = model(**batch).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near = model(**batch).logits
    torch.testing.assert_close(near.float(), exact, rtol=0.1, atol=0.1 * exact.abs().max().item())
    model.train().activation_checkpointing_enable()
    loss = model(**batch, labels=random_labels(batch)).loss
    loss.backward()
    model.activation_checkpointing_disable()
    checkpointed = {name: value.grad.clone() for name, value in model.named_parameters()}
    model.zero_grad()
    model(**batch, labels=random_labels(batch)).loss.backward()
    for name, value in model.named_parameters():
        torch.testing.assert_close(checkpointed[name], value.grad, rtol=1e-4, atol=1e-6)
    model.zero_grad()
    model.eval()


def wrong_rows() -> list[tuple[dict[str, Any], str]]:
    batch = batch_of_texts(3, 1, widths=(4, 9, 2, 3))
    ids, mask = batch["input_ids"], batch["attention_mask"]
    return [
        ({**batch, "input_ids": ids[:3], "attention_mask": mask[:3]}, "4.*3"),
        ({**batch, "attention_mask": mask[:, :2]}, "attention_mask.*input_ids"),
        ({**batch, "attention_mask": mask * 2}, "attention_mask.*0 and 1.*2"),
        ({**batch, "input_ids": ids[0]}, r"input_ids.*\(9,\)"),
        ({**batch, "text_features": torch.zeros(2, 3, 12)}, "not both"),
        (tokens(3, 4), "utterance_mask"),
    ]


@pytest.mark.parametrize("case", range(len(wrong_rows())))
def test_mistakes_are_refused(case: int) -> None:
    inputs, message = wrong_rows()[case]
    with pytest.raises(ValueError, match=message):
        text_model("bert")(**inputs)


@pytest.fixture(params=["float32", "float16"])
def pretrained(model: ReDiFuForEmotionRecognition, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a pretrained text backbone."""
    torch.manual_seed(7)
    backbone = AutoModel.from_config(model.config.text_config).to(getattr(torch, request.param))
    backbone.save_pretrained(tmp_path / "backbone")
    return tmp_path / "backbone"


def test_a_pretrained_backbone_keeps_its_weights(pretrained: Path, tmp_path: Path) -> None:
    fields = {
        "id2label": dict(enumerate(LABELS)),
        "hidden_size": 16,
        "num_attention_heads": 4,
        "audio_size": 5,
    }
    model = ReDiFuForEmotionRecognition.from_backbones(text=str(pretrained), visual_size=None, **fields)
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    expected = AutoModel.from_pretrained(pretrained, dtype=torch.float32)
    stored = {**dict(expected.named_parameters()), **dict(expected.named_buffers())}
    backbone = model.redifu.text_backbone
    for name, value in [*backbone.named_parameters(), *backbone.named_buffers()]:
        assert torch.equal(value, stored[name]), name
    assert {name for name in stored if "pooler" not in name} <= {
        name for name, _ in [*backbone.named_parameters(), *backbone.named_buffers()]
    }
    assert model.config.modalities == ("text", "audio")

    model.eval().save_pretrained(tmp_path / "whole")
    assert str(tmp_path) not in (tmp_path / "whole" / "config.json").read_text()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole")
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    batch = {**tokens(3, 5), "utterance_mask": torch.ones(1, 2)}
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits, rtol=0, atol=1e-5)


def test_a_backbone_that_needs_a_decoder_is_refused() -> None:
    sizes = {"d_model": 12, "d_kv": 4, "d_ff": 8, "num_heads": 2, "num_layers": 1, "vocab_size": 40}
    with pytest.raises(ValueError, match=r"text_config.*t5"):
        ReDiFuForEmotionRecognition(tiny_config(text_config={"model_type": "t5", **sizes}))


def test_a_fresh_model_has_one_precision_whatever_the_backbone_was_saved_in() -> None:
    text_config = {**TEXT_CONFIGS["bert"].to_dict(), "dtype": "float16"}
    model = ReDiFuForEmotionRecognition(tiny_config(text_config=text_config))
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_a_backbone_without_sdpa_runs_its_own_attention_beside_sdpa(tmp_path: Path) -> None:
    sizes = {"hidden_size": 12, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    text_config = {"model_type": "mpnet", "vocab_size": 40, **sizes}
    ReDiFuForEmotionRecognition(tiny_config(text_config=text_config)).save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert model.config._attn_implementation == "sdpa"
    assert model(**batch_of_texts(2, widths=(3, 5))).logits.isfinite().all()


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises((OSError, ValueError), match="nowhere"):
        ReDiFuForEmotionRecognition.from_backbones(text=str(tmp_path / "nowhere"))


def test_fields_of_the_backbone_are_set_and_misspelt_ones_refused(pretrained: Path) -> None:
    def build(**text_config: Any) -> ReDiFuForEmotionRecognition:
        return ReDiFuForEmotionRecognition.from_backbones(
            text=str(pretrained), text_config=text_config, hidden_size=16, num_attention_heads=4
        )

    assert build(initializer_range=0.5).config.text_config.initializer_range == 0.5
    with pytest.raises(ValueError, match="hidden_dropot_prob"):
        build(hidden_dropot_prob=0.0)
    with pytest.raises(ValueError, match=r"text_config does not match the weights"):
        build(vocab_size=7)


def test_token_embeddings_are_those_of_the_backbone(
    model: ReDiFuForEmotionRecognition, tmp_path: Path
) -> None:
    model = copy.deepcopy(model)
    embeddings = model.get_input_embeddings()
    assert embeddings is model.redifu.get_input_embeddings()
    assert embeddings is model.redifu.text_backbone.get_input_embeddings()
    batch = batch_of_texts(2, widths=(3, 5))
    before = model(**batch).logits
    model.resize_token_embeddings(45, mean_resizing=False)
    torch.testing.assert_close(model(**batch).logits, before, rtol=0, atol=1e-6)
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert again.get_input_embeddings().weight.shape == (45, 12)
    torch.testing.assert_close(again.eval()(**batch).logits, before, rtol=0, atol=1e-6)


def test_a_model_without_text_backbone_has_no_token_embeddings() -> None:
    for model in (tiny_model(), tiny_model().redifu):
        with pytest.raises(NotImplementedError, match="this model has no text backbone"):
            model.get_input_embeddings()
        with pytest.raises(NotImplementedError, match="this model has no text backbone"):
            model.set_input_embeddings(nn.Embedding(3, 4))
