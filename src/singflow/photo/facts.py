"""What is said of one photo, in sentences: the one source for terminal, notebook and page."""

from collections.abc import Iterator

import numpy as np

from singflow.analyses.maps import Maps, TextMap
from singflow.analyses.tables import ZERO
from singflow.photo.analysis import ABSENT, Analysis, Movement, Reach, Setting, Steered

LISTED = 3  # most texts in a line of gained or lost texts
WHOLE = 0.99  # share of a side from which the model counts as seeing all of it
DOWN, ACROSS = ("top", "", "bottom"), ("left", "", "right")  # thirds of a photo
IS = "IS, the angle by which the photo's translation turns when the null component is removed"
AS = "AS, by how much nearer the photo comes to the text,"


def describe(name: str, analysis: Analysis) -> str:
    """What is said of a photo, in lines of text; the first one concludes."""
    first, *others = likeliest(analysis)
    lines = [conclude(analysis), f"{name}: {first}"]
    lines += [f"  {line}" for line in _lines(others, analysis, analysis.setting)]
    return "\n".join(lines)


def conclude(analysis: Analysis) -> str:
    """The sentence that concludes about a photo, by the photo's own chance."""
    setting, (before, after) = analysis.setting, analysis.nearest
    if not setting.null_dim:
        return f"In this photo the head of {setting.model} ignores nothing: it has no null space."
    if setting.verdict == ZERO:
        return f"This photo is not judged. {setting.said}."
    if analysis.unlike:
        return (
            "Nothing can be said about this photo, which is unlike the images of the translator: "
            f"{analysis.unlike}."
        )
    if not analysis.judged:
        return f"This photo is not judged, because {ABSENT}."
    if not analysis.moves:
        return "Nothing in this photo moves beyond chance."
    said = f"is nearer to {after.text!r} than to {before.text!r}"
    if before.text == after.text:
        said = f"is turned farther than by chance, though {after.text!r} stays nearest"
    return (
        f"For this photo the head of {setting.model} loses meaning: without the null component, "
        f"the photo {said}."
    )


def describe_steered(photo: Analysis, steered: Steered) -> str:
    """What is said of a photo that was steered toward a text, in lines of text."""
    if not (steered.reachable and steered.limit_deg):
        return (
            f"toward {steered.text!r}: the null space offers no way of {steered.target_is_deg:.1f} "
            f"degrees; its limit is {steered.limit_deg:.1f}"
        )
    still = "no longer" if steered.top1_changed else "still"
    return (
        f"turned by {steered.is_deg:.1f} degrees, this photo is {steered.angle_deg:.1f} degrees "
        f"from {steered.text!r} (before: {steered.angle_original_deg:.1f})\n"
        f"  largest change of a logit: {steered.logit_change:.1e}; the classifier {still} sees "
        f"{photo.predictions[0].name}"
    )


def likeliest(analysis: Analysis) -> list[str]:
    """The likeliest classes, with their probabilities."""
    return [f"{each.name} ({100 * each.probability:.1f} %)" for each in analysis.predictions]


def compared(analysis: Analysis) -> list[Movement]:
    """The movement toward the predicted class, and toward all other texts."""
    predicted = analysis.predicted
    return [predicted, *(text for text in analysis.texts if text.text != predicted.text)]


def _lines(others: list[str], analysis: Analysis, setting: Setting) -> Iterator[str]:
    if others:
        yield f"then {', '.join(others)}"
    if setting.classes:
        yield setting.classes
    if setting.verdict != ZERO:
        of_model = setting.said or f"no verdict, because {ABSENT}"
        yield f"of the model, not of this photo: {of_model}"
    line = f"{IS}: {analysis.is_deg:.2f} degrees{_place(analysis.is_percentile, setting)}"
    if analysis.chance_is_deg is not None:
        line += f"; a null component without meaning turns it by {analysis.chance_is_deg:.2f}"
    if analysis.chance_most_deg is not None:
        line += f", and 1 photo in 20 by more than {analysis.chance_most_deg:.2f}"
    yield line
    before, after = analysis.nearest
    yield (
        f"nearest text: {before.text!r} before removal ({before.angle_original_deg:.1f} degrees), "
        f"{after.text!r} after it ({after.angle_equivalent_deg:.1f})"
    )
    yield (
        f"null energy {100 * analysis.null_energy:.1f} %"
        f"{_place(analysis.null_energy_percentile, setting)}; logits change by "
        f"{analysis.logit_change:.1e}"
    )
    if analysis.note:
        yield analysis.note
    if setting.translator == "weak":
        yield (
            f"WEAK TRANSLATOR, held-out R2 {setting.validation_r2:.2f}: this shows how the method "
            "works, not what the model ignores"
        )
    first, *more = compared(analysis)
    yield from (_movement(first, AS), *map(_movement, more))
    if analysis.moves:
        yield from list(_beyond_chance(analysis)) or ["no word is gained or lost beyond chance"]
    if maps := analysis.maps:
        yield from (_map(text, maps) for text in maps.texts)
    else:
        yield analysis.no_maps
    yield from (f"steered toward {way.text!r}: {_reach(way)}" for way in analysis.reach)
    yield _basis(setting)


