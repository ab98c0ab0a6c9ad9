"""Requests to Label Studio and their answers, on the SDK's own transport, which renews access tokens.

Only what reads is ever sent again here: a request that makes something may have been carried out although its
answer was lost, and only its sender can tell. One that was refused for its token was not carried out; it is
sent once more with a new access token.

No message holds a header or a token. No redirect is followed: it would give the token to another address, or
make a GET of a POST.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx
from label_studio_sdk.base_client import LabelStudioBase as Sdk  # the rest of it loads pandas

from labelloop.errors import ServerError
from labelloop.integrations.label_studio.answers import check, refused, status_of, translated, understood

READ_TRIES = 4
WAIT_S = 0.5  # before the second try; twice as long before each further one
TIMEOUT_S = 60.0  # of connecting, and between bytes; a large import takes seconds
_RETRIED = (408, 429, 500, 502, 503, 504)


def is_this_machine(url: str) -> bool:
    """Whether an address is one of the machine's own loopback."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Transport:
    """The way to one server and back.

    Args:
        url: Address of the server, with a path where it lies behind one.
        token: Personal access token or legacy token.

    Attributes:
        url: The address without a slash at its end.
        sdk: Whose generated methods go through ``call`` and ``read_with``.
        clock: The server's, when it answered last, to the end of the second that it named; None where it
            named none.

    Raises:
        ServerError: The token is none, or the proxy or the certificates that the environment names cannot be
            used.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        self.clock: datetime | None = None
        if not token.isascii() or not token.isprintable() or " " in token:
            raise refused(401, "", self.url)  # here: what HTTP says of such a token would show it
        try:
            # A server on this machine is spoken to directly: the environment's proxy would get the token.
            direct = httpx.HTTPTransport() if is_this_machine(self.url) else None
            self._client = httpx.Client(
                timeout=TIMEOUT_S,
                event_hooks={"response": [partial(check, url=self.url), self._hear]},
                transport=direct,
            )
        except (ImportError, ValueError) as error:
            raise ServerError(
                f"the proxy that the environment names cannot be used ({error})",
                value=self.url,
                way_out="Change ALL_PROXY, HTTPS_PROXY and HTTP_PROXY, or name the server in NO_PROXY.",
            ) from error
        except OSError as error:
            raise ServerError(
                f"the certificates cannot be read ({error.strerror or error})",
                value=os.environ.get("SSL_CERT_FILE", ""),
                way_out="Set SSL_CERT_FILE to a file with the certificates to trust, or unset it.",
            ) from error
        try:
            with self._translated():
                self.sdk = Sdk(
                    base_url=self.url + "/",  # without it the SDK loses a path when it renews tokens
                    api_key=token,
                    httpx_client=self._client,
                )
        except ServerError:
            self._client.close()
            raise

    def close(self) -> None:
        """Ends its connections."""
        self._client.close()

    def read(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """What a GET answers, asked again after failures that pass.

        Raises:
            ServerError: The server cannot be reached, refuses, or is not Label Studio.
        """
        return self._again(lambda: self.request("GET", path, params=params))

    def read_with(self, method: Callable[..., Any]) -> Any:
        """The same by a generated method of the SDK that reads."""
        return self._again(lambda: self.call(method))

    def call(self, method: Callable[..., Any], **arguments: Any) -> Any:
        """A generated method of the SDK, once, with its errors translated."""
        return self._renewing(lambda: method(**arguments, request_options={"max_retries": 0}))

    def send(self, method: str, path: str, body: Any) -> Any:
        """Sends a body as JSON, once; the answer, or None where it is empty."""
        return self.request(method, path, content=json.dumps(body, separators=(",", ":")).encode())

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Sends a request, once; the answer, or None where it is empty.

        Args:
            method: Of HTTP.
            path: Below the server's address, without a slash before it.
            options: As the SDK's transport takes them: ``params``, ``content`` (JSON) or ``files``.

        Raises:
            ServerError: The server cannot be reached, refuses, or is not Label Studio.
        """
        headers = {"content-type": "application/json"} if "content" in options else None
        send = self.sdk._client_wrapper.httpx_client.request
        response = self._renewing(
            lambda: send(path, method=method, headers=headers, request_options={"max_retries": 0}, **options)
        )
        if response.status_code == 204 or not response.content:
            return None
        with self.understood():
            return response.json()

    def understood(self) -> AbstractContextManager[None]:
        """For reading an answer, as ``answers.understood``."""
        return understood(self.url)

    def _hear(self, response: httpx.Response) -> None:
        """Notes the server's clock."""
        try:
            self.clock = parsedate_to_datetime(response.headers["date"]) + timedelta(seconds=1)
        except (KeyError, ValueError):
            self.clock = None

    def _again(self, read: Callable[[], Any]) -> Any:
        """Reads, and again after failures that pass."""
        for attempt in range(READ_TRIES):
            try:
                return read()
            except ServerError as error:
                passing = isinstance(error.__cause__, httpx.TransportError) or status_of(error) in _RETRIED
                if not passing or attempt == READ_TRIES - 1:
                    raise
            time.sleep(WAIT_S * 2**attempt)
        raise AssertionError("not reached")

    def _renewing(self, send: Callable[[], Any]) -> Any:
        """Sends, and again with a new access token where the server does not accept the one there was.

        The SDK looks at this machine's clock to see when one has expired; the server at its own.
        """
        try:
            with self._translated():
                return send()
        except ServerError as error:
            tokens = self.sdk._client_wrapper._tokens_client
            if status_of(error) != 401 or tokens._access_token is None:
                raise
            tokens._access_token = None
        with self._translated():
            return send()

    def _translated(self) -> AbstractContextManager[None]:
        return translated(self.url)
