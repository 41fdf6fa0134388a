import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidInputError
from app.core.identifiers import (
    MAX_TAGS,
    NAME_PATTERN,
    VectorReference,
    check_alias,
    check_description,
    check_name,
    check_tags,
    new_id,
    sha256_hex,
)

NAMES = st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,30}\Z").filter(lambda name: len(name) < 32)
ALIASES = NAMES.filter(lambda alias: not alias.isdigit())


def test_ids_are_version_7_and_grow() -> None:
    ids = [new_id() for _ in range(2000)]
    assert ids == sorted(set(ids))
    assert {(one.version, one.variant) for one in ids} == {(7, uuid.RFC_4122)}


def test_digest_is_sha256() -> None:
    assert sha256_hex(b"abc").startswith("ba7816bf8f01cfea414140de5dae2223")


@given(NAMES)
def test_a_name_reads_back(name: str) -> None:
    reference = VectorReference.parse(name)
    assert reference == VectorReference(name=name)
    assert VectorReference.parse(str(reference)) == reference


@given(NAMES, st.integers(1, 2**31 - 1))
def test_a_version_reads_back(name: str, version: int) -> None:
    reference = VectorReference.parse(f"{name}@{version}")
    assert reference == VectorReference(name=name, version=version)
    assert VectorReference.parse(str(reference)) == reference


@given(NAMES, ALIASES)
def test_an_alias_reads_back(name: str, alias: str) -> None:
    reference = VectorReference.parse(f"{name}@{alias}")
    assert reference == VectorReference(name=name, alias=alias)
    assert VectorReference.parse(str(reference)) == reference


@pytest.mark.parametrize("text", ["01a20630-2422-7ee6-9fda-12192fef72d3"])
def test_an_id_reads_back_in_either_case(text: str) -> None:
    assert VectorReference.parse(text.upper()) == VectorReference(id=uuid.UUID(text))
    assert str(VectorReference.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "Name", "-a", "a b", "a\n", "ä", "a/b", "../a", "a\0", "a" * 101),
        *("a@", "a@0", "a@b@c", "@1", "a@2147483648", "a@99999999999"),
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        VectorReference.parse(text)


@pytest.mark.parametrize("version", ["0", "007", "2147483648", "9" * 200])
def test_a_version_that_cannot_be_is_told_which_can(version: str) -> None:
    with pytest.raises(InvalidInputError, match="version of 1 to 2147483647, found") as caught:
        VectorReference.parse(f"a@{version}")
    assert len(caught.value.message) < 100


def test_a_name_that_reads_as_an_id_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        check_name("01a20630-2422-7ee6-9fda-12192fef72d3")


def test_the_message_of_a_bad_name_tells_the_pattern() -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_name("Bad Name")
    assert caught.value.details == {"pattern": NAME_PATTERN}
    assert "Bad Name" not in caught.value.message


def test_an_alias_of_digits_is_refused() -> None:
    assert check_alias("v2") == "v2"
    with pytest.raises(InvalidInputError):
        check_alias("2")


def test_tags_are_sorted_and_single() -> None:
    assert check_tags(["b", "a", "b"]) == ["a", "b"]


@pytest.mark.parametrize(
    "tags", [[""], ["a\n"], ["x" * 101], [str(i) for i in range(MAX_TAGS + 1)]]
)
def test_bad_tags_are_refused(tags: list[str]) -> None:
    with pytest.raises(InvalidInputError):
        check_tags(tags)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 10_001])
def test_text_that_cannot_be_stored_is_refused(text: str) -> None:
    assert check_description("line\nline") == "line\nline"
    with pytest.raises(InvalidInputError):
        check_description(text)
