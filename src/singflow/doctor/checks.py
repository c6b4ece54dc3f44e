"""Checks what will work on this machine or its cluster, and says how to fix the rest."""

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.requirements import Requirement

from singflow.config.registry import ModelEntry, SpaceEntry, resolve_models, resolve_spaces
from singflow.config.sections import LOCAL
from singflow.data.archives import Damaged, find_archives, is_parquet, parquet_rows, tar_members
from singflow.data.imported import read_source, rows_path
from singflow.data.listing import list_folder
from singflow.data.manifest import data_root, read_classes
from singflow.data.parameters import Data
from singflow.data.reading import class_folders, iterate_rows
from singflow.doctor.dvc import check_dvc
from singflow.doctor.findings import Finding
from singflow.doctor.slurm import check_cluster, check_controller
from singflow.errors import InputError
from singflow.pictures.parameters import Pictures
from singflow.pictures.weights import generates, generator_files
from singflow.planning.sizes import disk_bytes, expected_images
from singflow.study import Params, check, read_layers
from singflow.system import existing, gpu_count, in_bytes, regular
from singflow.towers.weights import FETCH, WeightFile, missing, with_texts

NAMED = ("python", "snakemake", "dvc", "torch", "snakemake-executor-plugin-slurm")


def examine(params: Path, models: Path, spaces: Path, profile: Path) -> Iterator[Finding]:
    """Run all checks; yields a finding as soon as its check has ended."""
    controller = check_controller()
    yield check_versions(extras=("demo", "cluster") if controller.status == "ok" else ("demo",))
    device, decode_threads, threads, estimated = "auto", 1, 1, 0
    try:
        study = check(read_layers(params), str(params))
        entries = (
            resolve_models(models, study.models, study.weights),
            resolve_spaces(spaces, study.spaces, study.weights),
        )
    except InputError as error:
        fix = "correct it; weights, data, GPU and disk are checked once the study is valid"
        yield Finding("study", "fail", str(error), fix)
    else:
        device, threads = study.extraction.device, study.threads
        decode_threads = study.extraction.decode_threads
        counts = f"models: {len(study.models)}, spaces: {len(study.spaces)}"
        yield Finding("study", "ok", f"{study.study} in {params} is valid; {counts}")
        yield check_gpu(device, controller.status == "ok")
        yield check_weights(*entries, study)
        data = check_data(study.data)
        yield data
        if data.status == "ok":
            content, results = study.model_dump(), Path("results", study.study)
            estimated = disk_bytes(content, expected_images(content, results), *entries)
            yield check_disk(results, estimated)
    yield from check_dvc(Path(), estimated)
    yield controller
    if controller.status == "ok":
        yield from check_cluster(profile, device, decode_threads, threads)


def check_versions(distribution: str = "singflow", extras: Sequence[str] = ("demo",)) -> Finding:
    """Whether Python and the packages meet the requirements of a distribution with extras."""
    fix = "make the environment again: `rm -r .venv && make .venv/demo`"
    if "cluster" in extras:
        fix = f"`make workflow`; where that does not help, {fix}"
    try:
        described = importlib.metadata.metadata(distribution)
    except importlib.metadata.PackageNotFoundError:
        missing = f"{distribution} is not installed in this environment"
        return Finding("versions", "fail", missing, fix)
    needed = [Requirement(f"python{described['Requires-Python'] or ''}")]
    needed += map(Requirement, described.get_all("Requires-Dist") or [])
    found, wrong = {}, []
    for requirement in needed:
        name, marker, allowed = requirement.name, requirement.marker, requirement.specifier
        version = _version(name)
        if version:
            found[name] = version
            if not allowed.contains(version, prereleases=True):
                wrong.append(f"{name} is {version}, {allowed} is needed")
        elif not marker or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            wrong.append(f"{name} is not installed")
    if wrong:
        return Finding("versions", "fail", "; ".join(wrong), fix)
    named = ", ".join(f"{name} {found[name]}" for name in NAMED if name in found)
    return Finding("versions", "ok", f"{named}; all {len(found)} requirements are met")


def _version(name: str) -> str | None:
    if name == "python":
        return platform.python_version()
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_gpu(device: str, slurm: bool) -> Finding:
    """Whether the GPU that extraction.device asks for is here, or may be where Slurm runs jobs."""
    if device == "cpu":
        return Finding("GPU", "absent", "extraction.device is cpu: none is used")
    from torch import backends, cuda

    from singflow.towers.device import BUILD, misfit, unseen

    if device == "mps" and backends.mps.is_available():
        return Finding("GPU", "ok", "Apple GPU, on which this workflow is untested")
    nvidia = device != "mps"
    gpus = range(cuda.device_count()) if nvidia and cuda.is_available() else ()
    wrong = "; ".join(filter(None, map(misfit, gpus)))
    if nvidia and not gpus and gpu_count():
        wrong = unseen()
    if wrong:
        stops = (gpus or device == "cuda") and not slurm
        return Finding("GPU", "fail" if stops else "warn", wrong, BUILD)
    if gpus:
        return Finding("GPU", "ok", ", ".join(map(cuda.get_device_name, gpus)))
    if slurm:
        fix = "on a login node that is as it should be: see GPU jobs"
        return Finding("GPU", "warn", "PyTorch sees none on this machine", fix)
    if device in ("cuda", "mps"):
        missing = f"PyTorch sees none, but extraction.device is {device}"
        return Finding("GPU", "fail", missing, "write extraction.device: auto in params.yaml")
    found = "PyTorch sees none: towers run on the CPU"
    return Finding("GPU", "warn", found, "a small study first shows how long they take")


