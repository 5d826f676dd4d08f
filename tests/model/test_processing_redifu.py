"""The processor: conversations in, tensors out, nothing lost."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoProcessor

import redifu
from model.tiny_models import LABELS, text_model, tiny_model
from model.tiny_processors import WORDS, conversation, feature_processor, text_processor, tokenizer, utterance
from redifu.conversation import Conversation
from redifu.media.face_features import FACE_DESCRIPTOR_SIZE
from redifu.model import ReDiFuFeatureExtractor, ReDiFuProcessor
from redifu.model.audio_features import SAMPLING_RATE, log_mel_features


def words(batch: Any) -> list[str]:
    """The real tokens of each text."""
    rows = zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True)
    return [" ".join(WORDS[token] for token, real in zip(*row, strict=True) if real) for row in rows]


DIALOGUE = conversation(
    utterance("Ben", text="you came !", label="glad"),
    utterance("Ana", audio_features=[0.0] * 5),
    utterance("Ana", text="yes", audio_features=[1.0] * 5, label="cross"),
    utterance("Cy", text="hello"),
)


def test_speakers_are_numbered_in_each_dialogue() -> None:
    batch = text_processor()(
        [DIALOGUE, conversation(utterance("Cy", text="no"), utterance("Ben", text="no"))]
    )
    assert batch["speaker_ids"].tolist() == [[0, 1, 1, 2], [0, 1, 0, 0]]
    assert batch["utterance_mask"].tolist() == [[True] * 4, [True, True, False, False]]


@pytest.mark.parametrize("speakers", [5, "Ana", [["Ana"]], {"Ana": 0}, [None]])
def test_speakers_of_a_whole_dialogue_are_names(speakers: Any) -> None:
    with pytest.raises(ValueError, match="dialogue d1: speakers must be a list of names, got "):
        text_processor()({**conversation(utterance(text="hello")), "speakers": speakers})


def test_renaming_speakers_changes_no_tensor() -> None:
    renamed = json.loads(json.dumps(DIALOGUE).replace("Ana", "Zoe").replace("Ben", "Ana"))
    before, after = (text_processor()(each) for each in (DIALOGUE, renamed))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_labels_are_mapped_and_missing_ones_ignored() -> None:
    batch = text_processor()(DIALOGUE)
    assert batch["labels"].tolist() == [[1, -100, 2, -100]]
    assert batch["labels"].dtype == torch.int64
    assert "labels" not in text_processor()(conversation(utterance(text="no")))


def test_tokens_of_present_texts_row_by_row() -> None:
    second = conversation(utterance(text="no"), utterance(text=None, audio_features=[0.0] * 5))
    batch = text_processor()([DIALOGUE, second])
    assert words(batch) == [f"[CLS] {text} [SEP]" for text in ("you came !", "yes", "hello", "no")]
    assert batch["modality_mask"][..., 0].int().tolist() == [[1, 0, 1, 1], [1, 0, 0, 0]]
    assert batch["modality_mask"][..., 1].int().tolist() == [[0, 1, 1, 0], [0, 1, 0, 0]]


def test_speaker_names_and_earlier_turns_in_the_text() -> None:
    assert words(text_processor(speaker_in_text=True)(DIALOGUE))[1] == "[CLS] Ana : yes [SEP]"
    in_context = words(text_processor(speaker_in_text=True, text_context_turns=3)(DIALOGUE))
    assert in_context[0] == "[CLS] Ben : you came ! [SEP]"
    assert in_context[1] == "[CLS] Ana : yes [SEP] Ben : you came ! [SEP]"


def test_earlier_turns_give_way_to_the_text_itself() -> None:
    long = conversation(*(utterance(text="hello") for _ in range(9)), utterance(text="you came !"))
    processor = text_processor(text_context_turns=9, max_text_tokens=6)
    batch = processor(long)
    assert batch["input_ids"].shape[1] == 6
    assert words(batch)[-1].startswith("[CLS] you came !")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_utterances", 0, "from 1 to 10,000, got 0"),
        ("max_utterances", 10**30, "from 1 to 10,000, got 1,000,000"),
        ("text_context_turns", -1, "from 0 to 10,000, got -1"),
        ("text_context_turns", 10_001, "from 0 to 10,000, got 10,001"),
    ],
)
def test_the_work_for_a_dialogue_is_bounded(name: str, value: int, said: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be {said}"):
        text_processor(**{name: value})


def test_context_needs_no_separator_in_the_tokenizer() -> None:
    plain = tokenizer(cls_token="[CLS]")
    assert plain.sep_token is None
    processor = ReDiFuProcessor(ReDiFuFeatureExtractor(), plain, labels=LABELS, text_context_turns=1)
    batch = processor(conversation(utterance(text="hello"), utterance(text="no")))
    assert "[UNK]" not in words(batch)[1]


@pytest.mark.parametrize("blank", ["", None])
def test_a_blank_text_is_a_missing_text(blank: str | None) -> None:
    batch = text_processor()(
        conversation(utterance(text="hello"), utterance(text=blank, audio_features=[0.0] * 5))
    )
    assert batch["modality_mask"][0, :, 0].tolist() == [True, False]
    assert len(batch["input_ids"]) == 1


def test_one_conversation_is_a_batch_of_one() -> None:
    alone, listed = text_processor()(DIALOGUE), text_processor()([DIALOGUE])
    assert all(torch.equal(listed[name], value) for name, value in alone.items())


def test_the_model_takes_what_the_processor_gives() -> None:
    short = conversation(utterance(text="no"))
    model = text_model("bert", visual_size=None)
    together = model(**text_processor()([DIALOGUE, short]))
    alone = model(**text_processor()(DIALOGUE))
    assert together.logits.shape == (2, 4, 3)
    assert together.loss.isfinite()
    torch.testing.assert_close(together.logits[:1], alone.logits, rtol=0, atol=1e-5)
    features = conversation(utterance(audio_features=[0.5] * 5), utterance("Ben", text_features=[0.1] * 6))
    assert tiny_model()(**feature_processor()(features)).logits.shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (utterance(text="no", label="angry"), "calm, glad, cross.*'angry'"),
        (utterance(audio_features=[1.0] * 4), "audio_features.*5.*4"),
        (utterance(audio_features=[1.0, float("nan"), 1.0, 1.0, 1.0]), "audio_features.*finite"),
        (utterance(audio_features=[1.0, float("-inf"), 1.0, 1.0, 1.0]), "audio_features.*finite"),
    ],
)
def test_a_mistake_names_dialogue_and_utterance(wrong: dict[str, Any], message: str) -> None:
    processor = text_processor()
    dialogue = conversation(utterance(text="no"), wrong, name="dinner-3")
    for call in (processor, processor.check):
        with pytest.raises(ValueError, match=f"dinner-3.*utterance 1.*{message}"):
            call(dialogue)


def test_nothing_to_process_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dinner-3.*no utterances"):
        text_processor()(conversation(name="dinner-3"))
    with pytest.raises(ValueError, match="conversation"):
        text_processor()([])


@pytest.mark.parametrize("field", ["max_utterances", "max_text_tokens", "text_context_turns"])
def test_counts_below_their_least_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}.*-1"):
        text_processor(**{field: -1})


def test_a_stream_that_is_not_read_is_ignored_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    logging.Logger.warning_once.cache_clear()
    processor = text_processor()
    seen = conversation(
        utterance(text="no", visual_features=[1.0, 2.0]), utterance(text="no", visual_features=[0.0])
    )
    with caplog.at_level(logging.WARNING):
        batches = [processor([seen, seen]), processor(seen)]
    assert [record.message for record in caplog.records if "visual_features" in record.message] != []
    assert len(caplog.records) == 1
    assert "visual_features" not in batches[1]
    assert not batches[1]["modality_mask"][..., 2].any()


def test_no_warning_without_reason(caplog: pytest.LogCaptureFixture) -> None:
    logging.Logger.warning_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        text_processor()(DIALOGUE)
    assert not caplog.records


@pytest.mark.parametrize("build", [text_processor, feature_processor])
def test_round_trip(build: Any, tmp_path: Path) -> None:
    options = {"speaker_in_text": True, "text_context_turns": 2, "max_text_tokens": 17, "max_utterances": 33}
    processor = build(**options)
    audio = [{"speaker": "Ana", "audio_features": [float(turn)] * 5} for turn in range(4)]
    processor.feature_extractor.fit([conversation(*audio)])
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is ReDiFuProcessor is redifu.ReDiFuProcessor
    assert loaded.labels == LABELS
    assert {name: getattr(loaded, name) for name in options} == options
    assert loaded.feature_extractor.to_dict() == processor.feature_extractor.to_dict()
    assert (loaded.tokenizer is None) == (processor.tokenizer is None)
    expected, actual = processor([DIALOGUE, conversation(*audio)]), loaded([DIALOGUE, conversation(*audio)])
    assert expected.keys() == actual.keys()
    assert all(torch.equal(actual[name], value) for name, value in expected.items())
    loaded.save_pretrained(tmp_path / "again")
    again = (tmp_path / "again" / "processor_config.json").read_text()
    assert again == (tmp_path / "processor_config.json").read_text()
    assert str(tmp_path) not in again


def test_model_and_processor_share_a_folder(tmp_path: Path) -> None:
    model, processor = text_model("bert", visual_size=None), text_processor()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    restored = redifu.ReDiFuForEmotionRecognition.from_pretrained(tmp_path)
    expected = model(**processor(DIALOGUE)).logits
    torch.testing.assert_close(restored(**loaded(DIALOGUE)).logits, expected, rtol=0, atol=1e-5)


def test_a_speaker_keeps_the_number_in_every_piece_of_a_long_dialogue() -> None:
    names = ["Ana", *["Ben"] * 8, "Ana", "Ben"]
    dialogue = Conversation.from_dict(conversation(*(utterance(name, text="no") for name in names)))
    processor = text_processor()
    whole = processor(dialogue.to_inputs())["speaker_ids"][0].tolist()
    numbers = []
    for piece, keep in dialogue.pieces(4):
        numbers += processor(piece.to_inputs())["speaker_ids"][0, keep].tolist()
    assert numbers == whole == [0, *[1] * 8, 0, 1]


@pytest.mark.parametrize("count", [2, 10_000])
def test_lengths_that_the_tokenizer_can_not_keep_are_refused(count: int) -> None:
    parts = tokenizer()
    parts.model_max_length = 512
    with pytest.raises(ValueError, match=f"max_text_tokens must be from 3 to 512, got {count}"):
        ReDiFuProcessor(ReDiFuFeatureExtractor(), parts, labels=LABELS, max_text_tokens=count)


# Media: arrays are taken, files are not.

HEARS = {"audio_backend": "log_mel", "visual_backend": "face_descriptor"}
SOUND = np.sin(np.arange(SAMPLING_RATE) / 20).astype(np.float32)


def hearing_processor() -> ReDiFuProcessor:
    return ReDiFuProcessor(ReDiFuFeatureExtractor(**HEARS), tokenizer(), labels=LABELS)


def test_a_waveform_is_described() -> None:
    given = conversation(
        utterance(text="no", audio={"array": SOUND.tolist(), "sampling_rate": SAMPLING_RATE}),
        utterance(audio="ready.wav", audio_features=log_mel_features(0.1 * SOUND)),
    )
    batch = hearing_processor()(given, return_tensors="np")
    expected = [log_mel_features(SOUND), log_mel_features(0.1 * SOUND)]
    np.testing.assert_allclose(batch["audio_features"][0], expected, atol=1e-6)
    assert batch["modality_mask"][0].tolist() == [[True, True, False], [False, True, False]]
    assert "audio_features" not in given["utterances"][0], "the caller's conversation is not changed"


@pytest.mark.parametrize(
    ("media", "expected"),
    [
        ({"audio": "a.wav"}, '{"array", "sampling_rate"} or audio_features, got \'a.wav\''),
        ({"audio": b"RIFF"}, '{"array", "sampling_rate"} or audio_features, got b\'RIFF\''),
        ({"audio": {"path": "a.wav", "bytes": None}}, '{"array", "sampling_rate"} or audio_features, got {'),
        ({"video": "a.mp4"}, "visual_features, got 'a.mp4'"),
    ],
)
def test_a_file_is_refused_in_one_line_that_names_what_reads_files(
    media: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ValueError) as error:
        hearing_processor()(conversation(utterance(text="no"), utterance(text="no", **media)))
    (key,) = media
    start = (
        f"dialogue d1, utterance 1: {key}: the processor takes arrays and does not open files: "
        f"expected {expected}"
    )
    assert str(error.value).startswith(start)
    assert str(error.value).endswith("; use redifu.load(MODEL) to read files")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("sound", "complaint"),
    [
        ({"array": SOUND, "sampling_rate": 44100}, "expected a sampling_rate of 16000, got 44100"),
        ({"array": SOUND}, "expected a sampling_rate of 16000, got None"),
        (
            {"array": SOUND[:0], "sampling_rate": 16000},
            r"expected finite numbers of shape (samples,), got shape (0,)",
        ),
        (
            {"array": SOUND[None], "sampling_rate": 16000},
            "expected finite numbers of shape (samples,), got shape (1, 16000)",
        ),
        (
            {"array": SOUND * np.nan, "sampling_rate": 16000},
            "expected finite numbers of shape (samples,), got shape",
        ),
    ],
)
def test_a_waveform_that_does_not_fit_is_refused(sound: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError) as error:
        hearing_processor()(conversation(utterance(audio=sound)))
    assert str(error.value).startswith(f"dialogue d1, utterance 0: audio: {complaint}")


def test_a_stream_that_is_not_read_may_be_a_file() -> None:
    batch = text_processor()(conversation(utterance(text="no", audio="a.wav", video="a.mp4")))
    assert batch["modality_mask"][0].tolist() == [[True, False, False]]


def test_a_medium_is_not_asked_for_where_its_features_are_ready() -> None:
    ready = {"audio_features": np.zeros(291), "visual_features": np.zeros(FACE_DESCRIPTOR_SIZE)}
    given = conversation(utterance(audio="a.wav", video="a.mp4", **ready))
    assert hearing_processor()(given)["modality_mask"][0].tolist() == [[False, True, True]]


def test_keys_of_users_change_no_tensor() -> None:
    own = {"missing": 4, "_speakers": 5, "audio_quality": "loud", "quality": 6, "turn": 7}
    given = {**DIALOGUE, "_speakers": 5, "_folder": 6}
    given["utterances"] = [{**each, **own} for each in DIALOGUE["utterances"]]
    expected, actual = text_processor()(DIALOGUE), text_processor()(given)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


def test_a_text_and_a_list_of_utterances_are_conversations() -> None:
    processor = text_processor(speaker_in_text=True)
    assert words(processor("you came !")) == ["[CLS] [UNK] : you came ! [SEP]"]  # the tokens of "Speaker"
    assert processor(["no", "yes"])["utterance_mask"].tolist() == [[True], [True]]
    whole = processor(DIALOGUE)
    bare = processor(DIALOGUE["utterances"])
    assert all(torch.equal(bare[name], value) for name, value in whole.items())


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("dinner.mp4", r"dinner.mp4 is a file name, .*: use redifu.load\(MODEL\)\('dinner.mp4'\) instead"),
        ("", "expected a conversation .*, one utterance or one string of text, got the blank string ''"),
        ({"txt": "no"}, "an utterance needs one of the keys text, audio, .*, got txt"),
        ({"speaker": "Ana"}, "expected a conversation .*, got {'speaker': 'Ana'}"),
        (
            [{"speaker": "Ana", "txt": "no"}],
            "dialogue None, utterance 0: an utterance needs one of the keys",
        ),
        ([3], "expected a conversation .*, one utterance or one string of text, got int 3"),
        ([], "expected at least one conversation, got none"),
    ],
)
def test_what_is_no_conversation_is_refused(wrong: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        text_processor()(wrong)


def test_an_utterance_that_lost_its_streams_is_still_one() -> None:
    batch = text_processor()(conversation(utterance(text=None, mood="any"), utterance()))
    assert not batch["modality_mask"].any()


def test_labels_change_as_those_of_the_model(tmp_path: Path) -> None:
    text_processor().save_pretrained(tmp_path)
    text_model("bert", visual_size=None).save_pretrained(tmp_path)
    for options, expected in (
        ({"id2label": {"1": "b", "0": "a"}}, ["a", "b"]),
        ({"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}, "num_labels": 2}, ["a", "b"]),
        ({"num_labels": 2}, ["LABEL_0", "LABEL_1"]),
        ({"num_labels": 3}, LABELS),
    ):
        assert AutoProcessor.from_pretrained(tmp_path, **options).labels == expected
        assert AutoConfig.from_pretrained(tmp_path, **options).labels == expected
    assert AutoProcessor.from_pretrained(tmp_path, labels=["x", "y"]).labels == ["x", "y"]
    for wrong in ({"id2label": {0: "a", 2: "b"}}, {"id2label": {0: "a", 1: "b"}, "num_labels": 3}):
        for loader in (AutoProcessor, AutoConfig):
            with pytest.raises(ValueError, match="id2label must map exactly 0, 1, ..."):
                loader.from_pretrained(tmp_path, **wrong)
