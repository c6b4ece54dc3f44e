import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from singflow.concepts import CHUNK, ConceptScan
from singflow.metrics import Removal, angle_deg, unit

LABELS, CONCEPTS = ["a", "b", "c"], ["p", "q", "r", "s"]


def removal_of(generator, n):
    original = generator.standard_normal((n, 16)) + 0.3
    return Removal(original, original + 0.2 * generator.standard_normal((n, 16)))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_moments_are_those_of_the_angles_however_the_rows_are_split(seed, cut):
    generator = np.random.default_rng(seed)
    texts = unit(generator.standard_normal((4, 16)))
    removal, codes = removal_of(generator, 40), np.concatenate([[0, 1, 2], generator.integers(0, 3, 37)])
    scan = ConceptScan(3, texts)
    for part in (slice(0, cut), slice(cut, 40)):
        scan.update(codes[part], Removal(removal.original[part], removal.equivalent[part]))
    table = scan.table(LABELS, CONCEPTS).set_index(["label", "concept"])
    for code, label in enumerate(LABELS):
        mine = codes == code
        for text, concept in zip(texts, CONCEPTS, strict=True):
            target = np.broadcast_to(text, removal.original[mine].shape)
            angle = angle_deg(removal.original[mine], target)
            score = angle - angle_deg(removal.equivalent[mine], target)
            row = table.loc[(label, concept)]
            expected = [mine.sum(), angle.mean(), angle.std(), score.mean(), score.std(), np.abs(score).mean()]
            np.testing.assert_allclose(row.to_numpy(float), expected, atol=2e-4)


def test_more_rows_than_a_chunk_are_all_counted():
    generator = np.random.default_rng(0)
    n = 2 * CHUNK + 3
    scan = ConceptScan(1, unit(generator.standard_normal((2, 16))))
    scan.update(np.zeros(n, dtype=int), removal_of(generator, n))
    assert (scan.table(["a"], ["p", "q"])["n"] == n).all()


def test_a_planted_concept_that_null_removal_takes_away_is_the_strongest():
    generator = np.random.default_rng(0)
    texts = unit(generator.standard_normal((50, 64)))
    kept = generator.standard_normal((30, 64))
    kept -= (kept @ texts[17])[:, None] * texts[17]
    scan = ConceptScan(1, texts)
    scan.update(np.zeros(30, dtype=int), Removal(kept + 4 * texts[17], kept))
    table = scan.table(["a"], [str(i) for i in range(50)])
    assert table["as_abs_mean"].idxmax() == 17
    assert table.loc[17, "as_mean"] < -10
