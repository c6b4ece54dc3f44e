"""A translator in a folder and in a repository of a hub: bit for bit, with its facts and card."""

import subprocess
import sys

import numpy as np
from huggingface_hub import ModelCard
from safetensors.numpy import safe_open

from singflow import Translator
from singflow.artifacts.tensors import write_tensors
from tests.refusals import refused
from tests.translators.hub_server import running

FACTS = {
    "model": "efficientnet_lite0", "model_id": "timm/tf_efficientnet_lite0.in1k",
    "weights_sha256": "0123456789abcdef" * 4, "space": "conse_minilm",
    "space_id": '{"source": "conse"}', "space_sha256": "fedcba9876543210" * 4,
    "fitted_on": "the images of study demo", "n_train": "507", "lambda": "0.25",
    "validation_r2": "0.23456", "validation_cosine": "0.5", "baseline_cosine": "0.4",
    "n_validation": "20",
}  # fmt: skip
FILE = "linear.safetensors"
FILES = {FILE, "README.md", "config.json"}
MADE = {"schema_version": "1", "kind": "linear"}


def translator(seed=0, facts=FACTS):
    """A random translator of 9 features into 4 dimensions."""
    generator = np.random.default_rng(seed)
    weight, bias = (generator.standard_normal(n).astype(np.float32) for n in ((4, 9), 4))
    return Translator(weight, bias, facts)


def assert_same(found, expected):
    for name in ("weight", "bias"):
        mine, theirs = getattr(found, name), getattr(expected, name)
        assert mine.dtype == theirs.dtype == np.float32 and mine.shape == theirs.shape
        assert mine.tobytes() == theirs.tobytes()


def header(path):
    with safe_open(path, framework="numpy") as file:
        return file.metadata()


def test_a_folder_gives_back_the_translator_bit_for_bit_with_its_facts(tmp_path):
    given = translator()
    given.save_pretrained(tmp_path / "a/b")
    assert {path.name for path in (tmp_path / "a/b").iterdir()} == FILES
    found = Translator.from_pretrained(str(tmp_path / "a/b"))
    assert type(found) is Translator and found.facts == FACTS | MADE
    assert_same(found, given)
    found.save_pretrained(tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "a/b" / name).read_bytes()
    translator(1, {}).save_pretrained(tmp_path / "again")  # in place of another, with its card
    assert_same(Translator.from_pretrained(tmp_path / "again"), translator(1))
    assert "lite0" not in (tmp_path / "again/README.md").read_text()


def test_the_facts_go_with_another_type_and_numbers_become_texts(tmp_path):
    facts = {"n_train": np.int64(3), "lambda": 0.1, "validation_r2": None}
    facts |= dict.fromkeys(("weights_sha256", "classifier_sha256"), "0" * 64)
    wide = Translator(np.full((4, 9), 1 / 3), np.ones(4), facts).astype(np.float64)
    assert type(wide) is Translator and wide.facts == facts
    wide.save_pretrained(tmp_path)
    texts = {"n_train": "3", "lambda": "0.1", "validation_r2": "null"}
    assert header(tmp_path / FILE) == MADE | facts | texts
    assert_same(Translator.from_pretrained(tmp_path), wide.astype(np.float32))
    card = (tmp_path / "README.md").read_text()
    assert "relative: 0.1 |" in card and "| R² | not stated" in card and "**Known zero.**" in card


def test_a_file_of_a_study_loses_what_is_about_its_folds_and_a_private_path(tmp_path):
    given = translator()
    tensors = {"weight": given.weight, "bias": given.bias, "fold_weight": given.weight[None]}
    private = {"folds": "1", "in_sample": "false", "reference": "/data/ada/secret"}
    write_tensors(tmp_path / "study" / FILE, tensors, FACTS | MADE | private)
    found = Translator.load(tmp_path / "study" / FILE)
    assert found.facts == FACTS | MADE | private
    found.save_pretrained(tmp_path / "out")
    assert header(tmp_path / "out" / FILE) == FACTS | MADE
    assert all(b"secret" not in path.read_bytes() for path in (tmp_path / "out").iterdir())
    (tmp_path / "study/linear.json").write_text("{}")
    message = "study: holds the translator of a study: name another"
    refused(message, found.save_pretrained, tmp_path / "study")


