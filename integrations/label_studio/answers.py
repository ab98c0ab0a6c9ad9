"""What a server's answers and silences mean, as labelloop's errors. Every one says in one line what to do."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
from label_studio_sdk.core.api_error import ApiError

from labelloop.errors import ServerError

_TOO_LARGE = "cannot access body after reading"  # how the server says 413, with a 500
_WAY_OUTS = {
    401: "Set LABEL_STUDIO_API_KEY to a valid token of that server: Account & Settings, Access Token.",
    403: "Ask the server's administrator for access.",
    404: "Check the address and the project's number, and that the token's user may see that project.",
}
_MEANINGS = {401: "Label Studio does not accept the token", 404: "Label Studio does not find this"}


class RefusedError(ServerError):
    """The server answered that it will not. ``status`` is its HTTP status."""

    status = 0


class NoTokenError(ServerError):
    """There is no token for the server."""


class TooLargeError(ServerError):
    """The server takes no request of this size; it has done nothing."""


def status_of(error: ServerError) -> int:
    """The HTTP status of a refusal; 0 of other errors."""
    return error.status if isinstance(error, RefusedError) else 0


def needs_a_person(error: ServerError) -> bool:
    """Whether trying again is of no use: the token, the access or the project is missing."""
    return isinstance(error, NoTokenError) or status_of(error) in (401, 403, 404)


@contextmanager
def translated(url: str) -> Iterator[None]:
    """For sending: errors of HTTP and of the SDK become ours.

    Args:
        url: Address of the server.

    Raises:
        ServerError: The server cannot be reached, refuses, or is not Label Studio.
    """
    try:
        yield
    except httpx.TransportError as error:
        raise _unreachable(error, url) from error
    except ApiError as error:
        status = error.status_code or 401  # 401: the SDK itself finds that the token is none
        if status < 300:
            raise _no_label_studio(url) from error
        raise refused(status, error.body, url) from error
    except (ValueError, httpx.DecodingError) as error:  # what should be JSON is none
        raise _no_label_studio(url) from error


@contextmanager
def understood(url: str) -> Iterator[None]:
    """For reading an answer: one that is made otherwise is none of Label Studio's.

    Args:
        url: Address of the server.

    Raises:
        ServerError: The block met something that is not as it should be.
    """
    try:
        yield
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise _no_label_studio(url) from error


def check(response: httpx.Response, *, url: str) -> None:
    """Looks at an answer as it comes in, also at those to the requests that the SDK makes by itself.

    Args:
        response: The answer.
        url: Address of the server.

    Raises:
        ServerError: It is a refusal or a redirect.
    """
    status = response.status_code
    if status < 300:
        return
    if status < 400:
        there = urlsplit(response.headers.get("location", ""))
        error = RefusedError(
            "Label Studio's address redirects to another one, which is not followed",
            value=f"{url} to {f'{there.scheme}://{there.hostname}' if there.hostname else ''}{there.path}",
            way_out="Run labelloop connect with the address that a browser ends up at.",
        )
        error.status = status
        raise error
    response.read()
    raise refused(status, response.text, url, response.request.url.path if status == 404 else "")


def refused(status: int, body: Any, url: str, path: str = "") -> ServerError:
    """What a status means, with the server's own words where these help; a page of HTML does not.

    Args:
        status: HTTP status, 400 or more.
        body: Of the answer.
        url: Address of the server.
        path: Of the request, where that helps.
    """
    words = _words(body)
    if status == 413 or (status == 500 and _TOO_LARGE in words):
        return TooLargeError(
            "Label Studio does not accept a request this large",
            value=url,
            way_out="Raise its limit (DATA_UPLOAD_MAX_MEMORY_SIZE), or that of the proxy in front of it.",
        )
    what = _MEANINGS.get(status, f"Label Studio refused (HTTP {status})")
    root = urlsplit(url)
    error = RefusedError(
        what if not words or status == 401 else f"{what}: {words}",
        value=f"{root.scheme}://{root.netloc}{path}" if path else url,
        way_out=_WAY_OUTS.get(
            status, "The server's log says more. Run the same command again; it continues."
        ),
    )
    error.status = status
    return error


def _unreachable(error: httpx.TransportError, url: str) -> ServerError:
    if isinstance(error, httpx.TimeoutException):
        return ServerError(
            "Label Studio did not answer in time",
            value=url,
            way_out="Run the same command again; it continues.",
        )
    if _is_about_certificate(error):
        return ServerError(
            "the server's certificate is not trusted",
            value=url,
            way_out="Set SSL_CERT_FILE to a file with it, or with the certificate of the lab's authority.",
        )
    return ServerError(
        f"Label Studio cannot be reached ({type(error).__name__})",
        value=url,
        way_out="Start it (labelloop server up) or check the address. The same command then continues.",
    )


def _is_about_certificate(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def _no_label_studio(url: str) -> ServerError:
    return ServerError(
        "this is not Label Studio, or something in front of it answers in its place",
        value=url,
        way_out="Check the address; a path may be missing.",
    )


def _words(body: Any) -> str:
    """The server's reason, short."""
    if isinstance(body, bytes | str):
        try:
            body = json.loads(body)
        except ValueError:
            return ""
    if not isinstance(body, Mapping):
        return ""
    faults = body.get("validation_errors") or body.get("detail") or ""
    text = faults if isinstance(faults, str) else json.dumps(faults, ensure_ascii=False)
    return text if len(text) <= 300 else text[:300] + "..."
