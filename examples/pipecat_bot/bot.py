"""A stock Pipecat bot on the telephone, with Antiphon's services for its ears, its words and its voice.

`side_by_side.py` starts everything; by hand, start the three services, then this: see README.md. Nothing here is
Antiphon's: the services speak OpenAI's and XTTS's protocols, and the clients are Pipecat's own.
"""

from __future__ import annotations

import argparse
import asyncio
import os

import aiohttp
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.openai.stt import OpenAISTTService
from pipecat.services.xtts.tts import XTTSService
from pipeline import Services, application, serve
from reports import METRICS_LOG, observers

KEY = os.environ.get("ANTIPHON_API_KEY", "none")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--port", type=int, default=8765, help="0: any free one")
    parser.add_argument("--stt", default="http://127.0.0.1:8090/v1")
    parser.add_argument("--llm", default="http://127.0.0.1:8091/v1")
    parser.add_argument("--tts", default="http://127.0.0.1:8089")
    parser.add_argument("--voice", default="default", help="one of /studio_speakers")
    return parser.parse_args()


async def main() -> None:
    options = parsed()
    async with aiohttp.ClientSession() as http:

        def services() -> Services:
            stt = OpenAISTTService(
                api_key=KEY,
                base_url=options.stt,
                settings=OpenAISTTService.Settings(model="moonshine"),
            )
            llm = OpenAILLMService(
                api_key=KEY,
                base_url=options.llm,
                settings=OpenAILLMService.Settings(model="llamacpp"),
            )
            tts = XTTSService(
                base_url=options.tts,
                aiohttp_session=http,
                settings=XTTSService.Settings(voice=options.voice),
            )
            return stt, llm, tts

        app = application(services, observers=observers, metrics=True)
        await serve(app, options.port, METRICS_LOG)


if __name__ == "__main__":
    asyncio.run(main())
