"""The doctor's check of a cluster, on a real Slurm."""

import re

import pytest

from tests.parts.cluster.conftest import ClusterProject

pytestmark = pytest.mark.nightly

PROFILE, ACCOUNT = "slurm/config.yaml", "  slurm_account: trial"


@pytest.fixture
def site(slurm, tmp_path):
    """A checkout with the profile of this Slurm."""
    return ClusterProject(tmp_path)


def test_a_cluster_as_the_profile_expects_it_takes_every_job_and_gets_none(slurm, site):
    said = site.command("doctor")
    assert re.search(r"^ok      slurm    takes .* each of \d+ steps, \d with a GPU$", said, re.M)
    assert "fail" not in said and slurm.jobs() == {}
    site.edit(PROFILE, "# (set-resources:.*?)# ---", "set-resources:\n  embed_images: *gpu\n# ---")
    site.edit(PROFILE, r"\*gpu", '{gpu: 0, gres: "gpu:1"}')
    assert " with a GPU\n" in site.command("doctor")
    site.edit(PROFILE, "# (slurm-partition-config)", "slurm-partition-config")
    assert "jobs are not tried, as slurm/partitions.yaml chooses" in site.command("doctor")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (ACCOUNT, "  slurm_account: me", r"--account=me .*\(\w+\): .*Invalid account"),
        (ACCOUNT, f"{ACCOUNT}\nset-resources:\n  embed_images: {{gpu: 5}}", "--gpus=5 .*_images"),
        ("retries: 2", "retriez: 2", "unrecognized arguments: --retriez"),
    ],
)
def test_a_request_is_refused_with_the_words_of_the_scheduler(slurm, site, old, new, said):
    site.edit(PROFILE, old, new)
    (found,) = re.findall("^fail    slurm    (.*)", site.refused("singflow", "doctor"), re.M)
    assert re.search(said, found) and slurm.jobs() == {}, found
