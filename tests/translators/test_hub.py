"""A translator in a folder and in a repository of a hub: bit for bit, with its facts and card."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from huggingface_hub import ModelCard
from safetensors.numpy import load_file, safe_open

from singflow.artifacts.tensors import write_tensors
from singflow.translators.linear import Translator
from tests.kills import killed
from tests.refusals import refused
from tests.translators import hub_server

FACTS = {
    "model": "efficientnet_lite0", "model_id": "timm/tf_efficientnet_lite0.in1k",
    "weights_sha256": "0123456789abcdef" * 4, "space": "conse_minilm",
    "space_id": '{"source": "conse"}', "space_sha256": "fedcba9876543210" * 4,
    "fitted_on": "the images of study demo", "n_train": "507", "lambda": "0.25",
    "validation_r2": "0.23456", "validation_cosine": "0.5", "baseline_cosine": "0.4",
    "n_validation": "20",
}  # fmt: skip
FILE = "linear.safetensors"
MAP = {"weight": np.ones((2, 3)), "bias": np.ones(2)}
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
    assert {path.name for path in (tmp_path / "a/b").iterdir()} == {FILE, "README.md"}
    assert not list((tmp_path / "a").glob(".*"))
    found = Translator.from_pretrained(str(tmp_path / "a/b"))
    assert type(found) is Translator and found.facts == FACTS | MADE
    assert_same(found, given)
    assert load_file(tmp_path / f"a/b/{FILE}").keys() == {"weight", "bias"}
    found.save_pretrained(tmp_path / "again")
    for name in (FILE, "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "a/b" / name).read_bytes()
    translator(1).save_pretrained(tmp_path / "again")  # in place of another
    assert_same(Translator.from_pretrained(tmp_path / "again"), translator(1))


def test_the_facts_go_with_another_type_and_numbers_become_texts(tmp_path):
    facts = {"n_train": np.int64(3), "lambda": 0.1, "validation_r2": None}
    facts |= dict.fromkeys(("weights_sha256", "classifier_sha256"), "0" * 64)
    weight, bias = np.full((4, 9), 1 / 3), np.ones(4)
    wide = Translator(weight, bias, facts).astype(np.float64)
    assert type(wide) is Translator and wide.facts is facts and wide.weight is weight
    wide.save_pretrained(tmp_path)
    texts = {"n_train": "3", "lambda": "0.1", "validation_r2": "null"}
    assert header(tmp_path / FILE) == MADE | facts | texts
    assert_same(Translator.from_pretrained(tmp_path), wide.astype(np.float32))
    card = (tmp_path / "README.md").read_text()
    assert "relative: 0.1 |" in card and "| R² | not stated" in card and "**Known zero.**" in card


def test_a_file_of_a_study_loses_what_is_about_its_folds_and_a_private_path(tmp_path):
    given = translator()
    folds = {"fold_weight": given.weight[None], "fold_bias": given.bias[None]}
    study = FACTS | MADE | {"study": "demo"}
    private = {"folds": "1", "in_sample": "false", "reference": "/data/ada/secret"}
    tensors = {"weight": given.weight, "bias": given.bias, **folds}
    write_tensors(tmp_path / "study" / FILE, tensors, study | private)
    found = Translator.from_pretrained(tmp_path / "study")
    assert found.facts == study | private
    found.save_pretrained(tmp_path / "out")
    assert header(tmp_path / "out" / FILE) == study
    assert_same(Translator.from_pretrained(tmp_path / "out"), given)
    assert all(b"secret" not in path.read_bytes() for path in (tmp_path / "out").iterdir())
    (tmp_path / "study/linear.json").write_text("{}")
    message = "study: holds the translator of a study: name another"
    refused(message, found.save_pretrained, tmp_path / "study")
    assert Translator.load(tmp_path / "study" / FILE).facts == study | private


def test_the_card_states_every_fact_and_what_is_not_stated(tmp_path):
    translator().save_pretrained(tmp_path / "full")
    card = ModelCard.load(tmp_path / "full/README.md")
    assert card.data.to_dict() == {
        "library_name": "singflow",
        "tags": ["translator", "null-space", "vision-language", "linear"],
        "base_model": "timm/tf_efficientnet_lite0.in1k",
    }
    assert card.text.startswith("\n# efficientnet\\_lite0 to conse\\_minilm\n")
    table = [line for line in card.text.splitlines() if line.startswith("| ")]
    assert [line.strip("| ").split(" | ")[1] for line in table[2:]] == [
        "timm/tf\\_efficientnet\\_lite0.in1k; 9 features",
        f"SHA-256, as `singflow` counts it: {FACTS['weights_sha256']}",
        '{"source": "conse"}; 4 dimensions',
        f"SHA-256: {FACTS['space_sha256']}",
        "the images of study demo",
        "507",
        "lambda, relative: 0.25",
        "0.2346 (the mean embedding: 0)",
        "0.5000 (the mean embedding: 0.4000)",
        "20",
        f"`{FILE}`: weight (4, 9) and bias (4,), float32",
    ]
    translator(facts={}).save_pretrained(tmp_path / "none")
    card = ModelCard.load(tmp_path / "none/README.md")
    assert "base_model" not in card.data.to_dict() and "None" not in card.text
    assert card.text.count("not stated") == 2 + 11


def test_the_card_names_a_base_model_only_if_the_hub_can_have_it(tmp_path):
    for model_id, base in (
        ("transformers/facebook/dinov2-large", "facebook/dinov2-large"),
        ("torchvision/resnet50.IMAGENET1K_V1", None),
        ("timm/a\n---\nlicense: mit", None),
        ("transformers/checkpoints/mine/it", None),
    ):
        translator(facts={"model_id": model_id}).save_pretrained(tmp_path)
        said = ModelCard.load(tmp_path / "README.md").data.to_dict()
        assert said.get("base_model") == base and "license" not in said


def test_no_fact_breaks_the_card(tmp_path):
    nasty = "a\n---\n# b | c `d` <script> [x](y) ```\n\\ \u2028| e * _ ~"
    translator().save_pretrained(tmp_path / "plain")
    translator(facts=dict.fromkeys(FACTS, nasty)).save_pretrained(tmp_path / "nasty")
    assert Translator.from_pretrained(tmp_path / "nasty").facts["model"] == nasty
    plain, card = (ModelCard.load(tmp_path / name / "README.md") for name in ("plain", "nasty"))
    assert plain.data.to_dict() == card.data.to_dict() | {"base_model": FACTS["model_id"]}
    lines, theirs = plain.text.splitlines(), card.text.splitlines()
    assert len(lines) == len(theirs)
    said = r"a --- \# b \| c \`d\` \<script\> \[x\](y) \`\`\` \\ \| e \* \_ \~"
    assert theirs[1] == f"# {said} to {said}" and theirs.count("```") == lines.count("```") == 1
    for line, other in zip(lines, theirs, strict=True):
        assert other.replace(said, "").count("|") == line.count("|")


def test_what_cannot_be_loaded_is_not_written(tmp_path):
    good = np.ones((2, 3))
    for weight, bias, facts, message in (
        (good, np.ones(3), {}, r"weight \(2, 3\) and bias \(3,\) make no affine map: give"),
        (np.ones(3), np.ones(3), {}, r"weight \(3,\) and bias \(3,\) make no affine map: give"),
        (np.diag([1, np.nan]), np.ones(2), {}, "weight holds NaN or infinite.*in row 1: fit the"),
        (good, np.full(2, 1e300), {}, "bias holds NaN or infinite.*in row 0: fit the"),
        (good, np.ones(2), {"x": object()}, "facts: x is object, which JSON has not"),
    ):
        refused(message, Translator(weight, bias, facts).save_pretrained, tmp_path / "out")
        assert not list(tmp_path.iterdir())


@pytest.mark.nightly
def test_a_killed_save_leaves_no_card_of_another_translator(tmp_path):
    translator().save_pretrained(tmp_path / "whole")
    whole, card = (tmp_path / "whole" / name for name in (FILE, "README.md"))
    out, own = tmp_path / "out", tmp_path / "whole"
    lines = "from singflow import Translator\n"
    lines += f"Translator.load({str(own / FILE)!r}).save_pretrained({str(out)!r})"
    for again in (False, True):
        if again:  # over another translator and its card
            (out / FILE).write_bytes(b"another")
            (out / "README.md").write_text(card.read_text().replace("0.2346", "0.1000"))
        seen = {}
        for moves in killed(lines, tmp_path):
            content, said = (
                path.read_bytes() if path.exists() else None
                for path in (out / FILE, out / "README.md")
            )
            seen[moves] = content, said
            assert said is None or (said == card.read_bytes()) == (content == whole.read_bytes())
        assert len(seen) > 4 and seen[moves] == (whole.read_bytes(), card.read_bytes())
        assert {file.name for file in out.iterdir()} == {FILE, "README.md"}
        assert not list(tmp_path.glob(".out.*"))


def test_a_readme_of_something_else_is_not_replaced(tmp_path):
    for text in ("# Mine", "---\nlibrary_name: singflow\ntags:\n- evidence\n---\n"):
        (tmp_path / "README.md").write_text(text)
        message = r"README.md: is no card of a translator.*another fol"
        refused(message, translator().save_pretrained, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
        assert (tmp_path / "README.md").read_text() == text


def test_a_folder_without_a_translator_and_a_revision_of_a_folder_are_refused(tmp_path):
    read = Translator.from_pretrained
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    refused(rf"^{tmp_path}: holds no {FILE}: name a folder that", read, tmp_path)
    write_tensors(tmp_path / FILE, MAP, {"kind": "mlp3"})
    refused(rf"^{tmp_path / FILE}: holds no linear translator", read, tmp_path)
    translator().save_pretrained(tmp_path)
    message = rf"^{tmp_path}: is a folder, which has no revision 'v1'"
    refused(message, read, tmp_path, revision="v1")


def python(code, **environment):
    """Run Python that says nothing but JSON; what it says."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    given = {"capture_output": True, "text": True, "env": kept | environment}
    done = subprocess.run([sys.executable, "-c", code], **given)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_folders_need_no_hub_and_no_step_loads_its_client(tmp_path):
    loaded = python(f"""
import json, sys
import numpy as np, singflow
from singflow.translators.linear import read_crossfitted
translator = singflow.Translator(np.ones((2, 3)), np.ones(2))
translator.save_pretrained({str(tmp_path)!r})
singflow.Translator.from_pretrained({str(tmp_path)!r})
singflow.Translator.load({str(tmp_path / FILE)!r})
print(json.dumps(sorted(sys.modules)))
""")
    assert "singflow.translators.linear" in loaded and "huggingface_hub" not in loaded


