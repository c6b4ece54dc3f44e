"""The wheel in an empty folder: arrays by the core alone, photos and the page with the extras."""

import json
import re
import shutil
import signal
import subprocess
import tarfile
import time
import urllib.request
import zipfile

import numpy as np
import pytest

from singflow.analyses.metrics import angle_deg
from singflow.data.manifest import data_root
from singflow.translators.ridge import Affine
from tests import PATIENCE
from tests.project import ROOT, block, blocks
from tests.results import Results
from tests.wheel import Environment

LIMIT = 15e6  # bytes of the sdist, and of the wheel
DATA = {"packaged/vocab": "config/vocab", "packaged/reference": "reference"}
LITE0, CONSE = "efficientnet_lite0", "conse_minilm"
PAGE = (ROOT / "docs/api.md").read_text(encoding="utf-8")
ARRAYS = """
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import singflow
from singflow.config.registry import MODELS, SPACES, resolve_models, resolve_spaces
from singflow.config.sections import at_hand
from singflow.translators.reference import reference_folder

generator = np.random.default_rng(0)
weight, features = generator.standard_normal((3, 8)), generator.standard_normal((5, 8))
basis = singflow.null_space(weight).basis
kept = np.linalg.pinv(weight) @ weight  # the projector on the rows of the head
np.testing.assert_allclose(singflow.remove_null(features, basis), features @ kept, atol=1e-12)
assert basis.shape == (8, 5)
assert resolve_models(MODELS, ["resnet50"])["resnet50"].feature_dim == 2048
assert resolve_spaces(SPACES, ["conse_minilm"])["conse_minilm"].dim == 384
names = pd.read_csv(at_hand(Path("config/vocab/imagenet_1k.csv")))["name"]
assert len(names) == 1000 and names[559] == "folding chair"
assert (reference_folder("packaged") / "data/manifest.parquet").is_file()
files = [getattr(module, "__file__", None) for module in sys.modules.values()]
print(*sys.path, *files, sep="\\n")
"""


@pytest.fixture(scope="module")
def app(built, tmp_path_factory):
    return Environment(tmp_path_factory.mktemp("app") / "venv", built, "app")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An empty folder, but for two photos."""
    folder = tmp_path_factory.mktemp("empty")
    for name, number in (("photo.jpg", 559), ("other.jpg", 243)):
        (photo,) = data_root("packaged", "").glob(f"imagenet_*_{number}.jpg")
        shutil.copy(photo, folder / name)
    return folder


@pytest.fixture
def singflow(app, folder):
    """What a command says in the empty folder."""

    def singflow(*words):
        done = app.run("singflow", *words, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    return singflow


def test_sdist_and_wheel_hold_the_code_and_its_data_as_files_and_are_small(built):
    code = (ROOT / "src/singflow").rglob("*.py")
    named = {path.relative_to(ROOT / "src/singflow"): path for path in code}
    for inside, place in DATA.items():
        files = [path for path in (ROOT / place).rglob("*") if path.is_file()]
        named |= {inside / path.relative_to(ROOT / place): path for path in files}
    assert {path.parts[0] for path in named} > {"packaged", "towers", "cli.py"}
    with zipfile.ZipFile(built.wheel) as wheel, tarfile.open(built.sdist) as sdist:
        root = built.sdist.name.removesuffix(".tar.gz")
        for name, path in named.items():
            content = path.read_bytes()
            assert wheel.read(f"singflow/{name}") == content, name
            assert sdist.extractfile(f"{root}/src/singflow/{name}").read() == content, name
        assert all(member.isfile() or member.isdir() for member in sdist)
    assert max(path.stat().st_size for path in (built.wheel, built.sdist)) < LIMIT


def test_the_core_alone_works_on_arrays_and_reads_what_is_packaged(core, tmp_path):
    done = core.run("python", "-c", ARRAYS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stdout.splitlines() if line.startswith(str(ROOT))]
    assert "torch" not in core.libraries and list(tmp_path.iterdir()) == []
    asked = "import socket; socket.create_connection(('192.0.2.1', 80))"
    assert "there is no network" in core.run("python", "-c", asked, cwd=tmp_path).stderr


def test_the_core_alone_loads_a_translator_and_scores_arrays_as_the_page_says(core, tmp_path):
    results, normal = Results(tmp_path / "results/demo", LITE0, CONSE), np.random.default_rng(0)
    features, weight, translator = (
        normal.standard_normal(shape).astype(np.float32) for shape in ((20, 9), (4, 9), (5, 9))
    )
    results.rows("features", features)
    results.tensors("head", weight=weight)
    results.translator(Affine(translator, np.ones(5, np.float32)))
    results.path("params").touch()
    lines = block(PAGE, "singflow.remove_null(")
    program = f'import singflow\nstudy = singflow.load_study("results/demo")\n{lines}'
    program += "print(scores.tolist())"
    done = core.run("python", "-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kept = features @ np.linalg.pinv(weight) @ weight
    before, after = (rows @ translator.T + 1 for rows in (features, kept))
    scores = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(scores, angle_deg(before, after), atol=1e-3)


def test_what_the_core_lacks_is_said_with_the_extra_that_brings_it(core, tmp_path):
    install = (
        "is not installed: pip install 'singflow[{0}]', or, in a checkout, pip install -c "
        "constraints.txt -e '.[{0}]'\n"
    )
    lacking = (
        ("singflow.Classifier", "torch", "demo"),
        ("from singflow.extras import check_installed; check_installed('gradio')", "gradio", "app"),
    )
    code = "import singflow\n" + "".join(
        f"try:\n    {code}\nexcept ImportError as error:\n    print(error)\n"
        for code, *_ in lacking
    )
    said = core.run("python", "-c", code, cwd=tmp_path).stdout
    assert said == "".join(f"{name} {install.format(extra)}" for _, name, extra in lacking)
    verb = core.run("singflow", "analyze", cwd=tmp_path)
    assert verb.returncode == 1
    assert verb.stderr.startswith(f"error: typer {install.format('demo').strip()}"), verb.stderr


# The users of the library: arrays, a model in memory, and a folder as a hub.
PLANTED = """
import json
import sys

