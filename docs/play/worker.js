// Runs the core: loads a model, and translates samples into one domain after the other.

let core, model, io;
const BLOCK = 800; // Samples that are pushed and pulled at once.
let stopped = 0; // The newest job that was stopped.

function floats() {
  return new Float32Array(core.memory.buffer, io, BLOCK);
}

function text(pointer) {
  const bytes = new Uint8Array(core.memory.buffer, pointer);
  return new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
}

async function load({ program, file }) {
  const imports = {
    env: { emscripten_notify_memory_growth() {} },
    wasi_snapshot_preview1: {
      proc_exit() {
        throw new Error("the program ended: there may be too little memory");
      },
    },
  };
  core = (await WebAssembly.instantiate(program, imports)).instance.exports;
  core._initialize();
  io = core.malloc(4 * BLOCK);
  const bytes = core.malloc(file.byteLength), error = core.malloc(300);
  new Uint8Array(core.memory.buffer).set(new Uint8Array(file), bytes);
  model = core.umt_model_load(bytes, file.byteLength, 1 << 29, error, 300);
  core.free(bytes);
  if (!model) throw new Error(text(error));
  const domains = [];
  for (let k = 0; k < core.umt_model_num_domains(model); ++k) {
    domains.push(text(core.umt_model_domain(model, k)));
  }
  postMessage({
    kind: "loaded",
    domains,
    rate: core.umt_model_sample_rate_hz(model),
    temperature: core.umt_model_temperature(model),
    guideStrength: core.umt_model_guide_strength(model),
  });
}

async function translate({ job, samples, temperature, seed }) {
  const input = core.malloc(4 * samples.length);
  new Float32Array(core.memory.buffer, input, samples.length).set(samples);
  const gain = core.umt_model_gain(model, input, BigInt(samples.length));
  core.free(input);
  for (let domain = 0; domain < core.umt_model_num_domains(model); ++domain) {
    const stream = core.umt_stream_new(model);
    core.umt_stream_set_domain(stream, domain);
    core.umt_stream_set_temperature(stream, temperature);
    core.umt_stream_set_seed(stream, seed);
    const output = new Float32Array(samples.length);
    const started = performance.now();
    let taken = 0, given = 0;
    while (given < samples.length) {
      if (taken < samples.length) {
        const part = samples.subarray(taken, taken + BLOCK);
        floats().set(part.map((sample) => sample * gain));
        taken += Number(core.umt_stream_push(stream, io, BigInt(part.length)));
      } else {
        core.umt_stream_finish(stream);
      }
      const count = Number(core.umt_stream_pull(stream, io, BigInt(BLOCK)));
      output.set(floats().subarray(0, count), given);
      given += count;
      postMessage({ kind: "progress", job, domain, share: given / samples.length });
      await new Promise((resolve) => setTimeout(resolve)); // So that `stop` comes through.
      if (stopped >= job) break;
    }
    core.umt_stream_free(stream);
    if (stopped >= job) return postMessage({ kind: "stopped", job });
    const seconds = (performance.now() - started) / 1000;
    postMessage({ kind: "translated", job, domain, output, seconds }, [output.buffer]);
  }
  postMessage({ kind: "finished", job });
}

onmessage = async ({ data }) => {
  try {
    if (data.kind === "load") await load(data);
    if (data.kind === "translate") await translate(data);
    if (data.kind === "stop") stopped = data.job;
  } catch (error) {
    postMessage({ kind: "error", message: error.message });
  }
};
