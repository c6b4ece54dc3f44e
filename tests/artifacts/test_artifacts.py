import os
import shutil
import subprocess
import sys
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, from_dtype

import singflow
from singflow.artifacts import catalog, files, tables
from singflow.artifacts import shards as sharding
from singflow.artifacts import tensors as tensor_files
from singflow.artifacts.scratch import Scratch
from singflow.errors import InputError
from tests.results import Results

DTYPES = st.sampled_from(["float32", "float64", "int64", "int32"]).map(np.dtype)
SHAPES = array_shapes(min_dims=0, max_dims=3, min_side=0)
FINITE = {"allow_nan": False, "allow_infinity": False}
FINITE_ARRAYS = DTYPES.flatmap(lambda of: arrays(of, SHAPES, elements=from_dtype(of, **FINITE)))
FRAME = pd.DataFrame({"image_id": [0, 1, 2], "label": ["a", "b", "c"], "is_deg": [0.5, 1.5, 2.5]})
TENSORS = {"features": np.arange(6, dtype=np.float32).reshape(3, 2), "image_id": np.arange(3)}
WRITERS = {
    "json": (lambda path: files.write_json(path, {"rank": 3, "rule": "exact"}), files.read_json),
    "parquet": (lambda path: tables.write_parquet(path, FRAME), tables.read_parquet),
    "safetensors": (
        lambda path: tensor_files.write_tensors(path, TENSORS, {"study": "demo"}),
        lambda path: tensor_files.read_tensors(path, [*TENSORS]),
    ),
}


def refusal(read, *arguments):
    with pytest.raises(InputError) as refused:
        read(*arguments)
    return str(refused.value)


