import datetime as dt

import pytest

from app.core.access import AccessKey, Quotas, new_token, read_token

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def access_key(**changes: object) -> AccessKey:
    values = {
        "id": "0" * 16,
        "name": "n",
        "workspace": "default",
        "scopes": ("read",),
        "quotas": Quotas(),
        "created": NOW,
        "expires": None,
        "revoked": None,
        "last_used": None,
        **changes,
    }
    return AccessKey(**values)  # type: ignore[arg-type]


def test_a_token_is_read_back_and_knows_its_digest() -> None:
    token = new_token()
    assert read_token(token.text) == token
    assert token.is_of(token.digest)
    assert not token.is_of(new_token().digest)
    assert new_token().text != token.text


@pytest.mark.parametrize(
    "text",
    ["", "vlib", "vlib__", "vlib_0123456789abcdef_short", "sk-" + "a" * 48, "vlib_" + "a" * 10_000],
)
def test_other_texts_are_no_tokens(text: str) -> None:
    assert read_token(text) is None


def test_a_key_with_an_end_is_valid_until_then() -> None:
    assert access_key().is_valid(NOW)
    assert access_key(expires=NOW + DAY).is_valid(NOW)
    assert not access_key(expires=NOW).is_valid(NOW)
    assert not access_key(revoked=NOW - DAY).is_valid(NOW)


def test_admin_allows_everything_and_others_only_themselves() -> None:
    assert access_key(scopes=("admin",)).allows("train")
    assert access_key(scopes=("read", "train")).allows("train")
    assert not access_key(scopes=("read",)).allows("train")
    assert not access_key(scopes=("write",)).allows("admin")


def test_the_tighter_of_two_quotas_holds() -> None:
    one, other = Quotas(jobs=1, vectors=5), Quotas(jobs=2, bytes=3)
    both = Quotas(jobs=1, bytes=3, vectors=5)
    assert one.within(other) == other.within(one) == both
    assert one.within(Quotas()) == one
    assert not Quotas(requests=1).limits_stored
    assert Quotas(bytes=0).limits_stored
