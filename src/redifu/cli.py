"""The command line: what each command calls.

Each command imports only what it needs, so help and error messages do not wait for torch and transformers.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from redifu.atomic_files import check_output, replace_json
from redifu.command_arguments import command_parser
from redifu.serving.service_limits import Limits

# A user's mistake raises one of these; anything else is a bug and shows its traceback.
MISTAKES = (
    *(ValueError, FloatingPointError),  # the latter: features or a learning rate far too large
    ImportError,  # an optional package is missing; the message names the extra
    *(FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError),
)

_INPUTS = (
    "conversations",
    "data",
    "source",
    "recipe",
    "turns",
    "robustness",
    "recording",
)  # the options that name files


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: arguments after the program's name; None reads them from `sys.argv`.

    Returns:
        The exit status: 0 on success; 1 if the pipe was closed or `extract` could not read a stream; 2 for a
        user's mistake or invalid lines, each reported in one line on stderr. Other errors are raised.
    """
    options = command_parser().parse_args(arguments)
    from redifu.console import exit_status

    return exit_status(options.command, partial(_run, options), MISTAKES)


def _run(options: argparse.Namespace) -> int | None:
    _check_inputs(options)
    return _COMMANDS[options.command](options)


def _check_inputs(options: argparse.Namespace) -> None:
    """Raise FileNotFoundError for an input that does not exist, before anything slow is imported."""
    for name in _INPUTS:
        path = getattr(options, name, None)
        if path not in (None, "-") and not Path(path).exists():
            raise FileNotFoundError(f"{path}: no such file")


def _predict(options: argparse.Namespace) -> int:
    from redifu.console import Tally, complain, counted, say, screen_writer

    ending = None if options.output is None else Path(options.output).suffix.lower()
    as_lines = ending == ".jsonl" if ending is not None else options.conversations == "-"
    if options.explain and not as_lines:
        given = options.output or "a table on the screen"
        raise ValueError(f"--explain requires JSON lines: expected --output FILE.jsonl, got {given}")
    for path, endings in ((options.output, (".csv", ".jsonl")), (options.html, (".html",))):
        check_output(path, endings)
    recogniser = _load(options.model, runtime=options.runtime)
    from redifu.data.readers import is_recording

    refused: list[str] = []

    def refuse(complaint: str) -> None:
        complain(options.command, complaint)
        refused.append(complaint)

    how = {"explain": bool(options.explain or options.html), "abstain_below": options.abstain_below}
    if options.conversations == "-":
        if options.columns:
            raise ValueError("--columns requires a table, got JSON lines from stdin")
        answers = recogniser.answer_lines(sys.stdin.buffer, refuse=refuse, **how)
    elif is_recording(options.conversations):
        answers = _answers_of_recording(options, recogniser, how)
    else:
        given = recogniser.read(options.conversations, columns=options.columns, **_hearing(options))
        answers = recogniser.predict(given, **how)
    tally = Tally()
    with ExitStack() as files:
        writers = [files.enter_context(writer) for writer in _writers(options, recogniser)]
        if options.output is None:
            writers.append(screen_writer(as_lines=as_lines))
        elif not is_recording(options.conversations):
            answers = counted(answers)
        for conversation, predictions in answers:
            for write in writers:
                write(conversation, predictions)
            tally.add(predictions)
    lines_on_screen = as_lines and options.output is None
    for path in filter(None, (options.output, options.html)):
        say(f"{path}: {tally}", error=lines_on_screen)
    return 2 if refused else 0


def _answers_of_recording(options: argparse.Namespace, recogniser: Any, how: dict[str, Any]) -> Iterator[Any]:
    """Yield the answer of a recording; while it is made, its steps are shown on stderr."""
    from redifu.console import recording_progress

    with recording_progress() as report:
        given = recogniser.read(options.conversations, report=report, **_hearing(options))
        answers = list(recogniser.predict(given, **how))
    yield from answers


