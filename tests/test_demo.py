"""The demo, used as a visitor does: in Chromium, from what is pasted to what is downloaded."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from answers import predicted
from media.made_media import tone, write_sound
from model.tiny_models import LABELS, text_model
from model.tiny_processors import tokenizer
from redifu.model import ReDiFuFeatureExtractor, ReDiFuProcessor
from redifu.model.feature_extraction_redifu import AUDIO_BACKENDS

pytest.importorskip("gradio", reason="the demo needs the extra `demo`")
pytest.importorskip("av", reason="the recording of the demo needs the extra `media`")
pytestmark = pytest.mark.slow

DEMO = Path(__file__).resolve().parents[1] / "examples" / "demo.py"
AUDIO_SIZE = AUDIO_BACKENDS["log_mel"]


@pytest.fixture(scope="module")
def model_and_processor():
    model = text_model("bert", audio_size=AUDIO_SIZE, visual_size=None)
    return model, ReDiFuProcessor(ReDiFuFeatureExtractor(audio_backend="log_mel"), tokenizer(), labels=LABELS)


@pytest.fixture(scope="module")
def address(model_and_processor, tmp_path_factory):
    """Where the demo of a toy model listens."""
    folder = tmp_path_factory.mktemp("demo")
    for part in model_and_processor:
        part.save_pretrained(folder / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-u", DEMO, folder / "model", "--port", str(port)]
    environment = os.environ | {"GRADIO_TEMP_DIR": str(folder / "uploads"), "no_proxy": "127.0.0.1"}
    log = folder / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            list(map(str, command)), cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            # Ends with the line, or with a process that ended before.
            while "Running on" not in log.read_text() and process.poll() is None:
                pass_time(process)
            assert process.poll() is None, log.read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def pass_time(process):
    try:
        process.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        return


@pytest.fixture(params=[1280, 390])
def page(browser, address, request):
    """The demo at the width of a desk and of a phone; nothing may leave this machine."""
    outside, errors = [], []
    page = browser.new_page(viewport={"width": request.param, "height": 900})
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "request",
        lambda asked: (
            outside.append(asked.url)
            if not asked.url.startswith((address, "data:", "blob:", "about:"))
            else None
        ),
    )
    page.goto(address)
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") == request.param
    page.close()
    assert (outside, errors) == ([], [])


def timeline_of(page, sign="button.utterance"):
    """The timeline that holds ``sign``, once its script, the last thing in it, answers clicks and keys."""
    timeline = page.frame_locator("iframe[title='Emotion timeline']")
    timeline.locator(sign).first.wait_for()
    timeline.locator("button.utterance[tabindex='0']").wait_for()
    return timeline


def paste(page, text):
    page.get_by_role("textbox").first.fill(text)
    page.get_by_role("button", name="Recognise the text").click()


def download(page):
    """What the button gives, line by line."""
    with page.expect_download() as given:
        page.get_by_role("button", name="Download").or_(
            page.get_by_role("link", name="Download")
        ).first.click()
    return [json.loads(line) for line in Path(given.value.path()).read_text("utf-8").splitlines()]


def talk():
    generator = np.random.default_rng(0)
    texts = ["hello", "you came !", None]
    return {
        "id": "dinner",
        "utterances": [
            {"speaker": "Ana", "text": text, "audio_features": generator.normal(size=AUDIO_SIZE).tolist()}
            for text in texts
        ],
    }


def expected_scores(model_and_processor, given):
    ((_, rows),) = predicted(*model_and_processor, [given])
    return [pytest.approx(dict(zip(LABELS, row, strict=True)), abs=1e-4) for row in rows]


def test_paste_mute_and_download(page, model_and_processor):
    given = talk()
    paste(page, json.dumps(given))
    timeline = timeline_of(page)
    assert timeline.locator("h2").inner_text() == "dinner"
    assert timeline.locator(".stream .cell.missing").count() == 1
    (answered,) = download(page)
    assert [each["scores"] for each in answered["utterances"]] == expected_scores(model_and_processor, given)

    page.get_by_label("audio", exact=True).uncheck()
    timeline = timeline_of(page, ".stream .cell.missing >> nth=3")
    assert timeline.get_by_text("no emotion").first.is_visible()
    # What is not used is still shown.
    assert timeline.locator(".transcript .what").nth(1).text_content() == "you came !"
    (muted,) = download(page)
    silent = {**given, "utterances": [{**each, "audio_features": None} for each in given["utterances"]]}
    scores = [each["scores"] for each in muted["utterances"]]
    assert scores[:2] == expected_scores(model_and_processor, silent)[:2]
    assert scores[:2] != [each["scores"] for each in answered["utterances"]][:2]
    assert scores[2] is None
    kept = [
        {name: each[name] for name in ("speaker", "text", "audio_features")} for each in muted["utterances"]
    ]
    assert kept == given["utterances"]


def test_a_transcript_is_lines_of_speakers(page):
    paste(page, "Ana: hello\n\nBen: you came: yes!\n")
    timeline = timeline_of(page)
    assert timeline.locator(".transcript .what").all_text_contents() == ["hello", "you came: yes!"]
    timeline.locator("button.utterance[data-turn='1']").click()
    assert "Ben, utterance 2" in timeline.locator(".card").inner_text()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Ana: hello\nno colon", "text: line 2: expected 'Speaker: text', got 'no colon'"),
        ("{]", "text: line 1: not JSON"),
        (
            '{"utterances": [{"speaker": "Ana"}]}',
            "text: dialogue text-0, utterance 0: expected at least one of text",
        ),
        (
            '{"utterances": [{"speaker": "Ana", "audio": "/etc/passwd"}]}',
            "dialogue text-0, utterance 0: audio must be null: upload",
        ),
    ],
)
def test_mistakes_are_said_in_one_line(page, text, complaint):
    paste(page, text)
    page.get_by_text(complaint).wait_for()
    assert page.locator("iframe").count() == 0


def test_files_are_read(page, tmp_path):
    page.get_by_role("tab", name="File").click()
    path = tmp_path / "talks.jsonl"
    path.write_text(json.dumps({**talk(), "id": "one"}) + "\n{]\n", encoding="utf-8")
    page.locator("input[type=file]").first.set_input_files(path)
    page.get_by_role("cell", name="talks.jsonl").wait_for()
    page.get_by_role("button", name="Recognise the file").click()
    # Without the folders of the machine that serves.
    page.get_by_text(re.compile(r"^talks\.jsonl: line 2: not JSON")).wait_for()


def test_the_timeline_gives_what_was_corrected_in_it(page):
    paste(page, "Ana: hello\nBen: no\n")
    timeline = timeline_of(page)
    timeline.get_by_role("button", name="Make corrections").click()
    timeline.get_by_label("Name of Ana").fill("Anna")
    timeline.get_by_label("Name of Ana").press("Enter")
    with page.expect_download() as given:
        timeline.get_by_role("button", name="Download JSON").click()
    (read,) = json.loads(Path(given.value.path()).read_text("utf-8"))["utterances"][:1]
    assert read == {"speaker": "Anna", "text": "hello"}


def test_the_microphone_is_a_recording(page):
    page.get_by_role("tab", name="Recording").click()
    page.get_by_role("button", name="Recognise the recording").click()
    page.get_by_text("choose a recording or record one first").wait_for()
    # Headless Chromium has no microphone, so that it is offered is all there is to see.
    assert page.get_by_text("Or the microphone").is_visible()


def test_a_recording_is_cut_by_its_turns(page, tmp_path):
    sound = write_sound(tmp_path / "clip.wav", tone(3.0))
    turns = tmp_path / "clip.srt"
    turns.write_text(
        "1\n00:00:00,000 --> 00:00:01,500\nAna: hello\n\n2\n00:00:01,500 --> 00:00:03,000\nBen: no\n"
    )
    page.get_by_role("tab", name="Recording").click()
    # The field that has its file is a field no more.
    fields = page.locator("[role=tabpanel]:visible input[type=file]")
    fields.first.set_input_files(sound)
    page.get_by_role("cell", name="clip.wav").wait_for()
    fields.first.set_input_files(turns)
    page.get_by_role("cell", name="clip.srt").wait_for()
    page.get_by_role("button", name="Recognise the recording").click()
    timeline = timeline_of(page)
    assert timeline.locator(".transcript .who").all_text_contents() == ["Ana", "Ben"]
    assert timeline.locator(".stream").filter(has_text="audio").locator("span", has_text="dB").count() == 2
    timeline.locator("button.utterance[data-turn='1']").click()
    assert "duration 1.50\u00a0s" in timeline.locator(".card").inner_text()
