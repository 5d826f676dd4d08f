"""Run in an environment without this package: run the code of cards, print what their models compute.

Arguments: a JSON file with a conversation, then files with the code of a card.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel


def computed(code: str, conversation: dict[str, Any]) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code, names)
    headed, processor = names["model"], names["processor"]
    base = AutoModel.from_pretrained(names["repo_id"], trust_remote_code=True)
    inputs = processor(conversation)
    with torch.no_grad():
        logits, states = headed(**inputs).logits, base(**inputs).last_hidden_state
    try:
        headed.redifu.relation_graph(conversation)
        complaint = None
    except ImportError as error:
        complaint = str(error)
    return {
        "modules": [type(part).__module__ for part in (headed, base, processor)],
        "logits": logits.tolist(),
        "last_hidden_state": states.tolist(),
        "complaint": complaint,
    }


if __name__ == "__main__":
    for name in ("redifu", "torch_geometric"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        sys.exit(f"{name} can be imported")
    given, *cards = (Path(argument).read_text(encoding="utf-8") for argument in sys.argv[1:])
    print(json.dumps([computed(code, json.loads(given)) for code in cards]))
