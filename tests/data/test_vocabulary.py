import pytest
from hypothesis import given
from hypothesis import strategies as st

from singflow.data.manifest import read_classes
from singflow.data.vocabulary import read_vocabulary
from singflow.errors import InputError
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
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig"]),
    st.sampled_from(["", "\n", "\n\n", "\n \t\n", "\n\n\n\n"]),
)
def test_phrases_come_in_order_whatever_the_line_ends_and_the_byte_order_mark(
    tmp_path_factory, phrases, newline, encoding, trailing
):
    path = tmp_path_factory.getbasetemp() / "concepts.txt"
    path.write_bytes((newline.join(phrases) + trailing.replace("\n", newline)).encode(encoding))
    assert read_vocabulary(path) == phrases


def test_surplus_spaces_are_dropped(tmp_path):
    path = tmp_path / "concepts.txt"
    path.write_text("  green \t grass\nsky  \n", encoding="utf-8")
    assert read_vocabulary(path) == ["green grass", "sky"]


@pytest.mark.parametrize("content", [b"a\n\nb\n", b"a\n \t\nb", b"a\r\n\r\nb\r\n", b"a\n\nb\n\n"])
def test_a_blank_line_is_refused_with_its_number(tmp_path, content):
    assert "line 2 is blank" in refusal(tmp_path / "concepts.txt", content)


@pytest.mark.parametrize(
    "again", ["blue sky", "Blue Sky", "  blue   sky ", "BLUE\tSKY", "blue_Sky"]
)
def test_a_repeated_phrase_is_refused_with_both_line_numbers(tmp_path, again):
    message = refusal(tmp_path / "concepts.txt", f"sand\nblue sky\nsnow\n{again}\n".encode())
    assert f"line 4 repeats {' '.join(again.split())!r} of line 2" in message


def test_phrases_that_differ_by_case_beyond_lower_are_the_same(tmp_path):
    assert "line 2 repeats 'STRASSE' of line 1" in refusal(
        tmp_path / "concepts.txt", "straße\nSTRASSE\n".encode()
    )


def test_an_empty_a_missing_and_a_foreign_file_are_refused_by_name(tmp_path):
    assert "holds no concepts" in refusal(tmp_path / "empty.txt", b"")
    assert "holds no concepts" in refusal(tmp_path / "mark.txt", b"\xef\xbb\xbf")
    assert "not readable as UTF-8 text" in refusal(
        tmp_path / "latin.txt", "größe\n".encode("latin-1")
    )
    assert "not readable as UTF-8 text" in refusal(
        tmp_path / "utf16.txt", "sand\n".encode("utf-16")
    )
    assert "holds no concepts" in refusal(tmp_path / "blank.txt", b"\n \n")
    for path, message in (
        (tmp_path / "absent.txt", "no such file"),
        (tmp_path, "not readable as UTF-8 text"),
    ):
        with pytest.raises(InputError, match=message):
            read_vocabulary(path)


def test_the_vocabulary_of_the_demo_has_thirty_phrases():
    assert len(read_vocabulary(ROOT / "config/vocab/concepts.txt")) == 30


def test_the_broad_vocabulary_goes_from_colours_to_parts_without_repeats():
    phrases = read_vocabulary(ROOT / "config/vocab/broden_style.txt")
    assert 300 <= len(phrases) <= 400
    groups = [
        "a red surface",
        "a striped pattern",
        "polished wood",
        "an open blue sky",
        "a bird's wing",
    ]
    assert sorted(groups, key=phrases.index) == groups


def test_the_names_of_imagenet_are_the_classes_in_their_order():
    assert (
        read_vocabulary(ROOT / "config/vocab/imagenet_names.txt")
        == read_classes(ROOT / "config/vocab/imagenet_1k.csv").names
    )
