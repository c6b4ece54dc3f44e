"""What a remote sends is checked before DVC writes it."""

import hashlib
import json

import pytest
import yaml
from dvc.repo import Repo

from singflow.errors import InputError
from singflow.sharing.fetching import check_listings


def put(store, content, suffix=""):
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    path = store / "files/md5" / md5[:2] / f"{md5[2:]}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return f"{md5}{suffix}"


@pytest.mark.parametrize("place", ["a/b.png", "../../outside", "../.git/hooks/post-checkout", "/x"])
@pytest.mark.parametrize("inline", [False, True])
def test_a_listing_that_leads_out_of_its_folder_is_refused(tmp_path, monkeypatch, place, inline):
    (tmp_path / "clone").mkdir()
    monkeypatch.chdir(tmp_path / "clone")
    store = tmp_path / "store"
    listing = [{"md5": put(store, b"x"), "relpath": place}]
    if inline:
        out = {"files": [{**listing[0], "size": 1}]}
    else:
        out = {"md5": put(store, json.dumps(listing).encode(), ".dir")}
    out |= {"path": "photos", "hash": "md5", "size": 1, "nfiles": 1}
    (tmp_path / "clone/photos.dvc").write_text(yaml.safe_dump({"outs": [out]}))
    Repo.init(no_scm=True).close()
    with Repo(config={"core": {"remote": "s"}, "remote": {"s": {"url": str(store)}}}) as repo:
        if place == "a/b.png":
            check_listings(repo, ["photos.dvc"], "s")
            return
        with pytest.raises(InputError, match=f"photos.dvc: .*{place}', which leads out of it"):
            check_listings(repo, ["photos.dvc"], "s")
    assert {path.name for path in tmp_path.iterdir()} == {"clone", "store"}
