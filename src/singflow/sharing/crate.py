"""Pack a finished study into one archive for a repository: a Workflow Run RO-Crate.

See https://w3id.org/ro/wfrun/workflow/0.5.
"""

import importlib.metadata
import io
import json
import re
import shutil
import stat
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from singflow.artifacts.catalog import CATALOG, asked
from singflow.artifacts.files import atomic, sha256_of
from singflow.artifacts.tensors import read_tensors
from singflow.config.public import archived, public_params
from singflow.config.reading import read_yaml
from singflow.config.registry import MODELS, SPACES
from singflow.errors import InputError
from singflow.sharing.remotes import listed, result_files
from singflow.study import Params

if TYPE_CHECKING:
    from rocrate.model import DataEntity
    from rocrate.rocrate import ROCrate

WORKFLOW = (
    *("CITATION.cff", "LICENSE", "README.md", "Makefile", "Snakefile", "dvc.yaml"),
    *("constraints.txt", "environment.yml", "pyproject.toml", "checkpoints/README.md"),
    *("config/**/*", "docs/**/*", "profiles/**/*"),
    *("report/**/*", "rules/**/*", "scripts/**/*", "src/**/*"),
)
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
FORMATS = {  # all others: text/plain
    ".cff": "application/yaml",
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".py": "text/x-python",
    ".rst": "text/x-rst",
    ".safetensors": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".toml": "application/toml",
    ".tsv": "text/tab-separated-values",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
PICTURES = (".png", ".jpg", ".jpeg", ".webp")

Content = Path | bytes


def check_license(name: str | None) -> None:
    """Check that a text can be the SPDX name of a licence; None passes."""
    if name is not None and not re.fullmatch(r"[\w.+-]+", name):
        raise InputError(f"--license {name!r}: an SPDX name is wanted, as CC-BY-4.0")


def final(analyses: Collection[str]) -> list[str]:
    """The final files of a study that asks for these analyses."""
    return [artifact.path for artifact in asked(analyses).values() if not artifact.wildcards]


def check_whole(results: Path, analyses: Collection[str]) -> None:
    """Check that a study has every final file."""
    if missing := [name for name in final(analyses) if not (results / name).is_file()]:
        raise InputError(
            f"{results}: the study is not finished, there is no {listed(missing)}: "
            "run `singflow run`"
        )


def software(files: Iterable[Path]) -> list[tuple[str, str]]:
    """Names and versions of the packages that the metadata of the tensor files record, sorted."""
    recorded = [read_tensors(path, [])[1] for path in files if path.suffix == ".safetensors"]
    return sorted({item for made in recorded for item in json.loads(made["software"]).items()})


def collect(
    study: Params, params: Path, *, with_tensors: bool = False
) -> tuple[dict[str, Content], list[str], list[Path]]:
    """Collect the archive's content: no pictures outside figures/, and tensors only on request.

    Returns the content by path in the archive, the keys of params.yaml that public_params()
    shortened, and all artifacts, whether they are in the archive or not.
    """
    import pandas as pd

    results = Path("results", study.study)
    check_whole(results, study.analyses)
    made = result_files(results, "logs")
    own_params = CATALOG["params"].at(results)
    text, cut = public_params(own_params)
    files: dict[str, Content] = {"params.yaml": text}
    for pattern in WORKFLOW:
        found = [path for path in sorted(Path().glob(pattern)) if path.is_file()]
        paths = [path for path in found if not any(map(_hidden, path.parts))]
        if not paths:
            raise InputError(f"{pattern}: no such file: run this in a checkout of the workflow")
        files |= {path.as_posix(): path for path in paths}
    for named in filter(None, (study.data.classes, study.data.table, study.concepts.vocabulary)):
        if not Path(named).is_file():
            raise InputError(
                f"{params}: {named}: no such file: restore it, the study was made with it"
            )
        files[archived(named)] = Path(named)
    rows = []
    for path in made:
        kind, suffix = path.relative_to(results).parts[0], path.suffix
        picture = suffix.lower() in PICTURES and kind != "figures"
        included = not picture and (with_tensors or suffix != ".safetensors")
        if included:
            files[path.as_posix()] = text if path == own_params else path
        try:
            rows.append((path.as_posix(), path.stat().st_size, sha256_of(path), included))
        except OSError as error:
            raise InputError(
                f"{path}: not readable ({error.strerror}): fix the file, "
                "or remove it and run the workflow again"
            ) from None
    listing = pd.DataFrame(rows, columns=["path", "bytes", "sha256", "included"])
    files["files.csv"] = listing.to_csv(index=False, lineterminator="\n").encode()
    return files, cut, made


def _hidden(name: str) -> bool:
    return name.startswith((".", "__pycache__")) or name.endswith(".egg-info")


def crate_metadata(
    study: Params,
    files: Mapping[str, Content],
    made: Iterable[Path],
    license: str | None,
    published: str,
    left_out: str,
) -> "ROCrate":
    """The metadata of the crate: the workflow, its files and parameters, the software and the run.

    `files` and `made` are what collect() returns; without `license` the results have the
    workflow's. No artifact records when and by whom the study was run, so the metadata do not say
    it.
    """
    from rocrate.model import ContextEntity
    from rocrate.rocrate import ROCrate

    def add(identifier: str, kind: str, **properties: Any) -> ContextEntity:
        return crate.add(ContextEntity(crate, identifier, {"@type": kind, **properties}))

    def spdx(name: str) -> ContextEntity:
        address = f"https://spdx.org/licenses/{name}"
        return add(address, "CreativeWork", name=name, url=address)

    def authors(of: dict[str, Any]) -> ContextEntity | list[ContextEntity]:
        found = []
        for author in of["authors"]:
            name = author.get("name") or f"{author['given-names']} {author['family-names']}"
            kind = "Organization" if "name" in author else "Person"
            found.append(add("#" + re.sub(r"\W+", "-", name), kind, name=name))
        return found if len(found) > 1 else found[0]

    def parameter(slot: str, name: str, path: str) -> "DataEntity":
        """Add an input or output of the workflow, whose value is a file or folder."""
        kind, value = f"#{slot}-{name}", entities[path]
        added = crate.add_formal_parameter(name, value.type, identifier=kind, valueRequired=True)
        added["workExample"] = value
        value.append_to("exampleOfWork", added, compact=True)
        workflow.append_to(slot, added)
        return value

    citation = read_yaml("CITATION.cff")
    paper = citation["preferred-citation"]
    results = f"results/{study.study}"
    crate = ROCrate(version="1.1")
    bioschemas = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
    workflow = crate.add_workflow(
        dest_path="Snakefile",
        main=True,
        lang="snakemake",
        lang_version=importlib.metadata.version("snakemake"),
        properties={
            "name": citation["title"],
            "version": str(citation["version"]),
            "encodingFormat": "text/plain",
            "conformsTo": {"@id": bioschemas},
        },
    )
    entities = _add_files(crate, files, results)
    entities["README.md"]["about"] = {"@id": "./"}
    workflow["license"] = spdx(citation["license"])
    workflow["author"] = authors(citation)
    packages = [
        add(f"pkg:pypi/{name}@{version}", "SoftwareApplication", name=name, softwareVersion=version)
        for name, version in software(made)
    ]
    workflow["softwareRequirements"] = [entities["constraints.txt"], *packages]
    inputs = {
        "params": "params.yaml",
        "models": "src/singflow/packaged/models.yaml",
        "spaces": "src/singflow/packaged/spaces.yaml",
        "classes": archived(study.data.classes),
        "table": archived(study.data.table) if study.data.table else None,
        "vocabulary": archived(study.concepts.vocabulary),
    }
    inputs |= {f"own_{path.stem}": str(path) for path in (MODELS, SPACES) if str(path) in files}
    used = [parameter("input", name, path) for name, path in inputs.items() if path]
    for path in ("metrics.json", "tables/", "figures/"):
        parameter("output", re.split("[./]", path)[0], f"{results}/{path}")
    products = [
        entity
        for path, entity in entities.items()
        if path.startswith(f"{results}/") and path.count("/") == 2 + path.endswith("/")
    ]
    run = {
        "name": f"Run of study {study.study}",
        "actionStatus": "http://schema.org/CompletedActionStatus",
        "description": "The workflow on the parameters in params.yaml, from images to tables and "
        f"figures. Precision of the towers: {study.extraction.precision}.",
    }
    action = crate.add_action(workflow, "#run", list(dict.fromkeys(used)), products, properties=run)
    root = crate.root_dataset
    root["name"] = f"{citation['title']}: study {study.study}"
    root["description"] = (
        f"What the null space of {len(study.models)} classifiers holds, translated into "
        f"{', '.join(study.spaces)}: study {study.study} of {citation['title']}, version "
        f"{citation['version']}. docs/artifacts.md describes every result. The images that were "
        "studied are not in this archive, because their licence is not the study's to give: "
        f"{results}/data/manifest.parquet lists each with its SHA-256; figures and report may show "
        f"some, reduced. {left_out}files.csv lists every result of the study, in this archive or "
        "not, with its SHA-256."
    )
    root["datePublished"] = published
    root["license"] = spdx(license or citation["license"])
    named = {"name": paper["title"], "url": paper["url"], "author": authors(paper)}
    root["citation"] = add(paper["url"], "ScholarlyArticle", **named)
    root["mentions"] = action
    root["conformsTo"] = [
        add(address, "CreativeWork", name=name, version=address.rsplit("/", 1)[1])
        for address, name in PROFILES.items()
    ]
    return crate


def write_crate(crate: "ROCrate", files: Mapping[str, Content], output: Path) -> None:
    """Write the archive atomically, metadata first; the same content and zlib give the same bytes.

    The rocrate library's own writer stamps every file with the present time.
    """
    ((name, metadata),) = crate.metadata.stream()
    datasets = [unquote(dataset.id) for dataset in crate.get_by_type("Dataset")]
    folders = dict.fromkeys((folder for folder in datasets if folder != "./"), b"")
    with atomic(output) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for path, content in {name: metadata, **folders, **files}.items():
            entry = zipfile.ZipInfo(path)
            folder = entry.is_dir()
            entry.compress_type = zipfile.ZIP_STORED if folder else zipfile.ZIP_DEFLATED
            entry.external_attr = (stat.S_IFDIR | 0o755) << 16 | 0x10 if folder else 0o644 << 16
            source = content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
            with source, archive.open(entry, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 2**20)


def _add_files(
    crate: "ROCrate", files: Mapping[str, Content], results: str
) -> dict[str, "DataEntity"]:
    """Add files (but the Snakefile) and folders; returns them by path, a folder's with a slash."""
    entities: dict[str, DataEntity] = {}
    for path, content in files.items():
        if path == "Snakefile":
            continue
        place, result = PurePosixPath(path), path.startswith(f"{results}/")
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        properties = {
            "name": place.name,
            "contentSize": str(size),
            "encodingFormat": FORMATS.get(place.suffix, "text/plain"),
        }
        caption = Path("report/captions", f"{place.stem}.rst")
        if result and place.parts[2] in ("tables", "figures") and caption.is_file():
            text = caption.read_text(encoding="utf-8")
            properties["description"] = re.sub(r"^\.\. .*\n", "", text, flags=re.MULTILINE).strip()
        entities[path] = crate.add_file(dest_path=path, properties=properties)
        depth = 3 if result else 1
        if len(place.parts) > depth:
            folder = "/".join([*place.parts[:depth], ""])
            if folder not in entities:
                name = {"name": place.parts[depth - 1]}
                entities[folder] = crate.add_dataset(dest_path=folder, properties=name)
            entities[folder].append_to("hasPart", entities[path], compact=True)
    return entities
