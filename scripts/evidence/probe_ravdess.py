"""Measures how much emotion the features of a clip carry, clean and in noise: a linear probe on RAVDESS.

Logistic regression on standardised features, 6 folds of 4 actors not seen in training, 8 emotions (chance
12.5 %). The probe is trained on clean clips and tested with white noise or babble (8 other clips) at several
signal-to-noise ratios. It also reports how often the estimated ratio orders two levels of a clip correctly.
With --train-in-noise, a second probe is trained on every clip twice: clean, and in white noise of 10 dB.

    python scripts/evidence/probe_ravdess.py path/to/ravdess                        # clips as audio/*.flac
    python scripts/evidence/probe_ravdess.py path/to/ravdess --backend opensmile:IS10 --clips 288
    python scripts/evidence/probe_ravdess.py path/to/ravdess --whisper runs/whisper-tiny.en --layers 2 3
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from redifu import ReDiFuForEmotionRecognition
from redifu.media.decoding import Span, read_sound
from redifu.media.noise import add_noise, babble_noise, white_noise
from redifu.media.quality import audio_quality
from redifu.model.audio_features import SAMPLING_RATE, log_mel_features, opensmile_features
from redifu.model.feature_extraction_redifu import AUDIO_BACKENDS

FOLDS, ACTORS_OF_A_FOLD = 6, 4
LEVELS = (20, 10, 5, 0, -5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backend", choices=[*AUDIO_BACKENDS, "action_units"], default="log_mel")
    parser.add_argument("--whisper", type=Path, help="folder of a Whisper model, instead of a backend")
    parser.add_argument("--layers", type=int, nargs="+", help="its layers to pool (default: the last one)")
    parser.add_argument("--train-in-noise", action="store_true")
    parser.add_argument(
        "--clips", type=int, help="number of test clips in noise, drawn at random; default: all"
    )
    options = parser.parse_args()
    paths = sorted((options.folder / "audio").glob("*.flac"))
    # Modality-channel-emotion-intensity-statement-repetition-actor.
    fields = np.array([[int(part) for part in path.stem.split("-")] for path in paths])
    emotion, fold = fields[:, 2], (fields[:, 6] - 1) // ACTORS_OF_A_FOLD
    if options.backend == "action_units":
        table = pd.read_csv(options.folder / "action_units.csv", index_col="clip")
        known = np.array([path.stem in table.index for path in paths])
        clips = [path.stem for path, is_known in zip(paths, known, strict=True) if is_known]
        print(
            f"action_units: accuracy {accuracy(table.loc[clips].to_numpy(), emotion[known], fold[known]):.1f}"
        )
        return
    describe: Callable[[np.ndarray], np.ndarray] = log_mel_features
    if options.whisper is not None:
        options.backend = f"{options.whisper.name}, layers {options.layers or 'last'}"
        describe = whisper_features(options.whisper, options.layers)
    elif options.backend != "log_mel":
        describe = partial(opensmile_features, name=options.backend.removeprefix("opensmile:"))
    sounds = [dict(read_sound(path, [Span()], sampling_rate=SAMPLING_RATE))[0] for path in paths]
    started = time.perf_counter()
    clean = np.stack([describe(sound) for sound in sounds])
    seconds = time.perf_counter() - started
    print(
        f"{options.backend}: accuracy {accuracy(clean, emotion, fold):.1f} on {len(paths)} clips; computed "
        f"{sum(map(len, sounds)) / SAMPLING_RATE / seconds:.0f} times as fast as they play",
        flush=True,
    )
    if options.train_in_noise:
        report_training_in_noise(sounds, clean, describe, emotion, fold)
    generator = np.random.default_rng(0)
    tested = generator.permutation(len(paths))[: options.clips]
    for kind, make in (("white", white_noise), ("babble", babble_noise)):
        in_noise = []
        for clip in tested:
            noise = make(sounds, clip, length=len(sounds[clip]), generator=generator)
            in_noise.append([add_noise(sounds[clip], noise, level=level) for level in LEVELS])
        scores = [
            accuracy(clean, emotion, fold, tested=tested, features=np.stack([describe(s) for s in level]))
            for level in zip(*in_noise, strict=True)
        ]
        ratios = [[audio_quality(sound, SAMPLING_RATE)["snr"] for sound in levels] for levels in in_noise]
        ordered = [one > other for each in ratios for one, other in combinations(each, 2)]
        for level, score, estimate in zip(LEVELS, scores, np.mean(ratios, axis=0), strict=True):
            print(
                f"{kind} noise at {level:3} dB: accuracy {score:.1f}, estimated {estimate:.1f} dB", flush=True
            )
        print(f"{kind}: {100 * np.mean(ordered):.1f} % of pairs of levels in the right order", flush=True)


def whisper_features(folder: Path, layers: list[int] | None) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that embeds a waveform with the encoder of a Whisper model."""
    model = ReDiFuForEmotionRecognition.from_backbones(
        audio=str(folder), audio_layers=layers, text_size=None, visual_size=None
    )

    @torch.inference_mode()
    def describe(sound: np.ndarray) -> np.ndarray:
        return model.eval().redifu.embed("audio", torch.from_numpy(sound)[None])[0].numpy()

    return describe


def report_training_in_noise(
    sounds: list[np.ndarray],
    clean: np.ndarray,
    describe: Callable[[np.ndarray], np.ndarray],
    emotion: np.ndarray,
    fold: np.ndarray,
) -> None:
    """Print the accuracy, clean and at 10 dB, of a probe trained on clean clips and on clips at 10 dB."""
    generator = np.random.default_rng(1)
    noisy = []
    for clip, sound in enumerate(sounds):
        noise = white_noise(sounds, clip, length=len(sound), generator=generator)
        noisy.append(describe(add_noise(sound, noise, level=10)))
    both = {"clean": clean, "white noise at 10 dB": np.stack(noisy)}
    right: dict[str, list[np.ndarray]] = {name: [] for name in both}
    for number in range(FOLDS):
        training = [features[fold != number] for features in both.values()]
        fitted = probe().fit(np.concatenate(training), np.tile(emotion[fold != number], 2))
        for name, features in both.items():
            right[name].append(fitted.predict(features[fold == number]) == emotion[fold == number])
    for name, answers in right.items():
        print(f"trained in noise, {name}: accuracy {100 * np.concatenate(answers).mean():.1f}", flush=True)


def probe() -> Any:
    """Return an untrained probe."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))


def accuracy(
    clean: np.ndarray,
    emotion: np.ndarray,
    fold: np.ndarray,
    *,
    tested: np.ndarray | None = None,
    features: np.ndarray | None = None,
) -> float:
    """Return the accuracy on unseen actors in per cent, on clean features or those of clips `tested`."""
    tested = np.arange(len(clean)) if tested is None else tested
    features = clean if features is None else features
    right = []
    for number in range(FOLDS):
        fitted = probe().fit(clean[fold != number], emotion[fold != number])
        mine = fold[tested] == number
        if mine.any():
            right.append(fitted.predict(features[mine]) == emotion[tested[mine]])
    return 100 * float(np.concatenate(right).mean())


if __name__ == "__main__":
    main()
