"""Measures how fast media become features, in multiples of real time; medians are printed.

Both wall-clock time and processor time are given. On a busy machine only processor time is meaningful.

    python scripts/benchmarks/extraction.py path/to/fixtures --repeat 5
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import cv2

from redifu.data.extraction import extract_conversations
from redifu.media.decoding import Span, read_frames
from redifu.media.face_tracking import FaceFinder, choose_speaking_face
from redifu.model import ReDiFuFeatureExtractor

SOUND, SIGHT = "speech.flac", "talking_face.mp4"
SECONDS = {SOUND: 11.0, SIGHT: 8.0}
FILES_OF_THE_POOL = 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help=f"folder with {SOUND} and {SIGHT}")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    for name, stream, backend in (
        (SOUND, "audio", "log_mel"),
        (SIGHT, "visual", "face_descriptor"),
    ):
        extractor = ReDiFuFeatureExtractor(**{f"{stream}_backend": backend})
        path = str(options.folder / name)
        read = partial(extractor.read_medium, stream, path, [Span()])
        clock, processor = (SECONDS[name] / seconds for seconds in timed(read, repeat=options.repeat))
        print(f"{backend} of {name}: {clock:.1f} times real time, {processor:.1f} times by processor time")
    ((_, frames),) = read_frames(options.folder / SIGHT, [Span()], frames_per_second=5)
    boxes = choose_speaking_face(FaceFinder(), frames.pictures[:40], frames.times[:40])
    print(f"a face in {sum(box is not None for box in boxes)} of the first {len(boxes)} frames of {SIGHT}")
    clocks = {number: pool_seconds(options.folder / SIGHT, number) for number in (1, 2)}
    print(f"two processes are {clocks[1] / clocks[2]:.2f} times as fast as one, including their start")


def timed(run: Callable[[], object], *, repeat: int) -> tuple[float, float]:
    run()
    clocks, processors = [], []
    for _ in range(repeat):
        clock, processor = time.perf_counter(), time.process_time()
        run()
        clocks.append(time.perf_counter() - clock)
        processors.append(time.process_time() - processor)
    return median(clocks), median(processors)


def pool_seconds(video: Path, num_processes: int) -> float:
    """Time the extraction of faces from copies of a video that differ in one byte, so no cache is hit."""
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{number}.mp4" for number in range(FILES_OF_THE_POOL)]
        for number, name in enumerate(names):
            Path(folder, name).write_bytes(video.read_bytes() + bytes([number]))
        utterances = [{"speaker": "A", "video": str(Path(folder, name))} for name in names]
        extractor = ReDiFuFeatureExtractor(visual_backend="face_descriptor")
        start = time.perf_counter()
        extract_conversations(
            [{"id": "d", "utterances": utterances}],
            Path(folder, "features"),
            extractor=extractor,
            num_processes=num_processes,
        )
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
