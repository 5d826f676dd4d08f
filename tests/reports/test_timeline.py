"""The strips that a timeline is cut into for paper."""

import pytest

from redifu.reports.timeline import lay_out


def talk(number, timed):
    times = [(4.0 * turn, 4.0 * turn + (30.0 if turn % 9 == 0 else 3.0)) for turn in range(number)]
    return [
        {"speaker": "AB"[turn % 2], "start": start if timed else None, "end": end if timed else None}
        for turn, (start, end) in enumerate(times)
    ]


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("number", [1, 2, 20, 21, 137])
def test_the_strips_hold_all_of_every_utterance(number, timed):
    rows = talk(number, timed)
    timeline = lay_out(rows)
    strips = list(timeline.strips())
    shown = [0.0] * number
    for strip in strips:
        for speaker, blocks in strip.lanes(rows).items():
            for block in blocks:
                assert block["speaker"] == speaker
                assert block["left"] >= 0 and block["left"] + block["width"] <= 100.001
                shown[block["turn"]] += block["width"] * strip.extent / 100
    assert shown == pytest.approx([end - start for start, end in timeline.spans], abs=1e-2)
    assert len(strips) <= number / 20 + 1
    assert len({strip.extent for strip in strips}) == 1


def test_an_utterance_without_length_is_in_one_strip():
    rows = talk(41, timed=True)
    rows[7]["end"] = rows[7]["start"]
    blocks = [block for strip in lay_out(rows).strips() for block in strip.lanes(rows)["B"]]
    assert sum(block["turn"] == 7 for block in blocks) == 1
