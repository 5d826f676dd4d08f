"""Makes good files whose right reading is known by construction, and reports where a reader says otherwise.

Beside `fuzz_readers.py`, which damages files: there, a reader may refuse; here, it must read, and read right.
Tables come in the dialects of many programs, objects in all spellings of JSON, and turns in each format that
`read_turns` knows. The same kind and number give the same file.

    python tests/data/fuzz_meanings.py --files 5000
"""

import argparse
import csv
import html
import io
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from redifu.data.readers import read_conversations
from redifu.data.turns import read_turns

NAMES = ["Ana", "Bo Lee", "Dr. Okri", "Anna van der Berg", "Zoë", "小明", "O'Hara", "Иван"]
# Cells that programs take for something else.
ODD_NAMES = ["None", "NA", "nan", "007", "null", "1.0", "TRUE", "Lee, Bo", 'Bo "B" Lee', "-"]
WORDS = (
    *("yes", "no", "I", "told", "you", "twice", "why", "10", "3.5", "it's", "so", "Zürich", "naïve", "好的"),
    *("really?", "stop!", "…", "and", "then", "we", "left", "😀", "half-past", "(sighs)"),
)
CELL_WORDS = (*WORDS, ",", ";", "\t", '"quoted"', '""', "a,b", "x;y", "<b>", "&amp;", "'", "#", "\\", "--")
LABELS = ["joy", "anger", "neutral", "None"]


class Made:
    """A file that was made, and what is right for it.

    Attributes:
        path: of the file.
        read: what the package reads from it, in the form of `right`.
        right: what stands in it.
    """

    def __init__(self, path: Path, content: bytes | None, read: Callable[[Path], Any], right: Any):
        """Write the content; None if it is written already."""
        if content is not None:
            path.write_bytes(content)
        self.path, self.read, self.right = path, read, right


def sentence(random: Random, words: Sequence[str] = WORDS, *, glue: Sequence[str] = (" ",)) -> str:
    """A few words, of which the first says something whatever is cut off around it."""
    said = random.choice(["Well", "oh", "You", "hm", "Äh", "2 of"])
    for _ in range(random.randint(0, 6)):
        said += random.choice(glue) + random.choice(words)
    return said


def encoded(random: Random, text: str) -> bytes:
    """Text in an encoding and with the line ends of some program."""
    text = text.replace("\r\n", "\n").replace("\n", random.choice(["\n", "\r\n"]))
    return text.encode(random.choice(["utf-8", "utf-8-sig", "utf-16"]))


# Tables


def dialogues(random: Random, *, numbered: bool = False) -> list[dict[str, Any]]:
    """Rows in the order of the dialogues and of their turns, all cells with their Python values."""
    names = [str(random.randint(0, 99)) for _ in range(3)] if numbered else ["d1", "007", "d 1", "1.0", "NA"]
    splits = random.choice([[None], [None], ["train", "dev"]])
    rows = []
    for split in splits:
        for name in random.sample(sorted(set(names)), random.randint(1, len(set(names)))):
            turn = 0 if numbered else random.randint(-3, 99)
            seconds = random.randint(0, 5000) / 4
            for _ in range(random.randint(1, 7)):
                end = seconds + random.randint(1, 40) / 4
                rows.append(
                    {
                        **{"split": split, "dialogue_id": name, "turn": turn},
                        "speaker": random.choice(NAMES + ODD_NAMES),
                        "text": sentence(random, CELL_WORDS, glue=(" ", " ", "\nso ", "\n, ", ", ")),
                        "label": random.choice([*LABELS, None]),
                        **{"start": seconds, "end": end},
                    }
                )
                turn, seconds = turn + random.randint(1, 3), end
    return rows


def kept_columns(random: Random, rows: list[dict[str, Any]]) -> list[str]:
    """The columns of a table that may leave some out; a table of several dialogues has their ids."""
    optional = [name for name in ("label", "start", "end") if random.random() < 0.5]
    if ("start" in optional) != ("end" in optional):
        optional = [name for name in optional if name not in ("start", "end")]
    split = ["split"] if rows[0]["split"] is not None else []
    return ["dialogue_id", "turn", "speaker", "text", *optional, *split]


