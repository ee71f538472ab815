"""Endpoints of the OpenAI form that back ends of three kinds talk to: keys, pooled connections, failover, errors.

Several addresses may be given: the first one that can be reached serves, and one that broke is tried last for a while.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from antiphon.errors import AntiphonError, ModelError, RequestError, suggest
from antiphon.models.addresses import RETRY_S, Addresses

if TYPE_CHECKING:
    import openai
    from openai import AsyncOpenAI

OPENAI_URL = "https://api.openai.com/v1"
_KEY_VARIABLES: Mapping[str, str] = {
    "api.openai.com": "OPENAI_API_KEY",
    "api.groq.com": "GROQ_API_KEY",
}
_KEEP_S = 60.0
"""An idle connection is kept for so long: callers think between their questions."""
_NOT_NOW = (502, 503, 504)
_OF_THE_REQUEST = (400, 413, 415, 422)
"""Statuses that blame what was asked: no other server would fare better, and nothing is wrong with this one."""
_NO_KEY = "none"
"""Servers without keys still want the header."""

T = TypeVar("T")
log = logging.getLogger(__name__)


class Endpoint:
    """One service at one address, or at several that are the same to their clients. Lives on the event loop."""

    def __init__(
        self,
        base_url: str,
        api_key: str | SecretStr = "",
        *,
        timeout_s: float = 20.0,
        connect_timeout_s: float = 5.0,
        max_retries: int = 1,
        headers: Mapping[str, str] | None = None,
        retry_s: float = RETRY_S,
    ) -> None:
        """`base_url`: one or several, separated by commas. `timeout_s`: the longest silence of the server.

        `retry_s`: how long a server that cannot be reached is tried again.
        """
        self._retry_s = retry_s
        self._addresses = Addresses(base_url)
        self._key = api_key if isinstance(api_key, SecretStr) else SecretStr(api_key)
        self._timeout_s, self._connect_timeout_s = timeout_s, connect_timeout_s
        self._max_retries = max_retries
        self._headers = dict(headers or {})
        self._clients: list[AsyncOpenAI] = []
        self.known: tuple[str, ...] = ()
        """Models that the server lists."""

    @property
    def where(self) -> str:
        """Host and port of the address in use."""
        return self._addresses.where

    async def open(self, *, list_models: bool = True) -> None:
        """Make the connections and see whether a server answers. Raises ModelError with what to do."""
        import openai

        self._find_key()
        limits: Any = httpx.Limits(keepalive_expiry=_KEEP_S)  # openai may bring its own httpx
        self._clients = [
            openai.AsyncOpenAI(
                api_key=self._key.get_secret_value(),
                base_url=url,
                timeout=openai.Timeout(self._timeout_s, connect=self._connect_timeout_s),
                max_retries=self._max_retries,
                default_headers=self._headers,
                http_client=openai.DefaultAsyncHttpxClient(limits=limits),
            )
            for url in self._addresses.urls
        ]
        if not list_models:
            return
        try:
            listed = await self.ask(lambda client: client.models.list(), retry=False)
            self.known = tuple(model.id for model in listed.data or ())
        except openai.NotFoundError:
            self.known = ()  # not every server lists its models
        except Exception as error:
            await self.close()
            raise self.explained(error) from error

    def _find_key(self) -> None:
        if self._key.get_secret_value():
            return
        variable = _KEY_VARIABLES.get(urlsplit(self._addresses.urls[0]).hostname or "", "")
        self._key = SecretStr(os.environ.get(variable, "") if variable else _NO_KEY)
        if not self._key.get_secret_value():
            raise ModelError(f"{self.where} wants a key: set {variable} or the option api_key")

    async def close(self) -> None:
        clients, self._clients = self._clients, []
        for client in clients:
            await client.close()

    async def ask(self, request: Callable[[AsyncOpenAI], Awaitable[T]], *, retry: bool = True) -> T:
        """Made at the first address that can be reached. Raises what the `openai` package raises, or ModelError.

        `retry` False: each address once.
        """
        import openai

        if not self._clients:
            raise ModelError(f"{self.where} is not loaded")
        failure: Exception | None = None
        async for at in self._addresses.tries(self._retry_s if retry else 0.0):
            try:
                found = await request(self._clients[at])
            except (openai.APIConnectionError, openai.InternalServerError) as error:
                self._addresses.failed(at, gone=_is_gone(error))
                failure = error
            else:
                self._addresses.served(at)
                return found
        assert failure is not None, "there is at least one address"
        try:
            raise failure
        finally:
            # The error holds this frame, and the request in it: together they would be a cycle.
            del failure

    def choose_model(self, asked: str) -> str:
        """`asked`, or the only one that there is. Raises ModelError."""
        if asked:
            return asked
        if len(self.known) == 1:
            return self.known[0]
        some = ", ".join(self.known[:10])
        raise ModelError(
            f"name a model of {self.where} (option model)" + (f": it has {some}" if some else "")
        )

    # --- errors -----------------------------------------------------------------------------------

    def explained(self, error: Exception, model: str = "") -> AntiphonError:
        """What happened and what to do, in one line without the key.

        A RequestError where the server blames the request; its own words are for the log.
        """
        import openai

        if isinstance(error, ModelError | RequestError):
            return error
        where, said = self.where, self._without_key(str(error))
        match error:
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                text = f"{where} refuses the key: check the key (option api_key)"
            case openai.NotFoundError():
                text = f"{where} has no model {model!r}{suggest(model, self.known)}"
            case openai.RateLimitError():
                text = f"{where} is asked too often or the quota is used up: {said}"
            case openai.APITimeoutError():
                text = f"{where} did not answer within {self._timeout_s:g} s"
            case openai.APIConnectionError():
                text = f"cannot reach {self._safe_url()}: start the server there, or set base_url"
            case openai.APIStatusError() if error.status_code in _OF_THE_REQUEST:
                log.warning("%s refuses a request (%d): %s", where, error.status_code, said)
                return _of_the_request(error)
            case openai.APIStatusError():
                text = f"{where} answered {error.status_code}: {said}"
            case _:
                text = f"{where} cannot be used: {said or type(error).__name__}"
        return ModelError(text)

    def broken(self, error: Exception) -> ModelError:
        """The same for an answer that had begun."""
        if "Timeout" in type(error).__name__:
            return ModelError(f"{self.where} was silent for {self._timeout_s:g} s within a reply")
        said = self._without_key(str(error)) or type(error).__name__
        return ModelError(f"the reply of {self.where} broke off: {said}")

    def _safe_url(self) -> str:
        """Without user name and password."""
        url = urlsplit(self._addresses.url)
        return url._replace(netloc=url.netloc.rpartition("@")[2], query="").geturl()

    def _without_key(self, text: str) -> str:
        key = self._key.get_secret_value()
        text = text.replace(key, "***") if key and key != _NO_KEY else text
        return " ".join(text.split())[:300]


def _of_the_request(error: openai.APIStatusError) -> RequestError:
    if error.code == "context_length_exceeded":
        text = "the conversation is longer than the model can read; shorten it"
        return RequestError(text, "messages", error.code)
    return RequestError("the model's server refuses this request; the server's log says why")


def _is_gone(error: Exception) -> bool:
    """As a server is while it starts anew; not one that is silent or broken."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return error.status_code in _NOT_NOW
    return not isinstance(error, openai.APITimeoutError)
