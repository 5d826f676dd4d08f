"""Write and read sounds of many channels, layouts and codecs; print a line of JSON for each.

A program of its own, because a fault of FFmpeg ends the process.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from media.made_media import tone, write_sound
from redifu.media.decoding import MediaError, Span, read_sound

LAYOUTS = (
    *("mono", "stereo", "2.1", "3.0", "quad", "4.1", "5.0", "5.1", "5.1(side)", "6.1", "7.0", "7.1"),
    *("7.1(wide)", "octagonal", "hexadecagonal", "22.2", "9 channels", "10 channels", "12 channels"),
    *("33 channels", "64 channels", "65 channels", "200 channels"),
)
# Those that keep each sample, then others.
EXACT = {
    **{"a.wav": "pcm_s16le", "b.wav": "pcm_f32le", "c.wav": "pcm_s24le", "d.wav": "pcm_s32le"},
    **{"a.caf": "pcm_s16be", "a.mov": "pcm_s24le", "a.mka": "pcm_f32le", "a.w64": "pcm_s16le"},
    **{"a.flac": "flac", "a.m4a": "alac", "b.mka": "flac", "a.au": "pcm_s16be"},
}
LOSSY = {
    **{"b.m4a": "aac", "a.aac": "aac", "c.mka": "aac", "a.ogg": "libopus", "a.ac3": "ac3"},
    **{"a.eac3": "eac3", "a.wv": "wavpack"},
}


def main(folder: Path, layouts: Sequence[str]) -> None:
    for layout in layouts:
        channels = av.AudioLayout(layout).nb_channels
        # No two channels are equal, and their mean is loud.
        planes = np.stack([tone(0.3, frequency=200 + number) for number in range(channels)])
        for name, codec in {**EXACT, **LOSSY}.items():
            path = folder / f"{layouts.index(layout)}-{name}"
            try:
                write_sound(path, planes, codec=codec, layout=layout)
            except (av.FFmpegError, ValueError):
                continue  # the codec does not know this layout
            print(json.dumps({"file": path.name}), flush=True)
            ((_, heard),) = read_sound(path, [Span()], sampling_rate=16000)
            if isinstance(heard, MediaError):
                found = {"reason": str(heard)}
            else:
                count = min(len(heard), planes.shape[1])
                expected = planes.mean(axis=0)[:count]
                found = {
                    "samples": len(heard),
                    "error": float(np.abs(heard[:count] - expected).max()),
                    "level": float(np.std(heard) / np.std(expected)),
                }
            print(
                json.dumps({"layout": layout, "channels": channels, "exact": name in EXACT, **found}),
                flush=True,
            )
            path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or LAYOUTS)
