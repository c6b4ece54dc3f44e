"""Weight files: which files an entry needs, where they are, and how they are fetched."""

import difflib
import importlib.metadata
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from singflow.artifacts.files import sha256_of
from singflow.config.names import IDS
from singflow.config.registry import (
    MODELS,
    ConSEEntry,
    FeaturesEntry,
    ModelEntry,
    OpenCLIPEntry,
    SpaceEntry,
    TransformersEntry,
    own_weights,
    read_registry,
    saved_folder,
)
from singflow.errors import InputError
from singflow.towers.downloads import Download, look_up

FETCH = "run `make prefetch` on a machine with a network, with this study in params.yaml"
TIMM_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
DIFFUSERS_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
PROCESSOR = ("preprocessor_config.json", "processor_config.json")
WORDS = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "spiece.model", "vocab.json")


class WeightFile:
    """A file with weights, or a file that belongs to weights, such as a tokenizer's."""

    optional = False
    place = "this environment"

    def find(self) -> Path | None:
        raise NotImplementedError

    def fetch(self) -> Path | None:
        return self.find()

    def remaining(self) -> int | None:
        """Bytes that fetch() would download; None: the server does not say."""
        return 0

    def label(self, path: Path) -> str:
        """Name of the found file in lists."""
        return str(self)

    def version(self, path: Path) -> str:
        """Version or commit of the found file, or a dash."""
        return "-"

    def expected(self, path: Path) -> str | None:
        """SHA-256 that the found file should have, or the beginning of it. None: unknown."""
        return None


@dataclass(frozen=True)
class HubFile(WeightFile):
    """A file in a repository of the model hub: the first of `names` that the repository has."""

    repository: str
    names: tuple[str, ...]
    revision: str | None = None
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.repository}: {self.names[0]}"

    @property
    def place(self) -> str:  # type: ignore[override]
        from huggingface_hub import constants

        return f"the hub cache {constants.HF_HUB_CACHE} (HF_HUB_CACHE sets it)"

    def find(self) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        for name in self.names:
            path = try_to_load_from_cache(self.repository, name, revision=self.revision)
            if isinstance(path, str):
                return Path(path)
        return None

    def remaining(self) -> int | None:
        _, download = self._held()
        return download.remaining if download else 0

    def fetch(self) -> Path | None:
        from huggingface_hub import hf_hub_download

        name, download = self._held()
        if name is None:
            return None
        if download and download.sha256:  # a large file, of which the client resumes nothing
            download.run()
        return Path(hf_hub_download(self.repository, name, revision=self.revision))

    def _held(self) -> tuple[str | None, Download | None]:
        """The first of the names that the repository has, if any, and its download."""
        from huggingface_hub.errors import RemoteEntryNotFoundError

        for name in self.names:
            with suppress(RemoteEntryNotFoundError):
                return name, self._missing(name)
        if self.optional:
            return None, None
        raise InputError(f"{self.repository} holds none of {', '.join(self.names)}")

    def _missing(self, name: str) -> Download | None:
        """The download of a file that the cache lacks."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.utils import build_hf_headers

        found = hf_hub_download(self.repository, name, revision=self.revision, dry_run=True)
        if not found.will_download:
            return None
        url = hf_hub_url(self.repository, name, revision=self.revision)
        told = get_hf_file_metadata(url)
        etag, (cache, _, _) = str(told.etag), found.local_path.rpartition("/snapshots/")
        path = Path(cache, "blobs", etag)
        return Download(url, path, told.size, etag, self.expected(path), build_hf_headers())

    def label(self, path: Path) -> str:
        found = next(name for name in self.names if path.as_posix().endswith(f"/{name}"))
        return f"{self.repository}: {found}"

    def version(self, path: Path) -> str:
        parts = path.parts
        return parts[parts.index("snapshots") + 1] if "snapshots" in parts else "-"

    def expected(self, path: Path) -> str | None:
        name = path.resolve().name  # of a large file, this is its hash
        return name if re.fullmatch(r"[0-9a-f]{64}", name) else None


@dataclass(frozen=True)
class UrlFile(WeightFile):
    """A file with an address, kept in PyTorch's cache."""

    url: str

    def __str__(self) -> str:
        return self._path.name

    @property
    def _path(self) -> Path:
        from torch.hub import get_dir

        return Path(get_dir()) / "checkpoints" / self.url.rsplit("/", 1)[-1]

    @property
    def place(self) -> str:  # type: ignore[override]
        return f"PyTorch's cache {self._path.parent} (TORCH_HOME sets it)"

    def find(self) -> Path | None:
        return self._path if self._path.is_file() else None

    def remaining(self) -> int | None:
        return 0 if self._path.is_file() else self._download.remaining

    def fetch(self) -> Path | None:
        if not self._path.is_file():
            self._download.run()
        return self._path

    @property
    def _download(self) -> Download:
        return look_up(self.url, self._path, self.expected(self._path))

    def expected(self, path: Path) -> str | None:
        found = re.search(r"-([0-9a-f]{8,})\.", path.name)  # as in resnet50-0676ba61.pth
        return found[1] if found else None


