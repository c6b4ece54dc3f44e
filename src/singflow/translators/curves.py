"""The history of a training for TensorBoard."""

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any


class Curves(ExitStack):
    """Losses by epoch in a folder, a run of TensorBoard for each loss; they replace what is there. None: nowhere."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__()
        self._folder = folder
        self._writers: dict[str, Any] = {}
        if folder:
            shutil.rmtree(folder, ignore_errors=True)

    def extend(self, loss: str, history: list[dict[str, float]]) -> None:
        """Write what has not been written.

        Parameters
        ----------
        loss : str
            The loss that is trained by.
        history : list of dict
            Records of its epochs so far, as singflow.translators.networks.train gives them.
        """
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
