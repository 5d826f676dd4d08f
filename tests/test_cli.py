"""The command line: what it prints and writes, and one clear line with status 2 for every mistake."""

import csv
import errno
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import SafetensorError

from media.made_media import tone, write_sound
from redifu.cli import main
from redifu.console import print_metrics, print_robustness, print_run, printable, say, training_progress
from redifu.data.readers import read_conversations
from redifu.media import decoder_process
from redifu.training.recipe import Recipe
from redifu.training.trainer import train
from training.toy import (
    LABELS,
    toy_conversations,
    toy_values,
    write_conversations,
    write_text_backbone,
    write_toy_data,
)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy data, and a model that reads text and audio features of size 3."""
    folder = tmp_path_factory.mktemp("cli")
    write_toy_data(folder)
    backbone = write_text_backbone(folder / "backbone")
    values = toy_values(folder, model_text_backbone=str(backbone), training_epochs=1)
    del values["model"]["text_size"]
    train(Recipe.from_dict(values))
    return folder


def write_json(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def one_utterance(**fields: Any) -> dict[str, Any]:
    return {"id": "d", "utterances": [{"speaker": "Ana", "text": "great", **fields}]}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_predict_prints_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {
        "id": "dinner",
        "utterances": [{"speaker": "Ana", "text": "You [b]came[/b]!"}, {"speaker": "Bo"}],
    }
    given["utterances"][1]["video"] = "bo.mp4"
    path = write_json(folder / "dinner.json", given)
    assert main(["predict", str(folder / "model"), path]) == 0
    out, err = capsys.readouterr()
    title, _, header, _, first, *_ = out.splitlines()
    assert title.strip() == "dinner"
    assert [cell.strip() for cell in header.strip("┃").split("┃")] == [
        "speaker",
        "text",
        "emotion",
        "probability",
        "reasons",
    ]
    speaker, text, emotion, probability, _ = (cell.strip() for cell in first.strip("│").split("│"))
    assert (speaker, text) == ("Ana", "You [b]came[/b]!")
    assert emotion in LABELS
    assert 1 / 3 <= float(probability) <= 1
    # A stream that the model does not read is no answer, and no error either; the table says why.
    (second,) = [line for line in out.splitlines() if line.startswith("│ Bo")]
    cells = [cell.strip() for cell in second.strip("│").split("│")]
    assert cells[:4] == ["Bo", "", "-", "-"]
    assert cells[4].startswith("no words")
    assert err == ""


def test_predict_writes_rows_and_lines(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder / "test.jsonl"
    given = lines_of(data)
    number = sum(len(each["utterances"]) for each in given)
    for name in ("out.csv", "out.jsonl"):
        assert main(["predict", str(folder / "model"), str(data), "--output", str(tmp_path / name)]) == 0
        said = f"{tmp_path / name}: {number} utterances in {len(given)} conversations\n"
        assert capsys.readouterr() == (said, "")
    predicted = lines_of(tmp_path / "out.jsonl")
    for before, after in zip(given, predicted, strict=True):
        for utterance, answered in zip(before["utterances"], after["utterances"], strict=True):
            scores = answered.pop("scores")
            assert answered.pop("emotion") == max(scores, key=scores.__getitem__)
            assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
            assert answered == utterance
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-3:] == [f"p_{label}" for label in LABELS]
    assert [row["speaker"] for row in rows] == [
        one["speaker"] for each in given for one in each["utterances"]
    ]


def test_predict_abstains_below_a_probability_everywhere(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / name) for name in ("all.jsonl", "some.jsonl", "some.csv", "some.html")]
    command = ["predict", str(folder / "model"), str(folder / "test.jsonl"), "--output"]
    assert main([*command, files[0]]) == 0
    given = [one for each in lines_of(Path(files[0])) for one in each["utterances"]]
    highest = sorted(max(one["scores"].values()) for one in given)
    # One of the values, so that an utterance stands exactly at the limit.
    limit = highest[len(highest) // 2]
    abstaining = ["--abstain-below", str(limit)]
    assert main([*command, files[1], "--html", files[3], *abstaining]) == 0
    assert main([*command, files[2], *abstaining]) == 0
    capsys.readouterr()
    assert main([*command[:-1], *abstaining]) == 0
    assert "not sure" in capsys.readouterr().out
    some = [one for each in lines_of(Path(files[1])) for one in each["utterances"]]
    with Path(files[2]).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert "not sure" in Path(files[3]).read_text(encoding="utf-8")
    assert 0 < sum(one["emotion"] is None for one in some) < len(some)
    for one, other, row in zip(given, some, rows, strict=True):
        sure = max(one["scores"].values()) >= limit
        assert other["emotion"] == (one["emotion"] if sure else None)
        assert other["scores"] == pytest.approx(one["scores"], abs=1e-5)
        assert ("not sure" in other.get("reasons", [])) == (not sure)
        assert row["emotion"] == (one["emotion"] if sure else "")
        assert float(row["probability"]) == max(float(row[f"p_{label}"]) for label in LABELS)


@pytest.mark.parametrize("given", ["0", "1", "nan", "-0.5"])
@pytest.mark.parametrize("source", ["-", "test.jsonl"])
def test_a_limit_that_is_no_probability_gets_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], given: str, source: str
) -> None:
    path = source if source == "-" else str(folder / source)
    assert main(["predict", str(folder / "model"), path, f"--abstain-below={given}"]) == 2
    out, err = capsys.readouterr()
    said = f"redifu predict: error: abstain_below must be between 0 and 1, got {float(given)}\n"
    assert (out, err) == ("", said)


def test_predict_explains_in_lines_and_on_a_page(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(folder / "model"), str(folder / "test.jsonl")]
    lines, page = tmp_path / "out.jsonl", tmp_path / "out.html"
    assert main([*command, "--output", str(lines), "--explain", "--html", str(page)]) == 0
    out, err = capsys.readouterr()
    assert [line.partition(": ")[0] for line in out.splitlines()] == [str(lines), str(page)]
    assert err == ""
    explained = lines_of(lines)
    texts = re.findall(r'<script type="application/json">(.*?)</script>', page.read_text(encoding="utf-8"))
    for conversation, text in zip(explained, texts, strict=True):
        shown = json.loads(text)
        assert [each["scores"] for each in shown] == [each["scores"] for each in conversation["utterances"]]
        assert [each["explanation"] for each in shown] == [
            each.pop("explanation") for each in conversation["utterances"]
        ]
        assert shown[0]["explanation"]["contributions"].keys() >= {"text"}
    # Without an explanation the same is predicted, and a page can stand beside rows.
    assert main([*command, "--output", str(tmp_path / "plain.jsonl")]) == 0
    for plain, other in zip(lines_of(tmp_path / "plain.jsonl"), explained, strict=True):
        for one, same in zip(plain["utterances"], other["utterances"], strict=True):
            assert one.pop("scores") == pytest.approx(same.pop("scores"), abs=1e-5)
        assert plain == other
    assert main([*command, "--output", str(tmp_path / "out.csv"), "--html", str(tmp_path / "two.html")]) == 0
    assert (tmp_path / "two.html").read_bytes() == page.read_bytes()


def test_predict_prints_the_table_of_a_page_too(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    talk, page = write_json(tmp_path / "talk.json", one_utterance()), str(tmp_path / "page.html")
    assert main(["predict", str(folder / "model"), talk, "--html", page]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert any("Ana" in line and "great" in line for line in table)
    assert last == f"{page}: 1 utterance in 1 conversation"
    # JSON lines stay alone on stdout.
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(one_utterance()).encode())))
    assert main(["predict", str(folder / "model"), "-", "--html", page]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["id"] == "d"
    assert err.startswith(f"{page}: ")


def test_predict_explains_lines_from_stdin(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(one_utterance()).encode())))
    assert main(["predict", str(folder / "model"), "-", "--explain"]) == 0
    (utterance,) = json.loads(capsys.readouterr().out)["utterances"]
    assert utterance["explanation"]["contributions"] == {"text": None}


def test_predict_shows_count_and_rate_on_a_terminal(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    data = folder / "test.jsonl"
    assert main(["predict", str(folder / "model"), str(data), "--output", str(tmp_path / "out.csv")]) == 0
    out, err = capsys.readouterr()
    number = sum(len(each["utterances"]) for each in lines_of(data))
    assert out.startswith(f"{tmp_path / 'out.csv'}: ")
    assert f"{number} utterances" in err
    assert "/s" in err


def test_predict_reads_own_tables_and_transcripts(folder: Path, tmp_path: Path) -> None:
    table, transcript = tmp_path / "talk.csv", tmp_path / "talk.txt"
    table.write_text("Who,Utterance\nAna,great\nBen,not so great\n", encoding="utf-8")
    transcript.write_text("Ana: great\nBen: not so great\n", encoding="utf-8")
    answers = []
    for given in ([str(table), "--columns", "text=Utterance,speaker=Who"], [str(transcript)]):
        assert main(["predict", str(folder / "model"), *given, "--output", str(tmp_path / "a.jsonl")]) == 0
        answers += lines_of(tmp_path / "a.jsonl")
    assert answers[0] == answers[1]
    assert answers[0]["id"] == "talk"
    assert [one["speaker"] for one in answers[0]["utterances"]] == ["Ana", "Ben"]


@pytest.mark.parametrize("command", ["predict", "evaluate", "extract", "add-noise"])
def test_a_column_that_is_not_there_gets_one_line(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    table = tmp_path / "talk.csv"
    table.write_text("Who,Utterance\nAna,great\n", encoding="utf-8")
    model = [str(folder / "model")] if command in ("predict", "evaluate") else []
    written = [] if model else ["--output", str(tmp_path / "out")]
    noise = ["--snr", "0", "5"] if command == "add-noise" else []
    arguments = [command, *model, str(table), *written, *noise, "--columns", "text=Words,speaker=Who"]
    assert "talk.csv: missing columns: Words; found: Who, Utterance" in refused(capsys, *arguments)


def test_columns_of_lines_from_stdin_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["predict", str(folder / "model"), "-", "--columns", "text=Words"]
    assert "--columns requires a table, got JSON lines from stdin" in refused(capsys, *command)


def test_predict_streams_a_long_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conversations = toy_conversations(2900, seed=9)
    assert sum(len(each["utterances"]) for each in conversations) > 10_000
    path = write_conversations(tmp_path / "long.jsonl", conversations)
    waiting = most = 0

    def count(read: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def counted(*arguments: Any, **options: Any) -> Iterator[Any]:
            nonlocal waiting, most
            for conversation in read(*arguments, **options):
                waiting += len(conversation.utterances)
                most = max(most, waiting)
                yield conversation

        return counted

    def written(answers: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        nonlocal waiting
        for conversation, predictions in answers:
            yield conversation, predictions
            waiting -= len(conversation.utterances)

    from redifu.inference import recogniser

    monkeypatch.setattr(recogniser, "read_conversations", count(recogniser.read_conversations))
    monkeypatch.setattr("redifu.console.counted", written)
    assert main(["predict", str(folder / "model"), str(path), "--output", str(tmp_path / "out.jsonl")]) == 0
    assert [each["id"] for each in lines_of(tmp_path / "out.jsonl")] == [each["id"] for each in conversations]
    # What is read and not yet written does not grow with the file.
    assert most < 1100
    assert waiting == 0


def test_predict_answers_each_line_as_it_comes(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "redifu.cli", "predict", str(folder / "model"), "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:  # type: ignore[call-overload]
        for text in ("great", "never"):
            # A wrong line is complained about at once, and is no reason not to answer the next one.
            process.stdin.write("{]\n")
            process.stdin.flush()
            assert "not JSON" in process.stderr.readline()
            process.stdin.write(json.dumps(one_utterance(text=text)) + "\n")
            process.stdin.flush()
            # Comes back before the next one is given: with buffering on either side, this would wait.
            answer = json.loads(process.stdout.readline())
            assert answer["utterances"][0]["text"] == text
            assert answer["utterances"][0]["emotion"] in LABELS
        # A reader that goes, as `head` does, is no reason for a traceback.
        process.stdout.close()
        process.stdin.write(json.dumps(one_utterance()) + "\n")
        process.stdin.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (1, "")


def test_predict_skips_wrong_lines_and_says_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = [one_utterance(text="great"), one_utterance(text="never")]
    wrong = ["{]", json.dumps(one_utterance(label="bored")), json.dumps({"id": "d"})]
    lines = "\n".join([wrong[0], json.dumps(answered[0]), "", *wrong[1:], json.dumps(answered[1])])
    for output in ([], ["--output", str(tmp_path / "out.jsonl")]):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
        assert main(["predict", str(folder / "model"), "-", *output]) == 2
        out, err = capsys.readouterr()
        assert not output or out == f"{output[1]}: 2 utterances in 2 conversations\n"
        predicted = lines_of(tmp_path / "out.jsonl") if output else list(map(json.loads, out.splitlines()))
        assert [each["utterances"][0]["text"] for each in predicted] == ["great", "never"]
        assert [complaint.split(": ")[:5] for complaint in err.splitlines()] == [
            ["redifu predict", "error", "stdin", "line 1", "not JSON"],
            ["redifu predict", "error", "stdin", "line 4", "dialogue d, utterance 0"],
            ["redifu predict", "error", "stdin", "line 5", "dialogue d"],
        ]


def test_train_evaluate_and_predict_hang_together(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(toy_values(folder)), encoding="utf-8")
    output = f"training.output={tmp_path / 'model'}"
    assert main(["train", str(tmp_path / "toy.yaml"), "training.epochs=1", output]) == 0
    out, err = capsys.readouterr()
    scores = json.loads((tmp_path / "model" / "metrics.json").read_text(encoding="utf-8"))
    dev, test = (scores[name]["weighted_f1"] for name in ("dev", "test"))
    said = f"best epoch 1 of 1, dev weighted F1 {dev:.2f}, test weighted F1 {test:.2f}"
    assert out == f"{tmp_path / 'model'}: {said}\n"
    # Without a terminal, too: a line for each stage and epoch.
    stages = [
        "building the model",
        "reading the data",
        "training on 20 dialogues",
        "epoch 1/1: loss ",
        "finishing",
    ]
    lines = [line for line in err.splitlines() if "never predicted" not in line]
    assert [line.startswith(stage) for line, stage in zip(lines, stages, strict=True)] == [True] * 5
    results = str(tmp_path / "dev.json")
    assert main(["evaluate", str(tmp_path / "model"), str(folder / "dev.jsonl"), "--output", results]) == 0
    out, err = capsys.readouterr()
    trained = json.loads((tmp_path / "model" / "metrics.json").read_text(encoding="utf-8"))
    assert json.loads(Path(results).read_text(encoding="utf-8")) == trained["dev"]
    assert (tmp_path / "dev.png").read_bytes().startswith(b"\x89PNG")
    assert f"{trained['dev']['weighted_f1']:.2f}" in out
    assert all(label in out for label in LABELS)
    curve = tmp_path / "dev.coverage.png"
    assert curve.read_bytes().startswith(b"\x89PNG")
    assert out.splitlines()[-1] == f"{results}: all metrics; plots in {tmp_path / 'dev.png'} and {curve}"
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines()]
    (row,) = (row for row in trained["dev"]["coverage"] if row["coverage"] == 0.8)
    numbers = [f"{row['accuracy']:.2f}", f"{row['weighted_f1']:.2f}", str(row["num_utterances"])]
    assert ["80 %", *numbers, f"{row['threshold']:.3f}"] in cells
    assert err == ""


def test_evaluate_without_matplotlib_writes_all_numbers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    grid, results = tmp_path / "grid.yaml", tmp_path / "test.json"
    grid.write_text("conditions: {subsets: {}}", encoding="utf-8")
    command = ["evaluate", str(folder / "model"), str(folder / "test.jsonl"), "--robustness", str(grid)]
    assert main([*command, "--output", str(results)]) == 0
    said = "redifu evaluate: no pictures: matplotlib is not installed: pip install 'redifu[plots]'\n"
    assert capsys.readouterr().err == said
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"grid.yaml", "test.json", "test.robustness.csv"}


def test_labels_that_are_never_predicted_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    per_class = {"joy": {"support": 2}, "fear": {"support": 40}, "calm": {"support": 1}}
    dev = {"weighted_f1": 1.0, "per_class": per_class, "confusion": [[2, 0, 0], [39, 0, 1], [1, 0, 0]]}
    write_json(tmp_path / "metrics.json", {"best_epoch": 2, "epochs": 3, "dev": dev})
    print_run(tmp_path)
    out, err = capsys.readouterr()
    assert out == f"{tmp_path}: best epoch 2 of 3, dev weighted F1 1.00\n"
    assert err == "fear is never predicted on dev (40 utterances)\n"


def test_evaluate_tries_a_grid_and_writes_rows_and_a_picture(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid, results = tmp_path / "grid.yaml", tmp_path / "test.json"
    grid.write_text("conditions: {subsets: {}, missing: {severities: [0.5], draws: 2}}", encoding="utf-8")
    command = ["evaluate", str(folder / "model"), str(folder / "test.jsonl"), "--robustness", str(grid)]
    assert main([*command, "--output", str(results)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    metrics = json.loads(results.read_text(encoding="utf-8"))
    rows = metrics["robustness"]
    found = {(row["condition"], row["severity"], row["metric"]): row["value"] for row in rows}
    assert found["clean", "0", "weighted_f1"] == pytest.approx(metrics["weighted_f1"], abs=1e-3)
    assert found["subsets", "t", "gain_over_text"] == 0
    for name in ("weighted_f1", "gain_over_text", "harm"):
        assert f"{found['missing', '0.5', name]:.2f}" in out
    with (tmp_path / "test.robustness.csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(row["value"]) for row in written] == [row["value"] for row in rows]
    assert {(row["dataset"], row["model"], row["seed"]) for row in written} == {("test", "model", "1")}
    assert (tmp_path / "test.robustness.png").read_bytes().startswith(b"\x89PNG")
    grid.write_text("conditions: {mising: {}}", encoding="utf-8")
    assert "grid.yaml: conditions: unknown key 'mising'" in refused(capsys, *command)


def test_train_shows_progress_on_a_terminal(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(toy_values(folder)), encoding="utf-8")
    arguments = ["training.epochs=1", f"training.output={tmp_path / 'model'}"]
    assert main(["train", str(tmp_path / "toy.yaml"), *arguments]) == 0
    err = capsys.readouterr().err
    assert "epoch 1, loss" in err
    assert "5/5" in err
    assert "dev weighted F1" in err


def test_prepare_makes_a_conversation_of_a_recording(tmp_path: Path, test_data: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: it comes with the extra media")
    fixtures, output = test_data / "fixtures", tmp_path / "talk.json"
    turns = ["--turns", str(fixtures / "two_speakers.rttm")]
    assert main(["prepare", str(fixtures / "two_speakers.wav"), *turns, "--output", str(output)]) == 0
    (conversation,) = read_conversations(output)
    assert (conversation.id, len(conversation.utterances)) == ("two_speakers", 10)
    sound = tmp_path / conversation.utterances[0].audio
    assert sound.samefile(fixtures / "two_speakers.wav")


def test_prepare_makes_conversations_of_a_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dev_sent_emo.csv").write_text(
        "Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID\nHi!,Ross,joy,3,0\n", encoding="utf-8"
    )
    output = tmp_path / "meld.jsonl"
    assert main(["prepare", str(tmp_path), "--dataset", "meld", "--output", str(output)]) == 0
    out, err = capsys.readouterr()
    assert out == f"{output}: 1 utterance in 1 conversation\n"
    assert "dev: text only, the folder dev_splits_complete is missing" in err.splitlines()
    assert [each.id for each in read_conversations(output, split="dev")] == ["dev-3"]


def test_extract_reads_what_it_can_and_counts_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk, output = tmp_path / "talk.jsonl", tmp_path / "features"
    clip = str(write_sound(tmp_path / "clip.wav", tone(0.5)))
    said = [{"speaker": "Ana", "audio": clip}, {"speaker": "Ben", "audio": "gone.wav", "text": "Hm."}]
    talk.write_text(json.dumps({"id": "d", "utterances": said}))
    command = ["extract", str(talk), "--output", str(output), "--visual-backend", "none"]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert out.strip() == f"{output}: features of 2 utterances in 1 conversation"
    assert err.strip() == f"redifu extract: 1 stream could not be read, see {output / 'report.jsonl'}"
    talk.write_text(json.dumps({"id": "d", "utterances": said[:1]}))
    assert main(command) == 0
    (conversation,) = read_conversations(output)
    assert len(conversation.utterances[0].audio_features) == 291


def test_add_noise_makes_copies_that_extract_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk, copies = tmp_path / "talk.json", tmp_path / "noisy"
    clip = str(write_sound(tmp_path / "clip.wav", tone(0.5)))
    talk.write_text(json.dumps({"split": "train", "utterances": [{"speaker": "Ana", "audio": clip}]}))
    command = ["add-noise", str(talk), "--output", str(copies), "--snr", "-5", "20", "--split", "train"]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{copies / 'conversations.jsonl'}: 1 utterance in 1 conversation\n"
    features = tmp_path / "features"
    assert main(["extract", str(copies / "conversations.jsonl"), "--output", str(features)]) == 0
    (conversation,) = read_conversations(features, split="train")
    assert len(conversation.utterances[0].audio_features) == 291
    capsys.readouterr()
    complaint = refused(capsys, "add-noise", str(talk), "--output", str(copies), "--snr", "20", "-5")
    assert complaint.endswith("the lower first, got 20 -5\n")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (["--audio-backend", "mel"], "audio_backend must be one of log_mel, opensmile:eGeMAPSv02"),
        (["--visual-backend", "mel"], "visual_backend must be one of face_descriptor, action_units"),
        (["--engine", "spark"], "engine must be one of processes, ray, got 'spark'"),
    ],
)
def test_an_unknown_name_is_answered_with_those_that_are_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str], expected: str
) -> None:
    talk = write_json(tmp_path / "talk.json", one_utterance())
    assert expected in refused(capsys, "extract", talk, "--output", str(tmp_path / "out"), *option)


@pytest.mark.parametrize(("package", "extra"), [("av", "media"), ("ray", "ray")])
def test_a_package_that_is_not_installed_gets_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    extra: str,
) -> None:
    clip = str(write_sound(tmp_path / "clip.wav", tone(0.5)))
    talk = tmp_path / "talk.json"
    talk.write_text(json.dumps({"utterances": [{"speaker": "Ana", "audio": clip}]}))
    (tmp_path / f"{package}.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)  # which the process that decodes takes over
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(decoder_process, "_idle", [])
    engine = ["--engine", "ray"] if package == "ray" else []
    complaint = refused(capsys, "extract", str(talk), "--output", str(tmp_path / "out"), *engine)
    assert complaint.endswith(f"{package} is not installed: pip install 'redifu[{extra}]'\n")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail by a user's mistake; return its one line."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    # Of a run that had begun, the stages are said before.
    *stages, err = err.splitlines(keepends=True)
    assert not stages or arguments[0] == "train"
    assert all(stage.startswith(("building ", "reading ", "training on ")) for stage in stages)
    assert err.startswith(f"redifu {arguments[0]}: error: ")
    assert err.endswith("\n")
    return err


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "data.json: line 1: not JSON"),
        ("", "data.json: expected at least one conversation"),
        ({"id": "d", "utterances": []}, "data.json: dialogue d"),
        (one_utterance(speaker=""), "data.json: dialogue d, utterance 0: speaker"),
        ({"id": "d", "utterances": [{"text": "Hi"}]}, "data.json: dialogue d, utterance 0: speaker"),
        (
            {"id": "d", "utterances": [{"speaker": "Ana"}]},
            "data.json: dialogue d, utterance 0: expected at least one of text",
        ),
        (
            one_utterance(label="bored"),
            "data.json: dialogue d, utterance 0: label must be one of calm, glad, cross",
        ),
        (one_utterance(audio_features=[0, 1]), "data.json: dialogue d, utterance 0: audio_features"),
        (
            one_utterance(audio_features=[0, 1, float("nan")]),
            "data.json: dialogue d, utterance 0: audio_features",
        ),
        (
            one_utterance(audio_features=[0, 1, float("inf")]),
            "data.json: dialogue d, utterance 0: audio_features",
        ),
        (one_utterance(audio_features=[0, 1, 1e300]), "data.json: dialogue d, utterance 0: audio_features"),
    ],
)
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_bad_conversations_get_one_line(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    content: Any,
    complaint: str,
) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "data.json").write_text(text, encoding="utf-8")
    assert complaint in refused(capsys, command, str(folder / "model"), str(tmp_path / "data.json"))


def test_a_bad_line_on_stdin_gets_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n{]\n")))
    assert "stdin: line 2: not JSON" in refused(capsys, "predict", str(folder / "model"), "-")


def test_a_failed_prediction_leaves_the_old_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_conversations(tmp_path / "data.jsonl", [one_utterance(), one_utterance(label="bored")])
    (tmp_path / "out.csv").write_text("what stood here", encoding="utf-8")
    output = ["--output", str(tmp_path / "out.csv")]
    refused(capsys, "predict", str(folder / "model"), str(tmp_path / "data.jsonl"), *output)
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == "what stood here"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "out.csv"]


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_missing_file_gets_one_line(folder: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert "nowhere.json: no such file" in refused(capsys, command, str(folder / "model"), "nowhere.json")


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_folder_that_is_no_model_gets_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    data = str(folder / "dev.jsonl")
    # Looks like the name of a model on the Hub, which must not be asked.
    assert "model_cards/typo: no such model folder" in refused(capsys, command, "model_cards/typo", data)
    assert "not a ReDiFu model: it has no config.json" in refused(capsys, command, str(tmp_path), data)
    shutil.copytree(folder / "model", tmp_path / "odd")
    config = json.loads((tmp_path / "odd" / "config.json").read_text(encoding="utf-8"))
    write_json(tmp_path / "odd" / "config.json", {**config, "hiden_size": 8})
    assert "did you mean 'hidden_size'?" in refused(capsys, command, str(tmp_path / "odd"), data)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["training.sead=2"], "toy.yaml: unknown key training.sead; did you mean training.seed?"),
        (["model.hiden_size=2"], "toy.yaml: unknown key model.hiden_size; did you mean model.hidden_size?"),
        (["model.hidden_size=7"], "model: num_attention_heads must divide hidden_size 7"),
        (["data.train=null"], "toy.yaml: data.train is missing"),
        (["training.learning_rate=1e30"], "the loss became nan after step"),
        (["data.train=nowhere.csv"], "nowhere.csv: no such file"),
        (["data.labels=[calm, glad]"], "label must be one of calm, glad, got 'cross'"),
        (["model.text_backbone=nowhere/at-all"], "model: text_backbone nowhere/at-all"),
    ],
)
def test_bad_recipes_get_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    values = toy_values(folder, training_output=str(tmp_path / "model"))
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    assert complaint in refused(capsys, "train", str(tmp_path / "toy.yaml"), *arguments)
    assert not (tmp_path / "model").exists()


def test_a_terminal_obeys_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "\x1b[31mred\u202e.yaml"]) == 2
    assert "\\x1b[31mred\\u202e.yaml: no such" in capsys.readouterr().err


ATTACK = "\x1b]0;owned\x07\x1b[2J\x9b1m\u202e\u2066\r\n\x7f"
SHOWN = "\\x1b]0;owned\\x07\\x1b[2J\\x9b1m\\u202e\\u2066\\r\\n\\x7f"


def is_harmless(printed: str) -> bool:
    """Whether a terminal shows every character, and obeys nothing but the ends of lines."""
    return all(each.isprintable() for each in printed.replace("\n", ""))


def test_a_terminal_obeys_no_cell_of_the_table(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    given = {**one_utterance(speaker=f"Ana{ATTACK}", text=f"great{ATTACK}"), "id": f"dinner{ATTACK}"}
    assert main(["predict", str(folder / "model"), write_json(tmp_path / "dinner.json", given)]) == 0
    out = capsys.readouterr().out
    assert is_harmless(out)
    for cell in ("great", "dinner"):
        assert cell + SHOWN in out
    # Names are shown in normal form, without marks of direction.
    assert "Ana\\x1b]0;owned\\x07\\x1b[2J\\x9b1m" in out


def test_a_terminal_obeys_no_label_condition_or_path(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    say(f"{tmp_path}/{ATTACK}: 1 utterance")
    values = {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1}
    scores = dict.fromkeys(("weighted_f1", "macro_f1", "accuracy", "nll", "ece", "aurc"), 1.0)
    classes = {"per_class": {ATTACK: values}, "coverage": []}
    print_metrics({**scores, "num_utterances": 1, "intervals": {}, **classes})
    row = {"condition": ATTACK, "severity": ATTACK, "metric": "weighted_f1", "value": 1.0}
    print_robustness([row])
    with training_progress() as report:
        report({"event": "stage", "stage": f"reading {ATTACK}"})
    out, err = capsys.readouterr()
    assert is_harmless(out + err)
    assert out.count(SHOWN) == 4
    assert err == f"reading {SHOWN}\n"
    with pytest.raises(SystemExit):
        main(["predict", "model", "file", ATTACK])
    assert SHOWN in (err := capsys.readouterr().err)
    assert is_harmless(err)


def test_a_terminal_obeys_no_log_line(caplog: pytest.LogCaptureFixture) -> None:
    main(["train", "nowhere.yaml"])
    logging.getLogger("redifu.data.media_reading").warning("dialogue %s is missing", ATTACK)
    assert caplog.messages == [f"dialogue {SHOWN} is missing"]


def test_words_of_all_scripts_are_shown_as_they_are() -> None:
    for text in ("می‌خواهم", "👩‍👩‍👧 oui\u00a0!", "你好\u3000世界", "Zoë [bold]"):
        assert printable(text) == text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_or_read_only_disk_gets_one_line(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    output = tmp_path / "out.csv"
    err = refused(
        capsys, "predict", str(folder / "model"), str(folder / "dev.jsonl"), "--output", str(output)
    )
    assert err.endswith(f"{os.strerror(number)}: '{output}'\n")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_that_safetensors_finds_gets_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("redifu.training.checkpoints.save_file", fail)
    values = toy_values(tmp_path, training_epochs=1)
    write_toy_data(tmp_path)
    recipe = write_json(tmp_path / "recipe.yaml", values)
    assert main(["train", recipe]) == 2
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]


def test_a_full_disk_behind_stdout_gets_one_line() -> None:
    command = [
        sys.executable,
        "-c",
        "from redifu import cli; cli._COMMANDS['serve'] = print; cli.main(['serve', 'm'])",
    ]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.stderr == "redifu serve: error: [Errno 28] No space left on device\n"


def test_a_missing_recipe_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.yaml: no such file" in refused(capsys, "train", "nowhere.yaml")


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "--version",
        "predict --help",
        "predict",
        "predict model nowhere.json",
        "predict model - --html page.htm",
        "train nowhere.yaml",
        "extract nowhere.json --output features",
    ],
)
def test_help_and_mistakes_do_not_wait_for_torch(arguments: str) -> None:
    code = f"""
