import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import psutil
import pytest

import redifu
from media.crashing_decoder import let_decoder_crash
from media.made_media import tone, write_sound
from redifu.data import extraction, media_reading
from redifu.data.extraction import CACHE, REPORT, extract_conversations
from redifu.data.media_reading import read_media
from redifu.data.readers import read_conversations
from redifu.data.tables import MANIFEST
from redifu.model import ReDiFuFeatureExtractor
from redifu.model.audio_features import LOG_MEL_SIZE


def write_talk(folder: Path, *, dialogues: int = 2, clips: int = 3, missing: bool = False) -> Path:
    """A file of conversations with a sound file each, whose utterances are spans of it."""
    talk = []
    for dialogue in range(dialogues):
        name = f"talk {dialogue}.wav"
        write_sound(folder / name, tone(clips * 0.5, frequency=100 + 40 * dialogue))
        said = {"speaker": "A", "label": "joy", "audio": name}
        utterances = [
            {**said, "text": f"{turn}", "start": turn / 2, "end": turn / 2 + 0.5} for turn in range(clips)
        ]
        talk.append({"id": f"d{dialogue}", "split": "train", "utterances": utterances})
    if missing:
        talk[0]["utterances"][1]["audio"] = "nowhere.wav"
    path = folder / "talk.json"
    path.write_text(json.dumps(talk))
    return path


