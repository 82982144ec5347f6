"""What stores refuse: told in words of our own, and nothing of what the store answers."""

from __future__ import annotations

import http.server
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from command_line import cli, picture
from cudafilter.errors import ImageError, ParameterError
from cudafilter.stores import access, remote
from cudafilter.stores.refusals import refusal
from cudafilter.stores.url import Url, is_url, path_of

pytestmark = pytest.mark.usefixtures("here")

URL = Url("s3://photos", "trip/a.jpg")
SECRET = "AKIAHUNTER2"
ANSWER = (
    "Generic S3 error: Error performing GET http://127.0.0.1/photos/trip/a.jpg in 1ms - Server"
    " returned non-2xx status code: {status}: <Error><Code>{code}</Code><AWSAccessKeyId>"
    f"{SECRET}</AWSAccessKeyId><StringToSign>AWS4 {SECRET}</StringToSign></Error>"
)


class GenericError(Exception):
    """As the library has it."""


@pytest.mark.parametrize(
    ("text", "reason", "missing"),
    [
        (ANSWER.format(status="403 Forbidden", code="SignatureDoesNotMatch"),
         "access is denied (the store answers 403 SignatureDoesNotMatch)", False),
        (ANSWER.format(status="404 Not Found", code="NoSuchBucket"),
         "there is no bucket s3://photos", True),
        (ANSWER.format(status="404 Not Found", code="NoSuchKey"), "there is no such object", True),
        (ANSWER.format(status="503 Slow", code="SlowDown"),
         "the store failed (the store answers 503 SlowDown)", False),
        (ANSWER.format(status="301 Moved", code="PermanentRedirect"),
         "it is elsewhere (the store answers 301 PermanentRedirect)", False),
        (ANSWER.format(status="405 No", code="MethodNotAllowed"),
         "the server does not do that (the store answers 405 MethodNotAllowed)", False),
        (f"error sending request for url (http://x/?X-Amz-Credential={SECRET})",
         "the store cannot be reached", False),
        (f"Error performing PUT http://169.254.169.254/latest/api/token: {SECRET}",
         "no credentials were found for it", False),
        ("Generic MicrosoftAzure error: Account must be specified",
         "no storage account is named", False),
        (SECRET, "the store's client failed", False),
    ],
)  # fmt: skip
def test_nothing_of_the_stores_answer_is_told(text: str, reason: str, missing: bool) -> None:
    told = refusal(URL, GenericError(text))
    assert (told.reason, told.missing) == (reason, missing)
    assert SECRET not in f"{told.reason}{told.hint}"


