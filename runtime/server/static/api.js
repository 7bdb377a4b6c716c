// The server, as the page uses it.

/** What went wrong: `kind` has words in words.js, `detail` is what the server says itself. */
export class Failure extends Error {
  constructor(kind, { detail = "", values = {} } = {}) {
    super(detail || kind);
    Object.assign(this, { kind, detail, values });
  }
}

// Errors in the middle of a stream have a code alone.
const BY_CODE = { invalid_audio: "audio", engine_failed: "unready", stopping: "unready", timeout: "slow" };
const BY_STATUS = { 401: "key", 408: "slow", 413: "large", 429: "busy", 503: "unready", 504: "slow" };
const KEY = "server-key";
const AGAIN = 1000; // milliseconds between looks at a server that starts

let key = sessionStorage.getItem(KEY) ?? "";

/** Use a key from now on; it stays in memory unless it shall be kept for this tab. */
export function useKey(given, { keep }) {
  key = given;
  if (keep) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** The key in use, empty for none. */
export const serverKey = () => key;

const authorization = () => (key ? { Authorization: `Bearer ${key}` } : {});

/** The failure that an error body, or what stands in its place, tells of. */
function failure(status, body) {
  let error = {};
  try {
    error = JSON.parse(body).error ?? {};
  } catch {
    // a proxy's page, not the server's words
  }
  const kind = BY_CODE[error.code] ?? BY_STATUS[status] ?? (status >= 500 ? "server" : "request");
  return new Failure(kind === "key" && !key ? "no_key" : kind, { detail: error.message ?? `HTTP ${status}` });
}

async function get(path, signal) {
  try {
    return await fetch(path, { headers: authorization(), signal, cache: "no-store" });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Failure("network");
  }
}

/** Wait until the server is ready; `onStage` hears {status, stage} as long as it is not. */
export async function ready({ signal, onStage }) {
  for (;;) {
    const answer = await get("health/ready", signal);
    if (answer.ok) return;
    if (answer.status !== 503) throw failure(answer.status, await answer.text());
    onStage(await answer.json());
    await new Promise((resolve) => setTimeout(resolve, AGAIN));
    signal?.throwIfAborted();
  }
}

/** The languages of Qwen3-ASR: { code, en, zh } each. */
export async function languagesKnown() {
  return (await get("static/languages.json")).json();
}

/** Why the server refused a WebSocket, which the browser does not tell: what it answers to the same address without one. */
export async function refusal(path) {
  try {
    // POST, as GET brings no Origin, which may be the reason.
    const answer = await fetch(path, { method: "POST", headers: authorization(), cache: "no-store" });
    return failure(answer.status, await answer.text()).detail;
  } catch {
    return "";
  }
}

/** What the server is and which limits it has. */
export async function info() {
  const answer = await get("v1/info");
  if (!answer.ok) throw failure(answer.status, await answer.text());
  return answer.json();
}

/**
 * Transcribe a file into a verbose_json document. `onUpload` hears the part that is sent, from 0 to 1, `onText` each bit
 * of text as it comes. Rejects with a Failure, and with an AbortError after `signal`.
 *
 * XMLHttpRequest, since fetch does not tell how much of a body is sent.
 */
export function transcribe(file, { name, language, context, signal, onUpload, onText }) {
  const form = new FormData();
  form.append("stream", "true");
  form.append("response_format", "verbose_json");
  if (language) form.append("language", language);
  if (context) form.append("prompt", context);
  form.append("file", file, name);

  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let begun = false; // to send events
    let read = 0; // characters
    const take = () => {
      for (let end; (end = request.responseText.indexOf("\n\n", read)) >= 0; read = end + 2) {
        const event = JSON.parse(request.responseText.slice(read, end).replace(/^data: ?/, ""));
        if (event.error) reject(failure(500, JSON.stringify(event)));
        else if (event.type === "transcript.text.delta") onText(event.delta);
        else if (event.type === "transcript.text.done") resolve(without(event, "type"));
      }
    };
    request.open("POST", "v1/audio/transcriptions");
    for (const [header, value] of Object.entries(authorization())) request.setRequestHeader(header, value);
    request.upload.onprogress = (event) => onUpload(event.loaded / event.total);
    request.upload.onload = () => onUpload(1);
    request.onprogress = () => {
      begun = request.status === 200;
      if (begun) take();
    };
    request.onload = () => {
      if (request.status !== 200) reject(failure(request.status, request.responseText));
      else take();
      reject(new Failure("lost")); // of no effect after the last event
    };
    request.onerror = () => reject(new Failure(begun ? "lost" : "network"));
    signal.addEventListener("abort", () => {
      request.abort();
      reject(signal.reason);
    });
    request.send(form);
  });
}

function without(document, name) {
  const { [name]: _, ...rest } = document;
  return rest;
}
