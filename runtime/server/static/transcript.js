// What was heard: segments on the timeline and as a list, tied to the sound.

import { FORMATS, clock, copy, download } from "./formats.js";
import { draw } from "./timeline.js";
import { label } from "./words.js";

const $ = (id) => document.getElementById(id);
const audio = $("audio");
const NOTED = 2000; // milliseconds that "Copied" stands

let shown; // { file, transcript } on the page
let timeline; // on the page
let buttons = new Map(); // of the list, by index of segment
let playing = -1;

/** Take up a file: its name, its sound, and its waveform as soon as the browser knows its length. */
export function open(file, { name }) {
  close();
  shown = { file, transcript: { text: "", segments: [] } };
  $("name").textContent = name;
  audio.hidden = false;
  audio.src = URL.createObjectURL(file);
  $("player").hidden = false;
}

/** Leave nothing of an earlier file. */
export function close() {
  if (audio.src) URL.revokeObjectURL(audio.src);
  $("timeline").replaceChildren();
  $("player").hidden = $("result").hidden = true;
  [timeline, playing] = [undefined, -1];
}

/** Show a verbose_json transcript of the file. `codeOf` has the code of a language by its English name in lower case. */
export function show(transcript, { codeOf }) {
  shown.transcript = transcript;
  drawn(transcript.duration);
  buttons = new Map();
  const rows = transcript.segments.map((segment, index) => {
    const row = document.createElement("li");
    const button = segmentButton(segment, codeOf(segment.language));
    button.onclick = () => playFrom(segment.start);
    buttons.set(index, button);
    row.append(button);
    return row;
  });
  $("segments").replaceChildren(...rows);
  $("result").hidden = !transcript.text;
}

function segmentButton(segment, code) {
  const button = document.createElement("button");
  button.type = "button";
  const prefix = added(button, "span", { className: "unseen" });
  label(prefix, "play", { start: clock(segment.start) });
  const time = added(button, "time", { textContent: clock(segment.start), dateTime: `PT${segment.start}S` });
  time.setAttribute("aria-hidden", "true");
  added(button, "span", { className: "text", textContent: segment.text, lang: code ?? "" });
  if (segment.truncated) label(added(button, "span", { className: "hint flaw" }), "truncated");
  if (segment.repeated_characters) {
    label(added(button, "span", { className: "hint flaw" }), "repeated", { count: segment.repeated_characters });
  }
  return button;
}

function added(parent, tag, properties) {
  const element = Object.assign(document.createElement(tag), properties);
  parent.append(element);
  return element;
}

function drawn(seconds) {
  timeline = draw($("timeline"), { ...shown, seconds, segments: shown.transcript.segments, onSeek: playFrom });
  follow();
}

function playFrom(time) {
  audio.currentTime = time;
  audio.play().catch(() => {}); // a format that the browser cannot play
}

/** Show where the sound is. */
function follow() {
  const time = audio.currentTime;
  const index = time ? shown.transcript.segments.findLastIndex((segment) => segment.start <= time) : -1;
  timeline?.at(time, index);
  if (index !== playing) {
    buttons.get(playing)?.removeAttribute("aria-current");
    buttons.get(index)?.setAttribute("aria-current", "true");
    playing = index;
  }
  if (!audio.paused) requestAnimationFrame(follow);
}

/** Have the buttons and the sound of the page work. To be called once. */
export function begin() {
  for (const extension of Object.keys(FORMATS)) {
    const button = added($("downloads"), "button", { type: "button", textContent: extension, id: `download-${extension}` });
    button.onclick = () => download(shown.transcript, extension, shown.file.name);
  }
  $("copy").onclick = async () => {
    await copy(shown.transcript.text);
    label($("copy"), "copied");
    setTimeout(() => label($("copy"), "copy"), NOTED);
  };
  audio.onplay = audio.onseeked = follow;
  audio.onerror = () => (audio.hidden = true);
  audio.ondurationchange = () => {
    if (audio.duration === Infinity) audio.currentTime = Number.MAX_SAFE_INTEGER; // of a recording it is found at its end
    else if (audio.duration && !timeline) {
      audio.currentTime = 0;
      drawn(audio.duration);
    }
  };
}
