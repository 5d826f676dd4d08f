"""Measures how much emotion the features of a clip carry, clean and in noise: a linear probe on RAVDESS.

Logistic regression on standardised features, 6 folds of 4 actors not seen in training, 8 emotions (chance
12.5 %). The probe is trained on clean clips and tested with white noise or babble (8 other clips) at several
signal-to-noise ratios. It also reports how often the estimated ratio orders two levels of a clip correctly.

    python scripts/evidence/probe_ravdess.py path/to/ravdess                        # clips as audio/*.flac
    python scripts/evidence/probe_ravdess.py path/to/ravdess --backend opensmile:IS10 --clips 288
"""

import argparse
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

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
    describe = log_mel_features
    if options.backend != "log_mel":
        describe = partial(opensmile_features, name=options.backend.removeprefix("opensmile:"))
    sounds = [dict(read_sound(path, [Span()], sampling_rate=SAMPLING_RATE))[0] for path in paths]
    clean = np.stack([describe(sound) for sound in sounds])
    print(
        f"{options.backend}: accuracy {accuracy(clean, emotion, fold):.1f} on {len(paths)} clips", flush=True
    )
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
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
        probe.fit(clean[fold != number], emotion[fold != number])
        mine = fold[tested] == number
        if mine.any():
            right.append(probe.predict(features[mine]) == emotion[tested[mine]])
    return 100 * float(np.concatenate(right).mean())


if __name__ == "__main__":
    main()
