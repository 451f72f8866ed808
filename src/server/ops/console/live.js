// What happens, as it happens: the server's stream of events, read by fetch since EventSource can send no token. A
// stream that breaks is opened again from where it was; the state of the connection is always told.

import { headers, url } from "./api.js";

/** The server sends something every 4 s. */
const SILENCE_MS_MAX = 12_000;
const BACKOFF_MS = [250, 500, 1_000, 2_000, 5_000];
/** One message; the server sends no longer ones. */
const BUFFER_MAX = 4 << 20;

export class Live {
  #abort = null;

  /** `onState`: "connecting", "live", "offline", "signed out", "denied". `onChanges`: ({ events, skipped }). */
  constructor({ onState, onChanges }) {
    this.onState = onState;
    this.onChanges = onChanges;
  }

  /** Follows `{ prefix }` or `{ name }`, and nothing else any more. */
  follow(target) {
    this.#abort?.abort();
    this.#abort = new AbortController();
    void this.#run(target, this.#abort.signal);
  }

  async #run(target, signal) {
    const at = { position: "", failures: 0 };
    while (!signal.aborted) {
      this.onState("connecting");
      const state = await this.#read(target, at, signal).catch(() => "offline");
      if (signal.aborted) return;
      this.onState(state);
      if (state === "signed out" || state === "denied") return;
      const ms = BACKOFF_MS[Math.min(at.failures++, BACKOFF_MS.length - 1)];
      await new Promise((resolve) => setTimeout(resolve, ms));
      this.onChanges({ events: [], skipped: 1 }); // whatever happened meanwhile
    }
  }

  /** Resolves with why it has ended. */
  async #read(target, at, signal) {
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), SILENCE_MS_MAX);
    try {
      const response = await fetch(url("events", target), {
        headers: headers(at.position === "" ? {} : { "last-event-id": at.position }),
        signal: AbortSignal.any([signal, silence.signal]),
      });
      if (response.status === 401) return "signed out";
      if (response.status === 403) return "denied";
      if (!response.ok) return "offline";
      this.onState("live");
      at.failures = 0;
      let buffer = "";
      for await (const text of chunks(response.body)) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE_MS_MAX);
        buffer += text;
        const messages = buffer.split("\n\n");
        buffer = messages.pop();
        if (buffer.length > BUFFER_MAX) return "offline";
        for (const message of messages) if (!this.#take(message, at)) return "offline";
      }
      return "offline";
    } finally {
      clearTimeout(timer);
      silence.abort(); // also what has not been read
    }
  }

  /** False: the stream is over. */
  #take(message, at) {
    const fields = new Map(
      message.split("\n").map((line) => {
        const colon = line.indexOf(": ");
        return [line.slice(0, colon), line.slice(colon + 2)];
      }),
    );
    const event = fields.get("event");
    if (event === undefined) return true; // a heartbeat
    if (event !== "changes") {
      at.position = ""; // from now on, with the state read anew
      return false;
    }
    at.position = fields.get("id") ?? "";
    this.onChanges(JSON.parse(fields.get("data") ?? "{}"));
    return true;
  }
}

async function* chunks(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}
