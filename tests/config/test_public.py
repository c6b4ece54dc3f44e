import re
import shutil

from singflow.config.public import public_params
from tests.project import ROOT


def test_parameters_that_are_shown_name_no_folder_of_this_machine_and_keep_their_comments(tmp_path):
    params = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", params)
    before = params.read_text()
    assert public_params(params) == before
    changed = before.replace("  root: .  ", f"  root: {tmp_path}/secret  ")
    changed = changed.replace("config/vocab/packaged.csv", f"{tmp_path}/photos.csv")
    changed = changed.replace("reference: packaged  ", f"reference: {tmp_path}/secret  ")
    assert changed.count(str(tmp_path)) == 3
    params.write_text(changed)
    text = public_params(params)
    assert str(tmp_path) not in text and len(text.splitlines()) == len(before.splitlines())
    assert re.search(r"root: secret +# folder", text)
    assert re.search(r"table: photos\.csv +# one row per image", text)
    assert re.search(r"reference: secret +# results folder", text)
