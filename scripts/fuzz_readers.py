"""Feed damaged files to every reader of conversations and of turns, and look for what a user should not see.

Inputs are valid files with odd values and cut, doubled and inserted parts, and now and then raw bytes. Each must end
in conversations that pass their checks, or in a ValueError of one printable line that begins with the file's
name. Anything else is a finding: it is printed with the shortest input that led there, and the exit status is 1.

    python scripts/fuzz_readers.py
    TMPDIR=/dev/shm python scripts/fuzz_readers.py --examples 1000 --seed 7
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
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from redifu.data.readers import read_conversations
from redifu.data.recordings import prepare_recording
from redifu.data.schema import validate_conversation

LONGEST_LINE = 1000  # characters of a complaint, beside the file's name
RECORDING, RECORDING_SECONDS = "talk.wav", 60

TEXTS = st.sampled_from(
    ["Ana", "Bo", "You came!", "None", "nan", " ", "", "007", "\u202eAna", "\x1b[31m", "e\u0301"]
)
TEXTS |= st.text(max_size=8)
NUMBERS = (
    st.floats(0, RECORDING_SECONDS) | st.floats() | st.integers(-2, 9) | st.sampled_from([10**400, 1e-300])
)
CELLS = TEXTS | NUMBERS.map(str) | st.sampled_from(["[0.5, 1]", "[NaN]", "1_0", "1e999", "0x1", "[" * 3000])
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
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
    read: Callable[[Path], Iterable[dict[str, Any]]]
    files: st.SearchStrategy[str]
    tokens: tuple[str, ...]


@dataclass
class Outcome:
    """What the inputs of one reader led to.

    Attributes:
        read: inputs that gave conversations.
        refused: inputs that gave one clear line.
        slowest: processor time of one input, in milliseconds.
        findings: the shortest input by what went wrong and where.
    """

    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    findings: dict[str, bytes] = field(default_factory=dict)

    def keep(self, complaint: str, content: bytes) -> None:
        known = self.findings.get(complaint)
        self.findings[complaint] = content if known is None else min(known, content, key=len)


def usually(value: st.SearchStrategy) -> st.SearchStrategy:
    """A value that fits three times of four, and anything else otherwise."""
    return st.integers(0, 3).flatmap(lambda die: value if die else JSON_VALUES)


def conversations() -> st.SearchStrategy[dict[str, Any]]:
    streams = {name: usually(TEXTS) for name in ("audio", "video", "label")}
    streams |= {f"{name}_features": usually(FEATURES) for name in ("text", "audio", "visual")}
    streams |= {name: usually(NUMBERS) for name in ("start", "end")}
    utterance = st.fixed_dictionaries({"speaker": usually(TEXTS), "text": usually(TEXTS)}, optional=streams)
    utterances = usually(st.lists(utterance, min_size=1, max_size=3))
    return st.fixed_dictionaries(
        {"utterances": utterances}, optional={"id": usually(TEXTS), "split": JSON_VALUES}
    )


def as_lines(values: Sequence[Any]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def rows(columns: Sequence[str], cells: dict[str, st.SearchStrategy]) -> st.SearchStrategy[str]:
    """CSV tables of some of these columns, in any order; what a column holds is in `cells`, or anything."""

    def write(names: list[str]) -> st.SearchStrategy[str]:
        row = st.tuples(*(cells.get(name, CELLS) | CELLS for name in names))
        return st.lists(row, min_size=1, max_size=4).map(lambda table: as_csv([names, *table]))

    whole = st.just(list(columns))
    return (whole | whole | st.lists(st.sampled_from(columns), min_size=1)).flatmap(write)


def as_csv(table: Iterable[Iterable[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file).writerows(table)
    return file.getvalue()


def rttm() -> st.SearchStrategy[str]:
    kind = st.sampled_from(["SPEAKER"] * 9 + ["LEXEME", "SPKR-INFO", ";;"])
    fields = (kind, st.sampled_from("aaab"), st.just("1"), clock_numbers(), clock_numbers())
    turn = st.tuples(*fields, st.just("<NA>"), st.just("<NA>"), TEXTS | st.just("Ana"), st.just("<NA>"))
    return st.lists(turn, min_size=1, max_size=4).map(
        lambda turns: "".join(" ".join(map(str, turn)) + "\n" for turn in turns)
    )


def clock_numbers() -> st.SearchStrategy[Any]:
    within = st.floats(0.01, RECORDING_SECONDS / 2).map(lambda value: round(value, 2))
    return within | within | within | CELLS


def cues(header: str, *, comma: str) -> st.SearchStrategy[str]:
    seconds = st.integers(0, RECORDING_SECONDS - 2)
    clock = seconds.map(lambda value: f"00:00:{value:02d}{comma}250")
    until = seconds.map(lambda value: f"00:01:{value:02d}{comma}5")
    odd = st.sampled_from(["9999:59:59", "0:0", "60:00", "00:00", "-1:00", "00:00:01.1234", "०१:०२"])
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
        "<00:00:01.5>",
        "&#0;",
    ]
    line = st.tuples(st.sampled_from(marks), TEXTS, st.sampled_from(marks)).map("".join)
    times = st.tuples(clock | clock | odd, st.just(" --> "), until | until | odd).map("".join)
    lines = st.lists(line, max_size=3).map("\n".join)
    cue = st.tuples(st.sampled_from(["1\n", "", "name\n", "NOTE\n"]), times, st.just("\n"), lines).map(
        "".join
    )
    return st.lists(cue, min_size=1, max_size=3).map(lambda given: header + "\n\n".join(given) + "\n")


def read_turns_of(file: Path) -> list[dict[str, Any]]:
    return [prepare_recording(file.with_name(RECORDING), file, folder=file.parent)]


def readers() -> dict[str, Reader]:
    """Every reader by name."""
    table = [
        "dialogue_id",
        "turn",
        "speaker",
        "text",
        "start",
        "end",
        "label",
        "split",
        "audio",
        "text_features",
    ]
    meld = ["Sr No.", "Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID", "turn", "text"]
    numbers = {name: st.integers(0, 3) for name in ("turn", "Utterance_ID", "dialogue_id", "Dialogue_ID")}
    times = {name: clock_numbers() for name in ("start", "end")}
    in_json = (
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        '"',
        "\\ud800",
        "\\u0000",
        "NaN",
        "1e999",
        "9" * 5000,
        "[" * 3000,
        "null",
    )
    in_csv = (",", '"', "\n", "\r", "\t", ";", "nan", '""', "\0")
    in_cues = ("-->", "\n\n", "\r", "<v ", ">", "<", ": ", "- ", "&lt;", "\0", "WEBVTT", "NOTE")
    json_value = conversations() | st.lists(conversations(), min_size=1, max_size=3) | JSON_VALUES
    lines = st.lists(conversations() | JSON_VALUES, max_size=3)
    return {
        "JSON": Reader(".json", read_conversations, json_value.map(json.dumps), in_json),
        "JSON lines": Reader(".jsonl", read_conversations, lines.map(as_lines), ("\n", "\r", *in_json)),
        "CSV": Reader(".csv", read_conversations, rows(table, numbers | times), in_csv),
        "CSV of MELD": Reader(".csv", read_conversations, rows(meld, numbers), (*in_csv, "\x92", "\x81")),
        "RTTM": Reader(
            ".rttm", read_turns_of, rttm(), (" ", "\n", "SPEAKER", "<NA>", "nan", "-1", "\0", "\x1c")
        ),
        "SRT": Reader(".srt", read_turns_of, cues("", comma=","), in_cues),
        "WebVTT": Reader(".vtt", read_turns_of, cues("WEBVTT\n\n", comma="."), in_cues),
        "CSV of turns": Reader(
            ".csv", read_turns_of, rows(["start", "end", "speaker", "text"], times), in_csv
        ),
    }


def inputs(reader: Reader) -> st.SearchStrategy[bytes]:
    """Files as they should be, the same damaged, and raw bytes."""
    tokens = st.sampled_from([token.encode() for token in reader.tokens]) | st.binary(max_size=4)
    place = st.integers(0, 10**6)
    damages = st.lists(st.tuples(place, st.integers(0, 12), st.booleans(), tokens), max_size=3)
    encodings = st.sampled_from(["utf-8"] * 8 + ["utf-8-sig", "utf-16", "latin-1"])
    whole = st.tuples(reader.files, encodings).map(lambda given: given[0].encode(given[1], "replace"))
    return st.tuples(whole, damages).map(lambda given: damaged(*given)) | st.binary(max_size=100)


def damaged(content: bytes, damages: Iterable[tuple[int, int, bool, bytes]]) -> bytes:
    """Cut a part out, or double it, and put a token in its place."""
    for place, length, doubled, token in damages:
        start = place % (len(content) + 1)
        part = content[start : start + length]
        content = content[:start] + part * (2 * doubled) + token + content[start + length :]
    return content


def fault(error: ValueError, file: Path) -> str | None:
    """Say what is wrong with a complaint; None where it is one clear line."""
    line = str(error)
    if not line.startswith(f"{file}: "):
        return "a complaint that does not begin with the file"
    if not line.isprintable():
        return "a complaint of more than one line, or with characters that a terminal obeys"
    return (
        f"a complaint of over {LONGEST_LINE} characters"
        if len(line) > LONGEST_LINE + len(str(file))
        else None
    )


def try_input(reader: Reader, content: bytes, file: Path, outcome: Outcome) -> None:
    """Read one input and count what it led to."""
    file.write_bytes(content)
    begun = time.process_time()
    try:
        given = [validate_conversation(each, source=str(file)) for each in reader.read(file)]
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
    own = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "redifu" in Path(frame.filename).parts
    ]
    return (
        f"{Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}" if own else "outside the package"
    )


def fuzz(reader: Reader, *, examples: int, start: int, folder: Path) -> Outcome:
    """Feed so many inputs to a reader, in a folder that may be in memory."""
    outcome = Outcome()
    file = folder / f"input{reader.ending}"
    write_recording(folder / RECORDING)
    everything = settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    seed(start)(
        everything(given(inputs(reader))(lambda content: try_input(reader, content, file, outcome)))
    )()
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
    parser.add_argument("--examples", type=int, default=25_000, help="inputs of each of the eight readers")
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
        total, findings = total + options.examples, findings + len(found.findings)
    print(f"{total:,} inputs, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
