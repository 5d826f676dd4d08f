import json
import math
import time

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
)

from redifu.evaluation.metrics import (
    EmotionRecognitionMetric,
    bootstrap_sums,
    dialogue_confusions,
    expected_calibration_error,
    paired_bootstrap,
    score_predictions,
)

LABELS = ["neutral", "joy", "anger"]


def random_system(*, utterances=400, dialogues=40, num_labels=3, seed=0):
    generator = np.random.default_rng(seed)
    references = generator.integers(num_labels, size=utterances)
    logits = generator.normal(size=(utterances, num_labels)) + np.eye(num_labels)[references]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities, references, generator.integers(dialogues, size=utterances).tolist()


def certain(predicted, num_labels=3):
    return np.eye(num_labels)[predicted]


def test_numbers_computed_by_hand():
    scores = score_predictions(
        certain([0, 0, 1, 1, 2, 0]),
        [0, 0, 0, 1, 1, 2],
        dialogues=["a", "a", "a", "b", "b", "b"],
        labels=LABELS,
    )
    assert scores["confusion"] == [[2, 1, 0], [0, 1, 1], [1, 0, 0]]
    assert scores["num_utterances"] == 6
    neutral, joy, anger = (scores["per_class"][label] for label in LABELS)
    assert neutral == pytest.approx({"precision": 200 / 3, "recall": 200 / 3, "f1": 200 / 3, "support": 3})
    assert joy == pytest.approx({"precision": 50, "recall": 50, "f1": 50, "support": 2})
    assert anger == {"precision": 0, "recall": 0, "f1": 0, "support": 1}
    assert scores["accuracy"] == pytest.approx(50)
    assert scores["weighted_f1"] == pytest.approx((3 * 200 / 3 + 2 * 50) / 6)
    assert scores["macro_f1"] == pytest.approx((200 / 3 + 50) / 3)


def test_log_likelihood_computed_by_hand_and_finite_at_zero():
    scores = score_predictions([[0.5, 0.5], [0.2, 0.8]], [0, 1], dialogues=[0, 1], labels=["a", "b"])
    assert scores["nll"] == pytest.approx(-(math.log(0.5) + math.log(0.8)) / 2)
    impossible = score_predictions([[0.0, 1.0]], [0], dialogues=[0], labels=["a", "b"])
    assert 80 < impossible["nll"] < 90


def test_calibration_error_computed_by_hand():
    # 0.62 and 0.66 share the bin (9/15, 10/15], one of them is right; 0.9 is alone in (13/15, 14/15], right.
    probabilities = np.array([[0.62, 0.38], [0.66, 0.34], [0.1, 0.9]])
    expected = (abs(1 - 0.62 - 0.66) + abs(1 - 0.9)) / 3
    assert expected_calibration_error(probabilities, [0, 1, 1]) == pytest.approx(expected)


def test_calibration_bins_are_closed_on_the_right_and_hold_certainty():
    # 10/15 belongs with 0.65, below it; a wrong and a right answer then cancel within the bin.
    edge = np.linspace(0, 1, 16)[10]
    probabilities = np.array([[edge, 1 - edge], [0.65, 0.35]])
    assert expected_calibration_error(probabilities, [0, 1]) == pytest.approx(abs(1 - edge - 0.65) / 2)
    assert expected_calibration_error(np.array([[1.0, 0.0]]), [0]) == 0


@pytest.mark.parametrize("num_labels", [3, 7])
def test_equals_scikit_learn(num_labels):
    probabilities, references, dialogues = random_system(num_labels=num_labels)
    labels = [f"label {index}" for index in range(num_labels)]
    scores = score_predictions(probabilities, references, dialogues=dialogues, labels=labels)
    predicted = probabilities.argmax(1)
    assert scores["accuracy"] == pytest.approx(100 * accuracy_score(references, predicted))
    for name in ("weighted", "macro"):
        expected = f1_score(references, predicted, average=name, zero_division=0)
        assert scores[f"{name}_f1"] == pytest.approx(100 * expected)
    assert scores["confusion"] == confusion_matrix(references, predicted).tolist()
    assert scores["nll"] == pytest.approx(log_loss(references, probabilities))
    for name, column in zip(
        ("precision", "recall", "f1", "support"),
        precision_recall_fscore_support(references, predicted, zero_division=0),
        strict=True,
    ):
        unit = 1 if name == "support" else 100
        assert [scores["per_class"][label][name] for label in labels] == pytest.approx(list(unit * column))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_a_label_that_never_occurs_is_left_out_of_the_macro_mean_as_in_scikit_learn():
    references, predicted = [0, 0, 1], [0, 1, 1]
    scores = score_predictions(certain(predicted), references, dialogues=[0, 0, 1], labels=LABELS)
    assert scores["macro_f1"] == pytest.approx(100 * f1_score(references, predicted, average="macro"))
    predicted = [0, 2, 1]
    scores = score_predictions(certain(predicted), references, dialogues=[0, 0, 1], labels=LABELS)
    assert scores["macro_f1"] == pytest.approx(100 * f1_score(references, predicted, average="macro"))


