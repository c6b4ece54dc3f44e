import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from singflow.figures import plot_angle_ladder
from singflow.figures.plot_pictures import (
    draw_equivalents,
    draw_perturbations,
    draw_steered,
    draw_translators,
)
from singflow.figures.style import save
from singflow.pictures.rendering import TYPES, picture_table

PROMPTS = ["an image of a jellyfish", "an image of a <b>$pirate$</b>"]


@pytest.fixture(autouse=True)
def closed():
    """Figures that are looked at and not saved stay open otherwise."""
    yield
    plt.close("all")


FIGURES = [
    draw_equivalents,
    draw_steered,
    plot_angle_ladder.draw,
    draw_translators,
    draw_perturbations,
]


def tile(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), (shade, 0, 255 - shade)).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(renderer="retrieval", closeup=True, prompts=PROMPTS, images=(4, 9)):
    blank = dict.fromkeys(TYPES, np.nan) | {
        "kind": "linear",
        "text": "",
        "renderer": renderer,
        "draw": 0,
        "neighbour_id": 2,
    }
    rows = []

    def add(figure, image, change, **values):
        shade = 7 * len(rows) % 256
        rows.append(
            blank
            | {
                "figure": figure,
                "image_id": image,
                "label": f"label {image}",
                "change": change,
                "picture": tile(shade),
            }
            | values
        )

    def moved(**values):
        return {
            "is_deg": 7.61,
            "as_label_deg": -0.42,
            "as_text_deg": 1.5,
            "logit_change": 2e-7,
            "neighbour_deg": 31.25,
        } | values

    for image in images:
        add("photo", image, "photo", renderer="photo")
    for image in images:
        add("fig1", image, "original", **moved())
        add("fig1", image, "null removed", **moved())
    if closeup:
        for image in images:
            add("fig6", image, "original", **moved())
            for prompt in prompts:
                add("fig6", image, "steered", **moved(text=prompt, target_is_deg=10.0))
        add("fig10", images[0], "original", **moved(is_deg=0.0))
        for target in (4.0, 36.2) if prompts else ():
            add(
                "fig10",
                images[0],
                "steered",
                **moved(
                    text=prompts[0],
                    target_is_deg=target,
                    is_deg=target if target < 30 else np.nan,
                    picture=tile(3) if target < 30 else b"",
                    draw=0 if target < 30 else -1,
                ),
            )
        for kind in ("linear", "mlp3"):
            for change in ("original", "null removed"):
                add("fig11", images[0], change, **moved(kind=kind))
        for change in ("original", "null", "random", "principal"):
            for draw in (0, 1, 2):
                add("fig13", images[0], change, **moved(draw=draw))
    return picture_table(rows)


def table(sets, null_dim=280):
    rows = [
        {"space": s, "model": m, "marks": "weak translator", "null_dim": null_dim}
        for s, models in sets.items()
        for m in models
    ]
    return pd.DataFrame(rows)


def shown(figure):
    return [axes for axes in figure.axes if axes.images]


def texts(figure):
    words = [text.get_text() for text in figure.texts]
    return "\n".join(
        [
            *words,
            *(axes.get_title() for axes in figure.axes),
            *(axes.get_xlabel() for axes in figure.axes),
        ]
    )


@pytest.mark.parametrize(
    ("draw", "count"),
    [
        (draw_equivalents, 6),
        (draw_steered, 8),
        (plot_angle_ladder.draw, 3),
        (draw_translators, 5),
        (draw_perturbations, 13),
    ],
)
def test_every_picture_has_its_place_and_its_angles(draw, count):
    sets = {"space": {"timm/a.b": pictures()}}
    figure = draw(sets, table(sets))
    assert len(shown(figure)) == count
    words = texts(figure)
    assert (
        "photo at 31.2°" in words
        and "real photo nearest" in words
        and "a.b" in words
        and "weak translator" in words
    )


def test_the_pictures_stand_where_the_rows_say():
    frame = pictures()
    sets = {"space": {"m": frame}}
    grid = shown(draw_equivalents(sets, table(sets)))
    expected = [
        *frame.loc[frame["figure"] == "photo", "picture"],
        *frame.loc[frame["figure"] == "fig1", "picture"],
    ]
    for axes, content in zip(grid, expected, strict=True):
        assert np.array_equal(
            axes.images[0].get_array(), np.asarray(Image.open(io.BytesIO(content)))[:, 4:28]
        )


def test_scores_are_toward_the_prompt_where_there_is_one_and_toward_the_label_elsewhere():
    sets = {"space": {"m": pictures()}}
    assert "IS 7.6°, AS +1.5°" in texts(
        draw_steered(sets, table(sets))
    ) and "AS -0.4°" not in texts(draw_steered(sets, table(sets)))
    assert "IS 7.6°, AS -0.4°" in texts(draw_equivalents(sets, table(sets)))


def test_a_step_out_of_reach_is_named_and_seeds_of_a_generator_are():
    sets = {"space": {"m": pictures("unclip")}}
    assert "out of reach" in [
        text.get_text()
        for axes in plot_angle_ladder.draw(sets, table(sets)).axes
        for text in axes.texts
    ]
    words = texts(draw_perturbations(sets, table(sets)))
    assert "seed 0" in words and "UnCLIP generator" in words and "photo at" not in words
    retrieved = {"space": {"m": pictures()}}
    assert "neighbour 1" in texts(draw_perturbations(retrieved, table(retrieved)))


@pytest.mark.parametrize("draw", FIGURES)
@pytest.mark.parametrize("case", ["many", "no prompts", "no null space", "two spaces"])
def test_every_study_can_be_drawn(tmp_path, draw, case):
    models = (
        {f"model_{number}": pictures(closeup=number == 3) for number in range(16)}
        if case == "many"
        else {"m": pictures()}
    )
    if case == "no prompts":
        models = {"m": pictures(prompts=[])}
    sets = (
        {"one": models, "two": {"m": pictures("unclip")}}
        if case == "two spaces"
        else {"one": models}
    )
    figure = draw(sets, table(sets, null_dim=0 if case == "no null space" else 280))
    if case == "no null space":
        assert "(no null space)" in texts(figure)
    save(figure, tmp_path / "f.png", tmp_path / "f.pdf")
    assert Image.open(tmp_path / "f.png").width > 300


def test_the_ladder_has_a_row_a_step():
    sets = {"one": {"other": pictures(closeup=False), "m": pictures()}}
    manifest = pd.DataFrame({"path": [f"{number}.jpg" for number in range(10)]})
    ladder = plot_angle_ladder.tabulate(sets, manifest)
    assert list(ladder["path"]) == ["4.jpg"] * 3 and list(ladder["reachable"]) == [
        True,
        True,
        False,
    ]
    assert ladder["target_is_deg"].tolist()[1:] == [4.0, 36.2] and (ladder["model"] == "m").all()