import sys
from redifu.cli import main
try:
    main({arguments.split()!r})
except SystemExit:
    pass
print(sorted({{"torch", "transformers", "pandas", "numpy"}} & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert capsys.readouterr().out == f"redifu {project['version']}\n"


@pytest.mark.parametrize(
    ("command", "output", "complaint"),
    [
        ("predict", "out.txt", "ending in .csv or .jsonl"),
        ("predict", "nowhere/out.csv", "nowhere"),
        ("evaluate", "out.csv", "out.csv: expected a file name ending in .json"),
        ("evaluate", "nowhere/out.json", "nowhere does not exist"),
    ],
)
def test_bad_outputs_get_one_line(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    output: str,
    complaint: str,
) -> None:
    arguments = [str(folder / "model"), str(folder / "dev.jsonl"), "--output", str(tmp_path / output)]
    assert complaint in refused(capsys, command, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--explain"], "--explain requires JSON lines: expected --output FILE.jsonl, got a table"),
        (["--explain", "--output", "out.csv"], "expected --output FILE.jsonl, got out.csv"),
        (["--html", "out.htm"], "out.htm: expected a file name ending in .html"),
        (["--html", "nowhere/out.html"], "nowhere/out.html: the folder nowhere does not exist"),
    ],
)
def test_explanations_that_can_not_be_written_get_one_line(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["predict", str(folder / "model"), str(folder / "dev.jsonl"), *options]
    assert complaint in refused(capsys, *command)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("recording", "option", "value", "output", "complaint"),
    [
        ("a.wav", "--turns", "none.srt", "a.json", "none.srt: no such file"),
        ("none.wav", "--turns", "a.rttm", "a.json", "none.wav: no such file"),
        ("a.wav", "--turns", "a.md", "a.json", "expected a file name ending in one of .rttm, .srt"),
        (".", "--dataset", "iemocap", "a.json", "expected IEMOCAP files"),
        ("a.wav", "--turns", "a.txt", "a.json", "line 1: expected a time such as 'Ana 0:03' above the words"),
        ("mosei", "--dataset", "mosei", "b.txt", "expected a file name ending in .json or .jsonl"),
        ("mosei", "--dataset", "mosei", "none/a.json", "none does not exist"),
    ],
)
def test_what_can_not_be_prepared_gets_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recording: str,
    option: str,
    value: str,
    output: str,
    complaint: str,
) -> None:
    if recording == "none.wav":
        pytest.importorskip("av", reason="PyAV is not installed: it comes with the extra media")
    (tmp_path / "a.wav").touch()
    for name in ("a.txt", "a.md"):
        (tmp_path / name).write_text("Ana: hi")
    (tmp_path / "a.rttm").write_text("SPEAKER a 1 0 1 <NA> <NA> Ana <NA> <NA>")
    transcripts = tmp_path / "mosei" / "Transcript" / "Segmented" / "Combined"
    transcripts.mkdir(parents=True)
    (transcripts / "abc.txt").write_text("abc___0___0___1___Hi.")
    value = value if option == "--dataset" else str(tmp_path / value)
    arguments = [str(tmp_path / recording), option, value, "--output", str(tmp_path / output)]
    assert complaint in refused(capsys, "prepare", *arguments)
    assert not (tmp_path / output).exists()


def test_data_without_labels_can_not_be_scored(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_json(tmp_path / "data.json", one_utterance())
    assert "got none" in refused(capsys, "evaluate", str(folder / "model"), path)


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            [],
            ["predit"],
            ["predict"],
            ["evaluate", "a", "b", "--ouput", "c"],
            ["predict", "a", "b", "--speakers", "3-2"],
        ),
        *(["predict", "a", "b", "--columns", mapping] for mapping in ("text", "", "text=Words,")),
    ],
)
def test_bad_arguments_get_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("redifu")


def test_what_is_no_mistake_of_the_user_keeps_its_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("broken inside")

    monkeypatch.setattr("redifu.inference.recogniser.read_conversations", fail)
    with pytest.raises(RuntimeError, match="broken inside"):
        main(["predict", str(folder / "model"), str(folder / "dev.jsonl")])
