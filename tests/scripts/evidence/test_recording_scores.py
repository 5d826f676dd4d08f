"""Errors in words, speakers and emotions of recordings, with numbers worked out by hand."""

import numpy as np
import pytest

pytest.importorskip("meeteval", reason="counting needs the extra `dev`")

from script_modules import load_script

script = load_script("evidence/recording_scores")
Turn = script.EmotionalTurn
LABELS = ["calm", "glad", "cross"]

REFERENCE = [
    Turn("Ana", 0, 4, "Kids are talking by the door.", "glad"),
    Turn("Ben", 4, 8, "Dogs are sitting.", "calm"),
    Turn("Ana", 8, 10, "OK.", "cross"),
]


def renamed(turns, **names):
    return [turn._replace(speaker=names[turn.speaker]) for turn in turns]


def rates_of(found, reference=REFERENCE):
    counts = script.count(reference, found, labels=LABELS)
    return {
        name: (errors, total)
        for name, (errors, total) in zip(script.RATES, counts.rates.tolist(), strict=True)
    }


def test_what_is_all_right_has_no_error_whatever_the_speakers_are_called():
    rates = rates_of(renamed(REFERENCE, Ana="speaker 1", Ben="speaker 2"))
    assert {name: errors for name, (errors, _) in rates.items()} == {
        **dict.fromkeys(("wer", "cpwer", "tcpwer", "der", "der_collar_no_overlap", "teer", "steer"), 0),
        "speakers_right": 1,
        "speakers_within_one": 1,
    }
    assert rates["wer"][1] == rates["cpwer"][1] == 10
    assert rates["der"][1] == rates["teer"][1] == 10
    # 0.25 s are left out on either side of 0, 4, 8 and 10 s.
    assert rates["der_collar_no_overlap"][1] == pytest.approx(8.5)
    assert (
        script.emotion_confusion(REFERENCE, REFERENCE, labels=LABELS).tolist()
        == np.diag([1, 1, 1, 0]).tolist()
    )


def test_nothing_found_is_all_missed():
    rates = rates_of([])
    for name in ("wer", "cpwer", "tcpwer", "der", "teer", "steer"):
        assert rates[name] == (10, 10)
    assert rates["speakers_right"] == rates["speakers_within_one"] == (0, 1)
    confusion = script.emotion_confusion(REFERENCE, [], labels=LABELS)
    assert confusion[:, -1].tolist() == [1, 1, 1, 0] and confusion.sum() == 3


def test_words_are_counted_without_case_and_punctuation():
    # Of 10 words: "kids" became "kiss", "sitting" is missing, "then" is one too many.
    found = [
        Turn("x", 0, 4, "KISS ARE TALKING, BY THE DOOR", "glad"),
        Turn("y", 4, 8, "dogs are", "calm"),
        Turn("x", 8, 10, "okay then", "cross"),
    ]
    found[2] = found[2]._replace(text="OK then")
    rates = rates_of(found)
    assert rates["wer"] == rates["cpwer"] == rates["tcpwer"] == (3, 10)


def test_a_word_of_the_wrong_speaker_counts_twice_in_cpwer_only():
    # "door" is Ben's: missing in Ana's words and one too many in his.
    found = [
        Turn("x", 0, 3.5, "Kids are talking by the", "glad"),
        Turn("y", 3.5, 8, "door. Dogs are sitting.", "calm"),
        Turn("x", 8, 10, "OK.", "cross"),
    ]
    rates = rates_of(found)
    assert rates["wer"] == (0, 10)
    assert rates["cpwer"] == rates["tcpwer"] == (2, 10)
    assert rates["der"] == (0.5, 10)


def test_words_at_another_time_count_in_tcpwer_only():
    reference = [Turn("Ana", 0, 1, "Hello there.", "glad"), Turn("Ana", 30, 31, "Good evening.", "calm")]
    rates = rates_of(
        [turn._replace(start=turn.start + 10, end=turn.end + 10) for turn in reference], reference
    )
    assert rates["cpwer"] == (0, 4)
    assert rates["tcpwer"] == (8, 4)  # all four are missing, and four others too many


