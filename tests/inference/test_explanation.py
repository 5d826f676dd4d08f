"""Explanations are figures of the model itself, each checked against another way to get it."""

import json

import numpy as np
import pytest
import torch

from answers import conversation_of, explained, predicted
from model.tiny_models import LABELS, SIZES, VARIANTS, text_model, tiny_model
from model.tiny_processors import conversation, feature_processor, text_processor, utterance
from redifu.data.writers import with_predictions
from redifu.inference.explanation import MOST_ATTENDED, explain_conversations
from redifu.inference.predictions import predict_conversations
from redifu.model import MODALITIES


def random_conversation(length, *, seed=0, streams=MODALITIES, share=0.7):
    """Features of random utterances, of which some lack streams, or have none at all."""
    generator = np.random.default_rng(seed)
    return conversation(
        *(
            utterance(
                str(generator.choice(["Ana", "Ben", "Cem"])),
                **{
                    f"{name}_features": generator.normal(size=SIZES[name]).tolist()
                    for name in streams
                    if generator.random() < share
                },
            )
            for _ in range(length)
        ),
        name=f"d{seed}",
    )


def explain(model, processor, given, **options):
    ((explanations, probabilities),) = explained(model, processor, [given], **options)
    return explanations, probabilities


def test_leaving_a_stream_out_is_predicting_without_it():
    model, processor, given = tiny_model(), feature_processor(), random_conversation(12)
    explanations, probabilities = explain(model, processor, given)
    emotions = probabilities.argmax(1)
    for name in MODALITIES:
        silent = [{**each, f"{name}_features": None} for each in given["utterances"]]
        ((_, without),) = predicted(model, processor, [{"id": "d", "utterances": silent}])
        for turn, (each, explanation) in enumerate(zip(given["utterances"], explanations, strict=True)):
            if explanation is None:
                assert len(each) == 1 and np.isnan(probabilities[turn]).all()
                continue
            contributions, emotion_without = explanation["contributions"], explanation["emotion_without"]
            assert (name in contributions) == (name in emotion_without) == (f"{name}_features" in each)
            if name not in contributions:
                continue
            if np.isnan(without[turn]).any():
                assert contributions[name] is None and emotion_without[name] is None
                continue
            kept, left = probabilities[turn, emotions[turn]], without[turn, emotions[turn]]
            assert contributions[name] == pytest.approx(kept - left, abs=1e-5)
            assert emotion_without[name] == LABELS[without[turn].argmax()]


def test_a_text_is_left_out_of_the_context_of_others_too():
    model, processor = text_model("bert", visual_size=None), text_processor(text_context_turns=2)
    words = ["hello", "you came !", "no", "yes"]
    given = conversation(*(utterance(text=text, audio_features=[0.3] * 5) for text in words))
    explanations, probabilities = explain(model, processor, given)
    silent = {**given, "utterances": [{**each, "text": None} for each in given["utterances"]]}
    ((_, without),) = predicted(model, processor, [silent])
    for turn, explanation in enumerate(explanations):
        emotion = probabilities[turn].argmax()
        expected = probabilities[turn, emotion] - without[turn, emotion]
        assert explanation["contributions"]["text"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_predictions_are_those_without_an_explanation(variant):
    model, processor = tiny_model(**VARIANTS[variant]), feature_processor(max_utterances=8)
    given = [random_conversation(length, seed=length) for length in (20, 1, 5)]
    before = model.config._attn_implementation
    answers = list(explained(model, processor, given))
    plain = list(predicted(model, processor, given))
    assert model.config._attn_implementation == before == "sdpa"
    for one, (explanations, probabilities), (returned, expected) in zip(given, answers, plain, strict=True):
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)
        for each, explanation in zip(one["utterances"], explanations, strict=True):
            assert (explanation is None) == (len(each) == 1)
        assert returned.to_dict() == one


