"""Every bound of the chat in one place: what a client may send, what a turn may use, and how often it saves."""

from __future__ import annotations

BODY_BYTES = 64 * 1024
MESSAGE_CHARACTERS = 8_000
TITLE_CHARACTERS = 200

THREADS_PER_PAGE = 50
MESSAGES_PER_PAGE = 100
LARGEST_PAGE = 200

# What a turn may use.
HISTORY_MESSAGES = 40
TOOL_ROUNDS = 8
TOOL_RESULT_CHARACTERS = 20_000
REPLY_CHARACTERS = 200_000
REPLY_SECONDS = 600.0

# A silent stream is cut by proxies after about a minute, and a client that left is only noticed by writing.
HEARTBEAT_SECONDS = 2.0
# The event stream reads at least once per heartbeat; a reader that is silent for this long is not coming back.
READER_PATIENCE_SECONDS = 60.0

CHECKPOINT_SECONDS = 5.0
# A living turn touches its row every checkpoint; six missed ones mean that its process is gone.
ABANDONED_SECONDS = 30.0
# After an outage every reply looks like that, until whoever has it could save it: so one more look after this long.
TAKE_OVER_SECONDS = 5.0
FINAL_SAVE_SECONDS = 60.0
# What the last save may take however long its request has waited already; a healthy database needs a part of it.
LEAST_SAVE_SECONDS = 1.0
# What work that nobody waits for may take at a time.
BACKGROUND_SECONDS = 5.0

# Questions whose COMMIT was lost with the database: nobody writes their replies. For so many that is remembered.
UNBEGUN_REPLIES = 1000
UNBEGUN_TELL_SECONDS = 1.0

# What has ended and still could not be stored is kept in memory; then the reader has been told.
UNSAVED_REPLIES = 100
UNSAVED_SECONDS = 3600.0
UNSAVED_RETRY_SECONDS = 2.0
