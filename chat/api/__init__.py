"""The HTTP face of the chat."""
