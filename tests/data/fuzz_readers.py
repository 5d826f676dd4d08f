"""Feeds damaged files to every reader of conversations and turns, and reports what users should never see.

Inputs are valid files with odd values and with parts cut, doubled or inserted, and sometimes raw bytes. Each
must give conversations that pass validation, or a ValueError of one printable line that starts with the
file's name. Anything else is a finding: it is printed with the shortest input that caused it, and the exit
status is 1.

    python tests/data/fuzz_readers.py
    TMPDIR=/dev/shm python tests/data/fuzz_readers.py --examples 1000 --seed 7
"""

import argparse
import csv
import io
import json
import sys
import time
import traceback
import wave
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import redifu
from redifu.conversation import Conversation
from redifu.data.readers import read_conversations
from redifu.data.recordings import prepare_recording

PACKAGE = Path(redifu.__file__).parent
LONGEST_LINE = 1000  # characters of a complaint, beside the file's name
RECORDING, RECORDING_SECONDS = "talk.wav", 60
# A file is made in milliseconds, and damaged in microseconds.
INPUTS_OF_A_FILE = 10

WORDS = st.sampled_from(["Ana", "Bo", "You came!", "None", "007", "e\u0301", "a, b"])
ODD_TEXTS = st.text(max_size=8) | st.sampled_from(["", " ", "nan", "\u202eAna", "\x1b[31m", "x" * 2000])
NUMBERS = st.integers(-2, 9) | st.floats() | st.sampled_from([10**400, 1e-300])
EARLIER, LATER = st.floats(0, RECORDING_SECONDS / 2), st.floats(RECORDING_SECONDS / 2, RECORDING_SECONDS)
CELLS = ODD_TEXTS | NUMBERS.map(str) | st.sampled_from(["[0.5, 1]", "[NaN]", "1_0", "1e999", "[" * 1500])
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | ODD_TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD_TEXTS, inner, max_size=3),
    max_leaves=5,
)
FEATURES = st.lists(st.floats(-9, 9), min_size=1, max_size=3)


@dataclass(frozen=True)
class Reader:
    """A way into the package.

    Attributes:
        ending: of the file.
        read: takes the file, gives conversations.
        files: valid ones, but for odd values.
        tokens: what means something in the format, to insert anywhere.
    """

    ending: str
    read: Callable[[Path], Iterable[Conversation]]
    files: st.SearchStrategy[str]
    tokens: tuple[str, ...]


@dataclass
class Outcome:
    """What the inputs of one reader led to.

    Attributes:
        inputs: how many there were.
        read: inputs that gave conversations.
        refused: inputs that gave one clear line.
        slowest: processor time of one input, in milliseconds.
        findings: the shortest input by what went wrong and where.
    """

    inputs: int = 0
    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    findings: dict[str, bytes] = field(default_factory=dict)

    def keep(self, complaint: str, content: bytes) -> None:
        known = self.findings.get(complaint)
        self.findings[complaint] = content if known is None else min(known, content, key=len)


def usually(fitting: st.SearchStrategy, odd: st.SearchStrategy = JSON_VALUES) -> st.SearchStrategy:
    """A value that fits 39 times of 40."""
    return st.integers(0, 39).flatmap(lambda die: fitting if die else odd)


def conversations() -> st.SearchStrategy[dict[str, Any]]:
    streams = {name: usually(WORDS) for name in ("audio", "video", "label", "mood")}
    streams |= {f"{name}_features": usually(FEATURES) for name in ("text", "audio", "visual")}
    streams |= {"start": usually(EARLIER), "end": usually(LATER)}
    utterance = st.fixed_dictionaries({"speaker": usually(WORDS), "text": usually(WORDS)}, optional=streams)
    utterances = usually(st.lists(usually(utterance), min_size=1, max_size=3))
    names = {"id": usually(WORDS), "split": usually(WORDS)}
    return usually(st.fixed_dictionaries({"utterances": utterances}, optional=names))


