// The page: takes a sound, has the worker translate it, and plays what comes.

const MOST_SECONDS = 300, MOST_BYTES = 200e6, SILENCE_PEAK = 1e-3;
const EXAMPLES = [
  ["Whistle", "Stephen Foster, Jeanie With The Light Brown Hair: score in the public domain; a computed whistle"],
  ["Fiddle", "Vicente Lusitano, Allor che ignuda: score in the public domain, encoded by M. S. A. Cuthbert (CC0)"],
  ["Piano", "J. Rosamond Johnson, Lift Every Voice and Sing: score in the public domain, encoded by M. S. A. Cuthbert (CC0)"],
  ["Flute", "Stephen Foster, Jeanie With The Light Brown Hair: score in the public domain"],
];
// The smallest module with one instruction of SIMD, i8x16.splat.
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11,
]);

const $ = (id) => document.getElementById(id);
let worker, model, recorder;
let job = 0, stopped = 0; // The newest sound that was taken, and the newest that was stopped.

function say(sentence, isError = false) {
  $("status").textContent = sentence;
  $("status").className = isError ? "error" : "";
}

function ready(isReady) {
  for (const control of document.querySelectorAll("#sources button, #file")) control.disabled = !isReady;
  $("stop").hidden = isReady;
}

async function fetched(name, what) {
  let answer;
  try {
    answer = await fetch(name);
  } catch {
    answer = { ok: false, status: "no answer" };
  }
  if (!answer.ok) throw new Error(`${what} is missing: ${name} beside this page (${answer.status}). Copy it there and reload.`);
  return answer.arrayBuffer();
}

async function start() {
  if (location.protocol === "file:") {
    throw new Error("A browser lets no page read files beside it from a disk. In this folder run python3 -m http.server, and open http://localhost:8000.");
  }
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(SIMD)) {
    throw new Error("This browser has no WebAssembly with SIMD. Firefox from 89, Chrome from 91 and Safari from 16.4 have.");
  }
  const [program, file] = await Promise.all([
    fetched("umt.wasm", "The program"),
    fetched("model.safetensors", "The model"),
  ]);
  worker = new Worker("worker.js");
  worker.onmessage = ({ data }) => heard(data);
  worker.onerror = (event) => say(`The program failed: ${event.message}`, true);
  worker.postMessage({ kind: "load", program, file });
}

function heard(data) {
  if (data.kind === "loaded") {
    model = data;
    $("temperature").value = data.temperature;
    $("sampling").hidden = data.guideStrength >= 10; // Guides are heard alone: nothing is random.
    say("Drop a sound anywhere, choose a file, record, or take an example.");
    ready(true);
  }
  if (data.kind === "error") {
    ready(Boolean(model));
    say(model ? `The program failed: ${data.message}` : `The model cannot be played. ${data.message}`, true);
  }
  if (data.job !== job) return;
  if (data.kind === "progress") {
    $("progress").value = (data.domain + data.share) / model.domains.length;
    say(`Playing it as ${model.domains[data.domain]}: ${Math.floor(100 * data.share)} %`);
  }
  if (data.kind === "translated") {
    const times = data.output.length / model.rate / data.seconds;
    const name = model.domains[data.domain];
    player(name, `As ${name}`, data.output, `${times.toFixed(1)} times real time`);
  }
  if (data.kind === "stopped") done("Stopped.");
  if (data.kind === "finished") done("Done.");
}

function done(sentence) {
  $("progress").hidden = true;
  say(sentence);
  ready(true);
}

function wav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const write = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt()));
  write(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  write(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  write(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, i) => {
    view.setInt16(44 + 2 * i, Math.round(32767 * Math.max(-1, Math.min(1, sample))), true);
  });
  return URL.createObjectURL(new Blob([view], { type: "audio/wav" }));
}

function player(id, title, samples, note) {
  const card = $("card").content.cloneNode(true).firstElementChild;
  const url = wav(samples, model.rate);
  card.dataset.sound = id;
  card.querySelector("h2").textContent = title;
  card.querySelector("small").textContent = note;
  card.querySelector("audio").src = url;
  const link = card.querySelector("a");
  link.href = url;
  link.download = `${id}.wav`;
  $("sounds").append(card);
}

