// In the audio thread: sound as 16-bit samples, in pieces of 100 ms.

class Pcm extends AudioWorkletProcessor {
  #piece = new Int16Array(Math.round(sampleRate / 10));
  #filled = 0;

  process([[samples]]) {
    for (const sample of samples ?? []) {
      this.#piece[this.#filled++] = Math.max(-1, Math.min(1, sample)) * 32767;
      if (this.#filled === this.#piece.length) {
        this.port.postMessage(this.#piece.slice());
        this.#filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("pcm", Pcm);
