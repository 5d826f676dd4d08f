"""The pipeline: conversations in any container, the same scores in any batch, a saved folder that loads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoProcessor,
    BertForSequenceClassification,
    TextClassificationPipeline,
    pipeline,
)

from answers import predicted
from model.tiny_models import LABELS, TEXT_CONFIGS, text_model, tiny_model
from model.tiny_processors import conversation, feature_processor, text_processor, tokenizer, utterance
from redifu.inference.loading import load_pretrained
from redifu.inference.pipeline import TASK

SOUND = [0.5, -1.0, 2.0, 0.0, 1.0]
# Of different lengths, two of them cut into pieces; with streams missing, one without any that is read.
CONVERSATIONS = [
    conversation(utterance(text="hello"), utterance("Ben", text="you came !", audio_features=SOUND)),
    conversation(utterance(video="silent.mp4")),
    conversation(*[utterance(str(turn), text="no yes", audio_features=SOUND) for turn in range(11)]),
    conversation(utterance(audio_features=SOUND), utterance("Ben", video="silent.mp4")),
    conversation(*[utterance(text=text) for text in ("yes", "no", "you", "came", "hello")]),
    conversation(utterance(text="no")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of texts and audio features that takes up to four utterances at once."""
    folder = tmp_path_factory.mktemp("pipeline")
    text_model("bert", visual_size=None).save_pretrained(folder)
    text_processor(max_utterances=4).save_pretrained(folder)
    return folder


def build(folder: Path, **options: Any) -> Any:
    return pipeline(TASK, model=str(folder), **{"device": "cpu", **options})


def scores(recognised: list[list[dict[str, Any]]]) -> list[list[float] | None]:
    """The scores of a conversation in the order of the labels, None where there are none."""
    return [
        [{each["label"]: each["score"] for each in ranked}[label] for label in LABELS] if ranked else None
        for ranked in recognised
    ]


def assert_same(actual: list[Any], expected: list[Any], *, tolerance: float = 1e-5) -> None:
    for ours, theirs in zip(actual, expected, strict=True):
        for row, wanted in zip(scores(ours), scores(theirs), strict=True):
            assert row == (wanted if wanted is None else pytest.approx(wanted, abs=tolerance))


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[Any]:
    """Each conversation alone."""
    recognise = build(folder)
    return [recognise(each) for each in CONVERSATIONS]


def test_a_conversation_gets_what_prediction_gives(folder: Path, expected: list[Any]) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    answers = predicted(model, AutoProcessor.from_pretrained(folder), CONVERSATIONS)
    for recognised, (_, probabilities) in zip(expected, answers, strict=True):
        for row, wanted in zip(scores(recognised), probabilities.tolist(), strict=True):
            # What has no answer is a row of NaN there.
            assert row == (None if wanted[0] != wanted[0] else pytest.approx(wanted, abs=1e-5))


def test_labels_come_most_probable_first(expected: list[Any]) -> None:
    for ranked in (each for recognised in expected for each in recognised if each):
        values = [each["score"] for each in ranked]
        assert values == sorted(values, reverse=True)
        assert {each["label"] for each in ranked} == set(LABELS)
        assert sum(values) == pytest.approx(1, abs=1e-5)
    assert [[bool(ranked) for ranked in expected[index]] for index in (1, 3)] == [[False], [True, False]]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_any_batch_size_gives_the_same(folder: Path, expected: list[Any], batch_size: int) -> None:
    assert_same(build(folder)(CONVERSATIONS, batch_size=batch_size), expected)
    assert_same(build(folder, batch_size=batch_size)(CONVERSATIONS), expected)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_any_container_gives_the_same(folder: Path, expected: list[Any], batch_size: int) -> None:
    recognise = build(folder, batch_size=batch_size)
    rows = datasets.Dataset.from_list(CONVERSATIONS)
    for container in (tuple(CONVERSATIONS), iter(CONVERSATIONS), (each for each in CONVERSATIONS), rows):
        assert_same(list(recognise(container)), expected)
    bare = [each["utterances"] for each in CONVERSATIONS]
    assert_same(recognise(bare), expected)
    assert_same([recognise(utterances) for utterances in bare], expected)
    assert recognise([]) == []
    assert list(recognise(iter([]))) == []