def shuffled(random: Random, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows in an order that programs save."""
    kind = random.choice(["as it is", "reversed", "any", "by turn"])
    if kind == "any":
        return random.sample(rows, len(rows))
    if kind == "by turn":
        return sorted(rows, key=lambda row: row["turn"])
    return rows[::-1] if kind == "reversed" else rows


def meaning_of_rows(rows: list[dict[str, Any]], names: Sequence[str]) -> list[Any]:
    """What a table of these rows means: dialogues in the order of their first rows, sorted by turn."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["split"] if "split" in names else None, row["dialogue_id"]), []).append(row)
    return [
        (
            str(name),
            split,
            [
                {
                    key: row[key]
                    for key in names
                    if key not in ("split", "dialogue_id") and row[key] is not None
                }
                for row in sorted(group, key=lambda row: row["turn"])
            ],
        )
        for (split, name), group in groups.items()
    ]


def read_rows(path: Path) -> list[Any]:
    """What the package reads from a table, in the form of `meaning_of_rows`."""
    return [
        (
            one.id,
            one.split,
            [
                {**_plain(utterance), "turn": turn}
                for utterance, turn in zip(one.utterances, one.turns, strict=True)
            ],
        )
        for one in read_conversations(path)
    ]


_FIELDS = ("text", "label", "start", "end", "audio", "video")


def _plain(utterance: Any) -> dict[str, Any]:
    """The speaker as written, the fields that were read, and the columns that were kept."""
    read = {name: value for name in _FIELDS if (value := getattr(utterance, name)) is not None}
    features = ("text_features", "audio_features", "visual_features")
    read |= {
        name: [float(number) for number in value]
        for name in features
        if (value := getattr(utterance, name)) is not None
    }
    return {**utterance.given, **read}


def extra_columns(random: Random, rows: list[dict[str, Any]]) -> list[str]:
    """Give rows columns of other names; returns the names."""
    names = random.sample(["Mood", "my notes", "a;b", "clip", "Nº", "index"], random.randint(0, 3))
    for row in rows:
        row |= {name: random.choice([*ODD_NAMES, sentence(random, CELL_WORDS)]) for name in names}
    return names


def clocked(random: Random, seconds: float) -> str:
    """Seconds as people write them."""
    if random.random() < 0.6:
        return str(seconds)
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (
        f"{hours}:{minutes:02}:{rest:05.2f}" if hours or random.random() < 0.5 else f"{minutes}:{rest:05.2f}"
    )


def as_csv(random: Random, names: Sequence[str], rows: list[dict[str, Any]]) -> bytes:
    """A table in a dialect; times become clock times now and then."""
    file = io.StringIO(newline="")
    delimiter, end = random.choice(",;\t"), random.choice(["\n", "\r\n"])
    quoting = random.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
    if random.random() < 0.2:
        file.write(f"sep={delimiter}{end}")
    table = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end)
    table.writerow(names)
    for row in rows:
        cells = {name: "" if row[name] is None else row[name] for name in names}
        cells |= {name: clocked(random, row[name]) for name in ("start", "end") if name in names}
        table.writerow([cells[name] for name in names])
        if random.random() < 0.05:
            file.write(end)
    content = file.getvalue()
    content = content if random.random() < 0.8 else content.rstrip("\r\n")
    return content.encode(random.choice(["utf-8", "utf-8-sig", "utf-16"]))


def csv_table(random: Random, folder: Path) -> Made:
    """Rows with the columns of ours and others, in any order."""
    rows = dialogues(random)
    names = kept_columns(random, rows) + extra_columns(random, rows)
    random.shuffle(names)
    rows = shuffled(random, rows)
    return Made(folder / "table.csv", as_csv(random, names, rows), read_rows, meaning_of_rows(rows, names))


def csv_with_gaps(random: Random, folder: Path) -> Made:
    """Rows whose text or media are missing now and then, and features as JSON."""
    rows = dialogues(random)
    names = ["dialogue_id", "turn", "speaker", "text", "audio", "text_features"]
    written = []
    for number, row in enumerate(rows):
        gap = random.choice(["text", "audio", "text_features"])
        row |= {"split": None, "audio": f"clips/{number}, a.wav", "text_features": None}
        if random.random() < 0.5:
            row["text_features"] = [random.randint(-9, 9) / 4 for _ in range(3)]
            row |= {gap: None}
        written.append({**row, "text_features": row["text_features"] and json.dumps(row["text_features"])})
    seen = set()
    distinct = [
        place
        for place, row in enumerate(rows)
        if (key := (row["dialogue_id"], row["turn"])) not in seen and not seen.add(key)
    ]
    rows, written = ([given[place] for place in distinct] for given in (rows, written))
    return Made(folder / "gaps.csv", as_csv(random, names, written), read_rows, meaning_of_rows(rows, names))