@pytest.fixture
def hub():
    with hub_server.running() as hub:
        yield hub


def at(hub, home, **more):
    """The environment of a client of the hub, whose cache is in the folder home."""
    return {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": hub_server.TOKEN} | more


PUSHED = """
import json
from huggingface_hub import HfApi
from singflow import Translator
api, name = HfApi(), "lab/lite0-minilm"
mine = [Translator.from_pretrained(f"{folder}/{i}") for i in range(3)]
first = mine[0].push_to_hub(name, private=True, commit_message="The first")
api.create_tag(name, tag="v1")
second = mine[1].push_to_hub(name)
same = mine[1].push_to_hub(name)
api.create_branch(name, branch="trial/b")
mine[2].push_to_hub(name, branch="trial/b")
commit = first.rsplit("/", 1)[1]
for place, revision in (("main", None), ("tag", "v1"), ("commit", commit), ("branch", "trial/b")):
    found = Translator.from_pretrained(name, revision=revision)
    assert type(found) is Translator
    found.save_pretrained(f"{folder}/{place}")
print(json.dumps([first, second, same]))
"""


@pytest.mark.parametrize("large", [(), (".safetensors",)])
def test_what_is_pushed_comes_back_from_each_revision_bit_for_bit(hub, tmp_path, large):
    hub.large = large
    for seed in range(3):
        translator(seed, FACTS | {"n_train": str(seed)}).save_pretrained(tmp_path / str(seed))
    # The client sends large files to a storage of its own kind, unless told to use Git LFS.
    plain = {"HF_HUB_DISABLE_XET": "1"} if large else {}
    place = at(hub, tmp_path / "home", **plain)
    first, second, same = python(f"folder = {str(tmp_path)!r}{PUSHED}", **place)
    held = hub.repositories["lab/lite0-minilm"]
    assert held["private"] and len(held["commits"]) == 1 + 3
    for place, seed in (("main", 1), ("tag", 0), ("commit", 0), ("branch", 2)):
        found = Translator.load(tmp_path / place / FILE)
        assert_same(found, translator(seed))
        assert found.facts == FACTS | MADE | {"n_train": str(seed)}
    assert same == second == f"{hub.url}/lab/lite0-minilm/commit/{held['refs']['main']}"
    commit = held["commits"][first.rsplit("/", 1)[1]]
    assert commit["title"] == "The first" and commit["changed"] == {FILE, "README.md"}
    assert commit["files"][FILE] == (tmp_path / "0" / FILE).read_bytes()
    assert ("PUT" in {method for method, _ in hub.requests}) is bool(large)
    card, local = commit["files"]["README.md"].decode(), (tmp_path / "0/README.md").read_text()
    assert card == local.replace("<this repository or folder>", "lab/lite0-minilm")
    assert 'singflow.Translator.from_pretrained("lab/lite0-minilm")' in card


REFUSED = """
import json
from singflow import InputError, Translator
import numpy as np
mine = Translator(np.ones((2, 3)), np.ones(2))
def read(name, **options):
    return lambda: Translator.from_pretrained(name, **options)
def said(call):
    try:
        call()
    except InputError as error:
        return str(error)
"""


def test_what_the_hub_does_not_have_or_refuses_is_said_in_a_line(hub, tmp_path):
    hub.create("lab/empty")
    hub.commit("lab/empty", "main", {"pytorch_model.bin": b"a pickle"}, "Another model")
    hub.create("lab/broken")
    write_tensors(tmp_path / FILE, MAP | {"weight": np.full((2, 3), np.nan)}, {"kind": "linear"})
    hub.commit("lab/broken", "main", {FILE: (tmp_path / FILE).read_bytes()}, "NaN")
    lines = python(
        f"""{REFUSED}
print(json.dumps([said(call) for call in (
    read("lab/nothing"),
    read("lab/empty", revision="v9"),
    read("lab/empty"),
    read("lab/broken"),
    read("results/no/such/folder"),
    read("lab/empty", local_files_only=True),
    lambda: mine.push_to_hub("lab/empty", branch="v9"),
    lambda: mine.push_to_hub("lab/empty", token="hf_reader"),
    lambda: mine.push_to_hub("not a name"),
)]))""",
        **at(hub, tmp_path / "home"),
    )
    revision = f"lab/empty: has no revision 'v9' at {hub.url}: name one of its branches, tags or "
    expected = [
        f"lab/nothing: is no repository of {hub.url} that you may read: correct the name, or the "
        "path if a folder is meant, or log in with `hf auth login`",
        f"{revision}commits",
        f"lab/empty: holds no {FILE} at {hub.url}: name a repository or revision that push_to_hub "
        "wrote",
        "linear.safetensors: weight holds NaN or infinite values, first in row 0: name another "
        "revision, or tell the owner",
        "results/no/such/folder: is no name of a repository: write <owner>/<name>, or the path of "
        "a folder",
        f"lab/empty: is not in the cache, and {hub.url} was not reached: look at",
        f"{revision}commits",
        f"lab/empty: {hub.url} says: 403 Forbidden",
        "not a name: is no name of a repository: write <owner>/<name>",
    ]
    for line, words in zip(lines, expected, strict=True):
        assert words in line and "\n" not in line
    assert lines[3].startswith("lab/broken: /") and lines[7].endswith("may write there")
    assert list(hub.repositories) == ["lab/empty", "lab/broken"]
    assert [len(held["commits"]) for held in hub.repositories.values()] == [2, 2]


@pytest.mark.nightly
def test_without_the_hub_what_is_in_the_cache_loads_and_the_rest_is_said_in_a_line(tmp_path):
    with hub_server.running() as hub:
        hub.create("lab/mine")
        translator().save_pretrained(tmp_path / "mine")
        files = {FILE: (tmp_path / "mine" / FILE).read_bytes()}
        hub.commit("lab/mine", "main", files, "Without a card and a config.json")
        environment = at(hub, tmp_path / "home")
        read = f"{REFUSED}\nprint(json.dumps(said(read('lab/mine'))))"
        assert python(read, **environment) is None
    lines = python(
        f"""{REFUSED}
found = [read("lab/mine", **options)() for options in ({{}}, {{"local_files_only": True}})]
said_of = [said(read("lab/other")), said(lambda: mine.push_to_hub("lab/other"))]
print(json.dumps([[one.weight.tolist() for one in found], *said_of]))""",
        **environment,
    )
    assert lines[0] == [translator().weight.tolist()] * 2
    assert lines[1].startswith(f"lab/other: is not in the cache, and {hub.url} was not reached: ")
    assert lines[2].startswith(f"lab/other: {hub.url} says: ") and "refused" in lines[2]
    assert "\n" not in lines[1] + lines[2]


def test_evidence_is_a_repository_with_its_verdict_on_the_card(hub, tmp_path):
    address, sentence = python(
        f"""
import json
import numpy as np, singflow
r = np.random.default_rng(0)
x, w, z = (r.standard_normal(shape) for shape in ((80, 8), (3, 8), (80, 4)))
found = singflow.measure(x, w, z + x[:, :4], draws=2)
found.save({str(tmp_path / "saved")!r})
address = found.push_to_hub("lab/evidence", commit_message="Measured")
print(json.dumps([address, found.sentence]))""",
        **at(hub, tmp_path / "home"),
    )
    commits = hub.repositories["lab/evidence"]["commits"].values()
    (commit,) = (commit for commit in commits if commit["title"] == "Measured")
    assert address.startswith(f"{hub.url}/lab/evidence/commit/")
    names = {"README.md", "controls.csv", "evidence.json", "images.csv"}
    saved = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    assert commit["changed"] == names == saved.keys()
    assert all(commit["files"][name] == saved[name] for name in names - {"README.md"})
    (tmp_path / "README.md").write_bytes(commit["files"]["README.md"])
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.to_dict()["tags"] == ["null-space", "evidence", "vision-language"]
    assert card.text.startswith(f"\n# lab/evidence\n\n**{sentence}**\n\n- D ")
