import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from singflow.figures import plot_angle_ladder
from singflow.figures.plot_pictures import FIGURES as STEP
from singflow.figures.style import save
from singflow.pictures.rendering import TYPES, picture_table
from tests.figures.drawn import words

PROMPTS = ["an image of a jellyfish", "an image of a <b>$pirate$</b>"]
FIGURES = STEP | {"fig10": plot_angle_ladder.draw}
MOVED = {"is_deg": 7.61, "as_label_deg": -0.42, "as_text_deg": 1.5, "logit_change": 2e-7}
MOVED |= {"neighbour_deg": 31.25}
REACHED, NOT_REACHED = (4.0, {}), (36.2, {"is_deg": np.nan, "picture": b"", "draw": -1})


def tile(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), (shade, 0, 255 - shade)).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(renderer="retrieval", closeup=True, prompts=PROMPTS, images=(4, 9)):
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
        draws = [(change, draw) for change in perturbed for draw in (0, 1, 2)]
        parts += [("fig13", first, change, MOVED | {"draw": draw}) for change, draw in draws]
    blank = dict.fromkeys(TYPES, np.nan) | {"kind": "linear", "text": "", "renderer": renderer}
    blank |= {"draw": 0, "neighbour_id": 2}
    return picture_table(
        blank
        | {"figure": figure, "image_id": image, "label": f"label {image}", "change": change}
        | {"picture": tile(7 * number % 256)}
        | values
        for number, (figure, image, change, values) in enumerate(parts)
    )


def draw(figure, sets, null_dim=280):
    rows = [{"space": s, "model": m} for s, models in sets.items() for m in models]
    table = pd.DataFrame(rows).assign(marks="weak translator", null_dim=null_dim)
    return FIGURES[figure](sets, table)


def shown(figure):
    return [axes for axes in figure.axes if axes.images]


COUNTS = {"fig1": 6, "fig6": 8, "fig10": 3, "fig11": 5, "fig13": 13}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_every_picture_has_its_place_and_its_angles(name, count):
    figure = draw(name, {"space": {"timm/a.b": pictures()}})
    assert len(shown(figure)) == count
    for said in ("photo at 31.2°", "real photo nearest", "a.b", "weak translator"):
        assert said in words(figure)


def test_the_pictures_stand_where_the_rows_say():
    frame = pictures()
    grid = shown(draw("fig1", {"space": {"m": frame}}))
    photos = frame[frame["figure"] == "photo"]
    changed = frame[frame["figure"] == "fig1"]
    expected = [*photos["picture"], *changed["picture"]]
    for axes, content in zip(grid, expected, strict=True):
        whole = np.asarray(Image.open(io.BytesIO(content)))
        assert np.array_equal(axes.images[0].get_array(), whole[:, 4:28])


def test_scores_are_toward_the_prompt_where_there_is_one_and_toward_the_label_elsewhere():
    sets = {"space": {"m": pictures()}}
    steered = words(draw("fig6", sets))
    assert "IS 7.6°, AS +1.5°" in steered and "AS -0.4°" not in steered
    assert "IS 7.6°, AS -0.4°" in words(draw("fig1", sets))


def test_a_step_out_of_reach_is_named_and_seeds_of_a_generator_are():
    sets = {"space": {"m": pictures("unclip")}}
    assert "out of reach" in words(draw("fig10", sets))
    text = words(draw("fig13", sets))
    assert "seed 0" in text and "UnCLIP generator" in text and "photo at" not in text
    assert "neighbour 1" in words(draw("fig13", {"space": {"m": pictures()}}))


ONE = {"m": pictures()}
CASES = {
    "many": {"one": {f"model_{number}": pictures(closeup=number == 3) for number in range(16)}},
    "no prompts": {"one": {"m": pictures(prompts=[])}},
    "no null space": {"one": ONE},
    "two spaces": {"one": ONE, "two": {"m": pictures("unclip")}},
}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("case", CASES)
def test_every_study_can_be_drawn(tmp_path, name, case):
    flat = case == "no null space"
    figure = draw(name, CASES[case], null_dim=0 if flat else 280)
    assert ("(no null space)" in words(figure)) == flat
    save(figure, tmp_path / "f.png", tmp_path / "f.pdf")
    assert Image.open(tmp_path / "f.png").width > 300


def test_the_ladder_has_a_row_a_step():
    sets = {"one": {"other": pictures(closeup=False), "m": pictures()}}
    manifest = pd.DataFrame({"path": [f"{number}.jpg" for number in range(10)]})
    ladder = plot_angle_ladder.tabulate(sets, manifest)
    assert list(ladder["path"]) == ["4.jpg"] * 3 and (ladder["model"] == "m").all()
    assert list(ladder["reachable"]) == [True, True, False]
    assert ladder["target_is_deg"].tolist()[1:] == [4.0, 36.2]
