"""The log of a training run: JSON lines, and TensorBoard where it is installed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redifu.atomic_files import replace_text
from redifu.training.checkpoints import Progress

Report = Callable[[dict[str, Any]], None]


class RunLog:
    """Writes each record as a line of `log.jsonl` and its numbers to TensorBoard, and passes it on.

    A record has "event", "epoch" and "step". A resumed run drops the records after its checkpoint, so its
    log looks like that of an uninterrupted run.
    """

    def __init__(self, folder: Path, *, progress: Progress, report: Report):
        """Open the logs of a run.

        Args:
            folder: gets `log.jsonl` and, with the extra `train`, the folder `tensorboard`.
            progress: where the run goes on.
            report: called with each record.
        """
        path = folder / "log.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        # If the run was killed, the last line may be incomplete; its epoch will run again.
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["epoch"] <= progress.epoch]
        replace_text(path, "".join(kept))
        self._lines = path.open("a", encoding="utf-8")
        self._tensorboard = _summary_writer(folder / "tensorboard", purge_step=progress.step + 1)
        self._report = report

    def write(self, record: dict[str, Any]) -> None:
        """Write one record."""
        self._lines.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._lines.flush()
        for name, value in record.items():
            if self._tensorboard is not None and isinstance(value, float):
                self._tensorboard.add_scalar(f"{record['event']}/{name}", value, record["step"])
        self._report(record)

    def close(self) -> None:
        """Close the files."""
        self._lines.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


def _summary_writer(folder: Path, *, purge_step: int) -> Any:
    """Return TensorBoard's writer, or None without the extra `train`: log.jsonl holds the same numbers."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=purge_step)
