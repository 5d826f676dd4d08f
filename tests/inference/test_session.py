"""A live session answers as the model does on the window, keeps no more than that, and survives mistakes."""

import gc
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from answers import conversation_of
from media.made_media import tone, write_sound
from model.tiny_models import LABELS, SIZES, VARIANTS, raw_model, text_model, tiny_model
from model.tiny_processors import WORDS, feature_processor, tokenizer
from redifu import ConversationSession
from redifu.data.media_reading import read_media
from redifu.model import ReDiFuFeatureExtractor, ReDiFuProcessor

WINDOW = 4
STREAMS = ("text", "audio", "visual")


def text_processor(**fields: Any) -> ReDiFuProcessor:
    """A processor of texts and ready features of sound and picture, which it normalises."""
    statistics = {"audio": {"mean": [0.5] * 5, "std": [2.0] * 5}}
    sizes = {"audio_size": SIZES["audio"], "visual_size": SIZES["visual"], "statistics": statistics}
    return ReDiFuProcessor(ReDiFuFeatureExtractor(**sizes), tokenizer(), labels=LABELS, **fields)


def random_utterances(number: int, *, speakers: int = 5, seed: int = 0) -> list[dict[str, Any]]:
    """Utterances of many speakers, each with some of the streams."""
    generator = random.Random(seed)
    utterances = []
    for _ in range(number):
        utterance: dict[str, Any] = {"speaker": f"speaker {generator.randrange(speakers)}"}
        for name in generator.sample(STREAMS, k=generator.randint(1, 3)):
            features = [generator.gauss(0, 1) for _ in range(SIZES[name])]
            utterance[f"{name}_features"] = features
        if "text_features" in utterance:
            utterance["text"] = " ".join(generator.choices(WORDS[4:], k=generator.randint(1, 4)))
        utterances.append(utterance)
    return utterances


def without_text_features(utterances: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in each.items() if name != "text_features"} for each in utterances]


def last_row(model: Any, processor: Any, utterances: list[dict[str, Any]]) -> dict[str, float]:
    """The scores of the last of these utterances, a dialogue that stands in a batch with another one."""
    other = {"utterances": random_utterances(6, seed=9)}
    if processor.tokenizer is not None:
        other = {"utterances": without_text_features(other["utterances"])}
    batch = processor([{"utterances": utterances}, other])
    with torch.no_grad():
        row = model(**batch).logits[0, len(utterances) - 1].softmax(-1)
    return dict(zip(LABELS, row.tolist(), strict=True))


def assert_answers_as_the_model(
    model: Any, processor: Any, utterances: list[dict[str, Any]], *, window: int = WINDOW
) -> None:
    session = ConversationSession(model, processor, window=window)
    for number, utterance in enumerate(utterances, start=1):
        answer = session.add(utterance)
        seen = utterances[max(number - window, 0) : number]
        assert answer["scores"] == pytest.approx(last_row(model, processor, seen), abs=1e-5)
        assert answer["emotion"] == max(answer["scores"], key=answer["scores"].__getitem__)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "not causal"])
@pytest.mark.parametrize("text", ["features", "backbone"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_answer_is_the_last_row_of_the_window(variant: str, text: str, causal: bool) -> None:
    fields = {**VARIANTS[variant], "causal": causal}
    utterances = random_utterances(9)
    if text == "features":
        assert_answers_as_the_model(tiny_model(**fields), feature_processor(), utterances)
    else:
        model = text_model("bert", **fields)
        assert_answers_as_the_model(model, text_processor(), without_text_features(utterances))


@pytest.mark.parametrize("speaker_in_text", [False, True])
@pytest.mark.parametrize("turns", [1, 2, 9])
def test_context_and_names_in_the_text_are_those_of_the_window(turns: int, speaker_in_text: bool) -> None:
    processor = text_processor(text_context_turns=turns, speaker_in_text=speaker_in_text, max_text_tokens=16)
    utterances = without_text_features(random_utterances(9))
    assert_answers_as_the_model(text_model("bert", causal=True), processor, utterances)


def test_any_number_of_speakers_may_come_and_go() -> None:
    utterances = random_utterances(12, speakers=100)
    assert len({utterance["speaker"] for utterance in utterances}) > 9
    # More than the window holds, and in the second more than have an embedding of their own.
    assert_answers_as_the_model(tiny_model(num_speakers=3), feature_processor(), utterances, window=2)
    assert_answers_as_the_model(tiny_model(num_speakers=3), feature_processor(), utterances, window=9)


def test_renaming_the_speakers_changes_nothing() -> None:
    model, processor = tiny_model(causal=True), feature_processor()
    sessions = [ConversationSession(model, processor, window=WINDOW) for _ in range(2)]
    for utterance in random_utterances(9):
        renamed = {**utterance, "speaker": utterance["speaker"][::-1]}
        assert sessions[0].add(utterance) == sessions[1].add(renamed)


def test_only_what_is_new_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = text_model("bert", causal=True), text_processor()
    session = ConversationSession(model, processor, window=WINDOW)
    texts: list[int] = []
    model.redifu.text_backbone.register_forward_pre_hook(
        lambda _, args, kwargs: texts.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    extracted: list[str] = []
    normalise = processor.feature_extractor._normalise
    monkeypatch.setattr(
        processor.feature_extractor,
        "_normalise",
        lambda name, values: extracted.append(name) or normalise(name, values),
    )
    utterances = [
        {"speaker": "Ana", "text": text, "audio_features": [1.0] * 5}
        for text in ("hello", "you came", "no", "no", "yes !", "hello", "you", "came")
    ]
    for utterance in utterances:
        session.add(utterance)
    # One text each time; none for the second "no", which stands in the window, as "hello" does no more.
    assert texts == [1] * 7
    assert extracted == ["audio"] * len(utterances)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"text": "no"}, "speaker"),
        ({"speaker": "Ana"}, "at least one of text"),
        ({"speaker": "Ana", "text": 3}, "text"),
        ({"speaker": "Ana", "text": "no", "label": "bored"}, "label must be one of calm, glad, cross"),
        ({"speaker": "Ana", "audio_features": [1.0] * 4}, "audio_features.*5.*4"),
        ({"speaker": "Ana", "audio_features": [float("nan")] * 5}, "audio_features"),
        ("hello", "object"),
    ],
)
def test_a_wrong_utterance_leaves_the_session_as_it_was(wrong: Any, complaint: str) -> None:
    model, processor = text_model("bert", causal=True), text_processor()
    disturbed, calm = (ConversationSession(model, processor, window=WINDOW) for _ in range(2))
    for number, utterance in enumerate(without_text_features(random_utterances(6))):
        with pytest.raises(ValueError, match=f"session, utterance {number}: .*{complaint}") as error:
            disturbed.add(wrong)
        assert "\n" not in str(error.value)
        assert disturbed.add(utterance) == calm.add(utterance)


