"""Backbones on waveforms and pictures: what they are given, and that they travel with the fusion."""

from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedConfig

from model.tiny_models import (
    AUDIO_CONFIGS,
    SHORTEST_WAVEFORM,
    VISION_CONFIGS,
    gradients,
    random_labels,
    random_modality_mask,
    raw_model,
    tiny_config,
)
from redifu.model import ReDiFuForEmotionRecognition
from redifu.model.backbones import encode_pictures, encode_waveforms, shortest_waveform, takes_padding

PICTURES = 2
WAVEFORM_FAMILIES = [name for name in AUDIO_CONFIGS if name != "whisper"]


@pytest.fixture(scope="module", params=["wav2vec2_layer", "whisper"])
def model(request: pytest.FixtureRequest) -> ReDiFuForEmotionRecognition:
    return raw_model(audio=request.param)


@pytest.fixture(scope="module", params=WAVEFORM_FAMILIES)
def audio_backbone(request: pytest.FixtureRequest) -> Any:
    return raw_model(audio=request.param).redifu.audio_backbone


def waveforms(*widths: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Waveforms of so many samples, and their mask; what is padded is no number."""
    mask = torch.arange(max(widths)) < torch.tensor(widths)[:, None]
    values = torch.randn(mask.shape, generator=torch.Generator().manual_seed(seed))
    return values.masked_fill(~mask, float("nan")), mask


def raw_batch(*lengths: int, seed: int = 0, whole: bool = False) -> dict[str, Tensor]:
    """Dialogues of so many utterances with any subset of the raw streams, or `whole`."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    modality_mask = mask[..., None].expand(-1, -1, 3)
    if not whole:
        modality_mask = modality_mask & random_modality_mask(mask, seed)
    texts, audios, pictures = modality_mask.sum((0, 1)).tolist()
    widths = torch.randint(SHORTEST_WAVEFORM, 200, (audios,), generator=generator).tolist()
    audio_values, audio_values_mask = waveforms(*widths, seed=seed)
    return {
        "input_ids": torch.randint(5, 40, (texts, 6), generator=generator),
        "audio_values": audio_values,
        "audio_values_mask": audio_values_mask,
        "pixel_values": torch.randn(pictures, PICTURES, 3, 8, 8, generator=generator),
        "utterance_mask": mask,
        "modality_mask": modality_mask,
        "speaker_ids": torch.randint(0, 3, mask.shape, generator=generator),
    }


def alone(backbone: Any, values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the frames of each waveform, encoded by itself."""
    rows = [backbone(input_values=row[real][None]) for row, real in zip(values, mask, strict=True)]
    return torch.cat([row.last_hidden_state.mean(1) for row in rows])


@pytest.mark.parametrize("chunk_samples", [1, 500, 10**6])
def test_a_waveform_gives_the_same_alone_and_beside_longer_ones(
    audio_backbone: Any, chunk_samples: int
) -> None:
    values, mask = waveforms(300, SHORTEST_WAVEFORM, 77, 300, 1000)
    sizes: list[int] = []
    hook = audio_backbone.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(kwargs["input_values"].numel()), with_kwargs=True
    )
    together = encode_waveforms(audio_backbone, values, mask, chunk_samples=chunk_samples)
    hook.remove()
    assert max(sizes) <= max(chunk_samples, 1000)
    torch.testing.assert_close(together, alone(audio_backbone, values, mask), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "family", [name for name in WAVEFORM_FAMILIES if not takes_padding(AUDIO_CONFIGS[name])]
)
def test_other_lengths_beside_it_would_change_a_waveform(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = raw_model(audio=family).redifu.audio_backbone
    values, mask = waveforms(300, 77)
    monkeypatch.setattr("redifu.model.backbones.takes_padding", lambda config: True)
    padded = encode_waveforms(backbone, values, mask)
    assert (padded - alone(backbone, values, mask))[1].abs().max() > 1e-2


def test_the_shortest_waveform_is_one_frame(audio_backbone: Any) -> None:
    assert shortest_waveform(audio_backbone.config) == SHORTEST_WAVEFORM
    assert encode_waveforms(audio_backbone, *waveforms(SHORTEST_WAVEFORM)).isfinite().all()
    with pytest.raises(ValueError, match="at least 20 samples, got 19"):
        encode_waveforms(audio_backbone, *waveforms(100, SHORTEST_WAVEFORM - 1))


@pytest.mark.parametrize("family", VISION_CONFIGS)
@pytest.mark.parametrize("chunk_pictures", [1, 5, 100])
def test_pictures_give_the_mean_of_their_states(family: str, chunk_pictures: int) -> None:
    backbone = raw_model(visual=family).redifu.visual_backbone
    values = torch.randn(4, 3, 3, 8, 8)
    expected = [backbone(pixel_values=each).last_hidden_state.mean((0, 1)) for each in values]
    pooled = encode_pictures(backbone, values, chunk_pictures=chunk_pictures)
    torch.testing.assert_close(pooled, torch.stack(expected), rtol=0, atol=1e-5)


def test_sizes_of_streams_are_those_of_their_backbones(model: ReDiFuForEmotionRecognition) -> None:
    assert (model.config.text_size, model.config.audio_size, model.config.visual_size) == (12, 12, 12)


def test_raw_inputs_give_what_their_embeddings_give(model: ReDiFuForEmotionRecognition) -> None:
    batch = raw_batch(4, 2, 3)
    ready = {name: value for name, value in batch.items() if name.endswith("_mask")} | {
        "speaker_ids": batch["speaker_ids"]
    }
    del ready["audio_values_mask"]
    raw = {
        "text": ("input_ids",),
        "audio": ("audio_values", "audio_values_mask"),
        "visual": ("pixel_values",),
    }
    for index, (name, keys) in enumerate(raw.items()):
        grid = torch.full((3, 4, 12), float("nan"))
        grid[batch["modality_mask"][..., index]] = model.redifu.embed(name, *(batch[key] for key in keys))
        ready[f"{name}_features"] = grid
    here = batch["utterance_mask"]
    torch.testing.assert_close(model(**ready).logits[here], model(**batch).logits[here], rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_a_dialogue_alone_equals_the_dialogue_in_a_batch(
    model: ReDiFuForEmotionRecognition, seed: int
) -> None:
    batch = raw_batch(2, 5, 3, seed=seed)
    before, here = batch["modality_mask"][:1].sum((0, 1)), batch["modality_mask"][1:2].sum((0, 1))
    lone = {name: batch[name][1:2] for name in ("utterance_mask", "modality_mask", "speaker_ids")}
    rows = {"input_ids": 0, "audio_values": 1, "audio_values_mask": 1, "pixel_values": 2}
    for name, stream in rows.items():
        lone[name] = batch[name][before[stream] : before[stream] + here[stream]]
    torch.testing.assert_close(model(**lone).logits, model(**batch).logits[1:2], rtol=0, atol=1e-5)


def test_only_utterances_that_have_the_stream_reach_a_backbone(model: ReDiFuForEmotionRecognition) -> None:
    batch = raw_batch(5, 3)
    seen = {"audio": 0, "visual": 0}

    def count(name: str) -> Any:
        def hook(_: Any, args: Any, kwargs: dict[str, Tensor]) -> None:
            seen[name] += len(next(iter(kwargs.values())))

        backbone = model.redifu.get_submodule(f"{name}_backbone")
        return backbone.register_forward_pre_hook(hook, with_kwargs=True)

    hooks = [count("audio"), count("visual")]
    model(**batch)
    for hook in hooks:
        hook.remove()
    counts = batch["modality_mask"].sum((0, 1))
    assert seen == {"audio": counts[1], "visual": PICTURES * counts[2]}


def test_a_stream_that_no_utterance_has_may_come_empty(model: ReDiFuForEmotionRecognition) -> None:
    batch = raw_batch(3, whole=True)
    batch["modality_mask"] = torch.tensor([True, False, False]).expand(1, 3, 3)
    empty = {**batch, "audio_values": torch.zeros(0, 50), "pixel_values": torch.zeros(0, 2, 3, 8, 8)}
    empty["audio_values_mask"] = torch.zeros(0, 50)
    text = {name: batch[name] for name in ("input_ids", "utterance_mask", "speaker_ids")}
    assert torch.equal(model(**empty).logits, model(**text).logits)


@pytest.mark.parametrize("audio", AUDIO_CONFIGS)
def test_the_loss_reaches_every_parameter(audio: str) -> None:
    model, batch = raw_model(audio=audio).train(), raw_batch(4, 2, whole=True)
    if audio == "whisper":  # with a single position, queries and keys change nothing
        batch["audio_values"] = torch.randn(len(batch["audio_values"]), 1000)
        batch["audio_values_mask"] = torch.ones_like(batch["audio_values"]).bool()
    found = gradients(model, model(**batch, labels=random_labels(batch)).loss)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert all(value.isfinite().all() for value in found.values())
    for name in ("audio", "visual"):
        reached = [value.any() for path, value in found.items() if f"{name}_backbone" in path]
        assert sum(reached) >= len(reached) - 2


def test_frozen_backbones_get_no_gradient(model: ReDiFuForEmotionRecognition) -> None:
    batch = raw_batch(4, 2, whole=True)
    frozen = [model.redifu.get_submodule(f"{name}_backbone") for name in ("audio", "visual")]
    for backbone in frozen:
        backbone.requires_grad_(False)
    model.train()(**batch, labels=random_labels(batch)).loss.backward()
    assert all(value.grad is None for backbone in frozen for value in backbone.parameters())
    assert all(model.redifu.projections[name].weight.grad.any() for name in ("audio", "visual"))
    for backbone in frozen:
        backbone.requires_grad_(True)
    model.zero_grad()
    model.eval()


@pytest.mark.parametrize("audio", ["wav2vec2_layer", "whisper"])
def test_checkpointed_activations_give_the_same_gradients(audio: str) -> None:
    model, batch = raw_model(audio=audio).train(), raw_batch(3, whole=True)
    expected = gradients(model, model(**batch, labels=random_labels(batch)).loss)
    model.activation_checkpointing_enable()
    found = gradients(model, model(**batch, labels=random_labels(batch)).loss)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("audio", "visual"), [*zip(AUDIO_CONFIGS, cycle(VISION_CONFIGS), strict=False)])
def test_backbones_are_saved_and_loaded_with_the_fusion(audio: str, visual: str, tmp_path: Path) -> None:
    model, batch = raw_model(audio=audio, visual=visual), raw_batch(3, 1)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    again = {**dict(loaded.named_parameters()), **dict(loaded.named_buffers())}
    stored = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert again.keys() == stored.keys()
    assert all(torch.equal(again[name], value) for name, value in stored.items())
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits, rtol=0, atol=1e-5)


def test_pretrained_backbones_keep_their_weights(tmp_path: Path) -> None:
    configs = {"audio": AUDIO_CONFIGS["wav2vec2_layer"], "visual": VISION_CONFIGS["vit"]}
    for name, config in configs.items():
        AutoModel.from_config(config).save_pretrained(tmp_path / name)
    places = {name: str(tmp_path / name) for name in configs}
    fields: dict[str, Any] = {"text_size": None, "hidden_size": 16, "num_attention_heads": 4}
    model = ReDiFuForEmotionRecognition.from_backbones(**places, **fields)
    for name in configs:
        expected = AutoModel.from_pretrained(tmp_path / name).state_dict()
        for path, value in model.redifu.get_submodule(f"{name}_backbone").state_dict().items():
            assert torch.equal(value, expected[path]), path
    with pytest.raises(ValueError, match="audio_config does not match the weights"):
        ReDiFuForEmotionRecognition.from_backbones(**places, audio_config={"intermediate_size": 20}, **fields)
    with pytest.raises(ValueError, match="text_config requires a pretrained text backbone"):
        ReDiFuForEmotionRecognition.from_backbones(**places, text_config={"hidden_size": 4}, **fields)
    with pytest.raises(ValueError, match="vision_config: vit has no field patch_sice"):
        ReDiFuForEmotionRecognition.from_backbones(**places, vision_config={"patch_sice": 2}, **fields)


def test_a_backbone_whose_file_lacks_weights_is_refused(tmp_path: Path) -> None:
    backbone = AutoModel.from_config(VISION_CONFIGS["vit"])
    kept = {name: value for name, value in backbone.state_dict().items() if "layernorm" not in name}
    backbone.save_pretrained(tmp_path, state_dict=kept)
    with pytest.raises(ValueError, match=r"has no weights for .*layernorm"):
        ReDiFuForEmotionRecognition.from_backbones(visual=str(tmp_path), text_size=None)


def bad_configs() -> list[tuple[str, PreTrainedConfig, str]]:
    adapter = {**AUDIO_CONFIGS["wav2vec2_layer"].to_dict(), "add_adapter": True}
    return [
        ("text_config", AUDIO_CONFIGS["whisper"], "text_config must configure an encoder or.*got whisper"),
        ("audio_config", VISION_CONFIGS["vit"], "audio_config must configure a waveform encoder.*got vit"),
        ("audio_config", type(AUDIO_CONFIGS["wav2vec2_layer"])(**adapter), "must not use an adapter"),
        ("vision_config", AUDIO_CONFIGS["wavlm_layer"], "vision_config must configure an image .*got wavlm"),
    ]


@pytest.mark.parametrize("case", range(len(bad_configs())))
def test_backbones_that_could_not_run_are_refused(case: int) -> None:
    field, config, message = bad_configs()[case]
    with pytest.raises(ValueError, match=message):
        tiny_config(**{field: config.to_dict()})


def wrong_inputs() -> list[tuple[dict[str, Any], str]]:
    batch = raw_batch(2, whole=True)
    pixels, values, mask = batch["pixel_values"], batch["audio_values"], batch["audio_values_mask"]
    gap = torch.ones_like(mask)
    gap[0, 3] = False
    return [
        ({"pixel_values": pixels[:, 0]}, "pixel_values must be .*channels, height, width"),
        ({"pixel_values": pixels[..., :4]}, r"\(3, 8, 8\).*got \(2, 2, 3, 8, 4\)"),
        ({"pixel_values": pixels[:, :0]}, "at least one picture"),
        ({"pixel_values": pixels[:1]}, "one row for each of the 2 utterances with visual, got 1"),
        ({"audio_values": values[0]}, r"audio_values must be \(audios, samples\)"),
        ({"audio_values_mask": mask[:, 1:]}, "audio_values_mask must have the shape of audio_values"),
        ({"audio_values_mask": mask * 2}, "audio_values_mask must contain only 0 and 1"),
        ({"audio_values_mask": gap}, "audio_values_mask.*gap"),
        ({"audio_values": None}, "audio_values_mask must have the shape of audio_values"),
        ({"audio_features": torch.zeros(1, 2, 12)}, "pass audio_values or audio_features, not both"),
    ]


@pytest.mark.parametrize("case", range(len(wrong_inputs())))
def test_wrong_inputs_are_refused(model: ReDiFuForEmotionRecognition, case: int) -> None:
    changes, message = wrong_inputs()[case]
    with pytest.raises(ValueError, match=message):
        model(**{**raw_batch(2, whole=True), **changes})


def test_a_model_without_the_backbone_names_what_it_takes() -> None:
    model = ReDiFuForEmotionRecognition(tiny_config())
    for name in ("audio_values", "pixel_values"):
        batch = {name: raw_batch(2, whole=True)[name], "utterance_mask": torch.ones(1, 2)}
        with pytest.raises(ValueError, match=f"got {name}, but this model has no .* backbone"):
            model(**batch)