def only_file(distribution: str, named: str, kind: str, chosen: Callable[[Path], bool]) -> Path:
    """The only file of this kind in an installed distribution. named: who asks, for messages."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise InputError(
            f"{named} package:{distribution} is not installed: pip install {distribution}"
        ) from None
    found = [path for path in (Path(str(file.locate())) for file in files) if chosen(path)]
    if len(found) != 1:
        raise InputError(f"{named} package:{distribution} holds {len(found)} {kind}, not one")
    return found[0]


@dataclass(frozen=True)
class PackageFile(WeightFile):
    """The only weight file of an installed distribution."""

    distribution: str

    def __str__(self) -> str:
        return f"package {self.distribution}"

    def find(self) -> Path:
        kinds = (".pth", ".pt", ".safetensors")
        return only_file(
            self.distribution, "weights", "weight files", lambda path: path.suffix in kinds
        )

    def version(self, path: Path) -> str:
        return importlib.metadata.version(self.distribution)


@dataclass(frozen=True)
class LocalFile(WeightFile):
    """A file of the user. `sha256` is what the resolve step found, None before that step."""

    path: str
    sha256: str | None

    def __str__(self) -> str:
        return self.path

    def find(self) -> Path:
        path = Path(self.path)
        if not path.is_file():
            raise InputError(f"{path}: no such weight file")
        if self.sha256 and sha256_of(path) != self.sha256:
            raise InputError(
                f"{path}: has changed since its entry was resolved: run the workflow again"
            )
        return path

    def expected(self, path: Path) -> str | None:
        return self.sha256


def required(entry: ModelEntry | SpaceEntry) -> list[WeightFile]:
    """The files of an entry's weights, and of its tokenizer or of its separate head."""
    if isinstance(entry, ConSEEntry):
        return required(entry.classifier)
    if isinstance(entry, FeaturesEntry) or entry.source == "features":
        return []
    files: list[WeightFile] = []
    if folder := saved_folder(entry):
        _check_saved(folder, with_words=isinstance(entry, TransformersEntry))
        files = [LocalFile(file, entry.sha256.get(file)) for file in own_weights(entry)]
    elif entry.weights == "hub":
        files = _SOURCES[entry.source](entry)
    elif isinstance(entry, TransformersEntry) and entry.weights != "random":
        raise InputError(f"{entry.weights}: name the folder that save_pretrained wrote")
    elif entry.source == "transformers" and None in (entry.config, entry.transform):
        registry = "spaces" if isinstance(entry, TransformersEntry) else "models"
        raise InputError(
            f"{entry.id}: without the hub's weights, or a folder that save_pretrained wrote, "
            f"config/{registry}.yaml must give its `config` and `transform`"
        )
    elif own := _own_file(entry.weights, entry):
        files = [own]
    if isinstance(entry, OpenCLIPEntry):
        return [*files, *_tokenizer_files(entry)]
    if isinstance(entry, TransformersEntry):
        words = [] if folder else _tokenizer_of(entry.id, "spiece.model", entry.revision)
        return [*files, *words]
    head = _own_file(entry.head_weights, entry) if entry.weights != "random" else None
    return [*files, head] if head else files


