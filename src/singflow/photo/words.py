"""One image's analysis in words."""

from singflow.analyses.tables import ZERO
from singflow.photo.analysis import Analysis, Movement, Reach, Setting

LISTED = 3  # most texts in a line of gained or lost texts


def describe(image: str, analysis: Analysis, setting: Setting) -> str:
    """The analysis in a few lines of text; a known zero is named first."""
    likeliest, others = prediction_lines(analysis)
    lines = [others, *score_lines(analysis, setting), *word_lines(analysis)]
    lines += [
        f"toward {movement.text!r}: {movement_line(movement)}"
        for movement in [analysis.predicted, *analysis.texts]
    ]
    lines += [f"steered toward {way.text!r}: {reach_line(way)}" for way in analysis.reach]
    if analysis.nearest:
        before, after = (
            f"{photo.path} ({photo.angle_deg:.1f} degrees)" for photo in analysis.nearest
        )
        lines.append(
            f"nearest photo of the {setting.images}: {before}; after null removal: {after}"
        )
    return "\n".join(
        [*zero_lines(setting), f"{image}: {likeliest}", *(f"  {line}" for line in lines)]
    )


def zero_lines(setting: Setting) -> list[str]:
    """A line that says that the model is a known zero; no line for other models."""
    return [setting.said] if setting.verdict == ZERO else []


def prediction_lines(analysis: Analysis) -> tuple[str, str]:
    """One line on the likeliest class, and one line on the classes that follow."""
    first, *others = [
        f"{prediction.name} ({100 * prediction.probability:.1f} %)"
        for prediction in analysis.predictions
    ]
    return first, f"then {', '.join(others)}"


def movement_line(movement: Movement) -> str:
    """One line on AS, its two angles, and the range that chance gives."""
    line = (
        f"AS {movement.as_deg:+.2f} degrees ({movement.angle_original_deg:.1f} to "
        f"{movement.angle_equivalent_deg:.1f})"
    )
    if movement.chance_low_deg is None:
        return line
    return f"{line}; chance gives {movement.chance_low_deg:+.2f} to {movement.chance_high_deg:+.2f}"


def reach_line(way: Reach) -> str:
    """One line on how far a photo can be steered."""
    if not way.limit_deg:
        return "the null space offers no way there"
    far = (
        "which no step quite reaches"
        if way.step is None
        else f"by {way.step:.1f} times its null component"
    )
    return (
        f"from {way.angle_deg:.1f} to {way.nearest_deg:.1f} degrees with the same logits, turned "
        f"by {way.is_deg:.1f}, {far}"
    )


def _verdict_line(setting: Setting) -> str:
    """The verdict on the model, and the images that it rests on."""
    if not setting.said:
        return "no verdict on the model: the images that the translator was fitted on are not here"
    return f"by the {setting.images}: {setting.said}" if setting.n_images else setting.said


def score_lines(analysis: Analysis, setting: Setting) -> list[str]:
    """Lines on the verdict, IS, null energy and logit change, with warnings first and last."""
    lines = (
        [f"NOTHING CAN BE SAID about this photo by the {setting.images}: {analysis.unlike}"]
        if analysis.unlike
        else []
    )
    lines += [_verdict_line(setting)] if setting.verdict != ZERO else []
    chance = (
        ""
        if analysis.chance_is_deg is None
        else f"; a null component that tells nothing turns it by {analysis.chance_is_deg:.2f}"
    )
    place, energy_place = (
        _place(percentile, setting)
        for percentile in (analysis.is_percentile, analysis.null_energy_percentile)
    )
    lines.append(
        f"null removal turns its translation by IS {analysis.is_deg:.2f} degrees{place}{chance}"
    )
    lines.append(
        f"null energy {100 * analysis.null_energy:.1f} %{energy_place}; logits change by "
        f"{analysis.logit_change:.1e}"
    )
    lines += [analysis.note] if analysis.note else []
    if setting.translator == "weak":
        lines.append(
            f"WEAK TRANSLATOR, held-out R2 {setting.validation_r2:.2f}: this shows how the method "
            "works, not what the model ignores"
        )
    return lines


def _place(percentile: float | None, setting: Setting) -> str:
    return (
        "" if percentile is None else f", more than in {percentile:.0f} % of the {setting.images}"
    )


def word_lines(analysis: Analysis) -> list[str]:
    """Lines on classes and concepts gained or lost beyond chance; none if chance is unknown."""
    if not analysis.judged:
        return []
    lists = [
        ("classes gained", "as_contrast_deg", analysis.classes_gained),
        ("classes lost", "as_contrast_deg", analysis.classes_lost),
    ]
    lists += [
        ("concepts gained", "as_deg", analysis.gained),
        ("concepts lost", "as_deg", analysis.lost),
    ]
    found = [
        f"{name} beyond chance: "
        f"{', '.join(f'{text.text} {getattr(text, score):+.2f}' for text in texts[:LISTED])}"
        for name, score, texts in lists
        if texts
    ]
    return found or ["no word is gained or lost beyond chance"]
