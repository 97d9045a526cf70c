"""Where things lie, as written by a person: understood, or refused before anything is sent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from faceblur_batch.errors import AccessDenied, InvalidLocation
from faceblur_batch.storage import credentials
from faceblur_batch.storage.credentials import Credentials, EnvironmentCredentials, FolderCredentials
from faceblur_batch.storage.location import Location, parse_location
from faceblur_batch.storage.opening import check_apart, open_store
from faceblur_batch.storage.settings import Addressing, CredentialKind, StorageSettings


@pytest.mark.parametrize(
    ("text", "location", "shown"),
    [
        ("s3://bucket", Location("s3", "bucket", ""), "s3://bucket/"),
        ("s3://bucket/", Location("s3", "bucket", ""), "s3://bucket/"),
        ("s3://bucket/in", Location("s3", "bucket", "in/"), "s3://bucket/in/"),
        ("s3://bucket/a b/ü%20?#/", Location("s3", "bucket", "a b/ü%20?#/"), "s3://bucket/a b/ü%20?#/"),
        ("gs://bucket/in", Location("gs", "bucket", "in/"), "gs://bucket/in/"),
        ("az://container/in", Location("az", "container", "in/"), "az://container/in/"),
        ("/photos", Location("file", "", "/photos"), "/photos"),
        ("file:///my%20photos", Location("file", "", "/my photos"), "/my photos"),
        ("file://localhost/photos", Location("file", "", "/photos"), "/photos"),
        ("/a%20b", Location("file", "", "/a%20b"), "/a%20b"),
    ],
)
def test_a_location_is_what_a_person_writes(text: str, location: Location, shown: str) -> None:
    assert parse_location(text) == location
    assert str(location) == shown


def test_a_relative_folder_is_meant_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_location("photos") == Location("file", "", str(tmp_path / "photos"))
    assert open_store("photos").location == f"{os.path.realpath(tmp_path)}/photos/"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ftp://host/a",
        "s3://",
        "s3:///a",
        "s3://b",
        "s3://-bucket/a",
        "file://host/a",
        "a\0b",
        "s3://key:word@bucket/a",
    ],
)
def test_what_is_no_location_is_refused_without_repeating_a_password(text: str) -> None:
    with pytest.raises(InvalidLocation) as caught:
        open_store(text)
    assert "word" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize("location", ["gs://bucket/in", "az://container/in"])
def test_the_other_clouds_can_be_opened(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert open_store(location, StorageSettings(credentials=CredentialKind.ANONYMOUS)).location == f"{location}/"


# Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": "http://minio:9000"},
        {"endpoint": "minio:9000"},
        {"endpoint": "https://key:secret@minio"},
        {"endpoint": "https://minio/bucket"},
        {"endpoint": "https://minio?a=b"},
        {"proxy": "socks5://proxy"},
        {"credentials": "folder"},
        {"credentials_folder": "/keys"},
        {"kms_key": "key"},
        {"retries": -1},
        {"request_seconds": 0},
        {"endpiont": "https://minio"},
    ],
)
def test_a_wrong_option_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        StorageSettings(**wrong)
    assert "secret" not in str(caught.value)


def test_settings_go_through_json_and_hold_no_secret(tmp_path: Path) -> None:
    settings = StorageSettings(endpoint="https://minio:9000/", credentials="folder", credentials_folder=tmp_path)
    assert StorageSettings.model_validate_json(settings.model_dump_json()) == settings
    assert settings.endpoint == "https://minio:9000"


def test_the_variables_that_tools_for_s3_share_are_understood_on_request() -> None:
    environment = {
        "AWS_ENDPOINT_URL": "https://general",
        "AWS_ENDPOINT_URL_S3": "https://for-s3",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_CA_BUNDLE": "/ca.pem",
        "AWS_REGION": "",
    }
    local = StorageSettings.from_environment({"AWS_ENDPOINT_URL": "http://localhost:9000", "AWS_ALLOW_HTTP": "true"})
    assert local.allow_http
    settings = StorageSettings.from_environment(environment, retries=1)
    assert (settings.endpoint, settings.region, settings.ca_bundle, settings.retries) == (
        *("https://for-s3", "eu-central-1", Path("/ca.pem"), 1),
    )
    assert StorageSettings.from_environment(environment, region="mars-1").region == "mars-1"
    assert StorageSettings.from_environment({}) == StorageSettings()


def test_every_option_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs/storage.md").read_text(encoding="utf-8")
    for name, field in StorageSettings.model_fields.items():
        default = getattr(field.default, "value", field.default)
        shown = "" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"
        assert f"| `{name}` | {shown} | {field.description} |" in page


@pytest.mark.parametrize(
    "content", [None, b"nothing", b"-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n"]
)
def test_authorities_that_cannot_be_used_are_noticed_at_once(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(InvalidLocation, match="ca_bundle"):
        open_store("s3://bucket", StorageSettings(ca_bundle=tmp_path / "ca.pem"))


# Credentials


def test_credentials_are_never_shown() -> None:
    assert repr(Credentials("access", "secret", "token")) == "Credentials()"


@pytest.mark.parametrize(
    ("access", "secret"),
    [
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("access-key-id", "secret-access-key"),
        ("accessKey", "secretKey"),
        ("access_key", "secret_key"),
    ],
)
def test_the_usual_names_of_files_are_understood(tmp_path: Path, access: str, secret: str) -> None:
    (tmp_path / access).write_text("key\n")
    (tmp_path / secret).write_text(" secret ")
    (tmp_path / "README").write_text("whatever")
    assert FolderCredentials(tmp_path)() == Credentials("key", "secret", None)
    (tmp_path / "AWS_SESSION_TOKEN").write_text("token")
    assert FolderCredentials(tmp_path)() == Credentials("key", "secret", "token")


def test_both_halves_of_a_mounted_secret_are_of_the_same_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for age in ("old", "new"):
        (tmp_path / f"..{age}").mkdir()
        (tmp_path / f"..{age}/AWS_ACCESS_KEY_ID").write_text(f"{age}-key")
        (tmp_path / f"..{age}/AWS_SECRET_ACCESS_KEY").write_text(f"{age}-secret")
    (tmp_path / "..data").symlink_to("..old")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    read_text = credentials._text

    def read_while_it_turns(name: str, folder: int) -> str:
        text = read_text(name, folder)
        if not (tmp_path / "..tmp").exists():
            (tmp_path / "..tmp").symlink_to("..new")
            (tmp_path / "..tmp").replace(tmp_path / "..data")
        return text

    read = FolderCredentials(tmp_path)
    monkeypatch.setattr(credentials, "_text", read_while_it_turns)
    assert read() == Credentials("old-key", "old-secret")
    assert read() == Credentials("new-key", "new-secret")


def test_credentials_that_are_missing_or_unclear_are_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AccessDenied, match="cannot be read"):
        FolderCredentials(tmp_path / "none")()
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("key")
    with pytest.raises(AccessDenied, match="holds no credentials"):
        FolderCredentials(tmp_path)()
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_bytes(b"\xff")
    with pytest.raises(AccessDenied, match="not text"):
        FolderCredentials(tmp_path)()
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("secret")
    (tmp_path / "secretkey").write_text("another")
    with pytest.raises(AccessDenied, match="several files"):
        FolderCredentials(tmp_path)()
    monkeypatch.setenv("X_ACCESS_KEY_ID", "key")
    with pytest.raises(AccessDenied, match="set X_ACCESS_KEY_ID and X_SECRET_ACCESS_KEY"):
        EnvironmentCredentials("X_")()


# A destination apart from its source


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("s3://bucket/in", "s3://bucket/in"),
        ("s3://bucket/in", "s3://bucket/in/out"),
        ("s3://bucket/in/deep", "s3://bucket/in/"),
        ("s3://bucket", "s3://bucket/out"),
        ("gs://bucket/in", "gs://bucket/in/out"),
        ("/photos", "/photos"),
        ("/photos", "/photos/out"),
        ("/photos/in", "/photos"),
        ("/photos/in", "/photos/in/../out/../in/x"),
        ("/", "/photos"),
    ],
)
def test_a_destination_in_the_source_is_refused(source: str, destination: str) -> None:
    with pytest.raises(InvalidLocation, match="choose a destination beside the source"):
        check_apart(source, destination)


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("s3://bucket/in", "s3://bucket/out"),
        ("s3://bucket/in", "s3://bucket/in-blurred"),
        ("s3://bucket", "s3://other"),
        ("s3://bucket", "gs://bucket"),
        ("s3://bucket", "/bucket"),
        ("/photos", "/photos-blurred"),
        ("/photos/in", "/photos/out"),
    ],
)
def test_a_destination_beside_the_source_is_fine(source: str, destination: str) -> None:
    check_apart(source, destination)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"endpoint": "https://minio"}, {"endpoint": "https://MINIO.:443/"}),
        ({"endpoint": "https://s3.example"}, {"endpoint": "https://s3.example", "addressing": Addressing.VIRTUAL}),
        ({"endpoint": "https://s3.eu-central-1.amazonaws.com"}, {"endpoint": None, "region": "us-east-1"}),
        ({"endpoint": "https://s3.dualstack.eu-central-1.amazonaws.com"}, {"addressing": Addressing.VIRTUAL}),
    ],
)
def test_the_same_server_is_known_by_its_other_spellings(one: dict[str, Any], other: dict[str, Any]) -> None:
    with pytest.raises(InvalidLocation, match="beside the source"):
        check_apart("s3://bucket/in", "s3://bucket/in/out", StorageSettings(**one), StorageSettings(**other))


def test_folders_are_the_same_through_links_too(tmp_path: Path) -> None:
    (tmp_path / "photos/in").mkdir(parents=True)
    (tmp_path / "link").symlink_to("photos/in")
    for destination in ("link", "link/new/deep", "photos/in/out"):
        with pytest.raises(InvalidLocation):
            check_apart(str(tmp_path / "photos/in"), str(tmp_path / destination))
        with pytest.raises(InvalidLocation):
            check_apart(str(tmp_path / destination), str(tmp_path / "photos/in"))
    check_apart(str(tmp_path / "photos/in"), str(tmp_path / "link/../out"))


def test_a_folder_that_is_the_same_by_another_name_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As where a folder is mounted twice, or upper and lower case do not differ.
    monkeypatch.setattr(Path, "samefile", lambda one, other: one.name.lower() == str(Path(other).name).lower() != "")
    with pytest.raises(InvalidLocation):
        check_apart(str(tmp_path / "Photos"), str(tmp_path / "photos/out"))
