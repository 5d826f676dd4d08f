"""One set of weights under every condition: the same as predicting what was corrupted, and little slower."""

from dataclasses import replace

import numpy as np
import pytest

from answers import conversation_of, predicted
from model.tiny_models import LABELS, SIZES, TEXT_CONFIGS, raw_model, tiny_model
from model.tiny_processors import WORDS, feature_processor, text_processor, tokenizer
from redifu.data.media_reading import read_media
from redifu.evaluation.corruptions import Grid, Severities, corrupt
from redifu.evaluation.robustness import evaluate_robustness, predict_robustness, robustness_rows
from redifu.evaluation.scoring import evaluate_conversations
from redifu.model import ReDiFuFeatureExtractor, ReDiFuProcessor

GRID = Grid(
    conditions={
        "subsets": Severities(),
        "missing": Severities(severities=(0.0, 0.5), draws=2),
        "missing_side": Severities(severities=(0.5,), draws=2),
        "bursts": Severities(severities=(2.0,)),
        "noise": Severities(severities=(0.0, 1.0)),
        "permuted": Severities(draws=2),
    },
    seed=3,
)


def labelled_conversations(lengths=(5, 1, 8), seed=0):
    """Dialogues of all streams, as texts and as features; of some utterances one is missing."""
    generator = np.random.default_rng(seed)
    conversations = []
    for number, length in enumerate(lengths):
        utterances = []
        for turn in range(length):
            words = generator.choice(WORDS[4:], size=3)
            one = {"speaker": "AB"[turn % 2], "text": " ".join(words), "label": generator.choice(LABELS)}
            one |= {f"{name}_features": generator.normal(size=size).tolist() for name, size in SIZES.items()}
            if turn % 4 == 3:
                one["audio_features"] = None
            utterances.append(one)
        conversations.append(conversation_of({"id": f"d{number}", "utterances": utterances}))
    return conversations


def value_of(rows, condition, severity, metric):
    (found,) = [
        row["value"]
        for row in rows
        if (row["condition"], row["severity"], row["metric"]) == (condition, severity, metric)
    ]
    return found


def test_the_clean_scores_are_those_of_the_protocol():
    model, processor, given = tiny_model(), feature_processor(), labelled_conversations()
    rows = evaluate_robustness(model, processor, given, GRID).rows
    metrics = evaluate_conversations(model, processor, given)
    for name in ("weighted_f1", "macro_f1", "accuracy", "nll", "ece"):
        assert value_of(rows, "clean", "0", name) == pytest.approx(metrics[name], abs=1e-4)
    for label, scores in metrics["per_class"].items():
        assert value_of(rows, "clean", "0", f"f1_{label}") == pytest.approx(scores["f1"], abs=1e-4)


def test_nothing_done_is_the_clean_result():
    predicted = predict_robustness(tiny_model(), feature_processor(), labelled_conversations(), GRID)
    clean = predicted.of("clean", "0")[0]
    for condition, severity in (("missing", "0"), ("noise", "0"), ("subsets", "tav")):
        for draw in predicted.of(condition, severity):
            np.testing.assert_array_equal(draw, clean)
    for condition, severity in (("missing", "0.5"), ("noise", "1"), ("permuted", "1"), ("subsets", "t")):
        assert np.abs(predicted.of(condition, severity)[0] - clean).max() > 1e-3


