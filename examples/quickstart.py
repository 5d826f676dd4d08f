"""The quick start in Python: an emotion label for every utterance of the recorded example.

python examples/quickstart.py      # requires the extra media
"""

from pathlib import Path

import redifu

examples = Path(__file__).resolve().parent
recogniser = redifu.load(examples.parent / "model_cards" / "redifu-meld-ravdess")
for said in recogniser(examples / "moving-day" / "conversation.json"):
    print(f"{said.start:4.1f} s  {said.speaker:5}  {said.emotion:8}  {said.probability:.2f}  {said.text}")
