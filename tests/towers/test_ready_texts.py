"""Ready text embeddings: every form is read, another space is refused, no file is executed."""

import io
import os
import pickle
import re
import zipfile

import numpy as np
import pytest

from singflow.config.registry import resolve_spaces
from singflow.errors import InputError
from singflow.towers.ready_texts import check_texts, read_npz, read_ready, ready_path, write_ready
from singflow.towers.spaces import load_text_tower
from tests import warm
from tests.project import ROOT

SPACES = resolve_spaces(ROOT / "config/spaces.yaml", ["conse_minilm", "clip_vit_l14", "eva02_l14"])


@pytest.fixture(scope="module")
def tower():
    return load_text_tower(SPACES["conse_minilm"])


class Payload:
    def __reduce__(self):
        return os.system, ("touch executed",)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_words_pickled_or_not_are_classes_and_the_mean_prompt_is_taken(tmp_path):
    embeddings = np.random.default_rng(0).standard_normal((3, 4, 8)).astype(np.float16)
    for kind in (object, None):
        np.savez(
            tmp_path / "a.npz",
            classes=np.array(["red", "green", "blue"], dtype=kind),
            prompts=np.array(["prompt1", "prompt2", "prompt3", "mean"], dtype=kind),
            embeddings=embeddings,
        )
        texts = read_npz(tmp_path / "a.npz")
        assert list(texts) == ["red", "green", "blue"]
        np.testing.assert_allclose(
            np.stack(list(texts.values())), unit(embeddings[:, 3].astype(np.float64)), atol=1e-6
        )


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_lists_of_many_texts_in_every_form_that_numpy_has_written(tmp_path, protocol):
    words = [f"word {number} é 犬" for number in range(2500)] + ["x" * 300]
    array = np.array(words, dtype=object)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": array.shape}
    )
    embeddings = io.BytesIO()
    np.save(embeddings, np.random.default_rng(0).standard_normal((len(words), 4)))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("classes.npy", header.getvalue() + pickle.dumps(array, protocol))
        file.writestr("embeddings.npy", embeddings.getvalue())
    assert list(read_npz(tmp_path / "a.npz")) == words


def test_without_a_mean_prompt_the_prompts_are_averaged_at_unit_norm(tmp_path):
    embeddings = np.random.default_rng(0).standard_normal((3, 2, 8)) * [[[1.0], [100.0]]]
    np.savez(
        tmp_path / "a.npz",
        classes=["red", "green", "blue"],
        prompts=["one", "two"],
        embeddings=embeddings,
    )
    found = np.stack(list(read_npz(tmp_path / "a.npz").values()))
    np.testing.assert_allclose(found, unit(unit(embeddings).mean(axis=1)), atol=1e-6)


def test_prompts_with_braces_are_filled_and_a_plain_list_is_its_texts(tmp_path):
    embeddings = unit(np.random.default_rng(0).standard_normal((2, 2, 8)))
    np.savez(
        tmp_path / "a.npz",
        classes=["cat", "dog"],
        prompts=["a photo of a {}", "a {} in art"],
        embeddings=embeddings,
    )
    texts = read_npz(tmp_path / "a.npz")
    assert list(texts) == ["a photo of a cat", "a cat in art", "a photo of a dog", "a dog in art"]
    np.testing.assert_allclose(texts["a dog in art"], embeddings[1, 1], atol=1e-6)
    np.savez(tmp_path / "b.npz", prompts=["one text", "another"], embeddings=3 * embeddings[0])
    np.testing.assert_allclose(read_npz(tmp_path / "b.npz")["another"], embeddings[0, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"classes": ["a", "b"], "embeddings": np.ones((3, 4))},
            "but there are 2 classes and 0 prompts",
        ),
        (
            {"classes": ["a", "b"], "embeddings": np.ones((2, 3, 4))},
            "but there are 2 classes and 0 prompts",
        ),
        ({"classes": ["a", "b"], "embeddings": np.ones(2)}, r"has shape \(2,\)"),
        ({"classes": ["a", "a"], "embeddings": np.ones((2, 4))}, "repeats a text"),
        ({"classes": ["a", "b"], "embeddings": np.zeros((2, 4))}, "an embedding of zeros"),
        ({"classes": ["a", "b"], "embeddings": np.full((2, 4), np.nan)}, "holds NaN"),
        ({"classes": ["a", "b"]}, "not readable as text embeddings"),
        (
            {"classes": np.array([1, "b"], dtype=object), "embeddings": np.ones((2, 4))},
            "no list of texts",
        ),
        (
            {"classes": np.array([Payload()], dtype=object), "embeddings": np.ones((1, 4))},
            "no list of texts",
        ),
        ({"classes": ["a"], "embeddings": np.array([Payload()], dtype=object)}, "allow_pickle"),
    ],
)
def test_what_is_none_is_refused_and_its_code_not_run(tmp_path, monkeypatch, arrays, message):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_npz(tmp_path / "a.npz")
    assert not (tmp_path / "executed").exists()


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


