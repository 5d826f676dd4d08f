"""Feature extraction: features, precomputed or computed from arrays, are normalised and padded."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature
from transformers.feature_extraction_utils import FeatureExtractionMixin

from .audio_features import LOG_MEL_SIZE, SAMPLING_RATE, log_mel_features, opensmile_features
from .backbone_arrays import pad_waveforms, stack_pictures
from .configuration_redifu import MODALITIES
from .model_inputs import RAW_INPUTS

# The backend that passes sound and pictures to the model's backbone.
MOST_PIXELS = 2**26  # of all pictures of an utterance, 64 of 1024 x 1024
BACKBONE = "backbone"
OPENSMILE = "opensmile:"
# Number of features per backend. Visual features are computed where video files are read.
AUDIO_BACKENDS = {"log_mel": LOG_MEL_SIZE, f"{OPENSMILE}eGeMAPSv02": 88, f"{OPENSMILE}IS10": 1582}
VISUAL_BACKENDS = {"face_descriptor": 728, "action_units": 35}
# The keys of an utterance's sound and video.
_MEDIA = {"audio": "audio", "visual": "video"}


class ReDiFuFeatureExtractor(FeatureExtractionMixin):
    """Turns precomputed features, waveforms and face crops into padded arrays and a presence mask.

    One class covers all streams, because a processor cannot reload a second feature extractor.
    """

    model_input_names = [
        "text_features",
        "audio_features",
        "visual_features",
        "audio_values",
        "audio_values_mask",
        "pixel_values",
        "utterance_mask",
        "modality_mask",
    ]

    def __init__(
        self,
        text_size: int | None = None,
        audio_size: int | None = None,
        visual_size: int | None = None,
        audio_backend: str | None = None,
        visual_backend: str | None = None,
        face_detector: str | None = None,
        statistics: dict[str, dict[str, list[float]]] | None = None,
        clip: float = 10.0,
        normalize_waveform: bool = False,
        picture_count: int = 4,
        picture_size: int = 224,
        picture_mean: Sequence[float] = (0.5, 0.5, 0.5),
        picture_std: Sequence[float] = (0.5, 0.5, 0.5),
        **kwargs: Any,
    ):
        """Build the extractor.

        Args:
            text_size: number of text features; None if they are not read.
            audio_size: number of audio features; None if they are not read.
            visual_size: number of visual features; None if they are not read.
            audio_backend: how audio features are computed: a key of `AUDIO_BACKENDS`, or "backbone" to pass
                waveforms to the model's backbone; None accepts only precomputed features. It determines
                `audio_size`, which is None for "backbone".
            visual_backend: the same for pictures, with a key of `VISUAL_BACKENDS`.
            face_detector: a YuNet ONNX file for face detection, instead of OpenCV's cascades.
            statistics: by stream, "mean" and "std" of each feature; other streams are not normalised.
            clip: normalised features are clipped to plus or minus this many standard deviations.
            normalize_waveform: whether waveforms for a backbone are normalised to mean 0 and variance 1.
            picture_count: number of face crops per utterance for a backbone, spread over time.
            picture_size: width and height of a crop in pixels.
            picture_mean: means of red, green and blue, 0 to 1, which are subtracted from crops.
            picture_std: standard deviations of red, green and blue, by which crops are divided.
            kwargs: further values that transformers stores.

        Raises:
            ValueError: a backend is unknown, or a size or picture option is invalid.
        """
        if (quality_size := kwargs.pop("quality_size", None)) is not None:
            raise ValueError(f"quality_size is no longer supported: expected None, got {quality_size}")
        super().__init__(**kwargs)
        self.text_size = text_size
        self.audio_size = _size_of(audio_backend, audio_size, "audio", AUDIO_BACKENDS)
        self.visual_size = _size_of(visual_backend, visual_size, "visual", VISUAL_BACKENDS)
        self.audio_backend = audio_backend
        self.visual_backend = visual_backend
        self.face_detector = face_detector
        self.statistics = statistics or {}
        self.clip = clip
        self.normalize_waveform = normalize_waveform
        least = min(picture_count, picture_size)
        if least < 1 or len(picture_mean) != 3 or len(picture_std) != 3 or min(picture_std) <= 0:
            raise ValueError(
                "picture_count and picture_size must be at least 1, picture_mean must have three numbers and "
                "picture_std three positive ones, got "
                f"{picture_count}, {picture_size}, {list(picture_mean)} and {list(picture_std)}"
            )
        if (pixels := picture_count * picture_size**2) > MOST_PIXELS:
            raise ValueError(
                f"picture_count times picture_size squared must be at most {MOST_PIXELS:,}, got {pixels:,}"
            )
        self.picture_count = picture_count
        self.picture_size = picture_size
        self.picture_mean = list(picture_mean)
        self.picture_std = list(picture_std)

    @property
    def sizes(self) -> dict[str, int]:
        """The number of features by stream, for the streams that are read."""
        return {name: size for name in MODALITIES if (size := getattr(self, f"{name}_size")) is not None}

    @property
    def backends(self) -> dict[str, str]:
        """The backends by stream, for the streams whose media are read."""
        given = {name: getattr(self, f"{name}_backend") for name in ("audio", "visual")}
        return {name: backend for name, backend in given.items() if backend is not None}

    @property
    def raw(self) -> dict[str, str]:
        """The utterance keys of backbone inputs, by stream."""
        return {name: RAW_INPUTS[name] for name, backend in self.backends.items() if backend == BACKBONE}

    def describe_sound(self, waveform: np.ndarray) -> np.ndarray:
        """Compute the features of a waveform with `audio_backend`.

        Args:
            waveform: (samples,) float at `SAMPLING_RATE`.

        Returns:
            (audio size,) float32; with the backend "backbone", the waveform itself.

        Raises:
            ImportError: openSMILE is not installed.
        """
        if self.audio_backend == BACKBONE:
            return waveform
        if self.audio_backend == "log_mel":
            return log_mel_features(waveform)
        return opensmile_features(waveform, str(self.audio_backend).removeprefix(OPENSMILE))

    def check(self, utterance: Mapping[str, Any]) -> None:
        """Raise ValueError for features of the wrong size, or with NaN or infinite values."""
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

    def with_arrays(self, utterance: Mapping[str, Any]) -> Mapping[str, Any]:
        """Compute the audio inputs of an utterance whose audio is {"array", "sampling_rate"}.

        Returns:
            The utterance, with audio_features (or audio_values for a backbone) added if they were missing.

        Raises:
            ValueError: audio or video would have to be read from something else, such as a file.
        """
        for name in self.backends:
            key = self.raw.get(name, f"{name}_features")
            medium = utterance.get(_MEDIA[name])
            if medium is None or utterance.get(key) is not None:
                continue
            if name == "visual" or not isinstance(medium, Mapping) or "array" not in medium:
                expected = key if name == "visual" else f'{{"array", "sampling_rate"}} or {key}'
                raise ValueError(
                    f"{_MEDIA[name]}: the processor takes arrays and does not open files: expected "
                    f"{expected}, got {medium!r:.80}; use redifu.load(MODEL) to read files"
                )
            utterance = {**utterance, key: self.describe_sound(_waveform(medium))}
        return utterance

    def fit(
        self, conversations: Iterable[Mapping[str, Any]], *, streams: Collection[str] = MODALITIES
    ) -> "ReDiFuFeatureExtractor":
        """Compute the mean and standard deviation of every feature over the utterances that have it.

        Args:
            conversations: the conversations, with arrays.
            streams: the streams to measure; the others keep their statistics.
        """
        sizes = {name: size for name, size in self.sizes.items() if name in streams}
        sums = {name: np.zeros((3, size)) for name, size in sizes.items()}
        for conversation in conversations:
            for utterance in conversation["utterances"]:
                self.check(utterance)
                for name, total in sums.items():
                    if (values := utterance.get(f"{name}_features")) is not None:
                        array = np.asarray(values, dtype=np.float64)
                        total += np.stack([np.ones_like(array), array, array**2])
        self.statistics = {name: kept for name, kept in self.statistics.items() if name not in sizes}
        for name, (count, first, second) in sums.items():
            if not count.any():
                continue
            mean = first / count
            deviation = np.sqrt(np.maximum(second / count - mean**2, 0.0))
            # A constant feature carries no information: it becomes 0, without a division by 0.
            deviation[deviation < 1e-6] = 1.0
            self.statistics[name] = {"mean": mean.tolist(), "std": deviation.tolist()}
        return self

    def __call__(
        self, conversations: Sequence[Mapping[str, Any]], return_tensors: str | None = None
    ) -> BatchFeature:
        """Normalise and pad the features of conversations.

        Args:
            conversations: dicts with "utterances", already checked, with features and arrays.
            return_tensors: "pt", "np" or None.

        Returns:
            utterance_mask (batch, utterances) and modality_mask (batch, utterances, 3). For each stream that
            any utterance has: NAME_features (batch, utterances, size) float32, zero where missing; or, for a
            backbone, audio_values (audios, samples) with audio_values_mask, and pixel_values (utterances with
            pictures, pictures, 3, size, size), one row for each utterance that has the stream, in order.
        """
        shape = (len(conversations), max(len(conversation["utterances"]) for conversation in conversations))
        features = {name: np.zeros((*shape, size), dtype=np.float32) for name, size in self.sizes.items()}
        raw: dict[str, list[np.ndarray]] = {name: [] for name in self.raw}
        utterance_mask = np.zeros(shape, dtype=bool)
        modality_mask = np.zeros((*shape, len(MODALITIES)), dtype=bool)
        for row, conversation in enumerate(conversations):
            for column, utterance in enumerate(conversation["utterances"]):
                utterance_mask[row, column] = True
                for name, padded in features.items():
                    if (values := utterance.get(f"{name}_features")) is not None:
                        padded[row, column] = values
                        modality_mask[row, column, MODALITIES.index(name)] = True
                for name, rows in raw.items():
                    if (values := utterance.get(self.raw[name])) is not None:
                        rows.append(values)
                        modality_mask[row, column, MODALITIES.index(name)] = True
        data: dict[str, Any] = {"utterance_mask": utterance_mask, "modality_mask": modality_mask}
        for name, padded in features.items():
            if (here := modality_mask[..., MODALITIES.index(name)]).any():
                padded[here] = self._normalise(name, padded[here])
                data[f"{name}_features"] = padded
        if audios := raw.get("audio"):
            data |= pad_waveforms(audios, normalize=self.normalize_waveform)
        if pictures := raw.get("visual"):
            data |= stack_pictures(pictures, mean=self.picture_mean, std=self.picture_std)
        return BatchFeature(data, tensor_type=return_tensors)

    def _normalise(self, name: str, array: np.ndarray) -> np.ndarray:
        if name not in self.statistics:
            return array
        mean, deviation = (
            np.asarray(self.statistics[name][key], dtype=np.float32) for key in ("mean", "std")
        )
        return np.clip((array - mean) / deviation, -self.clip, self.clip)


def _waveform(sound: Mapping[str, Any]) -> np.ndarray:
    samples, rate = np.asarray(sound["array"], dtype=np.float32), sound.get("sampling_rate")
    if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
        raise ValueError(f"audio: expected finite numbers of shape (samples,), got shape {samples.shape}")
    if rate != SAMPLING_RATE:
        raise ValueError(f"audio: expected a sampling_rate of {SAMPLING_RATE}, got {rate}")
    return samples


def _size_of(backend: str | None, size: int | None, name: str, backends: Mapping[str, int]) -> int | None:
    if backend is None:
        return size
    told = {**backends, BACKBONE: None}
    if backend not in told:
        raise ValueError(f"{name}_backend must be one of {', '.join(told)}, got {backend!r}")
    if size not in (None, told[backend]):
        raise ValueError(f"{name}_size must be {told[backend]} for {backend}, got {size}")
    return told[backend]
