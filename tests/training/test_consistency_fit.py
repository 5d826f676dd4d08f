"""Learning to tell speakers apart, and dropping what is not theirs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from answers import conversation_of
from model.tiny_models import LABELS, tiny_config
from redifu.conversation import Conversation
from redifu.evaluation.corruptions import Condition, corrupt
from redifu.inference.loading import load_pretrained
from redifu.model import ReDiFuFeatureExtractor, ReDiFuForEmotionRecognition, ReDiFuProcessor
from redifu.training import consistency_fit
from redifu.training.consistency_fit import fit_consistency
from redifu.training.recipe import Recipe
from redifu.training.trainer import train
from training.toy import toy_recipe, toy_values, write_toy_data

SIZES = {"text": 4, "audio": 20, "visual": 20}
KEYS = {name: f"{name}_features" for name in SIZES}


def dialogues(number: int, *, seed: int, turns: int = 8) -> list[Conversation]:
    """Two speakers each, whose sounds and faces stray a little from a centre of their own."""
    random = np.random.default_rng(seed)
    told_by = np.random.default_rng(0)
    directions = {name: told_by.normal(size=(3, size)) for name, size in SIZES.items()}
    made = []
    for index in range(number):
        centres = {name: 2 * random.normal(size=(2, 3)) @ directions[name] for name in SIZES}
        utterances = []
        for turn in range(turns):
            features = {
                KEYS[name]: (centres[name][turn % 2] + random.normal(size=size)).tolist()
                for name, size in SIZES.items()
            }
            utterances.append({"speaker": "AB"[turn % 2], "label": LABELS[0], **features})
        made.append(conversation_of({"id": str(index), "utterances": utterances}))
    return made


def fitted(training: list[Conversation], *, seed: int = 1, **fields: Any) -> tuple[Any, ReDiFuProcessor]:
    torch.manual_seed(0)
    sizes = {f"{name}_size": size for name, size in SIZES.items()}
    model = ReDiFuForEmotionRecognition(tiny_config(consistency_size=4, **sizes, **fields)).eval()
    processor = ReDiFuProcessor(
        ReDiFuFeatureExtractor(**sizes).fit(each.to_inputs() for each in training), None, labels=LABELS
    )
    before = torch.random.get_rng_state()
    fit_consistency(model, processor, training, seed=seed)
    assert torch.equal(torch.random.get_rng_state(), before)
    return model, processor


def shares_dropped(model: Any, processor: ReDiFuProcessor, conversations: list[Conversation]) -> list[float]:
    """The shares of all sounds, and of all pictures, that are unlike their speakers' others."""
    with torch.no_grad():
        return (
            (model(**processor([each.to_inputs() for each in conversations])).consistency < 0.5)
            .float()
            .mean((0, 1))
            .tolist()
        )


@pytest.mark.parametrize("causal", [False, True])
def test_streams_of_others_are_dropped_and_the_speakers_own_are_not(
    causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consistency_fit, "DROPOUT", 0.3)  # of twenty features, not hundreds
    model, processor = fitted(dialogues(100, seed=0), causal=causal)
    unseen = dialogues(40, seed=1)
    permuted = corrupt(unseen, Condition(name="permuted", severity="1"), draw=0, grid_seed=0, keys=KEYS)
    assert max(shares_dropped(model, processor, unseen)) < 0.03
    assert min(shares_dropped(model, processor, permuted)) > (0.5 if causal else 0.85)
    # One stream is another's: the other one stays.
    random = np.random.default_rng(0)
    rows = [one.audio_features for each in unseen for one in each.utterances]
    random.shuffle(rows)
    source = iter(rows)
    wrong = [
        replace(each, utterances=[one.with_fields(audio_features=next(source)) for one in each.utterances])
        for each in unseen
    ]
    audio, visual = shares_dropped(model, processor, wrong)
    assert audio > (0.4 if causal else 0.7) and visual < 0.03


def test_the_fit_follows_from_its_seed_and_leaves_all_else_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consistency_fit, "STEPS", 20)
    training = dialogues(9, seed=0)
    torch.manual_seed(0)
    sizes = {f"{name}_size": size for name, size in SIZES.items()}
    untouched = ReDiFuForEmotionRecognition(tiny_config(consistency_size=4, **sizes)).state_dict()
    first, again, other = (fitted(training, seed=seed)[0].state_dict() for seed in (1, 1, 2))
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
        if "consistency" in name:
            assert not torch.equal(value, other[name]), name
            assert not torch.equal(value, untouched[name]), name
        else:
            assert torch.equal(value, untouched[name]), name


@pytest.mark.parametrize(
    "left", [set(), {"audio"}, {"audio", "visual"}], ids=["no_stream", "audio", "audio_and_visual"]
)
def test_what_cannot_be_compared_is_kept(left: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Speakers of one utterance each, and data without a stream that the model has."""
    monkeypatch.setattr(consistency_fit, "STEPS", 200)
    gone = {KEYS[name]: None for name in {"audio", "visual"} - left}
    training = [
        replace(each, utterances=[one.with_fields(**gone) for one in each.utterances])
        for each in dialogues(12, seed=0, turns=2)
    ]
    model, processor = fitted(training)
    assert shares_dropped(model, processor, training) == [0.0, 0.0]


def test_training_with_and_without_it_trains_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consistency_fit, "STEPS", 20)
    write_toy_data(tmp_path)
    folders = [
        train(
            toy_recipe(tmp_path, model_consistency_size=size, training_output=str(tmp_path / f"run-{size}"))
        )
        for size in (None, 4)
    ]
    plain, compared = (load_pretrained(folder)[0] for folder in folders)
    weights = compared.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in plain.state_dict().items())
    new = {name for name in weights if name not in plain.state_dict()}
    assert new and all("consistency" in name and weights[name].any() for name in new)


@pytest.mark.parametrize("size", [None, 3])
def test_a_checkpoint_goes_on_with_another_comparison_or_none(
    size: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consistency_fit, "STEPS", 5)
    write_toy_data(tmp_path)
    first = train(toy_recipe(tmp_path, model_consistency_size=4, training_epochs=1))
    values = toy_values(tmp_path, training_epochs=1, training_output=str(tmp_path / "second"))
    values["model"] = {"checkpoint": str(first), "consistency_size": size}
    model, _ = load_pretrained(train(Recipe.from_dict(values)))
    assert model.config.consistency_size == size
    compared = {name: value.shape[0] for name, value in model.state_dict().items() if "consistency" in name}
    assert compared.get("redifu.consistency.audio") == size
