"""Where the weights of a checkpoint may lie: in safetensors files of its own folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, cached_file

# What from_pretrained passes on to the Hub.
_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")


def check_weight_files(place: Any, options: Mapping[str, Any]) -> None:
    """Reject an index of weights that names anything but safetensors files of the same folder.

    transformers opens whatever the index names: a pickle, or a file of another folder.

    Args:
        place: a folder or Hub id, as for from_pretrained; None if no files are loaded.
        options: the other arguments of from_pretrained.

    Raises:
        ValueError: the index is damaged, or names another file.
    """
    if place is None:
        return
    name = SAFE_WEIGHTS_INDEX_NAME
    if variant := options.get("variant"):
        name = name.replace(".json", f".{variant}.json")
    quietly = dict.fromkeys(
        (f"_raise_exceptions_for_{what}" for what in ("gated_repo", "missing_entries", "connection_errors")),
        False,
    )
    given = {option: options[option] for option in _HUB_OPTIONS if option in options}
    index = cached_file(place, name, **given, **quietly)
    if index is None:
        return
    try:
        shards = set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{name} is damaged: {type(error).__name__}: {error}") from None
    for shard in shards:
        if not _is_own_safetensors(shard):
            raise ValueError(f"{name} may name only safetensors files of its folder, got {shard!r:.80}")


def _is_own_safetensors(name: Any) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and not set(name) & {"/", "\\", "\0"}