def check_weights(
    models: dict[str, ModelEntry], spaces: dict[str, SpaceEntry], study: Params
) -> Finding:
    """Whether all weight files are in their cache, package or folder; nothing is downloaded."""
    absent = [
        f"{name}: {file}"
        for name, entry in [*models.items(), *spaces.items()]
        for file in missing(with_texts, entry)
    ]
    pictures = study.pictures
    drawn = "pictures" in study.analyses and generates(pictures, spaces.values())
    undrawn = missing(_generator, pictures) if drawn else []
    if absent or (undrawn and pictures.renderer == "unclip"):
        absent += [f"{pictures.generator}: {file}" for file in undrawn]
        listed = "\n".join([f"{len(absent)} missing:", *absent])
        return Finding("weights", "fail", listed, FETCH)
    if undrawn:
        found = f"all but those of the generator {pictures.generator}: words are shown instead"
        return Finding("weights", "warn", found, f"to draw pictures, {FETCH}")
    return Finding("weights", "ok", "all are here; no hub was asked")


def _generator(pictures: Pictures) -> list[WeightFile]:
    own = pictures.generator.startswith(f"{LOCAL}/")
    if own and not Path(pictures.generator, "model_index.json").is_file():
        raise InputError("holds no model_index.json")
    return generator_files(pictures)


def check_data(data: Data) -> Finding:
    """Whether the data can be read: first class folder or archive, or table and first image."""
    try:
        return Finding("data root", "ok", _looked_into(data))
    except InputError as error:
        return Finding("data root", "fail", str(error))


def _looked_into(data: Data) -> str:
    try:
        root = data_root(data.source, data.root)
        if data.source == "features":
            return f"{root}: {rows_path(root)} has {len(read_source(root))} rows"
        if data.source == "folder":
            return f"{root}: {_class_folders(root, data)}"
        if data.source == "archive":
            return f"{root}: {_archives(root, data)}"
        path = root / _first_row(regular(Path(str(data.table))), data.label_column)
        with regular(path).open("rb") as file:
            file.read(1)
    except OSError as error:
        fix = "correct data.root, data.table or its paths, or the permissions of these files"
        raise InputError(f"{error.filename}: not readable: {error.strerror}: {fix}") from None
    return f"{root}: {path.name}, the first image of {data.table}, can be read"


def _class_folders(root: Path, data: Data) -> str:
    """The first class folder; without class folders, InputError if images have no labels."""
    folders = class_folders(root)
    if not folders:
        table = Path(data.table) if data.table else None
        classes = read_classes(Path(data.classes))
        found, _ = list_folder(root, classes, table, data.label_column)
        return f"all {len(found)} images in no class folder have labels"
    next(os.scandir(folders[0]), None)
    return f"{folders[0].relative_to(root)} is its first class"


def _archives(root: Path, data: Data) -> str:
    """Number and size of the archives; InputError if the first is damaged."""
    archives = find_archives(root, data.archives)
    size = in_bytes(sum((root / archive).stat().st_size for archive in archives))
    first = root / archives[0]
    try:
        if is_parquet(archives[0]):
            parquet_rows(first, data.label_column)
        else:
            next(tar_members(first), None)
    except Damaged as error:
        raise InputError(f"{first}: {error}") from None
    return f"{len(archives)} archives, {size}; {archives[0]}, the first of them, can be read"


def _first_row(table: Path, label_column: str) -> str:
    """The path in the first row of a table; InputError if there is no such column or no row."""
    columns = {"path": "the image's path relative to data.root", label_column: "data.label_column"}
    for _, row in iterate_rows(table, columns):
        return row["path"]
    raise InputError(f"{table}: holds no rows")


def check_disk(folder: Path, estimated: int) -> Finding:
    """Whether the disk has room for the expected results, and for a copy in DVC's cache."""
    free = shutil.disk_usage(existing(folder)).free
    writes = f"of which the study writes about {in_bytes(estimated)}"
    found = f"{in_bytes(free)} free for {folder}, {writes}"
    fix = f"free disk, or link {folder.parent} to a larger one"
    if free < estimated:
        return Finding("disk", "fail", found, fix)
    if free < 2 * estimated:
        return Finding("disk", "warn", f"{found}: little is left for copies", fix)
    return Finding("disk", "ok", found)
