"""Analysis of single photos by a model and a space that are loaded once.

The translator comes from a reference, a finished study or a file.
"""

import hashlib
import html
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from singflow.analyses.evidence import Evidence, Words, measure
from singflow.analyses.floor import Head
from singflow.analyses.geometry import complement, null_space
from singflow.analyses.metrics import share
from singflow.analyses.readout import Blocks
from singflow.analyses.summary import EMPTY, NO_NULL_SPACE, Summary, judge, said
from singflow.artifacts.files import Facts, sha256_of
from singflow.artifacts.shards import read_manifest, shard_path
from singflow.artifacts.tensors import read_tensors
from singflow.config.registry import OpenCLIPEntry, resolve_models
from singflow.config.sections import Section
from singflow.data.manifest import read_classes
from singflow.errors import InputError
from singflow.photo.analysis import (
    Analysis,
    Artifacts,
    Neighbour,
    Setting,
    Steered,
    Usual,
    analyze_feature,
    steer_feature,
)
from singflow.photo.fits import Settings, Trained, trained
from singflow.photo.study import Known, Photos, read_study, read_texts
from singflow.photo.texts import Texts, worded
from singflow.photo.towers import CLASSES, MAX_PIXELS, MODELS, SPACES, Classifier, Space, open_image
from singflow.photo.words import describe
from singflow.translators.linear import Translator
from singflow.translators.parameters import Translator as TranslatorParameters
from singflow.translators.reference import Paired, made_by, reference_folder
from singflow.translators.released import MODELS as RELEASED
from singflow.translators.ridge import Affine

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    Photo = str | Path | bytes | Image.Image

CACHE = Path(".cache/photo")
IN_SAMPLE = "IN SAMPLE: this photo is among the images that the translator was fitted on"