def test_seconds_of_wrong_speakers_and_emotions():
    # 0-4 right; 4-6 another emotion; 6-8 Ana in place of Ben with his emotion; 8-9 missed; 10-11 silent.
    found = [
        Turn("x", 0, 4, "", "glad"),
        Turn("y", 4, 6, "", "cross"),
        Turn("x", 6, 8, "", "calm"),
        Turn("x", 9, 10, "", "cross"),
        Turn("x", 10, 11, "", "calm"),
    ]
    rates = rates_of(found)
    assert rates["der"] == (2 + 1 + 1, 10)
    assert rates["teer"] == (2 + 1 + 1, 10)
    assert rates["steer"] == (2 + 2 + 1 + 1, 10)


def test_the_same_emotion_of_two_at_a_time_is_twice_the_speech():
    reference = [Turn("Ana", 0, 2, "a", "glad"), Turn("Ben", 1, 3, "b", "glad")]
    assert rates_of(reference, reference)["teer"] == (0, 4)
    assert rates_of(reference[:1], reference)["teer"] == (2, 4)
    # A third speaker, or one too many of an emotion, is a false alarm.
    more = [*reference, Turn("Eve", 1, 2, "c", "glad")]
    assert rates_of(more, reference)["teer"] == rates_of(more, reference)["der"] == (1, 4)


def test_an_extra_speaker_with_a_true_name_is_not_right():
    # "Ben" is found where Ana speaks and "Ana" nowhere in the truth.
    reference = [Turn("Ana", 0, 4, "a", "glad")]
    found = [Turn("Ben", 0, 3, "a", "glad"), Turn("Ana", 3, 4, "a", "glad")]
    rates = rates_of(found, reference)
    assert rates["teer"] == (0, 4)
    assert rates["steer"] == rates["der"] == (1, 4)
    assert rates["speakers_right"] == (0, 1) and rates["speakers_within_one"] == (1, 1)


def test_turns_belong_together_by_common_time_and_the_rest_are_errors():
    found = [
        Turn("x", 0, 1, "", "calm"),  # beside the better match of the first
        Turn("x", 1, 4, "", "glad"),
        Turn("x", 5, 10, "", "calm"),  # 3 s with the second, 2 s with the third
        Turn("x", 12, 13, "", None),
    ]
    confusion = script.emotion_confusion(REFERENCE, found, labels=LABELS)
    expected = np.zeros((4, 4))
    expected[1, 1] = expected[0, 0] = 1  # right
    expected[2, 3] = 1  # the third turn has no partner
    expected[3, 0] = expected[3, 3] = 1  # nor have the first and the last found
    np.testing.assert_array_equal(confusion, expected)
    # F1: calm 2 * 1 / (1 + 2), glad 1, cross 0; one turn each.
    assert script.weighted_f1(confusion) == pytest.approx(100 * (2 / 3 + 1 + 0) / 3)


def test_a_turn_without_an_emotion_is_an_error():
    found = [turn._replace(emotion=None) for turn in REFERENCE[:1]] + REFERENCE[1:]
    assert rates_of(found)["teer"] == (4, 10)
    confusion = script.emotion_confusion(REFERENCE, found, labels=LABELS)
    assert confusion[1].tolist() == [0, 0, 0, 1]


def test_scores_are_sums_over_recordings_with_intervals():
    good = script.count(REFERENCE, REFERENCE, labels=LABELS)
    bad = script.count(REFERENCE, [], labels=LABELS)
    scores = script.scores_of([good, bad], [good, good], resamples=200)
    assert scores["wer"] == {"value": 0.5, "interval": [0.0, 1.0]}
    assert scores["speakers_right"]["value"] == 0.5
    # Each label once found in two: F1 2 * 1 / (2 + 1).
    assert scores["weighted_f1"]["value"] == pytest.approx(200 / 3)
    assert scores["weighted_f1_lost"]["value"] == pytest.approx(100 / 3)
    assert scores["weighted_f1_lost"]["interval"] == pytest.approx([0, 100])
    assert script.scores_of([good, bad], [good, bad])["weighted_f1_lost"]["interval"] == [0, 0]