def test_confusions_of_dialogues_are_each_dialogue_alone_and_add_up_to_the_whole():
    probabilities, references, dialogues = random_system()
    predicted = probabilities.argmax(1)
    counts = dialogue_confusions(predicted, references, dialogues=dialogues, num_labels=3)
    of_third = np.array(dialogues) == sorted(set(dialogues))[3]
    alone = confusion_matrix(references[of_third], predicted[of_third], labels=[0, 1, 2])
    np.testing.assert_array_equal(counts[3], alone)
    np.testing.assert_array_equal(counts.sum(0), confusion_matrix(references, predicted))


def test_bootstrap_sums_draw_as_many_rows_as_there_are():
    sums = bootstrap_sums(np.eye(5), resamples=20, seed=3)
    np.testing.assert_array_equal(sums.sum(1), 5)
    assert len({tuple(row) for row in sums}) > 1


def test_intervals_are_those_of_resampled_utterances_scored_by_scikit_learn():
    probabilities, references, dialogues = random_system(utterances=120, dialogues=12)
    scores = score_predictions(
        probabilities, references, dialogues=dialogues, labels=LABELS, resamples=50, seed=7
    )
    names, index = np.unique(dialogues, return_inverse=True)
    generator = np.random.default_rng(7)
    values = {"weighted_f1": [], "nll": []}
    for _ in range(50):
        drawn = generator.integers(len(names), size=len(names))
        rows = np.concatenate([np.flatnonzero(index == dialogue) for dialogue in drawn])
        true, predicted = references[rows], probabilities[rows].argmax(1)
        values["weighted_f1"].append(100 * f1_score(true, predicted, average="weighted", zero_division=0))
        values["nll"].append(log_loss(true, probabilities[rows], labels=[0, 1, 2]))
    for name, drawn_values in values.items():
        assert scores["intervals"][name] == pytest.approx(np.percentile(drawn_values, [2.5, 97.5]))


def test_intervals_follow_the_seed_and_hold_the_score():
    probabilities, references, dialogues = random_system()

    def intervals(seed):
        return score_predictions(probabilities, references, dialogues=dialogues, labels=LABELS, seed=seed)

    first, again, other = intervals(1), intervals(1), intervals(2)
    assert first == again
    assert first["intervals"] != other["intervals"]
    assert set(first["intervals"]) == {"weighted_f1", "macro_f1", "accuracy", "nll"}
    for name, (low, high) in first["intervals"].items():
        assert low < first[name] < high


def test_dialogues_and_not_utterances_are_resampled():
    probabilities, references, dialogues = random_system(utterances=100, dialogues=10)
    copies = 9

    def width(names):
        low, high = score_predictions(
            np.tile(probabilities, (copies, 1)), np.tile(references, copies), dialogues=names, labels=LABELS
        )["intervals"]["accuracy"]
        return high - low

    # Copies inside the same dialogues are no new evidence; as dialogues of their own they are.
    of_their_own = [f"{name}/{copy}" for copy in range(copies) for name in dialogues]
    assert width(dialogues * copies) > 2 * width(of_their_own)


def test_a_thousand_resamples_of_meld_test_take_about_a_second():
    probabilities, references, dialogues = random_system(utterances=2610, dialogues=280, num_labels=7)
    start = time.process_time()
    score_predictions(probabilities, references, dialogues=dialogues, labels=list("abcdefg"), resamples=1000)
    assert time.process_time() - start < 2