@pytest.mark.parametrize("context", [0, 2])
def test_texts_encoded_once_give_what_texts_encoded_each_time_give(context):
    model = tiny_model(text_config=TEXT_CONFIGS["bert"].to_dict(), visual_size=None)
    processor = text_processor(text_context_turns=context, max_text_tokens=30, max_utterances=6)
    given = labelled_conversations()
    encoded = []
    model.redifu.text_backbone.register_forward_hook(lambda *_: encoded.append(1))
    found = predict_robustness(model, processor, given, GRID)
    number = len(encoded)
    keys = {"text": "text", "audio": "audio_features", "visual": "visual_features"}
    ours = [
        replace(one, utterances=[each.with_fields(visual_features=None) for each in one.utterances])
        for one in given
    ]
    passes = 0
    for point in GRID.points(model.config.modalities):
        for draw in range(point.draws):
            corrupted = corrupt(ours, point, draw=draw, grid_seed=GRID.seed, keys=keys)
            plain = [rows for _, rows in predicted(model, processor, corrupted)]
            expected = np.concatenate(plain)
            expected[np.isnan(expected)] = 1 / len(LABELS)
            np.testing.assert_allclose(
                found.of(point.name, point.severity)[draw], expected, atol=1e-5, err_msg=str(point)
            )
            passes += 1
    assert (len(encoded) - number) >= passes - 1  # audio alone has no text
    if not context:
        assert number <= 3  # batches of the first pass


def test_gain_and_harm_are_against_the_text_only_model():
    given = labelled_conversations()
    model, processor = tiny_model(), feature_processor()
    predicted = predict_robustness(model, processor, given, GRID)
    references = predicted.references
    right = np.eye(len(LABELS), dtype=np.float32)[references]
    rows = robustness_rows(predicted, text_only=right)
    for condition, severity in (("clean", "0"), ("noise", "1")):
        accuracy, weighted_f1, gain, harm = (
            value_of(rows, condition, severity, name)
            for name in ("accuracy", "weighted_f1", "gain_over_text", "harm")
        )
        assert harm == pytest.approx(100 - accuracy)
        assert gain == pytest.approx(weighted_f1 - 100)
    own = robustness_rows(predicted)
    assert value_of(own, "subsets", "t", "gain_over_text") == value_of(own, "subsets", "t", "harm") == 0
    with pytest.raises(ValueError, match=r"shape \(14, 3\), got \(13, 3\)"):
        robustness_rows(predicted, text_only=right[1:])


def test_text_alone_is_predicted_for_the_gain_where_the_grid_lacks_it():
    grid = Grid(conditions={"permuted": Severities()})
    rows = evaluate_robustness(tiny_model(), feature_processor(), labelled_conversations(), grid).rows
    assert value_of(rows, "subsets", "t", "gain_over_text") == 0
    assert value_of(rows, "permuted", "1", "gain_over_text") == pytest.approx(
        value_of(rows, "permuted", "1", "weighted_f1") - value_of(rows, "subsets", "t", "weighted_f1")
    )


def test_reliability_is_the_mean_over_utterances_that_have_the_stream():
    given = labelled_conversations()
    model, processor = tiny_model(fusion="text_diffusion"), feature_processor()
    rows = evaluate_robustness(model, processor, given, GRID).rows
    for place, name in ((1, "audio"), (2, "visual")):
        found = []
        for one in given:
            batch = processor(one.to_inputs())
            output = model(**{key: batch[key] for key in batch if key != "labels"})
            found += output.reliability[0, batch["modality_mask"][0, :, place], place].tolist()
        assert value_of(rows, "clean", "0", f"reliability_{name}") == pytest.approx(np.mean(found), abs=1e-5)
    # Of a stream that is hidden everywhere nothing is known.
    hidden = {row["metric"] for row in rows if (row["condition"], row["severity"]) == ("subsets", "ta")}
    assert "reliability_audio" in hidden and "reliability_visual" not in hidden


def test_an_utterance_with_nothing_left_is_scored_all_the_same():
    predicted = predict_robustness(tiny_model(), feature_processor(), labelled_conversations(), GRID)
    sound_only = predicted.of("subsets", "a")[0]
    silent = [turn % 4 == 3 for length in (5, 1, 8) for turn in range(length)]
    np.testing.assert_allclose(sound_only[silent], 1 / len(LABELS))
    assert (sound_only[~np.array(silent)].std(axis=1) > 1e-3).all()


def test_data_without_labels_is_refused():
    given = labelled_conversations()
    given = [
        replace(one, utterances=[each.with_fields(label=None) for each in one.utterances]) for one in given
    ]
    with pytest.raises(ValueError, match="at least one labelled utterance, got none"):
        predict_robustness(tiny_model(), feature_processor(), given, GRID)


