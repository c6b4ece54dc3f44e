"""The wheel in an empty folder: arrays by the core alone, photos and the page with the extras."""

import json
import shutil
import tarfile
import zipfile

import numpy as np
import pytest

from singflow.analyses.metrics import angle_deg
from singflow.data.manifest import data_root
from singflow.translators.ridge import Affine
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
    lines = block(PAGE, "singflow.remove_null(", "python")
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


def test_a_photo_is_analyzed_and_the_examples_of_the_page_run(singflow, app, folder):
    (found,) = json.loads(singflow("analyze", "photo.jpg", "--model", LITE0, "--json"))
    assert found["predictions"][0]["name"] == "folding chair" and found["is_deg"] > 0
    sections = PAGE.split("\n## ")
    alone = [part for part in sections if part.startswith(("A model in memory", "A photo"))]
    examples = "".join(blocks("".join(alone), "python"))
    done = app.run("python", "-c", f"{examples}\nprint(table['photo.jpg'])", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(found["is_deg"], abs=1e-4)
