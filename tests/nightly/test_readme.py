"""Every command and snippet of the README and the pages that it links to, run as by a reader."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import pandas as pd
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from singflow.artifacts.catalog import NEEDS
from singflow.artifacts.tensors import read_tensors
from singflow.config.reading import read_yaml
from singflow.config.registry import resolve_models, resolve_spaces
from singflow.data.manifest import data_root, fill
from singflow.study import check
from singflow.towers.classifiers import load_classifier
from singflow.towers.spaces import load_text_tower
from singflow.towers.weights import in_hub
from tests import PATIENCE
from tests.data.archives import picture
from tests.data.test_imagenet import snippet as program_with
from tests.data.test_imagenet import write_downloads
from tests.parts.browser.test_app import address_of
from tests.project import MADE, ROOT, SMALL, Project, block, blocks
from tests.towers.models import FIVE
from tests.towers.tiny_transformers import save_classifier, save_dual_encoder

NAMES = ("study", "own-data", "photo", "paper", "cluster")
PAGES = ("README.md", *(f"docs/{name}.md" for name in NAMES))
# Of the other pages, tests of their own run the commands.
TEXT = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
LITE0 = "conse_minilm/efficientnet_lite0"
ANALYZE = block(TEXT, "singflow analyze photo.jpg").strip()
LIST_AGAIN = block(TEXT, "--forcerun build_manifest")
OWN = block(TEXT, "singflow study mine.yaml\nsingflow run")
KEEP = block(TEXT, "snakemake --touch")


def snippet(word):
    """What a block of YAML that holds a word says."""
    return yaml.safe_load(block(TEXT, word, "yaml"))


FOLDER = snippet("source: folder")


def change(project, snippet):
    """Change the snippet's keys in params.yaml, as its reader would by hand."""
    path = project.folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    for key, value in snippet.items():
        if isinstance(value, dict):
            assert set(value) <= set(params[key])
            params[key] |= value
        else:
            assert key in params
            params[key] = value
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def write_own_study(project, *snippets):
    """Write mine.yaml from snippets, later ones over earlier ones, at the size of the tests."""
    study = {}
    for snippet in ({key: value for key, value in SMALL.items() if key != "models"}, *snippets):
        for key, value in snippet.items():
            study[key] = study.get(key, {}) | value if isinstance(value, dict) else value
    (project.folder / "mine.yaml").write_text(yaml.safe_dump(study, sort_keys=False))


@pytest.fixture(scope="module")
def reader(snakemake_project, tmp_path_factory):
    """A checkout with an environment, and a study of which the last steps are left to do."""
    project = snakemake_project.copy(tmp_path_factory.mktemp("reader") / "checkout")
    project.equip()
    for name in ("figures/fig3.png", "report.html"):
        (project.folder / "results/demo" / name).unlink()
    return project


@pytest.fixture
def unchanged(reader):
    """The reader's params.yaml, put back after the test."""
    before = (reader.folder / "params.yaml").read_bytes()
    yield
    (reader.folder / "params.yaml").write_bytes(before)


def test_the_commands_of_the_readme_are_those_that_tests_run():
    """Of fetch, test_publish runs them; of a cluster, parts/cluster/test_study."""
    shown = "".join(blocks((ROOT / "README.md").read_text(encoding="utf-8")))
    for line in ("make demo", "make test", "make plan", "snakemake --profile slurm"):
        assert line in shown.splitlines()


def test_make_demo_ends_with_the_table_and_the_paths_of_the_figures(reader):
    output = reader.shell("make demo")
    assert re.search(r"^0 of \d+ steps", output, flags=re.MULTILINE) and "images/s" not in output
    end = output[output.index("Study demo: features or logits?") :]
    assert re.search(r"^efficientnet_lite0\S* +280 +\d", end, flags=re.MULTILINE)
    paper = r"^The paper's scores AS, \|AS\|, IS/\|AS\| \(no verdict uses them\): "
    assert re.search(rf"{paper}efficientnet_lite0\S* [+-]\d", end, flags=re.MULTILINE)
    figures = re.findall(r"^results/demo/figures/\w+\.png$", end, flags=re.MULTILINE)
    every = sorted((reader.folder / "results/demo/figures").glob("*.png"))
    drawn = [path for path in every if NEEDS not in Image.open(path).info]
    assert [reader.folder / figure for figure in figures] == drawn and len(drawn) >= 3
    assert end.splitlines()[-1] == "results/demo/report.html"
    assert "<h1>" in (reader.folder / "results/demo/report.html").read_text()
    assert "pytest --dist loadfile" in reader.shell("make --dry-run test")


