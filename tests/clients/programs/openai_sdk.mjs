// OpenAI's SDK for Node: node openai_sdk.mjs SERVER KEY FOLDER HTTPS_SERVER

import { createReadStream, readFileSync } from 'node:fs';
import OpenAI from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import { WebSocket } from 'ws';
import { report } from './uses.mjs';

const [server, apiKey, folder, secure] = process.argv.slice(2);
const TRANSCRIPTION = 'conversation.item.input_audio_transcription';
// Of OpenAI's guide to realtime transcription.
const SESSION = {
  type: 'transcription',
  audio: {
    input: {
      format: { type: 'audio/pcm', rate: 24000 },
      noise_reduction: { type: 'near_field' },
      transcription: { model: 'gpt-4o-transcribe', prompt: '', language: 'en' },
      turn_detection: { type: 'server_vad', threshold: 0.5, prefix_padding_ms: 300, silence_duration_ms: 500 },
    },
  },
  include: ['item.input_audio_transcription.logprobs'],
};

const client = new OpenAI({ baseURL: `${server}/v1`, apiKey, maxRetries: 0 });
const create = (name, options) =>
  client.audio.transcriptions.create({
    file: createReadStream(`${folder}/${name}`),
    model: 'whisper-1',
    ...options,
  });

async function all(stream) {
  const events = [];
  for await (const event of await stream) events.push(event);
  return events;
}

const input_audio = { data: readFileSync(`${folder}/english.wav`).toString('base64'), format: 'wav' };

function* appends() {
  const pcm = Buffer.concat([1, 2].map((number) => readFileSync(`${folder}/turn-${number}-24000.pcm`)));
  for (let start = 0; start < pcm.length; start += 4800) {
    yield { type: 'input_audio_buffer.append', audio: pcm.subarray(start, start + 4800).toString('base64') };
  }
}

// Two turns of a session, once they are told; `listen` hands over its events and errors.
function twoTurns(listen) {
  return new Promise((resolve, reject) => {
    const deltas = {};
    const turns = [];
    listen((event) => {
      if (event.type === 'error') {
        reject(new Error(event.error.message));
      } else if (event.type === `${TRANSCRIPTION}.delta`) {
        deltas[event.item_id] = (deltas[event.item_id] ?? '') + event.delta;
      } else if (event.type === `${TRANSCRIPTION}.completed`) {
        turns.push({ transcript: event.transcript, deltas: deltas[event.item_id] });
        if (turns.length === 2) resolve(turns);
      }
    }, reject);
  });
}

async function failed(promise) {
  const error = await promise.then(
    () => ({ message: 'it did not fail' }),
    (raised) => raised,
  );
  return { type: error.constructor.name, status: error.status, param: error.param, message: error.message };
}

await report({
  json: () => create('english.wav'),
  newer_model: () => create('english.wav', { model: 'gpt-4o-mini-transcribe', response_format: 'json' }),
  webm: () => create('browser.webm'),
  m4a: () => create('aac.m4a'),
  // What OpenAI's reference lists for a file and is a hint, or means nothing here.
  every_field: () =>
    create('english.wav', {
      model: 'gpt-4o-transcribe',
      chunking_strategy: { type: 'server_vad', threshold: 0.5, prefix_padding_ms: 300, silence_duration_ms: 200 },
      include: ['logprobs'],
      language: 'en',
      prompt: '',
      response_format: 'json',
      temperature: 0.7,
      timestamp_granularities: ['segment'],
    }),
  language: () => create('chinese.wav', { language: 'en' }),
  prompt: () => create('hotword.wav', { prompt: readFileSync(`${folder}/hotword.txt`, 'utf8') }),
  verbose_json: () =>
    create('talk.wav', { response_format: 'verbose_json', timestamp_granularities: ['segment'], temperature: 0.2 }),
  verbose_json_in_a_language: () => create('chinese.wav', { response_format: 'verbose_json', language: 'en' }),
  text: () => create('english.wav', { response_format: 'text' }),
  srt: () => create('english.wav', { response_format: 'srt' }),
  vtt: () => create('english.wav', { response_format: 'vtt' }),
  stream: () => all(create('talk.wav', { model: 'gpt-4o-mini-transcribe', response_format: 'json', stream: true })),
  verbose_stream: () =>
    all(
      create('talk.wav', {
        response_format: 'verbose_json',
        chunking_strategy: 'auto',
        include: ['logprobs'],
        stream: true,
      }),
    ),
  chat: () =>
    client.chat.completions.create({
      model: 'qwen3-asr',
      modalities: ['text'],
      store: false,
      messages: [
        { role: 'system', content: '' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'What is said in this recording?' },
            { type: 'input_audio', input_audio },
          ],
        },
      ],
    }),
  chat_stream: () =>
    all(
      client.chat.completions.create({
        model: 'whisper-1',
        messages: [{ role: 'user', content: [{ type: 'input_audio', input_audio }] }],
        max_completion_tokens: 256,
        stream: true,
        stream_options: { include_usage: true },
      }),
    ),
  models: () => all(client.models.list()),
  realtime: async () => {
    const socket = new WebSocket(`${server.replace('http', 'ws')}/v1/realtime?intent=transcription`, {
      headers: { Authorization: `Bearer ${apiKey}` },
    });
    const turns = twoTurns((take, fail) => {
      socket.on('message', (message) => take(JSON.parse(message)));
      socket.on('error', fail);
    });
    socket.on('open', () => {
      socket.send(JSON.stringify({ type: 'session.update', session: SESSION }));
      for (const event of appends()) socket.send(JSON.stringify(event));
    });
    return turns.finally(() => socket.close());
  },
  // The SDK's own class speaks wss alone, whatever the base URL says.
  realtime_of_the_sdk: async () => {
    const own = new OpenAI({ baseURL: `${secure}/v1`, apiKey });
    const realtime = new OpenAIRealtimeWS({ intent: 'transcription' }, own);
    const turns = twoTurns((take, fail) => {
      realtime.on('event', take);
      realtime.on('error', fail);
    });
    realtime.socket.on('open', () => {
      realtime.send({ type: 'session.update', session: SESSION });
      for (const event of appends()) realtime.send(event);
    });
    return turns.finally(() => realtime.close());
  },
  refused: () => failed(create('english.wav', { response_format: 'diarized_json' })),
  wrong_key: () => failed(new OpenAI({ baseURL: `${server}/v1`, apiKey: 'sk-wrong' }).models.retrieve('demo')),
});