function tooLong(seconds) {
  if (Number.isFinite(seconds) && seconds > MOST_SECONDS) {
    throw new Error(`This sound lasts ${Math.round(seconds / 60)} minutes; the page takes ${MOST_SECONDS / 60}. python -m umt_jax.infer translates any length.`);
  }
}

// What the file's header says, without reading it: an hour would fill the memory.
function duration(blob) {
  return new Promise((resolve) => {
    const probe = new Audio();
    const url = URL.createObjectURL(blob);
    const finish = (seconds) => {
      URL.revokeObjectURL(url);
      resolve(seconds);
    };
    probe.onloadedmetadata = () => finish(probe.duration);
    probe.onerror = () => finish(NaN);
    probe.src = url;
  });
}

// Takes a sound, which may still have to be fetched; Stop works from here on.
async function open(source, name) {
  if (!model) return;
  ready(false);
  ++job;
  try {
    const blob = await source;
    if (blob.size > MOST_BYTES) throw new Error(`This file has ${Math.round(blob.size / 1e6)} MB; the page takes ${MOST_BYTES / 1e6}.`);
    tooLong(await duration(blob));
    let sound;
    try {
      // The browser's own resampler brings it to the model's rate.
      sound = await new OfflineAudioContext(1, 1, model.rate).decodeAudioData(await blob.arrayBuffer());
    } catch {
      throw new Error(`${name} is no sound that this browser reads.`);
    }
    tooLong(sound.duration);
    const samples = new Float32Array(sound.length);
    for (let channel = 0; channel < sound.numberOfChannels; ++channel) {
      sound.getChannelData(channel).forEach((sample, i) => (samples[i] += sample / sound.numberOfChannels));
    }
    if (!samples.some((sample) => Math.abs(sample) >= SILENCE_PEAK)) throw new Error(`${name} is silent: there is nothing to play.`);
    if (stopped === job) return done("Stopped.");
    begin(samples, name);
  } catch (error) {
    ready(true);
    say(error.message, true);
  }
}

function begin(samples, name) {
  for (const old of document.querySelectorAll("[data-sound] a")) URL.revokeObjectURL(old.href);
  $("sounds").replaceChildren();
  player("source", name, samples, `${(samples.length / model.rate).toFixed(1)} s`);
  const temperature = Math.min(2, Math.max(0, Number($("temperature").value) || 0));
  $("progress").hidden = false;
  $("progress").value = 0;
  worker.postMessage({ kind: "translate", job, samples, temperature, seed: 0 });
}

async function record() {
  if (recorder) return recorder.stop();
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false } });
  } catch {
    return say("This page may not use the microphone, or there is none. Allow it in the browser, or choose a file.", true);
  }
  const parts = [];
  try {
    recorder = new MediaRecorder(stream);
  } catch {
    for (const track of stream.getTracks()) track.stop();
    return say("This browser cannot record. Choose a file.", true);
  }
  recorder.ondataavailable = ({ data }) => parts.push(data);
  recorder.onstop = () => {
    for (const track of stream.getTracks()) track.stop();
    recorder = undefined;
    $("record").textContent = "Record";
    open(new Blob(parts), "Your recording");
  };
  recorder.start();
  ready(false);
  $("record").disabled = false;
  $("stop").hidden = true;
  setTimeout(() => recorder?.stop(), 30000);
  $("record").textContent = "Stop recording";
  say("Recording, for half a minute at most.");
}

for (const [title, source] of EXAMPLES) {
  const button = document.createElement("button");
  button.textContent = title;
  button.title = source;
  button.onclick = () => open(fetched(`${title}.ogg`, "The example").then((bytes) => new Blob([bytes])), title);
  $("examples").append(button);
  const entry = document.createElement("li");
  entry.textContent = `${title}: ${source}.`;
  $("licences").append(entry);
}
$("file").onchange = ({ target }) => {
  if (target.files[0]) open(target.files[0], target.files[0].name);
  target.value = "";
};
$("record").onclick = record;
$("stop").onclick = () => {
  stopped = job;
  worker.postMessage({ kind: "stop", job });
};
document.ondragover = (event) => event.preventDefault();
document.ondrop = (event) => {
  event.preventDefault();
  const file = event.dataTransfer.files[0];
  if (file && !$("file").disabled) open(file, file.name);
};
ready(false);
$("stop").hidden = true;
start().catch((error) => say(error.message, true));
