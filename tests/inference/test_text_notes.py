"""Texts that a model cannot read, or not to their end, are said to be so."""

import json
import logging
from pathlib import Path

import pytest

import redifu
from hub.toy_models import write_text_model
from model.tiny_processors import feature_processor, text_processor
from redifu.data.writers import with_predictions

UNKNOWN = "all its words are unknown to the model"


@pytest.mark.parametrize(
    ("text", "loss"),
    [
        ("hello !", None),
        ("hello zebra", None),
        ("!", None),
        ("zebra", UNKNOWN),
        ("\U0001f600 \U0001f600 !", UNKNOWN),
        ("x" * 5000, UNKNOWN),
        # [CLS] Ana : ... [SEP] leave room for four words.
        ("hello you came !", None),
        ("hello you came ! !", "cut after 8 tokens"),
        ("hello " * 100_000, "cut after 8 tokens"),
    ],
)
def test_the_processor_knows_what_a_text_loses(text: str, loss: str | None) -> None:
    processor = text_processor(max_text_tokens=8, speaker_in_text=True, text_context_turns=3)
    assert processor.text_loss({"speaker": "Ana", "text": text}) == loss


def test_without_a_text_or_a_tokenizer_nothing_is_lost() -> None:
    assert text_processor().text_loss({"speaker": "Ana", "text": " "}) is None
    assert text_processor().text_loss({"speaker": "Ana"}) is None
    assert feature_processor().text_loss({"speaker": "Ana", "text": "zebra"}) is None


@pytest.mark.parametrize("explain", [False, True])
def test_notes_travel_with_the_predictions_and_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, explain: bool
) -> None:
    recogniser = redifu.load(write_text_model(tmp_path / "model"))
    said = [{"speaker": "Ana", "text": text} for text in ("great never", "\U0001f600", "\U0001f610")]
    (tmp_path / "talk.json").write_text(json.dumps({"id": "d", "utterances": said}), "utf-8")
    with caplog.at_level(logging.WARNING, logger="redifu.inference.text_notes"):
        ((read, predictions),) = recogniser.predict(recogniser.read(tmp_path / "talk.json"), explain=explain)
    assert [list(each.reasons) for each in predictions] == [[], [f"text: {UNKNOWN}"], [f"text: {UNKNOWN}"]]
    assert [one.get("reasons") for one in with_predictions(read, predictions)["utterances"]] == [
        None,
        [f"text: {UNKNOWN}"],
        [f"text: {UNKNOWN}"],
    ]
    assert [record.message for record in caplog.records if "text" in record.message] == [
        f"dialogue d, utterance 1: text: {UNKNOWN}; likewise 1 more: see their reasons"
    ]