def missing(files_of: Callable[[Any], list[WeightFile]], entry: Any) -> list[str]:
    """The files that are not here, or the reason why they cannot be listed; nothing is fetched."""
    try:
        return [str(file) for file in files_of(entry) if file.find() is None and not file.optional]
    except InputError as error:
        return [str(error)]


def with_texts(entry: ModelEntry | SpaceEntry) -> list[WeightFile]:
    """The files of required(), and those of the sentence encoder of a space."""
    text = getattr(entry, "text", "")
    encoder = [PackageFile(text.removeprefix("package:"))] if text.startswith("package:") else []
    return [*required(entry), *encoder]


def locate(entry: ModelEntry | SpaceEntry) -> list[Path]:
    """Paths of all files that an entry requires, without optional files that are not there."""
    paths = find_all(required(entry))
    if entry.source == "transformers" and entry.weights == "hub":
        _check_readable(paths[0].parent)
    return paths


def find_all(files: list[WeightFile]) -> list[Path]:
    """Paths of the files, without optional files that are not there."""
    paths = []
    for file in files:
        path = file.find()
        if path is None and not file.optional:
            raise InputError(f"the weight file {file} is not in {file.place}: {FETCH}")
        paths += [path] if path else []
    return paths


def _check_saved(folder: Path, *, with_words: bool) -> None:
    """Refuse a folder that lacks a part of what save_pretrained writes."""
    here = {path.name for path in folder.glob("*")}
    if not any(name.endswith(".safetensors") for name in here):
        raise InputError(
            f"{folder}: holds no weights as .safetensors (other files of weights, as "
            "pytorch_model.bin, are not read): load the model where it was trained, and save it "
            f"with save_pretrained({str(folder)!r})"
        )
    parts = {"model": ("config.json",), "image processor": PROCESSOR}
    parts |= {"tokenizer": WORDS} if with_words else {}
    for part, names in parts.items():
        if not here & {*names}:
            raise InputError(
                f"{folder}: holds no {part} ({names[0]}): save it there too, with "
                f"{part.replace(' ', '_')}.save_pretrained({str(folder)!r})"
            )
    _check_readable(folder)


