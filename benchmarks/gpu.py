"""Images a second of towers on a GPU: this workflow, a plain DataLoader, and timm's own benchmark.

`product` is this workflow, from files to features. `dataloader` is PyTorch's DataLoader over the
same files, with the transform and the model as their library builds them, and as many workers as
this workflow has threads that decode. `timm` is the recipe of inference in timm's benchmark.py: a
random batch that is on the device already, passes to warm up, then timed ones, each waited for.
Weights are random. Where a rate is missing, the table says why. The same runs on a CPU.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import common
import pandas as pd
from common import size
from pydantic import Field

from singflow import cli
from singflow.config.registry import MODELS, SPACES, resolve_models, resolve_spaces
from singflow.errors import InputError, brief
from singflow.system import processor, usable_cores
from singflow.towers.parameters import CPU_BATCH, GPU_BATCH, Precision

WARM_UP, TIMED = 10, 40  # passes, as in timm's benchmark.py
VIT = "timm/vit_large_patch14_clip_224.openai_ft_in12k_in1k"


class Flags(cli.Command):
    models: list[str] = Field(["timm/resnet50.a1_in1k", "convnext_base", VIT])
    spaces: list[str] = Field(["clip_vit_l14"], description="spaces, for their image towers")
    precisions: list[Precision] = Field(list(get_args(Precision)), min_length=1)
    images: Path | None = Field(None, description="folder of images (default: the packaged ones)")
    count: int = size(10_000, 1, "images of a pass over files")
    batch_size: int | None = size(None, 1, "images per forward pass (256 on a GPU, 8 on a CPU)")
    threads: int = size(os.cpu_count() or 1, 1, "threads of a CPU")
    decode_threads: int = size(8, 1, "threads, or workers, that decode for a GPU")
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True)
class Bench:
    """A tower and how it runs; every path gives images a second."""

    tower: Any
    precision: Precision
    device: Any  # of PyTorch
    batch: int
    threads: int
    decoders: int
    root: Path
    rows: pd.DataFrame

    def timm(self) -> float:
        import torch

        width, height = self.tower.preprocess.size
        batch = torch.randn(self.batch, 3, height, width, device=self.device)
        batch = batch.contiguous(memory_format=torch.channels_last)
        for number in range(WARM_UP + TIMED):
            if number == WARM_UP:
                start = time.perf_counter()
            self._forward(batch)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        return TIMED * self.batch / (time.perf_counter() - start)

    def dataloader(self) -> float:
        import torch

        def load(rows: pd.DataFrame) -> None:
            options = {"num_workers": self.decoders, "pin_memory": self.device.type == "cuda"}
            transform = self.tower.preprocess.whole
            form = {"non_blocking": True, "memory_format": torch.channels_last}
            for batch in common.loader(self.root, rows, transform, self.batch, **options):
                output = self._forward(batch.to(self.device, **form))
                getattr(output, "logits", output).cpu()

        return self._timed(load)

    def product(self) -> float:
        how = {"device": self.device, "batch_size": self.batch, "threads": self.threads}
        how |= {"decode_threads": self.decoders, "precision": self.precision}
        tower, transform = self.tower, self.tower.preprocess
        return self._timed(lambda rows: common.product(self.root, rows, tower, transform, **how))

    def _timed(self, work: Callable[[pd.DataFrame], object]) -> float:
        """A pass over the files, after a batch to warm up."""
        work(self.rows.head(self.batch))
        return len(self.rows) / common.seconds(lambda: work(self.rows))

    def _forward(self, batch: Any) -> Any:
        """A pass of the tower as its library builds it."""
        import torch

        from singflow.towers.device import autocast

        built = getattr(self.tower, "model", getattr(self.tower, "visual", self.tower))
        with torch.inference_mode(), autocast(self.device, self.precision):
            return built(batch)

    def measured(self, path: Literal["timm", "dataloader", "product"]) -> str:
        """Images a second, or why they cannot be measured."""
        import torch

        from singflow.towers.device import use_tf32

        cuda = self.device.type == "cuda"
        try:
            # GPUs of NVIDIA that have bfloat16 have TF32, too.
            if self.precision == "tf32" and not (cuda and torch.cuda.is_bf16_supported(False)):
                raise InputError("this device has no TF32")
            torch.cuda.empty_cache()
            torch.set_num_threads(self.threads)
            torch.backends.cudnn.benchmark = path == "timm"  # as its benchmark.py has it
            use_tf32(self.precision == "tf32")
            self.tower.to(self.device).to(memory_format=torch.channels_last)
            return f"{getattr(self, path)():.4g}"
        except Exception as error:  # noqa: BLE001 (libraries raise their own exceptions)
            return str(error) if isinstance(error, InputError) else brief(error)


def measured(flags: Flags, *how: Any) -> Iterator[dict[str, str]]:
    """A row for each tower and precision. how: the fields of Bench after the precision."""
    from singflow.towers.classifiers import load_classifier
    from singflow.towers.extraction import fold_batch_norms
    from singflow.towers.spaces import load_image_tower

    models = resolve_models(MODELS, flags.models, "random")
    spaces = resolve_spaces(SPACES, flags.spaces, "random")
    for name, entry in {**models, **spaces}.items():
        load: Any = load_classifier if name in models else load_image_tower
        tower = load(entry)
        rows = {which: {"tower": name, "precision": which} for which in flags.precisions}
        for path in ("timm", "dataloader", "product"):
            if path == "product":  # last: from here on, the tower is not as its library builds it
                fold_batch_norms(tower.cpu(), tower.preprocess.size)
            for precision, row in rows.items():
                row[f"{path}, images/s"] = Bench(tower, precision, *how).measured(path)
                cli.log.info("-- %s", row)
        yield from rows.values()


def main(flags: Flags) -> None:
    import torch

    from singflow.towers.device import pick_device

    device = pick_device(flags.device)
    cuda = device.type == "cuda"
    batch = flags.batch_size or (GPU_BATCH if cuda else CPU_BATCH)
    decoders = min(flags.decode_threads, usable_cores()) if cuda else flags.threads
    photos = common.photos(flags.images, flags.count)
    table = pd.DataFrame(measured(flags, device, batch, flags.threads, decoders, *photos))
    named = torch.cuda.get_device_name(device) if cuda else processor()
    print(
        f"{named}, PyTorch {torch.__version__}, batches of {batch}, {decoders} threads or workers "
        f"that decode, {flags.count} images a pass\n\n{table.to_markdown(index=False)}"
    )


if __name__ == "__main__":
    cli.run_step(main, Flags)
