// The page: from a file or the microphone to its transcript, and all that may come between.

import { Failure, info, languagesKnown, ready, transcribe, useKey } from "./api.js";
import { follow } from "./captions.js";
import { clock } from "./formats.js";
import { complain, fail, status } from "./notices.js";
import { record } from "./recorder.js";
import * as transcript from "./transcript.js";
import { language, say, speakOther, translate } from "./words.js";

const $ = (id) => document.getElementById(id);
const MIB = 2 ** 20;

let languages = []; // { code, en, zh }
let server; // what /v1/info says, once it is known
let source; // the file at hand, and its name
let work; // AbortController of what is going on
let recording; // the one that goes on, and what ends its captions

/** Wait for the server and learn what it is. */
async function meet(signal) {
  if (!languages.length) languages = await languagesKnown();
  listLanguages();
  await ready({ signal, onStage: ({ status: name, stage }) => status(name, { stage, progress: null }) });
  server ??= await info();
  $("key-form").hidden = true;
  $("server").textContent = `${server.model.names[0]} · ${server.device.name}`;
  $("server").title = server.device.description;
  $("server").hidden = false;
  listLanguages();
}

function listLanguages() {
  const chosen = $("language").value;
  const known = languages.filter(({ en }) => !server || server.model.languages.includes(en));
  const options = known.map(({ code, ...names }) => new Option(names[language], code));
  $("language").replaceChildren(new Option(say("automatic"), ""), ...options);
  $("language").value = chosen;
}

/** Do something that can be cancelled, in place of what went on before. */
async function busy(does) {
  work?.abort();
  const own = (work = new AbortController());
  $("error").hidden = true;
  $("again").hidden = true;
  $("cancel").hidden = false;
  try {
    await does(own.signal);
  } catch (error) {
    if (own === work && error.name === "AbortError") status("cancelled");
    else if (own === work) fail(error, { retry: source && submit });
  } finally {
    if (own === work) {
      $("again").hidden = !source;
      if (document.activeElement === $("cancel")) (source ? $("again") : $("file")).focus();
      $("cancel").hidden = true;
      if (!recording) $("live").setAttribute("aria-busy", "false");
      $("live").classList.toggle("over", !recording);
      work = undefined;
    }
  }
}

const options = () => ({ language: $("language").value, context: $("context").value.trim() });

/** Show text that grows. Screen readers hear it once it stops growing, not token by token. */
function write(text) {
  $("live").setAttribute("aria-busy", "true");
  $("live").classList.remove("over");
  $("live").textContent = text;
  $("live").hidden = !text;
  $("empty").hidden = text || source;
}

/** Transcribe the file at hand. */
const submit = () =>
  busy(async (signal) => {
    const { file, name } = source;
    write("");
    transcript.open(file, { name });
    status("uploading", { percent: 0, progress: 0 });
    await meet(signal);
    const limit = server.limits.upload_bytes;
    if (file.size > limit) {
      throw new Failure("large", { values: { size: Math.ceil(file.size / MIB), limit: Math.floor(limit / MIB) } });
    }
    const heard = await transcribe(file, {
      name: file.name,
      ...options(),
      signal,
      onUpload(part) {
        if (part < 1) status("uploading", { percent: Math.floor(100 * part), progress: part });
        else status("waiting", { progress: null });
      },
      onText(text) {
        if ($("live").hidden) status("transcribing", { progress: null });
        $("live").append(text);
        $("live").hidden = false;
      },
    });
    $("live").hidden = true;
    transcript.show(heard, { codeOf: (english) => languages.find(({ en }) => en.toLowerCase() === english)?.code });
    const segments = heard.segments.length;
    status(segments ? "done" : "silent", { segments, seconds: heard.duration });
  });

async function take(file, name = file.name) {
  if (recording) await discardRecording();
  source = { file, name };
  await submit();
}

function showRecording(on) {
  $("recording").hidden = !on;
  $("record").hidden = on;
  $(on ? "stop" : "record").focus();
}

async function startRecording() {
  await busy(async (signal) => {
    status("microphone");
    const begun = await record({
      onSound({ level, seconds }) {
        $("level").style.transform = `scaleX(${level})`;
        $("elapsed").textContent = clock(seconds);
      },
    });
    if (signal.aborted) {
      await begun.discard();
      signal.throwIfAborted();
    }
    source = undefined;
    transcript.close();
    write("");
    status("recording");
    const endCaptions = follow(begun.stream, {
      ...options(),
      onText: write,
      onFailure(reason) {
        status("uncaptioned");
        if (reason) complain(new Failure("captions", { detail: reason }));
      },
    });
    recording = { begun, endCaptions };
    showRecording(true);
  });
}

/** End the recording at hand, in one of its ways: what that gives. */
async function ended(way) {
  const { begun, endCaptions } = recording;
  recording = undefined;
  showRecording(false);
  const file = await begun[way]();
  await endCaptions();
  return file;
}

async function stopRecording() {
  await take(await ended("stop"), say("recording.name"));
}

async function discardRecording() {
  await ended("discard");
  write("");
  status("cancelled");
}

function acceptDrops() {
  const over = (on) => (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", on);
  };
  addEventListener("dragover", over(true));
  addEventListener("dragleave", over(false));
  addEventListener("drop", (event) => {
    over(false)(event);
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
}

function speak() {
  translate();
  $("switch").textContent = say("other");
  $("switch").lang = language === "en" ? "zh-CN" : "en";
  listLanguages();
}

$("switch").onclick = () => {
  speakOther();
  speak();
};
$("file").onchange = () => {
  const [file] = $("file").files;
  if (file) take(file);
  $("file").value = ""; // so that the same file can be chosen again
};
$("record").onclick = startRecording;
$("stop").onclick = stopRecording;
$("discard").onclick = discardRecording;
$("again").onclick = submit;
$("cancel").onclick = () => work?.abort();
$("key-form").onsubmit = (event) => {
  event.preventDefault();
  useKey($("key").value.trim(), { keep: $("keep-key").checked });
  $("key").value = "";
  server = undefined;
  if (source) submit();
  else busy(enter);
};

async function enter(signal) {
  await meet(signal);
  status(null);
}

acceptDrops();
transcript.begin();
speak();
await busy(enter);