def _hearing(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options given for a recording."""
    names = ("turns", "speakers", "channels", "language", "speech_model", "speaker_model")
    return {name: given for name in names if (given := getattr(options, name))}


def _writers(options: argparse.Namespace, recogniser: Any) -> Iterator[Any]:
    from redifu.data.writers import prediction_writer
    from redifu.reports.html_report import model_notice, report_writer

    if options.output is not None:
        yield prediction_writer(options.output, recogniser.labels)
    if options.html is not None:
        yield report_writer(
            options.html,
            recogniser.labels,
            streams=recogniser.streams,
            model_name=recogniser.name,
            notice=model_notice(recogniser.folder),
        )


def _listen(options: argparse.Namespace) -> None:
    from redifu.inference.listening import file_chunks, listen, paced, pcm_chunks, unpaced
    from redifu.transcription.live_turns import LiveModels, LiveTurns

    session = _load(options.model).session()
    models = LiveModels(speech_model=options.speech_model or "tiny.en", language=options.language)
    turns = LiveTurns(models.speech, models.speakers, most_speakers=options.speakers)
    from_stdin = options.recording == "-"
    chunks = pcm_chunks(sys.stdin.buffer) if from_stdin else file_chunks(options.recording)
    for frame in listen((paced if options.realtime else unpaced)(chunks), turns, session):
        print(json.dumps(frame), flush=True)


def _train(options: argparse.Namespace) -> None:
    from redifu.console import print_run, training_progress
    from redifu.training.recipe import load_recipe
    from redifu.training.trainer import train

    _be_quiet()
    recipe = load_recipe(options.recipe, options.overrides)
    with training_progress() as report:
        folder = train(recipe, report=report)
    # torchrun starts this command several times; only one of them reports.
    if os.environ.get("RANK", "0") == "0":
        print_run(folder)


def _evaluate(options: argparse.Namespace) -> None:
    from redifu.console import plots_if_installed, print_metrics, say
    from redifu.evaluation.corruptions import read_grid
    from redifu.evaluation.scoring import evaluate_conversations

    output = None if options.output is None else Path(options.output)
    check_output(output, (".json",))
    grid = None if options.robustness is None else read_grid(options.robustness)
    plots = None if output is None else plots_if_installed()
    recogniser = _load(options.model)
    given = list(recogniser.read(options.data, split=options.split, columns=options.columns))
    metrics = evaluate_conversations(recogniser.model, recogniser.processor, given)
    print_metrics(metrics)
    if grid is not None:
        metrics["robustness"] = _evaluate_robustness(options, recogniser, given, grid, plots)
    if output is not None:
        pictures = [output.with_suffix(ending) for ending in (".png", ".coverage.png")]
        if plots is not None:
            plots.plot_confusion(metrics, recogniser.labels, pictures[0])
            plots.plot_coverage(metrics, pictures[1])
        replace_json(output, metrics)  # last: when it is there, all files are
        say(f"{output}: all metrics" + ("; plots in {} and {}".format(*pictures) if plots else ""))


def _evaluate_robustness(
    options: argparse.Namespace, recogniser: Any, given: list[Any], grid: Any, plots: Any
) -> list[dict]:
    from redifu.console import print_robustness, say
    from redifu.evaluation.robustness import evaluate_robustness, write_robustness

    rows = evaluate_robustness(recogniser.model, recogniser.processor, given, grid).rows
    print_robustness(rows)
    if options.output is not None:
        path = Path(options.output).with_suffix(".robustness.csv")
        named = write_robustness(path, rows, data=Path(options.data), run=Path(options.model))
        if plots is not None:
            plots.plot_severity(named, path.with_suffix(".png"))
        say(f"{path}: {len(rows):,} rows" + (", with a plot next to it" if plots else ""))
    return rows


def _publish(options: argparse.Namespace) -> None:
    from redifu.console import say
    from redifu.hub.publishing import files_to_publish, publish, size_of

    _be_quiet()
    files = files_to_publish(options.folder, options.repo_id)
    for path, content in files.items():
        say(f"{size_of(content):>13,}  {path}")
    if not options.dry_run:
        say(publish(files, options.repo_id, private=options.private))


def _export(options: argparse.Namespace) -> None:
    from redifu.console import say
    from redifu.hub.onnx_export import export_onnx

    model = _load(options.folder).model
    difference = export_onnx(model, options.output, features=options.features, int8=options.int8)
    say(f"{options.output}: logits differ from the model's by at most {difference:.1e}")


def _extract(options: argparse.Namespace) -> int:
    from redifu.console import Tally, extraction_progress, number_of, say
    from redifu.data.extraction import REPORT, extract_conversations
    from redifu.data.readers import read_conversations
    from redifu.model import ReDiFuFeatureExtractor

    _be_quiet()
    given = (options.audio_backend, options.visual_backend)
    audio_backend, visual_backend = (None if backend == "none" else backend for backend in given)
    extractor = ReDiFuFeatureExtractor(
        audio_backend=audio_backend,
        visual_backend=visual_backend,
        face_detector=options.face_detector,
    )
    tally = Tally()
    conversations = list(tally.counting(read_conversations(options.conversations, columns=options.columns)))
    with extraction_progress() as report:
        failed = extract_conversations(
            conversations,
            options.output,
            extractor=extractor,
            num_processes=options.num_proc,
            engine=options.engine,
            report=report,
        )
    say(f"{options.output}: features of {tally}")
    if failed:
        place = Path(options.output, REPORT)
        said = f"{number_of(failed, 'stream')} could not be read, see {place}"
        say(f"redifu extract: {said}", error=True)
    return 1 if failed else 0


def _prepare(options: argparse.Namespace) -> None:
    from redifu.console import Tally, recording_progress, say
    from redifu.data.writers import write_conversations

    folder = Path(options.output).parent
    notes: list[str] = []
    if options.dataset is not None:
        from redifu.data.corpora import read_corpus

        conversations, notes = read_corpus(options.dataset, options.source, folder=folder)
    else:
        from redifu.transcription.transcribe import read_recording

        with recording_progress() as report:
            heard = read_recording(options.source, folder=folder, report=report, **_hearing(options))
        conversations = [heard]
    tally = Tally()
    write_conversations(options.output, tally.counting(conversations))
    for note in notes:
        say(note, error=True)
    say(f"{options.output}: {tally}")


def _add_noise(options: argparse.Namespace) -> None:
    from redifu.console import Tally, say
    from redifu.data.noisy_copies import write_noisy_copies
    from redifu.data.readers import read_conversations

    tally = Tally()
    given = tally.counting(
        read_conversations(options.conversations, split=options.split, columns=options.columns)
    )
    written = write_noisy_copies(given, options.output, snr=tuple(options.snr), seed=options.seed)
    say(f"{written}: {tally}")


def _serve(options: argparse.Namespace) -> None:
    from redifu.optional_packages import optional_package

    optional_package("fastapi", extra="serve")
    from redifu.serving.http_service import serve

    limits = Limits(**{limit.name: getattr(options, limit.name) for limit in fields(Limits)})
    serve(
        partial(_load, options.model),
        host=options.host,
        port=options.port,
        limits=limits,
        speech_model=options.speech_model,
    )


def _load(name_or_path: str, *, runtime: str = "torch") -> Any:
    from redifu.inference.recogniser import load

    _be_quiet()
    return load(name_or_path, runtime=runtime)


def _be_quiet() -> None:
    """Turn off transformers' progress bars."""
    from transformers.utils import logging

    logging.disable_progress_bar()


_COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "predict": _predict,
    "listen": _listen,
    "train": _train,
    "evaluate": _evaluate,
    "publish": _publish,
    "export": _export,
    "extract": _extract,
    "prepare": _prepare,
    "add-noise": _add_noise,
    "serve": _serve,
}


if __name__ == "__main__":
    sys.exit(main())
