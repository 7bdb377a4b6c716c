// A recording from the microphone, with its loudness and length while it goes on.

import { Failure } from "./api.js";

const TYPES = ["audio/webm;codecs=opus", "audio/ogg;codecs=opus", "audio/mp4"];
const EXTENSIONS = { "audio/webm": "webm", "audio/ogg": "ogg", "audio/mp4": "m4a" };
const REASONS = { NotAllowedError: "forbidden", SecurityError: "forbidden", NotFoundError: "missing" };
// What browsers do to noise is meant for ears, and takes from what the model hears.
const WANTED = { channelCount: 1, echoCancellation: false, noiseSuppression: false };
const QUIETEST = -60; // dB of full scale that the meter begins with

/**
 * Begin to record. `onSound` hears {level, seconds} some times a second, the level from 0 to 1. Rejects with a Failure
 * where there is no microphone to have.
 */
export async function record({ onSound }) {
  if (!navigator.mediaDevices?.getUserMedia) {
    const port = location.port || "8000";
    throw new Failure("insecure", { values: { port } });
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: WANTED });
  } catch (error) {
    throw new Failure(REASONS[error.name] ?? "missing", { detail: REASONS[error.name] ? "" : error.message });
  }
  const recorder = new MediaRecorder(stream, { mimeType: TYPES.find((type) => MediaRecorder.isTypeSupported(type)) });
  const pieces = [];
  recorder.ondataavailable = (event) => pieces.push(event.data);
  recorder.start(1000);
  const unmeter = meter(stream, onSound);

  const end = () =>
    new Promise((resolve) => {
      recorder.onstop = resolve;
      recorder.stop();
      for (const track of stream.getTracks()) track.stop();
      unmeter();
    });
  return {
    stream,
    /** End it: the recording as a file. */
    async stop() {
      await end();
      const type = recorder.mimeType.split(";")[0];
      return new File(pieces, `recording.${EXTENSIONS[type] ?? "webm"}`, { type });
    },
    /** End it and forget it. */
    discard: end,
  };
}

function meter(stream, onSound) {
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, { fftSize: 1024 });
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const begun = performance.now();
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
    const level = 1 - Math.max(10 * Math.log10(power), QUIETEST) / QUIETEST;
    onSound({ level: Math.min(Math.max(level, 0), 1), seconds: (performance.now() - begun) / 1000 });
  }, 66);
  return () => {
    clearInterval(timer);
    context.close();
  };
}