def test_the_card_states_every_fact_and_what_is_not_stated_and_no_fact_breaks_it(tmp_path):
    translator().save_pretrained(tmp_path / "full")
    card = ModelCard.load(tmp_path / "full/README.md")
    assert card.data.library_name == "singflow" and "translator" in card.data.tags
    assert card.data.base_model == "timm/tf_efficientnet_lite0.in1k"
    assert "# efficientnet\\_lite0 to conse\\_minilm\n" in card.text
    said = ("in1k; 9 features |", "4 dimensions |", "lambda, relative: 0.25 |")
    said += ("| 0.2346 (the mean embedding: 0) |", FACTS["weights_sha256"], FACTS["space_sha256"])
    assert [words for words in said if words not in card.text] == []
    translator(facts={}).save_pretrained(tmp_path / "none")
    none = ModelCard.load(tmp_path / "none/README.md")
    assert none.data.base_model is None and none.text.count("not stated") == 2 + 11
    nasty = "a\n---\n# b | c `d` <script> [x](y) ```\n\\ \u2028| e * _ ~ {{ f }}"
    translator(facts=dict.fromkeys(FACTS, nasty)).save_pretrained(tmp_path / "nasty")
    assert Translator.from_pretrained(tmp_path / "nasty").facts["model"] == nasty
    theirs = ModelCard.load(tmp_path / "nasty/README.md")
    said = r"a --- \# b \| c \`d\` \<script\> \[x\](y) \`\`\` \\ \| e \* \_ \~ {{ f }}"
    assert f"# {said} to {said}" in theirs.text and theirs.text.count("```") == 2
    assert theirs.data.base_model is None
    for line, other in zip(card.text.splitlines(), theirs.text.splitlines(), strict=True):
        assert other.replace(said, "").count("|") == line.count("|")


def test_what_cannot_be_loaded_or_would_replace_something_else_is_not_written(tmp_path):
    good = np.ones((2, 3))
    for weight, bias, message in (
        (good, np.ones(3), r"weight \(2, 3\) and bias \(3,\) make no affine map"),
        (np.ones(3), np.ones(3), r"weight \(3,\) and bias \(3,\) make no affine map"),
        (np.diag([1, np.nan]), np.ones(2), "no affine map of finite float32 values"),
    ):
        refused(message, Translator(weight, bias).save_pretrained, tmp_path / "out")
        assert not list(tmp_path.iterdir())
    for text in ("# Mine", "---\nlibrary_name: singflow\ntags:\n- evidence\n---\n"):
        (tmp_path / "README.md").write_text(text)
        message = r"README.md: is no card of a translator.*another fol"
        refused(message, translator().save_pretrained, tmp_path)
        assert [path.read_text() for path in tmp_path.iterdir()] == [text]
    message = rf"^{tmp_path}: is a folder, which has no revision 'v1'"
    refused(message, Translator.from_pretrained, tmp_path, revision="v1")


def test_neither_the_package_nor_what_steps_read_with_loads_the_client_of_the_hub():
    code = "import sys, singflow, singflow.translators.linear, singflow.measuring\n"
    code += "assert 'huggingface_hub' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_pushed_comes_back_from_each_revision_bit_for_bit(tmp_path, monkeypatch):
    name, (first, second) = "lab/lite0-minilm", (translator(0), translator(1, {}))
    with running() as hub:
        hub.reached_by(monkeypatch, tmp_path / "cache")
        pushed = first.push_to_hub(name, private=True, commit_message="The first")
        second.push_to_hub(name)
        commit, held = pushed.rsplit("/", 1)[1], hub.repositories[name]
        older = Translator.from_pretrained(name, revision=commit)
        assert_same(older, first)
        assert older.facts == FACTS | MADE
        assert_same(Translator.from_pretrained(name), second)
        asked = len(hub.requests)
        assert_same(Translator.from_pretrained(name, local_files_only=True), second)
        assert len(hub.requests) == asked
    assert held["private"] and len(held["commits"]) == 1 + 2
    assert held["commits"][commit]["title"] == "The first"
    first.save_pretrained(tmp_path / "saved")
    saved = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    assert held["commits"][commit]["files"] == saved