def _check_readable(folder: Path) -> None:
    """Refuse a model that brings code of its own, and one whose images have no fixed size."""
    for path in sorted(folder.glob("*config.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"{path}: not readable as JSON ({error}): copy or download it again"
            ) from None
        if not isinstance(content, dict) or "auto_map" in content:
            raise InputError(
                f"{path}: names code of its own (auto_map), which is never run: take a model whose "
                "class transformers has itself"
            )
        if path.name == "config.json" and content.get("model_type") == "siglip2":
            raise InputError(
                f"{path}: this SigLIP 2 takes images of any shape (NaFlex), but views have one "
                "size: take a variant of fixed size, as google/siglip2-base-patch16-224"
            )


def _own_file(
    source: str | None, entry: ModelEntry | OpenCLIPEntry | TransformersEntry
) -> WeightFile | None:
    """The file that `weights` or `head_weights` names; None for hub and random."""
    kind, _, target = (source or "").partition(":")
    if kind == "file":
        return LocalFile(target, entry.sha256.get(target))
    if kind == "package":
        return PackageFile(target)
    return UrlFile(target) if kind == "url" else None


def check_ids(models: Mapping[str, ModelEntry]) -> None:
    """Refuse models whose weights no library has.

    Entries of this package are known to exist, and to look them up would load timm.
    """
    own = models.keys() - read_registry(MODELS, MODELS).packaged.keys()
    for name in [name for name in models if name in own and models[name].weights == "hub"]:
        try:
            required(models[name])
        except InputError as error:
            raise InputError(f"models: {name}: {error}") from None


def check_id(entry: ModelEntry) -> None:
    """Refuse an id of timm or torchvision that has no weights, with the ids that have some.

    A model of timm with weights of one's own may be an architecture alone.
    """
    known, (name, _, tag) = IDS[entry.source](entry.id), entry.id.partition(".")
    own = entry.source == "timm" and entry.weights != "hub"
    if entry.id in known or (own and not tag):
        return
    fix = (
        " (with weights of your own, name those you started from, which decide how images are "
        f"prepared, or the architecture alone, id: {name}, and its transform)"
    )
    raise InputError(
        f"{entry.source} has no weights {entry.id!r}; it has {', '.join(known) or 'none'}"
        f"{fix if own else ''}"
    )


def _timm_files(entry: ModelEntry) -> list[WeightFile]:
    import timm

    check_id(entry)
    configuration: Any = timm.get_pretrained_cfg(entry.id)
    if configuration.hf_hub_id:
        names = (configuration.hf_hub_filename,) if configuration.hf_hub_filename else TIMM_WEIGHTS
        return [HubFile(configuration.hf_hub_id, names, entry.revision)]
    return [UrlFile(configuration.url)]


def torchvision_weights(entry: ModelEntry) -> Any:
    """torchvision's description of the weights, with their address and evaluation transform."""
    from torchvision.models import get_model_weights

    check_id(entry)
    name, _, tag = entry.id.partition(".")
    return get_model_weights(name)[tag]


def published_at(entry: ModelEntry) -> str | None:
    """Address at which a model's weights were first published, the same in all libraries."""
    import timm

    if entry.source == "torchvision":
        return str(torchvision_weights(entry).url)
    known = timm.get_pretrained_cfg(entry.id) if entry.source == "timm" else None
    return str(known.url) if known and known.url else None


def _transformers_files(entry: ModelEntry | TransformersEntry) -> list[WeightFile]:
    names = [("config.json",), PROCESSOR, TIMM_WEIGHTS]
    return [HubFile(entry.id, alternatives, entry.revision) for alternatives in names]


def open_clip_tag(entry: OpenCLIPEntry) -> dict[str, Any]:
    """open_clip's description of the weights. Empty for an id without weights."""
    import open_clip

    model, _, pretrained = entry.id.partition("/")
    if model not in open_clip.list_models():
        near = difflib.get_close_matches(model, open_clip.list_models(), n=3)
        raise InputError(
            f"open_clip has no model {model!r}" + (f"; near: {', '.join(near)}" if near else "")
        )
    tag: dict[str, Any] = open_clip.get_pretrained_cfg(model, pretrained) if pretrained else {}
    plain = model.removesuffix("-quickgelu")
    twin = plain if plain != model else f"{model}-quickgelu"
    of_twin: dict[str, Any] = open_clip.get_pretrained_cfg(twin, pretrained) if pretrained else {}
    built = bool(open_clip.get_model_config(model).get("quick_gelu"))
    if of_twin and bool((tag or of_twin).get("quick_gelu")) != built:
        trained = "without" if built else "with"
        raise InputError(
            f"{entry.id}: these weights were trained {trained} QuickGELU: write {twin}/{pretrained}"
        )
    if pretrained and not tag:
        known = open_clip.list_pretrained_tags_by_model(model)
        raise InputError(
            f"open_clip has no weights {entry.id!r}; for {model} it has "
            f"{', '.join(known) or 'none'}"
        )
    return tag


def _open_clip_files(entry: OpenCLIPEntry) -> list[WeightFile]:
    repository, _, name = open_clip_tag(entry)["hf_hub"].rpartition("/")
    return [HubFile(repository, (name,) if name else OPEN_CLIP_WEIGHTS)]


def _tokenizer_files(entry: OpenCLIPEntry) -> list[WeightFile]:
    import open_clip

    open_clip_tag(entry)
    text = open_clip.get_model_config(entry.id.partition("/")[0])["text_cfg"]
    files: list[WeightFile] = []
    if repository := text.get("hf_model_name"):
        files.append(HubFile(repository, ("config.json",)))
    if repository := text.get("hf_tokenizer_name"):
        files += _tokenizer_of(repository, "config.json")
    return files


def _tokenizer_of(repository: str, beside: str, revision: str | None = None) -> list[WeightFile]:
    """The files of a tokenizer in the hub, with what may lie beside its words."""
    names = ["tokenizer_config.json", "special_tokens_map.json", "merges.txt", beside]
    optional = [HubFile(repository, (name,), revision, optional=True) for name in names]
    return [HubFile(repository, WORDS, revision), *optional]


_SOURCES: dict[str, Callable[[Any], list[WeightFile]]] = {
    "timm": _timm_files,
    "torchvision": lambda entry: [UrlFile(torchvision_weights(entry).url)],
    "transformers": _transformers_files,
    "open_clip": _open_clip_files,
}
