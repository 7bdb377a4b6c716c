// The recording from left to right: its waveform, its segments, and where it is being played.

import { clock } from "./formats.js";

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600]; // seconds between ticks
const MOST_TICKS = 9;
const BARS = 300;
const DRAWN = 64 * 2 ** 20; // bytes: of larger files, decoding only for the picture takes too much memory
const RATE = 8000; // Hz

const SVG = "http://www.w3.org/2000/svg";

/** Draw a timeline of `seconds` into `box`. A click in it calls `onSeek` with the second that was meant. */
export function draw(box, { file, seconds, segments, onSeek }) {
  const percent = (time) => `${(100 * time) / seconds}%`;
  const place = (element, time) => {
    element.style.left = percent(time);
    return element;
  };
  const bands = segments.map(({ start, end, text }) => {
    const band = place(made("band"), start);
    band.style.width = percent(end - start);
    band.title = text;
    return band;
  });
  const step = STEPS.find((each) => seconds / each <= MOST_TICKS) ?? seconds;
  const ticks = Array.from({ length: Math.ceil(seconds / step) }, (_, index) =>
    place(made("tick", clock(index * step)), index * step),
  );
  const wave = document.createElementNS(SVG, "svg");
  const head = made("head");
  box.replaceChildren(...bands, wave, ...ticks, head);
  box.onclick = (event) => {
    const { left, width } = box.getBoundingClientRect();
    onSeek(((event.clientX - left) / width) * seconds);
  };
  drawWave(wave, file);
  return {
    /** Show what is played: a second, and the index of its segment. */
    at(time, index) {
      place(head, Math.min(time, seconds));
      for (const [number, band] of bands.entries()) band.classList.toggle("now", number === index);
    },
  };
}

function made(name, text = "") {
  const element = document.createElement("div");
  element.className = name;
  element.textContent = text;
  return element;
}

/** Fill in the waveform, if the browser can read the file too. */
async function drawWave(wave, file) {
  if (file.size > DRAWN) return;
  let sound;
  try {
    sound = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await file.arrayBuffer());
  } catch {
    return;
  }
  const samples = sound.getChannelData(0);
  const each = samples.length / BARS;
  const peaks = Array.from({ length: BARS }, (_, index) => {
    let peak = 0;
    for (let at = Math.floor(index * each); at < Math.floor((index + 1) * each); at++) {
      peak = Math.max(peak, Math.abs(samples[at]));
    }
    return peak;
  });
  const loudest = Math.max(...peaks, 1e-4);
  const bars = peaks.map((peak, index) => {
    const height = Math.max((peak / loudest) * 96, 2);
    return `M${index * 4 + 0.75} ${50 - height / 2}h2.5v${height}h-2.5z`;
  });
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", bars.join(""));
  wave.setAttribute("viewBox", `0 0 ${BARS * 4} 100`);
  wave.setAttribute("preserveAspectRatio", "none");
  wave.replaceChildren(path);
}