import numpy as np
import singflow as sf

r = np.random.default_rng(0)
basis = np.linalg.qr(r.standard_normal((14, 14)))[0]
a, b = r.standard_normal((300, 6)), r.standard_normal((300, 8))
w = r.standard_normal((6, 6)) @ basis[:, :6].T
texts = r.standard_normal((6, 10))
told = a @ r.standard_normal((6, 10)) + 0.3 * r.standard_normal((300, 10))
x = np.hstack([a, b]) @ basis.T
"""
USERS = {
    "arrays": """
patient = np.arange(300) // 2
nothing = sf.measure(x, (w, np.ones(6)), told, class_texts=texts, groups=patient)
hidden = told + np.outer(2 * b[:, 0], np.eye(10)[0])
found = sf.measure(x, (w, np.ones(6)), hidden, class_texts=texts, groups=patient)
table = found.texts(np.vstack([np.eye(10), -np.eye(10)]), list("abcdefghijklmnopqrst"))
found.save("evidence")
said = [nothing.verdict, found.verdict, sorted(table["text"][table["hidden"]])]
""",
    "a model in memory": """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.ModuleDict({"stem": nn.Flatten(), "top": nn.Sequential(nn.Linear(14, 6))})

    def forward(self, images):
        return {"logits": self.body["top"](self.body["stem"](images))}

net = Net()
net.body["top"][0].weight.data = torch.tensor(w, dtype=torch.float32)
rows = torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 2, 7)
labels = ["even", "odd"] * 150
loader = [(rows[k : k + 50], labels[k : k + 50]) for k in range(0, 300, 50)]
data = sf.collect(net, loader)
z = told + np.where(np.arange(300) % 2, 2 * b[:, 0], 0)[:, None] * np.eye(10)[0]
found = sf.measure(data.features, data.head, z, class_texts=texts, labels=data.labels)
groups = found.groups()
said = [data.head_path, found.verdict, groups["group"][groups["hidden"]].tolist()]
said.append(data.save("source")[-1])
""",
    "a folder as a hub": """