def test_texts_are_of_a_space_if_its_tower_finds_them_again(tower, tmp_path):
    entry, words = (
        SPACES["conse_minilm"],
        ["a beach", "a dog", "a rug", "a violin", "a snowy mountain"],
    )
    right = dict(zip(words, tower.embed(words), strict=True))
    assert check_texts(tmp_path, right, "conse_minilm", entry, tower) is None
    near = dict(
        zip(words, tower.embed([f"a photo of {word}" for word in words]), strict=True)
    )  # as a mean over prompts is near
    check_texts(tmp_path, near, "conse_minilm", entry, tower)
    other = dict(
        zip(
            words,
            unit(np.random.default_rng(0).standard_normal((5, 384))).astype(np.float32),
            strict=True,
        )
    )
    with pytest.raises(
        InputError,
        match=(
            "texts are nearest to themselves when conse_minilm embeds them: "
            "they are of another space"
        ),
    ):
        check_texts(tmp_path, other, "conse_minilm", entry, tower)
    said = "is your word: {}, so their width, 384, is all that was compared"
    doubt = check_texts(tmp_path, other, "conse_minilm", entry, None)
    assert (
        said.format("the text tower of conse_minilm is not here to embed some of them again")
        in doubt
    )
    assert said.format("one text is too few to tell") in check_texts(
        tmp_path, {"a dog": right["a dog"]}, "conse_minilm", entry, tower
    )
    with pytest.raises(InputError, match="384 dimensions, but clip_vit_l14 has 768"):
        check_texts(tmp_path, right, "clip_vit_l14", SPACES["clip_vit_l14"], None)


def test_ready_texts_are_found_by_the_space_and_refused_when_it_is_another_by_now(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    entry = SPACES["clip_vit_l14"]
    assert read_ready("clip_vit_l14", entry) == {}
    texts = dict(
        zip(
            ["red", "blue"],
            unit(np.random.default_rng(0).standard_normal((2, 768))).astype(np.float32),
            strict=True,
        )
    )
    write_ready(ready_path("clip_vit_l14", "colours"), texts, entry.identity)
    found = read_ready("clip_vit_l14", entry)
    assert found.keys() == texts.keys() and all(
        np.array_equal(found[text], texts[text]) for text in texts
    )
    with pytest.raises(
        InputError, match=r"colours\.safetensors: is of another space than clip_vit_l14 is now"
    ):
        read_ready("clip_vit_l14", SPACES["eva02_l14"])


def test_the_command_keeps_them_for_their_space_and_refuses_another(tower, tmp_path):
    words = ["a beach", "a dog", "a rug", "a violin"]
    np.savez(
        tmp_path / "mine.npz",
        prompts=np.array(words, dtype=object),
        embeddings=tower.embed(words).astype(np.float16),
    )
    flags = ["--spaces", ROOT / "config/spaces.yaml", "--space"]
    done = warm.singflow(ROOT, "import_texts", "mine.npz", *flags, "conse_minilm", cwd=tmp_path)
    assert (
        done.returncode == 0
        and "4 texts of conse_minilm, from 'a beach' to 'a violin'" in done.stderr
    ), done.stderr
    with zipfile.ZipFile(tmp_path / "mine.npz") as file:
        assert len(file.namelist()) == 2
    refused = warm.singflow(ROOT, "import_texts", "mine.npz", *flags, "clip_vit_l14", cwd=tmp_path)
    assert refused.returncode == 1 and re.search(
        "384 dimensions, but clip_vit_l14 has 768", refused.stderr
    )
    assert [path.name for path in (tmp_path / "checkpoints").rglob("*.safetensors")] == [
        "mine.safetensors"
    ]
