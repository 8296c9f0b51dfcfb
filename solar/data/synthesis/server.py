"""A server that speaks the OpenAI protocol, and what its replies mean."""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from solar.data.synthesis.answerers import Sampling
from solar.errors import DataError, one_line

WAITS_SECONDS = (1.0, 5.0)
"""Pauses before a prompt is sent again, where a reply held no answer: gateways send such replies now and then."""
REFUSALS = ("content_filter", "content_policy_violation", "context_length_exceeded")
"""Error codes of requests that a server will never answer: their seeds are left out."""


class ServerAnswerer:
    """A server behind the `openai` client, which repeats requests that failed or came too soon.

    The key is read from the environment variable `OPENAI_API_KEY`; it is never part of a configuration.
    """

    group = 1

    def __init__(
        self, base_url: str, model: str, sampling: Sampling, requests_per_minute: int | None, connections: int
    ) -> None:
        try:
            import openai
        except ModuleNotFoundError:
            raise DataError("base_url: a server needs the openai client; `pip install 'solar[synthesize]'`") from None
        self._openai = openai
        wait_for_turn = _pace(
            requests_per_minute
        )  # called by the transport, so that the client's repetitions wait, too
        self._client: Any = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=os.environ.get("OPENAI_API_KEY", "none"),
            max_retries=6,
            timeout=300,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"request": [lambda request: wait_for_turn()]}),
        )
        self._base_url = base_url
        self._model = model
        self._sampling = sampling
        self._connections = asyncio.Semaphore(connections)
        self.ahead = 2 * connections  # a slow answer leaves no connection idle

    async def answer(self, prompts: Sequence[str], seed: int) -> list[str]:
        """Answers from one request a prompt, several at once. Raises `DataError` if the server gives no answer."""
        return await asyncio.gather(*(self._ask(prompt, seed + place) for place, prompt in enumerate(prompts)))

    async def _ask(self, prompt: str, seed: int) -> str:
        for wait_seconds in (*WAITS_SECONDS, None):
            reply = await self._request(prompt, seed)
            if (text := _answer_in(reply)) is not None:
                return text.encode(errors="replace").decode().strip()  # half a surrogate pair could not be sent back
            if wait_seconds is not None:
                await asyncio.sleep(wait_seconds)
        reason = reply.get("error", reply) if isinstance(reply, dict) else reply
        raise DataError(
            f"base_url: {self._base_url} answers, but not as an OpenAI server ({one_line(reason)}): is its path `/v1`? "
            "What it has written is kept, start again later"
        )

    async def _request(self, prompt: str, seed: int) -> Any:
        """The reply's body, parsed as JSON, or as text where it is not JSON. The client repeats failed requests."""
        try:
            async with self._connections:
                response = await self._client.chat.completions.with_raw_response.create(
                    model=self._model,
                    messages=[{"role": "user", "content": prompt}],
                    temperature=self._sampling.temperature,
                    max_tokens=self._sampling.max_new_tokens,
                    seed=seed,
                )
        except self._openai.BadRequestError as error:
            if error.code in REFUSALS:
                return {"choices": [{"finish_reason": "content_filter"}]}
            raise DataError(
                f"base_url: {self._base_url} refuses a request ({one_line(error)}); it began: {one_line(prompt)[:80]!r}"
            ) from None
        except self._openai.OpenAIError as error:
            raise DataError(
                f"base_url: {self._base_url} does not answer ({one_line(error)}); "
                "what it has written is kept, start again later"
            ) from None
        text: str = response.http_response.text
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text


def _answer_in(reply: Any) -> str | None:
    """The answer in a server's reply, "" where the server refused to answer; None if the reply holds no answer.

    >>> _answer_in({"choices": [{"message": {"content": [{"type": "text", "text": "Yes"}]}}]})
    'Yes'
    >>> _answer_in({"error": {"message": "overloaded"}}) is None
    True
    """
    match reply:
        case {"error": error} | {"choices": [{"error": error}, *_]} if error:  # from a server behind a gateway
            return None
        case {"choices": [{"finish_reason": "error"}, *_]}:
            return None
        case {"choices": [{"message": {"content": str(text)}}, *_]}:
            return text
        case {"choices": [{"message": {"content": [*parts]}}, *_]}:
            texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
            return "".join(map(str, texts)) if all(isinstance(text, str) for text in texts) else None
        case {"choices": [{"message": {"content": None}} | {"finish_reason": "content_filter"}, *_]}:
            return ""
    return None


def _pace(per_minute: int | None) -> Callable[[], Awaitable[None]]:
    """A function that returns at most `per_minute` times a minute, however many tasks call it."""
    free_at = time.monotonic()

    async def wait() -> None:
        nonlocal free_at
        if per_minute is not None:
            now = time.monotonic()
            turn = max(now, free_at)
            free_at = turn + 60 / per_minute
            await asyncio.sleep(turn - now)

    return wait
