import io
from functools import partial

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Annotation
from PIL import Image

from singflow.figures import plot_pictures
from singflow.figures.plot_closeups import CLOSEUPS, draw_closeup, tabulate
from singflow.pictures.rendering import TYPES, picture_table
from singflow.pictures.word_neighbours import ANGLES, WORDS
from tests.figures.drawn import finding, words

PROMPTS = ["an image of a jellyfish", "an image of a <b>$pirate$</b>"]
FIGURES = {"fig1": plot_pictures.draw, **{name: partial(draw_closeup, name) for name in CLOSEUPS}}
MOVED = {"is_deg": 7.61, "as_label_deg": -0.42, "as_text_deg": 1.5, "logit_change": 2e-7}
BEFORE, AFTER = ("wolf", "sheep", "grass"), ("wolf", "Old English sheepdog", "grass")
UNSAID = dict.fromkeys(WORDS, "") | dict.fromkeys(ANGLES, np.nan)
REACHED = 4.0, {}
NOT_REACHED = 36.2, {"is_deg": np.nan, "picture": b"", "draw": -1} | UNSAID


def tile(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), (shade, 0, 255 - shade)).save(buffer, "PNG")
    return buffer.getvalue()


def said(change, after):
    """The words of a picture and their angles."""
    near = {"photo": ("", "", ""), "original": BEFORE}.get(change, after)
    angles = zip(ANGLES, (41.25, 102.5, 103.0), strict=True)
    return dict(zip(WORDS, near, strict=True)) | dict(angles)


def pictures(renderer="unclip", closeup=True, prompts=PROMPTS, images=(4, 9), after=AFTER):
    first = images[0]
    parts = [("photo", image, "photo", {"renderer": "photo"}) for image in images]
    changes = ("original", "null removed")
    parts += [("fig1", image, change, MOVED) for image in images for change in changes]
    if closeup:
        for image in images:
            parts.append(("fig6", image, "original", MOVED))
            toward = ({"text": prompt, "target_is_deg": 10.0} for prompt in prompts)
            parts += [("fig6", image, "steered", MOVED | step) for step in toward]
        parts.append(("fig10", first, "original", MOVED | {"is_deg": 0.0}))
        for target, change in (REACHED, NOT_REACHED) if prompts else ():
            step = {"text": prompts[0], "target_is_deg": target, "is_deg": target} | change
            parts.append(("fig10", first, "steered", MOVED | step))
        kinds = [(kind, change) for kind in ("linear", "mlp3") for change in changes]
        parts += [("fig11", first, change, MOVED | {"kind": kind}) for kind, change in kinds]
        perturbed = ("original", "null", "random", "principal")
        every = (-1,) if renderer == "words" else (0, 1, 2)
        draws = [(change, draw) for change in perturbed for draw in every]
        parts += [("fig13", first, change, MOVED | {"draw": draw}) for change, draw in draws]
    blank = dict.fromkeys(TYPES, np.nan) | {"kind": "linear", "text": "", "renderer": renderer}
    blank |= {"draw": 0}
    return picture_table(
        blank
        | {"figure": figure, "image_id": image, "label": f"label {image}", "change": change}
        | {"picture": b"" if renderer == "words" and figure != "photo" else tile(7 * number % 256)}
        | said(change, after)
        | values
        for number, (figure, image, change, values) in enumerate(parts)
    )


def models_of(sets, **columns):
    rows = [{"space": s, "model": m} for s, models in sets.items() for m in models]
    return pd.DataFrame(rows).assign(**{"marks": "weak translator", "null_dim": 280} | columns)


def draw(figure, sets, **columns):
    return FIGURES[figure](sets, models_of(sets, **columns))


def shown(figure):
    return [axes for axes in figure.axes if axes.images]


