"""What is done to conversations: how much of it, to which streams, and the same for every model."""

from copy import deepcopy
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from answers import conversation_of
from redifu.evaluation.corruptions import CORRUPTIONS, Condition, corrupt, read_grid, subsets_of
from redifu.media.noise import add_noise, babble_noise, pink_noise, white_noise

ROOT = Path(__file__).parents[2]
STREAMS = ("text", "audio", "visual")
KEYS = {name: f"{name}_features" for name in STREAMS}


def made(dialogues=40, length=25, seed=0):
    """Dialogues of all streams but of each fifth utterance's sound and of each seventh one's text."""
    generator = np.random.default_rng(seed)
    conversations = []
    for number in range(dialogues):
        utterances = []
        for turn in range(length):
            one = {"speaker": "Ana", "label": "joy", "audio_quality": [float(turn)] * 4}
            one |= {KEYS[name]: generator.normal(3, 2, size=4).astype(np.float32) for name in STREAMS}
            one |= {"audio_features": None} if turn % 5 == 4 else {}
            one |= {"text_features": None} if turn % 7 == 6 else {}
            utterances.append(one)
        conversations.append(conversation_of({"id": f"d{number}", "utterances": utterances}))
    return conversations


def applied(name, severity="1", *, draw=0, given=None, keys=KEYS):
    return corrupt(
        made() if given is None else given,
        Condition(name=name, severity=severity),
        draw=draw,
        grid_seed=7,
        keys=keys,
    )


def flat(conversations):
    return list(chain.from_iterable(each.utterances for each in conversations))


def presence(conversations):
    """(utterances, 3) bool."""
    return np.array(
        [[getattr(one, KEYS[name]) is not None for name in STREAMS] for one in flat(conversations)]
    )


SEVERITIES = {"missing": "0.4", "missing_side": "0.4", "bursts": "4", "subsets": "ta"}
FEATURE_CONDITIONS = ["subsets", *(name for name, kind in CORRUPTIONS.items() if not kind.of_sounds)]


@pytest.mark.parametrize("name", FEATURE_CONDITIONS)
def test_the_input_and_what_is_no_stream_stay_as_they_are(name):
    given = made(5)
    before = deepcopy(given)
    corrupted = applied(name, SEVERITIES.get(name, "1"), given=given)
    np.testing.assert_equal(list(map(asdict, given)), list(map(asdict, before)))
    assert [each.id for each in corrupted] == [each.id for each in given]
    for one, other in zip(flat(corrupted), flat(given), strict=True):
        assert (one.speaker, one.label) == (other.speaker, other.label)


@pytest.mark.parametrize("name", [name for name in FEATURE_CONDITIONS if name != "subsets"])
def test_draws_differ_and_are_the_same_again(name):
    severity = SEVERITIES.get(name, "1")
    first, again, other = (list(map(asdict, applied(name, severity, draw=draw))) for draw in (0, 0, 1))
    np.testing.assert_equal(first, again)
    with pytest.raises(AssertionError):
        np.testing.assert_equal(first, other)


@pytest.mark.parametrize("name", [name for name in FEATURE_CONDITIONS if name != "subsets"])
def test_a_model_without_visual_meets_the_same(name):
    severity = SEVERITIES.get(name, "1")
    given = made()
    without = [
        replace(one, utterances=[each.with_fields(visual_features=None) for each in one.utterances])
        for one in given
    ]
    for one, other in zip(
        flat(applied(name, severity)), flat(applied(name, severity, given=without)), strict=True
    ):
        # But what would be the last stream of the one model may go for the other.
        if one.audio_features is not None and other.audio_features is not None:
            np.testing.assert_array_equal(one.audio_features, other.audio_features)
        kept = other.audio_features is not None or other.text_features is not None
        assert kept or (one.audio_features is None and one.text_features is None)


@pytest.mark.parametrize("name", ["missing", "missing_side", "bursts"])
def test_every_utterance_keeps_a_stream(name):
    for severity in ("1",) if name != "bursts" else ("8",):
        assert presence(applied(name, severity)).any(1).all()


