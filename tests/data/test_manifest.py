"""From files to a manifest: accepted, or rejected with a reason; the seed fixes the draw."""

import hashlib
import os
import random
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from threadpoolctl import threadpool_info, threadpool_limits

from singflow.data.listing import list_folder, list_table
from singflow.data.manifest import Candidate, Refusal, fill, prompt_of
from singflow.errors import InputError
from singflow.parallel import map_apart
from tests.data.archives import picture
from tests.data.manifests import CLASSES, CLASSES_FILE, build
from tests.project import ROOT
from tests.results import Results

TEXTS, INT32 = ("path", "label", "prompt", "split", "sha256"), ("class_index", "fold")
TYPES = dict.fromkeys(TEXTS, "str") | dict.fromkeys((*INT32, "width", "height"), "int32")
BAD = {"empty": b"", "text": b"not a picture", "cut": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0"}


def tree(root: Path, *paths: str) -> Path:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(picture(number))
    return root


def candidate(path: str, label: str, split: str = "") -> Candidate:
    return Candidate(path, label, -1, prompt_of(label), split)


def labelled(numbers: dict[str, int]) -> list[Candidate]:
    """So many images of the pool for each label."""
    labels = [label for label, number in numbers.items() for _ in range(number)]
    return [candidate(f"g{number}", label) for number, label in enumerate(labels)]


def sizes(folds: pd.Series, numbers: range) -> list[int]:
    """Images of each of the folds that there may be, the fewest first."""
    assert set(folds) <= set(numbers)
    return sorted(int((folds == number).sum()) for number in numbers)


def even(number: int, folds: int) -> list[int]:
    """Sizes of folds that differ by one at most, the smallest first."""
    return sorted(len(range(first, number, folds)) for first in range(folds))


def held_out(manifest: pd.DataFrame) -> frozenset[str]:
    return frozenset(manifest.loc[manifest["split"] == "validation", "path"])


# The list of classes


def test_a_class_is_found_by_synset_and_by_name_in_any_spelling():
    assert len(CLASSES.names) == 1000
    for text in ("n01484850", "N01484850", "great white shark", "  Great white_Shark "):
        assert CLASSES.find(text) == 2
    assert CLASSES.find("great white") == CLASSES.find("") == -1


# The texts of labels

AN = (
    "Egyptian cat|ear|Irish setter|otter|umbrella|upright|usher|unimportant thing|onesie|hourglass"
    "|heirloom|honest face|éclair|8"
)
A = (
    "tench|European gallinule|unicycle|uniform|used car|utility pole|UK plug|one-way street|ewe"
    "|yurt|house|hon|honeycomb|_x|犬|"
)


@pytest.mark.parametrize("article, names", [("an", AN), ("a", A)])
def test_a_template_with_either_article_takes_the_one_that_is_said(article, names):
    for name in names.split("|"):
        said = fill("an image of a(n) {}, a(n) {} alone", name)
        assert said == f"an image of {article} {name}, {article} {name} alone"


def test_no_other_template_is_changed_by_what_it_is_filled_with():
    assert fill("{} is a {}, {{}}", "a(n) {}") == "a(n) {} is a a(n) {}, {a(n) {}}"
    assert prompt_of("ant") == "an image of a ant"


# A folder


def test_folders_are_synsets_or_names_or_labels_of_their_own(tmp_path):
    found = [
        ("Two Words/d.png", "Two Words", -1),
        ("great_white_shark/deep/er/b.png", "great white shark", 2),
        ("my_own_cat/c.png", "my own cat", -1),
        ("n01440764/a.png", "tench", 0),
        ("train/e.png", "train", -1),
    ]
    root = tree(tmp_path, *(path for path, *_ in found))
    expected = [Candidate(path, label, index, prompt_of(label)) for path, label, index in found]
    assert list_folder(root, CLASSES) == (expected, [])


def test_folders_train_and_val_give_the_split(tmp_path):
    classes = ("train/n01440764/a.png", "train/own_cat/b.png", "Val/tench/c.png")
    tree(tmp_path, *classes, "train/loose.png", "top.png")
    found, rejected = list_folder(tmp_path, CLASSES)
    assert [(c.path, c.label, c.class_index, c.split) for c in found] == [
        (classes[2], "tench", 0, "validation"),
        (classes[0], "tench", 0, "train"),
        (classes[1], "own cat", -1, "train"),
    ]
    assert dict(rejected) == dict.fromkeys(("top.png", "train/loose.png"), "not in a class folder")


def test_a_link_is_followed_once_and_nothing_is_dropped_in_silence(tmp_path):
    tree(tmp_path, "elsewhere/a.png", "root/cat/b.png", "root/loose.png")
    links = {"cat/loop": ".", "dog": "../elsewhere", "tiger": "cat", "self": "self"}
    for link, target in links.items():
        at = target if link == "self" else (tmp_path / "root" / target).resolve()
        (tmp_path / "root" / link).symlink_to(at)
    found, rejected = list_folder(tmp_path / "root", CLASSES)
    assert [(c.path, c.label) for c in found] == [("cat/b.png", "cat"), ("dog/a.png", "dog")]
    again = "a link to a folder that is listed already"
    loose = dict.fromkeys(("loose.png", "self"), "not in a class folder")
    assert dict(rejected) == loose | {"cat/loop": again, "tiger": again}


HOSTILE = [
    *("two words.png", "it's.png", 'a "quote".png', "$(touch x).png", "a;b.png", "-rf.png"),
    *("*.png", "{input}.png", "é漢字🐟.png"),
    *("Screenshot at 10.00.00\u202fAM.png", "family 👩\u200d👧.png"),
]


def test_any_printable_name_is_data_and_no_other_is_used_or_printed(tmp_path):
    good = {*(f"cat/{name}" for name in HOSTILE), *(f"{name}/x.png" for name in HOSTILE)}
    bad = ["two\nlines.png", "red\x1b[31m.png", "tab\t.png", os.fsdecode(b"\xff\xfe.png")]
    tree(tmp_path, *good, *(f"cat/{name}" for name in bad), "__/b.png")
    found, rejected = list_folder(tmp_path, CLASSES)
    assert {c.path for c in found} == good
    assert rejected.pop(0) == ("__/b.png", "no printable label")
    said = "name is not UTF-8 or holds control characters: rename the file"
    escaped = [f"cat/{name.encode('unicode_escape').decode()}" for name in bad]
    assert dict(rejected) == dict.fromkeys(escaped, said)
    assert set(build(tmp_path, found)[0]["path"]) == good


LITTER = [
    *(".DS_Store", "Thumbs.db", "THUMBS.DB", "desktop.ini", "._a.png", ".directory"),
    *("@eaDir/a.png", "$RECYCLE.BIN/a.png", "__MACOSX/cat/._a.png"),
]


def test_litter_is_neither_a_class_nor_rejected_and_the_log_says_how_much(tmp_path, caplog):
    good = ["train/cat/a.png", "train/cat/deep/b.png", "val/cat/c.png"]
    places = ("", "train/", "train/cat/", "train/cat/deep/")
    tree(tmp_path, *good, *(place + path for place in places for path in LITTER))
    caplog.set_level("INFO")
    found, rejected = list_folder(tmp_path, CLASSES)
    assert [c.path for c in found] == good and rejected == []
    assert {c.label for c in found} == {"cat"}
    (line,) = caplog.messages
    assert line.startswith(f"{len(LITTER) * len(places)} files and folders skipped")
    found, _ = list_folder(tree(tmp_path / ".hidden root", "cat/a.png"), CLASSES)
    assert [c.path for c in found] == ["cat/a.png"] and len(caplog.messages) == 1


# A table


def listed(tmp_path: Path, rows: list[dict], kind: str = "csv", label_column: str = "label"):
    table, frame = tmp_path / f"table.{kind}", pd.DataFrame(rows)
    frame.to_csv(table, index=False) if kind == "csv" else frame.to_parquet(table)
    return list_table(table, label_column, CLASSES)


def text_table(tmp_path: Path, content: str):
    (tmp_path / "table.csv").write_bytes(content.encode())
    return list_table(tmp_path / "table.csv", "label", CLASSES)


@pytest.mark.parametrize("kind", ["csv", "parquet", "pq"])
def test_a_table_needs_a_path_and_a_label_and_may_have_the_rest(tmp_path, kind):
    rows = [{"path": "a.png", "kind": "tench"}, {"path": "d/b c.png", "kind": "my_cat"}]
    assert listed(tmp_path, [*rows, {"path": None, "kind": " "}], kind, "kind") == (
        [Candidate("a.png", "tench", 0, prompt_of("tench")), candidate("d/b c.png", "my cat")],
        [],
    )
    columns = ("path", "label", "class_index", "prompt", "split", "group")
    full = [
        ("a.png", "fish", 0, "one fish", "train", " film 1"),
        ("b.png", "fish", 1, "one fish", "val"),
        ("c.png", "cat", -1, None, "validation"),
        ("d.png", "n01484850", None, None, None),
        ("e.png", None, 3, None, None),
        ("f.png", None, -1, None, None),
        ("g.png", " ", None, None, None),
        ("h.png", "my_fish", 3, None, None),
        ("007", "NA", -1, None, None),
    ]
    assert listed(tmp_path, [dict(zip(columns, row, strict=False)) for row in full], kind) == (
        [
            Candidate("a.png", "fish", 0, "one fish", "train", group="film 1"),
            Candidate("b.png", "fish", 1, "one fish", "validation"),
            candidate("c.png", "cat", "validation"),
            Candidate("d.png", "great white shark", 2, "an image of a great white shark"),
            Candidate("e.png", "tiger shark", 3, "an image of a tiger shark"),
            Candidate("h.png", "my fish", 3, "an image of a my fish"),
            candidate("007", "NA"),
        ],
        [("f.png", "no printable label"), ("g.png", "no printable label")],
    )


def test_a_row_that_leads_nowhere_or_comes_again_is_rejected(tmp_path):
    outside = ["../x.jpg", "a/../../x.jpg", "a/..", "/etc/passwd", "//x.jpg", ""]
    again = ["d/a.png", "./d/a.png", "d//a.png"]
    paths = ["a..b/..c.png", "d/a.png", *outside, *again, "a\nb.png"]
    rows = [{"path": path, "label": "cat"} for path in paths]
    found, rejected = listed(tmp_path, [*rows, {"path": "c.png", "label": "c\nat"}])
    assert [c.path for c in found] == paths[:2]
    said = "outside the data root: paths are relative to it and without .."
    assert rejected == [
        *((path, said) for path in outside),
        *((path, "listed twice") for path in again),
        ("a\\nb.png", "name is not UTF-8 or holds control characters: rename the file"),
        ("c.png", "no printable label"),
    ]


@pytest.mark.parametrize(
    ("separator", "end", "header"),
    [
        (",", "\n", "path,label,split"),
        (";", "\r\n", "\ufeffPATH, Label ,SPLIT"),
        ("\t", "\n", "\ufeffPATH, Label ,SPLIT"),
    ],
)
def test_separators_capitals_short_and_blank_rows_of_spreadsheets_are_understood(
    tmp_path, separator, end, header
):
    lines = [header, "", "a.png,my_cat,Val", ",,", " , ,", 'b.png,"a*b",TRAIN', "c.png,my cat", ""]
    content = end.join(lines).replace(",", separator).replace("*", ",;")
    found, rejected = text_table(tmp_path, content)
    assert [(c.path, c.label, c.split) for c in found] == [
        ("a.png", "my cat", "validation"),
        ("b.png", "a,;b", "train"),
        ("c.png", "my cat", ""),
    ]
    assert rejected == []
    with pytest.raises(InputError, match=r"line 3 \(a\.png\): split 'Test' is neither"):
        text_table(tmp_path, content.replace("Val", "Test"))
    exact = f"Path{separator}path{separator}label\na.png{separator}b.png{separator}cat\n"
    assert text_table(tmp_path, exact)[0] == [candidate("b.png", "cat")]


# The manifest


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Files by number: g0..g23 are distinct pictures; b0..b23 are empty, text, cut or absent."""
    root = tmp_path_factory.mktemp("pool")
    for number in range(24):
        (root / f"g{number}").write_bytes(picture(number))
        if number % 4 < 3:
            (root / f"b{number}").write_bytes(list(BAD.values())[number % 4])
    return root


LABELS, SPLITS = ["cat", "dog", "my fish"], ["", "", "train", "validation"]


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(LABELS), st.sampled_from(SPLITS)), max_size=24
    ),
    st.none() | st.integers(1, 6),
    st.integers(0, 3),
    st.integers(0, 5),
    st.integers(1, 4),
    st.integers(2, 7),
)
def test_accepted_and_rejected_are_together_all_that_was_found(
    pool, files, per_class, refused, seed, threads, folds
):
    found = [
        candidate(f"{'bg'[good]}{number}", label, split)
        for number, (good, label, split) in enumerate(files)
    ]
    earlier = [(f"loose{number}", "not in a class folder") for number in range(refused)]
    good = Counter((label, split) for usable, label, split in files if usable)
    taken = {key: min(number, per_class or number) for key, number in good.items()}
    try:
        flags = {"per_class": per_class, "folds": folds, "seed": seed, "threads": threads}
        manifest, rejected = build(pool, found, earlier, **flags)
    except InputError:
        drawn, train, validation = (
            sum(number for key, number in taken.items() if key[1] == split)
            for split in ("", "train", "validation")
        )
        assert (drawn < 2 and not train) or not (drawn or validation)
        return
    accounted = [*manifest["path"], *(path for path, _ in rejected)]
    assert sorted(accounted) == sorted([c.path for c in found] + [path for path, _ in earlier])
    assert manifest["path"].is_monotonic_increasing and {*manifest["split"]} == {*SPLITS[2:]}
    original = {c.path: c for c in found}
    for row in manifest.to_dict("records"):
        source = original[row["path"]]
        assert row["path"].startswith("g")
        assert (row["label"], row["prompt"]) == (source.label, source.prompt)
        assert row["split"] == (source.split or ("train" if row["fold"] else "validation"))
    sources = [original[path] for path in manifest["path"]]
    assert Counter((source.label, source.split) for source in sources) == taken
    given = manifest["path"].map(lambda path: original[path].split) == "validation"
    for drawn, numbers in ((manifest[~given], range(folds)), (manifest[given], range(1, folds))):
        assert sizes(drawn["fold"], numbers) == even(len(drawn), len(numbers))
        for _, alike in drawn.groupby("label"):
            assert sizes(alike["fold"], numbers) == even(len(alike), len(numbers))
    undrawn = f"not drawn: data.per_class is {per_class}"
    for path, reason in set(rejected) - set(earlier):
        assert reason == undrawn if path.startswith("g") else reason


def test_the_manifest_has_its_columns_types_and_contents(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (7, 3), "red").save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "b.png").write_bytes(picture(1))
    found = [
        Candidate("turned.jpg", "tench", 0, "one tench", "validation"),
        Candidate("b.png", "cat", -1, "one cat", "train"),
    ]
    manifest, rejected = build(tmp_path, found)
    assert rejected == []
    assert manifest.dtypes.astype(str).to_dict() == {"image_id": "int64"} | TYPES
    contents = [(tmp_path / name).read_bytes() for name in manifest["path"]]
    first, second = (hashlib.sha256(content).hexdigest() for content in contents)
    assert manifest.to_numpy().tolist() == [
        [0, "b.png", "cat", -1, "one cat", "train", 0, 8, 6, first],
        [1, "turned.jpg", "tench", 0, "one tench", "validation", 1, 3, 7, second],
    ]


def test_one_label_is_drawn_alike_whatever_other_labels_and_damaged_files_there_are(pool):
    cats = labelled({"cat": 10})
    alone = set(build(pool, cats, per_class=4)[0]["path"])
    others = [candidate(f"g{number}", "dog") for number in range(10, 20)]
    damaged = [candidate(f"b{number}", "cat") for number in range(10)]
    beside, _ = build(pool, [*cats, *others, *damaged], per_class=4)
    assert set(beside.loc[beside["label"] == "cat", "path"]) == alone


def test_order_of_listing_and_threads_do_not_change_the_manifest(pool):
    found = labelled({"cat": 9, "dog": 8}) + [candidate(f"b{i}", "cat") for i in range(8)]
    found += [candidate(f"g{i}", "newt", ("train", "validation")[i % 2]) for i in range(17, 24)]
    first, first_rejected = build(pool, found, per_class=5)
    for threads in (1, 16):
        shuffled = random.Random(threads).sample(found, len(found))  # noqa: S311
        again, rejected = build(pool, shuffled, per_class=5, threads=threads)
        pd.testing.assert_frame_equal(again, first)
        assert rejected == first_rejected


def test_another_seed_draws_others_and_every_image_is_drawn_and_in_every_fold_as_often(pool):
    found, draws = labelled({"cat": 12}), []
    for seed in range(50):
        manifest, _ = build(pool, found, per_class=6, folds=3, seed=seed)
        draws.append(dict(zip(manifest["path"], manifest["fold"], strict=True)))
    for drawn in ({frozenset(draw) for draw in draws[:8]}, {(*draw.items(),) for draw in draws}):
        assert len(drawn) >= 8
    drawn = Counter(path for draw in draws for path in draw)
    assert len(drawn) == 12 and min(drawn.values()) > 11 and max(drawn.values()) < 39
    assert len({held_out(build(pool, found, seed=seed)[0]) for seed in range(8)}) > 6
    folds = Counter(pair for draw in draws for pair in draw.items())
    assert len(folds) == 36 and max(folds.values()) < 20


def test_a_study_without_one_of_the_splits_is_refused(pool):
    for split, missing in (("train", "validation"), ("validation", "train")):
        with pytest.raises(InputError, match=f"no image is in the split {missing}"):
            build(pool, [candidate(f"g{number}", "cat", split) for number in range(4)])


def test_images_of_one_group_share_a_fold_and_are_named_in_the_manifest(pool):
    films = [candidate(f"g{n}", "cat")._replace(group=f"film {n // 4}") for n in range(16)]
    found = [*films, *(candidate(f"g{n}", "dog") for n in range(16, 24))]
    for seed in range(4):
        manifest, _ = build(pool, found, seed=seed)
        assert (manifest.groupby("group")["fold"].nunique() == 1).all()
        names = manifest.set_index("path")[["group", "sha256"]]
        assert (names.loc[[c.path for c in films], "group"] == [c.group for c in films]).all()
        alone = names.loc[[f"g{n}" for n in range(16, 24)]]
        assert (alone["group"] == alone["sha256"]).all()
    assert "group" not in build(pool, labelled({"cat": 8}))[0]
    (pool / "copy").write_bytes((pool / "g0").read_bytes())
    with pytest.raises(InputError, match="copy and g0 are copies: give both the same group"):
        build(pool, [*films, candidate("copy", "cat")._replace(group="other")])
    sides = [films[0]._replace(split="train"), films[1]._replace(split="validation")]
    with pytest.raises(InputError, match="group 'film 0': has images in train and in val"):
        build(pool, [*sides, *films[4:]])


def test_one_image_is_enough_with_a_reference_alone_and_two_are_without(pool):
    for copies, words in ((1, "1 image, "), (6, "1 image in 6 copies, ")):
        for number in range(copies):
            (pool / f"copy {number}").write_bytes((pool / "g0").read_bytes())
        needed = rf"^{words}.*: at least 2 are needed, .* write translator.reference: packaged"
        with pytest.raises(InputError, match=needed):
            build(pool, [candidate(f"copy {number}", f"{number % 2}") for number in range(copies)])
    assert len(build(pool, labelled({"cat": 1}), referenced=True)[0]) == 1
    manifest, _ = build(pool, labelled({"cat": 1, "dog": 1}))
    sides = sorted(zip(manifest["split"], manifest["fold"] == 0, strict=True))
    assert sides == [("train", False), ("validation", True)]


def test_of_copies_on_both_given_sides_those_in_train_are_left_out_and_others_drawn(
    tmp_path, caplog
):
    shades = {f"cat/{number}.png": number for number in range(5)} | {"dog/copy.png": 9}
    twins = {"cat/held out.png": 9, "cat/0 held out.png": 0}
    tree(tmp_path, *shades, *twins)
    for path, shade in (shades | twins).items():
        (tmp_path / path).write_bytes(picture(shade))
    found = [candidate(path, path[:3], "train") for path in shades]
    found += [candidate(path, "cat", "validation") for path in twins]
    for per_class, in_train in ((None, 4), (3, 3)):
        flags = {"per_class": per_class, "max_rejected_fraction": 0.0}
        manifest, rejected = build(tmp_path, found, **flags)
        assert held_out(manifest) == {*twins}
        assert (manifest["split"] == "train").sum() == in_train
        assert ("dog/copy.png", "a copy of cat/held out.png, which is held out") in rejected
        assert {c.path for c in found} == {*manifest["path"], *(path for path, _ in rejected)}
    said = "of train are left out: they are copies, byte for byte, of images that are held out"
    assert f"images {said}" in caplog.text


def test_too_many_unusable_files_stop_the_run_with_the_reasons(pool):
    bad = [candidate("b0", "cat"), candidate("b1", "dog"), candidate("b3", "dog")]
    found = labelled({"cat": 4, "dog": 4}) + bad
    loose = [("loose.png", "not in a class folder")]
    manifest, rejected = build(pool, found, loose, max_rejected_fraction=4 / 12)
    assert (len(manifest), len(rejected)) == (8, 4)
    with pytest.raises(Refusal, match=r"\(data.root: .*pool") as refused:
        build(pool, found, loose, max_rejected_fraction=0.33)
    said = "4 of 12 files are unusable, more than data.max_rejected_fraction (0.33)"
    assert str(refused.value).startswith(said) and refused.value.rejected == rejected


# The threads


@pytest.mark.parametrize(("threads", "expected"), [(None, 2), (1, 1), (3, 1)])
def test_map_apart_leaves_a_thread_of_blas_to_each_of_its_threads_and_then_as_many_as_before(
    threads, expected
):
    def blas(item):
        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        return item, {pool["num_threads"] for pool in pools}

    with threadpool_limits(2, user_api="blas"):
        assert list(map_apart(blas, range(4), threads)) == [(item, {expected}) for item in range(4)]
        assert blas(0) == (0, {2})


# The script


def run_script(tmp_path: Path, **flags):
    known = {"source": "packaged", "root": ".", "max_rejected_fraction": 0.05, "seed": 0}
    known |= {"table": str(ROOT / "config/vocab/packaged.csv"), "classes": str(CLASSES_FILE)}
    known |= {"folds": 5, "threads": 2, "log": tmp_path / "logs/log.txt"}
    Results(tmp_path / "out").run("build_manifest", **known | flags)


def test_the_step_writes_the_manifest_of_the_packaged_images(tmp_path, caplog):
    caplog.set_level("INFO")
    run_script(tmp_path, folds=0)
    manifest = pd.read_parquet(tmp_path / "out/data/manifest.parquet")
    packaged = pd.read_csv(ROOT / "config/vocab/packaged.csv")
    pd.testing.assert_frame_equal(manifest[list(packaged)], packaged, check_dtype=False)
    assert sizes(manifest["fold"], range(5)) == [4] * 5
    assert (tmp_path / "out/data/rejected.csv").read_text() == "path,reason\n"
    assert len([*(tmp_path / "out/data").iterdir()]) == 2
    assert "20 images under 19 labels, 4 held out; 0 left out" in caplog.messages


def test_images_of_the_reference_are_refused_before_a_tower_sees_them(tmp_path):
    run_script(tmp_path)
    (tmp_path / "out").rename(tmp_path / "other")
    with pytest.raises(InputError, match=r"other: holds 20 of the study's images, its .* in sampl"):
        run_script(tmp_path, reference=str(tmp_path / "other"))
    assert not (tmp_path / "out/data/manifest.parquet").exists()
    run_script(tmp_path, reference="packaged")


def test_the_step_ends_with_the_list_and_without_output_when_all_files_are_bad(tmp_path):
    (tmp_path / "data" / "my cat").mkdir(parents=True)
    for name, content in BAD.items():
        (tmp_path / "data" / "my cat" / f"{name}; $(x).png").write_bytes(content)
    with pytest.raises(InputError, match="3 of 3 files are unusable") as refused:
        run_script(tmp_path, source="folder", root=str(tmp_path / "data"))
    for name, reason in (("empty", "empty file"), ("text", "not an image"), ("cut", "")):
        assert f"\n  my cat/{name}; $(x).png: {reason}" in str(refused.value)
    listed = tmp_path / "logs" / "rejected.csv"
    assert f"all are listed in {listed}" in str(refused.value)
    assert len(listed.read_text().splitlines()) == 4 and not (tmp_path / "out").exists()
