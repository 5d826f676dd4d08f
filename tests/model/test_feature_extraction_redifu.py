"""Ready features: padding, presence, normalisation, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

from redifu.media.face_features import ACTION_UNITS, FACE_DESCRIPTOR_SIZE
from redifu.model import ReDiFuFeatureExtractor, ReDiFuProcessor
from redifu.model.audio_features import LOG_MEL_SIZE
from redifu.model.feature_extraction_redifu import AUDIO_BACKENDS, VISUAL_BACKENDS


def conversation(*utterances: dict[str, Any]) -> dict[str, Any]:
    """A conversation of one speaker."""
    return {"id": "d", "utterances": [{"speaker": "Ana", **utterance} for utterance in utterances]}


@pytest.fixture
def extractor() -> ReDiFuFeatureExtractor:
    return ReDiFuFeatureExtractor(audio_size=3, visual_size=2)


def random_conversations(seed: int = 0, *, offset: float = 0.0, scale: float = 1.0) -> list[dict[str, Any]]:
    """Six conversations; every third utterance has no picture."""
    generator = np.random.default_rng(seed)
    return [
        conversation(
            *(
                {"audio_features": (offset + scale * generator.normal(size=3)).tolist()}
                | ({"visual_features": generator.normal(size=2).tolist()} if turn % 3 else {})
                for turn in range(length)
            )
        )
        for length in (1, 4, 2, 7, 3, 5)
    ]


def column(conversations: list[dict[str, Any]], key: str) -> np.ndarray:
    """All values of a stream, (utterances, size)."""
    found = (utterance.get(key) for each in conversations for utterance in each["utterances"])
    return np.array([values for values in found if values is not None])


def test_padding_and_presence(extractor: ReDiFuFeatureExtractor) -> None:
    first = conversation({"audio_features": [1, 2, 3]}, {"visual_features": [4, 5], "audio_features": None})
    second = conversation({"audio_features": [6, 7, 8], "visual_features": [9, 10]})
    batch = extractor([first, second], return_tensors="pt")
    assert batch["audio_features"].tolist() == [[[1, 2, 3], [0, 0, 0]], [[6, 7, 8], [0, 0, 0]]]
    assert batch["visual_features"].tolist() == [[[0, 0], [4, 5]], [[9, 10], [0, 0]]]
    assert batch["utterance_mask"].tolist() == [[True, True], [True, False]]
    assert batch["modality_mask"].int().tolist() == [[[0, 1, 0], [0, 0, 1]], [[0, 1, 1], [0, 0, 0]]]
    assert batch["audio_features"].dtype == torch.float32
    assert "text_features" not in batch


def test_a_stream_that_nobody_has_is_left_out(extractor: ReDiFuFeatureExtractor) -> None:
    batch = extractor([conversation({"audio_features": [1, 2, 3]})])
    assert "visual_features" not in batch
    assert isinstance(batch["audio_features"], np.ndarray)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], "audio_features.*3.*2"),
        ([[1.0, 2.0, 3.0]], r"audio_features.*3.*\(1, 3\)"),
        ([], "audio_features.*3.*0"),
        ([1.0, float("nan"), 2.0], "audio_features.*finite"),
        ([1.0, float("inf"), 2.0], "audio_features.*finite"),
        ([1.0, None, 2.0], "audio_features"),
        ([1.0, "loud", 2.0], "audio_features"),
        ([1.0, [2.0], 3.0], "audio_features"),
        ("loud", "audio_features"),
    ],
)
def test_wrong_features_are_refused(extractor: ReDiFuFeatureExtractor, values: Any, message: str) -> None:
    wrong = {"audio_features": values}
    with pytest.raises(ValueError, match=message):
        extractor.check(wrong)
    for call in (extractor.fit, ReDiFuProcessor(extractor)):
        with pytest.raises(ValueError, match=message):
            call([conversation({"audio_features": [0, 0, 0]}, wrong)])


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (-3.0, 100.0), (1e4, 0.1), (0.0, 1e-4)])
def test_fitted_statistics_are_mean_and_deviation(
    extractor: ReDiFuFeatureExtractor, offset: float, scale: float
) -> None:
    conversations = random_conversations(offset=offset, scale=scale)
    assert extractor.fit(conversations) is extractor
    for name in ("audio", "visual"):
        values = column(conversations, f"{name}_features")
        np.testing.assert_allclose(extractor.statistics[name]["mean"], values.mean(0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(extractor.statistics[name]["std"], values.std(0), rtol=1e-4)


def test_normalised_features_have_mean_zero_and_deviation_one(extractor: ReDiFuFeatureExtractor) -> None:
    conversations = random_conversations(offset=50.0, scale=9.0)
    batch = extractor.fit(conversations)(conversations)
    for index, name in ((1, "audio"), (2, "visual")):
        values = batch[f"{name}_features"][batch["modality_mask"][..., index]]
        np.testing.assert_allclose(values.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(values.std(0), 1, atol=1e-5)
        assert not batch[f"{name}_features"][~batch["modality_mask"][..., index]].any()


@pytest.mark.parametrize("constant", [0.0, 0.1, -1 / 3, 12345.678, 1e6 + 1 / 3])
def test_a_constant_feature_becomes_zero(constant: float) -> None:
    extractor = ReDiFuFeatureExtractor(audio_size=2)
    noise = np.random.default_rng(0).normal(size=50)
    many = [conversation(*({"audio_features": [constant, value]} for value in noise))]
    values = extractor.fit(many)(many)["audio_features"][0]
    assert np.abs(values[:, 0]).max() < 1e-3
    assert values[:, 1].std() == pytest.approx(1, abs=1e-4)


def test_extreme_values_are_clipped() -> None:
    extractor = ReDiFuFeatureExtractor(
        audio_size=1, statistics={"audio": {"mean": [0.0], "std": [1.0]}}, clip=5.0
    )
    values = extractor([conversation({"audio_features": [1e20]}, {"audio_features": [-7]})])["audio_features"]
    assert values.tolist() == [[[5.0], [-5.0]]]


def test_a_stream_without_an_utterance_has_no_statistics(extractor: ReDiFuFeatureExtractor) -> None:
    extractor.fit([conversation({"audio_features": [1, 2, 3]})])
    assert set(extractor.statistics) == {"audio"}


def test_conversations_may_come_one_by_one(extractor: ReDiFuFeatureExtractor) -> None:
    conversations = random_conversations()
    expected = extractor.fit(conversations).statistics
    assert extractor.fit(each for each in conversations).statistics == expected


def test_round_trip(extractor: ReDiFuFeatureExtractor, tmp_path: Path) -> None:
    conversations = random_conversations()
    extractor.fit(conversations).save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(loaded) is ReDiFuFeatureExtractor
    assert loaded.to_dict() == extractor.to_dict()
    assert loaded.statistics == extractor.statistics
    assert (loaded.text_size, loaded.audio_size, loaded.visual_size, loaded.clip) == (None, 3, 2, 10.0)
    ours, theirs = extractor(conversations), loaded(conversations)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert np.array_equal(theirs[name], value), name


def test_backends_tell_the_sizes_and_are_saved(tmp_path: Path) -> None:
    extractor = ReDiFuFeatureExtractor(audio_backend="log_mel", visual_backend="face_descriptor")
    assert extractor.sizes == {"audio": LOG_MEL_SIZE, "visual": FACE_DESCRIPTOR_SIZE}
    extractor.save_pretrained(tmp_path)
    loaded = ReDiFuFeatureExtractor.from_pretrained(tmp_path)
    assert loaded.to_dict() == extractor.to_dict()
    for name, backends in (("audio", AUDIO_BACKENDS), ("visual", VISUAL_BACKENDS)):
        for backend, size in backends.items():
            assert ReDiFuFeatureExtractor(**{f"{name}_backend": backend}).sizes == {name: size}
        with pytest.raises(
            ValueError, match=f"{name}_backend must be one of {next(iter(backends))}, .*'mel'"
        ):
            ReDiFuFeatureExtractor(**{f"{name}_backend": "mel"})
    with pytest.raises(ValueError, match="audio_size must be 291 for log_mel, got 300"):
        ReDiFuFeatureExtractor(audio_backend="log_mel", audio_size=300)


def test_sizes_of_pictures_are_those_that_reading_gives() -> None:
    assert {"face_descriptor": FACE_DESCRIPTOR_SIZE, "action_units": len(ACTION_UNITS)} == VISUAL_BACKENDS


def test_measures_of_quality_are_no_longer_inputs() -> None:
    with pytest.raises(ValueError, match="quality_size is no longer supported: expected None, got 4"):
        ReDiFuFeatureExtractor(audio_size=3, quality_size=4)
    assert "quality_size" not in ReDiFuFeatureExtractor(audio_size=3, quality_size=None).to_dict()


@pytest.mark.parametrize(("count", "size"), [(10**30, 224), (4, 10**30), (65, 1024)])
def test_the_pixels_of_an_utterance_are_bounded(count: int, size: int) -> None:
    ReDiFuFeatureExtractor(picture_count=64, picture_size=1024)
    with pytest.raises(
        ValueError, match="picture_count times picture_size squared must be at most 67,108,864"
    ):
        ReDiFuFeatureExtractor(picture_count=count, picture_size=size)