def test_streams_are_missing_as_often_as_asked_and_the_more_the_fewer():
    before = presence(made())
    shares = {}
    for severity in ("0", "0.3", "0.7"):
        after = presence(applied("missing", severity))
        assert not (after & ~before).any()
        shares[severity] = after[before.all(1)].mean(0)
    np.testing.assert_array_equal(shares["0"], 1)
    # All three would go with probability 0.7 to the third power, and then one of them stays.
    np.testing.assert_allclose(shares["0.3"], 0.7 + 0.3**3 / 3, atol=0.05)
    np.testing.assert_allclose(shares["0.7"], 0.3 + 0.7**3 / 3, atol=0.05)
    few, many = (presence(applied("missing_side", severity)) for severity in ("0.7", "0.3"))
    assert not (few & ~many).any()
    np.testing.assert_array_equal(few[:, 0], before[:, 0])
    spared = few[before.all(1)]
    np.testing.assert_allclose(spared[:, 1:].mean(0), 0.3, atol=0.05)


def test_bursts_are_runs_of_the_asked_length():
    (given,) = made(1, length=4000)
    ones = np.ones(4, np.float32)
    full = [one.with_fields(text_features=ones, audio_features=ones) for one in given.utterances]
    given = replace(given, utterances=full)
    for length in (1, 4):
        lost = ~presence(applied("bursts", str(length), given=[given]))
        assert not lost[:, 0].any() and (lost[:, 1] == lost[:, 2]).all()
        edges = np.flatnonzero(np.diff(np.concatenate([[0], lost[:, 1], [0]])))
        runs = (edges[1::2] - edges[::2])[:-1]
        assert runs.min() == length
        assert lost[:, 1].mean() == pytest.approx(1 - (15 / 16) ** length, abs=0.03)


def test_subsets_hide_all_other_streams():
    assert subsets_of(STREAMS) == ["t", "a", "v", "ta", "tv", "av", "tav"]
    before = presence(made())
    for subset in subsets_of(STREAMS):
        kept = np.array([name[0] in subset for name in STREAMS])
        np.testing.assert_array_equal(presence(applied("subsets", subset)), before & kept)


@pytest.mark.parametrize(
    ("name", "noisy"),
    [("noise", ("audio", "visual")), ("noise_audio", ("audio",)), ("noise_visual", ("visual",))],
)
def test_noise_has_the_asked_deviation_of_each_feature(name, noisy):
    given, scale = made(200), 0.5
    corrupted = applied(name, str(scale), given=given)
    np.testing.assert_array_equal(presence(corrupted), presence(given))
    for stream, key in KEYS.items():
        pairs = zip(flat(corrupted), flat(given), strict=True)
        clean, after = (
            np.array([getattr(each, key) for each in side if getattr(each, key) is not None])
            for side in zip(*[(b, a) for a, b in pairs], strict=True)
        )
        if stream not in noisy:
            np.testing.assert_array_equal(after, clean)
            continue
        added = after - clean
        np.testing.assert_allclose(added.std(0), scale * clean.std(0), rtol=0.05)
        np.testing.assert_allclose(added.mean(0), 0, atol=0.1)
        assert abs(np.corrcoef(added.ravel(), clean.ravel())[0, 1]) < 0.05


def test_permuted_features_are_the_same_ones_elsewhere():
    given = made()
    corrupted = applied("permuted", given=given)
    np.testing.assert_array_equal(presence(corrupted), presence(given))
    for stream, key in KEYS.items():
        before, after = (
            [tuple(getattr(one, key)) for one in flat(side) if getattr(one, key) is not None]
            for side in (given, corrupted)
        )
        moved = sum(one != other for one, other in zip(before, after, strict=True))
        assert sorted(before) == sorted(after)
        assert moved == 0 if stream == "text" else moved > 0.9 * len(before)
    # Sound and its quality go together, and picture and sound of an utterance that has both.
    quality = {
        tuple(one.audio_features): one.quality["audio"]
        for one in flat(given)
        if one.audio_features is not None
    }
    for one in flat(corrupted):
        if one.audio_features is not None:
            assert one.quality["audio"] == quality[tuple(one.audio_features)]


@pytest.mark.parametrize("make", [white_noise, pink_noise, babble_noise])
@pytest.mark.parametrize("level", [20, 0, -5])
def test_noise_in_the_sound_has_the_asked_ratio(make, level):
    generator = np.random.default_rng(0)
    sounds = [generator.normal(0, scale, size=size) for scale, size in ((1, 4000), (0.1, 900), (3, 5000))]
    noise = make(sounds, 0, length=4000, generator=generator)
    noisy = add_noise(sounds[0], noise, level=level)
    added = noisy - sounds[0]
    ratio = 10 * np.log10(np.square(sounds[0]).mean() / np.square(added).mean())
    assert noisy.dtype == np.float32
    assert ratio == pytest.approx(level, abs=0.01)


