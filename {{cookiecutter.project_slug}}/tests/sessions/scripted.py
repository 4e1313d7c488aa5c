"""A model for tests. It calls the tool that a message names and answers with the tool's result."""

import json
from collections.abc import AsyncGenerator

from google.adk.models import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.genai import types


class Scripted(BaseLlm):
    """Turns `tool {"argument": "value"}` into a call of that tool and echoes any other text."""

    model: str = "scripted"

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        """Answer the last message of a conversation."""
        part = (llm_request.contents[-1].parts or [types.Part(text="")])[-1]
        name, _, arguments = (part.text or "").partition(" ")
        if part.function_response:
            answer = types.Part(text=json.dumps(part.function_response.response))
        elif name in llm_request.tools_dict:
            call = types.FunctionCall(name=name, args=json.loads(arguments or "{}"))
            answer = types.Part(function_call=call)
        else:
            answer = types.Part(text=part.text)
        yield LlmResponse(content=types.Content(role="model", parts=[answer]))
