"""What an epoch shows: streams hidden, long dialogues cut, batches shared."""

import pytest

from redifu.data.length_batches import LengthGroupedBatchSampler
from redifu.model import ReDiFuFeatureExtractor
from redifu.training.training_set import ProcessShare, TrainingDialogues
from training.toy import toy_conversations


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


def in_noise(conversations: list[dict]) -> list[dict]:
    """The same with other audio features, everywhere."""
    return [
        {**each, "utterances": [{**one, "audio_features": [9.0, 9.0, 9.0]} for one in each["utterances"]]}
        for each in conversations
    ]


def test_half_of_the_dialogues_are_in_noise_drawn_anew_in_every_epoch() -> None:
    given = toy_conversations(60, seed=0)
    options = {"processor": CutInTwos(), "modality_dropout": 0.0, "seed": 3}
    clean, mixed = (
        TrainingDialogues(given, **options),
        TrainingDialogues(given, noisy=in_noise(given), **options),
    )
    drawn = []
    for epoch in range(2):
        mixed.epoch = epoch
        shown = [mixed[place, True] for place in range(len(mixed))]
        drawn.append([each != clean[place, True] for place, each in enumerate(shown)])
        for place, each in enumerate(shown):
            expected = clean[place, True]
            assert each in (expected, *in_noise([expected]))
        assert 0.35 < sum(drawn[-1]) / len(mixed) < 0.65
    assert drawn[0] != drawn[1]


def test_copies_of_other_dialogues_are_refused() -> None:
    given = toy_conversations(3, seed=0)
    renamed = [*given[:2], {**given[2], "id": "other"}]
    shorter = [given[0], {**given[1], "utterances": given[1]["utterances"][1:]}, given[2]]
    for noisy, got in (
        (renamed, "dialogue other with"),
        (shorter, "dialogue toy-1 with"),
        (given[:2], "the end of the data"),
    ):
        with pytest.raises(ValueError, match=f"data.train_noisy must hold .* expected dialogue .*got {got}"):
            TrainingDialogues(given, noisy=noisy, processor=CutInTwos(), modality_dropout=0.0, seed=0)


class ReadsSounds(CutInTwos):
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
        [{"id": "a", "utterances": utterances}], processor=ReadsSounds(), modality_dropout=0.5, seed=0
    )
    shown = [one for place in range(len(cut)) for one in cut[place, True]["utterances"]]
    for one in shown:
        given = [one.get(key) is not None for key in ("text_features", "audio_features", "audio")]
        assert given[1:] != [True, True]  # a file beside its features would be read where these are hidden
        assert any(given) and (one["turn"] % 3 != 1 or given == [True, False, False])
    # Features and files alike are hidden at times.
    assert {one["turn"] % 3 for one in shown if not one.get("audio_features") and not one["audio"]} == {
        0,
        1,
        2,
    }


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
