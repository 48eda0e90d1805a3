"""What is never shown of how an object store is reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aquipu import Archive, ArchiveUnavailableError, Reader, Store
from aquipu.archive.bucket import Bucket, Doubt, shown
from aquipu.archive.places.hidden import hidden, secrets_in, unusable
from tests.archive.faulty import MemoryBucket

PASSWORD = "hunter2/hunter2"


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ({"secret_access_key": PASSWORD}, {}),
        ({"secret_access_key": PASSWORD.encode()}, {}),
        ({"client_options": {"default_headers": {"authorization": PASSWORD}}}, {}),
        ({"endpoint": f"http://me:{PASSWORD}@host:9"}, {}),
        ({"client_options": {"proxy_url": f"http://me:{PASSWORD}@host"}}, {}),
        ({"service_account_key": f'{{"private_key": "{PASSWORD}"}}'}, {}),
        ({}, {"AWS_SECRET_ACCESS_KEY": PASSWORD}),
        ({}, {"AWS_ENDPOINT_URL": f"http://me:{PASSWORD}@host:9"}),
        ({}, {"AZURE_STORAGE_ACCOUNT_KEY": PASSWORD}),
        ({}, {"GOOGLE_SERVICE_ACCOUNT_KEY": f'{{"private_key": "{PASSWORD}"}}'}),
    ],
)
def test_a_secret_however_it_was_given(
    options: dict[str, Any], environment: dict[str, str]
) -> None:
    """It is hidden in what an object store says, as it is and as it stands in a URL."""
    secrets = secrets_in(options, environment)
    for text in (PASSWORD, "hunter2%2Fhunter2"):
        assert hidden(f"cannot use {text}.", secrets) == "cannot use …."


def test_the_user_of_a_url() -> None:
    """What is before the host of a URL is hidden, whoever gave it."""
    assert hidden("GET http://me:my@secret@host/a@b: no", ()) == "GET http://…@host/a@b: no"
    assert shown("at https://me:secret@host/key?sig=abc", ()) == "at https://…@host/key?…"


@pytest.mark.parametrize(
    ("options", "environment", "said"),
    [
        ({"access_key_id": "AKIAX\n"}, {}, "access_key_id holds a line end"),
        ({}, {"AWS_SECRET_ACCESS_KEY": "verysecret\r\n"}, "AWS_SECRET_ACCESS_KEY holds a line"),
        ({"endpoint": "https://host:5781x"}, {}, "endpoint has no number as its port"),
        ({}, {"AWS_ENDPOINT_URL": "http://host:http"}, "AWS_ENDPOINT_URL has no number"),
        ({"endpoint": "http://host:5781", "client_options": {"timeout": "1s"}}, {}, None),
        ({"service_account_key": '{"type":\n"service_account"}'}, {"HOME": "/a\nb"}, None),
    ],
)
def test_a_text_with_which_no_request_can_be_made(
    options: dict[str, Any], environment: dict[str, str], said: str | None
) -> None:
    """It is said which one it is, before anything is asked, and never what it holds."""
    found = unusable(options, environment)
    assert (found or "").startswith(said or "")
    assert (found is None) == (said is None)
    assert "secret" not in (found or "").replace("SECRET", "")


@pytest.mark.asyncio
async def test_a_service_with_a_secret_that_ends_with_a_line_end(tmp_path: Path) -> None:
    """It is told at its opening."""
    archive = Archive(
        "s3://bucket/audit", region="x", access_key_id="AKIAX\n", secret_access_key="y"
    )
    with pytest.raises(ArchiveUnavailableError, match="access_key_id holds a line end"):
        async with Store.open(tmp_path / "store", archive=archive):
            pass


def test_what_names_a_place_is_shown() -> None:
    """Else nobody could mend anything; so are words that are too short to be secrets."""
    options = {"endpoint": "http://127.0.0.1:9", "region": "eu-central-1", "timeout": "120s"}
    environment = {"AWS_REGION": "eu-central-1", "HOME": "/home/somebody", "AWS_ALLOW_HTTP": "true"}
    environment["AWS_WEB_IDENTITY_TOKEN_FILE"] = "/var/run/secrets/token"
    assert secrets_in(options, environment) == ()


def test_a_short_secret() -> None:
    """One that is called so is hidden also when it is short."""
    assert secrets_in({"secret_access_key": "hunter2", "timeout": "hunter2"}, {}) == ("hunter2",)


@pytest.mark.parametrize(
    "url",
    [
        "AKIAEXAMPLE:hunter2hunter2@bucket/prefix",
        "AKIAEXAMPLE://hunter2hunter2@bucket/prefix",
        "s3://AKIAEXAMPLE:hunter2hunter2@bucket/prefix",
        "s3://AKIAEXAMPLE:hunter2/hunter2@bucket/prefix",
        "s3:///AKIAEXAMPLE:hunter2hunter2@bucket",
        "s3://bucket/prefix?key=hunter2hunter2",
        "file://AKIAEXAMPLE:hunter2hunter2@bucket/prefix",
    ],
)
def test_a_text_that_is_no_url_is_not_repeated(url: str) -> None:
    """It may be a credential at the wrong place."""
    with pytest.raises(ValueError, match="archive") as raised:
        Archive(url)
    assert "hunter2" not in str(raised.value)
    assert "AKIA" not in str(raised.value)


class Angry(MemoryBucket):
    """Repeats in each error what it was given."""

    def get(self, key: str) -> Any:
        raise RuntimeError("PUT http://me:hunter2hunter2@127.0.0.1:9/b: hunter2hunter2")


@pytest.mark.asyncio
async def test_no_error_of_an_object_store_shows_a_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Neither one of a request, nor one of an option, nor what `repr` gives."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    archive = Archive("s3://bucket/prefix", endpoint="http://me:hunter2hunter2@127.0.0.1:9")
    assert "hunter2" not in repr(archive)
    with pytest.raises(Doubt, match=r"http://…@127\.0\.0\.1:9") as doubt:
        archive.bucket().get("entries/0")
    assert "hunter2" not in str(doubt.value)
    with pytest.raises(Doubt) as doubt:
        Bucket("s3://b/p", Angry(), secrets_in({"key": "hunter2hunter2"}, {})).get("entries/0")
    assert str(doubt.value) == "RuntimeError: PUT http://…@127.0.0.1:9/b: …"
    for opening in (Store.open(tmp_path / "store", archive=wrong()), Reader.open(wrong())):
        with pytest.raises(ArchiveUnavailableError) as raised:
            await opening
        assert "hunter2" not in str(raised.value)


def wrong() -> Archive:
    """Return an archive of which an option cannot be used."""
    return Archive("s3://bucket/prefix", region="x", nonsense="hunter2hunter2")