found = sf.measure(x, w, told)
found.translator.save_pretrained("translator")
again = sf.Translator.from_pretrained("translator")
same = again.weight.tobytes() == found.translator.weight.tobytes()
removal = sf.remove(
    x, again, sf.subspace_translator(again, sf.null_space(w.astype(np.float32)).basis)
)
close = np.abs(removal.image_score() - found.images["is_deg"]).max() < 5
said = [same, bool(close), float(again.facts["validation_r2"]) == found.r2]
""",
}
SAID = {
    "arrays": ["nothing found", "meaning", ["a", "k"]],
    "a model in memory": [
        *("body.top.0", "meaning", ["odd"]),
        "300 rows; 0 of them are copies of others",
    ],
    "a folder as a hub": [True, True, True],
}


@pytest.fixture(scope="module")
def with_torch(built, tmp_path_factory):
    return Environment(tmp_path_factory.mktemp("torch") / "venv", built, beside=("torch",))


@pytest.mark.nightly
@pytest.mark.parametrize("user", USERS)
def test_the_library_serves_its_users_in_an_empty_folder(user, core, with_torch, tmp_path):
    environment = with_torch if user == "a model in memory" else core
    program = f"{PLANTED}{USERS[user]}\nprint(json.dumps(said))"
    done = environment.run("python", "-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout), done.stderr) == (SAID[user], "")
    assert not {"pillow", "matplotlib"} & environment.libraries


@pytest.mark.nightly
def test_registries_are_listed_with_the_users_own_entries(singflow, folder):
    (folder / "config").mkdir()
    own = "mine: {source: timm, id: resnet18.a1_in1k, weights: 'file:checkpoints/mine.pth'}\n"
    (folder / "config/models.yaml").write_text(f"{own}vgg16: {{source: timm, id: vgg16.tv_in1k}}\n")
    models = {row["name"]: row for row in json.loads(singflow("models", "--json"))}
    known = models[LITE0]
    assert [known[key] for key in ("origin", "weights", "reference", "classes", "width")] == [
        *("packaged", "here", True, 1000, 1280)
    ]
    away = models["resnet50"]
    assert (away["weights"], away["reference"]) == ("not here", False)
    assert models["animals_lite0"]["classes"] == 398
    origins = [models[name]["origin"] for name in ("mine", "vgg16", "vgg19")]
    assert origins == ["own", "own", "packaged"]
    rows = [re.split(" {2,}", line) for line in singflow("models").splitlines()]
    assert len({len(row) for row in rows}) == 1 and len(rows) == len(models) + 1
    table = {row[0]: row[1:] for row in rows}
    assert [table[name][2] for name in ("mine", "vgg16", "vgg19")] == origins
    assert table["mine"][-1] == "checkpoints/mine.pth: no such weight file"
    spaces = {row["name"]: row for row in json.loads(singflow("spaces", "--json"))}
    conse, clip = spaces[CONSE], spaces["clip_vit_l14"]
    assert (conse["weights"], conse["reference"], conse["width"]) == ("here", True, 384)
    assert "pip install 'singflow[workflow]'" in clip["weights"]  # which brings open_clip
    shutil.rmtree(folder / "config")


def test_a_photo_is_analyzed_and_the_examples_of_the_page_run(singflow, app, folder):
    (found,) = json.loads(singflow("analyze", "photo.jpg", "--model", LITE0, "--json"))
    assert found["predictions"][0]["name"] == "folding chair" and found["is_deg"] > 0
    sections = PAGE.split("\n## ")
    alone = [part for part in sections if part.startswith(("A model in memory", "A photo"))]
    examples = "".join(blocks("".join(alone), "python"))
    done = app.run("python", "-c", f"{examples}\nprint(table['photo.jpg'])", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(found["is_deg"], abs=1e-4)


@pytest.mark.nightly
def test_the_page_is_served(app, folder):
    said = folder / "said"
    command = [str(app.programs / "singflow"), "app", "--port", "0", "--model", LITE0]
    with said.open("w") as out:
        page = subprocess.Popen(command, cwd=folder, env=app.variables(), stdout=out, stderr=out)
    try:
        end = time.monotonic() + PATIENCE
        while not (found := re.search(r"the page is at (http://\S+)", said.read_text())):
            assert page.poll() is None and time.monotonic() < end, said.read_text()
            time.sleep(0.2)
        with urllib.request.urlopen(found[1]) as answer:  # noqa: S310
            assert b"gradio" in answer.read()
    finally:
        page.send_signal(signal.SIGINT)
        page.wait(PATIENCE)
    said.unlink()