def program(lines, *arguments, **options):
    """A Python process."""
    head = "import sys\nfrom pathlib import Path\nimport numpy as np\n"
    return subprocess.Popen([sys.executable, "-c", head + lines, *arguments], **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("old", [b"old", None])
def test_a_failed_block_leaves_the_old_file_or_none_and_no_litter(tmp_path, old):
    path = tmp_path / "deep" / "scores.bin"
    if old:
        files.write_bytes(path, old)
    with pytest.raises(ZeroDivisionError), files.atomic(path) as temporary:
        temporary.write_bytes(b"half")
        assert temporary.parent == path.parent and path.exists() == bool(old)
        raise ZeroDivisionError
    assert contents(path.parent) == ({path.name: old} if old else {})


HOLDER = """
from singflow.artifacts.files import atomic
with atomic(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print(temporary.name, flush=True)
    sys.stdin.readline()
"""


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    path, pipes = tmp_path / "scores [1].bin", {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    files.write_bytes(path, b"old")
    dead, living = (program(HOLDER, path, text=True, **pipes) for _ in range(2))
    left, half = (process.stdout.readline().strip() for process in (dead, living))
    dead.kill()
    dead.wait()
    assert contents(tmp_path) == {path.name: b"old", left: b"half", half: b"half"}
    files.write_bytes(path, b"whole")
    assert contents(tmp_path) == {path.name: b"whole", half: b"half"}
    living.communicate("\n")
    assert living.returncode == 0 and contents(tmp_path) == {path.name: b"half"}


RESERVED = {"__metadata__", *catalog.TENSORS}
NAMES = st.text(min_size=1).filter(lambda name: name not in RESERVED)


@settings(max_examples=60)
@given(
    st.dictionaries(NAMES, FINITE_ARRAYS.map(np.transpose), min_size=1, max_size=4),
    st.dictionaries(st.text(), st.text(), max_size=4),
)
def test_tensors_come_back_as_they_were_written(tmp_path_factory, tensors, metadata):
    path = tmp_path_factory.getbasetemp() / "tensors.safetensors"
    tensor_files.write_tensors(path, tensors, metadata)
    read, facts = tensor_files.read_tensors(path, [*tensors])
    assert facts == metadata and read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
        assert read[name].tobytes() == tensor.tobytes()


@pytest.mark.parametrize("kind", WRITERS)
def test_a_missing_empty_or_truncated_file_is_refused_by_name(tmp_path, kind):
    write, read = WRITERS[kind]
    write(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes().rstrip(b"\n")
    path = tmp_path / f"artifact.{kind}"
    assert str(path) in refusal(read, path)
    for length in range(0, len(content), 23):
        path.write_bytes(content[:length])
        message = refusal(read, path)
        assert str(path) in message and "remove it and run the workflow again" in message


def test_a_tensor_that_is_missing_or_not_finite_is_refused_by_name_and_first_row(tmp_path):
    path, dtypes = tmp_path / "head.safetensors", ("float16", "float32", "float64")
    tensor_files.write_tensors(path, {"weight": np.zeros(2)}, {})
    message = refusal(tensor_files.read_tensors, path, ["weight", "scale", "bias"])
    assert message.startswith(f"{path}: holds no tensor bias, scale")
    assert tensor_files.read_tensors(path, [])[0] == {}
    for dtype, shape, value in product(dtypes, ((6,), (6, 2, 2)), (np.nan, np.inf, -np.inf)):
        tensor = np.ones(shape, dtype)
        tensor[3:, ...] = value
        tensor_files.write_tensors(path, {"bias": np.ones(3), "map": tensor}, {})
        message = refusal(tensor_files.read_tensors, path, ["bias", "map"])
        assert message.startswith(f"{path}: map holds NaN or infinite values, first in row 3: ")
        assert tensor_files.read_tensors(path, ["bias"])[0].keys() == {"bias"}


def test_json_that_is_not_finite_is_never_written(tmp_path):
    path = tmp_path / "report.json"
    files.write_json(path, {"rank": 1})
    for value in (float("nan"), -float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            files.write_json(path, {"rank": [value]})
    assert files.read_json(path) == {"rank": 1} and list(tmp_path.iterdir()) == [path]


def test_a_table_comes_back_as_written_without_its_index_and_its_columns_are_checked(tmp_path):
    path = tmp_path / "scores.parquet"
    tables.write_parquet(path, FRAME.set_axis([7, 8, 9]))
    pd.testing.assert_frame_equal(tables.read_parquet(path), FRAME)
    some = tables.read_parquet(path, columns=["label"])
    pd.testing.assert_frame_equal(some, FRAME[["label"]])
    message = refusal(tables.read_parquet, path, "evidence_images")
    assert message.startswith(f"{path}: has no column 'floor_is_deg' of floats")


@given(st.integers(1, 2000), st.data())
def test_shards_part_the_images_in_sizes_that_differ_by_at_most_one_and_are_no_more(images, data):
    shards = data.draw(st.integers(1, images))
    rows = [sharding.shard_rows(images, shard, shards) for shard in range(shards)]
    assert [row for block in rows for row in block] == list(range(images))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1
    message = refusal(sharding.shard_rows, images, 0, images + 1)
    assert message == (
        f"extraction.shards is {images + 1}, but there are only {images} images: lower it"
    )


def write_shards(folder, shards, tensor="features"):
    """Shards given as lists of (image_id, view); a row's tensor holds its image_id."""
    for shard, rows in enumerate(shards):
        image_id, view = np.array(rows, dtype=np.int64).reshape(-1, 2).T
        array = np.stack([image_id, image_id], axis=1).astype(np.float32)
        tensors = {tensor: array, "image_id": image_id, "view": view}
        tensor_files.write_tensors(sharding.shard_path(folder, shard), tensors, {})


def test_shards_of_an_earlier_division_are_not_read(tmp_path):
    results = Results(tmp_path, shards=2)
    results.manifest(path=list("abc"), label=list("xyx"))
    features = np.arange(6, dtype=np.float32).reshape(3, 2)
    results.rows("features", features)
    files.write_bytes(results.path("params"), b"extraction: {shards: 2}\n")
    folder = results.path("features").parent
    shutil.copy(folder / "shard-00001.safetensors", folder / "shard-00002.safetensors")
    read = singflow.load_study(tmp_path).of("m").features()
    assert np.array_equal(np.concatenate([rows for _, rows in read]), features)


def through(folder, shards):
    return list(sharding.iterate_shards(folder, "features", shards, FRAME))


def test_shards_come_in_order_with_all_views(tmp_path):
    write_shards(tmp_path, [[(0, 0), (0, 1)], [], [(2, 0), (2, 1), (1, 1), (1, 0)]])
    shards = through(tmp_path, 3)
    assert [shard["image_id"].tolist() for shard in shards] == [[0, 0], [], [2, 2, 1, 1]]
    assert [shard["view"].tolist() for shard in shards] == [[0, 1], [], [0, 1, 1, 0]]
    assert all((shard["features"][:, 0] == shard["image_id"]).all() for shard in shards)


SECOND = "{}/shard-00001.safetensors: "
FOREIGN = f"{SECOND}holds images that the manifest does not"


@pytest.mark.parametrize(
    ("shards", "wrong"),
    [
        ([[(0, 0)], [(2, 0)]], "{}: image 1 occurs 0 times instead of once"),
        ([[(0, 0), (1, 0)], [(1, 0), (2, 0)]], "{}: image 1 occurs 2 times"),
        ([[], []], "{}: image 0 occurs 0 times"),
        ([[(0, 0), (1, 0)], [(2, 0), (2**40, 1)]], FOREIGN),
        ([[(0, 0), (1, 0), (2, 0)]], f"{SECOND}not readable"),
    ],
)
def test_an_image_that_is_missing_there_twice_or_foreign_and_a_missing_shard_are_refused(
    tmp_path, shards, wrong
):
    write_shards(tmp_path, shards)
    assert refusal(through, tmp_path, 2).startswith(wrong.format(tmp_path))


def test_a_shard_without_its_tensor_or_with_tensors_of_two_lengths_is_refused_by_file(tmp_path):
    write_shards(tmp_path, [[(0, 0), (1, 0), (2, 0)]])
    first = f"{tmp_path}/shard-00000.safetensors: "
    message = refusal(list, sharding.iterate_shards(tmp_path, "embeddings", 1, FRAME))
    assert message.startswith(f"{first}holds no tensor embeddings")
    tensors = {"features": np.zeros((2, 2)), "image_id": np.arange(3), "view": np.zeros(3, int)}
    tensor_files.write_tensors(sharding.shard_path(tmp_path, 0), tensors, {})
    assert refusal(through, tmp_path, 1).startswith(f"{first}its tensors differ in length")


def pairs(folder, features, embeddings):
    write_shards(folder / "f", features)
    write_shards(folder / "e", embeddings, "embeddings")
    return list(sharding.iterate_pairs(folder / "f", folder / "e", len(features), FRAME))


def test_pairs_hold_the_embeddings_of_the_features_rows_and_other_rows_are_refused(tmp_path):
    rows = [[(0, 0), (0, 1)], [(1, 0), (2, 0)]]
    found = pairs(tmp_path, rows, rows)
    assert len(found) == 2
    assert all(np.array_equal(features["features"], embeddings) for features, embeddings in found)
    for first, last in (([(1, 0), (0, 0)], (2, 0)), ([(0, 0)], (2, 0)), ([(0, 0), (1, 0)], (2, 1))):
        message = refusal(pairs, tmp_path, [[(0, 0), (1, 0)], [(2, 0)]], [first, [last]])
        for part in ("f/shard-", "e/shard-", " hold different rows"):
            assert part in message


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB, which is really full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        assert not os.environ.get("CI"), "a disk of its own cannot be mounted"
        pytest.skip("a disk of its own can be mounted by root alone")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_named_and_nothing_is_lost_or_left(small_disk, kind):
    write, read = WRITERS[kind]
    path = small_disk / f"kept.{kind}"
    write(path)
    before = read(path)
    (small_disk / "rest").write_bytes(b"0" * 500_000)
    numbers = np.random.default_rng(0).random(200_000)
    message = {
        "json": lambda: refusal(files.write_json, path, ["x" * 1000] * 2000),
        "parquet": lambda: refusal(tables.write_parquet, path, pd.DataFrame({"x": numbers})),
        "safetensors": lambda: refusal(tensor_files.write_tensors, path, {"x": numbers}, {}),
    }[kind]()
    assert message.startswith(f"{path}: cannot be written, the disk or your quota is full")
    assert "run the same again" in message
    assert {file.name for file in small_disk.iterdir()} == {path.name, "rest"}
    assert str(read(path)) == str(before)
    (small_disk / "rest").unlink()
    write(path)


INDEXES = [slice(1, 3), slice(None), slice(9, 2, -3), [2, 0], [1, 4, 8], [3, 3], [0, 39], 1]
INDEXES += [(np.array([2, 0]), slice(1, None)), np.array([[5], [7]]), np.array([], int)]


def test_what_is_read_of_a_matrix_in_a_file_is_a_copy(tmp_path):
    matrix, expected = Scratch(tmp_path, 40, 2), np.arange(80, dtype=np.float32).reshape(40, 2)
    matrix[:] = expected
    for rows in INDEXES:
        read = matrix[rows]
        assert type(read) is np.ndarray and read.dtype == np.float32
        assert read.tolist() == expected[rows].tolist()
        read[:] = -1
        assert matrix[:].tolist() == expected.tolist()
    with pytest.raises(IndexError, match="40"):
        matrix[[0, 40]]