def _place(percentile: float | None, setting: Setting) -> str:
    """Where a score stands among the known images; 100 % only where the percentile is 100."""
    if percentile is None:
        return ""
    return f", more than in {np.floor(10 * percentile) / 10:g} % of the {setting.images}"


def _beyond_chance(analysis: Analysis) -> Iterator[str]:
    """Lines on classes and concepts that are gained or lost beyond chance."""
    for kind, score, *sides in analysis.beyond_chance:
        by = " (AS minus its mean over classes)" if score == "as_contrast_deg" else ""
        for change, texts in zip(("gained", "lost"), sides, strict=True):
            listed = [f"{text.text} {getattr(text, score):+.2f}" for text in texts[:LISTED]]
            if texts:
                yield f"{kind} {change} beyond chance{by}: {', '.join(listed)}"


def _movement(text: Movement, score: str = "AS") -> str:
    """AS, its two angles, and the range that chance gives."""
    angles = f"{text.angle_original_deg:.1f} to {text.angle_equivalent_deg:.1f}"
    line = f"toward {text.text!r}: {score} {text.as_deg:+.2f} degrees ({angles})"
    if text.chance_low_deg is None:
        return line
    return f"{line}; chance gives {text.chance_low_deg:+.2f} to {text.chance_high_deg:+.2f}"


def map_notes(analysis: Analysis, maps: Maps) -> list[str]:
    """Which texts have no map, and what pale parts of the pictures mean."""
    drawn = [text.text for text in maps.texts]
    within = [text.text for text in analysis.texts if text.text not in drawn]
    notes = []
    if within:
        notes.append(f"within the chance of this photo, so without a map: {', '.join(within)}")
    if min(maps.seen[2] - maps.seen[0], maps.seen[3] - maps.seen[1]) < WHOLE:
        notes.append("pale frame: outside what the model sees")
    return notes


def _map(text: TextMap, maps: Maps) -> str:
    """The strongest position of a map, in words and in degrees."""
    size = np.abs(text.contribution_deg)
    strongest = float(text.contribution_deg.flat[size.argmax()])
    line = (
        f"map of {text.text!r}: strongest {_place_in(maps, size)}: {strongest:+.2f} degrees, "
        f"{'nearer' if strongest > 0 else 'farther'} after removal"
    )
    return line + (f"; {text.rest_deg:+.2f} belongs to no position" if text.rest_deg else "")


def _place_in(maps: Maps, values: np.ndarray) -> str:
    """Where in the photo a map (h, w) is largest, in words."""
    row, column = (int(place) for place in np.unravel_index(values.argmax(), values.shape))
    (left, top, right, bottom), (height, width) = maps.seen, values.shape
    down = top + (bottom - top) * (row + 0.5) / height
    across = left + (right - left) * (column + 0.5) / width
    thirds = np.clip([3 * down, 3 * across], 0, 2).astype(int)
    words = f"{DOWN[thirds[0]]} {ACROSS[thirds[1]]}".strip()
    where = f"at the {words}" if words else "in the middle"
    return f"{where} (row {row + 1}, column {column + 1} of {height} x {width})"


def _reach(way: Reach) -> str:
    """How far a photo can be steered."""
    if not way.limit_deg:
        return "the null space offers no way there"
    length = "which no step quite reaches"
    if way.step is not None:
        length = f"by {way.step:.1f} times its null component"
    return (
        f"from {way.angle_deg:.1f} to {way.nearest_deg:.1f} degrees with the same logits, turned "
        f"by {way.is_deg:.1f}, {length}"
    )


def _basis(setting: Setting) -> str:
    """The null space, and the translator that everything said rests on."""
    r2, quality = setting.validation_r2, "of unknown quality"
    if r2 is not None:
        share = f"{100 * r2:.0f} %" if r2 > 0 else "nothing"
        quality = f"explains {share} of the meaning of new images (R2 {r2:.2f})"
    return (
        f"{setting.model} in {setting.space}: null space of {setting.null_dim} dimensions, rank "
        f"rule {setting.rank_rule}; translator: {setting.source}, {quality}"
    )