def meld(random: Random, folder: Path) -> Made:
    """A table of MELD, with or without its labels."""
    rows = dialogues(random, numbered=True)
    names = {"text": "Utterance", "speaker": "Speaker", "dialogue_id": "Dialogue_ID", "turn": "Utterance_ID"}
    if random.random() < 0.7:
        names |= {"label": "Emotion"}
    rows = [row for row in rows if row["split"] in (None, "train")]
    for number, row in enumerate(rows, start=1):
        row |= {"split": None, "label": row["label"] or "joy", "sentiment": "positive", "Sr No.": str(number)}
        row |= {"Season": "2", "StartTime": "00:16:16,059", "EndTime": "00:16:21,731"}
    others = random.sample(["sentiment", "Sr No.", "Season", "StartTime", "EndTime"], random.randint(0, 5))
    columns = [*names, *others]
    random.shuffle(columns)
    rows = shuffled(random, rows)
    theirs = {**names, "sentiment": "Sentiment"}
    written = [{theirs.get(name, name): row[name] for name in columns} for row in rows]
    content = as_csv(random, list(written[0]), written)
    return Made(folder / "meld.csv", content, read_rows, meaning_of_rows(rows, columns))


def parquet(random: Random, folder: Path) -> Made:
    """Typed columns: numbers of any width, dictionaries, large strings, lists; row groups of some rows."""
    rows = dialogues(random, numbered=random.random() < 0.5)
    names = kept_columns(random, rows) + extra_columns(random, rows)
    random.shuffle(names)
    rows = shuffled(random, rows)
    if random.random() < 0.5:
        names.append("audio_features")
        for row in rows:
            row["audio_features"] = random.choice([None, [random.randint(-99, 99) / 8 for _ in range(3)]])
    types: dict[str, Any] = {
        "turn": random.choice([pa.int8(), pa.int32(), pa.int64(), pa.float64(), pa.uint16()])
    }
    if min(row["turn"] for row in rows) < 0 or max(row["turn"] for row in rows) > 127:
        types["turn"] = pa.int64()
    types |= dict.fromkeys(("start", "end"), random.choice([pa.float64(), pa.float32()]))
    types["audio_features"] = random.choice([pa.list_(pa.float32()), pa.list_(pa.float64(), 3)])
    texts = [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.binary()]
    arrays = []
    for name in names:
        cells = [row[name] for row in rows]
        kind = types.get(name) or random.choice(texts[:3] if name in ("dialogue_id", "split") else texts)
        if pa.types.is_binary(kind):
            cells = [cell if cell is None else cell.encode() for cell in cells]
        if name == "dialogue_id" and all(cell.isdecimal() and str(int(cell)) == cell for cell in cells):
            cells, kind = [int(cell) for cell in cells], pa.int64()
        arrays.append(pa.array(cells).cast(kind) if pa.types.is_dictionary(kind) else pa.array(cells, kind))
    path = folder / "table.parquet"
    pq.write_table(pa.table(arrays, names=names), path, row_group_size=random.randint(1, 9))
    return Made(path, None, read_rows, meaning_of_rows(rows, names))


# Objects


def conversations(random: Random) -> list[dict[str, Any]]:
    """Conversations with every field now and then, null among them, and keys that mean nothing."""
    made = []
    for number in range(random.randint(1, 3)):
        utterances = []
        for _ in range(random.randint(1, 6)):
            start = random.randint(0, 999) / 8
            utterance: dict[str, Any] = {"speaker": random.choice(NAMES + ODD_NAMES)}
            optional = {
                "label": random.choice(LABELS),
                "audio": "clips/a b.wav",
                "video": None,
                "start": start,
                "end": random.choice([None, start + 1]),
                "text_features": [random.randint(-9, 9) / 4, 1],
                "mood": random.choice([{"a": [1]}, "x\u2028y", 3, None]),
            }
            kept = {name: value for name, value in optional.items() if random.random() < 0.4}
            text = sentence(random, CELL_WORDS, glue=(" ", "\n", "\u2028", "\x85"))
            has_another = kept.get("audio") or kept.get("text_features")
            utterance["text"] = random.choice([text, text, None, " "] if has_another else [text])
            items = list({**utterance, **kept}.items())
            utterances.append(dict(random.sample(items, len(items))))
        one = {"utterances": utterances}
        made.append({**one, "id": f"d {number}"} if random.random() < 0.7 else one)
    return made


