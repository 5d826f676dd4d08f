"""Extract features from the media of conversations into Parquet shards, with a cache and a manifest."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from redifu.atomic_files import replacing, replacing_text
from redifu.conversation import FEATURES, MEDIA, Conversation, Utterance
from redifu.conversation_values import shown_names
from redifu.data.executors import ENGINES
from redifu.data.media_reading import read_spans, with_reading
from redifu.data.recordings import relocated
from redifu.data.tables import MANIFEST, file_digest
from redifu.media.decoding import Span
from redifu.media.quality import QUALITY
from redifu.media.reading import CRASHED, Reading, action_units_file
from redifu.model import ReDiFuFeatureExtractor
from redifu.model.feature_extraction_redifu import BACKBONE

REPORT, CACHE = "report.jsonl", "cache"
# Raise this when a backend's output for the same file changes: cached readings of other versions are ignored.
VERSION = 2
SHARD_UTTERANCES = 10_000


@dataclass(frozen=True, kw_only=True)
class Medium:
    """One stream of one file and the spans that utterances need from it, read in one pass."""

    stream: str
    path: str
    spans: tuple[Span, ...]


def extract_conversations(
    conversations: Sequence[Conversation],
    output: str | Path,
    *,
    extractor: ReDiFuFeatureExtractor,
    num_processes: int = 1,
    engine: str = "processes",
    report: Callable[[int, int], None] = lambda done, all_spans: None,
) -> int:
    """Read the media of conversations and write features that `redifu train` and `datasets` can read.

    OUTPUT gets shards part-NNNNN.parquet with one utterance per row (audio_features, visual_features,
    audio_quality and visual_quality with the measures of `media.quality.QUALITY`, and missing);
    manifest.json, which lists the shards, backends and measures; and report.jsonl, with one line per
    missing stream. Readings are cached in OUTPUT/cache by file content, backend and spans, so an
    interrupted run continues without reading any file twice.

    Args:
        conversations: see `read_conversations`.
        output: a folder, created if it does not exist.
        extractor: selects the backends.
        num_processes: number of media files to read in parallel.
        engine: a key of `executors.ENGINES`; it does not change the results.
        report: called with the number of finished spans and the total.

    Returns:
        The number of utterance streams whose file could not be read. Other missing streams, such as those
        without a face, appear only in report.jsonl.

    Raises:
        ImportError: a package that a backend or the engine requires is not installed.
        OSError: the output cannot be written.
        ValueError: a backend produces no features, two dialogues have one id, or `engine` or `num_processes`
            is invalid.
    """
    for name in extractor.raw:
        raise ValueError(f"{name}_backend must produce features to save; {BACKBONE!r} does not")
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if num_processes < 1:
        raise ValueError(f"num_processes must be at least 1, got {num_processes}")
    names = [(conversation.split, conversation.id) for conversation in conversations]
    if repeated := [name for (_, name), count in Counter(names).items() if count > 1]:
        raise ValueError(
            f"expected an id of its own for each dialogue of a split, got twice: {shown_names(repeated)}"
        )
    output = Path(output)
    (output / CACHE).mkdir(parents=True, exist_ok=True)
    media = media_of(conversations, extractor)
    total = sum(len(medium.spans) for medium in media)
    readings: dict[tuple[str, str, Span], Reading] = {}
    read = partial(read_medium, cache=output / CACHE, extractor=extractor)
    for medium, found in ENGINES[engine](read, media, number=num_processes):
        found = [CRASHED] * len(medium.spans) if found is None else found
        for span, reading in zip(medium.spans, found, strict=True):
            readings[medium.stream, medium.path, span] = reading
        report(len(readings), total)
    rows, missing = [], []
    for conversation in conversations:
        for turn, (number, given) in enumerate(zip(conversation.turns, conversation.utterances, strict=True)):
            row = {"dialogue_id": conversation.id, "turn": number, "split": conversation.split}
            utterance = relocated(conversation, given, output)
            for stream in extractor.backends:
                if (path := conversation.medium_of(given, stream)) is None:
                    continue
                reading = readings[stream, path, given.span]
                utterance = with_reading(utterance, stream, reading, key=f"{stream}_features")
                if reading.missing is not None:
                    place = {"dialogue": conversation.id, "turn": turn, "stream": stream, "path": path}
                    missing.append({**place, "reason": reading.missing, "failed": reading.failed})
            rows.append(row | _cells(utterance))
    with ExitStack() as files:
        # Files take their names when the stack closes, in reverse order: the manifest last.
        manifest, lines = (files.enter_context(replacing_text(output / name)) for name in (MANIFEST, REPORT))
        lines.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in missing)
        content = _manifest(_write_shards(rows, output, files), extractor)
        manifest.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    _remove_other_shards(output, {shard["file"] for shard in content["shards"]})
    return sum(line["failed"] for line in missing)


def media_of(conversations: Iterable[Conversation], extractor: ReDiFuFeatureExtractor) -> list[Medium]:
    """List the media to read, in order of first appearance."""
    spans: dict[tuple[str, str], dict[Span, None]] = {}
    for conversation in conversations:
        for utterance in conversation.utterances:
            for stream in extractor.backends:
                if (path := conversation.medium_of(utterance, stream)) is not None:
                    spans.setdefault((stream, path), {})[utterance.span] = None
    return [Medium(stream=stream, path=path, spans=tuple(each)) for (stream, path), each in spans.items()]


def read_medium(medium: Medium, cache: Path, extractor: ReDiFuFeatureExtractor) -> list[Reading]:
    """Return the readings of a medium's spans, from the cache if possible."""
    key = _key(medium, extractor)
    kept = None if key is None else cache / f"{key}.safetensors"
    if kept is not None and (found := _from_cache(kept, len(medium.spans))) is not None:
        return found
    readings = read_spans(extractor, medium.stream, medium.path, medium.spans)
    # A crash may have been for lack of memory: it is tried again.
    if kept is not None and not any(reading is CRASHED for reading in readings):
        _to_cache(kept, readings)
    return readings


