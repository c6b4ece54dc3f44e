from pathlib import Path
from typing import Annotated, Any

import typer

from singflow.cli import limit_threads, log
from singflow.commands.options import Device, MaxPixels, Models, Reference, Spaces, TowerThreads
from singflow.extras import check_installed


def app(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model that is offered; may be repeated. By default all of the reference or the "
            "study."
        ),
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(help="Space that is offered; may be repeated. By default all of them."),
    ] = None,
    reference: Reference = "packaged",
    results: Annotated[
        Path | None,
        typer.Option(help="Results folder of a finished study, whose translators are taken."),
    ] = None,
    models: Models = Path("config/models.yaml"),
    spaces: Spaces = Path("config/spaces.yaml"),
    host: Annotated[
        str,
        typer.Option(help="Address to listen on. Other machines can reach others than 127.0.0.1."),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port to listen on; by default the first free one from 7860 on."
        ),
    ] = None,
    max_mb: Annotated[
        int, typer.Option(min=1, max=1000, help="Megabytes of a photo; larger files are refused.")
    ] = 50,
    max_pixels: MaxPixels = 10**8,
    threads: TowerThreads = 2,
    device: Device = "auto",
) -> None:
    """Open a local page: drop a photo, and see what a model's head ignores in it.

    Ctrl-C ends it. The photos stay on this machine, and are removed at the end.
    """
    check_installed("gradio")
    import torch

    from singflow.photo.app import blocks, loader, offered, serve

    limit_threads(1)  # as in analyze
    torch.set_num_threads(threads)
    offer = offered(reference, results, model or [], space or [], models)
    options: dict[str, Any] = {"models": models, "spaces": spaces, "device": device}
    load = loader(reference=reference, results=results, threads=threads, **options)
    log.info("loading %s and its space %s", offer[0][0], offer[1][0])
    load(offer[0][0], offer[1][0])
    serve(lambda uploads: blocks(*offer, load, max_pixels, max_mb, uploads), host, port, max_mb)