def meaning_of_objects(given: list[dict[str, Any]], stem: str) -> list[Any]:
    """What the reader must give for conversations."""
    fields = ("speaker", "text", "label", "audio", "video", "start", "end", "text_features", "mood")

    def of(utterance: dict[str, Any]) -> list[Any]:
        values = [utterance.get(name) for name in fields]
        text = values[1]
        values[1] = None if text is None or not text.strip() else text
        return values

    return [
        (one.get("id", f"{stem}-{place}"), list(map(of, one["utterances"])))
        for place, one in enumerate(given)
    ]


def read_objects(path: Path) -> list[Any]:
    """What the package reads from objects, in the form of `meaning_of_objects`."""

    def of(one: Any) -> list[Any]:
        features = None if one.text_features is None else one.text_features.tolist()
        fields = [one.text, one.label, one.audio, one.video, one.start, one.end, features]
        return [one.given["speaker"], *fields, one.given.get("mood")]

    return [(one.id, list(map(of, one.utterances))) for one in read_conversations(path)]


def json_file(random: Random, folder: Path) -> Made:
    """One conversation or a list, indented or not, with or without escapes."""
    given = conversations(random)
    value = given[0] if len(given) == 1 and random.random() < 0.5 else given
    text = json.dumps(value, indent=random.choice([None, 2, "\t"]), ensure_ascii=random.random() < 0.5)
    return Made(folder / "a.json", encoded(random, text), read_objects, meaning_of_objects(given, "a"))


def jsonl_file(random: Random, folder: Path) -> Made:
    """A conversation a line, with empty lines between."""
    given, end = conversations(random), random.choice(["\n", "\r\n"])
    escaped = random.random() < 0.5
    lines = [json.dumps(one, ensure_ascii=escaped) + end * random.choice([1, 1, 2]) for one in given]
    content = "".join(lines).encode(random.choice(["utf-8", "utf-8-sig"]))
    return Made(
        folder / "a.jsonl",
        content.rstrip() if random.random() < 0.3 else content,
        read_objects,
        meaning_of_objects(given, "a"),
    )


# Turns


def said_turns(
    random: Random, *, names: Sequence[str] = NAMES, most: int = 8, overlap: bool = False
) -> list[list[Any]]:
    """Turns [start, end, speaker, text] in milliseconds, in order."""
    made, now = [], random.randint(0, 3600) * 1000
    few = random.sample(list(names), min(3, len(names)))
    for _ in range(random.randint(2, most)):
        start = now + random.randint(0, 20) * 50
        end = start + random.randint(2, 80) * 50
        made.append([start, end, random.choice(few), sentence(random)])
        now = (start + 50) if overlap and random.random() < 0.3 else end
    return made


def in_seconds(turns: list[list[Any]]) -> list[Any]:
    ordered = sorted(turns, key=lambda turn: (turn[0], turn[1]))
    return [(start / 1000, end / 1000, name, text) for start, end, name, text in ordered]


def read_spans(path: Path) -> list[Any]:
    """What the package reads as turns, in the form of `in_seconds`."""
    return [(round(one.start, 6), round(one.end, 6), one.speaker, one.text) for one in read_turns(path)]


def rttm(random: Random, folder: Path) -> Made:
    """Speaker lines among others, columns parted by spaces or tabs, in any order."""
    turns = said_turns(random, names=["Ana", "SPEAKER_00", "s1", "Zoë"], overlap=True)
    gap = random.choice([" ", "\t", "   "])
    lines = []
    for start, end, name, _ in random.sample(turns, len(turns)):
        span = f"{start / 1000:.3f}", f"{(end - start) / 1000:.3f}"
        lines.append(
            gap.join(
                ["SPEAKER", "talk", "1", *span, "<NA>", "<NA>", name, "<NA>", "<NA>"][
                    : random.choice([9, 10])
                ]
            )
        )
        if random.random() < 0.2:
            lines.append(
                random.choice([";; a remark", "", f"SPKR-INFO talk 1 <NA> <NA> <NA> unknown {name} <NA>"])
            )
    right = sorted((start, end, name, None) for start, end, name, _ in in_seconds(turns))
    return Made(
        folder / "a.rttm",
        encoded(random, "\n".join(lines) + "\n"),
        lambda path: sorted(read_spans(path)),
        right,
    )


