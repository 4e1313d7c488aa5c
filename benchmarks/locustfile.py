"""People in conversation with an agent over HTTP, for locust. `benchmarks/load.py` starts it.

A person begins a session, sends messages, each as soon as the last one is answered, and reads the session in the end.
A session that lacks a message counts as an error.
"""

from __future__ import annotations

from uuid import uuid4

from locust import FastHttpUser, task

APP = "my_agent"
TURNS = 10


class Person(FastHttpUser):  # type: ignore[misc, unused-ignore]
    """One conversation after another."""

    @task  # type: ignore[untyped-decorator, unused-ignore]
    def converse(self) -> None:
        """Hold a conversation."""
        user, session = uuid4().hex, uuid4().hex
        sessions = f"/apps/{APP}/users/{user}/sessions"
        self.client.post(sessions, json={"session_id": session}, name="create")
        asked = [f"Message {number}" for number in range(TURNS)]
        for text in asked:
            message = {
                "app_name": APP,
                "user_id": user,
                "session_id": session,
                "new_message": {"role": "user", "parts": [{"text": text}]},
            }
            self.client.post("/run", json=message, name="turn")
        with self.client.get(f"{sessions}/{session}", name="read", catch_response=True) as reply:
            events = reply.json()["events"] if reply.ok else []
            stored = [
                part.get("text")
                for event in events
                if event["author"] == "user"
                for part in event["content"]["parts"]
            ]
            if stored != asked:
                reply.failure(f"{len(stored)} of {TURNS} messages are stored")