def test_a_generator_is_read_as_answers_are_taken(folder: Path) -> None:
    read = 0

    def endless() -> Iterator[dict[str, Any]]:
        nonlocal read
        while True:
            read += 1
            yield CONVERSATIONS[0]

    answers = iter(build(folder)(endless(), batch_size=2))
    for _ in range(5):
        next(answers)
    assert read <= 8


def test_top_k_takes_the_most_probable(folder: Path, expected: list[Any]) -> None:
    best = build(folder, top_k=1)
    assert best(CONVERSATIONS[0]) == [ranked[:1] for ranked in expected[0]]
    for top_k in (2, 99, None):
        assert best(CONVERSATIONS[0], top_k=top_k) == [ranked[:top_k] for ranked in expected[0]]
    # A parameter of one call is not one of the next.
    assert best(CONVERSATIONS[0]) == [ranked[:1] for ranked in expected[0]]


@pytest.mark.parametrize("top_k", [0, -1, 1.5, "all"])
def test_a_wrong_top_k_is_refused(folder: Path, top_k: Any) -> None:
    with pytest.raises(ValueError, match=f"top_k must be .* got {top_k!r}"):
        build(folder)(CONVERSATIONS[0], top_k=top_k)


def test_an_unknown_parameter_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="unknown parameter topk: the only one is top_k"):
        build(folder, topk=1)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"id": "d", "utterances": []}, r"dialogue d has no utterances: expected a non-empty list, got \[\]"),
        (
            {"id": "d", "utterances": "no"},
            "dialogue d has no utterances: expected a non-empty list, got 'no'",
        ),
        ({"id": "d"}, r"expected a conversation .*, one utterance or one string of text, got \{'id': 'd'\}"),
        ({"txt": "no"}, "an utterance needs one of the keys text, audio, .*, got txt"),
        (
            conversation(utterance(txt="no"), name="d"),
            "dialogue d, utterance 0: an utterance needs one of the keys text",
        ),
        ("  ", "expected a conversation .*, got the blank string"),
        ("hello.json", r"hello.json is a file name, .*: use redifu.load\(MODEL\)\('hello.json'\) instead"),
        (conversation(utterance(text="no"), {"text": "no"}, name="d"), "dialogue d, utterance 1: speaker"),
        (conversation(utterance(text=3), name="d"), "dialogue d, utterance 0: text must be a string, got 3"),
        (conversation(utterance(audio_features=[1.0]), name="d"), "dialogue d, utterance 0: audio_features"),
        (conversation("hello", name="d"), "dialogue d, utterance 0: expected an object, got 'hello'"),
    ],
)
def test_a_wrong_conversation_is_refused(folder: Path, wrong: Any, complaint: str) -> None:
    recognise = build(folder)
    for given in (wrong, [CONVERSATIONS[0], wrong]):
        with pytest.raises(ValueError, match=complaint):
            recognise(given)


@pytest.mark.parametrize("table", [pd.DataFrame({"speaker": ["Ana"], "text": ["no"]}), 3, None])
def test_what_holds_no_conversations_is_refused(folder: Path, table: Any) -> None:
    recognise, kind = build(folder), type(table).__name__
    with pytest.raises(ValueError, match=f"expected conversations, got {kind}: pass a list of utterances"):
        recognise(table)
    with pytest.raises(
        ValueError, match=f"expected a conversation .*, one utterance or one string of text, got {kind}"
    ):
        recognise([CONVERSATIONS[0], table])


def test_a_text_is_an_utterance(folder: Path, expected: list[Any]) -> None:
    recognise = build(folder)
    alone = recognise("no")
    assert_same([[alone]], [expected[5]])  # the speaker's name is not in this model's text
    for same in ({"text": "no"}, utterance(text="no"), utterance("Ben", text="no", label=None)):
        assert recognise(same) == alone
    assert recognise("no", top_k=1) == alone[:1]
    assert recognise({"text": "no", "video": None}) == alone
    assert recognise(utterance(video="silent.mp4")) == []


@pytest.mark.parametrize("batch_size", [1, 2])
def test_texts_in_a_list_are_inputs_of_their_own(folder: Path, batch_size: int) -> None:
    recognise = build(folder, batch_size=batch_size)
    texts = ["no", "you came !", "hello"]
    assert_same([recognise(texts)], [[recognise(text) for text in texts]])
    assert_same([list(recognise(iter(texts)))], [[recognise(text) for text in texts]])
    mixed = recognise([texts[0], CONVERSATIONS[4], {"text": texts[2]}])
    assert_same([mixed[1]], [recognise(CONVERSATIONS[4])])
    assert_same([[mixed[0], mixed[2]]], [[recognise(texts[0]), recognise(texts[2])]])