def stamp(milliseconds: int, *, comma: str, hours: bool) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    clock = f"{seconds // 60 % 60:02}:{seconds % 60:02}{comma}{rest:03}"
    return f"{seconds // 3600:02}:{clock}" if hours or seconds >= 3600 else clock


# How a speaker is marked; what is said of it when it is read.
MARKS: dict[str, Callable[[str], tuple[str, str]]] = {
    "colon": lambda name: (f"{name}: ", name),
    "brackets": lambda name: (f"[{name}]: ", name),
    "chevrons": lambda name: (f">> {name}: ", name),
    "voice": lambda name: (f"<v {html.escape(name, quote=False)}>", name),
    "voice with a class": lambda name: (f"<v.loud {html.escape(name, quote=False)}>", name),
    "time": lambda name: (f"10:30 {name}: ", name),
    "bold": lambda name: (f"<b>{name}:</b> ", name),
    "dash": lambda name: (f"- {name}: ", name),
    "capitals": lambda name: (f"{name.upper()}: ", name.upper()),
    "brackets without a colon": lambda name: (f"[{name}] ", name),
    "wide colon": lambda name: (f"{name}\uff1a", name),
}
NUMBERED: dict[str, Callable[[str], tuple[str, str]]] = {
    "whisperX": lambda number: (f"[SPEAKER_0{number}]: ", f"SPEAKER_0{number}"),
    "whisperX without a colon": lambda number: (f"[SPEAKER_0{number}] ", f"SPEAKER_0{number}"),
    "whisper.cpp": lambda number: (f"(speaker {number}) ", f"speaker {number}"),
    "NeMo": lambda number: (f"speaker_{number}: ", f"speaker_{number}"),
}


def subtitles(random: Random, folder: Path, *, ending: str) -> Made:
    """Marked cues, in parts of several lines now and then, with formatting that says nothing."""
    vtt = ending == ".vtt"
    kind = random.choice([*MARKS, *NUMBERED])
    mark = {**MARKS, **NUMBERED}[kind]
    turns = said_turns(random, names=["0", "1", "2"] if kind in NUMBERED else NAMES)
    if kind == "brackets without a colon":  # which are names only where one recurs
        turns[-1][2] = turns[0][2]
    ends_voice = "</v>" if kind.startswith("voice") and random.random() < 0.5 else ""
    hours = random.random() < 0.5 or not vtt
    blocks, right = [], []
    for number, (start, end, name, text) in enumerate(turns, start=1):
        prefix, speaker = mark(name)
        shown = html.escape(text, quote=False) if vtt else text
        shown = shown.replace(" ", "\n", 1) if random.random() < 0.3 else shown
        shown = f"<i>{shown}</i>" if random.random() < 0.2 else shown
        comma = "." if vtt else ","
        times = f"{stamp(start, comma=comma, hours=hours)} --> {stamp(end, comma=comma, hours=hours)}"
        times += " align:start position:0%" if vtt and random.random() < 0.3 else ""
        first = f"{number}\n" if not vtt or random.random() < 0.5 else ""
        blocks.append(f"{first}{times}\n{prefix}{shown}{ends_voice}\n")
        if vtt and random.random() < 0.1:
            blocks.append("NOTE made by\nnobody\n")
        right.append([start, end, speaker, text])
    head = random.choice(["WEBVTT\n\n", "WEBVTT - talk\n\n", "WEBVTT\n\nSTYLE\n::cue {}\n\n"]) if vtt else ""
    content = encoded(random, head + "\n".join(blocks))
    return Made(folder / f"a{ending}", content, read_spans, in_seconds(right))


