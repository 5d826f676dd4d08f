"""A model to try in the browser: the emotions of a conversation on a timeline, with and without a stream.

    pip install "redifu[demo]"        # and redifu[media] for models that read recordings
    python examples/demo.py [MODEL]

As a Space of the Hugging Face Hub this file is app.py; DEFAULT_MODEL names the model there.
"""

import argparse
import html
import os
import tempfile
from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
from redifu.data.schema import validate_conversation

import redifu  # noqa: F401  registers the model with transformers
from redifu.cli import MISTAKES
from redifu.data.readers import read_conversations
from redifu.data.recordings import prepare_recording
from redifu.data.transcripts import conversation_of, parse_json, utterances_of_transcript
from redifu.data.writers import with_predictions, write_conversations
from redifu.inference.explanation import explain_conversations
from redifu.inference.loading import load_pretrained
from redifu.model.feature_extraction_redifu import FOLDER, MEDIA
from redifu.reports.html_report import render_report

DEFAULT_MODEL = str(Path(__file__).resolve().parents[1] / "model_cards" / "redifu-meld-text")
EXAMPLE = """\
Ana: Okay, the van is here. Is everything in boxes?
Jonas: Almost. I still have to pack the kitchen.
Ana: The whole kitchen? You said you did that last night!
Jonas: I know, I know. I'm sorry. I fell asleep on the floor.
Mira: Hey! Guess who brought coffee and two strong cousins!
Ana: Oh, you are wonderful! Thank you so much!"""
ANSWERS = ("emotion", "scores", "explanation")
FRAME = '<iframe title="Emotion timeline" sandbox="allow-scripts" srcdoc="{}" style="{}"></iframe>'
FRAME_STYLE = "width: 100%; height: max(480px, 92vh); border: 0; border-radius: 10px"


def main() -> None:
    parser = argparse.ArgumentParser(description="Try a model in the browser.")
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help="folder, or ORG/NAME on the Hub")
    parser.add_argument("--port", type=int, help="a free one from 7860 on, unless given")
    options = parser.parse_args()
    model, processor = load_pretrained(options.model)
    page = build_page(model, processor, model_name=Path(options.model).resolve().name)
    # Fonts of the system: gradio's own come from elsewhere.
    theme = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    page.launch(server_port=options.port, theme=theme, max_file_size="100mb", ssr_mode=False, footer_links=[])