def test_scores_survive_json():
    probabilities, references, dialogues = random_system()
    scores = score_predictions(probabilities, references, dialogues=dialogues, labels=LABELS, resamples=10)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"references": [0, 3]}, r"label ids in 0\.\.2, got \[0, 3\]"),
        ({"references": [0, -100]}, r"got \[-100, 0\]"),
        ({"references": [0.0, 1.0]}, "label ids"),
        ({"references": [0]}, r"got \(2, 3\) and \(1,\)"),
        ({"probabilities": np.eye(4)[:2]}, r"shape \(2, 3\).*got \(2, 4\)"),
        ({"probabilities": [[1, 0, 0], [0.5, 0.1, 0.1]]}, "sum to 1, got .* in row 1"),
        ({"probabilities": [[np.nan, 0, 0], [1, 0, 0]]}, "sum to 1, got .* in row 0"),
        ({"probabilities": [[1.5, -0.5, 0], [1, 0, 0]]}, "sum to 1, got .* in row 0"),
        ({"probabilities": np.zeros((0, 3)), "references": [], "dialogues": []}, "at least one labelled"),
    ],
)
def test_wrong_input_is_refused(changed, message):
    given = {"probabilities": certain([0, 1]), "references": [0, 1], "dialogues": ["a", "b"]} | changed
    with pytest.raises(ValueError, match=message):
        score_predictions(given.pop("probabilities"), given.pop("references"), **given, labels=LABELS)


def test_metric_gives_the_same_in_batches_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "cache"))
    probabilities, references, dialogues = random_system()
    names = [f"dialogue {dialogue}" for dialogue in dialogues]
    metric = EmotionRecognitionMetric(LABELS, resamples=20, seed=4)
    for rows in (slice(150), slice(150, None)):
        metric.add_batch(predictions=probabilities[rows], references=references[rows], dialogues=names[rows])
    expected = score_predictions(
        probabilities, references, dialogues=names, labels=LABELS, resamples=20, seed=4
    )
    assert metric.compute() == expected
    assert metric.compute(predictions=probabilities, references=references, dialogues=names) == expected
    assert list(tmp_path.iterdir()) == []


def test_paired_bootstrap_of_a_system_with_itself_finds_nothing():
    probabilities, references, dialogues = random_system()
    result = paired_bootstrap(probabilities, probabilities, references, dialogues=dialogues, resamples=100)
    assert result == {"difference": 0, "interval": [0, 0], "p_value": 1}


def test_paired_bootstrap_finds_a_real_difference_and_its_sign():
    _, references, dialogues = random_system()
    right, mostly_right = certain(references), certain(np.where(np.arange(400) % 10 == 0, 0, references))
    better = paired_bootstrap(right, mostly_right, references, dialogues=dialogues, resamples=999)
    worse = paired_bootstrap(mostly_right, right, references, dialogues=dialogues, resamples=999)
    expected = (
        100 - score_predictions(mostly_right, references, dialogues=dialogues, labels=LABELS)["weighted_f1"]
    )
    assert better["difference"] == pytest.approx(expected)
    assert 0 < better["interval"][0] < better["difference"] < better["interval"][1]
    assert better["p_value"] == pytest.approx(2 / 1000)
    assert worse["difference"] == pytest.approx(-better["difference"])
    assert worse["interval"] == pytest.approx([-value for value in reversed(better["interval"])])


def test_paired_bootstrap_does_not_find_a_difference_in_noise():
    # Two systems wrong on different random utterances, equally often.
    _, references, dialogues = random_system()
    wrong = np.random.default_rng(5).permutation(400)[:200].reshape(2, 100)
    first, second = (certain(np.where(np.isin(np.arange(400), rows), 0, references)) for rows in wrong)
    result = paired_bootstrap(first, second, references, dialogues=dialogues, resamples=1000)
    assert result["interval"][0] < 0 < result["interval"][1]
    assert result["p_value"] > 0.05


def test_pairing_removes_what_both_systems_share():
    probabilities, references, dialogues = random_system()
    almost_same = probabilities.copy()
    almost_same[:4] = certain(references[:4])
    low, high = paired_bootstrap(almost_same, probabilities, references, dialogues=dialogues, resamples=500)[
        "interval"
    ]
    alone = score_predictions(probabilities, references, dialogues=dialogues, labels=LABELS)
    alone_low, alone_high = alone["intervals"]["weighted_f1"]
    assert high - low < (alone_high - alone_low) / 2


def test_paired_bootstrap_of_several_runs_is_of_their_mean():
    runs = [random_system(seed=0)[0], certain(random_system(seed=0)[1])]
    other, references, dialogues = random_system(seed=0)
    several = paired_bootstrap(np.stack(runs), other, references, dialogues=dialogues, resamples=10)
    single = [
        paired_bootstrap(run, other, references, dialogues=dialogues, resamples=10)["difference"]
        for run in runs
    ]
    assert several["difference"] == pytest.approx(np.mean(single))
    assert single[0] == 0 < single[1]


def test_paired_bootstrap_refuses_systems_of_different_utterances():
    probabilities, references, dialogues = random_system()
    with pytest.raises(ValueError, match=r"shape \(400, 3\).*got \(399, 3\)"):
        paired_bootstrap(probabilities, probabilities[1:], references, dialogues=dialogues)
