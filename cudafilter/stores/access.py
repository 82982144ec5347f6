"""How a store is reached: what the environment and the user's profiles say.

The library reads the environment by itself; it does not know profiles and a few newer names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from configparser import ConfigParser, Error
from pathlib import Path
from typing import Any

from cudafilter.errors import ImageError
from cudafilter.stores.url import Url

_OWN = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE")
"""Names in the environment that go before the default profile."""
_KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
_ELSEWHERE = ("role_arn", "sso_session", "sso_start_url", "credential_process", "login_session")
"""What a profile has that tells where credentials are to be fetched."""


def s3(url: Url) -> dict[str, Any]:
    """What a client of the bucket of *url* is told beside the environment.

    Raises ImageError for a profile that is not there, or that cannot be used.
    """
    name = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
    told: dict[str, Any] = {}
    profile = _profile(url, name or "default", asked=bool(name))
    if name or not any(os.environ.get(own) for own in _OWN):
        if "aws_access_key_id" in profile:
            told |= {key: profile[key] for key in _KEYS if key in profile}
        elif any(each in profile for each in _ELSEWHERE):
            own = name or "default"
            export = f"aws configure export-credentials --format env --profile {own}"
            raise ImageError(
                f"{url}: the profile {own} tells only where credentials are to be fetched",
                hint=f'put them into the environment: eval "$({export})"; unset AWS_PROFILE',
            )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region or "region" in profile:
        told["aws_region"] = region or profile["region"]
    if endpoint := _endpoint(profile):
        told["aws_endpoint"] = endpoint
    return told


def is_plain(config: Mapping[str, Any]) -> bool:
    """Whether *config* names an endpoint without encryption, which the user did then."""
    return str(config.get("aws_endpoint", "")).startswith("http://")


def _endpoint(profile: Mapping[str, str]) -> str | None:
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    told = next((os.environ[name] for name in names if os.environ.get(name)), None)
    return told or profile.get("endpoint_url")


def _profile(url: Url, name: str, asked: bool) -> dict[str, str]:
    """The profile *name* of the user's two files. Raises ImageError where it was *asked* for and is
    not there, or a file cannot be read."""
    home = Path("~/.aws").expanduser()
    files = {
        os.environ.get("AWS_CONFIG_FILE") or home / "config": [f"profile {name}"],
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials": [name],
    }
    if name == "default":
        files = {path: ["default", *sections] for path, sections in files.items()}
    found: dict[str, str] = {}
    for path, sections in files.items():
        parser = ConfigParser(interpolation=None, default_section="", strict=False)
        try:
            parser.read(path, encoding="utf-8")
        except (Error, UnicodeDecodeError):
            # The parser's own text holds the line, and with it maybe a key.
            raise ImageError(f"{url}: {path} is not a file of profiles") from None
        for section in sections:
            if parser.has_section(section):
                found |= dict(parser.items(section))
    if asked and not found:
        raise ImageError(f"{url}: there is no profile {name} in {', '.join(map(str, files))}")
    return found
