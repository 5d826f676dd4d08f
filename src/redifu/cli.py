"""The command line: its arguments, and what each command calls; nothing is computed here.

What a command needs is imported by that command, so that prediction does not wait for what trains and draws.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from redifu.console import (
    counted,
    extraction_progress,
    mapping,
    print_metrics,
    print_predictions,
    print_robustness,
    training_progress,
)
from redifu.serving.service_limits import Limits

# What a user's mistake raises, by the rules of this package; anything else is ours, and shows its traceback.
# Numbers that overflow come of features or learning rates out of all proportion.
MISTAKES = (
    *(ValueError, FloatingPointError),
    ImportError,  # of an optional package; the message names the extra
    *(FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError),
)

# What can be named without waiting for the model to load.
_BACKENDS = {
    "audio": ("log_mel", "opensmile:eGeMAPSv02", "opensmile:IS10"),
    "visual": ("face_descriptor", "action_units"),
}

_ENGINES = ("processes", "ray")

_MODEL_HELP = "folder of a trained model, or ORG/NAME on the Hugging Face Hub"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: those after the program's name; None takes them from the process.

    Returns:
        The exit status: 0, or 2 for a user's mistake, with one line on stderr. Of lines from stdin, each that
        is wrong gets its line at once and the others are answered; the status is 2 then, too. All else
        raises, which is 1.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except MISTAKES as error:
        _complain(options, error)
        return 2
    except BrokenPipeError:
        # The reader has gone, as `head` does; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _complain(options: argparse.Namespace, mistake: object) -> None:
    line = " ".join(str(mistake).split())
    # A name in it may hold what a terminal would obey.
    shown = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)
    print(f"redifu {options.command}: error: {shown}", file=sys.stderr, flush=True)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, where argparse prints the usage too."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="redifu", description="The emotion of every utterance of a conversation.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    predict = _command(commands, "predict", _predict, "recognise the emotion of every utterance")
    predict.add_argument("model", metavar="MODEL", help=_MODEL_HELP)
    predict.add_argument(
        "conversations",
        metavar="CONVERSATIONS",
        help="JSON, JSONL, CSV, Parquet or .txt file; - answers JSON lines one by one and skips wrong ones",
    )
    predict.add_argument("--output", metavar="FILE", help="write all probabilities to a .csv or .jsonl file")
    predict.add_argument(
        "--explain", action="store_true", help="add what each emotion was recognised from, in JSON lines"
    )
    predict.add_argument("--html", metavar="FILE", help="write a page with the timeline, and explain")
    predict.add_argument(
        "--runtime", choices=("torch", "onnx"), default="torch", help="onnx runs MODEL/model.onnx"
    )

    train = _command(commands, "train", _train, "train by a recipe, or go on with a run that was killed")
    train.add_argument("recipe", metavar="RECIPE.yaml", help="sections model, data and training")
    train.add_argument(
        "overrides", metavar="KEY=VALUE", nargs="*", help="replace a value of the recipe: training.seed=2"
    )

    evaluate = _command(commands, "evaluate", _evaluate, "score a model on labelled conversations")
    evaluate.add_argument("model", metavar="MODEL", help=_MODEL_HELP)
    evaluate.add_argument("data", metavar="DATA", help="labelled conversations")
    evaluate.add_argument("--split", help="the split to read of a file with several")
    evaluate.add_argument(
        "--robustness", metavar="GRID.yaml", help="score it in noise and with streams missing, too"
    )
    evaluate.add_argument(
        "--output", metavar="FILE.json", help="write all metrics, and beside them tables and pictures"
    )

    publish = _command(commands, "publish", _publish, "upload a model to the Hugging Face Hub")
    publish.add_argument("folder", metavar="DIR", help="folder of a trained model")
    publish.add_argument("repo_id", metavar="REPO_ID", help="ORG/NAME on the Hub")
    publish.add_argument("--private", action="store_true", help="visible to its owners only")
    publish.add_argument("--dry-run", action="store_true", help="only print what would be uploaded")

    export = _command(commands, "export", _export, "write a model as ONNX")
    export.add_argument("folder", metavar="DIR", help=_MODEL_HELP)
    export.add_argument("--output", metavar="FILE.onnx", required=True, help="file to write")
    export.add_argument("--features", action="store_true", help="takes text features, and no texts")
    export.add_argument("--int8", action="store_true", help="weights of 8 bits: smaller and less exact")

    extract = _command(commands, "extract", _extract, "read the media of conversations into features")
    extract.add_argument("conversations", metavar="CONVERSATIONS", help="as for predict")
    extract.add_argument("--output", metavar="DIR", required=True, help="folder to write, or to go on with")
    for stream, backends in _BACKENDS.items():
        name = f"--{stream}-backend"
        extract.add_argument(name, choices=(*backends, "none"), default=backends[0], help=f"reads {stream}")
    extract.add_argument("--face-detector", metavar="FILE.onnx", help="YuNet in place of OpenCV's cascades")
    extract.add_argument("--num-proc", metavar="N", type=int, default=1, help="files read at a time")
    extract.add_argument(
        "--engine", choices=_ENGINES, default=_ENGINES[0], help="ray: on the cluster of RAY_ADDRESS"
    )

    prepare = _command(commands, "prepare", _prepare, "make a conversation file of a recording or a data set")
    prepare.add_argument(
        "source", metavar="RECORDING", help="sound or video file, or the folder of a data set"
    )
    kind = prepare.add_mutually_exclusive_group(required=True)
    kind.add_argument(
        "--turns", metavar="FILE", help="who speaks when: RTTM, subtitles, CSV, whisperX's JSON"
    )
    kind.add_argument("--dataset", choices=("iemocap", "meld", "mosei"), help="what the folder holds")
    prepare.add_argument("--output", metavar="FILE", required=True, help=".json or .jsonl file to write")

    noise = _command(commands, "add-noise", _add_noise, "copy conversations with noise in their sounds")
    noise.add_argument("conversations", metavar="CONVERSATIONS", help="as for predict")
    noise.add_argument("--output", metavar="DIR", required=True, help="folder to write")
    noise.add_argument("--split", help="the split to read of a file with several")
    decibels = "the signal-to-noise ratios in dB between which each dialogue has one"
    noise.add_argument("--snr", metavar=("LOW", "HIGH"), nargs=2, type=float, required=True, help=decibels)
    noise.add_argument("--seed", metavar="N", type=int, default=0, help="of what is drawn (%(default)s)")

    for each in (predict, evaluate, extract, noise):
        each.add_argument("--columns", metavar="text=Utterance,...", type=mapping, help="names in a table")

    serve = _command(commands, "serve", _serve, "answer over HTTP")
    serve.add_argument("model", metavar="MODEL", help=_MODEL_HELP)
    serve.add_argument("--host", default="127.0.0.1", help="beyond loopback, REDIFU_API_KEY holds a key")
    serve.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    for limit in fields(Limits):
        name, said = f"--{limit.name.replace('_', '-')}", limit.metadata["description"]
        serve.add_argument(name, metavar="N", type=int, default=limit.default, help=f"{said} (%(default)s)")
    return parser


def _command(
    commands: Any, name: str, run: Callable[..., int | None], summary: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.set_defaults(run=run)
    return parser


def _predict(options: argparse.Namespace) -> int:
    ending = None if options.output is None else Path(options.output).suffix.lower()
    as_lines = ending == ".jsonl" if ending is not None else options.conversations == "-"
    if options.explain and not as_lines:
        given = options.output or "a table on the screen"
        raise ValueError(f"--explain writes JSON lines: expected --output FILE.jsonl, got {given}")
    recogniser = _load(options.model, runtime=options.runtime)
    refused: list[str] = []

    def refuse(complaint: str) -> None:
        _complain(options, complaint)
        refused.append(complaint)

    explain = options.explain or options.html is not None
    if options.conversations == "-":
        if options.columns:
            raise ValueError("--columns needs a table, got JSON lines from stdin")
        answers = recogniser.answer_lines(sys.stdin.buffer, refuse=refuse, explain=explain)
    else:
        given = recogniser.read(options.conversations, columns=options.columns)
        answers = recogniser.predict(given, explain=explain)
    if options.output is None and options.html is None:
        print_predictions(answers, as_lines=as_lines)
        return 2 if refused else 0
    with ExitStack() as files:
        writers = [files.enter_context(writer) for writer in _writers(options, recogniser)]
        for conversation, predictions in counted(answers):
            for write in writers:
                write(conversation, predictions)
    return 2 if refused else 0


def _writers(options: argparse.Namespace, recogniser: Any) -> Iterator[Any]:
    from redifu.data.writers import prediction_writer
    from redifu.reports.html_report import report_writer

    if options.output is not None:
        yield prediction_writer(options.output, recogniser.labels)
    if options.html is not None:
        yield report_writer(
            options.html, recogniser.labels, streams=recogniser.streams, model_name=recogniser.name
        )


def _train(options: argparse.Namespace) -> None:
    from redifu.training.recipe import load_recipe
    from redifu.training.trainer import train

    _be_quiet()
    recipe = load_recipe(options.recipe, options.overrides)
    with training_progress() as report:
        folder = train(recipe, report=report)
    # torchrun starts this command several times; one of them speaks.
    if os.environ.get("RANK", "0") == "0":
        print(folder)


def _evaluate(options: argparse.Namespace) -> None:
    import json

    from redifu.evaluation.corruptions import read_grid
    from redifu.evaluation.scoring import evaluate_conversations

    output = None if options.output is None else Path(options.output)
    # Before the work and not after it.
    if output is not None and (output.suffix.lower() != ".json" or not output.parent.is_dir()):
        raise ValueError(f"--output must be a .json file in a folder that exists, got {output}")
    grid = None if options.robustness is None else read_grid(options.robustness)
    plots = None if output is None else _plots()
    recogniser = _load(options.model)
    given = list(recogniser.read(options.data, split=options.split, columns=options.columns))
    metrics = evaluate_conversations(recogniser.model, recogniser.processor, given)
    print_metrics(metrics)
    if grid is not None:
        metrics["robustness"] = _evaluate_robustness(options, recogniser, given, grid, plots)
    if output is not None:
        output.write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if plots is not None:
            plots.plot_confusion(metrics, recogniser.labels, output.with_suffix(".png"))


def _plots() -> Any:
    """Return the module that draws, or None where matplotlib is missing."""
    from redifu.optional_packages import optional_package

    try:
        optional_package("matplotlib", extra="plots")
    except ImportError as error:
        print(f"redifu evaluate: no pictures: {error}", file=sys.stderr, flush=True)
        return None
    from redifu.evaluation import plots

    return plots


def _evaluate_robustness(
    options: argparse.Namespace, recogniser: Any, given: list[Any], grid: Any, plots: Any
) -> list[dict]:
    import pandas as pd

    from redifu.evaluation.robustness import evaluate_robustness, seed_of, tidy_rows

    rows = evaluate_robustness(recogniser.model, recogniser.processor, given, grid).rows
    print_robustness(rows)
    if options.output is not None:
        output, folder = Path(options.output), Path(options.model)
        named = tidy_rows(rows, dataset=Path(options.data).stem, model=folder.name, seed=seed_of(folder))
        pd.DataFrame(named).to_csv(output.with_suffix(".robustness.csv"), index=False)
        if plots is not None:
            plots.plot_severity(named, output.with_suffix(".robustness.png"))
    return rows


def _publish(options: argparse.Namespace) -> None:
    from redifu.hub.publishing import files_to_publish, publish, size_of

    _be_quiet()
    files = files_to_publish(options.folder, options.repo_id)
    for path, content in files.items():
        print(f"{size_of(content):>13,}  {path}")
    if not options.dry_run:
        print(publish(files, options.repo_id, private=options.private))


def _export(options: argparse.Namespace) -> None:
    from redifu.hub.onnx_export import export_onnx

    difference = export_onnx(
        _load(options.folder).model, options.output, features=options.features, int8=options.int8
    )
    print(f"{options.output}: logits differ by {difference:.1e} at most")


def _extract(options: argparse.Namespace) -> int:
    from redifu.data.extraction import REPORT, extract_conversations
    from redifu.data.readers import read_conversations
    from redifu.model import ReDiFuFeatureExtractor

    _be_quiet()
    given = (options.audio_backend, options.visual_backend)
    audio_backend, visual_backend = (None if backend == "none" else backend for backend in given)
    extractor = ReDiFuFeatureExtractor(
        audio_backend=audio_backend, visual_backend=visual_backend, face_detector=options.face_detector
    )
    conversations = list(read_conversations(options.conversations, columns=options.columns))
    with extraction_progress() as report:
        failed = extract_conversations(
            conversations,
            options.output,
            extractor=extractor,
            num_processes=options.num_proc,
            engine=options.engine,
            report=report,
        )
    print(options.output)
    if failed:
        place = Path(options.output, REPORT)
        print(f"redifu extract: {failed} streams could not be read: see {place}", file=sys.stderr)
    return 1 if failed else 0


def _prepare(options: argparse.Namespace) -> None:
    from redifu.data.writers import write_conversations

    folder = Path(options.output).parent
    notes: list[str] = []
    if options.turns is not None:
        from redifu.data.recordings import prepare_recording

        conversations = [prepare_recording(options.source, options.turns, folder=folder)]
    else:
        from redifu.data.corpora import read_corpus

        conversations, notes = read_corpus(options.dataset, options.source, folder=folder)
    write_conversations(options.output, conversations)
    for note in notes:
        print(note, file=sys.stderr)


def _add_noise(options: argparse.Namespace) -> None:
    from redifu.data.noisy_copies import write_noisy_copies
    from redifu.data.readers import read_conversations

    given = read_conversations(options.conversations, split=options.split, columns=options.columns)
    print(write_noisy_copies(given, options.output, snr=tuple(options.snr), seed=options.seed))


def _serve(options: argparse.Namespace) -> None:
    from redifu.optional_packages import optional_package

    optional_package("fastapi", extra="serve")
    from redifu.serving.http_service import serve

    limits = Limits(**{limit.name: getattr(options, limit.name) for limit in fields(Limits)})
    serve(partial(_load, options.model), host=options.host, port=options.port, limits=limits)


def _load(name_or_path: str, *, runtime: str = "torch") -> Any:
    from redifu.inference.recogniser import load

    _be_quiet()
    return load(name_or_path, runtime=runtime)


def _be_quiet() -> None:
    """Keep transformers' own progress bars off the screen."""
    from transformers.utils import logging

    logging.disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main())
