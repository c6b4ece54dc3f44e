"""Benchmarks of every step of dvc.yaml, in a process per step; ../test_benchmarks.py has a few."""

import pytest

from tests.project import Project
from tests.test_benchmarks import GROWTH, SMALL, STEPS, growing, measured, run


def test_every_step_is_measured():
    measured(run("memory", *SMALL, "--limit_gb", "0.01"), STEPS)


def test_the_growth_of_every_step_is_measured():
    made_up = (
        "resolve_model",
        "resolve_space",
        "extract_head",
        "extract_features",
        "embed_images",
        "embed_prompts",
    )
    steps = [
        step for step in STEPS if step not in (*made_up, "write_report")
    ]  # whose page shows each of so few images
    growing(run("growth", *GROWTH, "--steps", *steps), steps)


@pytest.mark.parametrize(("limit", "status"), [("1200", 0), ("0.001", 1)])
def test_the_engines_own_time_is_held_to_its_limit(tmp_path, limit, status):
    repository = Project(tmp_path / "repository").folder
    finished = run(
        "engines", "--studies", "demo", "--repeats", "1", "--limit_s", limit, root=repository
    )
    assert finished.returncode == status, finished.stderr[-3000:]
    header, row = finished.stdout.splitlines()
    assert (
        header.split()[:2] == ["study", "artifacts"]
        and row.split()[0] == "demo"
        and int(row.split()[1]) > 100
    )
    assert all(float(seconds) >= 0 for seconds in row.split()[2:])
    assert ("above the limit of 0.001 s" in finished.stderr) == bool(status)
