"""transformers' own Trainer: the processor is its collator, and what it saves is a checkpoint."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import EvalPrediction, Trainer, TrainingArguments

from model.tiny_models import LABELS, text_model, tiny_model
from model.tiny_processors import conversation, feature_processor, text_processor, utterance
from redifu.inference.loading import load_pretrained

WORDS = {"calm": "hello", "glad": "yes", "cross": "no"}


def dialogues(*, features: bool) -> list[dict[str, Any]]:
    """Dialogues of different lengths, some utterances without a label, all easily told by their content."""
    found = []
    for number in range(10):
        utterances = []
        for turn in range(1 + number % 4):
            label = LABELS[(number + turn) % 3]
            content: dict[str, Any] = {"text": WORDS[label]}
            if features:
                content = {"text_features": np.eye(6)[LABELS.index(label)].tolist()}
            utterances.append(utterance("Ana", **content, label=None if turn == 3 else label))
        found.append(conversation(*utterances, name=f"d{number}"))
    return found


def accuracy(evaluated: EvalPrediction) -> dict[str, float]:
    known = evaluated.label_ids != -100
    right = evaluated.predictions.argmax(-1)[known] == evaluated.label_ids[known]
    return {"accuracy": right.mean(), "utterances": known.sum()}


def build(folder: Path, *, features: bool, **fields: Any) -> Trainer:
    model = tiny_model(**fields) if features else text_model("bert", visual_size=None, **fields)
    processor = feature_processor() if features else text_processor()
    given = dialogues(features=features)
    arguments = TrainingArguments(
        str(folder),
        num_train_epochs=8,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=3,
        learning_rate=0.01,
        save_strategy="epoch",
        remove_unused_columns=False,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    return Trainer(
        model,
        arguments,
        train_dataset=datasets.Dataset.from_list(given) if features else given,
        eval_dataset=given,
        data_collator=processor,
        # Saved with each checkpoint; transformers takes no processor there whose tokenizer is None.
        processing_class=None if features else processor,
        compute_metrics=accuracy,
    )


@pytest.mark.parametrize("features", [False, True], ids=["texts", "features"])
def test_it_trains_evaluates_and_saves(tmp_path: Path, features: bool) -> None:
    trainer = build(tmp_path / "run", features=features)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"] / 2
    labelled = [each for one in dialogues(features=features) for each in one["utterances"] if each["label"]]
    assert (after["eval_accuracy"], after["eval_utterances"]) == (1, len(labelled))
    # Logits alone, padded over all batches: (dialogues, utterances, labels).
    predictions = trainer.predict(dialogues(features=features)).predictions
    assert predictions.shape == (10, 4, 3)
    trainer.save_model(str(tmp_path / "saved"))
    if features:
        feature_processor().save_pretrained(tmp_path / "saved")
    model, processor = load_pretrained(tmp_path / "saved")
    with torch.no_grad():
        logits = model(**processor(dialogues(features=features)[2])).logits
    np.testing.assert_allclose(logits[0].numpy(), predictions[2, :3], rtol=0, atol=1e-5)


def test_it_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    whole = build(tmp_path / "run", features=True)
    whole.train()
    resumed = build(tmp_path / "run", features=True, seed=7)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-12"))
    for name, value in resumed.model.state_dict().items():
        torch.testing.assert_close(value, whole.model.state_dict()[name], rtol=0, atol=1e-6)


def test_labels_that_the_model_has_not_are_refused(tmp_path: Path) -> None:
    trainer = build(tmp_path, features=True, id2label={0: "calm", 1: "glad"})
    with pytest.raises(ValueError, match="labels other than -100 must be from 0 to 1, got 2"):
        trainer.train()