def test_pink_noise_has_as_much_power_in_every_octave():
    noise = pink_noise([], 0, length=1 << 16, generator=np.random.default_rng(0))
    power = np.square(np.abs(np.fft.rfft(noise)))
    octaves = [power[1 << place : 1 << place + 1].sum() for place in range(6, 15)]
    np.testing.assert_allclose(octaves, np.mean(octaves), rtol=0.3)


def test_babble_is_of_other_sounds():
    silence, voice = np.zeros(50), np.full(70, 2.0)
    noise = babble_noise([voice, voice, silence], 0, length=200, generator=np.random.default_rng(0))
    np.testing.assert_allclose(noise, 1)
    with pytest.raises(ValueError, match="another sound that is not silent"):
        babble_noise([voice, silence], 0, length=200, generator=np.random.default_rng(0))


@pytest.mark.parametrize("name", ["white_noise", "pink_noise", "babble_noise"])
def test_sounds_of_utterances_are_disturbed(name):
    generator = np.random.default_rng(0)
    utterances = [
        {
            "speaker": "Ana",
            "audio": {"array": generator.normal(size=100), "sampling_rate": 16000},
            "label": "joy",
        },
        {"speaker": "Ana", "text_features": np.ones(4)},
        {"speaker": "Ana", "audio": {"array": generator.normal(size=80), "sampling_rate": 16000}},
    ]
    given = [
        conversation_of({"id": name, "utterances": part})
        for name, part in (("a", utterances[:2]), ("b", utterances[2:]))
    ]
    first, second, third = flat(applied(name, "0", given=given))
    for one, before in ((first, utterances[0]), (third, utterances[2])):
        assert one.audio["array"].shape == before["audio"]["array"].shape
        assert np.abs(one.audio["array"] - before["audio"]["array"]).max() > 0.1
        assert np.abs(one.audio["array"]).max() == pytest.approx(0.99)
        assert one.audio["sampling_rate"] == 16000
    assert second is given[0].utterances[1]


def test_the_grid_of_the_examples_names_every_corruption():
    grid = read_grid(ROOT / "examples/robustness.yaml")
    assert set(grid.conditions) == {"subsets", *CORRUPTIONS}
    points = list(grid.points(STREAMS))
    assert (points[0].name, points[0].severity, points[0].draws) == ("clean", "0", 1)
    missing = [point for point in points if point.name == "missing"]
    assert [point.severity for point in missing] == ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"]
    assert {point.draws for point in missing} == {10}
    assert len({(point.name, point.severity) for point in points}) == len(points)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "invalid YAML"),
        ("seed: 1", "conditions: expected keys and values, got None"),
        ("conditions: {}", "conditions must name at least one condition, got none"),
        ("sead: 1\nconditions: {subsets: {}}", "the grid: unknown key 'sead'; known keys: seed, conditions"),
        ("seed: -1\nconditions: {subsets: {}}", "seed must be an integer of at least 0, got -1"),
        ("conditions: {mising: {}}", "conditions: unknown key 'mising'"),
        ("conditions: {missing: {rates: [0.1]}}", "conditions.missing: unknown key 'rates'"),
        (
            "conditions: {missing: {severities: [0.1, 1.5]}}",
            "conditions.missing.severities .* 0 to 1, got 1.5",
        ),
        ("conditions: {missing: {severities: [.nan]}}", "conditions.missing.severities .* got nan"),
        ("conditions: {missing: {severities: [true]}}", "conditions.missing.severities .* got True"),
        ("conditions: {missing: {}}", r"conditions.missing.severities must be a list of numbers, got \[\]"),
        ("conditions: {missing: {severities: [0.1], draws: 0}}", "conditions.missing.draws .* got 0"),
        ("conditions: {bursts: {severities: [1.5]}}", "conditions.bursts.severities must be integers"),
        ("conditions: {noise: {severities: [.inf]}}", "conditions.noise.severities .* got inf"),
        ("conditions: {subsets: {draws: 2}}", "conditions.subsets: unknown key 'draws'"),
        ("conditions: {permuted: {severities: [1]}}", "conditions.permuted: unknown key 'severities'"),
    ],
)
def test_a_grid_that_says_nothing_possible_is_refused(tmp_path, text, complaint):
    path = tmp_path / "grid.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"grid\.yaml: .*{complaint}"):
        read_grid(path)


def test_a_grid_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.yaml: no such file"):
        read_grid(tmp_path / "none.yaml")