def build_page(model: Any, processor: Any, *, model_name: str) -> gr.Blocks:
    """Lay out the page and connect it with the model."""
    streams = list(model.config.modalities)
    results = tempfile.TemporaryDirectory()

    @say_mistakes
    def show(
        conversations: list[dict[str, Any]] | None, used: list[str]
    ) -> tuple[str, str] | tuple[None, None]:
        if conversations is None:
            return None, None
        answered = recognise(model, processor, conversations, used)
        page = render_report(answered, model.config.labels, streams=streams, model_name=model_name)
        file = Path(tempfile.mkdtemp(dir=results.name), "emotions.jsonl")
        write_conversations(file, answered)
        return FRAME.format(html.escape(page), FRAME_STYLE), str(file)

    @say_mistakes
    def from_text(text: str) -> list[dict[str, Any]]:
        return checked(read_pasted(text), processor)

    @say_mistakes
    def from_file(path: str | None) -> list[dict[str, Any]]:
        if path is None:
            raise ValueError("expected a conversation file, got none")
        return checked(read_conversations(path), processor)

    @say_mistakes
    def from_recording(recording: str | None, turns: str | None) -> list[dict[str, Any]]:
        if recording is None or turns is None:
            raise ValueError("expected a recording and a file of its turns")
        folder = Path(recording).parent
        return [{**prepare_recording(recording, turns, folder=folder), FOLDER: str(folder)}]

    with gr.Blocks(title="ReDiFu", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(
            "## Emotions of a conversation\n"
            "Which emotion label the model gives to each utterance, when, and from which streams."
        )
        given = gr.State()
        sources = []
        with gr.Tab("Text"):
            text = gr.Textbox(
                EXAMPLE, lines=6, max_lines=6, label="A line an utterance, Speaker: text; or JSON"
            )
            sources.append((gr.Button("Recognise the text", variant="primary"), from_text, [text]))
        with gr.Tab("File"):
            kinds = [".json", ".jsonl", ".txt", ".csv", ".parquet"]
            file = gr.File(label="Conversations, as redifu predict reads them", file_types=kinds, height=140)
            sources.append((gr.Button("Recognise the file", variant="primary"), from_file, [file]))
        if processor.feature_extractor.media:
            with gr.Tab("Recording"):
                recording = gr.File(label="Sound or video", file_types=["audio", "video"], height=140)
                kinds = [".rttm", ".srt", ".vtt", ".ass", ".ssa", ".csv", ".json"]
                turns = gr.File(label="Who speaks when", file_types=kinds, height=140)
                button = gr.Button("Recognise the recording", variant="primary")
                sources.append((button, from_recording, [recording, turns]))
        with gr.Row(equal_height=True):
            used = gr.CheckboxGroup(streams, value=streams, label="Streams the model may use", scale=3)
            download = gr.DownloadButton("Download as JSON lines", scale=1)
        timeline = gr.HTML()
        for button, read, inputs in sources:
            read_event = button.click(read, inputs, given)
            read_event.success(show, [given, used], [timeline, download])
        used.change(show, [given, used], [timeline, download])
    return page


def recognise(
    model: Any, processor: Any, conversations: list[dict[str, Any]], used: Collection[str]
) -> list[dict[str, Any]]:
    """Return conversations with predictions and explanations, made from some of their streams."""
    muted = [mute(conversation, used) for conversation in conversations]
    answered = []
    for given, (explained, rows) in zip(
        conversations, explain_conversations(model, processor, muted), strict=True
    ):
        predicted = with_predictions(explained, rows, labels=model.config.labels)["utterances"]
        utterances = [
            {**utterance, **{name: answer[name] for name in ANSWERS}}
            for utterance, answer in zip(given["utterances"], predicted, strict=True)
        ]
        kept = {name: value for name, value in given.items() if name != FOLDER}
        answered.append({**kept, "utterances": utterances})
    return answered


def mute(conversation: dict[str, Any], used: Collection[str]) -> dict[str, Any]:
    """Take all streams but those in use out of a conversation."""
    keys = {"text": "text", **MEDIA}
    gone = [
        name for stream, key in keys.items() if stream not in used for name in (key, f"{stream}_features")
    ]
    utterances = [{**utterance, **dict.fromkeys(gone)} for utterance in conversation["utterances"]]
    return {**conversation, "utterances": utterances}


def read_pasted(text: str) -> list[dict[str, Any]]:
    """Read JSON, one conversation or a list, or a transcript."""
    if text.lstrip().startswith(("{", "[")):
        found = conversation_of(parse_json(text, source="text"))
    else:
        found = {"utterances": utterances_of_transcript(text.split("\n"), source="text")}
    each = found if isinstance(found, list) else [found]
    return [validate_conversation(one, source="text", index=index) for index, one in enumerate(each)]


def checked(conversations: Any, processor: Any) -> list[dict[str, Any]]:
    """Refuse what the model can not read, and files of this machine that a conversation names."""
    read = list(conversations)
    for conversation in read:
        processor.check(conversation)
        for turn, utterance in enumerate(conversation["utterances"]):
            for key in MEDIA.values():
                if utterance.get(key) is not None:
                    where = f"dialogue {conversation['id']}, utterance {turn}"
                    raise ValueError(f"{where}: {key}: no file is opened here: upload the recording itself")
    return read


def say_mistakes(run: Callable) -> Callable:
    """Let a user's mistake be shown in the page, without the folders of this machine."""

    @wraps(run)
    def run_and_say(*given: Any) -> Any:
        try:
            return run(*given)
        except MISTAKES as error:
            said = str(error)
            for path in given:
                if isinstance(path, str) and os.sep in path:
                    said = said.replace(f"{Path(path).parent}{os.sep}", "")
            raise gr.Error(said, print_exception=False) from None

    return run_and_say


if __name__ == "__main__":
    main()
