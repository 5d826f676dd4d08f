"""Try a model in the browser: the emotions of a conversation on a timeline, with any streams turned off.

    pip install "redifu[demo]"        # and redifu[media] for models that read recordings
    python examples/demo.py [MODEL]

In a Space on the Hugging Face Hub, this file is app.py and DEFAULT_MODEL names the model.
"""

import argparse
import html
import os
import tempfile
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr

import redifu

DEFAULT_MODEL = str(Path(__file__).resolve().parents[1] / "model_cards" / "redifu-meld-text")
EXAMPLE = """\
Ana: Okay, the van is here. Is everything in boxes?
Jonas: Almost. I still have to pack the kitchen.
Ana: The whole kitchen? You said you did that last night!
Jonas: I know, I know. I'm sorry. I fell asleep on the floor.
Mira: Hey! Guess who brought coffee and two strong cousins!
Ana: Oh, you are wonderful! Thank you so much!"""
# A visitor's mistake raises one of these, with a message that says what to do.
MISTAKES = (ValueError, FloatingPointError, ImportError, OSError)
# The fields of an utterance that hold a stream.
FIELDS = {
    "text": ("text", "text_features"),
    "audio": ("audio", "audio_features"),
    "visual": ("video", "visual_features"),
}
SANDBOX = "allow-scripts allow-downloads"
FRAME = f'<iframe title="Emotion timeline" sandbox="{SANDBOX}" srcdoc="{{}}" style="{{}}"></iframe>'
FRAME_STYLE = "width: 100%; height: max(480px, 92vh); border: 0; border-radius: 10px"


def main() -> None:
    parser = argparse.ArgumentParser(description="Try a model in the browser.")
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, help="folder, or ORG/NAME on the Hub")
    parser.add_argument("--port", type=int, help="port; by default the first free one from 7860")
    options = parser.parse_args()
    page = build_page(redifu.load(options.model))
    # System fonts, because gradio's own are loaded from another site.
    theme = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    page.launch(server_port=options.port, theme=theme, max_file_size="100mb", ssr_mode=False, footer_links=[])


def build_page(recogniser: redifu.Recogniser) -> gr.Blocks:
    """Lay out the page and connect it to the model."""
    streams = list(recogniser.streams)
    results = tempfile.TemporaryDirectory()

    @say_mistakes
    def show(
        conversations: list[redifu.Conversation] | None, used: list[str]
    ) -> tuple[str, str] | tuple[None, None]:
        if conversations is None:
            return None, None
        muted = [mute(conversation, used) for conversation in conversations]
        predictions = [said for _, said in recogniser.predict(muted, explain=True)]
        answers = list(zip(conversations, predictions, strict=True))
        page = redifu.render_report(
            answers,
            recogniser.labels,
            streams=streams,
            model_name=recogniser.name,
            notice=redifu.model_notice(recogniser.folder),
        )
        file = Path(tempfile.mkdtemp(dir=results.name), "emotions.jsonl")
        with redifu.prediction_writer(file, recogniser.labels) as write:
            for answer in answers:
                write(*answer)
        return FRAME.format(html.escape(page), FRAME_STYLE), str(file)

    @say_mistakes
    def from_text(text: str) -> list[redifu.Conversation]:
        return without_files(redifu.conversations_from_text(text, check=recogniser.check))

    @say_mistakes
    def from_file(path: str | None) -> list[redifu.Conversation]:
        if path is None:
            raise ValueError("choose a conversation file first")
        return without_files(recogniser.read(path))

    @say_mistakes
    def from_recording(file: str | None, spoken: str | None, turns: str | None) -> list[redifu.Conversation]:
        recording = file or spoken
        if recording is None:
            raise ValueError("choose a recording or record one first")
        if turns is None:
            return list(recogniser.read(recording))
        return [redifu.prepare_recording(recording, turns, folder=Path(recording).parent)]

    with gr.Blocks(title="ReDiFu", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(
            "## Emotions of a conversation\n"
            "The emotion label that the model gives to each utterance, on a timeline, with its streams."
        )
        given = gr.State()
        sources = []
        with gr.Tab("Text"):
            text = gr.Textbox(
                EXAMPLE, lines=6, max_lines=6, label="One utterance per line, Speaker: text; or JSON"
            )
            sources.append((gr.Button("Recognise the text", variant="primary"), from_text, [text]))
        with gr.Tab("File"):
            kinds = [".json", ".jsonl", ".txt", ".csv", ".parquet"]
            file = gr.File(label="Conversation file, as for redifu predict", file_types=kinds, height=140)
            sources.append((gr.Button("Recognise the file", variant="primary"), from_file, [file]))
        if recogniser.processor.feature_extractor.backends:
            with gr.Tab("Recording"):
                recording = gr.File(label="Audio or video file", file_types=["audio", "video"], height=140)
                spoken = gr.Audio(label="Or the microphone", sources=["microphone"], type="filepath")
                kinds = [".rttm", ".srt", ".vtt", ".ass", ".ssa", ".csv", ".json"]
                turns = gr.File(label="Optional file of turns: who speaks when", file_types=kinds, height=140)
                button = gr.Button("Recognise the recording", variant="primary")
                sources.append((button, from_recording, [recording, spoken, turns]))
        with gr.Row(equal_height=True):
            used = gr.CheckboxGroup(streams, value=streams, label="Streams the model may use", scale=3)
            download = gr.DownloadButton("Download as JSON lines", scale=1)
        timeline = gr.HTML()
        for button, read, inputs in sources:
            read_event = button.click(read, inputs, given)
            read_event.success(show, [given, used], [timeline, download])
        used.change(show, [given, used], [timeline, download])
    return page


def mute(conversation: redifu.Conversation, used: Collection[str]) -> redifu.Conversation:
    """Remove all streams that are not in use from a conversation."""
    gone = [field for stream, fields in FIELDS.items() if stream not in used for field in fields]
    utterances = [utterance.with_fields(**dict.fromkeys(gone)) for utterance in conversation.utterances]
    return replace(conversation, utterances=utterances)


def without_files(conversations: Iterable[redifu.Conversation]) -> list[redifu.Conversation]:
    """Reject conversations that name files on this machine."""
    read = list(conversations)
    for conversation in read:
        for turn, utterance in enumerate(conversation.utterances):
            for field in ("audio", "video"):
                if getattr(utterance, field) is not None:
                    where = conversation.where(turn)
                    raise ValueError(f"{where}: {field} must be null: upload the recording itself")
    return read


def say_mistakes(run: Callable) -> Callable:
    """Show a user's mistake on the page, without the folders of this machine."""

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
