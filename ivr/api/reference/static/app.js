// The key stays on the merchant's server: the page gets what to ask with, and where to send what was said.
const show = (id, text) => { document.getElementById(id).textContent = text; };

document.getElementById("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const what = event.submitter.value;
  const answer = await fetch("/" + what, { method: "POST", body: new FormData(event.target) });
  const asked = await answer.json();
  if (!answer.ok) return show("result", asked.error);
  if (what === "purchase") return location.assign(asked.page_url);
  let stream = asked.stream_url;
  show("prompt", asked.prompt.text);
  show("result", "");
  while (stream) {
    const said = await listen(stream);
    stream = said.stream_url; // again, until it is decided
    show(stream ? "prompt" : "result", said.say || said.detail);
  }
});

// Microphone to websocket, 16-bit samples at 8 kHz; the service says when it has heard enough.
async function listen(url) {
  const microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
  const audio = new AudioContext({ sampleRate: 8000 });
  await audio.audioWorklet.addModule("/static/frames.js");
  const frames = new AudioWorkletNode(audio, "frames");
  const socket = new WebSocket(url);
  const said = new Promise((resolve) => {
    socket.onmessage = (message) => resolve(JSON.parse(message.data));
    socket.onclose = () => resolve({ say: "The line broke. Nothing was paid." });
  });
  frames.port.onmessage = (frame) => socket.readyState === WebSocket.OPEN && socket.send(frame.data);
  socket.onopen = () => audio.createMediaStreamSource(microphone).connect(frames);
  const answer = await said;
  microphone.getTracks().forEach((track) => track.stop());
  await audio.close();
  return answer;
}
