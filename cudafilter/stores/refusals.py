"""What a store says that fails, in words for people.

The library's own texts hold addresses and the store's answers, and with these key numbers and
signatures. So nothing of them is told but the status and code of the answer.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cudafilter.stores.url import Url

CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for a public bucket"
    " AWS_SKIP_SIGNATURE=true",
    "gs": "run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS; for a"
    " public bucket GOOGLE_SKIP_SIGNATURE=true",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY; for a public container"
    " AZURE_SKIP_SIGNATURE=true",
}
"""Where credentials come from, as a hint."""
_TOKENS = ("169.254.", "metadata.google", "token request", "login.microsoftonline")
"""Where the library asks for credentials when the environment has none."""
UNKNOWN = "no credentials were found for it"
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_GONE = ("error sending request", "error trying to connect", "dns error", "timed out")


class Refusal(NamedTuple):
    """Why a request has failed."""

    reason: str
    hint: str | None = None
    missing: bool = False
    """There is no such object, bucket or folder."""


def refusal(url: Url, error: Exception) -> Refusal:
    """What *error*, which the library raised about *url*, says to people."""
    text, kind = str(error), type(error).__name__
    status = int(found[1]) if (found := _STATUS.search(text)) else 0
    code = found[1] if (found := _CODE.search(text)) else ""
    told = " ".join(filter(None, (str(status or ""), code)))
    answer = f" (the store answers {told})" if told else ""
    hint = CREDENTIALS.get(url.scheme)
    if any(place in text for place in _TOKENS):
        return Refusal(UNKNOWN, hint)
    if kind == "PreconditionError":
        return Refusal("another program changed it meanwhile")
    if code in ("NoSuchBucket", "ContainerNotFound"):
        return Refusal(f"there is no bucket {url.root}", missing=True)
    if kind in ("NotFoundError", "FileNotFoundError") or status == 404:
        return Refusal("there is no such object", missing=True)
    if kind == "UnauthenticatedError" or status == 401:
        return Refusal(f"the store does not accept the credentials{answer}", hint)
    if kind == "PermissionDeniedError" or status == 403:
        return Refusal(f"access is denied{answer}", hint)
    if "redirect" in text or status in (301, 307):
        region = "set AWS_REGION to the bucket's region" if url.scheme == "s3" else None
        return Refusal(f"it is elsewhere{answer}", region)
    if "Account must be specified" in text:
        return Refusal("no storage account is named", hint)
    if status == 405:
        return Refusal(f"the server does not do that{answer}")
    if status:
        return Refusal(f"the store failed{answer}")
    if any(words in text for words in _GONE):
        return Refusal("the store cannot be reached", "look at the network and the endpoint")
    if "path" in text and ("segment" in text or kind == "InvalidPathError"):
        return Refusal("a name in it has an empty part, or '.' or '..', which is not read")
    return Refusal("the store's client failed")
