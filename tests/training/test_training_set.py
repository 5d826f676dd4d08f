"""What an epoch shows: streams hidden, long dialogues cut, batches shared."""

from collections import Counter
from copy import deepcopy

import numpy as np
import pytest

from redifu.data.collator import LengthGroupedBatchSampler
from redifu.model import ReDiFuFeatureExtractor
from redifu.training.training_set import ProcessShare, TrainingDialogues, hide_streams
from training.toy import toy_conversations

KEYS = ("text_features", "audio_features")


class CutInTwos:
    """Stands in for a processor of ready features: pieces of two utterances with one more as context."""

    tokenizer = None
    feature_extractor = ReDiFuFeatureExtractor(text_size=4, audio_size=3)

    def split_long(self, conversation: dict) -> list[tuple[dict, slice]]:
        utterances = conversation["utterances"]
        pieces = []
        for start in range(0, len(utterances), 2):
            first = max(start - 1, 0)
            kept = len(utterances[start : start + 2])
            piece = {**conversation, "utterances": utterances[first : start + 2]}
            pieces.append((piece, slice(start - first, start - first + kept)))
        return pieces


def dialogues(modality_dropout: float = 0.0) -> TrainingDialogues:
    return TrainingDialogues(
        toy_conversations(10, seed=0),
        processor=CutInTwos(),
        modality_dropout=modality_dropout,
        seed=3,
    )


def streams(utterance: dict) -> set[str]:
    return {key for key in KEYS if utterance.get(key) is not None}


def test_hiding_never_takes_the_last_stream() -> None:
    generator = np.random.default_rng(0)
    for conversation in toy_conversations(50, seed=0):
        hidden = hide_streams(conversation, keys=KEYS, probability=0.999, generator=generator)
        assert [len(streams(utterance)) for utterance in hidden["utterances"]] == [1] * len(
            hidden["utterances"]
        )


def test_each_stream_is_hidden_as_often_as_asked_and_stays_as_often() -> None:
    generator = np.random.default_rng(0)
    utterance = {
        "speaker": "Ana",
        "text_features": [1.0],
        "audio_features": [1.0],
        "text": "Hi",
        "audio": "a.wav",
    }
    conversation = {"id": "one", "utterances": [utterance] * 20_000}
    hidden = hide_streams(conversation, keys=KEYS, probability=0.3, generator=generator)
    shares = Counter(frozenset(streams(each)) for each in hidden["utterances"])
    # Both would go with a probability of 0.09; then one of them, each equally often, stays.
    assert shares[frozenset(KEYS)] / 20_000 == pytest.approx(0.49, abs=0.01)
    assert [shares[frozenset([key])] / 20_000 for key in KEYS] == pytest.approx([0.255, 0.255], abs=0.01)


def test_hiding_changes_neither_the_conversation_nor_what_is_no_stream() -> None:
    conversation = toy_conversations(1, seed=1)[0]
    before = deepcopy(conversation)
    hidden = hide_streams(conversation, keys=KEYS, probability=0.9, generator=np.random.default_rng(0))
    assert conversation == before
    for given, shown in zip(conversation["utterances"], hidden["utterances"], strict=True):
        assert (shown["speaker"], shown["label"]) == (given["speaker"], given["label"])


def test_a_stream_the_model_does_not_read_saves_no_other() -> None:
    utterance = {"speaker": "Ana", "text_features": [1.0], "visual_features": [1.0]}
    for seed in range(20):
        hidden = hide_streams(
            {"id": "one", "utterances": [utterance]},
            keys=KEYS,
            probability=0.999,
            generator=np.random.default_rng(seed),
        )
        assert hidden["utterances"] == [utterance]


def test_every_label_counts_once_however_a_dialogue_is_cut() -> None:
    whole = [one["label"] for each in toy_conversations(10, seed=0) for one in each["utterances"]]
    cut = dialogues()
    shown = [one["label"] for place in range(len(cut)) for one in cut[place, True]["utterances"]]
    assert max(cut.lengths) == 3
    assert [label for label in shown if label is not None] == whole


def test_what_can_not_be_learnt_from_is_left_out() -> None:
    unlabelled = {"id": "a", "utterances": [{"speaker": "Ana", "text_features": [1.0]}]}
    unreadable = {"id": "b", "utterances": [{"speaker": "Ana", "text": "Hi", "label": "calm"}]}
    cut = TrainingDialogues([unlabelled, unreadable], processor=CutInTwos(), modality_dropout=0.0, seed=0)
    assert len(cut) == 0


def test_what_is_hidden_follows_from_seed_epoch_and_place() -> None:
    first, second = dialogues(0.5), dialogues(0.5)
    shown = [first[place, True] for place in range(len(first))]
    assert [second[place, True] for place in reversed(range(len(second)))] == shown[::-1]
    second.epoch = 1
    assert [second[place, True] for place in range(len(second))] != shown


@pytest.mark.parametrize("num_processes", [1, 2, 3, 5])
def test_the_shares_of_the_processes_are_the_batches(num_processes: int) -> None:
    batches = LengthGroupedBatchSampler(range(1, 12), batch_size=3, seed=0)
    shares = [
        list(ProcessShare(batches, process=process, num_processes=num_processes))
        for process in range(num_processes)
    ]
    assert {len(share) for share in shares} == {len(batches)}
    assert all(item for share in shares for item in share)
    for place, batch in enumerate(batches):
        counted = [index for share in shares for index, counts in share[place] if counts]
        assert sorted(counted) == sorted(batch)


def test_a_dialogue_that_is_not_counted_has_no_labels() -> None:
    shown = dialogues()[0, False]
    assert all(one["label"] is None for one in shown["utterances"])
