import numpy as np
import pytest

from answers import predicted
from inference.stand_in_model import LABELS, StandInModel, StandInProcessor, conversation
from redifu.evaluation.metrics import score_predictions
from redifu.evaluation.scoring import evaluate_conversations


def labelled(name="a"):
    return conversation(name, ["ah", "oh", "hm", "so"], labels=["joy", "anger", "neutral", "joy"])


def test_scores_the_labelled_utterances_of_all_conversations():
    model, processor = StandInModel(), StandInProcessor()
    partly = conversation("b", ["so", "so", "ah"], labels=[None, "joy", None])
    without = conversation("c", ["oh", "oh"])
    scores = evaluate_conversations(model, processor, iter([labelled(), partly, without]))
    rows = [rows for _, rows in predicted(model, processor, [labelled(), partly])]
    expected = score_predictions(
        np.concatenate([rows[0], rows[1][1:2]]),
        [1, 2, 0, 1, 1],
        dialogues=["0", "0", "0", "0", "1"],
        labels=LABELS,
    )
    assert scores == expected


def test_has_the_keys_of_the_written_json():
    assert set(evaluate_conversations(StandInModel(), StandInProcessor(), [labelled()])) == {
        "weighted_f1",
        "macro_f1",
        "accuracy",
        "nll",
        "ece",
        "aurc",
        "coverage",
        "per_class",
        "confusion",
        "num_utterances",
        "intervals",
    }


def test_conversations_that_share_an_id_are_resampled_apart():
    right = conversation("same", ["ah"], labels=["joy"])
    model, processor = StandInModel(), StandInProcessor()
    ((_, rows),) = predicted(model, processor, [right])
    answer = LABELS[int(rows.argmax())]
    wrong = next(label for label in LABELS if label != answer)
    both = [conversation("same", ["ah"], labels=[label]) for label in (answer, wrong)]
    assert evaluate_conversations(model, processor, both)["intervals"]["accuracy"] == [0, 100]


def test_a_labelled_utterance_without_a_usable_stream_is_reported_and_not_scored(caplog):
    gap = conversation("b", ["ah", None], labels=["joy", "joy"])
    scores = evaluate_conversations(StandInModel(), StandInProcessor(), [labelled(), gap])
    assert scores["num_utterances"] == 5
    assert [record.getMessage() for record in caplog.records] == [
        "1 labelled utterances have no stream the model can use and are not scored"
    ]


@pytest.mark.parametrize("conversations", [[], [conversation("a", ["ah", "oh"])]])
def test_data_without_any_label_is_refused(conversations):
    with pytest.raises(ValueError, match="expected a labelled utterance"):
        evaluate_conversations(StandInModel(), StandInProcessor(), conversations)


def test_an_unknown_label_is_named_with_its_place():
    odd = conversation("odd", ["ah", "oh"], labels=["joy", "Joy"])
    with pytest.raises(ValueError, match="dialogue odd, utterance 1: .*neutral, joy, anger, got Joy"):
        evaluate_conversations(StandInModel(), StandInProcessor(), [odd])
