"""An assistant with threads, streamed replies and tool calls: the application that proves the backend."""
