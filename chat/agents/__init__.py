"""The assistants that can answer a turn; which one does is the setting CHAT_AGENT."""

from __future__ import annotations

from django.conf import settings

from chat.agents.base import Agent, AgentError, Said, TextDelta, ToolCallRequested

__all__ = ["Agent", "AgentError", "Said", "TextDelta", "ToolCallRequested", "get_agent"]


def get_agent() -> Agent:
    """The agent of the settings; imported late, because only one of them is paid for."""
    if settings.CHAT_AGENT == "openai":
        from chat.agents.openai import OpenAIAgent

        return OpenAIAgent(
            model=settings.CHAT_MODEL, base_url=settings.OPENAI_BASE_URL, api_key=settings.OPENAI_API_KEY
        )
    from chat.agents.offline import OfflineAgent

    return OfflineAgent(delay_seconds=settings.CHAT_AGENT_DELAY_SECONDS)
