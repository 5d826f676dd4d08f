"""Builds this example: writes clips.csv and clips/*.ogg, speech from espeak-ng (a Debian package).

    python examples/fine-tuning/make_clips.py

The sentences were written for this example. Each mood has its own pitch, speed and loudness. Half of the
sentences do not depend on the mood, so text alone cannot identify it.
"""

import csv
import io
import random
import subprocess
from pathlib import Path

import av

FOLDER = Path(__file__).resolve().parent
# Words per minute, pitch 0 to 99 and loudness 0 to 200, in espeak-ng's units.
MOODS = {"calm": (150, 40, 80), "excited": (215, 80, 160), "sad": (110, 20, 50)}
SAID = {
    "calm": ["That is fine with me.", "Let us begin with the first page.", "I will put the kettle on."],
    "excited": ["We won the whole thing!", "This is the best day ever!", "Quick, come and look at this!"],
    "sad": ["I miss the old house.", "She is not coming back.", "Nothing went right today."],
}
ANYBODY = [
    "It is in the kitchen.",
    "They called this morning.",
    "The train leaves at nine.",
    "You have seen it too.",
]
VOICES = {"Ana": "en-us+f3", "Ben": "en-us+m3", "Mira": "en-gb+f2", "Jonas": "en-gb+m1"}
SPLITS = {"train": 10, "dev": 4, "test": 4}
TURNS = 5


def main() -> None:
    random.seed(0)
    (FOLDER / "clips").mkdir(exist_ok=True)
    rows = []
    for split, dialogues in SPLITS.items():
        for number in range(dialogues):
            rows += dialogue(f"{split}-{number}", split)
    with (FOLDER / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


def dialogue(name: str, split: str) -> list[dict[str, object]]:
    """Let two people talk in turn; each usually stays in the same mood."""
    speakers = random.sample(list(VOICES), 2)
    moods = {speaker: random.choice(list(MOODS)) for speaker in speakers}
    rows = []
    for turn in range(TURNS):
        speaker = speakers[turn % 2]
        if random.random() < 0.3:
            moods[speaker] = random.choice(list(MOODS))
        mood = moods[speaker]
        text = random.choice(SAID[mood] if random.random() < 0.5 else ANYBODY)
        clip = f"clips/{name}-{turn}.ogg"
        speak(text, mood, VOICES[speaker], FOLDER / clip)
        said = {"speaker": speaker, "text": text, "label": mood, "audio": clip}
        rows.append({"split": split, "dialogue_id": name, "turn": turn, **said})
    return rows


def speak(text: str, mood: str, voice: str, path: Path) -> None:
    speed, pitch, loudness = (round(value * random.uniform(0.9, 1.1)) for value in MOODS[mood])
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(min(pitch, 99)), "-a", str(loudness)]
    wave = subprocess.run([*command, "--stdout", text], check=True, capture_output=True).stdout
    with av.open(io.BytesIO(wave)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("libopus", rate=16000, layout="mono", bit_rate=16000)
        for frame in source.decode(audio=0):
            frame.pts = None
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))


if __name__ == "__main__":
    main()
