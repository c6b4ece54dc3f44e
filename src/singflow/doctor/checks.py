"""Checks what will work on this machine or its cluster, and says how to fix the rest."""

import importlib.metadata
import itertools
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from singflow.config.registry import (
    ConSEEntry,
    ModelEntry,
    SpaceEntry,
    resolve_models,
    resolve_spaces,
)
from singflow.config.sections import LOCAL
from singflow.data.archives import Damaged, find_archives, is_parquet, parquet_rows, tar_members
from singflow.data.manifest import data_root
from singflow.data.parameters import Data
from singflow.data.reading import class_folders, iterate_rows
from singflow.doctor.dvc import check_dvc
from singflow.doctor.findings import Finding
from singflow.doctor.slurm import check_cluster, check_controller
from singflow.errors import InputError
from singflow.pictures.parameters import Pictures
from singflow.pictures.weights import generates, generator_files
from singflow.planning import costs
from singflow.study import Params, check, read_layers
from singflow.system import existing, in_bytes, regular
from singflow.towers.weights import FETCH, PackageFile, WeightFile, required

NAMED = ("python", "snakemake", "dvc", "torch", "snakemake-executor-plugin-slurm")


def examine(params: Path, models: Path, spaces: Path, profile: Path) -> Iterator[Finding]:
    """Run all checks; yields a finding as soon as its check has ended."""
    controller = check_controller()
    yield check_versions(extras=("demo", "cluster") if controller.status == "ok" else ("demo",))
    device, estimated = "auto", 0
    try:
        study = check(read_layers(params), str(params))
        entries = (
            resolve_models(models, study.models, study.weights),
            resolve_spaces(spaces, study.spaces, study.weights),
        )
    except InputError as error:
        yield Finding(
            "study",
            "fail",
            str(error),
            "correct it; weights, data, GPU and disk are checked once the study is valid",
        )
    else:
        device = study.extraction.device
        yield Finding(
            "study",
            "ok",
            f"{study.study} in {params} is valid; models: {len(study.models)}, spaces: "
            f"{len(study.spaces)}",
        )
        yield check_gpu(
            device,
            study.threads,
            visible_gpus(device) if device != "cpu" else [],
            controller.status == "ok",
        )
        yield check_weights(*entries, study.pictures)
        data = check_data(study.data)
        yield data
        if data.status == "ok":
            estimated = expected_bytes(study, *entries)
            yield check_disk(Path("results", study.study), estimated)
    yield from check_dvc(Path(), estimated)
    yield controller
    if controller.status == "ok":
        yield from check_cluster(profile, device)


def check_versions(distribution: str = "singflow", extras: Sequence[str] = ("demo",)) -> Finding:
    """Whether Python and the packages meet the requirements of a distribution with these extras.

    Requirements of other extras count only for packages that are installed.
    """
    fix = "make the environment again: `rm -r .venv && make .venv/demo`"
    if "cluster" in extras:
        fix = f"`make workflow`; where that does not help, {fix}"
    try:
        described = importlib.metadata.metadata(distribution)
    except importlib.metadata.PackageNotFoundError:
        return Finding(
            "versions", "fail", f"{distribution} is not installed in this environment", fix
        )
    needed = [Requirement(f"python{described['Requires-Python'] or ''}")]
    needed += map(Requirement, described.get_all("Requires-Dist") or [])
    found, wrong = {}, []
    for requirement in needed:
        wanted = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)
        )
        version = _version(requirement.name)
        if wanted or version:
            found[requirement.name] = version
            wrong += _complaint(requirement.name, version, requirement.specifier)
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


def _complaint(name: str, version: str | None, allowed: SpecifierSet) -> list[str]:
    if version is None:
        return [f"{name} is not installed"]
    return (
        []
        if allowed.contains(version, prereleases=True)
        else [f"{name} is {version}, {allowed} is needed"]
    )


def visible_gpus(device: str) -> list[str]:
    """Names of the GPUs that PyTorch sees; with device `mps`, of Apple's."""
    if device == "mps":
        from torch.backends.mps import is_available as has_apple

        return ["Apple GPU, on which this workflow is untested"] if has_apple() else []
    from torch.cuda import device_count, get_device_name, is_available

    return [get_device_name(index) for index in range(device_count())] if is_available() else []


def check_gpu(device: str, threads: int, gpus: list[str], slurm: bool) -> Finding:
    """Whether the GPU that extraction.device asks for is here.

    slurm: whether jobs may run on other machines.
    """
    if device == "cpu":
        return Finding("GPU", "absent", "extraction.device is cpu: none is used")
    if gpus:
        return Finding("GPU", "ok", ", ".join(gpus))
    if slurm:
        return Finding(
            "GPU",
            "warn",
            "PyTorch sees none on this machine",
            "on a login node that is as it should be: see GPU request",
        )
    if device in ("cuda", "mps"):
        missing = f"PyTorch sees none, but extraction.device is {device}"
        return Finding("GPU", "fail", missing, "write extraction.device: auto in params.yaml")
    slower = f"about {costs.slowdown(threads):.0f} times as long as on a data centre's GPU"
    return Finding(
        "GPU",
        "warn",
        f"PyTorch sees none: classifiers and spaces run on the CPU, {slower}",
        "see `make plan` for the hours",
    )


