"""The pipeline: conversations in any container, the same scores in any batch, a saved folder that loads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoProcessor, pipeline

from answers import predicted
from model.tiny_models import LABELS, text_model, tiny_model
from model.tiny_processors import conversation, feature_processor, text_processor, utterance
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
    with pytest.raises(ValueError, match="no parameter but top_k, got topk"):
        build(folder, topk=1)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"id": "d", "utterances": []}, "expected a conversation with utterances"),
        ({"id": "d"}, "expected a conversation with utterances"),
        (conversation(utterance(text="no"), {"text": "no"}, name="d"), "dialogue d, utterance 1: speaker"),
        (conversation(utterance(text=3), name="d"), "dialogue d, utterance 0: text must be a string, got 3"),
        (conversation(utterance(audio_features=[1.0]), name="d"), "dialogue d, utterance 0: audio_features"),
        (conversation("hello", name="d"), "dialogue d, utterance 0: expected an object, got 'hello'"),
    ],
)
def test_a_wrong_conversation_is_refused(folder: Path, wrong: Any, complaint: str) -> None:
    for inputs in (wrong, [CONVERSATIONS[0], wrong]):
        with pytest.raises(ValueError, match=complaint):
            build(folder)(inputs)
    with pytest.raises(ValueError, match="expected a conversation with utterances, got 'h'"):
        list(build(folder)("hello.json"))


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
    with pytest.raises(ValueError, match="expected a processor"):
        pipeline(TASK, model=tiny_model(), device="cpu")


def test_device_and_precision_are_those_asked_for(folder: Path, expected: list[Any]) -> None:
    for dtype in (torch.bfloat16, "bfloat16"):
        recognise = build(folder, dtype=dtype)
        assert (recognise.dtype, recognise.device) == (torch.bfloat16, torch.device("cpu"))
        assert_same(recognise(CONVERSATIONS, batch_size=2), expected, tolerance=0.1)
    assert build(folder).dtype == torch.float32
