"""Ready text embeddings: every form is read, another space is refused, no file is executed."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from singflow.commands.import_texts import import_texts
from singflow.config.registry import resolve_spaces
from singflow.errors import InputError
from singflow.towers.checkpoints import read_checkpoint
from singflow.towers.ready_texts import check_texts, read_npz, read_ready, ready_path, write_ready
from singflow.towers.spaces import load_text_tower
from tests.project import ROOT
from tests.towers.models import made_up

CONFIG = ROOT / "config/spaces.yaml"
SPACES = resolve_spaces(CONFIG, ["conse_minilm", "clip_vit_l14", "eva02_l14"])


@pytest.fixture(scope="module")
def tower():
    return load_text_tower(SPACES["conse_minilm"])


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def read(path, **arrays):
    """The texts of an archive of these arrays, and their embeddings (n, m)."""
    np.savez(path / "a.npz", **arrays)
    texts = read_npz(path / "a.npz")
    return list(texts), np.stack(list(texts.values()))


def test_the_mean_prompt_is_taken_and_without_one_prompts_are_averaged_at_unit_norm(tmp_path):
    colours, prompts = ["red", "green", "blue"], ["one", "two", "three", "mean"]
    embeddings = random(3, 4, 8).astype(np.float16)
    for kind in (object, None):  # pickled or not
        words = {"classes": np.array(colours, kind), "prompts": np.array(prompts, kind)}
        texts, found = read(tmp_path, **words, embeddings=embeddings)
        assert texts == colours
        np.testing.assert_allclose(found, unit(embeddings[:, 3].astype(np.float64)), atol=1e-6)
    embeddings = random(3, 2, 8) * [[[1.0], [100.0]]]
    _, found = read(tmp_path, classes=colours, prompts=prompts[:2], embeddings=embeddings)
    np.testing.assert_allclose(found, unit(unit(embeddings).mean(axis=1)), atol=1e-6)


def test_prompts_with_braces_are_filled_and_a_plain_list_is_its_texts(tmp_path):
    embeddings, prompts = unit(random(2, 2, 8)), ["a photo of a {}", "a {} in art"]
    texts, found = read(tmp_path, classes=["cat", "dog"], prompts=prompts, embeddings=embeddings)
    assert texts == ["a photo of a cat", "a cat in art", "a photo of a dog", "a dog in art"]
    np.testing.assert_allclose(found, embeddings.reshape(4, 8), atol=1e-6)
    texts, found = read(tmp_path, prompts=["one text", "another"], embeddings=3 * embeddings[0])
    assert texts == ["one text", "another"]
    np.testing.assert_allclose(found, embeddings[0], atol=1e-6)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_lists_of_many_texts_in_every_form_that_numpy_has_written(tmp_path, protocol):
    words = [f"word {number} é 犬" for number in range(2500)] + ["x" * 300]
    array = np.array(words, dtype=object)
    header, embeddings = io.BytesIO(), io.BytesIO()
    described = {"descr": "|O", "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(header, described)
    np.save(embeddings, random(len(words), 4))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("classes.npy", header.getvalue() + pickle.dumps(array, protocol))
        file.writestr("embeddings.npy", embeddings.getvalue())
    assert list(read_npz(tmp_path / "a.npz")) == words


def test_a_file_that_is_no_archive_or_a_damaged_one_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", classes=["a"], embeddings=np.ones((1, 4)))
    content = (tmp_path / "a.npz").read_bytes()
    for broken in (b"", b"text", content[: len(content) // 2]):
        (tmp_path / "a.npz").write_bytes(broken)
        with pytest.raises(InputError, match="not readable as text embeddings"):
            read_npz(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("embeddings.npy", b"no array")
    with pytest.raises(InputError, match="not readable as text embeddings"):
        read_npz(tmp_path / "a.npz")


def test_an_archive_that_unpacks_to_gigabytes_or_a_pipe_is_refused_unread(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file,
        file.open("embeddings.npy", "w") as member,
    ):
        for _ in range(17):
            member.write(bytes(2**24))
    with pytest.raises(InputError, match="it unpacks to 285212672 bytes, as no tensors do"):
        read_npz(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"a\.npz: not readable as tensors: .* it unpacks to"):
        read_checkpoint(tmp_path / "a.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(InputError, match=r"pipe\.npz: not a regular file"):
        read_npz(tmp_path / "pipe.npz")


def test_texts_are_of_a_space_if_its_tower_finds_them_again(tower, tmp_path):
    words = ["a beach", "a dog", "a rug", "a violin", "a snowy mountain"]

    def check(embeddings, name="conse_minilm", tower=tower):
        texts = dict(zip(words, embeddings, strict=False))
        return check_texts(tmp_path, texts, name, SPACES[name], tower and tower.embed)

    right = tower.embed(words)
    other = np.roll(right, 1, axis=0)
    near = tower.embed([f"a photo of {word}" for word in words])  # as a mean over prompts is
    assert check(right) is None and check(near) is None
    refused = "nearest to themselves when conse_minilm embeds them: they are of another space"
    with pytest.raises(InputError, match=refused):
        check(other)
    said = "is your word: {}, so their width, 384, is all that was compared"
    absent = "the text tower of conse_minilm is not here to embed some of them again"
    assert said.format(absent) in check(other, tower=None)
    assert said.format("one text is too few to tell") in check(right[:1])
    with pytest.raises(InputError, match="384 dimensions, but clip_vit_l14 has 768"):
        check(right, "clip_vit_l14", None)


def test_ready_texts_are_found_by_the_space_and_refused_when_it_is_another_by_now(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    entry, words = SPACES["clip_vit_l14"], ["red", "blue"]
    assert read_ready("clip_vit_l14", entry) == {}
    texts = dict(zip(words, made_up(words, 768), strict=True))
    write_ready(ready_path("clip_vit_l14", "colours"), texts, entry.identity)
    found = read_ready("clip_vit_l14", entry)
    assert found.keys() == texts.keys()
    assert all(np.array_equal(found[text], texts[text]) for text in texts)
    said = r"colours\.safetensors: is of another space than clip_vit_l14 is now"
    with pytest.raises(InputError, match=said):
        read_ready("clip_vit_l14", SPACES["eva02_l14"])


def test_the_command_keeps_them_for_their_space(tower, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "singflow")
    words = np.array(["a beach", "a dog", "a rug", "a violin"], dtype=object)
    embeddings = tower.embed(list(words)).astype(np.float16)
    np.savez("mine.npz", prompts=words, embeddings=embeddings)
    import_texts(Path("mine.npz"), "conse_minilm", CONFIG)
    assert "4 texts of conse_minilm, from 'a beach' to 'a violin'" in caplog.text
    ready = read_ready("conse_minilm", SPACES["conse_minilm"])
    np.testing.assert_allclose([*ready.values()], embeddings, atol=1e-3)
    assert [path.name for path in Path().rglob("*.safetensors")] == ["mine.safetensors"]
    Path("mine.npz").rename("my own.npz")
    with pytest.raises(InputError, match=r"my own\.npz: its name must be of letters, digits"):
        import_texts(Path("my own.npz"), "conse_minilm", CONFIG)
