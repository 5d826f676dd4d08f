"""The log of a run, as JSON lines and for tensorboard."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from redifu.atomic_files import replace_text
from redifu.training.checkpoints import Progress

Report = Callable[[dict[str, Any]], None]


class RunLog:
    """Writes each record to `log.jsonl` and its numbers to tensorboard, and passes it on.

    A record has "event", "epoch" and "step". A resumed run drops the records after its checkpoint, so its log
    is the same as that of an uninterrupted run.
    """

    def __init__(self, folder: Path, *, progress: Progress, report: Report):
        """Open the logs of a run.

        Args:
            folder: receives `log.jsonl` and the folder `tensorboard`.
            progress: the point from which the run continues.
            report: called with each record.
        """
        path = folder / "log.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        # A kill can truncate the last line, which then belongs to an epoch that is repeated.
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["epoch"] <= progress.epoch]
        replace_text(path, "".join(kept))
        self._lines = path.open("a", encoding="utf-8")
        self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=progress.step + 1)
        self._report = report

    def write(self, record: dict[str, Any]) -> None:
        """Write one record."""
        self._lines.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._lines.flush()
        for name, value in record.items():
            if isinstance(value, float):
                self._tensorboard.add_scalar(f"{record['event']}/{name}", value, record["step"])
        self._report(record)

    def close(self) -> None:
        """Close the files."""
        self._lines.close()
        self._tensorboard.close()