def test_a_file_that_exists_is_no_text(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "our dinner.csv").touch()
    with pytest.raises(ValueError, match="dinner.csv is a file name"):
        build(folder)(str(tmp_path / "our dinner.csv"))
    assert build(folder)("I wrote it into our other dinner.csv")


def test_a_model_without_text_takes_no_text() -> None:
    recognise = pipeline(TASK, model=tiny_model(), processor=feature_processor(), device="cpu")
    with pytest.raises(ValueError, match="this model does not read text, got 'no'"):
        recognise("no")


def test_the_task_of_the_hub_gives_the_same_pipeline(folder: Path, expected: list[Any]) -> None:
    recognise = pipeline("text-classification", model=str(folder), device="cpu")
    assert type(recognise) is type(build(folder))
    assert_same(recognise(CONVERSATIONS), expected)
    assert recognise("no", top_k=1) == build(folder)("no", top_k=1)


def test_other_models_keep_their_text_classification() -> None:
    model = BertForSequenceClassification(TEXT_CONFIGS["bert"])
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer(), device="cpu")
    assert type(classify) is TextClassificationPipeline
    (answer,) = classify("no")
    assert set(answer) == {"label", "score"}


def test_model_and_processor_agree_on_labels(folder: Path) -> None:
    options: dict[str, Any] = {"id2label": {0: "up", 1: "down"}}
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, ignore_mismatched_sizes=True, **options
    )
    assert {each["label"] for each in pipeline(TASK, model=model)("no")} == {"up", "down"}
    for changed in (options, {"num_labels": 2}):
        processor = AutoProcessor.from_pretrained(folder, **changed)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, ignore_mismatched_sizes=True, **changed
        )
        assert model.config.labels == processor.labels
        assert model.config.label2id == {name: index for index, name in enumerate(processor.labels)}
        assert pipeline(TASK, model=model, processor=processor)("no")
    with pytest.raises(
        ValueError, match="the model has the labels LABEL_0, LABEL_1, but its processor has calm, glad"
    ):
        pipeline(TASK, model=model, processor=AutoProcessor.from_pretrained(folder))


def test_a_folder_whose_parts_disagree_is_refused(folder: Path, tmp_path: Path) -> None:
    AutoModelForSequenceClassification.from_pretrained(folder).save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(folder, id2label={0: "a", 1: "b", 2: "c"}).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="the labels calm, glad, cross, but its processor has a, b, c: load both with"
    ):
        load_pretrained(tmp_path)


def test_a_saved_pipeline_is_a_checkpoint_with_its_processor(
    folder: Path, expected: list[Any], tmp_path: Path
) -> None:
    build(folder).save_pretrained(tmp_path)
    assert_same(build(tmp_path)(CONVERSATIONS), expected)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in folder.iterdir()}
    assert AutoProcessor.from_pretrained(tmp_path).max_utterances == 4


def test_a_model_in_hand_does_as_well_as_its_folder(folder: Path, expected: list[Any]) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert_same(pipeline(TASK, model=model, device="cpu")(CONVERSATIONS), expected)
    processor = AutoProcessor.from_pretrained(folder)
    assert_same(pipeline(TASK, model=model, processor=processor, device="cpu")(CONVERSATIONS), expected)


def test_a_model_that_was_not_loaded_needs_a_processor() -> None:
    features = conversation(utterance(text_features=[0.5] * 6))
    recognise = pipeline(TASK, model=tiny_model(), processor=feature_processor(), device="cpu")
    assert len(recognise(features)) == 1
    with pytest.raises(ValueError, match="pass its processor as well"):
        pipeline(TASK, model=tiny_model(), device="cpu")


def test_device_and_precision_are_those_asked_for(folder: Path, expected: list[Any]) -> None:
    for dtype in (torch.bfloat16, "bfloat16"):
        recognise = build(folder, dtype=dtype)
        assert (recognise.dtype, recognise.device) == (torch.bfloat16, torch.device("cpu"))
        assert_same(recognise(CONVERSATIONS, batch_size=2), expected, tolerance=0.1)
    assert build(folder).dtype == torch.float32