def subtitles_of_pairs(random: Random, folder: Path) -> Made:
    """Cues in which two people speak; they share its time by the length of their texts."""
    turns = said_turns(random)
    blocks, right = [], []
    for number, (start, end, name, text) in enumerate(turns, start=1):
        other, reply = random.choice([one for one in NAMES if one != name]), sentence(random)
        times = f"{stamp(start, comma=',', hours=True)} --> {stamp(end, comma=',', hours=True)}"
        blocks.append(f"{number}\n{times}\n- {name}: {text}\n- {other}: {reply}\n")
        middle = start + (end - start) * len(text) / (len(text) + len(reply))
        right += [
            (start / 1000, round(middle / 1000, 6), name, text),
            (round(middle / 1000, 6), end / 1000, other, reply),
        ]
    return Made(folder / "a.srt", encoded(random, "\n".join(blocks)), read_spans, right)


def ass(random: Random, folder: Path) -> Made:
    """Lines of ASS with names, styles, comments and pictures."""
    turns = said_turns(random)
    lines = ["[Script Info]", "ScriptType: v4.00+", "", "[Events]"]
    lines.append("Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text")
    for start, end, name, text in turns:
        times = [
            f"{ms // 3600000}:{ms // 60000 % 60:02}:{ms // 1000 % 60:02}.{ms % 1000 // 10:02}"
            for ms in (start, end)
        ]
        shown = random.choice(["", r"{\an8}", r"{\i1}"]) + text.replace(" ", r"\N", 1)
        lines.append(f"Dialogue: 0,{times[0]},{times[1]},Default,{name},0,0,0,,{shown}")
        if random.random() < 0.2:
            lines.append(f"Comment: 0,{times[0]},{times[1]},Default,{name},0,0,0,,not said")
    return Made(folder / "a.ass", encoded(random, "\n".join(lines) + "\n"), read_spans, in_seconds(turns))


def whisperx(random: Random, folder: Path) -> Made:
    """Segments with words, some without a speaker."""
    turns = said_turns(random, names=["SPEAKER_00", "SPEAKER_01"], overlap=True)
    segments = []
    for turn in turns:
        segment = {"start": turn[0] / 1000, "end": turn[1] / 1000, "text": f" {turn[3]}", "words": []}
        if random.random() < 0.8:
            segment["speaker"] = turn[2]
        else:
            turn[2] = "unknown"
        segments.append(segment)
    value = random.choice([segments, {"segments": segments, "word_segments": [], "language": "en"}])
    text = json.dumps(value, ensure_ascii=random.random() < 0.5, indent=random.choice([None, 1]))
    return Made(folder / "a.json", encoded(random, text), read_spans, in_seconds(turns))


def csv_of_turns(random: Random, folder: Path) -> Made:
    """Turns as a table, with or without text and other columns."""
    turns = said_turns(random, overlap=True)
    names = [
        "start",
        "end",
        "speaker",
        *(["text"] if random.random() < 0.7 else []),
        *random.choice([[], ["note"]]),
    ]
    random.shuffle(names)
    rows = [
        {"start": one[0] / 1000, "end": one[1] / 1000, "speaker": one[2], "text": one[3], "note": "x, y"}
        for one in turns
    ]
    right = [(*one[:3], one[3] if "text" in names else None) for one in in_seconds(turns)]
    written = [{**row, "start": row["start"], "end": row["end"]} for row in random.sample(rows, len(rows))]
    # Clock times of the table have hundredths.
    return Made(folder / "a.csv", as_csv(random, names, written), read_spans, right)


def otter(random: Random, folder: Path) -> Made:
    """Names with whole seconds above the words; a turn ends where the next begins."""
    turns = said_turns(random)
    starts = sorted(random.sample(range(7200), len(turns)))
    form = random.choice(["{name}  {time}", "{name} ({time}):", "{name}\t{time}"])
    blocks = []
    for start, turn in zip(starts, turns, strict=True):
        time = (
            f"{start // 60}:{start % 60:02}"
            if start < 3600
            else f"{start // 3600}:{start // 60 % 60:02}:{start % 60:02}"
        )
        text = turn[3] if random.random() < 0.7 else turn[3].replace(" ", "\n", 1)
        blocks.append(f"{form.format(name=turn[2], time=time)}\n{text}\n\n")
    right = ends_of_next(starts, turns)
    tail = random.choice(["", "Transcribed by https://otter.ai\n"])
    return Made(folder / "a.txt", encoded(random, "".join(blocks) + tail), read_spans, right)


