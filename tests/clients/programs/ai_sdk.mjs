// Vercel's AI SDK: node ai_sdk.mjs SERVER KEY FOLDER

import { readFileSync } from 'node:fs';
import { createOpenAI } from '@ai-sdk/openai';
import { experimental_streamTranscribe as streamTranscribe, generateText, streamText, transcribe } from 'ai';
import { report } from './uses.mjs';

const [server, apiKey, folder] = process.argv.slice(2);
globalThis.AI_SDK_LOG_WARNINGS = false;
const openai = createOpenAI({ baseURL: `${server}/v1`, apiKey });
const read = (name) => readFileSync(`${folder}/${name}`);

// What its users read of the result.
async function heard(file, model, options) {
  const { text, language, durationInSeconds, segments } = await transcribe({
    model: openai.transcription(model),
    audio: read(file),
    providerOptions: options && { openai: options },
    maxRetries: 0,
  });
  return { text, language, durationInSeconds, segments };
}

const question = {
  messages: [
    {
      role: 'user',
      content: [
        { type: 'text', text: 'What is said in this recording?' },
        { type: 'file', mediaType: 'audio/wav', data: read('english.wav') },
      ],
    },
  ],
  maxRetries: 0,
};

await report({
  plain: () => heard('english.wav', 'whisper-1'),
  webm: () => heard('browser.webm', 'whisper-1'),
  m4a: () => heard('aac.m4a', 'whisper-1'),
  newer_model: () => heard('english.wav', 'gpt-4o-mini-transcribe', { language: 'en', include: ['logprobs'] }),
  gpt_transcribe: () => heard('english.wav', 'gpt-transcribe', { languages: ['en'], keywords: ['station'] }),
  server_vad: () =>
    heard('english.wav', 'gpt-4o-transcribe', { chunkingStrategy: { type: 'server_vad', silenceDurationMs: 300 } }),
  language: () => heard('chinese.wav', 'whisper-1', { language: 'en' }),
  prompt: () => heard('hotword.wav', 'whisper-1', { prompt: read('hotword.txt').toString() }),
  segments: () => heard('talk.wav', 'whisper-1', { timestampGranularities: ['segment'], temperature: 0 }),
  stream: async () => {
    const audio = new ReadableStream({
      start(controller) {
        const pcm = Buffer.concat([read('turn-1-24000.pcm'), read('turn-2-24000.pcm')]);
        for (let start = 0; start < pcm.length; start += 4800) controller.enqueue(pcm.subarray(start, start + 4800));
        controller.close();
      },
    });
    const { text } = streamTranscribe({
      model: openai.transcription('gpt-realtime-whisper'),
      audio,
      inputAudioFormat: { type: 'audio/pcm', rate: 24000 },
      providerOptions: { openai: { language: 'en', streaming: { delay: 'low' } } },
    });
    return text;
  },
  chat: async () => (await generateText({ model: openai.chat('qwen3-asr'), ...question })).text,
  chat_stream: async () => {
    let failure;
    const onError = ({ error }) => {
      failure = error;
    };
    const { textStream, usage } = streamText({ model: openai.chat('whisper-1'), ...question, onError });
    const deltas = [];
    for await (const delta of textStream) deltas.push(delta);
    if (failure) throw failure;
    return { deltas, usage: await usage };
  },
});
