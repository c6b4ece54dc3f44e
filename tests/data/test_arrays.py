"""Arrays of other programs, against what NumPy, h5py, pyarrow and safetensors wrote."""

import h5py
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from safetensors.numpy import save_file

from singflow.data import arrays
from singflow.data.arrays import find_arrays
from singflow.errors import InputError

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((23, 5)).astype(np.float32)
PARTS = ROWS[:9], ROWS[9:20], ROWS[20:]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK", 30)  # six rows


def lists(rows, kind=None):
    return pa.table({"key": range(len(rows)), "image_embedding": pa.array(list(rows), kind)})


def write_all(folder):
    """The same rows in every form, by the place that is named for them."""
    np.save(folder / "a.npy", ROWS)
    np.save(folder / "columns.npy", np.asfortranarray(ROWS))
    np.savez(folder / "a.npz", ROWS, names=np.array(["a"] * 23))
    np.savez_compressed(folder / "many.npz", other=ROWS[:, :2], mine=np.asfortranarray(ROWS))
    save_file({"x": ROWS, "bias": ROWS[0]}, folder / "a.safetensors")
    others = {"bn.num_batches_tracked": np.array(7), "bn.empty": ROWS[0, :0]}
    save_file({"fc.weight": ROWS, "fc.bias": ROWS[0]} | others, folder / "timm.safetensors")
    parquet.write_table(lists(ROWS), folder / "lists.parquet", row_group_size=7)
    fixed = pa.list_(pa.float32(), 5)
    parquet.write_table(lists(ROWS, fixed), folder / "fixed.parquet", row_group_size=7)
    wide = {"file": ["a"] * 23} | {f"f{i}": ROWS[:, i] for i in range(5)}
    parquet.write_table(pa.table(wide), folder / "wide.parquet")
    with h5py.File(folder / "features.hdf5", "w") as file:  # as thingsvision
        file.create_dataset("features", data=ROWS)
        file["notes"] = h5py.Empty("S1")
    with h5py.File(folder / "split.h5", "w") as file:
        for number, part in zip((1, 2, 10), PARTS, strict=True):
            file.create_dataset(f"features_{number}", data=part)
        file.create_dataset("names", data=[b"a"] * 23)
    for kind in ("img_emb", "metadata"):  # as clip-retrieval
        (folder / kind).mkdir()
    for number, part in zip((0, 2, 10), PARTS, strict=True):
        np.save(folder / f"img_emb/img_emb_{number}.npy", part)
    np.save(folder / "img_emb/mean.npy", ROWS[:1])  # without a number
    (folder / "img_emb/._img_emb_0.npy").write_bytes(b"\0\5\x16\7")  # as macOS on other disks


@pytest.mark.parametrize(
    "place",
    [
        *("a.npy", "columns.npy", "a.npz", "many.npz:mine", "a.safetensors", "a.safetensors:x"),
        "timm.safetensors:fc.weight",
        *("lists.parquet", "lists.parquet:image_embedding", "fixed.parquet", "wide.parquet"),
        *("features.hdf5", "split.h5", "split.h5:features_*", "img_emb"),
    ],
)
def test_rows_come_out_as_they_were_written_in_blocks(tmp_path, place):
    write_all(tmp_path)
    found = find_arrays(f"{tmp_path}/{place}", 2)
    assert found.shape == ROWS.shape
    np.testing.assert_array_equal(found.whole(), ROWS)
    blocks = [len(block) for block in found.blocks()]
    assert place == "many.npz:mine" or max(blocks) <= 7  # Fortran's order in a zip is read whole


def test_double_precision_and_integers_and_half_precision_keep_their_values(tmp_path):
    for kind in ("float64", "float16", "int64"):
        rows = (100 * ROWS).astype(kind)
        np.save(tmp_path / "a.npy", rows)
        whole = find_arrays(f"{tmp_path}/a.npy", 2).whole()
        assert whole.dtype == np.float32
        np.testing.assert_array_equal(whole, rows.astype(np.float32))


@pytest.mark.parametrize(
    "name", ["a.npy", "many.npz", "a.safetensors", "lists.parquet", "split.h5"]
)
def test_changed_bytes_give_numbers_or_one_line_that_names_the_file(tmp_path, name):
    write_all(tmp_path)
    path, random = tmp_path / name, np.random.default_rng(2)
    content = path.read_bytes()
    for _ in range(30):
        changed = bytearray(content)
        for place in random.integers(len(content), size=3):
            changed[place] = random.integers(256)
        path.write_bytes(changed[: random.choice([len(content), random.integers(len(content))])])
        try:
            key = ":mine" if name == "many.npz" else ""
            assert np.isfinite(find_arrays(f"{path}{key}", 2).whole()).all()
        except InputError as refused:
            assert name in str(refused) and "\n" not in str(refused)
