import pytest
from hypothesis import given
from hypothesis import strategies as st

from singflow.data.vocabulary import read_vocabulary
from singflow.errors import InputError
from tests.data.manifests import CLASSES
from tests.project import ROOT

WORD = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=6)
PHRASE = st.lists(WORD, min_size=1, max_size=3).map(" ".join)


def refusal(path, content):
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_vocabulary(path)
    assert str(path) in str(refused.value)
    return str(refused.value)


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


AGAIN = ["blue sky", "Blue Sky", "  blue   sky ", "BLUE\tSKY", "blue_Sky"]


@pytest.mark.parametrize(
    "text, words",
    [
        *(
            (text, "line 2 is blank")
            for text in ("a\n\nb\n", "a\n \t\nb", "a\r\n\r\nb\r\n", "a\n\nb\n\n")
        ),
        *(
            (
                f"sand\nblue sky\nsnow\n{again}\n",
                f"line 4 repeats {' '.join(again.split())!r} of line 2",
            )
            for again in AGAIN
        ),
        ("straße\nSTRASSE\n", "line 2 repeats 'STRASSE' of line 1"),
        ("", "holds no concepts"),
        ("\ufeff", "holds no concepts"),
        ("\n \n", "holds no concepts"),
    ],
)
def test_blank_and_repeated_lines_are_refused_with_their_numbers(tmp_path, text, words):
    assert words in refusal(tmp_path / "concepts.txt", text.encode())


def test_a_missing_and_a_foreign_file_are_refused_by_name(tmp_path):
    for content in ("größe\n".encode("latin-1"), "sand\n".encode("utf-16")):
        assert "not readable as UTF-8 text" in refusal(tmp_path / "foreign.txt", content)
    with pytest.raises(InputError, match=r"absent\.txt: no such file"):
        read_vocabulary(tmp_path / "absent.txt")
    with pytest.raises(InputError, match="not readable as UTF-8 text"):
        read_vocabulary(tmp_path)


def test_the_vocabularies_go_from_colours_to_parts_without_repeats():
    assert len(read_vocabulary(ROOT / "config/vocab/concepts.txt")) == 30
    phrases = read_vocabulary(ROOT / "config/vocab/broden_style.txt")
    assert 300 <= len(phrases) <= 400
    groups = ["a red surface", "a striped pattern", "polished wood", "an open blue sky"]
    groups.append("a bird's wing")
    assert sorted(groups, key=phrases.index) == groups


def test_the_names_of_imagenet_are_the_classes_in_their_order():
    assert read_vocabulary(ROOT / "config/vocab/imagenet_names.txt") == CLASSES.names
