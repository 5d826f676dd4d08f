"""What an epoch shows: streams hidden, long dialogues cut, batches shared."""

from dataclasses import replace

import numpy as np
import pytest

from answers import conversation_of
from redifu.conversation import Conversation
from redifu.data.length_batches import LengthGroupedBatchSampler
from redifu.model import ReDiFuFeatureExtractor
from redifu.training.training_set import ProcessShare, TrainingDialogues
from training.toy import toy_conversations


class Cuts:
    """Stands in for a processor of ready features, which reads an utterance with one on either side."""

    tokenizer = None
    feature_extractor = ReDiFuFeatureExtractor(text_size=4, audio_size=3)
    max_utterances = 3


def talks(number: int) -> list[Conversation]:
    return [conversation_of(each) for each in toy_conversations(number, seed=0)]


def dialogues(modality_dropout: float = 0.0) -> TrainingDialogues:
    return TrainingDialogues(talks(10), processor=Cuts(), modality_dropout=modality_dropout, seed=3)


def seen(conversation: Conversation) -> list[tuple]:
    """What training reads of a conversation, to be compared."""
    features = ("text_features", "audio_features")
    return [
        (conversation.id, one.speaker, one.label, one.text, one.audio)
        + tuple(None if (row := getattr(one, name)) is None else tuple(row) for name in features)
        for one in conversation.utterances
    ]


def test_every_label_counts_once_however_a_dialogue_is_cut() -> None:
    whole = [one.label for each in talks(10) for one in each.utterances]
    cut = dialogues()
    shown = [one.label for place in range(len(cut)) for one in cut[place, True].utterances]
    assert max(cut.lengths) == 3
    assert [label for label in shown if label is not None] == whole


def test_what_can_not_be_learnt_from_is_left_out() -> None:
    unlabelled = {"id": "a", "utterances": [{"speaker": "Ana", "text_features": [1.0]}]}
    unreadable = {"id": "b", "utterances": [{"speaker": "Ana", "text": "Hi", "label": "calm"}]}
    given = [conversation_of(unlabelled), conversation_of(unreadable)]
    cut = TrainingDialogues(given, processor=Cuts(), modality_dropout=0.0, seed=0)
    assert len(cut) == 0


def test_what_is_hidden_follows_from_seed_epoch_and_place() -> None:
    first, second = dialogues(0.5), dialogues(0.5)
    shown = [seen(first[place, True]) for place in range(len(first))]
    assert [seen(second[place, True]) for place in reversed(range(len(second)))] == shown[::-1]
    second.epoch = 1
    assert [seen(second[place, True]) for place in range(len(second))] != shown


def in_noise(conversations: list[Conversation]) -> list[Conversation]:
    """The same with other audio features, everywhere."""
    noise = np.full(3, 9.0)
    return [
        replace(each, utterances=[one.with_fields(audio_features=noise) for one in each.utterances])
        for each in conversations
    ]


def test_half_of_the_dialogues_are_in_noise_drawn_anew_in_every_epoch() -> None:
    given = talks(60)
    options = {"processor": Cuts(), "modality_dropout": 0.0, "seed": 3}
    clean, mixed = (
        TrainingDialogues(given, **options),
        TrainingDialogues(given, noisy=in_noise(given), **options),
    )
    drawn = []
    for epoch in range(2):
        mixed.epoch = epoch
        shown = [seen(mixed[place, True]) for place in range(len(mixed))]
        drawn.append([each != seen(clean[place, True]) for place, each in enumerate(shown)])
        for place, each in enumerate(shown):
            expected = clean[place, True]
            assert each in (seen(expected), *map(seen, in_noise([expected])))
        assert 0.35 < sum(drawn[-1]) / len(mixed) < 0.65
    assert drawn[0] != drawn[1]


def test_copies_of_other_dialogues_are_refused() -> None:
    given = talks(3)
    renamed = [*given[:2], replace(given[2], id="other")]
    shorter = [given[0], replace(given[1], utterances=given[1].utterances[1:]), given[2]]
    for noisy, got in (
        (renamed, "dialogue other with"),
        (shorter, "dialogue toy-1 with"),
        (given[:2], "the end of the data"),
    ):
        with pytest.raises(ValueError, match=f"data.train_noisy must hold .* expected dialogue .*got {got}"):
            TrainingDialogues(given, noisy=noisy, processor=Cuts(), modality_dropout=0.0, seed=0)


class ReadsSounds(Cuts):
    """Takes files in place of features of audio."""

    feature_extractor = ReDiFuFeatureExtractor(text_size=4, audio_backend="log_mel")


def test_a_stream_is_hidden_with_the_file_it_was_read_from() -> None:
    extracted = {"audio": "a.wav", "audio_features": [1.0]}
    failed = {"audio": "b.wav", "missing": {"audio": "silent"}}
    streams = [extracted, failed, {"audio": "c.wav"}] * 20
    utterances = [
        {"speaker": "Ana", "label": "calm", "text_features": [1.0], **each, "turn": turn}
        for turn, each in enumerate(streams)
    ]
    cut = TrainingDialogues(
        [conversation_of({"id": "a", "utterances": utterances})],
        processor=ReadsSounds(),
        modality_dropout=0.5,
        seed=0,
    )
    shown = [one for place in range(len(cut)) for one in cut[place, True].utterances]
    for one in shown:
        given = [getattr(one, key) is not None for key in ("text_features", "audio_features", "audio")]
        assert given[1:] != [True, True]  # a file beside its features would be read where these are hidden
        assert any(given) and (one.given["turn"] % 3 != 1 or given == [True, False, False])
    # Features and files alike are hidden at times.
    hidden = [one for one in shown if one.audio_features is None and one.audio is None]
    assert {one.given["turn"] % 3 for one in hidden} == {0, 1, 2}


def test_side_dropout_hides_the_sound_of_whole_dialogues() -> None:
    options = {"processor": Cuts(), "modality_dropout": 0.0, "seed": 3}
    whole, without = (TrainingDialogues(talks(40), side_dropout=rate, **options) for rate in (0.0, 0.5))
    hidden = []
    for place in range(len(whole)):
        pairs = list(zip(whole[place, True].utterances, without[place, True].utterances, strict=True))
        gone = {
            shown.audio_features is None
            for given, shown in pairs
            if given.text_features is not None and given.audio_features is not None
        }
        assert len(gone) <= 1
        assert all((shown.text_features is None) == (given.text_features is None) for given, shown in pairs)
        hidden += gone
    assert 0.3 < np.mean(hidden) < 0.7


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
    assert all(one.label is None for one in shown.utterances)
