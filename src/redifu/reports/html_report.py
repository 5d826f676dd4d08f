"""Predictions and their explanations as one self-contained HTML page."""

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

from huggingface_hub import metadata_load
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from yaml import YAMLError

from redifu.atomic_files import check_output, replacing_text
from redifu.conversation import MEDIA, Conversation, Prediction, Utterance
from redifu.data.recordings import relocated
from redifu.data.writers import Write
from redifu.reports.timeline import Row, Timeline, clock, lay_out

# Okabe and Ito's palette, whose colours colour-blind readers can distinguish. Common labels have the colours
# that people expect; other labels get the remaining ones, striped once all are used.
_GREY, _ORANGE, _SKY, _GREEN = "#8b929c", "#e69f00", "#56b4e9", "#009e73"
_YELLOW, _BLUE, _RED, _PURPLE = "#f0e442", "#0072b2", "#d55e00", "#cc79a7"
_PALETTE = (_ORANGE, _SKY, _GREEN, _YELLOW, _BLUE, _RED, _PURPLE, _GREY)
_EXPECTED = {
    **dict.fromkeys(("neutral", "calm"), _GREY),
    **dict.fromkeys(("joy", "happy", "happiness"), _YELLOW),
    **dict.fromkeys(("sadness", "sad"), _BLUE),
    **dict.fromkeys(("anger", "angry"), _RED),
    **dict.fromkeys(("surprise", "surprised", "excited"), _ORANGE),
    **dict.fromkeys(("fear", "fearful"), _PURPLE),
    **dict.fromkeys(("disgust", "disgusted"), _GREEN),
}
# The fields that the page shows; it leaves out features, which are large.
_SHOWN = ("text", "start", "end", "emotion", "scores", "unsure", "reasons", "explanation")
# What the page shows of the input, and returns in the corrected conversation.
_GIVEN = ("speaker", "label", "words", "text_confidence", "overlap")
# Below this probability, the page marks a recognised word.
_UNSURE = 0.5
_SCRIPTS = ("player.js", "corrections.js", "html_report.js")
# The quality measure shown in the lane of a stream, and its name on the page.
_MAIN_MEASURE = {
    "audio": ("snr", "signal-to-noise ratio"),
    "visual": ("face_share", "frames with a face"),
}


@contextmanager
def report_writer(
    path: str | Path, labels: Sequence[str], *, streams: Sequence[str], model_name: str, notice: str = ""
) -> Iterator[Write]:
    """Open a page of predictions, as a context manager; `path` is replaced only on success.

    The page plays recordings from where they are now, by paths relative to its own folder.

    Args:
        path: the .html file.
        labels: emotion labels, in the order of the probabilities.
        streams: the streams that the model reads.
        model_name: name of the model, shown at the top.
        notice: what users of this model must know, shown at the top; see `model_notice`.

    Yields:
        A function that writes a conversation and its explained predictions.

    Raises:
        ValueError: the path does not end in .html, or its folder does not exist.
    """
    template = _template(labels)
    check_output(path, (".html",))
    with replacing_text(Path(path)) as file:
        file.write(template.head(model_name, notice))
        yield lambda conversation, predictions: file.write(
            template.section(_section(conversation, predictions, labels, streams, folder=Path(path).parent))
        )
        file.write(template.foot())


def render_report(
    answers: Iterable[tuple[Conversation, Sequence[Prediction]]],
    labels: Sequence[str],
    *,
    streams: Sequence[str],
    model_name: str,
    notice: str = "",
) -> str:
    """Return the page of conversations and their explained predictions; see `report_writer`.

    This page has no place of its own, so it plays no recordings.
    """
    template = _template(labels)
    sections = [template.section(_section(*pair, labels, streams)) for pair in answers]
    return "".join([template.head(model_name, notice), *sections, template.foot()])


def model_notice(folder: str | Path) -> str:
    """Return a notice from the model card in a folder: demonstration only, or no commercial use; else ""."""
    card = Path(folder, "README.md")
    try:
        # Without a folder, this would read an unrelated README.md in the working directory.
        data = (metadata_load(card) if folder and card.is_file() else None) or {}
    except (ValueError, YAMLError):
        return ""
    notices = []
    if {"demonstration", "semi-synthetic"} & set(data.get("tags") or ()):
        notices.append("This checkpoint is a demonstration.")
    if "-nc" in (licence := str(data.get("license"))):
        notices.append(f"Not for commercial use (licence {licence}).")
    return " ".join(notices)


def emotion_colours(labels: Sequence[str]) -> dict[str, str]:
    """Choose a CSS colour for each label; labels that share a colour are striped from the second on."""
    colours = {label: _EXPECTED[label] for label in labels if label in _EXPECTED}
    for label in labels:
        if label not in colours:
            used = list(colours.values())
            colours[label] = min(_PALETTE, key=used.count)
    return {label: colours[label] for label in labels}


