"""The facts about one photo, in the order in which text, figure and page tell them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from singflow.analyses.maps import Maps, TextMap
from singflow.analyses.tables import ZERO
from singflow.photo.analysis import ABSENT, Analysis, Movement, Reach, Setting

PREFIXES = {"movement": "toward", "map": "map of", "steered": "steered toward"}
LISTED = 3  # most texts in a line of gained or lost texts
WHOLE = 0.99  # share of a side from which the model counts as seeing all of it
TOWARD = "movement by removal, one scale for all maps"  # under the colours of maps
DOWN, ACROSS = ("top", "", "bottom"), ("left", "", "right")  # thirds of a photo
# Facts about the photo as a whole, beside its classes.
OF_PHOTO = ("unlike", "IS", "null energy", "note", "weak translator", "chance")
SCORES = ("unlike", "verdict", "hidden", *OF_PHOTO[1:])
BY_CHANCE = (
    "where nothing is hidden, 1 photo in 20 shows words beyond chance, and for each text 1 in 20 "
    "shows a score beyond chance, and so a map"
)


class Fact(NamedTuple):
    """A fact and the sentence that tells it. about: the text that it is about, or empty."""

    name: str
    sentence: str
    about: str = ""

    def __str__(self) -> str:
        """The sentence, after the text that it is about."""
        prefix = PREFIXES.get(self.name)
        return f"{prefix} {self.about!r}: {self.sentence}" if prefix else self.sentence


def facts_of(analysis: Analysis) -> list[Fact]:
    """All facts about a photo."""
    setting = analysis.setting
    facts = [Fact("known zero", setting.said)] if setting.verdict == ZERO else []
    first, *others = [f"{p.name} ({100 * p.probability:.1f} %)" for p in analysis.predictions]
    facts += [Fact("class", first), Fact("other classes", f"then {', '.join(others)}")]
    facts += _scores(analysis, setting)
    if analysis.judged:
        words = [Fact("words", line) for line in _beyond_chance(analysis)]
        facts += words or [Fact("words", "no word is gained or lost beyond chance")]
    for text in [analysis.predicted, *analysis.texts]:
        facts.append(Fact("movement", _movement(text), text.text))
    if maps := analysis.maps:
        facts += [Fact("map", _map(text, maps), text.text) for text in maps.texts]
    else:
        facts.append(Fact("no maps", analysis.no_maps))
    for way in analysis.reach:
        facts.append(Fact("steered", _reach(way), way.text))
    return [*facts, Fact("setting", basis_of(setting))]


def select(facts: list[Fact], *names: str) -> list[str]:
    """The sentences of the facts that have one of some names, in order."""
    return [str(fact) for fact in facts if fact.name in names]


def describe(image: str, analysis: Analysis) -> str:
    """The facts as lines of text; a known zero is named first."""
    facts = facts_of(analysis)
    lines = [*select(facts, "known zero"), f"{image}: {select(facts, 'class')[0]}"]
    lines += [f"  {fact}" for fact in facts if fact.name not in ("known zero", "class", "setting")]
    return "\n".join(lines)


def _scores(analysis: Analysis, setting: Setting) -> Iterator[Fact]:
    if analysis.unlike:
        line = f"NOTHING CAN BE SAID about this photo by the {setting.images}: {analysis.unlike}"
        yield Fact("unlike", line)
    if setting.verdict != ZERO:
        yield Fact("verdict", verdict_of(setting))
    if setting.hidden:
        yield Fact("hidden", f"of the model, not of this photo: {setting.hidden}")
    line = f"null removal turns its translation by IS {analysis.is_deg:.2f} degrees"
    line += _place(analysis.is_percentile, setting)
    if analysis.chance_is_deg is not None:
        line += f"; a null component without meaning turns it by {analysis.chance_is_deg:.2f}"
    yield Fact("IS", line)
    line = f"null energy {100 * analysis.null_energy:.1f} %"
    line += _place(analysis.null_energy_percentile, setting)
    line += f"; logits change by {analysis.logit_change:.1e}"
    yield Fact("null energy", line)
    if analysis.note:
        yield Fact("note", analysis.note)
    if setting.translator == "weak":
        line = f"WEAK TRANSLATOR, held-out R2 {setting.validation_r2:.2f}: this shows how the "
        yield Fact("weak translator", f"{line}method works, not what the model ignores")
    if analysis.judged:
        yield Fact("chance", BY_CHANCE)


def verdict_of(setting: Setting) -> str:
    """The verdict on the model in a sentence, with the images behind it."""
    if not setting.said:
        return f"no verdict on the model: {ABSENT}"
    return (f"by the {setting.images}: " if setting.n_images else "") + setting.said


def _place(percentile: float | None, setting: Setting) -> str:
    if percentile is None:
        return ""
    return f", more than in {share_below(percentile)} of the {setting.images}"


def share_below(percentile: float) -> str:
    """A percentile in words, which is 100 % only where it is 100."""
    return f"{np.floor(10 * percentile) / 10:g} %"


def _beyond_chance(analysis: Analysis) -> Iterator[str]:
    """Lines on classes and concepts that are gained or lost beyond chance."""
    for kind, score, *sides in analysis.beyond_chance:
        for change, texts in zip(("gained", "lost"), sides, strict=True):
            listed = [f"{text.text} {getattr(text, score):+.2f}" for text in texts[:LISTED]]
            if texts:
                yield f"{kind} {change} beyond chance: {', '.join(listed)}"


def _movement(text: Movement) -> str:
    """AS, its two angles, and the range that chance gives."""
    angles = f"{text.angle_original_deg:.1f} to {text.angle_equivalent_deg:.1f}"
    line = f"AS {text.as_deg:+.2f} degrees ({angles})"
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
        notes.append("pale: the model does not see it")
    return notes


def _map(text: TextMap, maps: Maps) -> str:
    """AS and the strongest position of a map."""
    size = np.abs(text.contribution_deg)
    strongest = float(text.contribution_deg.flat[size.argmax()])
    line = (
        f"AS {text.as_deg:+.2f} degrees, strongest {_place_in(maps, size)}: {strongest:+.2f} "
        f"degrees, {'nearer' if strongest > 0 else 'farther'} after removal"
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


def basis_of(setting: Setting) -> str:
    """The null space, and the translator that everything said rests on."""
    r2, quality = setting.validation_r2, "of unknown quality"
    if r2 is not None:
        quality = f"explains {100 * r2:.0f} % of the meaning of new images (R2 {r2:.2f})"
    return (
        f"{setting.model} in {setting.space}: null space of {setting.null_dim} dimensions, rank "
        f"rule {setting.rank_rule}; translator: {setting.source}, {quality}"
    )