def _key(medium: Medium, extractor: ReDiFuFeatureExtractor) -> str | None:
    """Return a hash of everything the readings depend on, or None if the file cannot be opened."""
    backend = getattr(extractor, f"{medium.stream}_backend")
    detector = extractor.face_detector if medium.stream == "visual" else None
    # Without a channel, the keys are those of earlier versions.
    spans = [
        (span.start, span.end, *([] if span.channel is None else [span.channel])) for span in medium.spans
    ]
    digest = hashlib.sha256(json.dumps([VERSION, medium.stream, backend, detector, spans]).encode())
    path = action_units_file(medium.path) if backend == "action_units" else Path(medium.path)
    try:
        if not path.is_file():  # reading a pipe or device may never end
            return None
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError:
        return None
    return digest.hexdigest()


def _from_cache(path: Path, count: int) -> list[Reading] | None:
    try:
        with safe_open(str(path), "numpy") as file:
            kept = json.loads(file.metadata()["readings"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    return [Reading(values=tensors.get(f"{number}"), **kept[number]) for number in range(count)]


def _to_cache(path: Path, readings: Sequence[Reading]) -> None:
    kept = [{"quality": dict(one.quality), "missing": one.missing, "failed": one.failed} for one in readings]
    tensors = {f"{number}": one.values for number, one in enumerate(readings) if one.values is not None}
    with replacing(path) as partial:
        partial.write_bytes(save(tensors, metadata={"readings": json.dumps(kept)}))


def _cells(utterance: Utterance) -> dict[str, Any]:
    """Return the cells of a `SCHEMA` row, except the dialogue columns."""
    cells = {name: getattr(utterance, name) for name in _FIELDS}
    for stream, measures in utterance.quality.items():
        cells[f"{stream}_quality"] = [measures.get(name, math.nan) for name in QUALITY[stream]]
    return {**cells, "missing": dict(utterance.missing) or None}


def _write_shards(rows: Sequence[dict[str, Any]], folder: Path, files: ExitStack) -> list[dict[str, Any]]:
    """Write the shards, which take their names when `files` closes, and return their list."""
    shards = []
    for number, first in enumerate(range(0, len(rows), SHARD_UTTERANCES)):
        part = rows[first : first + SHARD_UTTERANCES]
        name = f"part-{number:05}.parquet"
        table = pa.Table.from_pylist(part, schema=SCHEMA)
        pq.write_table(table, partial := files.enter_context(replacing(folder / name)))
        # A kill between the renames would leave shards of two extractions: the digest tells them apart.
        shards.append({"file": name, "utterances": len(part), "sha256": file_digest(partial)})
    return shards


def _manifest(shards: list[dict[str, Any]], extractor: ReDiFuFeatureExtractor) -> dict[str, Any]:
    backends = {name: getattr(extractor, f"{name}_backend") for name in extractor.backends}
    return {"shards": shards, "backends": backends, "quality": QUALITY, "version": VERSION}


def _remove_other_shards(folder: Path, shards: Collection[str]) -> None:
    """Remove the shards of an earlier, longer extraction."""
    for path in folder.glob("part-*.parquet"):
        if path.name not in shards:
            path.unlink()


_TEXTS, _TIMES = ("speaker", "text", "label"), ("start", "end")
_FIELDS = (*_TEXTS, *_TIMES, *MEDIA.values(), "audio_channel", *FEATURES)
_NUMBERS = pa.list_(pa.float32())
SCHEMA = pa.schema(
    {
        "dialogue_id": pa.string(),
        "turn": pa.int64(),
        **dict.fromkeys(("split", *_TEXTS), pa.string()),
        **dict.fromkeys(_TIMES, pa.float64()),
        **dict.fromkeys(MEDIA.values(), pa.string()),
        "audio_channel": pa.int64(),
        **dict.fromkeys(FEATURES, _NUMBERS),
        **dict.fromkeys((f"{name}_quality" for name in MEDIA), _NUMBERS),
        "missing": pa.struct({name: pa.string() for name in MEDIA}),
    }
)
