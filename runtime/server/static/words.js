// What the page says, in English and Chinese. The reader's choice is kept; until then the browser's language decides.

import { clock } from "./formats.js";

const many = (count, one, more) => `${count} ${count === 1 ? one : more}`;

/** By language, then by name: words, or what makes them of values. */
export const WORDS = {
  en: {
    nothing: "",
    tagline: "Speech to text, on your own server",
    other: "中文",
    input: "Audio",
    drop: "Drop a recording here",
    choose: "or choose a file",
    formats: "wav, mp3, m4a, flac, ogg, opus, webm, mp4",
    record: "Use the microphone",
    recording: "Recording",
    stop: "Transcribe",
    discard: "Discard",
    "recording.name": "Recording",
    language: "Language",
    automatic: "Detect automatically",
    context: "Context",
    optional: "optional",
    "context.hint": "Names and terms that may come up, so that they are spelt right.",
    again: "Transcribe again",
    output: "Transcript",
    cancel: "Cancel",
    empty: "The text appears here, while it is being recognised.",
    copy: "Copy text",
    copied: "Copied",
    download: "Download",
    privacy: "Audio goes to this server and nowhere else.",
    docs: "For programs: the API",
    key: "This server needs a key",
    "key.use": "Use",
    "key.keep": "Keep it until this tab is closed",
    "status.starting": ({ stage }) => `The server is starting: ${stage}`,
    "status.restarting": ({ stage }) => `The server is coming back: ${stage}`,
    "status.draining": "The server is stopping; waiting for it to come back",
    "status.microphone": "Waiting for permission to use the microphone",
    "status.recording": "Recording",
    "status.uncaptioned": "Recording; the text comes when you stop",
    "status.uploading": ({ percent }) => `Uploading, ${percent} %`,
    "status.waiting": "Waiting for the first words",
    "status.transcribing": "Transcribing",
    "status.cancelled": "Cancelled",
    "status.done": ({ segments, seconds }) => `Done: ${clock(seconds)} of audio, ${many(segments, "segment", "segments")}`,
    "status.silent": "Nobody speaks in this recording",
    play: ({ start }) => `Play from ${start}:`,
    truncated: "Cut off: the text was longer than the server's limit for a segment.",
    repeated: ({ count }) => `A repetition was left out here (${many(count, "character", "characters")}).`,
    retry: "Try again",
    "error.audio": "This audio cannot be used",
    "error.large": "This file is too large",
    "error.large.more": ({ size, limit }) => `It has ${size} MiB; this server takes up to ${limit} MiB.`,
    "error.request": "The server refused this",
    "error.key": "The server does not know this key",
    "error.no_key": "The server needs a key",
    "error.busy": "The server is busy, please try again in a moment",
    "error.unready": "The server is not ready",
    "error.slow": "This took too long",
    "error.server": "The server failed",
    "error.page": "This page has an error of its own",
    "error.network": "The server cannot be reached",
    "error.network.more": "Is it running, and is this computer connected to it?",
    "error.lost": "The connection was lost before the text was complete",
    "error.lost.more": "What had arrived until then is shown below.",
    "error.captions": "There is no text while you speak",
    "error.insecure": "The browser gives the microphone to secure pages only",
    "error.insecure.more": ({ port }) =>
      `Open this page over https, or on the server's own address: ssh -L ${port}:127.0.0.1:${port} SERVER, then http://localhost:${port}`,
    "error.forbidden": "The browser may not use the microphone",
    "error.forbidden.more": "Allow it for this page, in the address bar or the browser's settings.",
    "error.missing": "No microphone was found",
    "error.missing.more": "Connect one, or choose a file instead.",
  },
  zh: {
    nothing: "",
    tagline: "语音转文字，就在自己的服务器上",
    other: "English",
    input: "音频",
    drop: "把录音拖到这里",
    choose: "或选择文件",
    formats: "wav、mp3、m4a、flac、ogg、opus、webm、mp4",
    record: "用麦克风录音",
    recording: "正在录音",
    stop: "转写",
    discard: "放弃",
    "recording.name": "录音",
    language: "语言",
    automatic: "自动识别",
    context: "上下文",
    optional: "选填",
    "context.hint": "可能出现的人名和术语，便于正确写出。",
    again: "重新转写",
    output: "转写结果",
    cancel: "取消",
    empty: "识别出的文字会随时显示在这里。",
    copy: "复制文本",
    copied: "已复制",
    download: "下载",
    privacy: "音频只发送到本服务器。",
    docs: "面向程序的接口",
    key: "此服务器需要密钥",
    "key.use": "使用",
    "key.keep": "保留到关闭此标签页",
    "status.starting": ({ stage }) => `服务器正在启动：${stage}`,
    "status.restarting": ({ stage }) => `服务器正在恢复：${stage}`,
    "status.draining": "服务器正在停止，等待其恢复",
    "status.microphone": "等待麦克风权限",
    "status.recording": "正在录音",
    "status.uncaptioned": "正在录音，停止后显示文字",
    "status.uploading": ({ percent }) => `正在上传 ${percent}%`,
    "status.waiting": "等待第一段文字",
    "status.transcribing": "正在转写",
    "status.cancelled": "已取消",
    "status.done": ({ segments, seconds }) => `完成：音频 ${clock(seconds)}，共 ${segments} 段`,
    "status.silent": "录音中没有人说话",
    play: ({ start }) => `从 ${start} 播放：`,
    truncated: "此处被截断：文字超过了服务器对每段的长度限制。",
    repeated: ({ count }) => `此处省略了重复内容（${count} 个字符）。`,
    retry: "重试",
    "error.audio": "无法使用这段音频",
    "error.large": "文件过大",
    "error.large.more": ({ size, limit }) => `文件为 ${size} MiB，本服务器最大接受 ${limit} MiB。`,
    "error.request": "服务器拒绝了此请求",
    "error.key": "服务器不认识此密钥",
    "error.no_key": "服务器需要密钥",
    "error.busy": "服务器繁忙，请稍后重试",
    "error.unready": "服务器尚未就绪",
    "error.slow": "处理超时",
    "error.server": "服务器出错",
    "error.page": "页面自身出错",
    "error.network": "无法连接服务器",
    "error.network.more": "服务器是否在运行？本机与它的网络是否连通？",
    "error.lost": "文字传完之前连接中断",
    "error.lost.more": "下面是中断前已收到的内容。",
    "error.captions": "说话时无法显示文字",
    "error.insecure": "浏览器只允许安全页面使用麦克风",
    "error.insecure.more": ({ port }) =>
      `请用 https 打开本页，或转发端口后在本机打开：ssh -L ${port}:127.0.0.1:${port} 服务器，然后访问 http://localhost:${port}`,
    "error.forbidden": "浏览器未获准使用麦克风",
    "error.forbidden.more": "请在地址栏或浏览器设置中允许本页使用。",
    "error.missing": "没有找到麦克风",
    "error.missing.more": "请连接麦克风，或改为选择文件。",
  },
};
const CHOICE = "page-language";

const preferred = () => (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

/** The language that the page speaks: "en" or "zh". */
export let language = localStorage.getItem(CHOICE) in WORDS ? localStorage.getItem(CHOICE) : preferred();

/** The words for `name`, with `values` in their places. */
export function say(name, values = {}) {
  const words = WORDS[language][name];
  return typeof words === "function" ? words(values) : words;
}

/** Speak the other language from now on. */
export function speakOther() {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem(CHOICE, language);
}

/** Write the words into all elements that name theirs. */
export function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-words]")) {
    element.textContent = say(element.dataset.words, element.values);
  }
}

/** Have an element say `name` with `values`, now and after a change of language. */
export function label(element, name, values = {}) {
  element.dataset.words = name;
  element.values = values;
  element.textContent = say(name, values);
}
