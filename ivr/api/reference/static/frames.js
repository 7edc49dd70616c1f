registerProcessor("frames", class extends AudioWorkletProcessor {
  process([[samples]]) {
    if (samples) this.port.postMessage(Int16Array.from(samples, (s) => Math.max(-1, Math.min(1, s)) * 32767).buffer);
    return true;
  }
});
