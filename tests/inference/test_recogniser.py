"""`redifu.load`: three lines from a file, a conversation or a data set to the emotions in it."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest

import redifu
from answers import predicted
from hub.toy_models import write_text_model
from redifu.inference.loading import load_pretrained

DINNER = {
    "id": "dinner",
    "utterances": [
        {"speaker": "Ana", "text": "great never", "start": 0.5, "end": 1.0, "label": None},
        {"speaker": "Bo", "text": "well"},
    ],
}
LUNCH = {"id": "lunch", "utterances": [{"speaker": "Ana", "text": "never"}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("recogniser") / "model")


@pytest.fixture(scope="module")
def recogniser(folder: Path) -> redifu.Recogniser:
    return redifu.load(folder)


def scores(predictions: list[redifu.Prediction]) -> list[dict[str, float] | None]:
    return [prediction.scores for prediction in predictions]


def close(answers: list[list[redifu.Prediction]], expected: list[list[dict[str, float]]]) -> bool:
    """Say whether answers agree with scores, as far as the batch they were in lets them."""
    pairs = zip(answers, expected, strict=True)
    return all(
        one == pytest.approx(other, abs=1e-6)
        for given, wanted in pairs
        for one, other in zip(scores(given), wanted, strict=True)
    )


def test_a_conversation_gives_a_prediction_for_each_utterance(
    recogniser: redifu.Recogniser, folder: Path
) -> None:
    predictions = recogniser(DINNER)
    assert [(one.turn, one.speaker, one.text, one.start, one.end) for one in predictions] == [
        (0, "Ana", "great never", 0.5, 1.0),
        (1, "Bo", "well", None, None),
    ]
    ((_, rows),) = predicted(*load_pretrained(folder), [DINNER])
    for prediction, row in zip(predictions, rows, strict=True):
        assert list(prediction.scores) == recogniser.labels
        assert np.float32(list(prediction.scores.values())).tolist() == row.tolist()
        assert prediction.emotion == recogniser.labels[int(row.argmax())]
        assert prediction.probability == max(prediction.scores.values())


def test_one_dialogue_gives_a_list_and_several_a_list_of_lists(
    recogniser: redifu.Recogniser, tmp_path: Path
) -> None:
    one, other = recogniser(DINNER), recogniser(LUNCH)
    several = [scores(one), scores(other)]
    (tmp_path / "one.json").write_text(json.dumps(DINNER))
    (tmp_path / "two.jsonl").write_text("\n".join(map(json.dumps, (DINNER, LUNCH))))
    assert scores(recogniser(str(tmp_path / "one.json"))) == scores(one)
    assert close(recogniser(tmp_path / "two.jsonl"), several)
    assert close(recogniser([DINNER, LUNCH]), several)
    assert close(recogniser([DINNER]), several[:1])
    assert [scores(each) for each in recogniser([])] == []
    rows = [
        {"dialogue_id": each["id"], "speaker": one["speaker"], "text": one["text"]}
        for each in (DINNER, LUNCH)
        for one in each["utterances"]
    ]
    assert close(recogniser(datasets.Dataset.from_list(rows)), several)


def test_what_was_read_before_is_taken_and_comes_back(recogniser: redifu.Recogniser) -> None:
    (read,) = recogniser.read(DINNER)
    ((returned, predictions),) = recogniser.predict([read])
    assert returned.to_dict() == DINNER
    assert scores(predictions) == scores(recogniser(read)) == scores(recogniser(DINNER))


def test_explanations_come_with_the_predictions(recogniser: redifu.Recogniser) -> None:
    (first, second) = recogniser(DINNER, explain=True)
    assert first.explanation["contributions"] == second.explanation["contributions"] == {"text": None}
    for explained, plain in zip((first, second), recogniser(DINNER), strict=True):
        assert explained.scores == pytest.approx(plain.scores, abs=1e-6)


def test_an_utterance_that_the_model_is_not_sure_of_has_scores_and_no_emotion(
    recogniser: redifu.Recogniser,
) -> None:
    sure = recogniser(DINNER)
    low, high = sorted(one.probability for one in sure)
    assert low < high
    some = recogniser(DINNER, abstain_below=high)
    assert scores(some) == scores(sure)
    assert [one.emotion for one in some] == [one.emotion if one.probability == high else None for one in sure]
    assert [one.reasons for one in some] == [
        one.reasons if one.probability == high else ["not sure", *one.reasons] for one in sure
    ]


@pytest.mark.parametrize("limit", [0, 1, -0.1, float("nan")])
def test_a_limit_that_is_no_probability_is_refused(recogniser: redifu.Recogniser, limit: float) -> None:
    with pytest.raises(ValueError, match="abstain_below must be between 0 and 1"):
        recogniser(DINNER, abstain_below=limit)


def test_a_session_answers_as_the_recogniser_does(recogniser: redifu.Recogniser) -> None:
    answer = recogniser.session().add(LUNCH["utterances"][0])
    assert answer["scores"] == pytest.approx(recogniser(LUNCH)[0].scores, abs=1e-6)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"utterances": []}, "expected a non-empty list of utterances, got"),
        ({"utterances": [{"speaker": "Ana"}]}, "utterance 0: expected at least one of text"),
        ({"utterances": [{"speaker": "Ana", "text": "well", "label": "bored"}]}, "label must be one of"),
        ([LUNCH, 7], "conversation 1: expected an object, got 7"),
        (7, "expected a path, a conversation or a list of them, got int"),
    ],
)
def test_what_is_no_conversation_is_one_clear_line(
    recogniser: redifu.Recogniser, given: object, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint) as error:
        recogniser(given)
    assert "\n" not in str(error.value)


def test_an_unknown_runtime_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match="runtime must be one of torch, onnx, got 'tpu'"):
        redifu.load(folder, runtime="tpu")


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such model folder"):
        redifu.load(tmp_path / "nowhere")
