import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from answers import predicted
from inference.stand_in_model import LABELS, WORDS, StandInModel, StandInProcessor, conversation
from model.tiny_models import LABELS as TINY_LABELS
from model.tiny_models import SIZES, text_model
from redifu.inference.batches import batches_by_length
from redifu.model import ReDiFuFeatureExtractor, ReDiFuProcessor


def random_conversations(lengths, seed=0):
    generator = np.random.default_rng(seed)
    return [
        conversation(f"dialogue {index}", generator.choice(WORDS, size=length).tolist())
        for index, length in enumerate(lengths)
    ]


def by_hand(model, dialogue):
    """The stand-in model's equations, one utterance at a time, over the whole dialogue."""
    rows = []
    turns = [utterance.text for utterance in dialogue.utterances]
    for turn in range(len(turns)):
        logits = torch.zeros(len(LABELS))
        for back in range(min(turn, 2) + 1):
            if turns[turn - back] is not None:
                logits += model.table.detach()[WORDS.index(turns[turn - back])] / (1 + back)
        rows.append(logits.softmax(-1).numpy())
    return np.stack(rows)


LENGTHS = [3, 17, 1, 5, 6, 2, 40, 1, 7, 4, 5]


@pytest.mark.parametrize("batch_utterances", [1, 7, 256])
@pytest.mark.parametrize("lookahead_utterances", [1, 20, 1000])
def test_order_and_numbers_do_not_depend_on_the_batching(batch_utterances, lookahead_utterances):
    model, conversations = StandInModel(), random_conversations(LENGTHS)
    answers = list(
        predicted(
            model,
            StandInProcessor(),
            conversations,
            batch_utterances=batch_utterances,
            lookahead_utterances=lookahead_utterances,
        )
    )
    assert len(answers) == len(conversations)
    for (returned, probabilities), given in zip(answers, conversations, strict=True):
        assert returned == given
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities, by_hand(model, given), atol=1e-5)


@pytest.mark.parametrize(("lookahead_utterances", "most_ahead"), [(1, 1), (12, 4), (30, 10)])
def test_reads_no_further_ahead_than_the_window(lookahead_utterances, most_ahead):
    pulled = 0

    def endless():
        nonlocal pulled
        for index in itertools.count():
            pulled += 1
            yield conversation(str(index), ["ah", "oh", "hm"])

    predictions = predicted(
        StandInModel(), StandInProcessor(), endless(), lookahead_utterances=lookahead_utterances
    )
    assert pulled == 0
    for given_out in range(1, 50):
        returned, _ = next(predictions)
        assert returned.id == str(given_out - 1)
        assert pulled - given_out < most_ahead


def test_memory_holds_one_window():
    alive = 0

    class Counted(dict):
        def __init__(self, *arguments):
            nonlocal alive
            super().__init__(*arguments)
            alive += 1

        def __del__(self):
            nonlocal alive
            alive -= 1

    most = 0
    made = (conversation(str(index), ["ah", "oh"]) for index in range(200))
    # `given` goes wherever the conversation does.
    given = (replace(each, given=Counted(each.given)) for each in made)
    predictions = predicted(StandInModel(), StandInProcessor(), given, lookahead_utterances=10)
    for _ in predictions:
        most = max(most, alive)
    # The window of five, the one being filled while its last is still in the caller's hands.
    assert most <= 11


def test_batches_stay_within_their_size_padding_included():
    model = StandInModel()
    list(predicted(model, StandInProcessor(), random_conversations(LENGTHS), batch_utterances=12))
    assert all(rows * longest <= 12 for rows, longest in model.batch_shapes)
    assert max(rows for rows, _ in model.batch_shapes) > 1


def test_batches_hold_every_index_once_and_similar_lengths():
    lengths = [5, 30, 2, 2, 9, 5, 1]
    batches = batches_by_length(lengths, batch_utterances=10)
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(len(lengths)))
    assert [[lengths[index] for index in batch] for batch in batches] == [[1, 2, 2], [5, 5], [9], [30]]


def test_an_utterance_without_a_usable_stream_has_nan_and_the_others_their_numbers():
    model, given = StandInModel(), conversation("gap", ["ah", None, "oh"])
    ((_, probabilities),) = predicted(model, StandInProcessor(), [given])
    assert np.isnan(probabilities).tolist() == [[False] * 3, [True] * 3, [False] * 3]
    np.testing.assert_allclose(probabilities[[0, 2]], by_hand(model, given)[[0, 2]], atol=1e-5)


def test_a_model_in_training_mode_is_put_in_evaluation_mode_for_every_batch():
    model = StandInModel().train()
    predictions = predicted(model, StandInProcessor(), random_conversations([2, 2]), lookahead_utterances=1)
    next(predictions)
    model.train()
    next(predictions)
    assert not model.training


def test_a_model_that_diverged_is_named_and_not_taken_for_a_missing_stream():
    model = StandInModel()
    model.table.data[WORDS.index("so")] = torch.nan
    given = [conversation("fine", ["ah"]), conversation("broken", ["ah", "so"])]
    with pytest.raises(FloatingPointError, match="dialogue broken"):
        list(predicted(model, StandInProcessor(), given))


@pytest.mark.parametrize("name", ["batch_utterances", "lookahead_utterances"])
def test_a_limit_below_one_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        next(predicted(StandInModel(), StandInProcessor(), [], **{name: 0}))


def test_no_conversation_gives_nothing():
    assert list(predicted(StandInModel(), StandInProcessor(), [])) == []


def real_processor():
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return ReDiFuProcessor(
        ReDiFuFeatureExtractor(audio_size=SIZES["audio"], visual_size=SIZES["visual"]),
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"),
        labels=TINY_LABELS,
        max_utterances=16,
    )


def conversation_with_gaps(length, generator):
    """Random speakers and streams, of which an utterance may lack some or all."""
    utterances = []
    for _ in range(length):
        streams = {
            "text": " ".join(generator.choice(WORDS, size=generator.integers(1, 9))),
            "audio_features": generator.normal(size=SIZES["audio"]).tolist(),
            "visual_features": generator.normal(size=SIZES["visual"]).tolist(),
        }
        present = {name: value for name, value in streams.items() if generator.random() < 0.5}
        utterances.append({"speaker": str(generator.choice(["Ana", "Ben"])), **present})
    return {"id": str(length), "utterances": utterances}


def test_the_real_model_gives_the_same_numbers_at_any_batch_size():
    generator = np.random.default_rng(0)
    conversations = [conversation_with_gaps(length, generator) for length in (4, 30, 1, 9, 12, 2)]
    conversations.append({"id": "nothing", "utterances": [{"speaker": "Ana"}]})
    model, processor = text_model("bert"), real_processor()
    runs = [list(predicted(model, processor, conversations, batch_utterances=size)) for size in (1, 24, 256)]
    for given, one, *others in zip(conversations, *runs, strict=True):
        returned, expected = one
        assert returned.to_dict() == given
        present = [len(utterance) > 1 for utterance in given["utterances"]]
        assert (~np.isnan(expected)).all(1).tolist() == present
        np.testing.assert_allclose(expected[present].sum(1), 1, atol=1e-5)
        for _, probabilities in others:
            np.testing.assert_allclose(probabilities, expected, atol=1e-5)