def timed_lines(random: Random, folder: Path) -> Made:
    """A time and a name before the words."""
    turns = said_turns(random)
    starts = sorted(random.sample(range(3600), len(turns)))
    form = random.choice(
        ["[{time}] {name}: {text}\n", "{time} {name}: {text}\n", "({time}) {name}: {text}\n\n"]
    )
    lines = [
        form.format(time=f"{start // 60:02}:{start % 60:02}", name=turn[2], text=turn[3])
        for start, turn in zip(starts, turns, strict=True)
    ]
    return Made(folder / "a.txt", encoded(random, "".join(lines)), read_spans, ends_of_next(starts, turns))


def ends_of_next(starts: list[int], turns: list[list[Any]]) -> list[Any]:
    """Turns that end where the next begins, the last one after half a second a word."""
    ends = [*starts[1:], starts[-1] + len(turns[-1][3].split()) / 2]
    return [(start, end, turn[2], turn[3]) for start, end, turn in zip(starts, ends, turns, strict=True)]


def transcript(random: Random, folder: Path) -> Made:
    """Lines of `Speaker: text`."""
    said = [(turn[2], turn[3]) for turn in said_turns(random)]
    colon = random.choice([": ", ":", "\uff1a", " : "])
    if any(text[0].isdecimal() for _, text in said):
        colon = ": "  # without a space, it may be one of a time
    lines = [f"{name}{colon}{text}" + random.choice(["\n", "\n\n"]) for name, text in said]
    return Made(folder / "a.txt", encoded(random, "".join(lines)), _speakers_and_texts, said)


def chat(random: Random, folder: Path) -> Made:
    """The export of a phone, with messages of several lines and notices without an author."""
    said = [(turn[2], turn[3].replace(" ", "\n", random.choice([0, 0, 1]))) for turn in said_turns(random)]
    form = random.choice(["3/14/25, 8:{:02} PM - ", "[14.03.25, 20:15:{:02}] ", "14/03/2025, 20:{:02} - "])
    lines = []
    for number, (name, text) in enumerate(said):
        lines.append(form.format(number) + f"{name}: {text}\n")
        if random.random() < 0.2:
            lines.append(form.format(number) + "Messages are end-to-end encrypted.\n")
    right = [(name, text.replace("\n", " ")) for name, text in said]
    return Made(folder / "a.txt", encoded(random, "".join(lines)), _speakers_and_texts, right)


def _speakers_and_texts(path: Path) -> list[Any]:
    (one,) = read_conversations(path)
    return [(utterance.speaker, utterance.text) for utterance in one.utterances]


KINDS: dict[str, Callable[[Random, Path], Made]] = {
    "CSV": csv_table,
    "CSV with gaps": csv_with_gaps,
    "MELD": meld,
    "Parquet": parquet,
    "JSON": json_file,
    "JSON lines": jsonl_file,
    "RTTM": rttm,
    "SRT": lambda random, folder: subtitles(random, folder, ending=".srt"),
    "WebVTT": lambda random, folder: subtitles(random, folder, ending=".vtt"),
    "SRT of pairs": subtitles_of_pairs,
    "ASS": ass,
    "whisperX": whisperx,
    "CSV of turns": csv_of_turns,
    "Otter": otter,
    "timed lines": timed_lines,
    "transcript": transcript,
    "chat": chat,
}


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, and their times and features to a microsecond."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, float) or isinstance(other, float):
        numbers = isinstance(one, int | float) and isinstance(other, int | float)
        return numbers and math.isclose(one, other, rel_tol=0, abs_tol=1.1e-6)
    return type(one) is type(other) and one == other


def difference(kind: str, number: int, folder: Path, *, kinds: Any = KINDS) -> str | None:
    """Make a file and read it; return where the reading is wrong, or None."""
    made = kinds[kind](Random(f"{kind} {number}"), folder)
    try:
        read = made.read(made.path)
    except Exception as error:
        return f"{kind} {number}: refused: {type(error).__name__}: {error}"
    if same(read, made.right):
        return None
    pairs = zip(read, made.right, strict=False)
    first = next((pair for pair in pairs if not same(*pair)), (len(read), len(made.right)))
    return f"{kind} {number}: read {first[0]!r}, expected {first[1]!r}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", type=int, default=100, help="of each kind")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        found = [difference(kind, number, Path(folder)) for kind in KINDS for number in range(options.files)]
    wrong = [each for each in found if each]
    print(*wrong, f"{len(found):,} files, {len(wrong)} differences", sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
