"""Features of the streams, ready or read from media, normalised and padded."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BatchFeature
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import logging

from .backbone_arrays import pad_waveforms, stack_pictures
from .configuration_redifu import MODALITIES
from .input_checks import RAW_INPUTS
from .media_decoding import Span
from .media_features import AUDIO_BACKENDS, BACKBONE, VISUAL_BACKENDS, StreamReading, read_audio, read_visual
from .media_quality import QUALITY

logger = logging.get_logger(__name__)

# Under which key of an utterance the medium of a stream stands.
MEDIA = {"audio": "audio", "visual": "video"}
FOLDER = "_folder"  # of a conversation: where the relative paths of its media begin


class ReDiFuFeatureExtractor(FeatureExtractionMixin):
    """Turns media or ready features of utterances into padded arrays, a presence mask and quality measures.

    One class for all streams: a second feature extractor in a processor would save but not load.
    """

    model_input_names = [
        "text_features",
        "audio_features",
        "visual_features",
        "audio_values",
        "audio_values_mask",
        "pixel_values",
        "quality_features",
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
        quality_size: int | None = None,
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
            text_size: features of an utterance's text, None where none are read.
            audio_size: the same for audio.
            visual_size: the same for visual.
            audio_backend: what reads the sound of files and waveforms, a key of `AUDIO_BACKENDS`, or
                "backbone" for the waveforms that the backbone of a model takes; None where ready features
                only are taken. It tells `audio_size`, None of "backbone".
            visual_backend: the same for pictures, a key of `VISUAL_BACKENDS`.
            face_detector: a YuNet ONNX file to find faces with, in place of OpenCV's cascades.
            quality_size: measures of quality of each of sound and picture that the model reads, or None.
            statistics: by stream, "mean" and "std" of each feature; streams without are passed as they are.
                Quality is kept here too, as "audio_quality" and "visual_quality".
            clip: normalised features are kept within plus and minus so many standard deviations.
            normalize_waveform: whether waveforms for a backbone are brought to mean 0 and variance 1.
            picture_count: face crops of an utterance for a backbone, spread over time.
            picture_size: pixels of the side of a crop.
            picture_mean: of the red, green and blue of crops, 0 to 1, taken off.
            picture_std: their standard deviations, divided by.
            kwargs: what transformers stores beside.
        """
        super().__init__(**kwargs)
        self.text_size = text_size
        self.audio_size = _size_of(audio_backend, audio_size, "audio", AUDIO_BACKENDS)
        self.visual_size = _size_of(visual_backend, visual_size, "visual", VISUAL_BACKENDS)
        self.audio_backend = audio_backend
        self.visual_backend = visual_backend
        self.face_detector = face_detector
        if quality_size not in (None, *map(len, QUALITY.values())):
            raise ValueError(f"quality_size must be None or {len(QUALITY['audio'])}, got {quality_size}")
        self.quality_size = quality_size
        self.statistics = statistics or {}
        self.clip = clip
        self.normalize_waveform = normalize_waveform
        least = min(picture_count, picture_size)
        if least < 1 or len(picture_mean) != 3 or len(picture_std) != 3 or min(picture_std) <= 0:
            raise ValueError(
                "expected picture_count and picture_size of at least 1, three numbers of picture_mean and "
                "three above 0 of picture_std, got "
                f"{picture_count}, {picture_size}, {list(picture_mean)} and {list(picture_std)}"
            )
        self.picture_count = picture_count
        self.picture_size = picture_size
        self.picture_mean = list(picture_mean)
        self.picture_std = list(picture_std)

    @property
    def sizes(self) -> dict[str, int]:
        """The number of features by stream, of the streams that are read."""
        return {name: size for name in MODALITIES if (size := getattr(self, f"{name}_size")) is not None}

    @property
    def media(self) -> dict[str, str]:
        """The keys of utterances that hold media to be read, by stream."""
        return {name: key for name, key in MEDIA.items() if getattr(self, f"{name}_backend") is not None}

    @property
    def raw(self) -> dict[str, str]:
        """The keys under which utterances hold what the backbone of a model reads, by stream of media."""
        return {name: RAW_INPUTS[name] for name in MEDIA if getattr(self, f"{name}_backend") == BACKBONE}

    def read_media(
        self, conversation: Mapping[str, Any], *, streams: Collection[str] = tuple(MEDIA)
    ) -> Mapping[str, Any]:
        """Read what media the utterances of a conversation name, each medium once.

        Args:
            conversation: a conversation; where an utterance has ready features of a stream, these stay.
            streams: those that are read.

        Returns:
            The conversation with NAME_features of audio and visual, or for a backbone audio_values and
            pixel_values, not normalised; NAME_quality, the measures of `media_quality.QUALITY`; and
            "missing", the reason by stream that has a medium and no features, in its utterances. Nothing else
            is changed.

        Raises:
            ImportError: what a backend needs is not installed.
            ValueError: naming dialogue and utterance, for a medium of no known kind.
        """
        utterances = list(conversation["utterances"])
        for name, key in self.media.items():
            if name not in streams:
                continue
            for medium, turns in turns_by_medium(conversation, name):
                spans = [utterance_span(utterances[turn]) for turn in turns]
                try:
                    readings = self.read_medium(name, medium, spans)
                except ValueError as error:
                    where = f"dialogue {conversation.get('id')}, utterance {turns[0]}"
                    raise ValueError(f"{where}: {key}: {error}") from None
                for turn, reading in zip(turns, readings, strict=True):
                    utterances[turn] = with_reading(utterances[turn], name, reading, key=self.raw.get(name))
        return {**conversation, "utterances": utterances}

    def read_medium(self, name: str, medium: Any, spans: Sequence[Span]) -> list[StreamReading]:
        """Read spans of one medium.

        Args:
            name: "audio" or "visual".
            medium: a path, bytes, a waveform, frames or a value of datasets; see `read_audio`, `read_visual`.
            spans: in any order; they may overlap.

        Returns:
            A reading of each span.

        Raises:
            ImportError: what the backend needs is not installed.
            ValueError: for a medium of no known kind.
        """
        if name == "audio":
            readings = read_audio(medium, spans, backend=str(self.audio_backend))
        else:
            readings = read_visual(
                medium,
                spans,
                backend=str(self.visual_backend),
                face_detector=self.face_detector,
                picture_count=self.picture_count,
                picture_size=self.picture_size,
            )
        found = dict(readings)
        return [found[number] for number in range(len(spans))]

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

    def fit(
        self, conversations: Iterable[Mapping[str, Any]], *, streams: Collection[str] = MODALITIES
    ) -> "ReDiFuFeatureExtractor":
        """Measure mean and standard deviation of every feature over the utterances that have the stream.

        Args:
            conversations: those to measure.
            streams: to measure, with their quality; the others keep what was measured before.
        """
        sizes = {name: size for name, size in self.sizes.items() if name in streams}
        sizes |= {key: size for key, size in self._measures.items() if key.split("_")[0] in streams}
        keys = {name: name if name in self._measures else f"{name}_features" for name in sizes}
        sums = {name: np.zeros((3, size)) for name, size in sizes.items()}
        measured = [name for name in MEDIA if name in sums or f"{name}_quality" in sums]
        for conversation in conversations:
            for utterance in self.read_media(conversation, streams=measured)["utterances"]:
                self.check(utterance)
                for name, total in sums.items():
                    if (values := utterance.get(keys[name])) is not None:
                        array = np.asarray(values, dtype=np.float64)
                        known = np.isfinite(array)
                        array = np.where(known, array, 0.0)
                        total += np.stack([known, array, array**2])
        self.statistics = {name: kept for name, kept in self.statistics.items() if name not in sizes}
        for name, (count, first, second) in sums.items():
            if not count.any():
                continue
            mean = first / np.maximum(count, 1)
            deviation = np.sqrt(np.maximum(second / np.maximum(count, 1) - mean**2, 0.0))
            # A constant feature carries nothing: it becomes 0 without a division by 0.
            deviation[deviation < 1e-6] = 1.0
            self.statistics[name] = {"mean": mean.tolist(), "std": deviation.tolist()}
        return self

    def __call__(
        self, conversations: Sequence[Mapping[str, Any]], return_tensors: str | None = None
    ) -> BatchFeature:
        """Read and pad the features of conversations.

        Args:
            conversations: dicts with "utterances", as in a conversation file.
            return_tensors: "pt", "np" or None.

        Returns:
            utterance_mask (batch, utterances), modality_mask (batch, utterances, 3), of each stream that any
            utterance has, NAME_features (batch, utterances, size) float32, zero where missing, or for a
            backbone audio_values (audios, samples) with audio_values_mask, and pixel_values (utterances with
            pictures, pictures, 3, size, size), row by row over the utterances that have them; and where a
            model reads them, quality_features (batch, utterances, 2, quality size), NaN where unknown.

        Raises:
            ImportError: what a backend needs is not installed.
            ValueError: for features of a wrong size or with NaN or infinite values.
        """
        shape = (len(conversations), max(len(conversation["utterances"]) for conversation in conversations))
        features = {name: np.zeros((*shape, size), dtype=np.float32) for name, size in self.sizes.items()}
        raw: dict[str, list[np.ndarray]] = {name: [] for name in self.raw}
        quality = np.full((*shape, len(MEDIA), self.quality_size or 0), np.nan, dtype=np.float32)
        utterance_mask = np.zeros(shape, dtype=bool)
        modality_mask = np.zeros((*shape, len(MODALITIES)), dtype=bool)
        for row, conversation in enumerate(conversations):
            for column, utterance in enumerate(self.read_media(conversation)["utterances"]):
                self.check(utterance)
                for name, reason in (utterance.get("missing") or {}).items():
                    where = f"dialogue {conversation.get('id')}, utterance {column}"
                    logger.warning(f"{where}: {name} is missing: {utterance.get(MEDIA[name])}: {reason}")
                utterance_mask[row, column] = True
                for name, padded in features.items():
                    if (values := utterance.get(f"{name}_features")) is not None:
                        padded[row, column] = values
                        modality_mask[row, column, MODALITIES.index(name)] = True
                for name, rows in raw.items():
                    if (values := utterance.get(self.raw[name])) is not None:
                        rows.append(values)
                        modality_mask[row, column, MODALITIES.index(name)] = True
                for stream, key in enumerate(self._measures):
                    if (values := utterance.get(key)) is not None:
                        quality[row, column, stream] = values
        data: dict[str, Any] = {"utterance_mask": utterance_mask, "modality_mask": modality_mask}
        for name, padded in features.items():
            if (here := modality_mask[..., MODALITIES.index(name)]).any():
                padded[here] = self._normalise(name, padded[here])
                data[f"{name}_features"] = padded
        if audios := raw.get("audio"):
            data |= pad_waveforms(audios, normalize=self.normalize_waveform)
        if pictures := raw.get("visual"):
            data |= stack_pictures(pictures, mean=self.picture_mean, std=self.picture_std)
        if self.quality_size is not None:
            for stream, key in enumerate(self._measures):
                quality[:, :, stream] = self._normalise(key, quality[:, :, stream])
            data["quality_features"] = quality
        return BatchFeature(data, tensor_type=return_tensors)

    @property
    def _measures(self) -> dict[str, int]:
        """The keys of utterances that hold quality measures to be read, and how many each holds."""
        return {} if self.quality_size is None else {f"{name}_quality": self.quality_size for name in MEDIA}

    def _normalise(self, name: str, array: np.ndarray) -> np.ndarray:
        if name not in self.statistics:
            return array
        mean, deviation = (
            np.asarray(self.statistics[name][key], dtype=np.float32) for key in ("mean", "std")
        )
        return np.clip((array - mean) / deviation, -self.clip, self.clip)


