"""Benchmarks of every step of dvc.yaml, in a process per step; ../test_benchmarks.py has a few."""

import pytest

from tests.project import Project
from tests.test_benchmarks import STEPS, growing, load, measured, run  # noqa: F401


def test_every_step_is_measured():
    measured(STEPS)


def test_the_growth_of_every_step_is_measured(load):  # noqa: F811
    left_out = {*load("growth").MADE_UP, "write_report"}  # whose page shows each of so few images
    growing([step for step in STEPS if step not in left_out])


@pytest.mark.parametrize(("ease", "status"), [(100, 0), (0.001, 1)])
def test_the_engines_own_time_is_held_to_its_mark(tmp_path, ease, status):
    repository = Project(tmp_path / "repository").folder
    flags = ["--studies", "demo", "--repeats", 1, "--ease", ease]
    said, log = run("engines", *flags, root=repository, status=status)
    header, row = map(str.split, said.splitlines()[:2])
    assert header[:2] == ["study", "artifacts"] and row[0] == "demo" and int(row[1]) > 100
    assert all(float(seconds) >= 0 for seconds in row[2:])
    assert ("error: missed: demo: seconds of snakemake" in log) == bool(status)