@pytest.mark.parametrize("variant", VARIANTS)
def test_explanations_do_not_depend_on_the_batching(variant):
    model, processor = tiny_model(**VARIANTS[variant]), feature_processor(max_utterances=8)
    given = [random_conversation(length, seed=length) for length in (20, 1, 5, 7)]
    one, other = (
        json.dumps([each for each, _ in explained(model, processor, given, batch_utterances=size)])
        for size in (1, 256)
    )
    rounded = [
        json.loads(text, parse_float=lambda value: pytest.approx(float(value), abs=1e-5))
        for text in (one, other)
    ]
    assert rounded[0] == json.loads(other)


def attention_maps(model, processor, given):
    """All weights of the model on one dialogue, averaged over heads and layers: (utterances, utterances)."""
    with torch.no_grad():
        output = model(**processor([given]), output_attentions=True)
    return {name: maps[0].mean(0).numpy() for name, maps in output.attentions.items()}, output


def ranked(row, turn):
    """The heaviest earlier utterances of a row of weights."""
    turns = sorted(range(turn), key=lambda earlier: -row[earlier])[:MOST_ATTENDED]
    return [(earlier, pytest.approx(row[earlier], abs=1e-6)) for earlier in turns if row[earlier] > 0]


@pytest.mark.parametrize("variant", ["meld", "causal", "whole", "related"])
def test_attended_are_the_heaviest_earlier_utterances(variant):
    fields = {"fusion": "concat"} if variant == "related" else VARIANTS[variant]
    model, processor, given = tiny_model(**fields), feature_processor(), random_conversation(10, share=1)
    maps, output = attention_maps(model, processor, given)
    explanations, _ = explain(model, processor, given)
    for turn, explanation in enumerate(explanations):
        if variant == "related":
            row = (maps["text_inter_speaker"][turn] + maps["text_intra_speaker"][turn]) / 2
        elif variant == "whole":
            trust = output.reliability[0, turn].numpy()
            received = [maps[f"text.{name}"][turn] for name in MODALITIES]
            row = sum(share * each for share, each in zip(trust, received, strict=True)) / trust.sum()
            assert list(explanation["reliability"].values()) == pytest.approx(trust, abs=1e-6)
        else:
            row = (maps["text.audio"][turn] + maps["text.visual"][turn]) / 2
        assert [(each["turn"], each["weight"]) for each in explanation["attended"]] == ranked(row, turn)
        assert (explanation["reliability"] is None) == (variant != "whole")
        assert row.sum() == pytest.approx(1, abs=1e-5)


def test_a_stream_that_the_conversation_lacks_takes_no_share_of_the_attention():
    model, processor = tiny_model(), feature_processor()
    given = random_conversation(6, share=1, streams=("text", "audio"))
    maps, _ = attention_maps(model, processor, given)
    explanations, _ = explain(model, processor, given)
    for turn, explanation in enumerate(explanations):
        found = [(each["turn"], each["weight"]) for each in explanation["attended"]]
        assert found == ranked(maps["text.audio"][turn], turn)


def test_turns_are_those_of_the_whole_dialogue_where_it_is_cut():
    model, processor = tiny_model(fusion="concat"), feature_processor(max_utterances=8)
    explanations, _ = explain(model, processor, random_conversation(30, share=1))
    window = model.config.relation_window
    for turn, explanation in enumerate(explanations):
        attended = [each["turn"] for each in explanation["attended"]]
        assert bool(attended) == (turn > 0)
        assert all(turn - window <= earlier < turn for earlier in attended)


@pytest.mark.parametrize("fields", [{"attention_window": 2, "relation_modalities": []}, VARIANTS["baseline"]])
def test_a_model_that_shows_no_weights_attends_nothing_that_is_known(fields):
    explanations, _ = explain(tiny_model(**fields), feature_processor(), random_conversation(4, share=1))
    assert [explanation["attended"] for explanation in explanations] == [None] * 4


