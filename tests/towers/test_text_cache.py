import hashlib
import threading

import numpy as np
import pytest

from singflow.errors import InputError
from singflow.towers.text_cache import CHUNK, MANY, TextCache
from tests import PATIENCE


class Tower:
    """Embeds a text by its hash and remembers what it was asked for."""

    def __init__(self):
        self.seen = []

    def __call__(self, texts):
        self.seen.append(list(texts))
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) for text in texts]
        return np.array(
            [np.random.default_rng(seed).standard_normal(8) for seed in seeds], dtype=np.float32
        )


def cache_of(folder, tower, **facts):
    return TextCache({"weights_sha256": "a", "batch_size": 64, **facts}, tower, 10, folder)


def words(count):
    return [f"word {number}" for number in range(count)]


def test_what_is_found_again_is_what_was_computed_to_the_byte(tmp_path):
    tower, texts = Tower(), words(CHUNK + 10)
    first = cache_of(tmp_path, tower)(texts)
    assert [len(seen) for seen in tower.seen] == [CHUNK, 10] and [
        text for seen in tower.seen for text in seen
    ] == texts
    again = cache_of(tmp_path, tower)(texts)
    assert len(tower.seen) == 2
    assert (
        first.dtype == again.dtype == np.float32
        and first.tobytes() == again.tobytes() == Tower()(texts).tobytes()
    )


def test_appended_lines_embed_the_last_chunk_and_what_is_new_alone(tmp_path):
    cache_of(tmp_path, Tower())(words(2 * CHUNK + 5))
    tower = Tower()
    longer = cache_of(tmp_path, tower)(words(3 * CHUNK + 1))
    assert [(seen[0], len(seen)) for seen in tower.seen] == [
        (f"word {2 * CHUNK}", CHUNK),
        (f"word {3 * CHUNK}", 1),
    ]
    np.testing.assert_array_equal(longer, Tower()(words(3 * CHUNK + 1)))


@pytest.mark.parametrize(
    "changed", [{"weights_sha256": "b"}, {"batch_size": 32}, {"device": "cpu"}]
)
def test_another_fact_is_another_embedding(tmp_path, changed):
    cache_of(tmp_path, Tower())(words(3))
    tower = Tower()
    cache_of(tmp_path, tower, **changed)(words(3))
    assert len(tower.seen) == 1


def test_many_new_texts_are_announced_with_the_time_that_they_take_and_a_few_are_not(
    tmp_path, caplog, monkeypatch
):
    caplog.set_level("INFO")
    clock = iter([0.0, 30.0])
    monkeypatch.setattr("singflow.towers.text_cache.time.perf_counter", lambda: next(clock))
    cache_of(tmp_path, Tower())(words((MANY - 1) * CHUNK))
    assert not caplog.records
    told, tower = (2 * MANY - 1) * CHUNK, Tower()
    cache_of(tmp_path, tower)(words(told))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        f"{MANY * CHUNK} of {told} texts are new: embedding them takes about "
        f"{MANY * CHUNK / 10 * 30 / 60:.1f} minutes"
    )
    assert [len(seen) for seen in tower.seen] == [10, *[CHUNK] * MANY]


def test_the_order_and_the_ends_of_texts_are_part_of_their_name(tmp_path):
    cache_of(tmp_path, Tower())(["a", "bc"])
    for texts in (["bc", "a"], ["ab", "c"], ["a", "bc", ""]):
        np.testing.assert_array_equal(cache_of(tmp_path, tower := Tower())(texts), Tower()(texts))
        assert tower.seen == [texts]


def truncate(content):
    return content[: len(content) // 2]


def flip(content):
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


def poison(content):
    return content[:-4] + np.float32(np.nan).tobytes()


def empty(content):
    return b""


@pytest.mark.parametrize("damage", [truncate, flip, poison, empty])
def test_a_damaged_file_is_never_trusted_but_embedded_again_and_mended(tmp_path, caplog, damage):
    first = cache_of(tmp_path, Tower())(words(20))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    tower = Tower()
    again = cache_of(tmp_path, tower)(words(20))
    assert first.tobytes() == again.tobytes() and len(tower.seen) == 1
    assert path.read_bytes() == whole
    assert path.name in caplog.text and "its 20 texts are embedded again" in caplog.text


def test_two_jobs_that_write_the_same_file_both_get_their_texts(tmp_path):
    together, results = threading.Barrier(2), []

    def tower(texts):
        together.wait(timeout=PATIENCE)
        return Tower()(texts)

    jobs = [
        threading.Thread(target=lambda: results.append(cache_of(tmp_path, tower)(words(50))))
        for _ in range(2)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len(results) == 2 and results[0].tobytes() == results[1].tobytes()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        InputError, match=r"prompts.cache .*file: cannot be written to .*name another folder"
    ):
        cache_of(tmp_path / "file", Tower())(words(2))
