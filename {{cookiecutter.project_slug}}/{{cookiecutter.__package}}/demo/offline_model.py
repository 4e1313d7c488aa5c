"""A scripted model that needs neither a key nor a network.

It understands just enough to call the tools of this agent, so that sessions, tools, web interface and demo
work without a key. Its answers are labelled. With a key, Gemini is used instead (`settings.py`).
"""

import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from google.adk.models import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.genai import types

LABEL = "[offline model]"

HELP = (
    'I am a script, not a model. I understand "My name is Ada", "What is my name?",'
    ' "Remember that the door code is 42", "What is the door code?", "What do you remember?" and'
    ' "Session report"; add "for everyone" or "for this conversation" to what I should remember.'
)

NO_TOKENS = types.GenerateContentResponseUsageMetadata(
    prompt_token_count=0, candidates_token_count=0, total_token_count=0
)

MAX_LENGTH = 2_000
"""Characters of a message that are read."""


class OfflineModel(BaseLlm):
    """Answers by patterns and calls the agent's tools like a model."""

    model: str = "offline"

    @classmethod
    def supported_models(cls) -> list[str]:
        """Return the names under which ADK finds this model."""
        return ["offline"]

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        """Answer the last message of a conversation, word by word if it is streamed."""
        part = reply(llm_request.contents, tools=llm_request.tools_dict)
        if stream and part.text:
            for word in re.findall(r"\S+\s*", part.text):
                yield _response(types.Part(text=word), partial=True)
        yield _response(part, partial=False)


def reply(contents: Sequence[types.Content], *, tools: Any = ()) -> types.Part:
    """Return the answer to a conversation: a text, or a call of one of the tools."""
    parts = (contents[-1].parts or []) if contents else []
    results = [part.function_response for part in parts if part.function_response]
    if results:
        return _say(" ".join(describe(result.name, result.response or {}) for result in results))
    text = " ".join(part.text for part in parts if part.text and not part.thought)
    tool, arguments = understand(text)
    if tool in tools:
        return types.Part(function_call=types.FunctionCall(name=tool, args=arguments))
    if not text.strip() and parts:
        return _say(f"I can only read text. {HELP}")
    return _say(f"Hello! {HELP}" if GREETING.match(text.strip()) else HELP)


# Tools with a fixed key, if there is one, and the pattern of a message. The earliest match in the message
# counts, and among equal ones the first of the list.

GREETING = re.compile(r"(hello|hi|hey|good (morning|day|afternoon|evening))\b", re.IGNORECASE)

_IS = r"(?:\s+is|\s+are|\s*[=:])\s+"
_PATTERNS = [
    ("session_report", None, r".*\b(session report|report on (this|your) session)\b"),
    ("session_report", None, r"\bhow (long|much longer) (do|will|can) you remember\b"),
    ("recall", "", r"\bwhat (do|can) you (remember|recall|know)\b"),
    ("recall", "name", r"\bwho am i\b|\bwhat(?:'s| is| was) my name\b|\bwhat my name is\b"),
    ("recall", "name", r"\b(?:do|can) you (?:remember|recall|know) (what )?my name\b"),
    ("recall", None, r"\bwhat(?:'s|\s+is|\s+are|\s+was|\s+were)\s+(?P<key>.+)"),
    ("recall", None, r"\b(?:do you (?:remember|know)|recall|tell me)\s+(?P<key>.+)"),
    ("remember", None, rf"\bremember:?\s+(?:that\s+)?(?P<key>.+?){_IS}(?P<value>.+)"),
    ("remember", "name", r"\b(?:my name is|call me|i'm|i am)\s+(?P<value>.+)"),
    ("remember", None, rf"\bmy\s+(?P<key>.+?){_IS}(?P<value>.+)"),
]
_SCOPES = [
    ("app", r"\s*\b(?:for|to) (?:everyone|everybody|all(?: users)?)\b[,:]?"),
    ("session", r"\s*\b(?:only\s+)?(?:for|in) this (?:conversation|session|chat)(?: only)?\b[,:]?"),
]