def extract(path: Path, output: Path, **options: Any) -> int:
    extractor = ReDiFuFeatureExtractor(audio_backend=options.pop("backend", "log_mel"))
    return extract_conversations(list(read_conversations(path)), output, extractor=extractor, **options)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The media that were really read."""
    read: list[str] = []
    once = media_reading.read_waveforms

    def counted(medium: Any, spans: Any, **options: Any) -> Any:
        read.append(Path(medium).name)
        return once(medium, spans, **options)

    monkeypatch.setattr(media_reading, "read_waveforms", counted)
    return read


def test_features_are_those_that_the_extractor_reads(tmp_path: Path) -> None:
    path, output = write_talk(tmp_path), tmp_path / "out"
    assert extract(path, output) == 0
    extracted = list(read_conversations(output, split="train"))
    given = list(read_conversations(path))
    assert [one.id for one in extracted] == ["d0", "d1"]
    for one, other in zip(extracted, given, strict=True):
        expected = read_media(other, ReDiFuFeatureExtractor(audio_backend="log_mel")).utterances
        for new, old in zip(one.utterances, expected, strict=True):
            np.testing.assert_array_equal(new.audio_features, old.audio_features)
            assert new.quality["audio"] == pytest.approx(old.quality["audio"], rel=1e-6)
            for key in ("speaker", "text", "label", "start", "end"):
                assert getattr(new, key) == getattr(old, key) == new.given[key] is not None
            assert (output / new.audio).resolve() == (tmp_path / old.audio).resolve()
    files = str(output / "part-*.parquet")
    rows = datasets.load_dataset("parquet", data_files=files, cache_dir=tmp_path / "hf")
    assert len(rows["train"]) == 6 and len(rows["train"][0]["audio_features"]) == LOG_MEL_SIZE


def test_nothing_is_read_twice_unless_content_or_backend_change(tmp_path: Path, reads: list[str]) -> None:
    path, output = write_talk(tmp_path), tmp_path / "out"
    extract(path, output)
    assert reads == ["talk 0.wav", "talk 1.wav"]
    extract(path, output)
    assert len(reads) == 2
    write_sound(tmp_path / "talk 1.wav", tone(1.5, frequency=300))
    extract(path, output)
    assert reads[2:] == ["talk 1.wav"]
    (tmp_path / "talk 0.wav").rename(tmp_path / "moved.wav")
    path.write_text(path.read_text().replace("talk 0.wav", "moved.wav"))
    extract(path, output)
    assert len(reads) == 3


def test_a_damaged_cache_is_read_anew(tmp_path: Path, reads: list[str]) -> None:
    path, output = write_talk(tmp_path), tmp_path / "out"
    extract(path, output)
    for kept in (output / CACHE).iterdir():
        kept.write_bytes(kept.read_bytes()[:50])
    extract(path, output)
    assert len(reads) == 4


def test_bad_files_are_reported_and_the_rest_goes_on(tmp_path: Path, reads: list[str]) -> None:
    path, output = write_talk(tmp_path, missing=True), tmp_path / "out"
    assert extract(path, output) == 1
    (line,) = (json.loads(line) for line in (output / REPORT).read_text().splitlines())
    assert (line["dialogue"], line["turn"], line["stream"], line["failed"]) == ("d0", 1, "audio", True)
    assert line["path"].endswith("nowhere.wav") and "No such file" in line["reason"]
    extracted = next(read_conversations(output))
    assert [one.audio_features is not None for one in extracted.utterances] == [True, False, True]
    assert "No such file" in extracted.utterances[1].missing["audio"]
    # What was found missing is not looked for again.
    extractor, looked_for = ReDiFuFeatureExtractor(audio_backend="log_mel"), len(reads)
    again = read_media(extracted, extractor)
    assert len(reads) == looked_for == 3
    batch = extractor([again.to_inputs()])
    assert batch["modality_mask"][0, :, 1].tolist() == [True, False, True]


def test_a_crash_costs_its_own_file_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, output = write_talk(tmp_path), tmp_path / "out"
    (tmp_path / "talk 0.wav").rename(tmp_path / "crash.wav")
    path.write_text(path.read_text().replace("talk 0.wav", "crash.wav"))
    with monkeypatch.context() as crashing:
        let_decoder_crash(tmp_path, crashing)
        assert extract(path, output) == 3
    lines = [json.loads(line) for line in (output / REPORT).read_text().splitlines()]
    assert {(line["dialogue"], line["failed"], line["reason"]) for line in lines} == {
        ("d0", True, "the process that decoded it crashed")
    }
    first, second = read_conversations(output)
    assert all(one.audio_features is None for one in first.utterances)
    assert all(one.audio_features is not None for one in second.utterances)
    assert extract(path, output) == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_and_an_address_are_missing_streams(tmp_path: Path) -> None:
    path, output = write_talk(tmp_path), tmp_path / "out"
    os.mkfifo(tmp_path / "pipe")
    talk = json.loads(path.read_text())
    for turn, audio in enumerate(["pipe", "http://127.0.0.1:9/a.wav", "concat:talk 0.wav"]):
        talk[0]["utterances"][turn]["audio"] = audio
    path.write_text(json.dumps(talk))
    assert extract(path, output) == 3
    reasons = [json.loads(line)["reason"] for line in (output / REPORT).read_text().splitlines()]
    assert reasons[0] == "cannot be opened: Not a regular file"
    assert set(reasons[1:]) == {"cannot be opened: No such file or directory"}
    assert all(one.audio_features is not None for one in list(read_conversations(output))[1].utterances)


def test_shards_are_bounded_and_those_of_an_earlier_extraction_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "SHARD_UTTERANCES", 2)
    path, output = write_talk(tmp_path), tmp_path / "out"
    extract(path, output)
    manifest = json.loads((output / MANIFEST).read_text())
    assert [shard["utterances"] for shard in manifest["shards"]] == [2, 2, 2]
    assert [len(one.utterances) for one in read_conversations(output)] == [3, 3]
    extract(write_talk(tmp_path, dialogues=1), output)
    assert sorted(each.name for each in output.glob("*.parquet")) == [f"part-0000{n}.parquet" for n in (0, 1)]
    assert [one.id for one in read_conversations(output)] == ["d0"]


def test_shards_of_two_extractions_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "SHARD_UTTERANCES", 2)
    path, output = write_talk(tmp_path), tmp_path / "out"
    extract(path, output)
    (tmp_path / "renamed").mkdir()
    extract(write_talk(tmp_path / "renamed", clips=3), tmp_path / "other")
    # As a kill leaves them, between taking the names of one shard and the next.
    (tmp_path / "other" / "part-00001.parquet").replace(output / "part-00001.parquet")
    with pytest.raises(ValueError, match=r"part-00001\.parquet: changed since manifest\.json was written"):
        list(read_conversations(output))
    extract(path, output)
    assert len(list(read_conversations(output))) == 2


def test_processes_give_the_same(tmp_path: Path) -> None:
    path = write_talk(tmp_path)
    extract(path, tmp_path / "one")
    done = []
    extract(path, tmp_path / "two", num_processes=2, report=lambda *counts: done.append(counts))
    assert done[-1] == (6, 6)
    one, two = ((tmp_path / name / "part-00000.parquet").read_bytes() for name in ("one", "two"))
    assert one == two


def test_an_engine_that_is_not_there_and_no_process_are_refused(tmp_path: Path) -> None:
    path = write_talk(tmp_path)
    with pytest.raises(ValueError, match="engine must be one of processes, ray, got 'steam'"):
        extract(path, tmp_path / "out", engine="steam")
    with pytest.raises(ValueError, match="num_processes must be at least 1, got 0"):
        extract(path, tmp_path / "out", num_processes=0)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed")
def test_ray_gives_the_same_on_loopback_alone(tmp_path: Path, reads: list[str]) -> None:
    path = write_talk(tmp_path, missing=True)
    assert extract(path, tmp_path / "processes") == 1
    command = [sys.executable, "-m", "redifu.cli", "extract", path.name, "--output", "ray"]
    command += ["--visual-backend", "none", "--engine", "ray", "--num-proc", "2"]
    # Of this checkout, in whatever folder a worker begins.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = str(Path(redifu.__file__).parents[1])
    environment["RAY_worker_niceness"] = "0"  # where the machine is busy, niced workers would wait for long
    process = psutil.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    listening = set()
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            for each in (process, *process.children(recursive=True)):
                sockets = each.net_connections("inet")
                listening |= {(each.name(), one.laddr.ip) for one in sockets if one.status == "LISTEN"}
        time.sleep(0.5)
    complaint = f"redifu extract: 1 stream could not be read, see {Path('ray', REPORT)}\n"
    assert (process.returncode, process.stderr.read()) == (1, complaint)
    assert {name for name, _ in listening} >= {"gcs_server", "raylet"}
    assert {ip.removeprefix("::ffff:") for _, ip in listening} == {"127.0.0.1"}
    one, other = (contents(tmp_path / name) for name in ("processes", "ray"))
    # Paths are shown as they were given, here from the folder of the file on.
    assert one.pop(REPORT).replace(f"{tmp_path}/".encode(), b"") == other.pop(REPORT)
    assert one == other and len(one) == 4  # a shard, the manifest and two readings
    # What one engine has read, another one does not read again.
    reads.clear()
    extract(path, tmp_path / "ray")
    assert reads == ["nowhere.wav"]


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by their names."""
    return {each.name: each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def test_a_folder_without_a_whole_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(ValueError, match="manifest.json: not a manifest"):
        next(read_conversations(tmp_path))


def test_an_extraction_that_fails_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, output = write_talk(tmp_path), tmp_path / "out"
    extract(path, output)
    before = contents(output)

    def fail(table: object, place: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(extraction.pq, "write_table", fail)
    with pytest.raises(OSError, match="No space left on device: '.*part-00000.parquet'"):
        extract(write_talk(tmp_path, dialogues=3), output)
    after = contents(output)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) <= {each for each in after if each.endswith(".safetensors")}


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(
        "import os, pathlib, time\n"
        "def pid(item):\n"
        "    pathlib.Path(f'pid-{os.getpid()}').touch()\n"
        "    time.sleep(600)\n"
    )
    code = "import worker\nfrom redifu.data.executors import in_processes\n"
    code += "if __name__ == '__main__':\n    list(in_processes(worker.pid, range(2), number=2))\n"
    (tmp_path / "parent.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": f"{Path(redifu.__file__).parents[1]}:{tmp_path}"}
    parent = subprocess.Popen([sys.executable, "parent.py"], cwd=tmp_path, env=environment)
    while len(begun := list(tmp_path.glob("pid-*"))) < 2:
        assert parent.poll() is None
        time.sleep(0.05)
    workers = [psutil.Process(int(each.name.removeprefix("pid-"))) for each in begun]
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    for each in alive:
        each.kill()
    assert alive == []


@pytest.mark.slow
def test_a_killed_extraction_goes_on(tmp_path: Path) -> None:
    path, output = write_talk(tmp_path, dialogues=40, clips=6), tmp_path / "out"
    command = [sys.executable, "-m", "redifu.cli", "extract", str(path), "--output", str(output)]
    command += ["--visual-backend", "none"]
    process = subprocess.Popen(command, start_new_session=True)
    while not (output / CACHE).is_dir() or len(list((output / CACHE).glob("*.safetensors"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {each: each.stat().st_mtime_ns for each in (output / CACHE).glob("*.safetensors")}
    assert len(kept) < 40 and not (output / MANIFEST).exists()
    subprocess.run(command, check=True)
    assert all(each.stat().st_mtime_ns == when for each, when in kept.items())
    assert len(list((output / CACHE).glob("*.safetensors"))) == 40
    assert sum(len(one.utterances) for one in read_conversations(output)) == 240