def test_a_photo_is_analyzed_without_a_study_and_on_the_artifacts_of_the_demo(reader):
    first = pd.read_csv(ROOT / "config/vocab/packaged.csv")["path"][0]
    shutil.copy(data_root("packaged", ".") / first, reader.folder / "photo.jpg")
    said = (
        r"^photo.jpg: bull mastiff.*of the model, not of this photo: efficientnet_lite0: "
        r"no reason to keep the features.*toward 'a temple'"
    )
    assert re.search(said, reader.shell(ANALYZE), flags=re.DOTALL | re.MULTILINE)
    output = reader.shell(f"{ANALYZE} --results results/demo --output analysis")
    image = json.loads((reader.folder / "analysis/photo.json").read_text())
    scores = pd.read_parquet(reader.folder / f"results/demo/scores/{LITE0}.parquet")
    assert image["image"] == "photo.jpg" and f": {image['is_deg']:.2f} degrees" in output
    assert image["predictions"][0]["index"] == scores["predicted_index"][0]
    assert [text["text"] for text in image["texts"]] == ["a rug", "a temple"]
    assert (reader.folder / "analysis/photo.png").is_file()


def test_make_app_opens_the_page(reader):
    said = reader.folder / "said"
    with said.open("w") as out:
        process = subprocess.Popen(
            ["make", *MADE, "app", "APP=--threads 1"],
            cwd=reader.folder,
            env=reader.environment(),
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        page = httpx.get(address_of(process, said), timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        process.wait(PATIENCE)
    assert page.status_code == 200, said.read_text()
    assert "SING: what a classifier does not see" in page.text


def test_prefetch_lists_what_the_study_needs(reader):
    output = reader.shell("make prefetch")
    for name in ("efficientnet_lite0: timm", "conse_minilm: conse"):
        assert re.search(rf"^{name}, weights [0-9a-f]{{16}}, ", output, flags=re.MULTILINE)
    assert "every later step runs without a network" in output


def test_doctor_and_plan_say_what_the_study_finds_here_and_takes(reader):
    # Where Slurm is installed and not running, that is a failure.
    said = reader.make("doctor", check=False).stdout
    for name in ("study", "weights", "disk"):
        assert re.search(rf"^ok +{name} ", said, flags=re.MULTILINE), said
    table = reader.shell("make plan")
    assert re.search(r"^ *extract_features +\d+ +4 ", table, flags=re.MULTILINE)
    assert re.search(r"on the disk once all is done, .* free", table)


@pytest.mark.usefixtures("unchanged")
def test_a_study_is_written_complete_and_checked(reader):
    checked = block(TEXT, "demo --check")
    said = "params.yaml: is not the study demo: `singflow study demo` writes it"
    assert said in reader.refused("bash", "-euc", checked)  # a study of the tests is in force
    reader.shell("singflow study demo")
    reader.shell(checked)
    assert (reader.folder / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    reader.shell(block(TEXT, "--output eva02.yaml"))
    study = check(read_yaml(reader.folder / "eva02.yaml"), "eva02.yaml")
    assert (study.study, study.spaces) == ("eva02", ["eva02_l14"])


@pytest.mark.usefixtures("unchanged")
def test_a_reference_is_made_of_images_and_others_are_scored_by_its_translators(reader):
    sample, again = reader.folder / "imagenet-sample", reader.folder / "reference/again"
    images = pd.read_csv(ROOT / "config/vocab/packaged.csv").rename(columns={"label": "class_name"})
    (sample / "images").mkdir(parents=True)
    for number, path in enumerate(images["path"]):  # no near copies of the study's images
        (sample / "images" / path).write_bytes(picture(number, "JPEG"))
    images.assign(path="images/" + images["path"]).to_csv(sample / "manifest.csv", index=False)
    reader.shell(block(TEXT, "reference/pack.py"))
    packed, packaged = (
        {path.relative_to(folder) for path in folder.rglob("*.*")}
        for folder in (again, again.with_name("imagenet507"))
    )
    assert packed >= packaged
    beside = {"study": "beside", "models": ["efficientnet_lite0"]}
    change(reader, beside | {"translator": {"reference": "reference/again"}})
    made = reader.folder / "results/beside"
    targets = f"results/beside/scores/{LITE0}.parquet results/beside/evidence/{LITE0}.json"
    reader.shell(f"snakemake --cores all {targets}")
    scores = pd.read_parquet(made / f"scores/{LITE0}.parquet")
    report, evidence = (
        json.loads((made / f"{name}.json").read_text())
        for name in (f"translators/{LITE0}/linear", f"evidence/{LITE0}")
    )
    assert (report["reference"], report["n_train"]) == ("reference/again", 20)
    # The test is of the reference's and the study's images together.
    assert (scores["fold"] == -1).all() and evidence["n"] == len(scores) + 20
    shutil.rmtree(made)
    change(reader, snippet("reference: results/imagenet"))
    said = "translator.reference results/imagenet: results/imagenet holds no data/manifest.parquet"
    assert said in reader.refused("snakemake", "--dry-run")


def test_other_values_are_laid_over_the_study_for_one_run(reader):
    # test_layered runs such a study.
    gpus, layers = block(TEXT, "gpu=2").strip(), block(TEXT, "--config ").splitlines()
    assert "rule plot_scores:" in reader.shell(f"{gpus} --dry-run --forceall")
    other, narrower = (reader.shell(f"{layer} --dry-run") for layer in layers)
    assert "results/eva02/scores/eva02_l14/resnet50.parquet" in other
    assert "results/demo/" not in other and "rule fit_projector:" not in narrower
    assert re.search(r"rule summarize:$", narrower, flags=re.MULTILINE)


def test_finished_results_are_kept_under_changed_code(reader):
    artifacts, missing = reader.artifacts(), reader.planned()
    name = "src/singflow/figures/plot_scores.py"
    before = (reader.folder / name).read_bytes()
    reader.edit(name, r"write_figure\(flags", "print() or write_figure(flags")
    assert reader.planned() == missing | {"plot_scores"}
    assert "rule plot_scores:" in reader.shell(KEEP)
    assert reader.planned() == missing
    (reader.folder / name).write_bytes(before)
    assert reader.planned() == missing | {"plot_scores"}
    reader.shell(KEEP.splitlines()[-1])
    assert reader.planned() == missing and reader.differs(artifacts) == set()


def test_the_registry_snippets_are_valid_and_build(reader, monkeypatch):
    monkeypatch.chdir(reader.folder)
    torch.manual_seed(0)
    backbone = timm.create_model("vit_small_patch16_224.dino", pretrained=False)
    save_file(
        {"weight": torch.randn(3, 384), "bias": torch.randn(3)}, "checkpoints/probe.safetensors"
    )
    torch.save(timm.create_model("resnet18", num_classes=3).state_dict(), "checkpoints/mine.pth")
    scratch = {"state_dict": timm.create_model("resnet10t", num_classes=3).state_dict()}
    torch.save(scratch, "checkpoints/scratch.pth")
    Path("checkpoints/mine.txt").write_text("cat\ndog\nhorse\n")
    classifiers, own_spaces = snippet("head_weights:"), snippet("source: open_clip")
    Path("own_models.yaml").write_text(yaml.safe_dump(classifiers))
    Path("own_spaces.yaml").write_text(yaml.safe_dump(own_spaces))
    save_dual_encoder("clip", Path("checkpoints/clip"))
    save_classifier("vit", Path("checkpoints/tuned"))
    entries = resolve_models("own_models.yaml", list(classifiers))
    names = {"class_names": ["cat", "dog", "horse"], "class_list": None}
    assert load_classifier(entries["mine"].model_copy(update=names)).weight.shape == (3, 512)
    scratch = load_classifier(entries["scratch"].model_copy(update=names))
    assert scratch.weight.shape == (3, 512) and scratch.preprocess.size == (176, 176)
    of_five = {"class_names": FIVE, "class_list": None}
    assert load_classifier(entries["tuned"].model_copy(update=of_five)).weight.shape == (5, 16)
    save_file(backbone.state_dict(), "checkpoints/backbone.safetensors")
    names["weights"] = "file:checkpoints/backbone.safetensors"
    assert load_classifier(entries["probe"].model_copy(update=names)).weight.shape == (3, 384)
    bare = re.findall(r"`((?:torchvision|transformers)/\S+)`", TEXT)
    found = resolve_models("own_models.yaml", bare)
    swin, vit = (
        found[name]
        for name in ("torchvision/swin_t.IMAGENET1K_V1", "transformers/google/vit-base-patch16-224")
    )
    built = load_classifier(swin.model_copy(update={"weights": "random"}))
    assert built.weight.shape == (1000, 768)
    assert in_hub(vit).repository == "google/vit-base-patch16-224"
    spaces = resolve_spaces("own_spaces.yaml", list(own_spaces))
    filled = fill(snippet("label_templates:")["prompts"]["label_templates"][0], "Egyptian cat")
    assert filled == "a photo of an Egyptian cat"
    assert in_hub(spaces["siglip"]).repository == "timm/ViT-B-16-SigLIP"
    assert in_hub(spaces["siglip2"]).repository == "google/siglip2-base-patch16-224"
    mine = spaces["mine"].model_copy(update={"dim": 12})
    assert load_text_tower(mine).embed(["a dog"]).shape == (1, 12)


def test_a_released_translator_is_imported(reader):
    torch.manual_seed(0)
    folder = reader.folder / "checkpoints/released/densenet/linear"
    folder.mkdir(parents=True)
    torch.save({"weight": torch.randn(768, 1024), "bias": torch.randn(768)}, folder / "best.pt")
    facts = {"model_name": "densenet", "translator_name": "linear", "architecture": "linear"}
    facts |= {"embedding_backend": "kakao_karlo_v1_alpha_image_variations", "hidden_dim": 1024}
    facts |= {"checkpoint_file": "best.pt", "in_dim": 1024, "out_dim": 768}
    (folder / "metadata.yaml").write_text(yaml.safe_dump(facts))
    assert "imported: [clip_vit_l14/densenet121:" in reader.shell(
        block(TEXT, "singflow import_translator")
    )


@pytest.mark.usefixtures("unchanged")
def test_pictures_of_chosen_images_and_by_a_generator_only_in_its_space(reader):
    change(reader, snippet("closeup:") | {"analyses": ["scores", "pictures", "paper"]})
    reader.shell("snakemake --cores all results/demo/figures/fig6.png")
    results = reader.folder / "results/demo"
    pictures = pd.read_parquet(results / f"pictures/{LITE0}.parquet")
    paths = pd.read_parquet(results / "data/manifest.parquet")["path"]
    photos = paths[pictures.loc[pictures["figure"] == "photo", "image_id"]]
    assert list(photos) == snippet("closeup:")["pictures"]["images"] and "fig13" in set(
        pictures["figure"]
    )
    change(reader, snippet("renderer: unclip"))
    for command in (["snakemake", "--dry-run"], ["dvc", "repro"]):
        assert "space conse_minilm cannot be rendered" in reader.refused(*command)


def hub_with_resnet18(folder):
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = folder / "models--timm--resnet18.a1_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(revision)
    (repository / "snapshots" / revision).mkdir(parents=True)
    model = timm.create_model("resnet18.a1_in1k", pretrained=False)
    save_file(model.state_dict(), repository / "snapshots" / revision / "model.safetensors")
    return {"HF_HUB_CACHE": str(folder)}


def test_own_images_in_folders_with_an_own_model_and_own_words(reader, tmp_path):
    packaged = data_root("packaged", ".")
    table = pd.read_csv(ROOT / "config/vocab/packaged.csv")
    photos, broken = reader.folder / "photos", "golden_retriever/broken.jpg"
    kinds = ["my pet's $(toys)", "n02051845", "golden_retriever"]
    for kind in kinds:
        (photos / kind).mkdir(parents=True)
    for position, path in enumerate(table["path"]):
        shutil.copy(packaged / path, photos / kinds[position % 3] / f"a 'photo' & {position};.jpg")
    (photos / broken).write_bytes((packaged / table["path"][0]).read_bytes()[:5000])
    (reader.folder / "config/vocab/mine.txt").write_text("a rug\n<script>alert(1)</script>\n")
    small = {"extraction": {"views": 1, "shards": 1}, "comparison": {"models": []}}
    words = snippet("label_templates:")
    write_own_study(reader, small, FOLDER, snippet("- timm/resnet18.a1_in1k"), words)
    reader.shell(OWN, **hub_with_resnet18(tmp_path))
    results, resnet = reader.folder / "results/mine", "conse_minilm/timm/resnet18.a1_in1k"
    summary = (results / "tables/summary.txt").read_text()
    assert "timm/resnet18.a1_in1k: no null space: the logits see every direction" in summary
    manifest = pd.read_parquet(results / "data/manifest.parquet")
    assert set(manifest["label"]) == {"my pet's $(toys)", "pelican", "golden retriever"}
    rejected = (results / "data/rejected.csv").read_text()
    assert rejected.startswith(f"path,reason\n{broken},truncated or corrupt")
    steering, unreachable = (
        pd.read_parquet(results / f"steering/{model}.parquet") for model in (LITE0, resnet)
    )
    assert set(steering["prompt"]) == set(words["steering"]["prompts"])
    assert steering["reachable"].all() and not unreachable["reachable"].any()
    metadata = read_tensors(results / "prompts/conse_minilm.safetensors", [])[1]
    assert metadata["label_templates"] == '["a photo of a(n) {}", "a drawing of a {}"]'
    score = read_tensors(results / f"concepts/{resnet}.safetensors")[0]["as_mean"]
    assert score.shape == (3, 2) and not score.any()
    concepts = pd.read_csv(results / "tables/concepts.csv")["concept"]
    assert set(concepts) == {"a rug", "<script>alert(1)</script>"}

    assert " steps" not in reader.shell(OWN.splitlines()[2])
    (photos / broken).unlink()
    # What comes of it is not asked for.
    listing = LIST_AGAIN.replace(" all ", " all results/mine/data/manifest.parquet ")
    reader.shell(listing)
    assert (results / "data/rejected.csv").read_text() == "path,reason\n"


def test_own_images_in_a_table(reader):
    packaged = data_root("packaged", ".")
    folder = reader.folder / "photos2"
    folder.mkdir()
    rows = []
    for position, path in enumerate(sorted(packaged.glob("imagenet_*.jpg"))):
        shutil.copy(path, folder / path.name)
        rows.append({"path": path.name, "animal": "bird" if position % 2 else "other"})
    pd.DataFrame(rows).to_csv(reader.folder / "photos.csv", index=False)
    write_own_study(reader, FOLDER, snippet("label_column: animal"), {"data": {"root": "photos2"}})
    manifest = "results/mine/data/manifest.parquet"
    reader.shell(
        f"singflow study mine.yaml\nsnakemake --cores all {manifest} --forcerun build_manifest"
    )
    manifest = pd.read_parquet(reader.folder / manifest)
    assert manifest.groupby("label").size().to_dict() == {"bird": 10, "other": 10}
    assert set(manifest["prompt"]) == {"an image of a bird", "an image of a other"}
    assert (manifest["class_index"] == -1).all()


def test_imagenet_from_the_download_to_the_plan(tmp_path, monkeypatch):
    project = Project(tmp_path)
    project.equip()
    synset_of = pd.read_csv(ROOT / "config/vocab/imagenet_1k.csv").set_index("name")["synset"]
    labels = read_yaml(ROOT / "config/studies/paper.yaml")["plot_labels"]["labels"]
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, len(labels) + 1)]
    images = {name: picture(number, "JPEG") for number, name in enumerate(names)}
    synsets = [*synset_of[labels[::-1]], "n00001740"]
    made = write_downloads(tmp_path, images, ids=range(len(labels), 0, -1), synsets=synsets)
    project.shell(block(TEXT, "mkdir -p imagenet"))
    monkeypatch.setattr("torchvision.datasets.imagenet.ARCHIVE_META", made)
    monkeypatch.chdir(tmp_path)
    exec(program_with("torchvision"), {})  # noqa: S102
    listed = block(TEXT, "results/paper/data/manifest.parquet").partition("\n")[2]
    said = project.shell(listed)  # without weights
    manifest = pd.read_parquet(tmp_path / "results/paper/data/manifest.parquet")
    found = dict(zip(manifest["path"].str.rpartition("/")[2], manifest["label"], strict=True))
    assert found == dict(zip(names, labels, strict=True))
    assert f"{len(labels)} images under {len(labels)} labels" in said
    assert "extract_features" in said


def test_own_images_in_a_tar(reader):
    listed = pd.read_csv(ROOT / "config/vocab/packaged.csv")
    for path, label in zip(listed["path"], listed["label"], strict=True):
        folder = reader.folder / "photos" / label
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(data_root("packaged", ".") / path, folder / path)
    (reader.folder / "shards").mkdir()
    write_own_study(reader, FOLDER, snippet("source: archive"))
    reader.shell(block(TEXT, "tar -cf"))
    manifest = pd.read_parquet(reader.folder / "results/mine/data/manifest.parquet")
    expected = pd.Series(
        listed["label"].to_numpy(),
        "shards/photos.tar/photos/" + listed["label"] + "/" + listed["path"],
    )
    found = manifest.set_index("shards/" + manifest["path"])["label"]
    assert found[expected.index].equals(expected) and set(manifest["archive"]) == {"photos.tar"}