def test_what_overflows_leaves_the_session_as_it_was() -> None:
    model, processor = tiny_model(causal=True), feature_processor()
    disturbed, calm = (ConversationSession(model, processor, window=WINDOW) for _ in range(2))
    for utterance in random_utterances(3):
        with pytest.raises(FloatingPointError):
            disturbed.add({"speaker": "Ana", "visual_features": [3e38] * 4})
        assert disturbed.add(utterance) == calm.add(utterance)


def test_an_utterance_without_a_stream_to_read_has_no_answer_and_counts() -> None:
    model = tiny_model(causal=True)
    session = ConversationSession(model, feature_processor(), window=WINDOW)
    unread = {"speaker": "Ana", "text": "what this checkpoint does not read"}
    assert session.add(unread) == {"emotion": None, "scores": None}
    first, second = random_utterances(2)
    session.add(first)
    assert session.add(unread) == {"emotion": None, "scores": None}
    expected = last_row(model, feature_processor(), [unread, first, unread, second])
    assert session.add(second)["scores"] == pytest.approx(expected, abs=1e-5)


def test_a_model_in_training_mode_answers_without_dropout() -> None:
    model = text_model("bert", causal=True, dropout=0.5)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    utterances = without_text_features(random_utterances(5))
    sessions = [ConversationSession(model, text_processor()) for _ in range(2)]
    expected = [sessions[0].add(utterance) for utterance in utterances]
    for utterance, answer in zip(utterances, expected, strict=True):
        assert sessions[1].add(utterance) == answer
        model.train()


def bytes_kept(session: ConversationSession) -> int:
    """The size of all that a session holds beside its model and processor."""
    shared = (session.model, session.processor)
    waiting: list[Any] = [each for each in vars(session).values() if each not in shared]
    seen: dict[int, Any] = {}
    while waiting:
        thing = waiting.pop()
        if id(thing) not in seen and not isinstance(thing, type | ModuleType):
            seen[id(thing)] = thing
            waiting += gc.get_referents(thing)
    tensors = [each for each in seen.values() if isinstance(each, torch.Tensor)]
    stored = sum(each.untyped_storage().nbytes() for each in tensors)
    return stored + sum(sys.getsizeof(each) for each in seen.values())


def test_a_long_conversation_takes_no_more_memory() -> None:
    model = text_model("bert", fusion="concat", relation_modalities=[], visual_size=None)
    session = ConversationSession(model, text_processor(text_context_turns=1), window=WINDOW)
    generator = random.Random(0)

    def most_kept(turns: int) -> int:
        most = 0
        for _ in range(turns):
            text = " ".join(generator.choices(WORDS[4:], k=6))
            utterance = {"speaker": f"{generator.random():.9f}", "text": text, "audio_features": [0.5] * 5}
            session.add(utterance)
            most = max(most, bytes_kept(session))
        return most

    early = most_kept(50)
    assert 1000 < early < 100_000
    # An utterance kept would be some hundred bytes more.
    assert most_kept(300) < early + 5000


def test_a_window_holds_an_utterance_at_least() -> None:
    with pytest.raises(ValueError, match="window must be at least 1, got 0"):
        ConversationSession(tiny_model(), feature_processor(), window=0)


def test_backbones_hear_and_see_each_utterance_once(test_data: Path, tmp_path: Path) -> None:
    options = {"audio_backend": "backbone", "visual_backend": "backbone", "picture_size": 8}
    model = raw_model()
    processor = ReDiFuProcessor(ReDiFuFeatureExtractor(**options), tokenizer(), labels=LABELS)
    sounds = [str(write_sound(tmp_path / f"{n}.wav", tone(0.2 + 0.1 * n))) for n in range(3)]
    utterances = [{"speaker": "Ana", "text": "hello", "audio": path} for path in sounds]
    utterances[1]["video"] = str(test_data / "fixtures/talking_face.mp4")
    utterances[1]["end"] = 1.0
    heard: list[int] = []
    model.redifu.audio_backbone.register_forward_pre_hook(
        lambda _, args, kwargs: heard.append(len(kwargs["input_values"])), with_kwargs=True
    )
    session = ConversationSession(model, processor)
    answers = [session.add(utterance) for utterance in utterances]
    assert heard == [1, 1, 1]
    with torch.no_grad():
        read = read_media(conversation_of({"utterances": utterances}), processor.feature_extractor)
        expected = model(**processor.batch([read.to_inputs()])).logits[0, -1].softmax(-1)
    assert list(answers[-1]["scores"].values()) == pytest.approx(expected.tolist(), abs=1e-5)