def as_lines(values: Sequence[Any]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def rows(cells: dict[str, st.SearchStrategy]) -> st.SearchStrategy[str]:
    """CSV tables of columns in which such cells fit; now and then some columns only, in any order."""

    def write(names: list[str]) -> st.SearchStrategy[str]:
        row = st.tuples(*(usually(cells[name], CELLS) for name in names))
        return st.lists(row, min_size=1, max_size=4).map(lambda table: as_csv([names, *table]))

    some = st.lists(st.sampled_from(list(cells)), min_size=1)
    return usually(st.just(list(cells)), some).flatmap(write)


def as_csv(table: Iterable[Iterable[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file).writerows(table)
    return file.getvalue()


def rttm() -> st.SearchStrategy[str]:
    kind = usually(st.just("SPEAKER"), st.sampled_from(["LEXEME", "SPKR-INFO", ";;", ""]))
    times = usually(EARLIER, CELLS), usually(EARLIER.map(lambda seconds: seconds + 0.01), CELLS)
    name = usually(st.sampled_from(["Ana", "Bo"]), ODD_TEXTS)
    nothing = st.just("<NA>")
    turn = st.tuples(kind, st.just("talk"), st.just("1"), *times, nothing, nothing, name, nothing)
    as_text = turn.map(lambda fields: " ".join(map(str, fields)) + "\n")
    return st.lists(as_text, min_size=1, max_size=4).map("".join)


def cues(header: str, *, comma: str) -> st.SearchStrategy[str]:
    odd = st.sampled_from(["9999:59:59", "0:0", "60:00", "00:00", "-1:00", "00:00:01.1234", "०१:०२"])
    begin = st.integers(0, 29).map(lambda second: f"00:00:{second:02d}{comma}250")
    end = st.integers(30, 59).map(lambda second: f"00:00:{second:02d}{comma}5")
    times = st.tuples(usually(begin, odd), st.just(" --> "), usually(end, odd)).map("".join)
    marks = [
        "",
        "- ",
        "Ana: ",
        "<v Ana>",
        "{\\an8}",
        "<b>",
        "Dr. Bo Lee: ",
        "\uff1a",
        "--",
        "<00:01.5>",
        "&#0;",
    ]
    line = st.tuples(st.sampled_from(marks), WORDS | ODD_TEXTS, st.sampled_from(marks)).map("".join)
    lines = st.lists(line, max_size=3).map("\n".join)
    first = st.sampled_from(["1\n", "", "name\n", "NOTE\n"])
    cue = st.tuples(first, times, st.just("\n"), lines).map("".join)
    return st.lists(cue, min_size=1, max_size=3).map(lambda given: header + "\n\n".join(given) + "\n")


def ass() -> st.SearchStrategy[str]:
    begin = st.integers(0, 29).map(lambda second: f"0:00:{second:02d}.25")
    end = st.integers(30, 59).map(lambda second: f"0:00:{second:02d}.5")
    odd = st.sampled_from(["9999:59:59", "0:0", "-0:00:01.00", "", "0:00:00.00"])
    kind = usually(st.just("Dialogue"), st.sampled_from(["Comment", "Style", "[Fonts]"]))
    name, said = WORDS | st.just(""), WORDS | ODD_TEXTS
    line = st.builds(
        "{}: 0,{},{},Default,{},0,0,0,,{}".format, kind, usually(begin, odd), usually(end, odd), name, said
    )
    return st.lists(line, min_size=1, max_size=4).map(lambda given: "[Events]\n" + "\n".join(given) + "\n")


def transcript() -> st.SearchStrategy[str]:
    names = st.sampled_from(["Ana", "Dr. Bo Lee", "e\u0301"])
    colon = st.sampled_from([": ", ":", "\uff1a"])
    line = st.tuples(usually(names, ODD_TEXTS), colon, usually(st.just("You came!"), ODD_TEXTS))
    return st.lists(line.map("".join), min_size=1, max_size=4).map("\n".join)


def headings() -> st.SearchStrategy[str]:
    times = st.lists(st.integers(0, RECORDING_SECONDS - 1), min_size=1, max_size=4).map(sorted)
    said = usually(WORDS, ODD_TEXTS)
    block = st.builds("{}  0:{:02}\n{}\n\n".format, usually(st.just("Ana"), ODD_TEXTS), st.just(0), said)
    later = times.flatmap(lambda each: st.tuples(*(st.just(f"Bo  0:{second:02}\n") for second in each), said))
    return st.tuples(block, later.map("".join)).map("".join)


def segments() -> st.SearchStrategy[str]:
    span = {"start": usually(EARLIER), "end": usually(LATER), "text": usually(WORDS)}
    segment = st.fixed_dictionaries(span, optional={"speaker": usually(WORDS), "words": JSON_VALUES})
    several = usually(st.lists(usually(segment), min_size=1, max_size=3))
    return (several | several.map(lambda given: {"segments": given})).map(json.dumps)


def read_turns_of(file: Path) -> list[Conversation]:
    return [prepare_recording(file.with_name(RECORDING), file, folder=file.parent)]


def readers() -> dict[str, Reader]:
    """Every reader by name."""
    number = st.integers(0, 3)
    times = {"start": EARLIER, "end": LATER}
    said = {"speaker": WORDS, "text": WORDS}
    features = st.sampled_from(["[0.5, 1]", "[2]", ""])
    table = {"dialogue_id": number, "turn": number, **said, **times, "label": WORDS, "split": WORDS}
    table |= {"audio": WORDS, "text_features": features}
    meld = {"Sr No.": number, "Utterance": WORDS, "Speaker": WORDS, "Emotion": WORDS, "turn": number}
    meld |= {"Dialogue_ID": number, "Utterance_ID": number, "text": WORDS}
    one_or_several = conversations() | st.lists(conversations(), min_size=1, max_size=3)
    lines = st.lists(conversations(), min_size=1, max_size=3)
    in_json = ("[", "]", "{", "}", ",", ":", '"', "\\ud800", "\\u0000", "NaN", "1e999", "null")
    in_json += ("9" * 5000, "[" * 1500)
    in_csv = (",", '"', "\n", "\r", "\t", ";", "nan", '""', "\0", "x" * 2000)
    in_rttm = (" ", "\n", "SPEAKER", "<NA>", "nan", "-1", "\0", "\x1c")
    in_ass = (",", ":", "\n", "Dialogue: ", "{", "}", "\\N", "\\p1", "{}" * 1000, "\0")
    in_cues = ("-->", "\n\n", "\r", "<v ", ">", "<", ": ", "- ", "&lt;", "\0", "WEBVTT", "NOTE")
    return {
        "JSON": Reader(".json", read_conversations, one_or_several.map(json.dumps), in_json),
        "JSON lines": Reader(".jsonl", read_conversations, lines.map(as_lines), ("\n", "\r", *in_json)),
        "CSV": Reader(".csv", read_conversations, rows(table), in_csv),
        "CSV of MELD": Reader(".csv", read_conversations, rows(meld), (*in_csv, "\x92", "\x81")),
        "RTTM": Reader(".rttm", read_turns_of, rttm(), in_rttm),
        "SRT": Reader(".srt", read_turns_of, cues("", comma=","), in_cues),
        "WebVTT": Reader(".vtt", read_turns_of, cues("WEBVTT\n\n", comma="."), in_cues),
        "ASS": Reader(".ass", read_turns_of, ass(), in_ass),
        "transcript": Reader(".txt", read_conversations, transcript(), (":", "\n", "\r", "\uff1a", "\0")),
        "turns of a transcript": Reader(".txt", read_turns_of, headings(), ("  0:03", "\n", ":", "\0")),
        "JSON of whisperX": Reader(".json", read_conversations, segments(), in_json),
        "turns of whisperX": Reader(".json", read_turns_of, segments(), in_json),
        "CSV of turns": Reader(".csv", read_turns_of, rows(times | said), in_csv),
    }


def contents(reader: Reader) -> st.SearchStrategy[bytes]:
    """Files as they should be but for odd values, and raw bytes."""
    encoding = usually(st.just("utf-8"), st.sampled_from(["utf-8-sig", "utf-16", "latin-1"]))
    whole = st.tuples(reader.files, encoding).map(lambda given: given[0].encode(given[1], "replace"))
    return usually(whole, st.binary(max_size=100))


def damaged(content: bytes, tokens: Sequence[str], random: Random) -> bytes:
    """Cut parts out, or double them, and put tokens or random bytes in their place."""
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        start = random.randint(0, len(content))
        part = content[start : start + random.choice([0, 0, 1, 2, 12])]
        token = (
            random.choice(tokens).encode()
            if random.random() < 0.7
            else random.randbytes(random.randint(0, 4))
        )
        content = content[:start] + part * random.choice([0, 2]) + token + content[start + len(part) :]
    return content


def fault(error: ValueError, file: Path) -> str | None:
    """Say what is wrong with a complaint; None where it is one clear line."""
    line = str(error)
    if not line.startswith(f"{file}: "):
        return "a complaint that does not begin with the file"
    if not line.isprintable():
        return "a complaint of more than one line, or with characters that a terminal obeys"
    longest = LONGEST_LINE + len(str(file))
    return f"a complaint of over {LONGEST_LINE} characters" if len(line) > longest else None


def try_input(reader: Reader, content: bytes, file: Path, outcome: Outcome) -> None:
    """Read one input and count what it led to."""
    file.write_bytes(content)
    outcome.inputs += 1
    begun = time.process_time()
    try:
        given = [Conversation.from_dict(each.to_dict(), source=str(file)) for each in reader.read(file)]
        outcome.read += 1
        if not given:
            outcome.keep("nothing read, and nothing said", content)
    except ValueError as error:
        outcome.refused += 1
        if complaint := fault(error, file):
            outcome.keep(f"{complaint}: {place_of(error)}", content)
    except Exception as error:
        outcome.keep(f"{type(error).__name__}: {place_of(error)}", content)
    outcome.slowest = max(outcome.slowest, 1000 * (time.process_time() - begun))


def place_of(error: Exception) -> str:
    """The last line of the package that an error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}" if own else "outside"


def fuzz(reader: Reader, *, examples: int, start: int, folder: Path) -> Outcome:
    """Feed about so many inputs to a reader, in a folder that may be in memory."""
    outcome = Outcome()
    file = folder / f"input{reader.ending}"
    write_recording(folder / RECORDING)

    @seed(start)
    @settings(
        max_examples=-(-examples // INPUTS_OF_A_FILE),
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(contents(reader), st.integers(0, 2**32))
    def feed(content: bytes, chance: int) -> None:
        random = Random(chance)
        try_input(reader, content, file, outcome)
        for _ in range(INPUTS_OF_A_FILE - 1):
            try_input(reader, damaged(content, reader.tokens, random), file, outcome)

    feed()
    return outcome


def write_recording(path: Path) -> None:
    """A minute of silence, which the turns of a recording lie in."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(1000)
        file.writeframes(b"\x80" * 1000 * RECORDING_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--examples", type=int, default=25_000, help="inputs of each reader")
    parser.add_argument("--seed", type=int, default=0, help="another one, other inputs")
    options = parser.parse_args()
    total = findings = 0
    for name, reader in readers().items():
        with TemporaryDirectory() as folder:
            found = fuzz(reader, examples=options.examples, start=options.seed, folder=Path(folder))
        counted = f"{found.read:,} read, {found.refused:,} refused, {len(found.findings)} findings"
        print(f"{name}: {counted}, slowest {found.slowest:.0f} ms", flush=True)
        for complaint, content in found.findings.items():
            print(f"  {complaint}\n    {content!r}", flush=True)
        total, findings = total + found.inputs, findings + len(found.findings)
    print(f"{total:,} inputs, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
