"""Many more files than ../test_hardening.py lists."""

from tests.test_hardening import work_of_listing


def test_the_work_of_listing_and_drawing_grows_no_faster_than_a_hundred_thousand_files(tmp_path):
    work = work_of_listing(tmp_path, 10_000, 100_000)
    assert work[100_000] < 12 * work[10_000]
