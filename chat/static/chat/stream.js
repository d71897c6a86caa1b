/** Server-sent events over a POST, which EventSource cannot do. */

import { ApiError, send } from "./api.js";

// The server writes a comment every two seconds; this long without one, the way to it is broken.
const SILENCE_SECONDS = 15;

/** Yields `{name, data}` for every event until the server closes the stream or `signal` aborts. */
export async function* streamEvents(path, { body, headers, signal }) {
  const quiet = new AbortController();
  const both = AbortSignal.any([signal, quiet.signal]);
  let watch;
  const heard = () => {
    clearTimeout(watch);
    watch = setTimeout(() => quiet.abort(), SILENCE_SECONDS * 1000);
  };
  try {
    heard();
    const response = await send(path, { method: "POST", body, headers, signal: both, accept: "text/event-stream" });
    if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
      yield { name: "done", data: await response.json() };
      return;
    }
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      heard();
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parseEvent(block);
        if (event) yield event;
      }
    }
  } catch (error) {
    if (signal.aborted || error instanceof ApiError) throw error;
    throw new ApiError({ status: 0, title: "The connection to the server broke off." });
  } finally {
    clearTimeout(watch);
    quiet.abort();
  }
}

function parseEvent(block) {
  let name = "message";
  const data = [];
  for (const line of block.split(/\r?\n/)) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
  }
  return data.length ? { name, data: JSON.parse(data.join("\n")) } : null;
}
