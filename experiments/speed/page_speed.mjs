// How fast the page of docs/play translates: its program and model in V8, on one core, by CPU time.
//
//     taskset -c 0 node --single-threaded experiments/speed/page_speed.mjs
//
// prints a line for each round and domain: seconds of sound for each second of CPU time.

import { readFileSync } from "node:fs";

const SECONDS = 6, ROUNDS = 3, BLOCK = 800;
const page = new URL("../../docs/play/", import.meta.url);
const imports = {
  env: { emscripten_notify_memory_growth() {} },
  wasi_snapshot_preview1: {
    proc_exit() {
      throw new Error("the program ended");
    },
  },
};
const { instance } = await WebAssembly.instantiate(readFileSync(new URL("umt.wasm", page)), imports);
const core = instance.exports;
core._initialize();
const file = readFileSync(new URL("model.safetensors", page));
const bytes = core.malloc(file.length), error = core.malloc(300), io = core.malloc(4 * BLOCK);
new Uint8Array(core.memory.buffer).set(file, bytes);
const model = core.umt_model_load(bytes, file.length, 1 << 29, error, 300);
if (!model) throw new Error("the model could not be loaded");
const rate = core.umt_model_sample_rate_hz(model);
// A tone that climbs, with three overtones.
const sound = Float32Array.from({ length: SECONDS * rate }, (_, i) => {
  const phase = 2 * Math.PI * ((220 * i) / rate + 40 * (i / rate) ** 2);
  return 0.3 * [1, 2, 3, 4].reduce((sum, n) => sum + Math.sin(n * phase) / n, 0);
});

for (let round = 0; round < ROUNDS; ++round) {
  for (let domain = 0; domain < core.umt_model_num_domains(model); ++domain) {
    const stream = core.umt_stream_new(model), started = process.cpuUsage();
    core.umt_stream_set_domain(stream, domain);
    for (let taken = 0, given = 0; given < sound.length; ) {
      if (taken < sound.length) {
        const part = sound.subarray(taken, taken + BLOCK);
        new Float32Array(core.memory.buffer, io, BLOCK).set(part);
        taken += Number(core.umt_stream_push(stream, io, BigInt(part.length)));
      } else {
        core.umt_stream_finish(stream);
      }
      given += Number(core.umt_stream_pull(stream, io, BigInt(BLOCK)));
    }
    const { user, system } = process.cpuUsage(started);
    core.umt_stream_free(stream);
    console.log(`round ${round}, domain ${domain}: ${((SECONDS * 1e6) / (user + system)).toFixed(2)}`);
  }
}
