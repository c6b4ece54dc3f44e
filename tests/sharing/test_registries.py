"""What `singflow models` and `singflow spaces` list."""

import json

from singflow.commands.models import models
from singflow.commands.spaces import spaces


def test_registries_are_listed_with_the_users_own_entries(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    mine = "mine: {source: timm, id: resnet18.a1_in1k, weights: 'file:checkpoints/mine.pth'}\n"
    (tmp_path / "mine.yaml").write_text(mine)
    models(tmp_path / "mine.yaml", as_json=True)
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    lite0, own = rows["efficientnet_lite0"], rows["mine"]
    assert (lite0["origin"], lite0["weights"], lite0["reference"]) == ("packaged", "here", True)
    assert own["origin"] == "own" and own["weights"].endswith("mine.pth: no such weight file")
    models(tmp_path / "mine.yaml")
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 1
    spaces(as_json=True)
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["conse_minilm"]["weights"], rows["conse_minilm"]["width"]) == ("here", 384)
