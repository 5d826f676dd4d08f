"""Ready features of the streams, normalised and padded."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature
from transformers.feature_extraction_utils import FeatureExtractionMixin

from .configuration_redifu import MODALITIES


class ReDiFuFeatureExtractor(FeatureExtractionMixin):
    """Turns ready utterance features into padded arrays and a presence mask.

    One class for all streams: a second feature extractor in a processor would save but not load.
    """

    model_input_names = [
        "text_features",
        "audio_features",
        "visual_features",
        "utterance_mask",
        "modality_mask",
    ]

    def __init__(
        self,
        text_size: int | None = None,
        audio_size: int | None = None,
        visual_size: int | None = None,
        statistics: dict[str, dict[str, list[float]]] | None = None,
        clip: float = 10.0,
        **kwargs: Any,
    ):
        """Build the extractor.

        Args:
            text_size: features of an utterance's text, None where none are read.
            audio_size: the same for audio.
            visual_size: the same for visual.
            statistics: by stream, "mean" and "std" of each feature; streams without are passed as they are.
            clip: normalised features are kept within plus and minus so many standard deviations.
            kwargs: what transformers stores beside.
        """
        super().__init__(**kwargs)
        self.text_size = text_size
        self.audio_size = audio_size
        self.visual_size = visual_size
        self.statistics = statistics or {}
        self.clip = clip

    @property
    def sizes(self) -> dict[str, int]:
        """The number of features by stream, of the streams that are read."""
        return {name: size for name in MODALITIES if (size := getattr(self, f"{name}_size")) is not None}

    def check(self, utterance: Mapping[str, Any]) -> None:
        """Refuse features of a wrong size or with NaN or infinite values, by ValueError."""
        for name, size in self.sizes.items():
            if (values := utterance.get(f"{name}_features")) is None:
                continue
            try:
                array = np.asarray(values, dtype=np.float32)
            except (TypeError, ValueError):
                raise ValueError(f"{name}_features must hold {size} numbers, got {values!r:.80}") from None
            if array.shape != (size,):
                raise ValueError(f"{name}_features must hold {size} numbers, got shape {array.shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name}_features must be finite, got NaN or infinite values")

    def fit(self, conversations: Iterable[Mapping[str, Any]]) -> "ReDiFuFeatureExtractor":
        """Measure mean and standard deviation of every feature over the utterances that have the stream."""
        sums = {name: np.zeros((3, size)) for name, size in self.sizes.items()}
        for conversation in conversations:
            for utterance in conversation["utterances"]:
                self.check(utterance)
                for name, total in sums.items():
                    if (values := utterance.get(f"{name}_features")) is not None:
                        array = np.asarray(values, dtype=np.float64)
                        total += np.stack([np.ones_like(array), array, array**2])
        self.statistics = {}
        for name, (count, first, second) in sums.items():
            if not count.any():
                continue
            mean = first / count
            deviation = np.sqrt(np.maximum(second / count - mean**2, 0.0))
            # A constant feature carries nothing: it becomes 0 without a division by 0.
            deviation[deviation < 1e-6] = 1.0
            self.statistics[name] = {"mean": mean.tolist(), "std": deviation.tolist()}
        return self

    def __call__(
        self, conversations: Sequence[Mapping[str, Any]], return_tensors: str | None = None
    ) -> BatchFeature:
        """Pad the features of conversations.

        Args:
            conversations: dicts with "utterances", as in a conversation file.
            return_tensors: "pt", "np" or None.

        Returns:
            utterance_mask (batch, utterances), modality_mask (batch, utterances, 3) and, of each stream that
            any utterance has, NAME_features (batch, utterances, size) float32, zero where missing.

        Raises:
            ValueError: for features of a wrong size or with NaN or infinite values.
        """
        shape = (len(conversations), max(len(conversation["utterances"]) for conversation in conversations))
        features = {name: np.zeros((*shape, size), dtype=np.float32) for name, size in self.sizes.items()}
        utterance_mask = np.zeros(shape, dtype=bool)
        modality_mask = np.zeros((*shape, len(MODALITIES)), dtype=bool)
        for row, conversation in enumerate(conversations):
            for column, utterance in enumerate(conversation["utterances"]):
                self.check(utterance)
                utterance_mask[row, column] = True
                for name, padded in features.items():
                    if (values := utterance.get(f"{name}_features")) is not None:
                        padded[row, column] = self._normalise(name, values)
                        modality_mask[row, column, MODALITIES.index(name)] = True
        data: dict[str, Any] = {"utterance_mask": utterance_mask, "modality_mask": modality_mask}
        for name, padded in features.items():
            if modality_mask[..., MODALITIES.index(name)].any():
                data[f"{name}_features"] = padded
        return BatchFeature(data, tensor_type=return_tensors)

    def _normalise(self, name: str, values: Any) -> np.ndarray:
        array = np.asarray(values, dtype=np.float32)
        if name not in self.statistics:
            return array
        mean, deviation = (
            np.asarray(self.statistics[name][key], dtype=np.float32) for key in ("mean", "std")
        )
        return np.clip((array - mean) / deviation, -self.clip, self.clip)