def test_the_only_stream_of_a_model_has_no_contribution():
    model = tiny_model(audio_size=None, visual_size=None)
    explanations, _ = explain(model, feature_processor(), random_conversation(3, streams=["text"], share=1))
    for explanation in explanations:
        assert explanation["contributions"] == explanation["emotion_without"] == {"text": None}


def test_quality_and_reasons_are_told_as_far_as_they_are_known():
    (first, *others) = random_conversation(3, share=1)["utterances"]
    measured = {**first, "audio_quality": [12.5, 0.0, float("nan"), 1.5], "missing": {"visual": "no face"}}
    del measured["visual_features"]
    others[0]["audio_quality"], others[1]["visual_quality"] = "good", [1.0, "far", 1e300, 2]
    explanations, _ = explain(tiny_model(), feature_processor(), conversation(measured, *others))
    assert explanations[0]["quality"] == {"audio": {"snr": 12.5, "clipping": 0.0, "duration": 1.5}}
    assert explanations[0]["missing"] == {"visual": "no face"}
    assert explanations[1]["quality"] == explanations[1]["missing"] == {}
    assert explanations[2]["quality"] == {"visual": {"face_share": 1.0, "brightness": 2.0}}


def test_a_stream_that_is_not_the_speakers_is_missing():
    model, given = tiny_model(**VARIANTS["consistent"]), random_conversation(30, share=0.8)
    processor = feature_processor()
    explanations, _ = explain(model, processor, given)
    with torch.no_grad():
        likely = model(**processor(given)).consistency[0]
    ((_, plain),) = predict_conversations(model, processor, [conversation_of(given)])
    told = set()
    for row, explanation, each, answer in zip(likely, explanations, given["utterances"], plain, strict=True):
        there = [name for name in MODALITIES if f"{name}_features" in each]
        unlike = [
            name for name, value in zip(MODALITIES[1:], row, strict=True) if value < 0.5 and name in there
        ]
        if not there:
            continue
        expected = unlike if len(unlike) < len(there) else []
        assert list(explanation["missing"]) == expected
        named = [f"{name}: {why}" for name, why in explanation["missing"].items()]
        assert [reason for reason in answer.reasons if reason != "no words"] == named
        told.update(explanation["missing"].values())
        for name in expected:
            assert explanation["reliability"][name] == 0
    assert len(told) == 2 and all("the speaker's other utterances" in reason for reason in told)


def test_media_are_read_once(monkeypatch):
    from redifu.data import media_reading
    from redifu.media.reading import Reading
    from redifu.model.feature_extraction_redifu import AUDIO_BACKENDS, ReDiFuFeatureExtractor

    read = []

    def reading(extractor, stream, medium, spans, **options):
        read.append(medium)
        features = np.full(AUDIO_BACKENDS["log_mel"], 0.5, dtype=np.float32)
        return [Reading(values=features, quality={"snr": 20.0})]

    monkeypatch.setattr(media_reading, "read_spans", reading)
    processor = feature_processor()
    processor.feature_extractor = ReDiFuFeatureExtractor(text_size=6, audio_backend="log_mel", visual_size=4)
    model = tiny_model(audio_size=AUDIO_BACKENDS["log_mel"])
    given = conversation(utterance(audio="a.wav", text_features=[0.1] * 6), utterance(audio="b.wav"))
    ((returned, predictions),) = explain_conversations(model, processor, [conversation_of(given)])
    assert read == ["a.wav", "b.wav"]
    explanations = [each.explanation for each in predictions]
    assert [explanation["quality"] for explanation in explanations] == [{"audio": {"snr": 20.0}}] * 2
    assert explanations[0]["contributions"].keys() == {"text", "audio"}
    # What was read is not written.
    written = with_predictions(returned, predictions)
    assert written["utterances"][1].keys() == {
        *("speaker", "audio", "explanation", "emotion", "scores", "reasons")
    }


def test_an_export_is_refused():
    with pytest.raises(ValueError, match="an ONNX export cannot explain its predictions"):
        next(explain_conversations(object(), feature_processor(), []))