def check_weights(
    models: dict[str, ModelEntry], spaces: dict[str, SpaceEntry], pictures: Pictures
) -> Finding:
    """Whether all weight files are in their cache, package or folder; nothing is downloaded."""
    entries = [*models.items(), *spaces.items()]
    missing = [
        f"{name}: {file}" for name, entry in entries for file in _missing(partial(_files, entry))
    ]
    undrawn = (
        _missing(partial(_generator, pictures)) if generates(pictures, spaces.values()) else []
    )
    if missing or (undrawn and pictures.renderer == "unclip"):
        listed = [*missing, *(f"{pictures.generator}: {file}" for file in undrawn)]
        return Finding("weights", "fail", f"{len(listed)} missing:\n" + "\n".join(listed), FETCH)
    if undrawn:
        found = (
            f"all but those of the generator {pictures.generator}: the nearest real images are "
            "shown instead"
        )
        return Finding("weights", "warn", found, f"to draw pictures, {FETCH}")
    return Finding("weights", "ok", "all are here; no hub was asked")


def _files(entry: ModelEntry | SpaceEntry) -> list[WeightFile]:
    sentences = (
        [PackageFile(entry.text.removeprefix("package:"))] if isinstance(entry, ConSEEntry) else []
    )
    return [*required(entry), *sentences]


def _generator(pictures: Pictures) -> list[WeightFile]:
    if (
        pictures.generator.startswith(f"{LOCAL}/")
        and not Path(pictures.generator, "model_index.json").is_file()
    ):
        raise InputError("holds no model_index.json")
    return generator_files(pictures)


def _missing(listed: Callable[[], list[WeightFile]]) -> list[str]:
    """The files that are missing, or the reason why the files cannot be listed."""
    try:
        return [str(file) for file in listed() if file.find() is None and not file.optional]
    except InputError as error:
        return [str(error)]


def check_data(data: Data) -> Finding:
    """Whether the data can be read: first class folder or archive, or table and first image."""
    try:
        return Finding("data root", "ok", _looked_into(data))
    except InputError as error:
        return Finding("data root", "fail", str(error))


def _looked_into(data: Data) -> str:
    try:
        root = data_root(data.source, data.root)
        if data.source == "folder":
            return f"{root}: {_first_class(root)} is its first class"
        if data.source == "archive":
            return f"{root}: {_archives(root, data)}"
        path = root / _first_row(regular(Path(str(data.table))), data.label_column)
        with regular(path).open("rb") as file:
            file.read(1)
    except OSError as error:
        fix = "correct data.root, data.table or its paths, or the permissions of these files"
        raise InputError(f"{error.filename}: not readable: {error.strerror}: {fix}") from None
    return f"{root}: {path.name}, the first image of {data.table}, can be read"


def _first_class(root: Path) -> str:
    folders = class_folders(root)
    if not folders:
        raise InputError(
            f"data.root {root}: holds no class folders: images are expected at "
            "<root>/<class>/<image>"
        )
    next(os.scandir(folders[0]), None)
    return str(folders[0].relative_to(root))


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
    first = next(
        iterate_rows(
            table,
            {"path": "the image's path relative to data.root", label_column: "data.label_column"},
        ),
        None,
    )
    if first is None:
        raise InputError(f"{table}: holds no rows")
    return first[1]["path"]


def expected_bytes(
    study: Params, models: dict[str, ModelEntry], spaces: dict[str, SpaceEntry]
) -> int:
    """Expected bytes that the study, whose data can be read, writes under results/."""
    content = study.model_dump()
    results = Path("results", study.study)
    try:
        images = costs.expected_images(content, results)
    except (OSError, ValueError):  # a damaged manifest: the step that reads it reports it
        images = costs.expected_images(content, Path())
    return costs.study_bytes(content, images, models, spaces)


def check_disk(folder: Path, estimated: int) -> Finding:
    """Whether the disk has room for the expected results, and for a copy in DVC's cache."""
    free = shutil.disk_usage(existing(folder)).free
    found = (
        f"{in_bytes(free)} free for {folder}, of which the study writes about {in_bytes(estimated)}"
    )
    fix = f"free disk, or link {folder.parent} to a larger one"
    if free < estimated:
        return Finding("disk", "fail", found, fix)
    return (
        Finding("disk", "warn", f"{found}: little is left for copies", fix)
        if free < 2 * estimated
        else Finding("disk", "ok", found)
    )


def count_findings(findings: Iterable[Finding]) -> tuple[bool, str]:
    """Whether no check failed, and a line with the numbers of findings."""
    counts = {
        status: len(list(group))
        for status, group in itertools.groupby(sorted(finding.status for finding in findings))
    }
    failed, warned = counts.get("fail", 0), counts.get("warn", 0)
    return (
        not failed,
        f"{counts.get('ok', 0)} checks passed, {warned} with a warning, {failed} failed",
    )
