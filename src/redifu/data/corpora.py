"""Read IEMOCAP, MELD and CMU-MOSEI from their official folder layouts."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from redifu.conversation import Conversation
from redifu.conversation_values import shown_names
from redifu.data.conversation_tables import conversations_from_table
from redifu.data.recordings import relative_path
from redifu.data.tables import read_csv_table
from redifu.data.turn_lines import read_lines

# In the order of the released recipes. Utterances with another annotation (sur, fea, dis, oth, or xxx when
# annotators disagreed) get no label and serve as context.
IEMOCAP_LABELS = {
    "hap": "happy",
    "sad": "sad",
    "neu": "neutral",
    "ang": "angry",
    "exc": "excited",
    "fru": "frustrated",
}
# The splits share no speakers because each session has its own two actors.
IEMOCAP_SPLITS = {
    "Session1": "train",
    "Session2": "train",
    "Session3": "train",
    "Session4": "dev",
    "Session5": "test",
}

MELD_SPLITS = {
    "train": ("train_sent_emo.csv", "train_splits"),
    "dev": ("dev_sent_emo.csv", "dev_splits_complete"),
    "test": ("test_sent_emo.csv", "output_repeated_splits_test"),
}
# The distributed files contain no readable video.
MELD_BROKEN = {("train", 125, 3), ("dev", 110, 7)}

MOSEI_LABEL_COLUMNS = ("video_id", "clip", "label", "split")

_IEMOCAP_TURN = re.compile(r"\[([0-9]+\.?[0-9]*) - ([0-9]+\.?[0-9]*)\]\s+(\S+)\s+(\S+)\s+\[.*")
_IEMOCAP_TEXT = re.compile(r"(\S+) \[[0-9. -]+\]:(.*)")


class Corpus(NamedTuple):
    """The conversations of a data set and notes for its user.

    Attributes:
        conversations: each has a split (train, dev or test) if known.
        notes: what was skipped or is missing, one line each.
    """

    conversations: list[Conversation]
    notes: list[str]


def read_corpus(name: str, path: str | Path, *, folder: str | Path) -> Corpus:
    """Read a data set in its official folder layout.

    Args:
        name: a key of `CORPORA`: "iemocap", "meld" or "mosei".
        path: the folder of the data set.
        folder: where the conversations will be written; their media paths are relative to this folder.

    Raises:
        FileNotFoundError: the folder or the expected files do not exist.
        ValueError: unknown name or invalid file; names the file and, if known, line, dialogue, utterance.
    """
    path = Path(path)
    if name not in CORPORA:
        raise ValueError(f"expected one of {', '.join(CORPORA)}, got {name!r}")
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    return CORPORA[name](path, Path(folder))


def _read_iemocap(path: Path, folder: Path) -> Corpus:
    conversations = []
    for session, split in IEMOCAP_SPLITS.items():
        # macOS adds files with a leading dot to archives.
        for evaluation in sorted((path / session / "dialog" / "EmoEvaluation").glob("[!.]*.txt")):
            turns = list(_iemocap_utterances(evaluation, path / session, folder))
            conversation = {"id": evaluation.stem, "split": split, "utterances": turns}
            conversations.append(Conversation.from_dict(conversation, source=str(evaluation), folder=folder))
    if not conversations:
        expected = path / "Session1" / "dialog" / "EmoEvaluation"
        raise FileNotFoundError(f"{path}: expected IEMOCAP files such as {expected}/*.txt, found none")
    silent = sum(each.audio is None for conversation in conversations for each in conversation.utterances)
    return Corpus(conversations, [f"{silent:,} utterances have no recording"] if silent else [])


def _iemocap_utterances(evaluation: Path, session: Path, folder: Path) -> Iterator[dict[str, Any]]:
    name = evaluation.stem
    texts = _iemocap_texts(session / "dialog" / "transcriptions" / f"{name}.txt")
    media = _iemocap_media(session / "dialog", name, folder)
    for start, end, key, emotion in _iemocap_turns(evaluation):
        utterance: dict[str, Any] = {"id": key, "speaker": key.rpartition("_")[2][:1]}
        if text := texts.get(key):
            utterance["text"] = text
        if media:
            utterance |= {**media, "start": start, "end": end}
        elif (sentence := session / "sentences" / "wav" / name / f"{key}.wav").is_file():
            # This file is already cut, so it needs no span.
            utterance["audio"] = relative_path(sentence, folder)
        yield utterance | ({"label": IEMOCAP_LABELS[emotion]} if emotion in IEMOCAP_LABELS else {})


def _iemocap_turns(evaluation: Path) -> list[tuple[float, float, str, str]]:
    """Return start, end, name and annotation of each turn, sorted by time: files may not be sorted."""
    turns = []
    for number, line in enumerate(read_lines(evaluation), start=1):
        # The other lines hold the votes of individual annotators.
        if line.startswith("["):
            if (turn := _IEMOCAP_TURN.fullmatch(line)) is None:
                expected = "[start - end] turn annotation [valence, arousal, dominance]"
                raise ValueError(f"{evaluation}: line {number}: expected {expected}, got {line!r:.80}")
            turns.append((float(turn[1]), float(turn[2]), turn[3], turn[4]))
    return sorted(turns)


def _iemocap_texts(transcription: Path) -> dict[str, str]:
    if not transcription.is_file():
        return {}
    # Other lines hold noises and words outside the annotated turns.
    matches = filter(None, map(_IEMOCAP_TEXT.match, read_lines(transcription)))
    return {match[1]: match[2].strip() for match in matches}


def _iemocap_media(dialogues: Path, name: str, folder: Path) -> dict[str, str]:
    """Return the recordings of the whole dialogue: audio and video must share one start and end."""
    sound, picture = dialogues / "wav" / f"{name}.wav", dialogues / "avi" / "DivX" / f"{name}.avi"
    media = {}
    if sound.is_file() or picture.is_file():
        media["audio"] = relative_path(sound if sound.is_file() else picture, folder)
    if picture.is_file():
        media["video"] = relative_path(picture, folder)
    return media


def _read_meld(path: Path, folder: Path) -> Corpus:
    conversations, notes = [], []
    for split, (table, clips) in MELD_SPLITS.items():
        if (csv_file := _find(path, table)) is None:
            notes.append(f"{split}: skipped, {table} is missing")
            continue
        if (clip_folder := _find(path, clips)) is None:
            notes.append(f"{split}: text only, the folder {clips} is missing")
        read, lost = _meld_split(csv_file, clip_folder, split=split, folder=folder)
        conversations += read
        notes += [f"{split}: {reason}: text only" for reason in lost]
    if not conversations:
        raise FileNotFoundError(f"{path}: expected MELD files named *_sent_emo.csv, found none")
    return Corpus(conversations, notes)


def _meld_split(
    csv_file: Path, clips: Path | None, *, split: str, folder: Path
) -> tuple[list[Conversation], list[str]]:
    """Return the conversations of a split and notes about missing clips."""
    table = read_csv_table(csv_file)
    paths: list[str | None] = []
    lost, missing = [], []
    for dialogue, turn in _meld_keys(table, source=str(csv_file)):
        name, path = f"dia{dialogue}_utt{turn}.mp4", None
        if clips is not None:
            if (split, dialogue, turn) in MELD_BROKEN:
                lost.append(f"{name} is corrupt in the official release")
            elif not (clips / name).is_file():
                missing.append(name)
            else:
                path = relative_path(clips / name, folder)
        paths.append(path)
    for name in ("audio", "video"):
        table = table.append_column(name, pa.array(paths, pa.string()))
    if missing:
        lost.append(f"{len(missing):,} clips are missing (first: {missing[0]})")
    read = conversations_from_table(table, source=str(csv_file), folder=folder)
    return [_of_split(each, split) for each in read], lost


def _of_split(conversation: Conversation, split: str) -> Conversation:
    name = f"{split}-{conversation.id}"
    return replace(conversation, id=name, given={**conversation.given, "id": name, "split": split})


def _meld_keys(table: pa.Table, *, source: str) -> Iterator[tuple[int, int]]:
    names = ("Dialogue_ID", "Utterance_ID")
    if lacking := [name for name in names if name not in table.column_names]:
        raise ValueError(f"{source}: missing columns: {', '.join(lacking)}")
    for row, cells in enumerate(zip(*(table[name].to_pylist() for name in names), strict=True), start=1):
        try:
            yield int(cells[0]), int(cells[1])
        except (TypeError, ValueError):
            raise ValueError(f"{source}: row {row}: expected two integer IDs, got {cells}") from None


def _find(path: Path, name: str) -> Path | None:
    """Find a file or folder in `path` or one level below, where the archives unpack."""
    return next((found for pattern in (name, f"*/{name}") for found in sorted(path.glob(pattern))), None)


def _read_mosei(path: Path, folder: Path) -> Corpus:
    root = path if (path / "Transcript").is_dir() else path / "Raw"
    transcripts = sorted((root / "Transcript" / "Segmented" / "Combined").glob("[!.]*.txt"))
    if not transcripts:
        expected = root / "Transcript" / "Segmented" / "Combined"
        raise FileNotFoundError(f"{path}: expected CMU-MOSEI files {expected}/*.txt, found none")
    labels, splits = _mosei_labels(path / "labels.csv")
    conversations, silent, untimed = [], 0, 0
    unused = dict.fromkeys(labels)
    for transcript in transcripts:
        media = _mosei_media(root, transcript.stem, folder)
        utterances = _mosei_utterances(transcript, media, labels)
        for each in utterances:
            unused.pop(_mosei_key(transcript.stem, each["clip"]), None)
        silent += not media
        untimed += sum("start" not in each for each in utterances) if media else 0
        conversation: dict[str, Any] = {"id": transcript.stem, "utterances": utterances}
        if split := splits.get(transcript.stem):
            conversation["split"] = split
        conversations.append(Conversation.from_dict(conversation, source=str(transcript), folder=folder))
    notes = [f"{silent:,} videos without media files have text only"] if silent else []
    notes += [f"{untimed:,} segments with invalid times have text only"] if untimed else []
    notes += [] if labels else ["no labels: labels.csv is missing"]
    if unused:
        video, clip = next(iter(unused))
        first = f"first: video {shown_names([video])}, clip {shown_names([clip])}"
        notes.append(f"{len(unused):,} labels of labels.csv belong to no segment ({first})")
    return Corpus(conversations, notes)


def _mosei_media(root: Path, name: str, folder: Path) -> dict[str, str]:
    places = {
        "audio": root / "Audio" / "Full" / "WAV_16000" / f"{name}.wav",
        "video": root / "Videos" / "Full" / "Combined" / f"{name}.mp4",
    }
    return {key: relative_path(place, folder) for key, place in places.items() if place.is_file()}


def _mosei_utterances(
    transcript: Path, media: dict[str, str], labels: dict[tuple[str, str], str]
) -> list[dict[str, Any]]:
    segments = []
    for number, line in enumerate(read_lines(transcript), start=1):
        if not line.strip():
            continue
        try:
            # The name of a video may begin or end with an underscore, and so may that of a clip.
            rest = line.removeprefix(f"{transcript.stem}___")
            clip, start, end, text = (rest if rest != line else line.partition("___")[2]).split(
                "___", maxsplit=3
            )
            segments.append((float(start), float(end), clip, text.strip()))
        except ValueError:
            expected = "ID___segment___start___end___text"
            raise ValueError(f"{transcript}: line {number}: expected {expected}, got {line!r:.80}") from None
    utterances = []
    for first, last, clip, text in sorted(segments):
        # Each video has one speaker.
        utterance: dict[str, Any] = {"clip": clip, "speaker": "speaker", "text": text}
        # Some segments begin half a second before their video.
        if media and -math.inf < first < last < math.inf and last > 0:
            utterance |= {**media, "start": max(first, 0.0), "end": last}
        key = _mosei_key(transcript.stem, clip)
        utterances.append(utterance | ({"label": labels[key]} if key in labels else {}))
    return utterances


def _mosei_key(video: str, clip: str) -> tuple[str, str]:
    """Return the key of a segment's label: pandas writes clip 1 as "1.0"."""
    number = re.fullmatch(r"\s*0*([0-9]+)(?:\.0*)?\s*", clip)
    return video.strip(), number[1] if number else clip.strip()


def _mosei_labels(path: Path) -> tuple[dict[tuple[str, str], str], dict[str, str]]:
    """Return labels by (video, clip) and splits by video; both are empty if the file does not exist."""
    labels: dict[tuple[str, str], str] = {}
    splits: dict[str, str] = {}
    if not path.is_file():
        return labels, splits
    table = read_csv_table(path)
    if lacking := [name for name in MOSEI_LABEL_COLUMNS[:3] if name not in table.column_names]:
        got = ", ".join(table.column_names)
        raise ValueError(f"{path}: missing columns: {', '.join(lacking)}; found: {got}")
    for number, row in enumerate(table.to_pylist(), start=1):
        video, clip, label, split = (row.get(name) or "" for name in MOSEI_LABEL_COLUMNS)
        if label:
            labels[_mosei_key(video, clip)] = label
        video = video.strip()
        if splits.setdefault(video, split) != split:
            where = f"{path}: row {number}: video {video}"
            raise ValueError(f"{where}: expected one split, got {splits[video]!r} and {split!r}")
    return labels, splits


CORPORA: dict[str, Callable[[Path, Path], Corpus]] = {
    "iemocap": _read_iemocap,
    "meld": _read_meld,
    "mosei": _read_mosei,
}
