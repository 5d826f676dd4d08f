"""IEMOCAP, MELD and CMU-MOSEI from miniature folders of the layout their owners distribute."""

from pathlib import Path
from typing import Any

import pytest

from redifu.conversation import Conversation
from redifu.data.corpora import CORPORA, IEMOCAP_LABELS, read_corpus
from redifu.data.readers import read_conversations
from redifu.data.writers import write_conversations
from redifu.model import ReDiFuConfig


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def utterances_of(conversations: list[Conversation]) -> dict[str, list[dict[str, Any]]]:
    """The utterances of each conversation as they will be written."""
    return {each.id: each.to_dict()["utterances"] for each in conversations}


# IEMOCAP

EVALUATION = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\t{0}_F000\tneu\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
A-F1:\tval 3; act 2; dom  2;\t()

[14.8872 - 18.0175]\t{0}_F001\txxx\t[2.5000, 2.5000, 2.5000]

[10.0100 - 11.3925]\t{0}_M000\tfru\t[2.5000, 2.5000, 2.5000]
"""
TRANSCRIPTION = """{0}_F000 [006.2901-008.2357]: Excuse me.
{0}_MXX0 [008.2357-010.0100]: Not annotated.
M: [LAUGHTER]
{0}_M000 [010.0100-011.3925]: Do you have your forms?
"""


@pytest.fixture
def iemocap(tmp_path: Path) -> Path:
    root = tmp_path / "IEMOCAP_full_release"
    for session in (1, 4, 5):
        name, folder = f"Ses0{session}F_impro01", root / f"Session{session}"
        write(folder / "dialog" / "EmoEvaluation" / f"{name}.txt", EVALUATION.format(name))
        # What the archives hold beside.
        write(folder / "dialog" / "EmoEvaluation" / f"._{name}.txt", "\1")
        write(folder / "dialog" / "EmoEvaluation" / "Categorical" / f"{name}_e2_cat.txt", "x")
        write(folder / "dialog" / "transcriptions" / f"{name}.txt", TRANSCRIPTION.format(name))
        for turn in ("F000", "M000", "F001"):
            write(folder / "sentences" / "wav" / name / f"{name}_{turn}.wav")
    return root


def test_iemocap_has_its_turns_in_time_with_text_label_and_split(iemocap: Path) -> None:
    conversations, notes = read_corpus("iemocap", iemocap, folder=iemocap)
    assert [(each.id, each.split) for each in conversations] == [
        ("Ses01F_impro01", "train"),
        ("Ses04F_impro01", "dev"),
        ("Ses05F_impro01", "test"),
    ]
    first, second, third = utterances_of(conversations)["Ses01F_impro01"]
    sentences = "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01"
    assert first == {
        "id": "Ses01F_impro01_F000",
        "speaker": "F",
        "text": "Excuse me.",
        "audio": f"{sentences}_F000.wav",
        "label": "neutral",
    }
    assert (second["speaker"], second["label"]) == ("M", "frustrated")
    # No agreement and no transcript: context that is heard.
    assert third == {"id": "Ses01F_impro01_F001", "speaker": "F", "audio": f"{sentences}_F001.wav"}
    assert notes == []


def test_iemocap_cuts_its_turns_out_of_the_recordings_of_dialogues_where_they_are(iemocap: Path) -> None:
    dialogues = [iemocap / f"Session{session}" / "dialog" for session in (1, 4, 5)]
    names = [f"Ses0{session}F_impro01" for session in (1, 4, 5)]
    write(dialogues[0] / "wav" / f"{names[0]}.wav")
    write(dialogues[0] / "avi" / "DivX" / f"{names[0]}.avi")
    write(dialogues[1] / "avi" / "DivX" / f"{names[1]}.avi")
    write(dialogues[2] / "wav" / f"{names[2]}.wav")
    read = utterances_of(read_corpus("iemocap", iemocap, folder=iemocap / "Session1")[0])
    streams = [(read[name][1].get("audio"), read[name][1].get("video")) for name in names]
    other = "../Session4/dialog/avi/DivX/Ses04F_impro01.avi"
    assert streams == [
        ("dialog/wav/Ses01F_impro01.wav", "dialog/avi/DivX/Ses01F_impro01.avi"),
        (other, other),
        ("../Session5/dialog/wav/Ses05F_impro01.wav", None),
    ]
    for name in names:
        assert [(each["start"], each["end"]) for each in read[name]] == [
            (6.2901, 8.2357),
            (10.01, 11.3925),
            (14.8872, 18.0175),
        ]


def test_iemocap_without_any_recording_says_so(iemocap: Path) -> None:
    for path in iemocap.rglob("*.wav"):
        path.unlink()
    for path in iemocap.rglob("[!.]*/transcriptions/*.txt"):
        write(path, path.read_text("utf-8") + f"{path.stem}_F001 [014.8872-018.0175]: Oh.\n")
    assert read_corpus("iemocap", iemocap, folder=iemocap).notes == ["9 utterances have no recording"]


def test_the_labels_of_iemocap_stand_in_the_order_of_the_released_model() -> None:
    assert list(IEMOCAP_LABELS.values()) == ReDiFuConfig.released("iemocap").labels


# MELD

HEADER = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
)
TIMES = '8,21,"00:16:16,059","00:16:21,731"'
MELD_CLIPS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}


def meld_table(*rows: tuple[int, int]) -> str:
    """Rows of (dialogue, utterance), each with a text that says which it is."""
    lines = [f"1,d{d} u{u},Ross,joy,positive,{d},{u},{TIMES}" for d, u in rows]
    return "\n".join([HEADER, *lines, ""])


@pytest.fixture
def meld(tmp_path: Path) -> Path:
    root = tmp_path / "MELD.Raw"
    tables = {
        "train": [(0, 2), (0, 0), (125, 3)],
        "dev": [(0, 0), (110, 7), (110, 8)],
        "test": [(0, 0), (1, 0)],
    }
    for split, rows in tables.items():
        write(root / f"{split}_sent_emo.csv", meld_table(*rows))
        for dialogue, turn in rows:
            write(root / MELD_CLIPS[split] / f"dia{dialogue}_utt{turn}.mp4")
    return root


def test_meld_finds_the_clip_of_each_utterance(meld: Path, tmp_path: Path) -> None:
    (meld / "output_repeated_splits_test" / "dia1_utt0.mp4").unlink()
    conversations, notes = read_corpus("meld", meld, folder=tmp_path)
    clips = {
        f"{each.split} {one.text}": (one.audio, one.video)
        for each in conversations
        for one in each.utterances
    }
    folders = {split: f"MELD.Raw/{name}" for split, name in MELD_CLIPS.items()}
    there = {
        "train d0 u0": f"{folders['train']}/dia0_utt0.mp4",
        "train d0 u2": f"{folders['train']}/dia0_utt2.mp4",
        "dev d0 u0": f"{folders['dev']}/dia0_utt0.mp4",
        "dev d110 u8": f"{folders['dev']}/dia110_utt8.mp4",
        "test d0 u0": f"{folders['test']}/dia0_utt0.mp4",
    }
    lost = dict.fromkeys(["train d125 u3", "dev d110 u7", "test d1 u0"], (None, None))
    assert clips == {name: (clip, clip) for name, clip in there.items()} | lost
    assert notes == [
        "train: dia125_utt3.mp4 is corrupt in the official release: text only",
        "dev: dia110_utt7.mp4 is corrupt in the official release: text only",
        "test: 1 clips are missing (first: dia1_utt0.mp4): text only",
    ]


def test_dialogues_of_meld_have_different_ids_and_a_split_each(meld: Path, tmp_path: Path) -> None:
    conversations, _ = read_corpus("meld", meld, folder=tmp_path)
    ids = ["train-0", "train-125", "dev-0", "dev-110", "test-0", "test-1"]
    assert [each.id for each in conversations] == ids
    assert [one.text for one in conversations[0].utterances] == ["d0 u0", "d0 u2"]
    write_conversations(tmp_path / "meld.jsonl", conversations)
    read = list(read_conversations(tmp_path / "meld.jsonl", split="dev"))
    assert [each for each in conversations if each.split == "dev"] == read
    assert [each.to_dict() for each in read] == [each.to_dict() for each in conversations[2:4]]


def test_meld_may_be_unpacked_in_folders_or_lack_parts(meld: Path, tmp_path: Path) -> None:
    (meld / "train").mkdir()
    (meld / "train_sent_emo.csv").rename(meld / "train" / "train_sent_emo.csv")
    (meld / "train_splits").rename(meld / "train" / "train_splits")
    (meld / "dev_sent_emo.csv").unlink()
    (meld / "output_repeated_splits_test").rename(meld / "elsewhere")
    conversations, notes = read_corpus("meld", meld, folder=tmp_path)
    read = utterances_of(conversations)
    assert list(read) == ["train-0", "train-125", "test-0", "test-1"]
    assert read["train-0"][0]["video"] == "MELD.Raw/train/train_splits/dia0_utt0.mp4"
    assert "video" not in read["test-0"][0]
    assert notes[1:] == [
        "dev: skipped, dev_sent_emo.csv is missing",
        "test: text only, the folder output_repeated_splits_test is missing",
    ]


# CMU-MOSEI

SEGMENTS = (
    "abc___1___4.5___7.25___And I___ mean it.\nabc___0___0.0___4.5___I like it.\nabc___2___9___9___Bye.\n"
)


@pytest.fixture
def mosei(tmp_path: Path) -> Path:
    raw = tmp_path / "MOSEI" / "Raw"
    write(raw / "Transcript" / "Segmented" / "Combined" / "abc.txt", SEGMENTS)
    write(raw / "Transcript" / "Segmented" / "Combined" / "xyz.txt", "xyz___0___0___1.5___No.\n")
    write(raw / "Audio" / "Full" / "WAV_16000" / "abc.wav")
    write(raw / "Videos" / "Full" / "Combined" / "abc.mp4")
    return raw.parent


@pytest.mark.parametrize("folder", ["", "Raw"])
def test_mosei_has_a_monologue_of_segments_for_each_video(mosei: Path, folder: str) -> None:
    conversations, notes = read_corpus("mosei", mosei / folder, folder=mosei / "Raw")
    media = {"audio": "Audio/Full/WAV_16000/abc.wav", "video": "Videos/Full/Combined/abc.mp4"}
    assert utterances_of(conversations) == {
        "abc": [
            {"clip": "0", "speaker": "speaker", "text": "I like it.", **media, "start": 0.0, "end": 4.5},
            {
                "clip": "1",
                "speaker": "speaker",
                "text": "And I___ mean it.",
                **media,
                "start": 4.5,
                "end": 7.25,
            },
            {"clip": "2", "speaker": "speaker", "text": "Bye."},
        ],
        "xyz": [{"clip": "0", "speaker": "speaker", "text": "No."}],
    }
    assert notes == [
        "1 videos without media files have text only",
        "1 segments with invalid times have text only",
        "no labels: labels.csv is missing",
    ]


def test_labels_of_mosei_come_from_a_table(mosei: Path) -> None:
    rows = "video_id,clip,label,split\nabc,0,happy,train\nabc,1,,train\nabc,2,sad,train\nxyz,0,happy,dev\n"
    write(mosei / "labels.csv", rows)
    conversations, notes = read_corpus("mosei", mosei, folder=mosei)
    assert [each.split for each in conversations] == ["train", "dev"]
    assert [one.label for one in conversations[0].utterances] == ["happy", None, "sad"]
    assert not any("labels" in note for note in notes)
    write(mosei / "labels.csv", "video_id,clip,label\nabc,0,happy\n")
    assert "split" not in read_corpus("mosei", mosei, folder=mosei).conversations[0].to_dict()


def test_a_segment_that_begins_before_its_video_keeps_its_sound(mosei: Path) -> None:
    text = "abc___0___-0.477___3.1___Hi.\nabc___1___-2___-1___No.\nabc___2___nan___1___You.\n"
    write(mosei / "Raw" / "Transcript" / "Segmented" / "Combined" / "abc.txt", text)
    conversations, notes = read_corpus("mosei", mosei, folder=mosei)
    spans = {one.text: (one.start, one.end, one.audio is None) for one in conversations[0].utterances}
    assert spans == {"Hi.": (0.0, 3.1, False), "No.": (None, None, True), "You.": (None, None, True)}
    assert "2 segments with invalid times have text only" in notes


def test_labels_find_their_segments_however_clips_are_named(mosei: Path) -> None:
    folder = mosei / "Raw" / "Transcript" / "Segmented" / "Combined"
    write(folder / "_vid9.txt", "_vid9___0___0___1___a\n_vid9___11___1___2___b\n_vid9____x___2___3___c\n")
    write(folder / "vid_.txt", "vid____1___0___1___d\n")
    rows = ["_vid9,0.0,joy", "_vid9 ,11,sad", "_vid9,_x,fear", "vid_,01,calm", "abc,7,joy", "gone,0,joy"]
    write(mosei / "labels.csv", "\n".join(["video_id,clip,label", *rows]))
    conversations, notes = read_corpus("mosei", mosei, folder=mosei)
    labels = {
        one.text: one.label for each in conversations[:1] + conversations[2:3] for one in each.utterances
    }
    assert labels == {"a": "joy", "b": "sad", "c": "fear", "d": "calm"}
    assert notes[-1] == "2 labels of labels.csv belong to no segment (first: video abc, clip 7)"


# Bad input


@pytest.mark.parametrize("name", sorted(CORPORA))
def test_a_folder_that_is_another_data_set_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match="expected .* files .*, found none"):
        read_corpus(name, tmp_path, folder=tmp_path)
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        read_corpus(name, tmp_path / "none", folder=tmp_path)


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one of iemocap, meld, mosei, got 'melt'"):
        read_corpus("melt", tmp_path, folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "content", "complaint"),
    [
        (
            "iemocap",
            "Session4/dialog/EmoEvaluation/Ses04F_impro01.txt",
            "x",
            "expected a non-empty list of utterances",
        ),
        (
            "iemocap",
            "Session4/dialog/EmoEvaluation/Ses04F_impro01.txt",
            "C-E2:\tNeutral;\n[1 - ] Ses04F_impro01_F000\tneu\t[2, 2, 2]",
            "line 2: expected [start - end] turn annotation",
        ),
        ("meld", "dev_sent_emo.csv", "a,b\n1,2\n", "missing columns: Dialogue_ID, Utterance_ID"),
        (
            "meld",
            "dev_sent_emo.csv",
            HEADER + f"\n1,a,Ross,joy,positive,x,0,{TIMES}\n",
            "row 1: expected two integer IDs",
        ),
        (
            "mosei",
            "Raw/Transcript/Segmented/Combined/abc.txt",
            "\nabc___0___x",
            "line 2: expected ID___segment",
        ),
        ("mosei", "labels.csv", "video,label\n", "missing columns: video_id, clip; found: video, label"),
        (
            "mosei",
            "labels.csv",
            "video_id,clip,label,split\na,0,b,c\na,1,b,d\n",
            "row 2: video a: expected one",
        ),
    ],
)
def test_a_bad_file_is_named(
    request: pytest.FixtureRequest, name: str, file: str, content: str, complaint: str
) -> None:
    folder = request.getfixturevalue(name)
    write(folder / file, content)
    with pytest.raises(ValueError) as error:
        read_corpus(name, folder, folder=folder)
    assert str(error.value).startswith(f"{folder / file}: ")
    assert complaint in str(error.value)
