"""The facts about one photo, in the order in which text, figure and page tell them."""

from collections.abc import Iterator
from typing import NamedTuple

from singflow.analyses.tables import ZERO
from singflow.photo.analysis import Analysis, Movement, Reach, Setting

LISTED = 3  # most texts in a line of gained or lost texts
# Facts about the photo as a whole, beside its classes.
SCORES = ("unlike", "verdict", "IS", "null energy", "note", "weak translator")


class Fact(NamedTuple):
    """A fact and the sentence that tells it. about: the text that it is about, or empty."""

    name: str
    sentence: str
    about: str = ""


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
    for way in analysis.reach:
        facts.append(Fact("steered", _reach(way), way.text))
    if analysis.nearest:
        before, after = (f"{n.path} ({n.angle_deg:.1f} degrees)" for n in analysis.nearest)
        line = f"nearest photo of the {setting.images}: {before}; after null removal: {after}"
        facts.append(Fact("nearest photo", line))
    return [*facts, Fact("setting", _setting(setting))]


def select(facts: list[Fact], *names: str) -> list[str]:
    """The sentences of the facts that have one of some names, in order."""
    return [fact.sentence for fact in facts if fact.name in names]


def describe(image: str, analysis: Analysis) -> str:
    """The facts as lines of text; a known zero is named first."""
    facts = facts_of(analysis)
    lines = [*select(facts, "known zero"), f"{image}: {select(facts, 'class')[0]}"]
    for fact in facts:
        if fact.name in ("movement", "steered"):
            toward = "toward" if fact.name == "movement" else "steered toward"
            lines.append(f"  {toward} {fact.about!r}: {fact.sentence}")
        elif fact.name not in ("known zero", "class", "setting"):
            lines.append(f"  {fact.sentence}")
    return "\n".join(lines)


def _scores(analysis: Analysis, setting: Setting) -> Iterator[Fact]:
    if analysis.unlike:
        line = f"NOTHING CAN BE SAID about this photo by the {setting.images}: {analysis.unlike}"
        yield Fact("unlike", line)
    if not setting.said:
        absent = "the images that the translator was fitted on are not here"
        yield Fact("verdict", f"no verdict on the model: {absent}")
    elif setting.verdict != ZERO:
        basis = f"by the {setting.images}: " if setting.n_images else ""
        yield Fact("verdict", basis + setting.said)
    line = f"null removal turns its translation by IS {analysis.is_deg:.2f} degrees"
    line += _place(analysis.is_percentile, setting)
    if analysis.chance_is_deg is not None:
        line += f"; a null component that tells nothing turns it by {analysis.chance_is_deg:.2f}"
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


def _place(percentile: float | None, setting: Setting) -> str:
    if percentile is None:
        return ""
    return f", more than in {percentile:.0f} % of the {setting.images}"


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


def _setting(setting: Setting) -> str:
    r2 = "" if setting.validation_r2 is None else f", held-out R2 {setting.validation_r2:.2f}"
    return (
        f"{setting.model} in {setting.space}: null space of {setting.null_dim} dimensions, rank "
        f"rule {setting.rank_rule}; {setting.translator} translator, {setting.source}{r2}"
    )
