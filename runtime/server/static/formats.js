// A transcript as a file, in the same form as the server's own (runtime/formats/__init__.py).

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const padded = (number, digits) => String(number).padStart(digits, "0");

function time(seconds, point) {
  const milliseconds = Math.round(seconds * 1000);
  const [hours, minutes] = [Math.floor(milliseconds / 3_600_000), Math.floor(milliseconds / 60_000) % 60];
  const rest = milliseconds % 60_000;
  return `${padded(hours, 2)}:${padded(minutes, 2)}:${padded(Math.floor(rest / 1000), 2)}${point}${padded(rest % 1000, 3)}`;
}

function srt(transcript) {
  return transcript.segments
    .map(({ start, end, lines }, index) => `${index + 1}\n${time(start, ",")} --> ${time(end, ",")}\n${lines.join("\n")}\n`)
    .join("\n");
}

function vtt(transcript) {
  const cues = transcript.segments.map(
    ({ start, end, lines }) => `${time(start, ".")} --> ${time(end, ".")}\n${escaped(lines.join("\n"))}\n`,
  );
  return ["WEBVTT\n", ...cues].join("\n");
}

/** By extension: the type of the file, and how a verbose_json transcript is written into it. */
export const FORMATS = {
  txt: { type: "text/plain", write: (transcript) => `${transcript.text}\n` },
  srt: { type: "application/x-subrip", write: srt },
  vtt: { type: "text/vtt", write: vtt },
  json: { type: "application/json", write: (transcript) => `${JSON.stringify(transcript, null, 2)}\n` },
};

/** Seconds as people read them: 0:07, 12:34, 1:02:03. */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return `${hours ? `${hours}:${padded(minutes, 2)}` : minutes}:${padded(whole % 60, 2)}`;
}

/** Have the browser save a transcript. */
export function download(transcript, extension, name) {
  const { type, write } = FORMATS[extension];
  const url = URL.createObjectURL(new Blob([write(transcript)], { type: `${type};charset=utf-8` }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `${name.replace(/\.[^.]*$/, "")}.${extension}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser reads it after the click
}

/** Put text on the clipboard, also where the page is not secure and the browser keeps its newer way from it. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