@pytest.mark.parametrize("words", [["s3://b/a.png", "out.png"], ["a.png", "gs://b/"]])
def test_without_the_extra_the_command_that_installs_it_is_told(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture("a.png")
    monkeypatch.setattr(remote, "_clients", {})
    for name in [name for name in sys.modules if name.split(".")[0] == "obstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    result = cli("blur", *words)
    assert result.exit_code == 2
    scheme = "s3" if words[0].startswith("s3") else "gs"
    assert ":// needs the extra 'cloud'\nhint: install it: pip install 'cudafilter[cloud]'" in (
        result.stderr
    )
    assert f"{scheme}://" in result.stderr


@pytest.mark.parametrize(
    ("text", "url"),
    [("s3://b/k/a.png", True), ("https://h/a.png", True), ("memory:///k", True),
     ("s3:/b/k", False), ("ftp://h/a", False), ("a.png", False), ("C://x", False)],
)  # fmt: skip
def test_urls_are_told_from_paths(text: str, url: bool) -> None:
    assert is_url(text) == url
    assert isinstance(path_of(text), Url) == url
    assert not url or str(Url.parsed("src", text)) == str(path_of(text)) == text


def test_a_url_is_used_as_a_path_is() -> None:
    url = Url("s3://b", "k/a.b.png", 5)
    assert (url.name, str(url.parent), url.scheme) == ("a.b.png", "s3://b/k", "s3")
    assert str(url.with_suffix(".webp")) == "s3://b/k/a.b.webp"
    assert url.parent / "a.b.png" == url
    assert hash(url) == hash(Url("s3://b", "k/a.b.png"))
    assert url != Path("s3:/b/k/a.b.png")
    assert Url("s3://b", "") / "x" == Url("s3://b", "x")
    assert pickle.loads(pickle.dumps(url)) == url


@contextmanager
def server(answer: Callable[[int], int], content: bytes) -> Iterator[tuple[str, list[int]]]:
    """A web server whose n-th answer has the status that *answer* gives; and these answers."""
    told: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.append(answer(len(told)))
            self.send_response(told[-1])
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        Thread(target=httpd.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}", told
        finally:
            httpd.shutdown()


def test_a_busy_store_is_asked_again_with_patience() -> None:
    pytest.importorskip("obstore")
    data = picture("a.png").read_bytes()
    with server(lambda n: 503 if n < 3 else 200, data) as (root, told):
        result = cli("blur", f"{root}/a.png", "out.png")
    assert result.exit_code == 0, result.output
    assert told[:4] == [503, 503, 503, 200]


@pytest.mark.parametrize(
    ("status", "reason"), [(403, "access is denied"), (404, "there is no such object")]
)
def test_what_will_not_change_is_not_asked_again(status: int, reason: str) -> None:
    pytest.importorskip("obstore")
    with server(lambda n: status, b"no") as (root, told):
        result = cli("blur", f"{root}/a.png", "out.png")
    assert result.exit_code == 1
    assert reason in result.stderr
    assert len(told) <= 2  # its size, and then its bytes


@pytest.fixture
def profiles(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    Path("config").write_text(
        "[default]\nregion = eu-1\n[profile work]\nendpoint_url = http://s3.work\n"
        "[profile sso]\nsso_session = s\n"
    )
    Path("credentials").write_text(
        f"[default]\naws_access_key_id = {SECRET}\naws_secret_access_key = one%two\n"
        "[work]\naws_access_key_id = W\naws_secret_access_key = S\naws_session_token = T\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", "config")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "credentials")


@pytest.mark.usefixtures("profiles")
@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, {"aws_access_key_id": SECRET, "aws_secret_access_key": "one%two",
              "aws_region": "eu-1"}),
        ({"AWS_PROFILE": "work"},
         {"aws_access_key_id": "W", "aws_secret_access_key": "S", "aws_session_token": "T",
          "aws_endpoint": "http://s3.work"}),
        ({"AWS_ACCESS_KEY_ID": "own", "AWS_REGION": "us-2"}, {"aws_region": "us-2"}),
        ({"AWS_SKIP_SIGNATURE": "true", "AWS_ENDPOINT_URL_S3": "http://x"},
         {"aws_region": "eu-1", "aws_endpoint": "http://x"}),
    ],
)  # fmt: skip
def test_profiles_count_as_other_programs_have_them(
    environment: dict[str, str], told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert access.s3(URL) == told


@pytest.mark.usefixtures("profiles")
@pytest.mark.parametrize(
    ("profile", "told"),
    [("none", "there is no profile none in config, credentials"),
     ("sso", "the profile sso tells only where credentials are to be fetched")],
)  # fmt: skip
def test_a_profile_that_cannot_be_used_is_told(
    profile: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", profile)
    with pytest.raises(ImageError, match=told):
        access.s3(URL)


@pytest.mark.usefixtures("profiles")
def test_a_damaged_file_of_profiles_is_told_without_its_lines() -> None:
    Path("credentials").write_text(f"aws_secret_access_key {SECRET}\n")
    with pytest.raises(ImageError, match="credentials is not a file of profiles") as caught:
        access.s3(URL)
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("text", ["s3://k:hunter2@b/x", "https://h/x?sig=hunter2", "az:///x"])
def test_a_url_with_more_than_a_name_is_refused_without_it(text: str) -> None:
    with pytest.raises(ParameterError) as caught:
        Url.parsed("src", text)
    assert "hunter2" not in str(caught.value)


def test_credentials_that_are_nowhere_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    obstore = pytest.importorskip("obstore")
    asked = []

    def get(*given: object, **named: object) -> None:
        asked.append(given)
        raise GenericError("Error performing PUT http://169.254.169.254/latest/api/token")

    monkeypatch.setattr(obstore, "get", get)
    monkeypatch.setattr(obstore, "head", get)
    monkeypatch.setattr(remote, "_unknown", {})
    result = cli("blur", "memory://no/a.png", "memory://no/b.png", "out/", "-j", "1")
    assert result.exit_code == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert [line.partition(" for it")[0] for line in lines] == [
        f"error: memory://no/{name}.png: no credentials were found" for name in "ab"
    ]
    assert len(asked) == 1
