"""Coverage against accuracy: computed by hand, and for random systems what the definitions imply."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from redifu.evaluation.coverage import PERCENTS, area_under_risk_coverage, covered_at
from redifu.evaluation.metrics import score_predictions

LABELS = ["neutral", "joy", "anger"]
# Few distinct values, so that ties are frequent.
CONFIDENCES = st.lists(st.sampled_from([0.4, 0.5, 0.7, 0.7000001, 0.9, 1.0]), min_size=1, max_size=25)


def system_of(confidences, right):
    """Probabilities with these top values, and true labels that are the top ones where `right`."""
    probabilities = np.array([[(1 - top) / 2, top, (1 - top) / 2] for top in confidences], np.float32)
    return probabilities, np.where(right, 1, 2)


def scored(confidences, right):
    probabilities, references = system_of(confidences, right)
    return score_predictions(
        probabilities, references, dialogues=range(len(references)), labels=LABELS, resamples=2
    )


def by_definition(confidences, right):
    """The mean, over utterances, of the error rate among those that are at least as confident."""
    known, wrong = np.float32(confidences), ~np.array(right)
    return np.mean([wrong[known >= each].mean() for each in known])


def test_rows_computed_by_hand():
    confidences = [0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5]
    scores = scored(confidences, [True] * 4 + [False] + [True] * 2 + [False] * 3)
    rows = {row["coverage"]: row for row in scores["coverage"]}
    assert list(rows) == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert [row["num_utterances"] for row in rows.values()] == list(range(10, 0, -1))
    assert [row["threshold"] for row in rows.values()] == confidences[::-1]
    right = [6, 6, 6, 6, 5, 4, 4, 3, 2, 1]
    expected = [100 * number / size for number, size in zip(right, range(10, 0, -1), strict=True)]
    assert [row["accuracy"] for row in rows.values()] == pytest.approx(expected)
    # Of the five most confident, four are joy and called so; one is anger and called joy.
    assert rows[0.5]["weighted_f1"] == pytest.approx(100 * (4 * 8 / 9 + 1 * 0) / 5)


def test_area_computed_by_hand():
    # Error rates from the most confident on: 0/1, 1/2, 1/3, 2/4.
    confidence, correct = np.array([0.6, 0.9, 0.8, 0.7]), np.array([False, True, False, True])
    assert area_under_risk_coverage(confidence, correct) == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    # The two at 0.8 are covered together: 0/1, 1/3, 1/3, whatever their order.
    for rights in ([True, True, False], [True, False, True]):
        area = area_under_risk_coverage(np.array([0.9, 0.8, 0.8]), np.array(rights))
        assert area == pytest.approx((0 + 1 / 3 + 1 / 3) / 3)


def test_a_share_that_floats_round_up_covers_no_more():
    # 0.7 * 10 is above 7 in floats.
    assert covered_at(np.arange(10) / 10, 70)[1].sum() == 7


@given(data=st.data(), confidences=CONFIDENCES)
@settings(max_examples=60, deadline=None)
def test_rows_are_the_scores_of_the_utterances_at_or_above_their_threshold(data, confidences):
    size = len(confidences)
    right = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    probabilities, references = system_of(confidences, right)
    scores = scored(confidences, right)
    assert scores["coverage"][0]["accuracy"] == pytest.approx(scores["accuracy"])
    assert scores["coverage"][0]["weighted_f1"] == pytest.approx(scores["weighted_f1"])
    assert scores["aurc"] == pytest.approx(by_definition(confidences, right))
    for row in scores["coverage"]:
        covered = probabilities.max(1) >= np.float32(row["threshold"])
        assert covered.sum() == row["num_utterances"] >= row["coverage"] * size - 1e-9
        # A higher threshold would cover too few.
        above = (probabilities.max(1) > np.float32(row["threshold"])).sum()
        assert above < row["coverage"] * size - 1e-9
        true, predicted = references[covered], probabilities[covered].argmax(1)
        assert row["accuracy"] == pytest.approx(100 * accuracy_score(true, predicted))
        expected = f1_score(true, predicted, average="weighted", zero_division=0)
        assert row["weighted_f1"] == pytest.approx(100 * expected)


@given(confidences=CONFIDENCES)
@settings(max_examples=30, deadline=None)
def test_a_threshold_covers_what_predict_does_not_abstain_from(confidences):
    from answers import answer_of
    from redifu.inference.recogniser import _abstaining

    probabilities, _ = system_of(confidences, [True] * len(confidences))
    utterances = [{"speaker": "A", "text": "ah"}] * len(confidences)
    for percent in PERCENTS:
        threshold, covered = covered_at(probabilities.max(1), percent)
        answers = [answer_of({"utterances": utterances}, probabilities, LABELS)]
        ((_, predictions),) = _abstaining(answers, threshold)
        assert [each.emotion is not None for each in predictions] == covered.tolist()


def test_confidence_that_says_nothing_has_the_error_rate_as_area():
    scores = scored([0.5] * 8, [True] * 6 + [False] * 2)
    assert scores["aurc"] == pytest.approx(0.25)
    assert {row["num_utterances"] for row in scores["coverage"]} == {8}
