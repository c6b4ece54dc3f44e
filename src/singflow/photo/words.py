"""One image's analysis in words."""

from singflow.photo.analysis import Analysis, Beside, Movement, Reach, Setting

SHARE = 0.05  # of null components without content that may turn the meaning as far as one that is more than its floor


def describe(image: str, analysis: Analysis, setting: Setting) -> str:
    """The analysis in a few lines of text.

    Parameters
    ----------
    image : str
        What the image is called.
    analysis : Analysis
        Its scores.
    setting : Setting
        What they rest on.

    Returns
    -------
    str
        Lines.
    """
    likeliest, others = prediction_lines(analysis)
    lines = [others, *removal_lines(analysis, setting), *(f"classes {line}" for line in _named(analysis, "as_contrast_deg", "classes_"))]
    lines += [f"toward {each.text!r}: {movement_line(each)}" for each in [analysis.predicted, *analysis.texts]]
    lines += [f"concepts {line}" for line in _named(analysis, "as_deg", "")] if analysis.gained or analysis.lost else []
    lines += [f"steered toward {each.text!r}: {reach_line(each)}" for each in analysis.reach]
    lines += energy_lines(analysis, setting)
    if analysis.nearest:
        before, after = (f"{each.path} ({each.angle_deg:.1f} degrees)" for each in analysis.nearest)
        lines.append(f"nearest photo of the {setting.images}: {before}; after null removal: {after}")
    return "\n".join([f"{image}: {likeliest}", *(f"  {line}" for line in lines)])


def _named(analysis: Analysis, score: str, kind: str) -> list[str]:
    """The strongest classes or concepts either way, with their scores."""
    return [
        f"{name}: " + (", ".join(f"{each.text} {getattr(each, score):+.2f}" for each in getattr(analysis, kind + name)[:3]) or "none")
        for name in ("gained", "lost")
    ]


def prediction_lines(analysis: Analysis) -> tuple[str, str]:
    """The likeliest class, and those that follow, in words.

    Parameters
    ----------
    analysis : Analysis
        Of one image.

    Returns
    -------
    likeliest, others : str
        A line each.
    """
    first, *others = [f"{each.name} ({100 * each.probability:.1f} %)" for each in analysis.predictions]
    return first, f"then {', '.join(others)}"


def movement_line(movement: Movement) -> str:
    """AS and the angles behind it, in words.

    Parameters
    ----------
    movement : Movement
        Toward one text.

    Returns
    -------
    str
        One line, in degrees.
    """
    angles = f"{movement.angle_original_deg:.1f} to {movement.angle_equivalent_deg:.1f}"
    return f"AS {movement.as_deg:+.2f} degrees ({angles}), {movement.as_contrast_deg:+.2f} beyond the other classes"


def reach_line(way: Reach) -> str:
    """How far a photo can be steered, in words.

    Parameters
    ----------
    way : Reach
        Toward one text.

    Returns
    -------
    str
        One line, in degrees.
    """
    if not way.limit_deg:
        return "the null space offers no way there"
    far = "which no step quite reaches" if way.step is None else f"by {way.step:.1f} times its null component"
    return f"from {way.angle_deg:.1f} to {way.nearest_deg:.1f} degrees with the same logits, turned by {way.is_deg:.1f}, {far}"


def removal_lines(analysis: Analysis, setting: Setting) -> list[str]:
    """How far removal turns the meaning, in words.

    Parameters
    ----------
    analysis : Analysis
        Of one image.
    setting : Setting
        What it rests on; a weak translator is named.

    Returns
    -------
    list of str
        Lines.
    """
    lines = [beside_line("null removal turns its meaning by IS", analysis.removal, setting)]
    lines += [beside_line("conditional removal by", analysis.conditional, setting)] if analysis.conditional else []
    if analysis.as_abs_percentile is not None:
        size = abs(analysis.predicted.as_deg)
        lines.append(
            f"|AS| toward the predicted class {size:.2f} degrees, above {analysis.as_abs_percentile:.0f} % of the {setting.images}"
        )
    lines += [each for each in (analysis.note, setting.note) if each]
    if setting.translator == "weak":
        lines.append(
            f"WEAK TRANSLATOR, held-out R2 {setting.validation_r2:.2f}: this shows how the method works, not what the model ignores"
        )
    return lines


def beside_line(name: str, score: Beside, setting: Setting) -> str:
    """A score beside its floor and among known images, in words.

    Parameters
    ----------
    name : str
        What stands before it.
    score : Beside
        It.
    setting : Setting
        What the images are called.

    Returns
    -------
    str
        One line, in degrees.
    """
    line = f"{name} {score.deg:.2f} degrees"
    if score.floor_deg is not None and score.floor_share is not None:
        than = "more" if score.floor_share < SHARE else "no more"
        line += f", {than} than its floor ({score.floor_deg:.2f}, from {score.floor_low_deg:.2f} to {score.floor_high_deg:.2f})"
    return line if score.percentile is None else f"{line}; above {score.percentile:.0f} % of the {setting.images}"


def energy_lines(analysis: Analysis, setting: Setting) -> list[str]:
    """Null energy and what is usual, in words.

    Parameters
    ----------
    analysis : Analysis
        Of one image.
    setting : Setting
        What the images are called that it is compared with.

    Returns
    -------
    list of str
        Lines.
    """
    usual = ""
    if analysis.null_energy_usual is not None:
        low, high = (100 * each for each in analysis.null_energy_usual)
        place = f"above {analysis.null_energy_percentile:.0f} % of the {setting.images}"
        usual = f", {place}, where {low:.1f} to {high:.1f} % is usual"
    return [f"null energy {100 * analysis.null_energy:.1f} %{usual}; logits change by {analysis.logit_change:.1e}"]
