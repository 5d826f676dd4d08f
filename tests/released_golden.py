"""The recorded runs of the released model that REDIFU_TEST_DATA holds."""

from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

CONSTANTS = ("pos_emb.pe", "pos_emb.inv_freq", "pos_emb.modality_scales")
SIZES = (
    "hidden_size",
    "num_heads",
    "window",
    "text_size",
    "audio_size",
    "visual_size",
    "num_labels",
    "num_speakers",
)


@dataclass(frozen=True)
class ReleasedGolden:
    """One recorded run: a dialogue, the weights, and what the released model made of them."""

    recipe: str
    path: Path
    sizes: dict[str, int]
    tensors: dict[str, Tensor]

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under `prefix`, by the rest of their names."""
        start = f"{prefix}."
        return {name.removeprefix(start): x for name, x in self.tensors.items() if name.startswith(start)}

    def weights(self) -> dict[str, Tensor]:
        """The learned weights, without the constants stored beside them."""
        return {name: x for name, x in self.group("weight").items() if not name.endswith(CONSTANTS)}

    def inputs(self) -> dict[str, Tensor]:
        """text, audio, visual, speaker_ids and labels as a batch of one dialogue."""
        return {name: x[None] for name, x in self.group("input").items()}


def load_released_golden(folder: Path, recipe: str) -> ReleasedGolden:
    """Read the run of `recipe` ("iemocap" or "meld") from the folder that `test_data` gives."""
    path = folder / "golden" / f"{recipe}_recipe.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    return ReleasedGolden(recipe, path, {name: int(metadata[name]) for name in SIZES}, tensors)
