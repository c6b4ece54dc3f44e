import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from singflow.analyses.metrics import unit
from singflow.pictures import neighbours
from singflow.pictures.neighbours import Index, exact_neighbours, first_copies


def gallery_of(embeddings, blocks=3):
    parts = np.array_split(np.arange(len(embeddings)), blocks)
    return lambda: [(part, embeddings[part]) for part in parts]


def normal(rows, width, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


ALL_DIFFERENT = np.arange(500)


@pytest.mark.parametrize("sizes", [(1024, 8192, 16384), (7, 11, 5)])
def test_the_neighbours_are_scikit_learns_by_cosine_distance(monkeypatch, sizes):
    for name, size in zip(("QUERIES", "CANDIDATES", "PAIRS"), sizes, strict=True):
        monkeypatch.setattr(neighbours, name, size)
    embeddings, points = normal(500, 24), normal(40, 24, 1)
    found = exact_neighbours(points, np.full(40, -1), gallery_of(embeddings), ALL_DIFFERENT, 6)
    theirs = NearestNeighbors(n_neighbors=6, metric="cosine", algorithm="brute")
    theirs = theirs.fit(unit(embeddings)).kneighbors(unit(points))
    assert np.array_equal(found.image_id, theirs[1])
    assert np.cos(np.radians(found.angle_deg)) == pytest.approx(1 - theirs[0], abs=1e-9)


def test_an_image_is_never_its_own_neighbour_nor_is_a_copy_of_it():
    embeddings = normal(500, 24)
    embeddings[40] = embeddings[7]
    content, own = ALL_DIFFERENT.copy(), np.array([7, 40, 9, -1])
    content[40] = 7
    points = embeddings[[7, 40, 9, 7]]
    found = exact_neighbours(points, own, gallery_of(embeddings), content, 5)
    first, copy, other, none = found.image_id
    assert not np.isin([*first, *copy], [7, 40]).any() and 9 not in other and 40 not in none
    assert [*first_copies(pd.Series([*"abacb"]))] == [0, 1, 0, 3, 1]


@pytest.mark.parametrize("blocks", [1, 4, 50])
def test_ties_go_to_the_lowest_image_id_however_the_gallery_is_cut(blocks):
    embeddings = normal(50, 24)
    embeddings[5:35] = embeddings[5]
    gallery = gallery_of(embeddings, blocks)
    found = exact_neighbours(embeddings[[5]], np.array([20]), gallery, np.arange(50), 8)
    assert list(found.image_id[0]) == list(range(5, 13)) and (found.angle_deg == 0).all()


RAW = arrays(np.float32, (12, 3), elements=st.floats(-4, 4, width=32))


@settings(max_examples=60)
@given(RAW, st.integers(1, 14), st.integers(1, 12))
def test_every_angle_is_found_in_order_and_none_is_missing(raw, count, blocks):
    embeddings = raw + np.array([5, 0, 0], dtype=np.float32)
    content = np.arange(12)
    found = exact_neighbours(embeddings, content, gallery_of(embeddings, blocks), content, count)
    expected = neighbours.angle_deg(embeddings[:, None], embeddings[None])
    for row in range(12):
        order = sorted((expected[row, image], image) for image in range(12) if image != row)[:count]
        missing = [-1] * (count - len(order))
        assert list(found.image_id[row]) == [image for _, image in order] + missing
        assert np.isnan(found.angle_deg[row][len(order) :]).all()


@pytest.mark.parametrize("count", [1, 4])
def test_the_index_finds_what_exact_search_finds(monkeypatch, tmp_path, count):
    monkeypatch.setattr(neighbours, "CELL", 40)
    centres = np.repeat(normal(40, 32), 50, axis=0)
    embeddings = centres + 0.3 * normal(2000, 32, 1)
    content, own = np.arange(2000), np.arange(0, 2000, 9)
    content[1999] = 3
    exact = exact_neighbours(embeddings[own], own, gallery_of(embeddings), content, count)
    for probes, share in ((50, 1.0), (8, 0.98), (1, 0.5)):
        monkeypatch.setattr(neighbours, "PROBES", probes)
        index = Index(gallery_of(embeddings), content, tmp_path)
        found = index.neighbours(embeddings[own], own, count)
        same = found.image_id == exact.image_id
        assert share <= same.mean() and (probes > 1 or same.mean() < 1)
        assert not (found.image_id == own[:, None]).any()
        assert found.angle_deg[same] == pytest.approx(exact.angle_deg[same], abs=1e-4)


def test_the_index_finds_the_same_however_the_gallery_is_cut_and_with_any_number_of_threads(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(neighbours, "CELL", 30)
    monkeypatch.setattr(neighbours, "PROBES", 6)
    embeddings, points = normal(5000, 48), normal(700, 48, 1)
    found = []
    for blocks, threads, size in ((1, 1, 8192), (7, 2, 8192), (7, 3, 5)):
        monkeypatch.setattr(neighbours, "QUERIES", size)
        with threadpool_limits(threads):
            index = Index(gallery_of(embeddings, blocks), np.arange(5000), tmp_path)
            found.append(index.neighbours(points, np.full(700, -1), 3))
    for again in found[1:]:
        assert np.array_equal(again.image_id, found[0].image_id)
        assert np.array_equal(again.angle_deg, found[0].angle_deg)


def test_the_index_of_a_single_image_finds_it_and_nothing_else(tmp_path):
    index = Index(gallery_of(normal(1, 8), 1), np.arange(1), tmp_path)
    found = index.neighbours(normal(2, 8, 1), np.array([-1, 0]), 2)
    assert found.image_id.tolist() == [[0, -1], [-1, -1]]
    assert not any(tmp_path.iterdir())
