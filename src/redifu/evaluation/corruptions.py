"""Corruptions of conversations for robustness tests, and the grid that selects them and their severities.

A corruption is a pure function of conversations. Its draws depend on the seed and the utterances, not on the
model, so all models get the same noise and the same missing streams. Labels and speakers do not change.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from redifu.conversation import Conversation, Utterance
from redifu.data.stream_dropout import hide_streams
from redifu.media.noise import babble_noise, pink_noise, record_in_noise, white_noise
from redifu.model.configuration_redifu import MODALITIES

SIDE_STREAMS = ("audio", "visual")
# The mean number of utterances per start of a burst.
UTTERANCES_OF_A_BURST = 16
CLEAN, SUBSETS = "clean", "subsets"

Conversations = Sequence[Conversation]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One point of a grid.

    Attributes:
        name: name of the corruption.
        severity: its severity, as written in the rows of results.
        draws: number of random draws; results are means over them.
    """

    name: str
    severity: str
    draws: int = 1


@dataclass(frozen=True, kw_only=True)
class Severities:
    """The severities and draws of one corruption in a grid.

    Attributes:
        severities: severities in the unit of the corruption; empty if it has none.
        draws: number of random draws of each.
    """

    severities: tuple[float, ...] = ()
    draws: int = 1


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The conditions under which a model is scored, in addition to the clean data.

    Attributes:
        conditions: severities and draws by corruption: a key of `CORRUPTIONS` or "subsets".
        seed: random seed.
    """

    conditions: Mapping[str, Severities]
    seed: int = 0

    def points(self, streams: Sequence[str]) -> Iterator[Condition]:
        """Yield the conditions for a model with these streams: clean first, then those of `conditions`."""
        yield Condition(name=CLEAN, severity="0")
        for name, asked in self.conditions.items():
            if name == SUBSETS:
                for subset in subsets_of(streams):
                    yield Condition(name=name, severity=subset)
                continue
            for severity in asked.severities or (1.0,):
                yield Condition(name=name, severity=f"{severity:g}", draws=asked.draws)


def read_grid(path: str | Path) -> Grid:
    """Read a grid from a YAML file: `seed`, and `conditions` by name with `severities` and `draws`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: invalid YAML, an unknown key or an invalid value; the message names the file and the key.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: invalid YAML: {error}") from None
    try:
        _check_keys(values, known=("seed", "conditions"), where="the grid")
        seed, conditions = values.get("seed", 0), values.get("conditions")
        _check_keys(conditions, known=(SUBSETS, *CORRUPTIONS), where="conditions")
        if not conditions:
            raise ValueError("conditions must name at least one condition, got none")
        if not _is_integer(seed, least=0):
            raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
        return Grid(
            conditions={name: _severities(name, given) for name, given in conditions.items()}, seed=seed
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def subsets_of(streams: Sequence[str]) -> list[str]:
    """Return the non-empty subsets of streams by their initials, smallest first: t, a, v, ta, tv, av, tav."""
    initials = [name[0] for name in streams]
    return ["".join(each) for size in range(1, len(initials) + 1) for each in combinations(initials, size)]


def corrupt(
    conversations: Conversations, condition: Condition, *, draw: int, grid_seed: int, keys: Mapping[str, str]
) -> Conversations:
    """Apply one draw of a condition to conversations.

    Args:
        conversations: conversations whose features are arrays or lists; not modified.
        condition: clean, subsets, or a key of `CORRUPTIONS`.
        draw: number of the draw.
        grid_seed: seed of the grid.
        keys: by stream, the utterance field that holds it.
    """
    if condition.name == CLEAN:
        return conversations
    if condition.name == SUBSETS:
        return keep_subset(conversations, condition.severity, keys=keys)
    # The seed excludes the severity: streams missing at 0.1 are also missing at 0.2, for smooth curves.
    seed = (grid_seed, zlib.crc32(condition.name.encode()), draw)
    severity = float(condition.severity)
    return CORRUPTIONS[condition.name].apply(conversations, severity, seed=seed, keys=keys)


def keep_subset(conversations: Conversations, subset: str, *, keys: Mapping[str, str]) -> Conversations:
    """Hide all streams except those whose initials are in `subset`, for example "ta" for text and audio."""
    hidden = [key for name, key in keys.items() if name[0] not in subset]
    return [
        replace(each, utterances=[one.with_fields(**dict.fromkeys(hidden)) for one in each.utterances])
        for each in conversations
    ]


def hide_at_random(
    conversations: Conversations,
    rate: float,
    *,
    seed: Sequence[int],
    keys: Mapping[str, str],
    spared: Sequence[str] = (),
) -> Conversations:
    """Hide each stream of each utterance with probability `rate`, except `spared` and the last one left."""
    generator = np.random.default_rng(seed)
    kept = [keys[name] for name in spared]
    return [
        hide_streams(each, keys=keys.values(), probability=rate, generator=generator, spared=kept)
        for each in conversations
    ]


def hide_bursts(
    conversations: Conversations, length: float, *, seed: Sequence[int], keys: Mapping[str, str]
) -> Conversations:
    """Hide audio and visual in runs of `length` utterances, wherever there is text.

    A run starts at each utterance with probability 1 / UTTERANCES_OF_A_BURST and ends with the dialogue.
    """
    generator = np.random.default_rng(seed)
    nothing = dict.fromkeys(keys[name] for name in SIDE_STREAMS)
    corrupted = []
    for each in conversations:
        utterances = each.utterances
        starts = generator.random(len(utterances)) < 1 / UTTERANCES_OF_A_BURST
        lost = np.convolve(starts, np.ones(int(length)))[: len(utterances)] > 0
        hidden = [
            one.with_fields(**nothing) if gone and getattr(one, keys["text"]) is not None else one
            for one, gone in zip(utterances, lost, strict=True)
        ]
        corrupted.append(replace(each, utterances=hidden))
    return corrupted


def add_feature_noise(
    conversations: Conversations,
    scale: float,
    *,
    seed: Sequence[int],
    keys: Mapping[str, str],
    streams: Sequence[str] = SIDE_STREAMS,
) -> Conversations:
    """Add normal noise with `scale` times each feature's standard deviation over the conversations."""
    utterances = _utterances(conversations)
    for name in streams:
        key = keys[name]
        places = [place for place, one in enumerate(utterances) if getattr(one, key) is not None]
        if not places:
            continue
        values = np.array([getattr(utterances[place], key) for place in places], dtype=np.float32)
        generator = np.random.default_rng((*seed, MODALITIES.index(name)))
        deviation = values.std(axis=0, dtype=np.float64).astype(np.float32)
        noise = generator.standard_normal(values.shape, dtype=np.float32)
        for place, row in zip(places, values + scale * deviation * noise, strict=True):
            utterances[place] = utterances[place].with_fields(**{key: row})
    return _with_utterances(conversations, utterances)


def permute_features(
    conversations: Conversations, _: float, *, seed: Sequence[int], keys: Mapping[str, str]
) -> Conversations:
    """Move audio and visual features to other utterances of the conversations, both by one permutation.

    The set of utterances that have a stream does not change.
    """
    utterances = _utterances(conversations)
    order = np.random.default_rng(seed).permutation(len(utterances)).tolist()
    changed = list(utterances)
    for name in SIDE_STREAMS:
        key = keys[name]
        places = [place for place, one in enumerate(utterances) if getattr(one, key) is not None]
        sources = [place for place in order if getattr(utterances[place], key) is not None]
        for place, source in zip(places, sources, strict=True):
            quality = {**changed[place].quality, name: utterances[source].quality.get(name, {})}
            moved = {key: getattr(utterances[source], key)}
            changed[place] = changed[place].with_fields(quality=quality, **moved)
    return _with_utterances(conversations, changed)


def disturb_sounds(
    conversations: Conversations,
    level: float,
    *,
    seed: Sequence[int],
    keys: Mapping[str, str],
    make: Callable[..., np.ndarray],
) -> Conversations:
    """Add noise at a signal-to-noise ratio of `level` dB to the waveforms of utterances.

    Args:
        conversations: utterances whose "audio" is {"array": (samples,), "sampling_rate"}, all with the same
            rate, get noise.
        level: signal-to-noise ratio in dB.
        seed: determines the noise, together with the index of the utterance.
        keys: not used.
        make: `white_noise`, `pink_noise` or `babble_noise`.
    """
    utterances = _utterances(conversations)
    places = [place for place, one in enumerate(utterances) if isinstance(one.audio, Mapping)]
    sounds = [utterances[place].audio["array"] for place in places]
    for number, (place, sound) in enumerate(zip(places, sounds, strict=True)):
        generator = np.random.default_rng((*seed, place))
        noise = make(sounds, number, length=len(sound), generator=generator)
        heard = record_in_noise(sound, noise, level=level)
        audio = {**utterances[place].audio, "array": heard}
        utterances[place] = replace(utterances[place], audio=audio)
    return _with_utterances(conversations, utterances)


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """A kind of corruption.

    Attributes:
        apply: called with conversations, severity, seed and keys.
        of_sounds: whether it changes waveforms, before feature extraction.
        least: minimum severity; None for a corruption without severities.
        most: maximum severity.
        whole: whether severities are integers.
    """

    apply: Callable[..., Conversations]
    least: float | None = None
    most: float = float("inf")
    whole: bool = False
    of_sounds: bool = False


# Units of the severities: probability, utterances, standard deviations or dB.
CORRUPTIONS: dict[str, Corruption] = {
    "missing": Corruption(apply=hide_at_random, least=0.0, most=1.0),
    "missing_side": Corruption(apply=partial(hide_at_random, spared=["text"]), least=0.0, most=1.0),
    "bursts": Corruption(apply=hide_bursts, least=1.0, whole=True),
    "noise": Corruption(apply=add_feature_noise, least=0.0),
    "noise_audio": Corruption(apply=partial(add_feature_noise, streams=["audio"]), least=0.0),
    "noise_visual": Corruption(apply=partial(add_feature_noise, streams=["visual"]), least=0.0),
    "permuted": Corruption(apply=permute_features),
    **{
        make.__name__: Corruption(
            apply=partial(disturb_sounds, make=make), least=-100.0, most=100.0, of_sounds=True
        )
        for make in (white_noise, pink_noise, babble_noise)
    },
}


def _severities(name: str, given: Any) -> Severities:
    """Check the grid's settings for one corruption."""
    kind = CORRUPTIONS.get(name, Corruption(apply=keep_subset))
    known = ["severities"] if kind.least is not None else []
    _check_keys(given or {}, known=known + ["draws"] * (name != SUBSETS), where=f"conditions.{name}")
    severities, draws = (given or {}).get("severities", []), (given or {}).get("draws", 1)
    if not _is_integer(draws, least=1):
        raise ValueError(f"conditions.{name}.draws must be an integer of at least 1, got {draws!r}")
    if kind.least is None:
        return Severities(draws=draws)
    where = f"conditions.{name}.severities"
    if not isinstance(severities, list) or not severities:
        raise ValueError(f"{where} must be a list of numbers, got {severities!r}")
    for value in severities:
        fits = (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and kind.least <= value <= kind.most
        )
        if not fits or (kind.whole and value != int(value)) or abs(value) == float("inf"):
            numbers = "integers" if kind.whole else "numbers"
            raise ValueError(f"{where} must be {numbers} from {kind.least:g} to {kind.most:g}, got {value!r}")
    return Severities(severities=tuple(map(float, severities)), draws=draws)


def _check_keys(given: Any, *, known: Sequence[str], where: str) -> None:
    if not isinstance(given, dict):
        raise ValueError(f"{where}: expected keys and values, got {given!r}")
    for key in given:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}; known keys: {', '.join(known) or 'none'}")


def _is_integer(value: Any, *, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _utterances(conversations: Conversations) -> list[Utterance]:
    return [one for each in conversations for one in each.utterances]


def _with_utterances(conversations: Conversations, utterances: Sequence[Utterance]) -> Conversations:
    """Return the conversations with their utterances replaced, in order."""
    following = iter(utterances)
    return [replace(each, utterances=[next(following) for _ in each.utterances]) for each in conversations]