SOUND_GRID = Grid(
    conditions={name: Severities(severities=(100.0, -20.0)) for name in ("white_noise", "babble_noise")}
)


def spoken_conversations(folder):
    """Two dialogues of one recording with a span each, and of a file for each utterance; one has no sound."""
    pytest.importorskip("av", reason="the extra media is not installed")
    made_media = pytest.importorskip("media.made_media", reason="the extra media is not installed")
    generator = np.random.default_rng(0)
    tones = [made_media.tone(0.6, frequency=frequency) for frequency in (150, 220, 300, 410)]
    tones = [one + generator.normal(0, 0.01, len(one)).astype(np.float32) for one in tones]
    made_media.write_sound(folder / "both.wav", np.concatenate(tones[:2]))
    made_media.write_sound(folder / "third.wav", tones[2])
    utterances = [
        {"audio": "both.wav", "start": 0.0, "end": 0.6},
        {"audio": "both.wav", "start": 0.6, "end": 1.2},
        {"audio": "third.wav"},
        {"text": "hello you"},
    ]
    utterances = [{"speaker": "Ana", "text": "yes", "label": LABELS[0], **one} for one in utterances]
    parts = {"first": utterances[:2], "second": utterances[2:]}
    return [conversation_of({"id": name, "utterances": part}, folder) for name, part in parts.items()]


def test_noise_in_the_sound_reaches_the_features(tmp_path):
    given = spoken_conversations(tmp_path)
    model = tiny_model(text_config=TEXT_CONFIGS["bert"].to_dict(), audio_size=291, visual_size=None)
    extractor = ReDiFuFeatureExtractor(audio_backend="log_mel")
    extractor.fit(read_media(each, extractor).to_inputs() for each in given)
    processor = ReDiFuProcessor(extractor, tokenizer(), labels=LABELS, max_text_tokens=30)
    found = predict_robustness(model, processor, given, SOUND_GRID)
    clean = found.of("clean", "0")[0]
    plain = [rows for _, rows in predicted(model, processor, given)]
    np.testing.assert_allclose(clean, np.concatenate(plain), atol=1e-5)
    for name in SOUND_GRID.conditions:
        np.testing.assert_allclose(found.of(name, "100")[0], clean, atol=1e-2)
        assert np.abs(found.of(name, "-20")[0] - clean).max() > 1e-2


def test_noise_in_the_sound_is_left_out_for_a_model_that_reads_none(caplog):
    grid = Grid(conditions={**SOUND_GRID.conditions, "permuted": Severities()})
    predicted = predict_robustness(tiny_model(), feature_processor(), labelled_conversations(), grid)
    assert [each.condition for each in predicted.conditions] == ["clean", "permuted", "subsets"]
    assert "waveform noise is skipped" in caplog.text


def test_what_backbones_read_is_embedded_once(tmp_path):
    given = spoken_conversations(tmp_path)
    model = raw_model()
    extractor = ReDiFuFeatureExtractor(audio_backend="backbone", visual_backend="backbone", picture_size=8)
    processor = ReDiFuProcessor(extractor, tokenizer(), labels=LABELS, max_text_tokens=30)
    encoded = []
    model.redifu.audio_backbone.register_forward_hook(lambda *_: encoded.append(1))
    grid = Grid(conditions={**GRID.conditions, "white_noise": Severities(severities=(-20.0,))})
    found = predict_robustness(model, processor, given, grid)
    # Three sounds, once as they are and once in noise.
    assert len(encoded) == 6
    clean = found.of("clean", "0")[0]
    plain = [rows for _, rows in predicted(model, processor, given)]
    np.testing.assert_allclose(clean, np.concatenate(plain), atol=1e-5)
    for condition, severity in (("noise", "1"), ("white_noise", "-20")):
        assert np.abs(found.of(condition, severity)[0] - clean).max() > 1e-4
