from singflow.config.registry import MODELS, few, resolve_models
from singflow.data.vocabulary import few_of, read_vocabulary, with_classes_and_hashes
from tests.data.manifests import CLASSES
from tests.project import ROOT
from tests.refusals import refused


def test_phrases_come_in_order_whatever_the_spaces_line_ends_and_the_byte_order_mark(tmp_path):
    (tmp_path / "concepts.txt").write_bytes(b"\xef\xbb\xbfa \t rug \r\na temple\r\n\r\n \t\n")
    assert read_vocabulary(tmp_path / "concepts.txt") == ["a rug", "a temple"]


def test_the_packaged_vocabularies_are_read():
    assert len(read_vocabulary(ROOT / "config/vocab/concepts.txt")) == 30
    phrases = read_vocabulary(ROOT / "config/vocab/broden_style.txt")
    assert 300 <= len(phrases) <= 400


def test_the_names_of_imagenet_are_the_classes_in_their_order():
    assert read_vocabulary(ROOT / "config/vocab/imagenet_names.txt") == CLASSES.names


def test_a_head_of_imagenet_is_cut_to_its_animals_and_another_to_drawn_classes():
    cut = "efficientnet_lite0@cut"
    (entry,) = resolve_models(MODELS, [cut]).values()
    entry = with_classes_and_hashes(entry, MODELS, cut, ROOT / "config/vocab/imagenet_1k.csv")
    assert entry.kept == [*range(398)] and entry.class_names == CLASSES.names[:398]
    assert few_of(CLASSES.names[::-1]) == few(1000) and few_of(CLASSES.names[:9]) is None
    nine = entry.model_copy(update={"class_names": CLASSES.names[:9], "classes": None})
    many = nine.model_copy(update={"keep_classes": "3-9"})
    said = "keep_classes 3-9 goes beyond the 9 classes of class_names: correct it"
    refused(said, with_classes_and_hashes, many, MODELS, cut, ROOT)
    refused(
        f"{cut}: the head has 9 classes, and is cut if it has 10: take {cut} out of models",
        with_classes_and_hashes,
        nine.model_copy(update={"keep_classes": "few"}),
        *(MODELS, cut, ROOT),
    )
