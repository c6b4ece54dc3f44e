"""Analysis of single photos by a model and a space that are loaded once."""

import hashlib
import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from singflow.analyses.metrics import angle_deg
from singflow.analyses.steering import steer
from singflow.artifacts.made import Made
from singflow.config.registry import MODELS, SPACES, resolve_models
from singflow.errors import InputError, printable
from singflow.measuring import Evidence
from singflow.photo.analysis import Analysis, Loaded, Steered, analyze_feature
from singflow.photo.facts import describe
from singflow.photo.finished import read_finished
from singflow.photo.sources import read_reference, read_translator, reference_shards
from singflow.towers.live import CLASSES, MAX_PIXELS, Classifier, Space, open_image
from singflow.towers.texts import checked_texts
from singflow.translators.reference import reference_folder
from singflow.translators.ridge import Affine

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from singflow.towers.live import Photo
    from singflow.translators.hub import Translator

CACHE = Path(".cache/photo")


@dataclass(frozen=True, repr=False)
class Result(Analysis):
    """What a model's head ignores in one photo, with the scores of Analysis.

    image: the photo. sha256: hash of its file. features: (1, d) float32.
    """

    name: str
    sha256: str
    image: "Image.Image" = field(compare=False)
    features: np.ndarray = field(compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Scores and their setting, as values that JSON can hold.

        Returns
        -------
        dict
            `image`, and the fields of Analysis, `setting` and `maps` among them.
        """
        scores = Analysis(**{item.name: getattr(self, item.name) for item in fields(Analysis)})
        return {"image": self.name, **asdict(scores, dict_factory=_of_lists)}

    def figure(self) -> "Figure":
        """The photo, its scores in words, and the texts and classes that null removal moves.

        Returns
        -------
        matplotlib.figure.Figure
            10.5 inches wide.
        """
        from singflow.figures.style import shown
        from singflow.photo.figure import draw_image

        return shown(draw_image(self.image, Path(self.name).name, self))

    def map_figure(self) -> "Figure":
        """The photo, and where in it null removal moves it toward or away from texts.

        A text has a map if its AS is beyond chance; all maps share one scale. Without any, a line
        says why, as `no_maps` does.

        Returns
        -------
        matplotlib.figure.Figure
            10.5 inches wide.
        """
        from singflow.figures.style import shown
        from singflow.photo.map_figure import draw_maps

        return shown(draw_maps(self.image, Path(self.name).name, self))

    def __repr__(self) -> str:
        return describe(self.name, self)

    def _repr_html_(self) -> str:
        first, *lines = (html.escape(line.strip()) for line in repr(self).splitlines())
        return f"<b>{first}</b><ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"


@dataclass
class Analyzer:
    """A model and a space, loaded once for many photos; safe to call from several threads."""

    loaded: Loaded

    @classmethod
    def load(
        cls,
        model: str | Classifier = "efficientnet_lite0",
        space: str | Space = "conse_minilm",
        *,
        reference: str = "packaged",
        results: str | Path | None = None,
        translator: "str | Path | Translator | Evidence | None" = None,
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
        model : str or Classifier
            Name in the registry, or in the study, or <source>/<id>, as in timm/resnet18.a1_in1k;
            or a classifier. One without an entry in a registry needs a translator.
        space : str or Space
            Name in the registry, or in the study; or a space.
        reference : str
            Results folder whose images the translator is fitted on; `packaged`: 507 images of
            ImageNet.
        results : str or Path, optional
            Results folder of a finished study, whose translator is used.
        translator : str, Path, Translator or Evidence, optional
            Linear translator, or the file of one, which is used. Evidence of the same model and
            space also gives the verdict, and what chance does.
        models, spaces : str or Path
            Registries of your own models and spaces, beside the packaged ones.
        classes : str or Path, optional
            Class list for a head without class names; by default the study's list, or ImageNet's.
        device : str
            auto, cpu or cuda.
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
        asked = checked_texts(texts)
        if results is not None:
            if translator is not None:
                raise InputError(
                    f"--results {results} and --translator {translator}: name one of them, whose "
                    "translator is taken"
                )
            if not isinstance(model, str) or not isinstance(space, str):
                raise InputError(
                    f"results {results}: model and space are names of the study: give their names"
                )
            own = None if classes is None else Path(classes)
            return cls(
                read_finished(Path(results), model, space, own, device, threads, Path(cache))
            )
        into = Space.load(space, spaces=spaces, device=device) if isinstance(space, str) else space
        given = Path(translator) if isinstance(translator, str) else translator
        if isinstance(given, Path) and not given.is_file():
            raise InputError(
                f"--translator {given}: no such file: name an imported translator, or one of "
                "a study's"
            )
        folder = reference_folder(reference)
        if isinstance(model, str):
            entry = resolve_models(models, [model])[model]
            if given is None:
                reference_shards(folder, model, Made(entry.identity), into)
            listed = classes or CLASSES
            model = Classifier.load(model, models=models, classes=listed, device=device)
        if given is not None:
            return cls(read_translator(given, model, into))
        return cls(read_reference(folder, model, into, threads, Path(cache), asked))

    def analyze(
        self,
        image: "Photo",
        texts: Sequence[str] | None = (),
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
        texts : sequence of str or None
            Texts that the photo is compared with, word for word; None: those of the three most
            probable classes.
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
        photo = open_image(image, max_pixels)
        asked = None if texts is None else list(dict.fromkeys(checked_texts(texts)))
        path = Path(image) if isinstance(image, str | Path) else None
        content = path.read_bytes() if path else image if isinstance(image, bytes) else b""
        digest = hashlib.sha256(content).hexdigest()
        located = self.loaded.classifier.locate(photo, max_pixels)
        analysis = analyze_feature(located, self.loaded, asked, extremes, digest)
        return Result(
            **vars(analysis),
            name=printable(name or (str(image) if path else "image")),
            sha256=digest,
            image=photo,
            features=located.feature,
        )

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
            Feature and embedding after steering, and what changed, measured in float32.
        """
        loaded, features = self.loaded, photo.features
        (embedding,) = loaded.texts.embed([text])
        directions = loaded.directions(features, embedding)
        step = directions.step(is_deg)
        reachable = not np.isnan(step[0])
        step = np.where(np.isnan(step), 0.0, step)
        moved = steer(features, directions.vectors, step)
        before, after = directions.embeddings, loaded.steering[0](moved.astype(np.float64))
        first, last = (float(angle_deg(point, embedding)[0]) for point in (before, after))
        head = Affine(loaded.classifier.weight, loaded.classifier.bias).astype(np.float64)
        logits = [head(point.astype(np.float64))[0] for point in (features, moved)]
        return Steered(
            text=text,
            target_is_deg=is_deg,
            reachable=reachable,
            limit_deg=float(directions.limit_deg()[0]),
            is_deg=float(angle_deg(before, after)[0]),
            angle_original_deg=first,
            angle_deg=last,
            as_deg=first - last,
            step=loaded.null_norms(step[0], features) or 0.0,
            logit_change=float(np.abs(logits[1] - logits[0]).max()),
            top1_changed=bool(logits[0].argmax() != logits[1].argmax()),
            feature=moved[0],
            embedding=after[0],
        )


def _of_lists(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dictionary for JSON, with arrays as lists."""
    return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in items}


def analyze(
    image: "Photo",
    model: str | Classifier = "efficientnet_lite0",
    texts: Sequence[str] = (),
    **options: Any,
) -> Result:
    """Measure what a model's head ignores in one photo; for many photos, load an Analyzer once.

    Parameters
    ----------
    image : str, Path, bytes or PIL.Image.Image
        Path of a file, content of a file, or an image.
    model : str or Classifier
        Name in the registry, or <source>/<id>; or a classifier.
    texts : sequence of str
        Texts that the photo is compared with.
    **options : Any
        Further options of Analyzer.load(): space, reference, results, translator, ...

    Returns
    -------
    Result
        Scores of the photo.
    """
    open_image(image)  # it is refused before a model is loaded
    return Analyzer.load(model, texts=texts, **options).analyze(image, texts)
