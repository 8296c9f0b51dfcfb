"""Who writes synthetic text: a local model, or a server that speaks the OpenAI protocol."""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from solar.errors import DataError, one_line

WAITS_SECONDS = (1.0, 5.0)
"""Before a server is asked again that said something else than an answer, as gateways do now and then."""
REFUSALS = ("content_filter", "content_policy_violation", "context_length_exceeded")
"""What servers call a request that they will never answer: its seed is left out."""


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn."""

    temperature: float
    """0: always the likeliest token."""
    max_new_tokens: int


class Writer(Protocol):
    """Anything that answers prompts."""

    group: int
    """Seeds that it works on together: always the same ones, so that a restart changes no answer."""
    ahead: int
    """Groups that may be under way at once."""

    async def write(self, prompts: Sequence[str], seed: int) -> list[str]:
        """One answer a prompt, without the prompt; the same seed gives the same answers where that can be had."""


class LocalWriter:
    """A `transformers` model on a device of this machine."""

    group, ahead = 8, 1

    def __init__(self, model_artifact: Path, sampling: Sampling, device: str = "cpu") -> None:
        from transformers import AutoModelForCausalLM

        from solar.data.encode.encode import Encoder
        from solar.data.encode.tokenizer import load, tokenizer_folder

        self._sampling = sampling
        folder = tokenizer_folder(model_artifact)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", trust_remote_code=False).to(device)
        self._encoder = Encoder(load(folder))

    async def write(self, prompts: Sequence[str], seed: int) -> list[str]:
        """All prompts together, padded on the left."""
        import torch

        rows = [self._ids(prompt) for prompt in prompts]
        width = max(map(len, rows))
        pad = self._encoder.eos_id
        device = self._model.device
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
        torch.manual_seed(seed)
        drawn = {"do_sample": True, "temperature": self._sampling.temperature} if self._sampling.temperature else {}
        stops = self._encoder.end_of_turn_ids() if self._chats else [self._encoder.eos_id]
        with torch.inference_mode():
            written = self._model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=self._sampling.max_new_tokens,
                eos_token_id=stops,
                pad_token_id=pad,
                **({"do_sample": False} | drawn),
            )
        texts: list[str] = self._encoder.tokenizer.batch_decode(written[:, width:], skip_special_tokens=True)
        return [text.strip() for text in texts]

    @property
    def _chats(self) -> bool:
        return self._encoder.tokenizer.chat_template is not None

    def _ids(self, prompt: str) -> list[int]:
        if self._chats:
            return self._encoder.prompt([{"role": "user", "content": prompt}])
        return self._encoder.documents([prompt])[0][:-1]


class ServerWriter:
    """A server behind the `openai` client, which repeats a request that failed or came too soon.

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
        paced = _pace(requests_per_minute)  # asked by the transport, so that the client's own repetitions wait, too
        self._client: Any = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=os.environ.get("OPENAI_API_KEY", "none"),
            max_retries=6,
            timeout=300,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks={"request": [lambda request: paced()]}),
        )
        self._base_url = base_url
        self._model = model
        self._sampling = sampling
        self._connections = asyncio.Semaphore(connections)
        self.ahead = 2 * connections  # a slow answer keeps no connection waiting

    async def write(self, prompts: Sequence[str], seed: int) -> list[str]:
        """One request a prompt, several under way at once. Raises `DataError` if the server stays away."""
        return await asyncio.gather(*(self._ask(prompt, seed + place) for place, prompt in enumerate(prompts)))

    async def _ask(self, prompt: str, seed: int) -> str:
        for wait_seconds in (*WAITS_SECONDS, None):
            told = await self._request(prompt, seed)
            if (text := _said(told)) is not None:
                return text.encode(errors="replace").decode().strip()  # half a surrogate pair could not be asked about
            if wait_seconds is not None:
                await asyncio.sleep(wait_seconds)
        reason = told.get("error", told) if isinstance(told, dict) else told
        raise DataError(
            f"base_url: {self._base_url} answers, but not as an OpenAI server ({one_line(reason)}): is its path `/v1`? "
            "What it has written is kept, start again later"
        )

    async def _request(self, prompt: str, seed: int) -> Any:
        """What came back, read as JSON; the text itself if it is none. Repeated by the client where HTTP says why."""
        try:
            async with self._connections:
                answer = await self._client.chat.completions.with_raw_response.create(
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
        text: str = answer.http_response.text
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text


def _said(told: Any) -> str | None:
    """The answer in a server's reply, empty where it refused to give one; None if this is no reply.

    >>> _said({"choices": [{"message": {"content": [{"type": "text", "text": "Yes"}]}}]})
    'Yes'
    >>> _said({"error": {"message": "overloaded"}}) is None
    True
    """
    match told:
        case {"error": error} | {"choices": [{"error": error}, *_]} if error:  # of whoever is behind a gateway
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
    """A function that returns at most so often, for however many tasks call it."""
    free_at = time.monotonic()

    async def wait() -> None:
        nonlocal free_at
        if per_minute is not None:
            now = time.monotonic()
            turn = max(now, free_at)
            free_at = turn + 60 / per_minute
            await asyncio.sleep(turn - now)

    return wait
