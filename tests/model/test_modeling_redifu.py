"""The whole model: what it returns, what it refuses, and what training needs of it."""

import re
from dataclasses import fields
from inspect import signature
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.tiny_models import (
    IMPLEMENTATIONS,
    LABELS,
    SIZES,
    VARIANTS,
    assert_gradients_close,
    gradients,
    random_labels,
    random_modality_mask,
    text_model,
    tiny_batch,
    tiny_config,
    tiny_model,
)
from redifu.model import MODALITIES, ReDiFuForEmotionRecognition, ReDiFuModel
from redifu.model.model_inputs import ReDiFuInputs
from released_reference import ReleasedReference


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation made."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.largest = max(self.largest, leaf.numel())
        return result


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_tensor_of_utterances_times_utterances_times_hidden(variant: str, implementation: str) -> None:
    length, hidden = 160, 64
    fields = {"hidden_size": hidden, "num_attention_heads": 2, "fusion_num_attention_heads": 2}
    model = tiny_model(implementation=implementation, **fields, **VARIANTS[variant]).train()
    batch = tiny_batch(length)
    with LargestTensor() as record:
        model(**batch, labels=random_labels(batch)).loss.backward()
    assert length * hidden <= record.largest < length * length * hidden / 2


def test_the_reference_has_such_a_tensor() -> None:
    sizes = {f"{name}_size": size for name, size in SIZES.items()}
    reference = ReleasedReference(
        "meld", hidden_size=8, num_heads=2, window=5, num_labels=3, num_speakers=3, **sizes
    )
    batch = tiny_batch(40)
    with LargestTensor() as record:
        reference(*(batch[f"{name}_features"] for name in MODALITIES), batch["speaker_ids"])
    assert record.largest >= 40 * 40 * 8


@pytest.mark.parametrize("recipe", ["meld", "iemocap"])
def test_a_dialogue_of_one_utterance(recipe: str) -> None:
    output = tiny_model(released=recipe)(**tiny_batch(1), labels=torch.tensor([[2]]))
    assert output.logits.shape == (1, 1, len(LABELS))
    assert output.logits.isfinite().all() and output.loss.isfinite()


@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_of_what_is_returned(variant: str) -> None:
    model = tiny_model(**VARIANTS[variant])
    batch = tiny_batch(5, 2)
    output = model(**batch)
    assert output.logits.shape == (2, 5, 3)
    assert output.loss is output.hidden_states is output.attentions is None
    for name in MODALITIES:
        logits = output[f"{name}_logits"] if variant != "baseline" else getattr(output, f"{name}_logits")
        assert (logits is None) if variant == "baseline" else (logits.shape == (2, 5, 3))
    for hidden in model(**batch, output_hidden_states=True).hidden_states.values():
        assert hidden.shape == (2, 5, 16)
    base = model.redifu(**batch)
    assert base.last_hidden_state.shape == (2, 5, 3 * 16)
    assert output.present.shape == (2, 5, 3) and torch.equal(output.present, base.present)


def test_the_streams_that_were_read_are_told() -> None:
    batch = tiny_batch(6, 4)
    batch["modality_mask"] = random_modality_mask(batch["utterance_mask"])
    given = batch["modality_mask"] & batch["utterance_mask"][..., None]
    assert torch.equal(tiny_model()(**batch).present, given)
    # A diffusion fills in the text of an utterance that has anything.
    filled = torch.cat([given.any(-1, keepdim=True), given[..., 1:]], dim=-1)
    assert torch.equal(tiny_model(fusion="text_diffusion")(**batch).present, filled)
    output = tiny_model(consistency_size=3)(**batch)
    unlike = given[..., 1:] & (output.consistency < 0.5)
    dropped = given & ~output.present
    assert dropped.any() and not (dropped[..., 1:] & ~unlike).any() and not dropped[..., 0].any()
    assert torch.equal(output.present.any(-1), given.any(-1))


def test_logits_are_divided_by_the_temperature_and_nothing_else_is() -> None:
    model, batch = tiny_model(), tiny_batch(5, 3)
    labels = random_labels(batch)
    before = model(**batch, labels=labels)
    model.config.temperature = 2.0
    after = model(**batch, labels=labels)
    torch.testing.assert_close(after.logits, before.logits / 2)
    for name in ("loss", *(f"{stream}_logits" for stream in MODALITIES)):
        assert torch.equal(after[name], before[name]), name


