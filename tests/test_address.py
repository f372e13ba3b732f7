import pytest

from gitdist.address import check_uri, holds_secret, refuse_secrets, without_secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://ann:hunter2@host:5000", "http://ann:***@host:5000"),
        ("s3://KEY:hun/ter2@bucket/prefix", "s3://KEY:***@bucket/prefix"),
        ("postgresql://ann:1hunter@2@host/db", "postgresql://ann:***@host/db"),
        ("postgresql+psycopg://ann:hunter2@host/db", "postgresql+psycopg://ann:***@host/db"),
        ("postgresql://host/db?password=hunter2&sslmode=require", "postgresql://host/db?password=***&sslmode=require"),
        ("s3://bucket/a?region=eu&secret_key=hunter2", "s3://bucket/a?region=eu&secret_key=***"),
        ("s3://bucket/a?access_key=hunter2#top", "s3://bucket/a?access_key=***#top"),
        ("abfs://box@host/a?client_secret=hunter2", "abfs://box@host/a?client_secret=***"),
        ("abfs://box@host/a?sv=2024&sig=hunter2", "abfs://box@host/a?sv=2024&sig=***"),
        ("abfs://box@host/a?SAS_TOKEN=hunter2", "abfs://box@host/a?SAS_TOKEN=***"),
        ("{uri: 'http://ann:hunter2@host', store: s3://a/b}", "{uri: 'http://ann:***@host', store: s3://a/b}"),
    ],
)
def test_a_secret_is_found_and_not_shown(address: str, shown: str) -> None:
    assert holds_secret(address)
    assert without_secrets(address) == shown
    with pytest.raises(ValueError, match=r"^must hold no credentials, but .* does; put it there$") as caught:
        refuse_secrets(address, "put it there")
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "results/here",
        "/tmp/a:b@c",
        "http://host:5000/a@b",
        "http://[::1]:5000/a@b",
        "https://ann@host",
        "http://ann:***@host",
        "postgresql://ann@host:5432/db?sslmode=require&sslkey=/home/ann/key&passfile=/home/ann/.pgpass",
        "s3://bucket/a?region=eu&endpoint_override=http://127.0.0.1:9000",
        "databricks://scope:prefix",
        "sqlite:////srv/[old]/mlflow.db",
    ],
)
def test_an_address_without_a_secret_is_left_as_it_is(address: str) -> None:
    assert without_secrets(address) == address
    refuse_secrets(address, "")


@pytest.mark.parametrize("address", ["s3://[bucket/x", "http://host:port/x"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="^must be an address such as scheme://host/path, but it is") as caught:
        check_uri(address)
    assert address in str(caught.value)
