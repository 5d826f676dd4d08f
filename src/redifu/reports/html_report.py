"""Predicted and explained conversations as one page that a browser shows without any other file."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined

from redifu.conversation import Conversation, Prediction
from redifu.data.writers import Write, replacing

_TEMPLATE = Path(__file__).with_name("html_report_template.html")

# Of Okabe and Ito, told apart by the colour-blind, too. Names in common use have the colours that people
# expect; other labels take what is left, striped when all are taken.
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
# What the page needs to know of an utterance; features would fill it.
_SHOWN = ("speaker", "text", "start", "end", "emotion", "scores", "explanation")
# The measure that stands for all in a row of the timeline, and what the row calls it.
_MAIN_MEASURE = {
    "audio": ("snr", "signal-to-noise ratio"),
    "visual": ("face_share", "frames with a face"),
}

_LABEL_PIXELS = 96  # of an emotion's name with its probability
_MOST_PIXELS = 170  # an utterance on average, however short the shortest ones are
_TICK_PIXELS = 90
_TICK_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)


class _Scale(NamedTuple):
    """Where utterances stand on the timeline.

    Attributes:
        spans: start and end of each, in seconds, or in turns where times are not known.
        timed: whether these are seconds.
        first: of the timeline.
        extent: its length, in the same unit.
        pixels: the least width at which names can be read.
    """

    spans: list[tuple[float, float]]
    timed: bool
    first: float
    extent: float
    pixels: int

    def place(self, value: float) -> float:
        """Return a time as percent of the timeline."""
        return round(100 * (value - self.first) / self.extent, 3)


@contextmanager
def report_writer(
    path: str | Path, labels: Sequence[str], *, streams: Sequence[str], model_name: str
) -> Iterator[Write]:
    """Open a page of predictions, as a context; as of `prediction_writer`, nothing half-written stays.

    Args:
        path: .html.
        labels: names of the columns of the probabilities.
        streams: those that the model reads.
        model_name: named at the top.

    Yields:
        A function that writes a conversation and its explained predictions.

    Raises:
        ValueError: another ending, or a folder that does not exist.
    """
    template = _template(labels)
    with replacing(Path(path), (".html",)) as file:
        file.write(template.head(model_name))
        section = partial(_section, labels=labels, streams=streams)
        yield lambda *answer: file.write(template.section(section(*answer)))
        file.write(template.foot())


def render_report(
    answers: Iterable[tuple[Conversation, Sequence[Prediction]]],
    labels: Sequence[str],
    *,
    streams: Sequence[str],
    model_name: str,
) -> str:
    """Return the page of conversations and their explained predictions; see `report_writer`."""
    template = _template(labels)
    sections = [template.section(_section(*answer, labels, streams)) for answer in answers]
    return "".join([template.head(model_name), *sections, template.foot()])


def emotion_colours(labels: Sequence[str]) -> dict[str, str]:
    """Choose a colour for each label, as CSS; those that more labels share come striped after the first."""
    colours = {label: _EXPECTED[label] for label in labels if label in _EXPECTED}
    for label in labels:
        if label not in colours:
            used = list(colours.values())
            colours[label] = min(_PALETTE, key=used.count)
    return {label: colours[label] for label in labels}


def _template(labels: Sequence[str]) -> Any:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    environment.filters["clock"] = _clock
    source = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    measures = {name: said for name, (_, said) in _MAIN_MEASURE.items()}
    return source.make_module({"colours": emotion_colours(labels), "measures": measures})


def _section(
    conversation: Conversation,
    predictions: Sequence[Prediction],
    labels: Sequence[str],
    streams: Sequence[str],
) -> dict[str, Any]:
    """Lay out one conversation."""
    utterances = [
        {**{name: getattr(each, name) for name in _SHOWN}, "label": utterance.label}
        for utterance, each in zip(conversation.utterances, predictions, strict=True)
    ]
    scale = _scale(utterances)
    emotions = [utterance["emotion"] for utterance in utterances]
    lanes: dict[str, list[dict[str, Any]]] = {}
    for turn, utterance in enumerate(utterances):
        lanes.setdefault(utterance["speaker"], []).append(_block(turn, utterance, scale))
    for blocks in lanes.values():
        for block, following in pairwise(blocks):
            block["room"] = round(following["left"] - block["left"], 3)
    return {
        "id": conversation.id,
        "utterances": utterances,
        "seconds": max(end for _, end in scale.spans) - scale.first if scale.timed else None,
        "counts": {label: emotions.count(label) for label in labels if label in emotions},
        "pixels": scale.pixels,
        "lanes": lanes,
        "ribbon": [block for blocks in lanes.values() for block in blocks],
        "streams": {
            name: [_cell(name, turn, utterance, scale) for turn, utterance in enumerate(utterances)]
            for name in streams
        },
        "ticks": _ticks(scale),
        "timed": scale.timed,
    }


def _scale(utterances: Sequence[dict[str, Any]]) -> _Scale:
    spans, timed = _spans(utterances)
    last_starts: dict[str, float] = {}
    gaps = []
    for utterance, (start, _) in zip(utterances, spans, strict=True):
        if (before := last_starts.get(utterance["speaker"])) is not None:
            gaps.append(start - before)
        last_starts[utterance["speaker"]] = start
    first, end = spans[0][0], max(end for _, end in spans)
    # All but the nearest tenth of a speaker's utterances have room for their label.
    near = quantiles(gaps, n=10, method="inclusive")[0] if len(gaps) > 1 else (*gaps, end - first)[0]
    unit = min(_LABEL_PIXELS / max(near, 1e-3), _MOST_PIXELS * len(spans) / (end - first))
    extent = max(end, spans[-1][0] + _LABEL_PIXELS / unit) - first
    return _Scale(spans, timed, first, extent, round(extent * unit))


def _spans(utterances: Sequence[dict[str, Any]]) -> tuple[list[tuple[float, float]], bool]:
    """Return where utterances begin and end, and whether in seconds; else in turns.

    Times that go back, or never move, are places in several recordings.
    """
    starts = [utterance["start"] for utterance in utterances]
    if any(start is None for start in starts):
        return [(turn, turn + 0.94) for turn in range(len(starts))], False
    back = any(after < before for before, after in pairwise(starts))
    if back or (len(starts) > 1 and starts[0] == starts[-1]):
        return [(turn, turn + 0.94) for turn in range(len(starts))], False
    following = [*starts[1:], starts[-1] + 1.0]
    ends = [
        utterance["end"] or max(after, start + 0.1)
        for utterance, start, after in zip(utterances, starts, following, strict=True)
    ]
    return list(zip(starts, ends, strict=True)), True


def _block(turn: int, utterance: dict[str, Any], scale: _Scale) -> dict[str, Any]:
    start, end = scale.spans[turn]
    left = scale.place(start)
    return {"turn": turn, **utterance, "left": left, "width": scale.place(end) - left, "room": 100 - left}


def _cell(stream: str, turn: int, utterance: dict[str, Any], scale: _Scale) -> dict[str, Any]:
    """Say of a stream of an utterance whether it is there, how far it is trusted, and how good it is."""
    explanation = utterance["explanation"] or {"contributions": {}, "reliability": None, "quality": {}}
    here = stream in explanation["contributions"]
    trust = 1.0 if explanation["reliability"] is None else explanation["reliability"].get(stream, 0.0)
    start, end = scale.spans[turn]
    left = scale.place(start)
    measure = explanation["quality"].get(stream, {}).get(_MAIN_MEASURE.get(stream, ("", ""))[0])
    said = "" if measure is None else f"{measure:.0f} dB" if stream == "audio" else f"{measure:.0%}"
    return {"left": left, "width": scale.place(end) - left, "here": here, "trust": trust, "said": said}


def _ticks(scale: _Scale) -> list[tuple[float, str]]:
    """Return places and names of the marks on the axis; none so near its end that it would be cut off."""
    least = (_TICK_PIXELS if scale.timed else _TICK_PIXELS / 3) * scale.extent / scale.pixels
    last = scale.first + scale.extent - least / 2
    if not scale.timed:
        turns = range(0, len(scale.spans), max(math.ceil(least), 1))
        return [(scale.place(turn), str(turn + 1)) for turn in turns if turn <= last]
    step = next((seconds for seconds in _TICK_SECONDS if seconds >= least), _TICK_SECONDS[-1])
    marks = range(math.ceil(scale.first / step) * step, math.floor(last) + 1, step)
    return [(scale.place(mark), _clock(mark)) for mark in marks]


def _clock(seconds: float) -> str:
    """Write a time as m:ss, or h:mm:ss from one hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