def test_signatures_show_every_input() -> None:
    base, headed = (list(signature(each.forward).parameters) for each in (ReDiFuModel, tiny_model()))
    inputs = [field.name for field in fields(ReDiFuInputs)]
    assert base == ["self", *inputs]
    assert headed == [*inputs[:3], "labels", "class_weights", *inputs[3:]]


def test_features_are_taken_by_place_or_by_name() -> None:
    model, batch = tiny_model(), tiny_batch(4, 2)
    expected = model(**batch).logits
    features = [batch.pop(f"{name}_features") for name in MODALITIES]
    assert torch.equal(model(*features, **batch).logits, expected)
    with pytest.raises(TypeError, match="text_features"):
        model(*features, text_features=features[0])


def test_fused_logits_are_the_weighted_sum_over_the_streams_that_are_there() -> None:
    model = tiny_model(modality_weights=[2.0, 0.5, 0.25])
    batch = tiny_batch(4, 4)
    batch["modality_mask"] = random_modality_mask(batch["utterance_mask"])
    output = model(**batch)
    by_stream = torch.stack([output[f"{name}_logits"] for name in MODALITIES], dim=-1)
    expected = (by_stream * torch.tensor([2.0, 0.5, 0.25]) * batch["modality_mask"][..., None, :]).sum(-1)
    torch.testing.assert_close(output.logits, expected)


@pytest.mark.parametrize("labels", [False, True])
def test_a_tuple_holds_the_same(labels: bool) -> None:
    model = tiny_model()
    batch = tiny_batch(3)
    given = {"labels": random_labels(batch)} if labels else {}
    output = model(**batch, **given, output_hidden_states=True)
    as_tuple = model(**batch, **given, output_hidden_states=True, return_dict=False)
    assert type(as_tuple) is tuple
    assert len(as_tuple) == len(output.to_tuple())
    assert torch.equal(as_tuple[0], output.loss if labels else output.logits)
    base = model.redifu(**batch, return_dict=False)
    assert type(base) is tuple and torch.equal(base[0], model.redifu(**batch).last_hidden_state)


def test_the_configuration_can_ask_for_tuples_and_hidden_states() -> None:
    model = tiny_model(return_dict=False, output_hidden_states=True)
    logits, *_, hidden_states = model(**tiny_batch(3))
    assert logits.shape == (1, 3, 3)
    assert "text_fused" in hidden_states


@pytest.mark.parametrize("variant", VARIANTS)
def test_attentions_are_distributions_over_present_utterances(variant: str) -> None:
    model = tiny_model(implementation="eager", **VARIANTS[variant])
    batch = tiny_batch(6, 4)
    batch["modality_mask"] = random_modality_mask(batch["utterance_mask"])
    present = dict(
        zip(MODALITIES, (batch["modality_mask"] & batch["utterance_mask"][..., None]).unbind(-1), strict=True)
    )
    attentions = model(**batch, output_attentions=True).attentions
    assert attentions
    for name, weights in attentions.items():
        receiver, _, sender = re.fullmatch(r"(\w+?)(_\w+)?(?:\.(\w+))?", name).groups()
        # The nodes of the cross-modal subgraph are the utterances of one stream after those of the other.
        nodes = {**present, "cross": torch.cat(list(present.values()), dim=1)}
        keys, queries = nodes[sender or receiver], nodes[receiver]
        visible = keys[:, None, :].expand(-1, queries.shape[1], -1)
        if model.config.causal:
            visible = visible.tril()
        assert weights.shape[0] == 2 and weights.shape[2:] == visible.shape[1:], name
        assert not weights.masked_fill(visible[:, None] | ~queries[:, None, :, None], 0.0).any(), name
        totals = weights.sum(-1).masked_fill(~queries[:, None], 0.0)
        expected = (visible.any(-1) & queries)[:, None].expand_as(totals).float()
        torch.testing.assert_close(totals, expected)


def test_nobody_is_attended_in_a_stream_that_a_dialogue_has_not() -> None:
    model = tiny_model(implementation="eager")
    batch = tiny_batch(4, 4)
    batch["modality_mask"] = torch.ones(2, 4, 3, dtype=torch.bool)
    batch["modality_mask"][0, :, 1] = False
    attentions = model(**batch, output_attentions=True).attentions
    for name in ("text.audio", "visual.audio", "audio_encoded"):
        assert not attentions[name][0].any(), name
        torch.testing.assert_close(attentions[name][1].sum(-1), torch.ones(4, 4))


