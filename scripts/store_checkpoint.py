"""Turns the folder of a finished training run into a Hub repository: half-precision weights, no logs.

    python scripts/store_checkpoint.py runs/meld-text-1 model_cards/redifu-meld-text

The weights are stored as float16 and load as float32. An existing card, README.md, is not changed.
"""

import argparse
import json
from pathlib import Path

import yaml

from redifu.inference.loading import load_pretrained
from redifu.model.configuration_redifu import BACKBONE_CONFIGS


def store(run: Path, target: Path) -> None:
    model, processor = load_pretrained(run)
    model.half().save_pretrained(target)
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    # from_pretrained would otherwise load float16, which does not match float32 features.
    for part in (config, *(config[name] or {} for name in BACKBONE_CONFIGS.values())):
        part["dtype"] = "float32"
    text = json.dumps(config, indent=2, sort_keys=True)
    (target / "config.json").write_text(text + "\n", encoding="utf-8")
    processor.save_pretrained(target)
    tokenizer = target / "tokenizer_config.json"
    if tokenizer.exists():
        kept = json.loads(tokenizer.read_text(encoding="utf-8"))
        for key in ("local_files_only", "is_local"):  # settings of this machine
            kept.pop(key, None)
        tokenizer.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    (target / "metrics.json").write_bytes((run / "metrics.json").read_bytes())
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    recipe["training"]["output"] = f"runs/{target.name}"  # the local path is of no use to others
    (target / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished run of `redifu train`")
    parser.add_argument("target", type=Path, help="folder to write; it may already hold a card")
    arguments = parser.parse_args()
    store(arguments.run, arguments.target)
