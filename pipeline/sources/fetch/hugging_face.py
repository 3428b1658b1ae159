"""Hugging Face's addresses as its own tools read them: through a mirror, with a token.

``HF_ENDPOINT`` is the address of a mirror, for machines that cannot reach huggingface.co.
``HF_TOKEN`` is the token of an account, for data sets whose terms must be accepted first. It is
sent to the hub or its mirror alone: ``requests`` drops it where an answer leads to another host.
"""

import os
from urllib.parse import urlsplit

from pipeline.runtime.errors import UserError

HUB = "https://huggingface.co"
ENDPOINT, TOKEN = "HF_ENDPOINT", "HF_TOKEN"
REFUSED = (401, 403)
"""Statuses that the hub answers where a token is missing or has no access."""


def through_endpoint(url: str) -> str:
    """Return an address of the hub at the mirror of ``HF_ENDPOINT``; any other one as it is.

    Raises:
        UserError: ``HF_ENDPOINT`` is no address.
    """
    return f"{_endpoint()}{url.removeprefix(HUB)}" if url.startswith(f"{HUB}/") else url


def authorization(url: str) -> dict[str, str]:
    """Return the header that carries ``HF_TOKEN``; nothing where it is unset, or for other hosts.

    Args:
        url: as ``through_endpoint`` returns it.
    """
    token = os.environ.get(TOKEN, "").strip()
    return {"Authorization": f"Bearer {token}"} if token and _of_hub(url) else {}


def hint(url: str, status: int) -> str:
    """Return what a user can do about a refusal of the hub, to stand after its status."""
    if status not in REFUSED or not _of_hub(url):
        return ""
    return f": accept the data set's terms on its page, then set {TOKEN} to a token of your account"


def _endpoint() -> str:
    found = os.environ.get(ENDPOINT, "").strip().rstrip("/") or HUB
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UserError(
            f"{ENDPOINT}: found {found!r}, expected an address such as {HUB}; unset it to use that"
        )
    return found


def _of_hub(url: str) -> bool:
    return url.startswith(f"{_endpoint()}/")
