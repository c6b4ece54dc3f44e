"""The tests of others that docs/evidence.py --rivals compares with D, on data made here."""

import runpy
import sys

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge

from singflow.analyses.bands import PENALTIES, centred
from singflow.errors import InputError
from tests.project import ROOT

RIVALS = runpy.run_path(str(ROOT / "docs/rivals.py"))
N, RUNS = 60, 100
FOLD = np.arange(N) % 5


def test_cross_fitted_errors_are_those_of_scikit_learns_refits():
    normal = np.random.default_rng(0).standard_normal
    a, z = normal((N, 3)), normal((N, 2))
    level = N / np.trace(centred(a @ a.T))
    for penalty, made in zip(PENALTIES[::2], RIVALS["operators"](a @ a.T, FOLD), strict=True):
        for fold in range(5):
            out, kept = np.flatnonzero(fold == FOLD), np.flatnonzero(fold != FOLD)
            mean, middle = a[kept].mean(axis=0), z[kept].mean(axis=0)
            fit = KernelRidge(alpha=penalty / level).fit(a[kept] - mean, z[kept] - middle)
            expected = z[out] - middle - fit.predict(a[out] - mean)
            np.testing.assert_allclose((made @ z)[out], expected, atol=1e-4)


def planted(run, leak):
    """z (N, 3), a (N, 4) and b (N, 5): b follows a, and z follows a and, by the leak, b."""
    normal = np.random.default_rng(run).standard_normal
    a = normal((N, 4))
    b = a @ normal((4, 5)) + normal((N, 5))
    z = a @ normal((4, 3)) + normal((N, 3))
    z[:, 0] += leak * (b[:, 0] - b[:, 1])
    return z, a, b, np.random.default_rng([run, 1])


def by_gcm(z, a, b, generator):
    made = RIVALS["operators"](a @ a.T, FOLD)
    of_z, of_b = (RIVALS["cross_fitted"](made, columns) for columns in (z, b))
    return RIVALS["gcm"](of_z, of_b, generator)


def by_linear_gain(z, a, b, generator):
    both = (RIVALS["operators"](kernel, FOLD) for kernel in (a @ a.T, a @ a.T + b @ b.T))
    return RIVALS["linear_gain"](z, *both, generator)


@pytest.mark.parametrize("test", [by_gcm, by_linear_gain])
def test_the_rivals_of_ours_hold_their_level_and_find_leaks_where_all_is_linear(test):
    p = np.array([[test(*planted(run, leak)) for run in range(RUNS)] for leak in (0.0, 1.0)])
    wrong, right = (p <= 0.05).mean(axis=1)
    assert wrong <= 0.11 and right >= 0.9  # 0.11: 99 % of binomial draws at 5 %


def test_without_causal_learn_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "causallearn", None)
    for test, *more in (("kci", "median"), ("rcit",)):
        with pytest.raises(InputError, match=r"causal-learn .*constraints.* '\.\[rivals\]'$"):
            RIVALS[test](*np.ones((3, 4, 1)), *more)
