from hypothesis import given
from hypothesis import strategies as st

from singflow.config.registry import MODELS, few, resolve_models
from singflow.data.vocabulary import few_of, read_vocabulary, with_classes_and_hashes
from tests.data.manifests import CLASSES
from tests.project import ROOT
from tests.refusals import refused

WORD = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=6)
PHRASE = st.lists(WORD, min_size=1, max_size=3).map(" ".join)


@given(
    st.lists(
        PHRASE, min_size=1, max_size=8, unique_by=lambda phrase: phrase.replace("_", " ").casefold()
    ),
    st.sampled_from([" ", "  ", " \t "]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig"]),
    st.sampled_from(["", "\n", "\n\n", "\n \t\n", "\n\n\n\n"]),
)
def test_phrases_come_in_order_whatever_the_spaces_line_ends_and_the_byte_order_mark(
    tmp_path_factory, phrases, space, newline, encoding, trailing
):
    path = tmp_path_factory.getbasetemp() / "concepts.txt"
    lines = newline.join(phrase.replace(" ", space) + space for phrase in phrases)
    path.write_bytes((lines + trailing.replace("\n", newline)).encode(encoding))
    assert read_vocabulary(path) == phrases


def test_the_vocabularies_go_from_colours_to_parts_without_repeats():
    assert len(read_vocabulary(ROOT / "config/vocab/concepts.txt")) == 30
    phrases = read_vocabulary(ROOT / "config/vocab/broden_style.txt")
    assert 300 <= len(phrases) <= 400
    groups = ["a red surface", "a striped pattern", "polished wood", "an open blue sky"]
    groups.append("a bird's wing")
    assert sorted(groups, key=phrases.index) == groups


def test_the_names_of_imagenet_are_the_classes_in_their_order():
    assert read_vocabulary(ROOT / "config/vocab/imagenet_names.txt") == CLASSES.names


def test_a_head_of_imagenet_is_cut_to_its_animals_and_another_to_drawn_classes():
    cut = "efficientnet_lite0@cut"
    (entry,) = resolve_models(MODELS, [cut]).values()
    entry = with_classes_and_hashes(entry, MODELS, cut, ROOT / "config/vocab/imagenet_1k.csv")
    assert entry.kept == [*range(398)] and entry.class_names == CLASSES.names[:398]
    assert few_of(CLASSES.names[::-1]) == few(1000) and few_of(CLASSES.names[:9]) is None
    nine = entry.model_copy(update={"class_names": CLASSES.names[:9], "classes": None})
    refused(
        f"{cut}: the head has 9 classes, and is cut if it has 10: take {cut} out of models",
        with_classes_and_hashes,
        nine.model_copy(update={"keep_classes": "few"}),
        *(MODELS, cut, ROOT),
    )