def _template(labels: Sequence[str]) -> Any:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        autoescape=True, loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    environment.filters.update(clock=clock, percent="{:.0%}".format, marked=_marked)
    script = "\n".join(loader.get_source(environment, name)[0] for name in _SCRIPTS)
    # The content security policy allows this script and no other.
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("html_report_template.html").make_module(
        {"colours": emotion_colours(labels), "script": script, "script_hash": f"sha256-{digest}"}
    )


def _section(
    conversation: Conversation,
    predictions: Sequence[Prediction],
    labels: Sequence[str],
    streams: Sequence[str],
    folder: Path | None = None,
) -> dict[str, Any]:
    """Lay out one conversation; media paths become relative to the folder of the page, if it is known."""
    utterances = conversation.utterances
    if not utterances:  # a recording without speech
        return {"id": conversation.id, "rows": []}
    if folder is not None:
        utterances = [relocated(conversation, utterance, folder) for utterance in utterances]
    rows = [_row(utterance, said) for utterance, said in zip(utterances, predictions, strict=True)]
    timeline = lay_out(rows)
    emotions = [row["emotion"] for row in rows]
    counts = {label: emotions.count(label) for label in (*labels, None) if label in emotions}
    cells = {stream: [_cell(stream, row) for row in rows] for stream in streams}
    for each in cells.values():
        for turn, cell in enumerate(each):
            cell.update(timeline.place(turn) or {})
    return {
        "id": conversation.id,
        "split": conversation.split,
        "plays": folder is not None and any(row[name] for row in rows for name in MEDIA.values()),
        "rows": rows,
        "counts": counts,
        "summary": _summary(rows, counts),
        "timeline": timeline,
        "lanes": timeline.lanes(rows),
        "streams": cells,
        "measures": {stream: said for stream, (_, said) in _MAIN_MEASURE.items()},
        "strips": [
            (_strip_name(strip), lanes) for strip in timeline.strips() if (lanes := strip.lanes(rows))
        ],
    }


def _row(utterance: Utterance, said: Prediction) -> Row:
    paths = {name: path for name in MEDIA.values() if isinstance(path := getattr(utterance, name), str)}
    return {
        **{name: getattr(said, name) for name in _SHOWN},
        **{name: getattr(utterance, name) for name in _GIVEN},
        **dict.fromkeys(MEDIA.values()),
        **paths,
    }


def _marked(text: str, words: Iterable[Mapping[str, Any]] | None) -> Iterator[tuple[str, float | None]]:
    """Cut a text into pieces: words that speech recognition was unsure of have their probability."""
    done = place = 0
    for word in words or ():
        said = word["word"].strip()
        if (start := text.find(said, place)) < 0:
            continue  # the text was corrected since
        place = start + len(said)
        if word["probability"] < _UNSURE:
            yield text[done:start], None
            yield text[start:place], word["probability"]
            done = place
    yield text[done:], None


def _summary(rows: list[Row], emotions: Iterable[str | None]) -> list[dict[str, Any]]:
    """Count each speaker's utterances and emotions; "mean" is the mean probability of these emotions."""
    summary = []
    for speaker in dict.fromkeys(row["speaker"] for row in rows):
        own = [row for row in rows if row["speaker"] == speaker]
        predicted = [row["emotion"] for row in own]
        probabilities = [row["scores"][row["emotion"]] for row in own if row["emotion"] is not None]
        summary.append(
            {
                "speaker": speaker,
                "number": len(own),
                "counts": [predicted.count(emotion) for emotion in emotions],
                "mean": fmean(probabilities) if probabilities else None,
            }
        )
    return summary


def _cell(stream: str, row: Row) -> dict[str, Any]:
    """Return whether an utterance has a stream, how much the model trusts it, and how good it is."""
    explanation = row["explanation"] or {
        "contributions": {},
        "reliability": None,
        "quality": {},
        "missing": {},
    }
    reliability = explanation["reliability"]
    measure = explanation["quality"].get(stream, {}).get(_MAIN_MEASURE.get(stream, ("", ""))[0])
    return {
        "here": stream in explanation["contributions"],
        "trust": None if reliability is None else reliability.get(stream, 0.0),
        "measure": "" if measure is None else f"{measure:.0f} dB" if stream == "audio" else f"{measure:.0%}",
        "missing": explanation["missing"].get(stream),
    }


def _strip_name(strip: Timeline) -> str:
    end = strip.first + strip.extent
    if strip.timed:
        return f"{clock(strip.first)} to {clock(end)}"
    return f"Utterances {strip.first + 1:.0f} to {min(end, len(strip.spans)):.0f}"