@pytest.mark.parametrize("variant", VARIANTS)
def test_attentions_of_sdpa_are_those_of_eager(variant: str) -> None:
    batch = tiny_batch(6, 4)
    batch["modality_mask"] = random_modality_mask(batch["utterance_mask"])
    eager, sdpa = (tiny_model(implementation=name, **VARIANTS[variant]) for name in IMPLEMENTATIONS)
    expected, actual = (model(**batch, output_attentions=True) for model in (eager, sdpa))
    assert actual.attentions.keys() == expected.attentions.keys()
    for name, weights in expected.attentions.items():
        torch.testing.assert_close(actual.attentions[name], weights, rtol=0, atol=1e-6)
    torch.testing.assert_close(actual.logits, expected.logits, rtol=0, atol=1e-5)
    assert sdpa.config._attn_implementation == "sdpa"


def test_attentions_leave_the_backbones_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model, computed = text_model("bert"), []
    attend = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *given, **options: computed.append(given[0].shape) or attend(*given, **options),
    )
    batch = {name: value for name, value in tiny_batch(3).items() if name != "text_features"}
    model(**batch, input_ids=torch.randint(4, 40, (3, 5)), output_attentions=True)
    # The two layers of the backbone, on texts of five tokens; none of the model's own attentions.
    assert [shape[2] for shape in computed] == [5, 5]


