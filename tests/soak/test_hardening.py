"""Many more files than ../test_hardening.py lists."""

import pytest

from tests.test_hardening import work_of_listing


@pytest.mark.parametrize("labels", [False, True])
def test_the_work_of_listing_and_drawing_grows_no_faster_than_a_hundred_thousand_files(
    tmp_path, monkeypatch, labels
):
    work = work_of_listing(tmp_path, (10_000, 100_000), monkeypatch, labels=labels)
    assert work[100_000] < 12 * work[10_000]