LONG = ("WWW mmm WWW mmm WWW mmm WWW", "M" * 60, "an Old English sheepdog in a red coat")


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_has_its_place_and_its_words(name):
    frame = pictures()
    figure = draw(name, {"space": {"timm/a.b": frame}})
    wanted = frame[frame["figure"].isin(["photo", name]) & (frame["picture"] != b"")]
    wanted = wanted["picture"] if name in ("fig1", "fig6") else wanted["picture"].drop(1)
    whole = [np.asarray(Image.open(io.BytesIO(content)))[:, 4:28] for content in wanted]
    drawn = [axes.images[0].get_array() for axes in shown(figure)]
    assert sorted(map(bytes, drawn)) == sorted(map(bytes, whole))
    for text in ("wolf", "a.b", "weak translator"):
        assert text in words(figure)


def weights(figure):
    return [(text.get_text(), text.get_weight()) for text in figure.findobj(Annotation)]


def test_a_new_word_is_bold_but_for_a_known_zero_and_a_features_words_stand_there_once():
    sets = {"space": {"m": pictures(after=("wolf", "goat", "sheep"))}}
    for name in FIGURES:
        found = dict(weights(draw(name, sets)))
        assert found["goat"] == "bold" and {found["wolf"], found["sheep"]} == {"normal"}
    zero = weights(draw("fig13", sets, marks="known zero"))
    assert {weight for _, weight in zero} == {"normal"}
    drawn_again = draw("fig13", {"space": {"m": pictures()}})
    assert [text for text, _ in weights(drawn_again)].count("wolf") == 4


def test_without_a_new_word_or_a_picture_a_model_has_no_row_and_without_rows_there_is_no_figure():
    same, new = pictures("words", after=BEFORE), pictures("words")
    figure = draw("fig1", {"space": {"same": same, "new": new}})
    rows = [text for text, _ in weights(figure)]
    assert "same" not in rows and rows.count("new") == 2
    said = "Photos that get a new word without their null component: new (weak translator) 2 of 2,"
    assert finding(figure) == f"{said} same (weak translator) 0 of 2"
    nothing = {"space": {"m": same}}
    assert draw("fig1", nothing) is draw("fig6", nothing) is None
    assert draw("fig1", {"space": {"m": new}}, marks="known zero") is None
    assert draw("fig10", {"space": {"m": pictures(closeup=False)}}) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fig6", "Steering gives new words in 4 of 4 pictures"),
        ("fig10", "The first new word comes at 4 degrees"),
        ("fig11", "Null removal gives new words in 2 of 2 translations"),
        ("fig13", "The logits move by 2e-07 (null), 2e-07 (random), 2e-07 (principal)"),
    ],
)
def test_a_closeup_says_what_it_finds(name, said):
    assert finding(draw(name, {"space": {"m": pictures("words")}})) == said
    if name == "fig10":
        same = {"space": {"m": pictures("words", after=BEFORE)}}
        assert finding(draw(name, same)) == "No new words up to 4.0 degrees"


def test_columns_beyond_six_go_on_below_and_rows_beyond_a_page_are_counted():
    prompts = [f"an image of a {number}" for number in range(9)]
    figure = draw("fig6", {"one": {"m": pictures("words", prompts=prompts, images=(4,))}})
    (first,) = shown(figure)[:1]
    heads = {text.get_text(): text for text in figure.findobj(Annotation)}
    below = heads[prompts[8]].get_window_extent()
    assert below.y1 <= first.get_window_extent().y0 and "do not fit" not in words(figure)
    many = {"one": {f"model_{number}": pictures() for number in range(16)}}
    figure = draw("fig1", many, null_dim=0)
    told = words(figure).replace("\n", " ")
    assert "further rows do not fit" in told and "(no null space)" in told


def test_the_ladder_has_a_row_a_step():
    sets = {"one": {"other": pictures(closeup=False), "m": pictures()}}
    manifest = pd.DataFrame({"path": [f"{number}.jpg" for number in range(10)]})
    ladder = tabulate(sets, manifest)
    assert list(ladder["path"]) == ["4.jpg"] * 3 and (ladder["model"] == "m").all()
    assert list(ladder["reachable"]) == [True, True, False]
    assert ladder["target_is_deg"].tolist()[1:] == [4.0, 36.2]