# After "I am", these words do not begin a name.
_NO_NAME = re.compile(
    r"(a|an|the|not|so|very|too|really|in|at|on|from|here|back|going|looking|trying|feeling|fine"
    r"|good|great|well|ok|okay|happy|sad|tired|sorry|sure|afraid|new|done|ready|curious)\b",
    re.IGNORECASE,
)
# The end of a name within a message. "Dr. Who" and "J. R. R. Tolkien" are names.
_AFTER_NAME = re.compile(
    r"[!?,;].*|(?<=\w{3})\.(\s.*)?$|\s+(and|but|what|who|how)\s.*", re.IGNORECASE
)


def understand(message: str) -> tuple[str | None, dict[str, str]]:
    """Return the tool that a message asks for, or None, and its arguments."""
    text = " ".join(message[:MAX_LENGTH].replace("’", "'").split())
    scope = "user"
    for name, pattern in _SCOPES:
        shorter = re.sub(pattern, "", text, count=1, flags=re.IGNORECASE).strip()
        if shorter != text:
            text, scope = shorter, name
            break
    found = [
        (match.start(), tool, {"key": key} | match.groupdict())
        for tool, key, pattern in _PATTERNS
        if (match := re.search(pattern, text, re.IGNORECASE))
    ]
    for _, tool, said in sorted(found, key=lambda match: match[0]):
        if tool == "session_report":
            return tool, {}
        about = _about(said["key"] or "")
        if tool == "recall":
            return tool, {"key": about}
        if value := _value(said["value"] or "", of_name=about == "name"):
            return tool, {"key": about, "value": value, "scope": scope}
    return None, {}


def describe(tool: str | None, result: dict[str, Any]) -> str:
    """Return the result of a tool as a sentence."""
    if "error" in result:
        return f"That did not work: {result['error']}"
    if tool == "remember":
        whose = {"session": "for this conversation", "app": "for everyone"}
        kept = whose.get(str(result.get("scope")), "for you, in every conversation")
        if result.get("remembered") == "name":
            return f"Nice to meet you, {result.get('value')}! I remember your name {kept}."
        return f"I remember {kept}: {result.get('remembered')} is {result.get('value')}."
    if tool == "recall":
        return _describe_facts(result)
    if tool == "session_report":
        return _describe_session(result)
    return f"The tool {tool} returned {result}."


def _describe_facts(result: dict[str, Any]) -> str:
    if "facts" in result:
        whose = {"session": "in this conversation", "user": "about you", "app": "for everyone"}
        known = [
            f"{where}: " + ", ".join(f"{key} is {value}" for key, value in facts.items())
            for scope, where in whose.items()
            if (facts := result["facts"].get(scope))
        ]
        return f"I remember, {'; '.join(known)}." if known else "I do not remember anything yet."
    key = result.get("key")
    if "value" not in result:
        return "I do not know your name yet." if key == "name" else f"I do not know: {key}."
    if key == "name":
        return f"Your name is {result['value']}."
    return f"I remember: {key} is {result['value']}."


def _describe_session(report: dict[str, Any]) -> str:
    left = report.get("expires_in")
    lives = f"it expires in {left} unless we go on" if left else "I do not know how long it lives"
    if left == "never":
        lives = "it never expires"
    return (
        f"This is session {report.get('session')} of {report.get('user')}, with"
        f" {report.get('events')} events so far, kept in {report.get('backend')}; {lives}."
    )


def _about(text: str) -> str:
    """Return the subject of a phrase, without its article."""
    text = re.sub(
        r"^(?:what|that)(?:'s|\s+is|\s+are)?\s+|\s+(?:is|are)$",
        "",
        text.strip(" ?!.\"'"),
        flags=re.IGNORECASE,
    )
    return re.sub(r"^(?:the|my|our|a|an)\s+", "", text, flags=re.IGNORECASE)


def _value(text: str, *, of_name: bool) -> str:
    """Return the value to remember, or an empty string if it is not a name."""
    if of_name:
        text = "" if _NO_NAME.match(text) else _AFTER_NAME.sub("", text)
    return text.strip(" .!\"'")


def _say(text: str) -> types.Part:
    return types.Part(text=f"{LABEL} {text}")


def _response(part: types.Part, *, partial: bool) -> LlmResponse:
    return LlmResponse(
        content=types.Content(role="model", parts=[part]), partial=partial, usage_metadata=NO_TOKENS
    )
