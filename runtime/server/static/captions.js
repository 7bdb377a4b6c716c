// Words while one speaks, over the server's realtime socket. They are a preview: the recording is transcribed at its end.

import { refusal, serverKey } from "./api.js";

const PATH = "v1/realtime";
const RATE = 24_000; // Hz
const TRANSCRIPTION = "conversation.item.input_audio_transcription";
const KEY = "openai-insecure-api-key."; // pages cannot set headers of a WebSocket

/**
 * Follow the sound of a stream. `onText` hears all that was said so far, one line a turn; `onFailure` that no more text
 * will come, and the server's words on why it came to none, if it has any. Returns what ends it, and waits until the server knows.
 */
export function follow(stream, { language, context, onText, onFailure }) {
  const turns = new Map();
  let socket;
  let sound;
  let opened = false;
  let ended = false;

  const fail = async () => {
    sound?.close();
    sound = undefined;
    onFailure();
    const reason = opened ? "" : await refusal(PATH);
    if (reason && !ended) onFailure(reason);
  };
  const hear = ({ data }) => {
    const event = JSON.parse(data);
    if (event.type === `${TRANSCRIPTION}.delta`) turns.set(event.item_id, (turns.get(event.item_id) ?? "") + event.delta);
    else if (event.type === `${TRANSCRIPTION}.completed`) turns.set(event.item_id, event.transcript);
    else return;
    onText([...turns.values()].filter(Boolean).join("\n"));
  };
  const begin = async () => {
    opened = true;
    const transcription = { language: language || null, prompt: context || null };
    send(socket, "session.update", { session: { type: "transcription", audio: { input: { transcription } } } });
    try {
      sound = await pieces(stream, (piece) => {
        if (socket.readyState === WebSocket.OPEN) send(socket, "input_audio_buffer.append", { audio: base64(piece) });
      });
    } catch {
      socket.close(); // a browser that cannot resample
    }
  };

  try {
    const url = new URL(PATH, document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    socket = new WebSocket(url, serverKey() ? ["realtime", KEY + serverKey()] : ["realtime"]);
  } catch {
    onFailure(); // a key that no subprotocol can hold
    return async () => {};
  }
  socket.onopen = begin;
  socket.onmessage = hear;
  socket.onclose = fail;
  return async () => {
    ended = true;
    sound?.close();
    sound = undefined;
    if (socket.readyState === WebSocket.CLOSED) return;
    const closed = new Promise((resolve) => (socket.onclose = resolve));
    socket.close();
    await closed;
  };
}

function send(socket, type, fields) {
  socket.send(JSON.stringify({ type, ...fields }));
}

/** Give `onPiece` the sound of a stream as 16-bit samples; returns the AudioContext that does. */
async function pieces(stream, onPiece) {
  const context = new AudioContext({ sampleRate: RATE });
  await context.audioWorklet.addModule("static/pcm.js");
  const worklet = new AudioWorkletNode(context, "pcm", { numberOfOutputs: 0 });
  worklet.port.onmessage = ({ data }) => onPiece(data);
  context.createMediaStreamSource(stream).connect(worklet);
  return context;
}

function base64(samples) {
  return btoa(String.fromCharCode(...new Uint8Array(samples.buffer))); // samples are little-endian where browsers run
}
