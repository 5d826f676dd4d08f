"""Lines are answered one by one, and a wrong one is no more than a complaint."""

import json
from collections.abc import Iterator
from functools import partial

import pytest

from model.tiny_models import tiny_model
from model.tiny_processors import feature_processor, utterance
from redifu.conversation import Conversation
from redifu.data.writers import with_predictions
from redifu.inference.predictions import predict_conversations
from redifu.inference.stdin_predictions import answer_lines

PROCESSOR = feature_processor()
predict = partial(predict_conversations, tiny_model(), PROCESSOR)


def check(conversation: Conversation) -> None:
    PROCESSOR.check(conversation.to_inputs())


GOOD = json.dumps({"utterances": [utterance(text_features=[0.5] * 6)]})
OVERFLOWING = json.dumps({"id": "loud", "utterances": [utterance(text_features=[3e38] * 6)]})


def test_a_line_is_answered_before_the_next_is_read() -> None:
    answered = []

    def lines() -> Iterator[str]:
        for number in range(3):
            assert len(answered) == number
            yield GOOD

    for conversation, predictions in answer_lines(
        predict, lines(), check=check, source="stdin", refuse=pytest.fail
    ):
        (prediction,) = predictions
        assert prediction.probabilities.shape == (3,)
        answered.append(conversation.id)
    assert answered == ["stdin-0", "stdin-1", "stdin-2"]


def test_a_wrong_line_is_refused_and_the_others_are_answered() -> None:
    complaints: list[str] = []
    wrong = json.dumps({"id": "d", "utterances": [utterance(audio_features=[1.0])]})
    lines = ["{]", "", GOOD, wrong, '{"utterances": []}', OVERFLOWING, GOOD]
    answers = answer_lines(predict, lines, check=check, source="stdin", refuse=complaints.append)
    assert [conversation.id for conversation, _ in answers] == ["stdin-1", "stdin-5"]
    assert [complaint.split(": ")[:3] for complaint in complaints] == [
        ["stdin", "line 1", "not JSON"],
        ["stdin", "line 4", "dialogue d, utterance 0"],
        ["stdin", "line 5", "dialogue stdin-3"],
        ["stdin", "line 6", "dialogue loud"],
    ]


def test_no_line_at_all_is_a_mistake() -> None:
    answers = answer_lines(predict, ["", "\n"], check=check, source="stdin", refuse=pytest.fail)
    with pytest.raises(ValueError, match="stdin: expected at least one conversation, got none"):
        list(answers)


RESERVED = [
    "_speakers",
    "speakers",
    "missing",
    "quality",
    "audio_quality",
    "columns",
    "folder",
    "given",
    "turn",
]
ODD = [5, "x", [1], {"a": 1}, {"audio": 5}, {"audio": "lost"}, True, [[None]]]
BROKEN = [
    *(
        "1",
        "null",
        "[]",
        '"x"',
        "{}",
        '{"utterances": 5}',
        '{"utterances": [5]}',
        '{"segments": [{"start": {}}]}',
    ),
    *("[" * 100_000, '{"utterances": ' + "[" * 5000, '{"a": ' * 5000, '{"a": ' + "9" * 5000 + "}"),
    '{"id": "\\ud800", "utterances": [{"speaker": "a", "text": "b"}]}',
    '{"utterances": [{"speaker": "a", "start": 1' + "0" * 400 + ', "text": "b"}]}',
    '{"utterances": [{"speaker": {}, "text": "b"}]}',
]


def test_no_line_ends_the_answers_to_those_after_it() -> None:
    utterances = [utterance(text_features=[0.5] * 6)]
    odd = [json.dumps({"utterances": utterances, key: value}) for key in RESERVED for value in ODD]
    odd += [json.dumps({"utterances": [{**utterances[0], key: value}]}) for key in RESERVED for value in ODD]
    refused: list[str] = []
    lines = [*odd, *BROKEN, GOOD]
    answers = answer_lines(predict, lines, check=check, source="stdin", refuse=refused.append)
    written = [json.dumps(with_predictions(*answer), default=str) for answer in answers]
    assert len(written) == len(odd) + 1, "keys that only look reserved are the user's own"
    assert [line.split(":")[1].strip() for line in refused] == [
        f"line {number}" for number in range(len(odd) + 1, len(lines))
    ]
    assert all(line.isprintable() and len(line) < 400 for line in refused)
