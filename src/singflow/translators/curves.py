"""The history of a training for TensorBoard."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any


class Curves(ExitStack):
    """Losses by epoch for TensorBoard, in a folder that is emptied first, if one is given."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__()
        self._folder = folder
        self._writers: dict[str, Any] = {}
        if folder:
            shutil.rmtree(folder, ignore_errors=True)

    def extend(self, loss: str, history: list[dict[str, float]]) -> None:
        """Write the history of a loss: at the first call all records, later the last one."""
        if not self._folder:
            return
        if loss in self._writers:
            history = history[-1:]
        else:
            from torch.utils.tensorboard import SummaryWriter

            self._writers[loss] = SummaryWriter(str(self._folder / loss))
            self.callback(self._writers[loss].close)
        for record in history:
            for name, value in record.items():
                if name != "epoch":
                    self._writers[loss].add_scalar(name, value, int(record["epoch"]))
        self._writers[loss].flush()
