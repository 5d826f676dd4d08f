"""The fine-tuning guide at toy size, the quickstart, and the recorded conversation with all its streams."""

import csv
import json
import re
import runpy
import shlex
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from documents import FINE_TUNING, ROOT, shell_commands
from redifu.cli import main
from redifu.data.media_reading import read_media
from redifu.data.readers import read_conversations
from redifu.data.turns import read_turns
from redifu.media.face_features import ACTION_UNITS, read_action_units
from redifu.model import ReDiFuConfig, ReDiFuFeatureExtractor, ReDiFuForEmotionRecognition

RECORDED = ROOT / "examples/moving-day/conversation.json"


@pytest.mark.slow
def test_the_fine_tuning_guide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av", reason="the extra media is not installed")
    for name in ("examples", "model_cards"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIPS", "runs/clips")
    commands = [shlex.split(line.split("redifu ", 1)[1]) for line in shell_commands(FINE_TUNING)[1:]]
    extract, train, *in_noise, train_noisy, evaluate, predict = commands
    assert main(extract) == 0
    assert main([*train, "training.epochs=6"]) == 0
    assert [main(command) for command in in_noise] == [0, 0]
    assert main([*train_noisy, "training.epochs=1"]) == 0
    assert main(evaluate) == 0
    found = re.search(r"weighted_f1\D*([\d.]+)", capsys.readouterr().out)
    assert found is not None and float(found[1]) > 60  # the most frequent mood alone has 39
    assert main(predict) == 0
    assert "excited" in capsys.readouterr().out


def test_the_recorded_conversation_is_the_one_without_media() -> None:
    plain, recorded = (
        json.loads(path.read_text("utf-8")) for path in (ROOT / "examples/conversation.json", RECORDED)
    )
    for said in recorded["utterances"]:
        media = {RECORDED.parent / said.pop(medium) for medium in ("audio", "video")}
        assert all(0 < path.stat().st_size < 500_000 for path in media)
        assert said.pop("label")
    assert recorded == plain


def test_the_subtitles_of_the_recording_are_its_turns() -> None:
    recorded = json.loads(RECORDED.read_text("utf-8"))["utterances"]
    turns = read_turns(RECORDED.with_name("recording.srt"))
    expected = [tuple(said[name] for name in ("start", "end", "speaker", "text")) for said in recorded]
    assert [(turn.start, turn.end, turn.speaker, turn.text) for turn in turns] == expected


@pytest.mark.slow
def test_the_quickstart_prints_every_utterance_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av", reason="the extra media is not installed")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples/quickstart.py"), run_name="__main__")
    printed = capsys.readouterr().out.splitlines()
    recorded = json.loads(RECORDED.read_text("utf-8"))["utterances"]
    assert [line.endswith(said["text"]) for line, said in zip(printed, recorded, strict=True)] == [True] * 12
    assert list(tmp_path.iterdir()) == []


def test_the_recorded_faces_have_action_units_as_openface_writes_them() -> None:
    with RECORDED.with_name("recording.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert all(0 <= float(row[name]) <= 5 for name in ACTION_UNITS if name.endswith("_r"))
        assert {row[name] for name in ACTION_UNITS if name.endswith("_c")} <= {"0", "1"}
    means: dict[str, np.ndarray] = {}
    for said in json.loads(RECORDED.read_text("utf-8"))["utterances"]:
        path, span = RECORDED.parent / said["video"], {name: said[name] for name in ("start", "end")}
        values, share = read_action_units(path.with_suffix(".csv"), **span)
        assert share == 1
        means[said["label"]] = values
    # Each mood has a face of its own: the lips' corners rise in joy, they fall in sadness, the nose wrinkles.
    for name, label in {"AU12_r": "joy", "AU15_r": "sadness", "AU09_r": "disgust", "AU20_r": "fear"}.items():
        place = ACTION_UNITS.index(name)
        assert max(means, key=lambda mood: means[mood][place]) == label


def test_a_model_of_three_streams_reads_the_recorded_conversation() -> None:
    pytest.importorskip("av", reason="the extra media is not installed")
    extractor = ReDiFuFeatureExtractor(audio_backend="log_mel", visual_backend="action_units")
    (conversation,) = read_conversations(RECORDED)
    read = read_media(conversation, extractor)
    assert all(not said.missing for said in read.utterances)
    inputs = extractor([read.to_inputs()], return_tensors="pt")
    assert inputs["modality_mask"][..., 1:].all()
    config = ReDiFuConfig(
        text_size=None,
        hidden_size=16,
        num_attention_heads=2,
        relation_modalities=["audio", "visual"],
        id2label={0: "calm", 1: "glad"},
        **{f"{name}_size": size for name, size in extractor.sizes.items()},
    )
    with torch.no_grad():
        logits = ReDiFuForEmotionRecognition(config).eval()(**inputs).logits
    assert logits.shape == (1, len(conversation.utterances), 2) and logits.isfinite().all()


@pytest.mark.slow
def test_the_recorded_conversation_from_its_files_to_predictions(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="the extra media is not installed")
    features, model = tmp_path / "features", tmp_path / "model"
    assert main(["extract", str(RECORDED), "--output", str(features)]) == 0
    utterances = next(read_conversations(features)).utterances
    shares = [said.quality["visual"]["face_share"] for said in utterances]
    assert min(shares) > 0.9
    heard, seen = (
        np.array([getattr(said, f"{stream}_features") for said in utterances])
        for stream in ("audio", "visual")
    )
    alike, other = set(), set()
    for one, two in combinations(range(len(utterances)), 2):
        assert np.abs(heard[one] - heard[two]).max() > 1
        same = all(
            getattr(utterances[one], key) == getattr(utterances[two], key) for key in ("speaker", "label")
        )
        (alike if same else other).add(np.abs(seen[one] - seen[two]).max())
    # A face looks like itself in the same mood, and like no other face and mood.
    assert 0 < max(alike) < 0.7 * min(other)

    labels = sorted({said.label for said in utterances})
    recipe = {
        "model": {
            "hidden_size": 16,
            "num_attention_heads": 2,
            "text_size": None,
            "num_speakers": 3,
            "relation_window": 3,
        },
        "data": {
            "train": str(features),
            "dev": str(features),
            "labels": labels,
            "audio_backend": "log_mel",
            "visual_backend": "face_descriptor",
        },
        "training": {"output": str(model), "epochs": 2, "batch_size": 1},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["train", str(tmp_path / "recipe.yaml")]) == 0
    assert main(["predict", str(model), str(RECORDED), "--output", str(tmp_path / "emotions.csv")]) == 0
    with (tmp_path / "emotions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["speaker"] for row in rows] == [said.speaker for said in utterances]
    assert {row["emotion"] for row in rows} <= set(labels)