def _size_of(backend: str | None, size: int | None, name: str, backends: Mapping[str, int]) -> int | None:
    if backend is None:
        return size
    told = {**backends, BACKBONE: None}
    if backend not in told:
        raise ValueError(f"{name}_backend must be one of {', '.join(told)}, got {backend!r}")
    if size not in (None, told[backend]):
        raise ValueError(f"{name}_size must be {told[backend]}, as {backend} gives, got {size}")
    return told[backend]


def utterance_span(utterance: Mapping[str, Any]) -> Span:
    """Return the part of its media that an utterance is."""
    return Span(start=utterance.get("start") or 0.0, end=utterance.get("end"))


def medium_of(conversation: Mapping[str, Any], utterance: Mapping[str, Any], name: str) -> Any:
    """Return the medium of a stream that is to be read, None where there is none.

    A stream with ready features is not read, nor one that was read before and found missing.
    """
    medium = utterance.get(MEDIA[name])
    ready = any(utterance.get(key) is not None for key in (f"{name}_features", RAW_INPUTS[name]))
    if medium is None or ready or (utterance.get("missing") or {}).get(name):
        return None
    return str(Path(conversation.get(FOLDER, ""), medium)) if isinstance(medium, str) else medium


def with_reading(
    utterance: Mapping[str, Any], name: str, reading: StreamReading, *, key: str | None = None
) -> dict[str, Any]:
    """Return an utterance with what was read of a stream: features or why they are missing, and quality.

    Features stand under `key`, None for NAME_features.
    """
    new = dict(utterance)
    if reading.features is not None:
        new[key or f"{name}_features"] = reading.features
    else:
        new["missing"] = {**(new.get("missing") or {}), name: reading.missing}
    new[f"{name}_quality"] = [reading.quality.get(measure, np.nan) for measure in QUALITY[name]]
    return new


def turns_by_medium(conversation: Mapping[str, Any], name: str) -> list[tuple[Any, list[int]]]:
    """Group the turns that share a medium: a path by its name, anything else by being the same object."""
    groups: dict[Any, tuple[Any, list[int]]] = {}
    for turn, utterance in enumerate(conversation["utterances"]):
        if (medium := medium_of(conversation, utterance, name)) is not None:
            key = medium if isinstance(medium, str) else id(utterance[MEDIA[name]])
            groups.setdefault(key, (medium, []))[1].append(turn)
    return list(groups.values())