@dataclass(frozen=True, repr=False)
class Result(Analysis):
    """What a model's head ignores in one photo, with the scores of Analysis.

    image: the photo. features: (1, d) float32.
    """

    name: str
    setting: Setting
    image: "Image.Image" = field(compare=False)
    features: np.ndarray = field(compare=False)
    photos: Photos | None = field(compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Scores and their setting, as values that JSON can hold.

        Returns
        -------
        dict
            `image`, the fields of Analysis, and `setting`.
        """
        scores = Analysis(**{item.name: getattr(self, item.name) for item in fields(Analysis)})
        return {"image": self.name, **asdict(scores), "setting": asdict(self.setting)}

    def figure(self) -> "Figure":
        """The photo, its scores in words, and the texts and classes that null removal moves.

        Returns
        -------
        matplotlib.figure.Figure
            10.5 inches wide.
        """
        import matplotlib.pyplot as plt

        from singflow.photo.figure import draw_image

        near = (
            [self.photos.picture(photo, MAX_PIXELS) for photo in self.nearest]
            if self.photos and self.photos.root
            else []
        )
        figure = draw_image(self.image, Path(self.name).name, self, self.setting, near)
        plt.close(figure)  # otherwise a notebook shows the figure twice
        return figure

    def __repr__(self) -> str:
        return describe(self.name, self, self.setting)

    def _repr_html_(self) -> str:
        first, *lines = (html.escape(line.strip()) for line in repr(self).splitlines())
        return f"<b>{first}</b><ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"


@dataclass
class Analyzer:
    """A model and a space, loaded once for many photos; safe to call from several threads."""

    known: Known

    @classmethod
    def load(
        cls,
        model: str = "efficientnet_lite0",
        space: str = "conse_minilm",
        *,
        reference: str = "packaged",
        results: str | Path | None = None,
        translator: str | Path | None = None,
        models: str | Path = MODELS,
        spaces: str | Path = SPACES,
        classes: str | Path | None = None,
        device: str = "auto",
        threads: int = 1,
        cache: str | Path = CACHE,
        texts: Sequence[str] = (),
    ) -> Self:
        """Load a classifier, its null space, and a translator into a space.

        Parameters
        ----------
        model, space : str
            Names in the registries, or in the study. A model can also be <source>/<id>, as in
            timm/resnet18.a1_in1k.
        reference : str
            Results folder whose images the translator is fitted on; `packaged`: 507 images of
            ImageNet.
        results : str or Path, optional
            Results folder of a finished study, whose translator is used.
        translator : str or Path, optional
            File with a linear translator, which is used.
        models, spaces : str or Path
            Registry files.
        classes : str or Path, optional
            Class list for a head without class names; by default the study's list, or ImageNet's.
        device : str
            auto, cpu, cuda or mps.
        threads : int
            Number of parallel fits, if the cache has no fit yet.
        cache : str or Path
            Folder of earlier fits.
        texts : sequence of str
            Texts that photos will be compared with. They are embedded while the translators of a
            reference are fitted.

        Returns
        -------
        Analyzer
            Ready for photos.

        Raises
        ------
        InputError
            When files are missing or do not fit together, or when there is no translator for the
            model.
        """
        asked = worded(texts)
        if results is not None and translator is not None:
            raise InputError(
                f"--results {results} and --translator {translator}: name one of them, whose "
                "translator is taken"
            )
        if results is not None:
            return cls(
                read_study(
                    Path(results),
                    model,
                    space,
                    None if classes is None else Path(classes),
                    device,
                    threads,
                    Path(cache),
                )
            )
        into, entry = (
            Space.load(space, spaces=spaces, device=device),
            resolve_models(models, [model])[model],
        )
        if translator is None:
            _paired(reference_folder(reference), model, entry.identity, into)
        elif not Path(translator).is_file():
            raise InputError(
                f"--translator {translator}: no such file: name an imported translator, or one of "
                "a study's"
            )
        classifier = Classifier.load(
            model, models=models, classes=classes or CLASSES, device=device
        )
        if translator is not None:
            return cls(_by_file(Path(translator), classifier, into))
        return cls(_by_reference(reference, classifier, into, threads, Path(cache), asked))

    @property
    def artifacts(self) -> Artifacts:
        """Head, null space, translator, and scores of the known images."""
        return self.known.artifacts

    def analyze(
        self,
        image: "Photo",
        texts: Sequence[str] = (),
        *,
        name: str = "",
        extremes: int = 8,
        max_pixels: int = MAX_PIXELS,
    ) -> Result:
        """Measure what the head ignores in a photo.

        Parameters
        ----------
        image : str, Path, bytes or PIL.Image.Image
            Path of a file, content of a file, or an image.
        texts : sequence of str
            Texts that the photo is compared with, word for word.
        name : str
            Name of the photo in the result; its path by default.
        extremes : int
            Maximal length of the lists of classes and concepts that are gained or lost.
        max_pixels : int
            Limit on width times height, in pixels; a larger image is refused.

        Returns
        -------
        Result
            Scores of the photo.

        Raises
        ------
        InputError
            When the image cannot be used.
        """
        known = self.known
        photo = open_image(image, max_pixels)
        content = (
            image
            if isinstance(image, bytes)
            else Path(image).read_bytes()
            if isinstance(image, str | Path)
            else b""
        )
        sha256 = hashlib.sha256(content).hexdigest()
        features = known.classifier.features(photo, max_pixels)
        asked = worded(texts)
        wanted = dict(zip(asked, known.texts.embed(asked), strict=True)) if asked else {}
        note = IN_SAMPLE if sha256 in known.seen else ""
        analysis = analyze_feature(
            features, known.artifacts, wanted, extremes, partial(self.nearest, sha256=sha256), note
        )
        called = name or (str(image) if isinstance(image, str | Path) else "image")
        return Result(
            **vars(analysis),
            name=called,
            setting=known.artifacts.setting,
            image=photo,
            features=features,
            photos=known.photos,
        )

    def nearest(self, points: np.ndarray, sha256: str = "") -> list[Neighbour]:
        """Find the photos of the study or reference that are nearest to points of the space.

        Parameters
        ----------
        points : ndarray of shape (n, m)
            Embeddings.
        sha256 : str
            Hash of a file that is left out of the search.

        Returns
        -------
        list of Neighbour
            One photo per point; empty if the embeddings are not available.
        """
        return self.known.photos.nearest(sha256, points) if self.known.photos else []

    def steer(self, photo: Result, text: str, is_deg: float) -> Steered:
        """Steer a photo's feature toward a text inside the null space; the logits do not change.

        Parameters
        ----------
        photo : Result
            Result of analyze().
        text : str
            Text to steer toward.
        is_deg : float
            Target IS, in degrees; `photo.reach` has the limit, for the texts given to analyze().

        Returns
        -------
        Steered
            Feature and embedding after steering, and what changed.
        """
        return steer_feature(
            photo.features, self.known.artifacts, text, self.known.texts.embed([text])[0], is_deg
        )


def _default(section: type[Section], key: str) -> Any:
    """The default of a parameter of a study."""
    return section.model_fields[key].default


def _setting(
    classifier: Classifier,
    space: Space,
    source: str,
    basis: np.ndarray,
    r2: float | None,
    images: int,
    verdict: tuple[str, str],
) -> Setting:
    quality = "unknown" if r2 is None else "good" if r2 >= _default(Summary, "min_r2") else "weak"
    named = f"reference's {images} images"
    return Setting(
        classifier.name,
        space.name,
        source,
        "exact",
        basis.shape[1],
        r2,
        quality,
        named,
        images,
        *verdict,
    )


def _by_reference(
    reference: str,
    classifier: Classifier,
    space: Space,
    threads: int,
    cache: Path,
    asked: list[str],
) -> Known:
    """A model and a space, with fits to the images of a reference."""
    folder = reference_folder(reference)
    features, embeddings = _paired(
        folder, classifier.name, classifier.entry.identity, space, classifier.weights_sha256
    )
    manifest = read_manifest(folder / "data/manifest.parquet")
    images = Paired(
        manifest,
        features,
        embeddings,
        len(list(features.glob("shard-*.safetensors"))),
        reference=True,
    )
    folds, lambdas = (_default(TranslatorParameters, name) for name in ("folds", "lambdas"))
    margin, draws, confidence = (
        _default(Evidence, "margin"),
        _default(Evidence, "draws"),
        _default(Summary, "confidence"),
    )
    settings, names = Settings(folds, tuple(lambdas), None, draws, 0), classifier.class_names
    texts = _texts(
        folder, embeddings.relative_to(folder / "embeddings").as_posix(), classifier, space
    )
    made_of = {
        "head": hashlib.sha256(
            classifier.weight.tobytes()
            + classifier.bias.tobytes()
            + classifier.weight_dtype.encode()
        ).hexdigest(),
        "words": [names, texts.templates, space.entry.identity, sha256_of(CLASSES)],
        "test": [margin, confidence],
    }

    def head() -> Head:
        basis = _null_basis(classifier)
        return Head(classifier.weight, classifier.bias, complement(basis), basis)

    with ThreadPoolExecutor(1) as pool:  # embeds texts while the translators are fitted

        def find(blocks: Blocks) -> tuple[Words, dict[str, Any]]:
            spelled = pool.submit(lambda: texts.spellings(names, read_classes(CLASSES))).result()
            found = measure(
                blocks,
                *spelled,
                lambdas=lambdas,
                margin=margin,
                draws=draws,
                confidence=confidence,
                seed=settings.seed,
            )
            return found.words, found.facts

        of_classes = pool.submit(texts.of_classes, names)
        embedded = pool.submit(texts.embed, asked) if asked else None
        fits = trained(folder, images, made_of, head, find, settings, cache, threads)
    if embedded:
        embedded.result()
    verdict = _verdict(fits, classifier, embeddings, confidence)
    setting = _setting(
        classifier,
        space,
        f"fitted on the {len(manifest)} images of {folder}",
        fits.basis,
        fits.r2,
        len(manifest),
        verdict,
    )
    usual = Usual(fits.is_deg, fits.null_energy)
    artifacts = _artifacts(
        setting, classifier, of_classes.result(), fits.basis, fits.translator, usual, fits
    )
    photos = Photos(manifest, embeddings, images.shards, None)
    return Known(classifier, texts, artifacts, photos, frozenset(manifest["sha256"]))


def _verdict(
    fits: Trained, classifier: Classifier, embeddings: Path, confidence: float
) -> tuple[str, str]:
    """The verdict on a model by a reference, as in a study, and the verdict as a sentence."""
    leak, made = classifier.entry.kept is not None, read_tensors(shard_path(embeddings, 0), [])[1]
    row = fits.facts | {
        "model": classifier.name,
        "marks": "",
        "null_dim": fits.basis.shape[1],
        "validation_r2": fits.r2,
        "in_sample": False,
        "known_zero": not leak and made.get("classifier_sha256") == classifier.weights_sha256,
        "known_leak": leak,
    }
    judge([row], confidence)
    return row["verdict"], said(row)


def _texts(folder: Path, name: str, classifier: Classifier, space: Space) -> Texts:
    """The texts of a space, with the embeddings that a reference has stored, if any."""
    if not (folder / f"prompts/{name}.safetensors").is_file():
        return space.texts
    theirs, *_ = read_texts(folder, name, space.entry, space.device, classifier.class_names)
    return replace(space.texts, stored=theirs.stored, made=theirs.made)


def _null_basis(classifier: Classifier) -> np.ndarray:
    return null_space(classifier.weight, stored=classifier.weight_dtype).basis


def _artifacts(
    setting: Setting,
    classifier: Classifier,
    texts: tuple[list[str], np.ndarray],
    basis: np.ndarray,
    translator: Affine,
    usual: Usual | None,
    fits: Trained | None,
) -> Artifacts:
    return Artifacts(
        setting,
        classifier.head,
        classifier.class_names,
        *texts,
        basis,
        translator,
        share(translator, basis),
        [],
        texts[1][:0],
        usual,
        fits,
    )


def _by_file(path: Path, classifier: Classifier, space: Space) -> Known:
    """A model and a space, with the translator of a file and without known images."""
    translator = Translator.load(path)
    check_pair(path, translator, classifier, space)
    basis = _null_basis(classifier)
    r2 = read_tensors(path, [])[1].get("validation_r2")
    verdict = ("", "") if basis.shape[1] else (EMPTY, NO_NULL_SPACE)
    setting = _setting(
        classifier, space, str(path), basis, None if r2 is None else float(r2), 0, verdict
    )
    texts = space.texts.of_classes(classifier.class_names)
    return Known(
        classifier,
        space.texts,
        _artifacts(setting, classifier, texts, basis, translator, None, None),
        None,
        frozenset(),
    )


def check_pair(path: Path, translator: Translator, classifier: Classifier, space: Space) -> None:
    """Raise InputError for a translator of another model, space or shape.

    Models are compared by the hash of their weights or, for a released translator, by model id.
    """
    made = read_tensors(path, [])[1]
    mine = f"{classifier.entry.source}/{classifier.entry.id}"
    shape = (space.entry.dim, classifier.weight.shape[1])
    if translator.weight.shape != shape:
        raise InputError(
            f"{path}: has shape {translator.weight.shape}, but {classifier.name} -> {space.name} "
            f"needs {shape}: name its own"
        )
    into = made.get("space_id", made.get("space", space.name))
    if into not in (
        space.name,
        space.entry.id if isinstance(space.entry, OpenCLIPEntry) else space.entry.identity,
    ):
        raise InputError(
            f"{path}: translates into {into}, not {space.name}: write --space with the name of its "
            "space"
        )
    weights = made.get("weights_sha256") or _study_weights(path, made)
    if weights is not None:
        if weights != classifier.weights_sha256:
            raise InputError(
                f"{path}: was fitted for other weights ({weights[:12]}) than {classifier.name} has "
                f"({classifier.weights_sha256[:12]}): name the model that it was fitted for with "
                "--model"
            )
        return
    released = made.get("model_id", made.get("released_for", made.get("model", classifier.name)))
    wanted = RELEASED.get(released, released)
    if wanted not in (mine, classifier.name):
        raise InputError(
            f"{path}: was made for {wanted}, but {classifier.name} is {mine}: write --model "
            f"{wanted}"
        )


def _study_weights(path: Path, made: Facts) -> str | None:
    """Hash of the model's weights, read from the study that the translator's file belongs to."""
    study = next((folder.parent for folder in path.parents if folder.name == "translators"), None)
    head = study / f"features/{made.get('model')}/head.safetensors" if study else None
    return read_tensors(head, [])[1]["weights_sha256"] if head and head.is_file() else None


def _paired(
    folder: Path, model: str, identity: str, space: Space, weights_sha256: str | None = None
) -> tuple[Path, Path]:
    """Folders of a reference's features by a model and of its embeddings in a space.

    Without `weights_sha256`, features by any weights of the model will do.
    """
    if not (folder / "data/manifest.parquet").is_file():
        raise InputError(
            f"--reference {folder}: holds no data/manifest.parquet: name the results folder of a "
            "finished study, or packaged"
        )
    features, embeddings = (
        made_by(folder / "features", identity, weights_sha256),
        made_by(folder / "embeddings", space.entry.identity),
    )
    if features is None or embeddings is None:
        raise InputError(
            f"no translator of {model} into {space.name} is at hand: {folder} has no images of "
            f"both with these weights. Two ways to get one: run a study with models: [{model}] and "
            f"spaces: [{space.name}] (`singflow study`, `singflow run`) and name its results with "
            "--results; or take one that was released for it (`singflow import_translator`) and "
            "name its file with --translator"
        )
    return features, embeddings


def analyze(
    image: "Photo", model: str = "efficientnet_lite0", texts: Sequence[str] = (), **options: Any
) -> Result:
    """Measure what a model's head ignores in one photo; for many photos, load an Analyzer once.

    Parameters
    ----------
    image : str, Path, bytes or PIL.Image.Image
        Path of a file, content of a file, or an image.
    model : str
        Name in the registry, or <source>/<id>.
    texts : sequence of str
        Texts that the photo is compared with.
    **options : Any
        Further options of Analyzer.load(): space, reference, results, translator, ...

    Returns
    -------
    Result
        Scores of the photo.
    """
    return Analyzer.load(model, texts=texts, **options).analyze(image, texts)