def test_what_was_recorded_stays_as_it_was_in_the_backward_pass() -> None:
    model, batch = tiny_model(dropout=0.3, relation_dropout=0.2).train(), tiny_batch(5, 3)
    model.activation_checkpointing_enable()
    output = model(**batch, labels=random_labels(batch), output_hidden_states=True, output_attentions=True)
    kept = {**output.hidden_states, **output.attentions}
    output.loss.backward()
    for name, value in {**output.hidden_states, **output.attentions}.items():
        assert value is kept[name], name


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "streams", [("text",), ("audio",), ("visual",), ("text", "audio"), ("audio", "visual"), MODALITIES]
)
def test_the_loss_reaches_every_parameter(variant: str, streams: tuple[str, ...]) -> None:
    absent = [name for name in MODALITIES if name not in streams]
    fields = {**VARIANTS[variant], **{f"{name}_size": None for name in absent}}
    if len(streams) == 1:
        fields["cross_modal_relations"] = False
    if "text" in absent and fields.get("fusion") == "text_diffusion":
        fields["fusion"] = "mutual_attention"
    if streams == ("text",):
        fields.pop("consistency_size", None)
    model = tiny_model(**fields).train()
    batch = {name: value for name, value in tiny_batch(5, 3).items() if name.split("_")[0] not in absent}
    reached = gradients(model, model(**batch, labels=random_labels(batch)).loss)
    assert set(reached) == {name for name, _ in model.named_parameters()}
    assert all(value.isfinite().all() for value in reached.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_activation_checkpointing_gives_the_same_gradients(variant: str) -> None:
    fields = {**VARIANTS[variant], "dropout": 0.3, "relation_dropout": 0.2}
    batch = tiny_batch(5, 3)
    results = []
    for checkpointing in (False, True):
        model = tiny_model(**fields).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        torch.manual_seed(3)
        loss = model(**batch, labels=random_labels(batch)).loss
        loss.backward()
        results.append((loss, {name: value.grad for name, value in model.named_parameters()}))
    (loss, plain), (checkpointed_loss, checkpointed) = results
    assert model.is_activation_checkpointing
    assert torch.equal(loss, checkpointed_loss)
    assert_gradients_close(checkpointed, plain, tolerance=1e-6)


def test_activation_checkpointing_keeps_less_for_the_backward_pass() -> None:
    kept = []
    for checkpointing in (False, True):
        model = tiny_model().train()
        if checkpointing:
            model.activation_checkpointing_enable()
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=saved: s.append(t.numel()) or t, lambda t: t
        ):
            model(**tiny_batch(30))
        kept.append(sum(saved))
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bfloat16_autocast_is_near(variant: str, implementation: str) -> None:
    model = tiny_model(implementation=implementation, **VARIANTS[variant]).train()
    batch = tiny_batch(5, 3)
    batch["modality_mask"] = random_modality_mask(batch["utterance_mask"])
    labels = random_labels(batch)
    exact = model(**batch, labels=labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near = model(**batch, labels=labels)
    assert near.loss.dtype == torch.float32
    torch.testing.assert_close(
        near.logits.float(), exact.logits, rtol=0.1, atol=0.1 * exact.logits.abs().max().item()
    )
    near.loss.backward()
    assert all(
        value.grad.isfinite().all() and value.grad.dtype == torch.float32 for value in model.parameters()
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("released", ["meld", "iemocap"])
def test_a_model_of_another_precision_takes_float32_features(dtype: torch.dtype, released: str) -> None:
    model = tiny_model(released=released)
    batch = tiny_batch(4, 2)
    expected = model(**batch).logits
    logits = model.to(dtype)(**batch, labels=random_labels(batch)).logits
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.1 * expected.abs().max().item())


def test_float64_features_are_taken() -> None:
    model = tiny_model()
    batch = tiny_batch(4, 2)
    double = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    torch.testing.assert_close(model(**double).logits, model(**batch).logits)


def test_dropout_acts_in_training_only() -> None:
    model = tiny_model(dropout=0.5, relation_dropout=0.2)
    batch = tiny_batch(4)
    assert torch.equal(model(**batch).logits, model(**batch).logits)
    model.train()
    assert not torch.equal(model(**batch).logits, model(**batch).logits)


def test_utterances_labelled_minus_100_do_not_count() -> None:
    model = tiny_model()
    batch = tiny_batch(5, 3)
    labels = random_labels(batch)
    labels[0, [1, 3]] = -100
    output = model(**batch, labels=labels)
    counted = labels != -100
    parts = [
        nn.functional.cross_entropy(output[name][counted], labels[counted])
        for name in ("logits", "text_logits", "audio_logits", "visual_logits")
    ]
    torch.testing.assert_close(output.loss, parts[0] + sum(part**2 for part in parts[1:]) / 10)
    padded = labels.masked_fill(~batch["utterance_mask"], 1)
    assert torch.equal(model(**batch, labels=padded).loss, output.loss)


def test_no_label_at_all_is_a_loss_of_zero() -> None:
    model = tiny_model()
    batch = tiny_batch(3)
    loss = model(**batch, labels=torch.full((1, 3), -100)).loss
    assert loss == 0
    assert not any(value.any() for value in gradients(model, loss).values())


def test_class_weights_weigh_the_classes() -> None:
    model = tiny_model(fusion="concat")
    batch = tiny_batch(5, 3)
    labels = random_labels(batch)
    weights = torch.tensor([0.2, 3.0, 1.0])
    output = model(**batch, labels=labels, class_weights=weights)
    expected = nn.functional.cross_entropy(output.logits.flatten(0, 1), labels.flatten(), weight=weights)
    torch.testing.assert_close(output.loss, expected)


def test_a_few_steps_learn_the_labels() -> None:
    model = tiny_model().train()
    batch = tiny_batch(5, 3)
    labels = random_labels(batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
    predicted = model.eval()(**batch).logits.argmax(-1)
    assert torch.equal(predicted[labels != -100], labels[labels != -100])


def bad(**changes: Any) -> dict[str, Any]:
    """A batch of two dialogues of three utterances with some inputs replaced."""
    return {**tiny_batch(3, 3), **changes}


MISTAKES = {
    "size": (bad(audio_features=torch.zeros(2, 3, 7)), r"audio_features.*5.*\(2, 3, 7\)"),
    "features_2d": (bad(text_features=torch.zeros(3, 6)), r"text_features.*\(3, 6\)"),
    "all_2d": ({"text_features": torch.zeros(3, 6)}, r"text_features.*6.*\(3, 6\)"),
    "lengths": (bad(visual_features=torch.zeros(2, 4, 4)), r"\(2, 3\).*\(2, 4\)"),
    "batches": (bad(speaker_ids=torch.zeros(1, 3, dtype=torch.long)), r"\(2, 3\).*\(1, 3\)"),
    "no_utterances": ({"text_features": torch.zeros(1, 0, 6)}, r"at least one.*\(1, 0\)"),
    "no_dialogues": ({"text_features": torch.zeros(0, 3, 6)}, r"at least one.*\(0, 3\)"),
    "nothing": ({"utterance_mask": torch.ones(2, 3)}, "text, audio, visual"),
    "utterance_mask_values": (bad(utterance_mask=torch.full((2, 3), 2)), "utterance_mask.*0 and 1.*2"),
    "utterance_mask_half": (bad(utterance_mask=torch.full((2, 3), 0.5)), "utterance_mask.*0 and 1.*0.5"),
    "utterance_mask_nan": (bad(utterance_mask=torch.full((2, 3), torch.nan)), "utterance_mask.*0 and 1.*nan"),
    "utterance_mask_negative": (bad(utterance_mask=torch.full((2, 3), -1)), "utterance_mask.*0 and 1.*-1"),
    "modality_mask_values": (bad(modality_mask=torch.full((2, 3, 3), 3)), "modality_mask.*0 and 1.*3"),
    "modality_mask_streams": (bad(modality_mask=torch.ones(2, 3, 2)), r"modality_mask.*3.*\(2, 3, 2\)"),
    "modality_mask_2d": (bad(modality_mask=torch.ones(2, 3)), r"modality_mask.*3.*\(2, 3\)"),
    "utterance_mask_3d": (bad(utterance_mask=torch.ones(2, 3, 1)), r"utterance_mask.*\(2, 3, 1\)"),
    "utterance_mask_1d": (bad(utterance_mask=torch.ones(3)), r"\(3,\)"),
    "speakers_3d": (bad(speaker_ids=torch.zeros(2, 3, 1, dtype=torch.long)), r"speaker_ids.*\(2, 3, 1\)"),
    "speakers_negative": (bad(speaker_ids=torch.full((2, 3), -1)), "speaker_ids.*-1"),
    "speakers_float": (bad(speaker_ids=torch.zeros(2, 3)), "speaker_ids.*float32"),
    "labels_too_high": (bad(labels=torch.full((2, 3), 3)), "labels.*-100.*2.*3"),
    "labels_negative": (bad(labels=torch.full((2, 3), -1)), "labels.*-100.*2.*-1"),
    "labels_shape": (bad(labels=torch.zeros(2, 4, dtype=torch.long)), r"labels.*\(2, 3\).*\(2, 4\)"),
    "labels_float": (bad(labels=torch.zeros(2, 3)), "labels.*float32"),
    "class_weights": (
        bad(labels=torch.zeros(2, 3, dtype=torch.long), class_weights=torch.ones(5)),
        r"class_weights.*3.*5",
    ),
    "tokens_without_backbone": (
        bad(text_features=None, input_ids=torch.ones(6, 2).long()),
        "no text backbone",
    ),
    "attention_without_tokens": (bad(attention_mask=torch.ones(6, 2)), "attention_mask.*input_ids"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_expected_and_got(mistake: str) -> None:
    inputs, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        tiny_model()(**inputs)


def test_a_stream_that_the_model_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="no audio stream"):
        tiny_model(audio_size=None)(**tiny_batch(3))


def test_a_misspelt_input_is_refused() -> None:
    with pytest.raises(TypeError, match="text_feature"):
        tiny_model()(text_feature=torch.zeros(1, 2, 6))


def test_a_base_model_stands_alone() -> None:
    torch.manual_seed(0)
    model = ReDiFuModel(tiny_config()).eval()
    output = model(**tiny_batch(3, 1))
    assert output.present.shape == (2, 3, 3)
    assert not output.last_hidden_state[1, 1:].any()


def test_odd_sizes_build_and_run() -> None:
    model = tiny_model(hidden_size=9, num_attention_heads=3, num_speakers=1, relation_window=0)
    assert model(**tiny_batch(4)).logits.isfinite().all()


def test_parametrised_and_functional_calls_give_the_same() -> None:
    model: ReDiFuForEmotionRecognition = tiny_model()
    batch = tiny_batch(3)
    before = model(**batch).logits
    nn.utils.parametrizations.weight_norm(model.redifu.projections["text"])
    torch.testing.assert_close(model(**batch).logits, before)
    called = torch.func.functional_call(model, dict(model.named_parameters()), kwargs=batch)
    torch.testing.assert_close(called.logits, before)
