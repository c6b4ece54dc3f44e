import re

import numpy as np
import pytest

from singflow.towers.text_cache import CHUNK, TextCache
from tests.towers.models import made_up


class Tower:
    """Embeds texts and remembers what it was asked for."""

    def __init__(self):
        self.seen = []

    def __call__(self, texts):
        self.seen.append(list(texts))
        return made_up(texts)


def cache_of(folder, tower, **facts):
    facts = {"files": ["a"], "batch_size": 64, **facts}
    return TextCache(facts, tower, folder, hash_weights=lambda: "3f")


def words(count):
    return [f"word {number}" for number in range(count)]


def test_what_is_found_again_is_what_was_computed_to_the_byte(tmp_path):
    tower, texts = Tower(), words(CHUNK + 10)
    first = cache_of(tmp_path, tower)(texts)
    assert tower.seen == [texts[:CHUNK], texts[CHUNK:]]
    known = cache_of(tmp_path, pytest.fail)
    known.hash_weights = pytest.fail
    again = known(texts)
    assert known.weights_sha256 == "3f", "without a tower"
    assert len(tower.seen) == 2 and first.dtype == again.dtype == np.float32
    assert first.tobytes() == again.tobytes() == made_up(texts).tobytes()


def test_appended_lines_embed_the_last_chunk_and_what_is_new_alone(tmp_path):
    cache_of(tmp_path, Tower())(words(2 * CHUNK + 5))
    tower = Tower()
    longer = cache_of(tmp_path, tower)(words(3 * CHUNK + 1))
    asked = [(seen[0], len(seen)) for seen in tower.seen]
    assert asked == [(f"word {2 * CHUNK}", CHUNK), (f"word {3 * CHUNK}", 1)]
    np.testing.assert_array_equal(longer, made_up(words(3 * CHUNK + 1)))


def test_another_fact_or_other_ends_of_texts_are_another_embedding(tmp_path):
    texts = ["a", "bc"]
    cache_of(tmp_path, Tower())(texts)
    for changed in ({"files": ["b"]}, {"batch_size": 32}, {"device": "cpu"}):
        cache_of(tmp_path, tower := Tower(), **changed)(texts)
        assert tower.seen == [texts]
    for texts in (["bc", "a"], ["ab", "c"], ["a", "bc", ""]):
        np.testing.assert_array_equal(cache_of(tmp_path, tower := Tower())(texts), made_up(texts))
        assert tower.seen == [texts]


DAMAGES = [
    lambda content: b"",
    lambda content: content[: len(content) // 2],
    lambda content: content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
    lambda content: content[:-4] + np.float32(np.nan).tobytes(),
]


@pytest.mark.parametrize("damage", DAMAGES)
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


def test_a_folder_that_cannot_be_written_to_is_named_and_the_texts_are_embedded(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    tower = Tower()
    embeddings = cache_of(tmp_path / "file", tower)(words(2))
    assert embeddings.tobytes() == cache_of(tmp_path / "free", Tower())(words(2)).tobytes()
    assert re.search(r"/file/\w+.safetensors: cannot be written, .*embedded again", caplog.text)
