// Generates one latent frame of K decoders on a CPU: `native_engine.py` packs the weights, builds
// this file and calls it through XLA's foreign function interface.
//
// Every matrix is cut into panels of kPanel columns, each stored row by row, so that weights are
// read once, in order. `native_engine.py` lays them out; the order is that of `Decoder` below.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// Floats of one register, registers of one row of a panel, rows of one register block.
#if defined(__AVX512F__)
constexpr int kWidth = 16, kRegisters = 4, kMaxRows = 6;
#elif defined(__AVX2__)
constexpr int kWidth = 8, kRegisters = 2, kMaxRows = 5;
#else
constexpr int kWidth = 4, kRegisters = 4, kMaxRows = 4;
#endif
constexpr int kPanel = kWidth * kRegisters;
constexpr int kLevels = 256;
constexpr int kMaxSteps = 64;  // So much of a panel, and of what it is multiplied with, stays in L1.

typedef float Vector __attribute__((vector_size(4 * kWidth)));
typedef int32_t Words __attribute__((vector_size(4 * kWidth)));

inline Vector Load(const float* source) {
  Vector vector;
  std::memcpy(&vector, source, sizeof vector);
  return vector;
}

inline void Store(float* target, Vector vector) { std::memcpy(target, &vector, sizeof vector); }

inline Vector Fill(float value) { return value - Vector{}; }

// One row of a panel, in registers.
inline void LoadRow(const float* source, Vector* row) {
  for (int r = 0; r < kRegisters; ++r) row[r] = Load(source + r * kWidth);
}

// Each 32-bit word holds one bfloat16 of two registers.
inline void LoadRow(const uint16_t* source, Vector* row) {
  for (int r = 0; r < kRegisters; r += 2) {
    Words words;
    std::memcpy(&words, source + r * kWidth, sizeof words);
    row[r] = (Vector)(words << 16);
    row[r + 1] = (Vector)(words & (int32_t)0xffff0000);
  }
}

// Asks for numbers before they are needed.
template <typename Number>
inline void Prefetch(const Number* numbers, int count) {
  for (int byte = 0; byte < count * (int)sizeof(Number); byte += 64) {
    __builtin_prefetch(reinterpret_cast<const char*>(numbers) + byte, 0, 2);
  }
}

// out[rows][kPanel] += in[rows][depth] * panel[depth][kPanel].
template <int kRows, typename Weight>
void AddPanel(const float* in, int64_t in_stride, int depth, const Weight* panel, float* out,
              int64_t out_stride, bool is_first) {
  // A single row would wait for its own sums: even and odd steps are summed apart.
  constexpr int kChains = kRows <= 2 ? 2 : 1;
  Vector sums[kChains][kRows][kRegisters] = {};
  for (int m = 0; m < kRows; ++m) LoadRow(out + m * out_stride, sums[0][m]);
  int step = 0;
  for (; step + kChains <= depth; step += kChains) {
    for (int chain = 0; chain < kChains; ++chain) {
      Vector row[kRegisters];
      LoadRow(panel + (step + chain) * kPanel, row);
      if (kRows > 2 && is_first) Prefetch(panel + (depth + step + chain) * kPanel, kPanel);
      for (int m = 0; m < kRows; ++m) {
        const Vector value = Fill(in[m * in_stride + step + chain]);
        for (int r = 0; r < kRegisters; ++r) sums[chain][m][r] += value * row[r];
      }
    }
  }
  for (; step < depth; ++step) {
    Vector row[kRegisters];
    LoadRow(panel + step * kPanel, row);
    for (int m = 0; m < kRows; ++m) {
      const Vector value = Fill(in[m * in_stride + step]);
      for (int r = 0; r < kRegisters; ++r) sums[0][m][r] += value * row[r];
    }
  }
  for (int m = 0; m < kRows; ++m) {
    for (int r = 0; r < kRegisters; ++r) {
      Vector sum = sums[0][m][r];
      if (kChains == 2) sum += sums[kChains - 1][m][r];
      Store(out + m * out_stride + r * kWidth, sum);
    }
  }
}

// A matrix [depth, panels * kPanel] in panels.
template <typename Weight>
struct Matrix {
  const Weight* data;
  int depth, panels;

  // out[rows] += in[rows] * this.
  void Add(const float* in, int64_t in_stride, int64_t rows, float* out, int64_t out_stride) const {
    const int64_t blocks = (rows + kMaxRows - 1) / kMaxRows;
    const int max_steps = rows > kMaxRows ? kMaxSteps : depth;
    const int chunks = (depth + max_steps - 1) / max_steps;
    for (int i = 0; i < panels * chunks; ++i) {
      const int p = i / chunks, first = i % chunks * max_steps;
      const Weight* panel = data + ((int64_t)p * depth + first) * kPanel;
      const int steps = std::min(max_steps, depth - first);
      for (int64_t block = 0; block < blocks; ++block) {
        const int64_t begin = rows * block / blocks, end = rows * (block + 1) / blocks;
        const float* from = in + begin * in_stride + first;
        float* to = out + begin * out_stride + p * kPanel;
        switch (end - begin) {
          case 1: AddPanel<1>(from, in_stride, steps, panel, to, out_stride, rows > kMaxRows && block == 0); break;
          case 2: AddPanel<2>(from, in_stride, steps, panel, to, out_stride, rows > kMaxRows && block == 0); break;
          case 3: AddPanel<3>(from, in_stride, steps, panel, to, out_stride, rows > kMaxRows && block == 0); break;
          case 4: AddPanel<4>(from, in_stride, steps, panel, to, out_stride, rows > kMaxRows && block == 0); break;
          case 5: AddPanel<5>(from, in_stride, steps, panel, to, out_stride, rows > kMaxRows && block == 0); break;
          default: AddPanel<6>(from, in_stride, steps, panel, to, out_stride, rows > kMaxRows && block == 0); break;
        }
      }
    }
  }
};

inline Vector Exp(Vector x) {
  const Vector magic = Fill(12582912.f);  // 1.5 * 2^23: adding it rounds to whole numbers.
  const Vector shifted = x * 1.44269504f + magic;
  const Vector whole = shifted - magic;
  const Vector r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  Vector y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.f;
  return (Vector)((Words)y + (((Words)shifted - (Words)magic) << 23));
}

inline Vector Clamp(Vector x, float limit) {
  x = x > Fill(limit) ? Fill(limit) : x;
  return x < Fill(-limit) ? Fill(-limit) : x;
}

// sigmoid(a) * tanh(b). Beyond the limits both are 0 or 1 in float32.
inline Vector Gate(Vector a, Vector b) {
  const Vector ea = Exp(-Clamp(a, 30.f)), eb = Exp(2.f * Clamp(b, 10.f));
  return (eb - 1.f) / ((eb + 1.f) * (1.f + ea));
}

struct Sizes {
  int domains, streams, samples, rows;        // K, B, T and the rows of the ring buffers.
  int blocks, layers, channels, skips, block_samples;

  int NumLayers() const { return blocks * layers; }
  int Dilation(int layer) const { return 1 << (layer % layers); }
};

inline int Panels(int columns) { return (columns + kPanel - 1) / kPanel; }

// One decoder's matrices and biases, in the order in which they are packed.
template <typename Weight>
struct Decoder {
  struct Layer {
    Matrix<Weight> past, present, out;  // `out` gives residual and skip beside each other.
    const float* bias;                  // Of the residual.
  };
  Matrix<Weight> skip, head, logits;
  std::vector<Layer> layers;
  const float *first, *sums_bias, *logits_bias;

  Decoder(const Weight* weights, const float* biases, const Sizes& sizes) {
    const int c = sizes.channels;
    const int gate_panels = Panels(2 * (kPanel / 2) * ((c + kPanel / 2 - 1) / (kPanel / 2)));
    const int sum_panels = Panels(c + sizes.skips);
    auto take = [&](int depth, int panels) {
      Matrix<Weight> matrix{weights, depth, panels};
      weights += (int64_t)depth * panels * kPanel;
      return matrix;
    };
    auto take_bias = [&](int count) {
      const float* bias = biases;
      biases += count;
      return bias;
    };
    first = take_bias(3 * c);  // Two taps and the bias.
    sums_bias = take_bias(sum_panels * kPanel);
    skip = take(c, sum_panels);
    for (int layer = 0; layer < sizes.NumLayers(); ++layer) {
      layers.push_back({take(c, gate_panels), take(c, gate_panels), take(c, sum_panels),
                        take_bias(sum_panels * kPanel)});
    }
    head = take(sizes.skips, Panels(sizes.skips));
    logits = take(sizes.skips, Panels(kLevels));
    logits_bias = take_bias(kLevels);
  }
};

// What one thread works on: streams [begin, end) of one decoder.
template <typename Weight>
struct Work {
  Sizes sizes;
  Decoder<Weight> decoder;
  int domain, begin, end;
  const float *gates, *head;  // [B, L, 2 C in panels], [B, S in panels].
  const float* noise;         // [T, K, B, Q].
  float *rows, *inputs;       // [rows, B, C], [B, 2].
  int clock;
  uint8_t* codes;             // [T, K, B].

  void Run() {
    const int streams = end - begin, c = sizes.channels, num_layers = sizes.NumLayers();
    const int gate = decoder.layers[0].past.panels * kPanel;
    const int sum = decoder.skip.panels * kPanel, skips = decoder.head.panels * kPanel;
    const int block = sizes.block_samples;
    int num_far = 0;
    for (int layer = 0; layer < num_layers; ++layer) num_far += IsFar(layer);
    std::vector<float> far((size_t)num_far * block * streams * gate), h((size_t)streams * gate);
    std::vector<float> gated((size_t)streams * gate / 2), sums((size_t)streams * sum);
    std::vector<float> y((size_t)streams * std::max(skips, kLevels)), z((size_t)streams * skips);
    std::vector<int64_t> first_rows;
    for (int64_t layer = 0, row = 0; layer < num_layers; row += sizes.Dilation(layer++)) {
      first_rows.push_back(row);
    }
    auto row = [&](int layer, int time) {
      const int64_t position = first_rows[layer] + time % sizes.Dilation(layer);
      return rows + (position * sizes.streams + begin) * c;
    };

    for (int start = 0; start < sizes.samples; start += block) {
      // Past taps of the layers for which all of this block's past lies before it.
      for (int layer = 0, slot = 0; layer < num_layers; ++layer) {
        if (!IsFar(layer)) continue;
        float* out = far.data() + (size_t)slot++ * block * streams * gate;
        const int dilation = sizes.Dilation(layer);
        for (int t = 0; t < block * streams; ++t) CopyGates(layer, t % streams, out + t * gate);
        for (int t = 0; t < block;) {
          const int time = clock + start + t;
          // Rows that follow one another, of all streams, are one matrix.
          const int count = streams < sizes.streams
                                ? 1
                                : std::min(block - t, dilation - time % dilation);
          decoder.layers[layer].past.Add(row(layer, time), c, (int64_t)count * streams,
                                         out + (size_t)t * streams * gate, gate);
          t += count;
        }
      }
      for (int t = 0; t < block; ++t) {
        const int time = clock + start + t;
        for (int b = 0; b < streams; ++b) {
          const float* input = inputs + (begin + b) * 2;
          float* x = sums.data() + b * sum;
          for (int i = 0; i < c; ++i) {
            const float* first = decoder.first;
            x[i] = input[0] * first[i] + input[1] * first[c + i] + first[2 * c + i];
          }
          std::memcpy(x + c, decoder.sums_bias + c, (sum - c) * sizeof(float));
        }
        // Its columns of the residual are zero.
        CopyInputs(sums.data(), sum, gated.data(), c, streams);
        decoder.skip.Add(gated.data(), c, streams, sums.data(), sum);
        for (int layer = 0, slot = 0; layer < num_layers; ++layer) {
          const auto& weights = decoder.layers[layer];
          float* past = row(layer, time);
          if (streams > kMaxRows && layer + 1 < num_layers) {
            Prefetch(row(layer + 1, time), streams * c);
          }
          float* gates_of_layer = h.data();
          if (IsFar(layer)) {
            gates_of_layer = far.data() + ((size_t)slot++ * block + t) * streams * gate;
          } else {
            for (int b = 0; b < streams; ++b) CopyGates(layer, b, h.data() + b * gate);
            weights.past.Add(past, c, streams, h.data(), gate);
          }
          weights.present.Add(sums.data(), sum, streams, gates_of_layer, gate);
          CopyInputs(sums.data(), sum, past, c, streams);
          for (int b = 0; b < streams; ++b) {
            const float* from = gates_of_layer + b * gate;
            float* to = gated.data() + b * gate / 2;
            for (int p = 0; p < gate; p += kPanel) {
              for (int r = 0; r < kPanel / 2; r += kWidth) {
                const Vector sigmoid = Load(from + p + r), tanh = Load(from + p + r + kPanel / 2);
                Store(to + p / 2 + r, Gate(sigmoid, tanh));
              }
            }
            float* x = sums.data() + b * sum;
            for (int i = 0; i < c; ++i) x[i] += weights.bias[i];
          }
          weights.out.Add(gated.data(), gate / 2, streams, sums.data(), sum);
        }
        for (int b = 0; b < streams; ++b) {
          std::memcpy(z.data() + b * skips, head + (int64_t)(begin + b) * skips,
                      skips * sizeof(float));
          float* x = sums.data() + b * sum + c;
          for (int i = 0; i < sizes.skips; ++i) x[i] = std::max(x[i], 0.f);
        }
        decoder.head.Add(sums.data() + c, sum, streams, z.data(), skips);
        for (float& value : z) value = std::max(value, 0.f);
        for (int b = 0; b < streams; ++b) {
          std::memcpy(y.data() + b * kLevels, decoder.logits_bias, kLevels * sizeof(float));
        }
        decoder.logits.Add(z.data(), skips, streams, y.data(), kLevels);
        Choose(y.data(), start + t);
      }
    }
  }

 private:
  bool IsFar(int layer) const {
    return sizes.block_samples > 1 && sizes.Dilation(layer) >= sizes.block_samples;
  }

  void CopyGates(int layer, int b, float* out) const {
    const int gate = decoder.layers[0].past.panels * kPanel;
    const int64_t index = (int64_t)(begin + b) * sizes.NumLayers() + layer;
    std::memcpy(out, gates + index * gate, gate * sizeof(float));
  }

  static void CopyInputs(const float* from, int stride, float* to, int channels, int streams) {
    for (int b = 0; b < streams; ++b) {
      std::memcpy(to + (int64_t)b * channels, from + (int64_t)b * stride, channels * sizeof(float));
    }
  }

  void Choose(const float* logits, int t) {
    for (int b = 0; b < end - begin; ++b) {
      const int64_t stream = ((int64_t)t * sizes.domains + domain) * sizes.streams + begin + b;
      const float* perturbation = noise + stream * kLevels;
      const float* scores = logits + b * kLevels;
      int best = 0;
      float highest = scores[0] + perturbation[0];
      for (int code = 1; code < kLevels; ++code) {
        const float score = scores[code] + perturbation[code];
        if (score > highest) highest = score, best = code;
      }
      codes[stream] = best;
      float* input = inputs + (begin + b) * 2;
      input[0] = input[1];
      input[1] = best / 255.f - 0.5f;
    }
  }
};

template <typename Weight>
void Generate(Sizes sizes, int threads, const Weight* weights, int64_t num_weights,
              const float* biases, int64_t num_biases, const float* gates, const float* head,
              const float* noise, float* rows, float* inputs, const int32_t* clock,
              uint8_t* codes) {
  // Each decoder's streams are shared out where there are more threads than decoders.
  const int groups = std::clamp(threads / sizes.domains, 1, sizes.streams);
  std::vector<Work<Weight>> works;
  for (int k = 0; k < sizes.domains; ++k) {
    const Decoder<Weight> decoder(weights + k * num_weights, biases + k * num_biases, sizes);
    const int gate = decoder.layers[0].past.panels * kPanel, skips = decoder.head.panels * kPanel;
    for (int group = 0; group < groups; ++group) {
      works.push_back({sizes, decoder, k, sizes.streams * group / groups,
                       sizes.streams * (group + 1) / groups,
                       gates + (int64_t)k * sizes.streams * sizes.NumLayers() * gate,
                       head + (int64_t)k * sizes.streams * skips, noise,
                       rows + (int64_t)k * sizes.rows * sizes.streams * sizes.channels,
                       inputs + (int64_t)k * sizes.streams * 2, clock[k], codes});
    }
  }
  std::vector<std::thread> workers;
  const int count = std::min<int>(threads, works.size());
  auto run = [&](int worker) {
    for (size_t i = worker; i < works.size(); i += count) works[i].Run();
  };
  for (int worker = 1; worker < count; ++worker) workers.emplace_back(run, worker);
  run(0);
  for (std::thread& worker : workers) worker.join();
}

using Floats = ffi::Buffer<ffi::F32>;

ffi::Error GenerateFrame(int64_t blocks, int64_t layers, int64_t skips, int64_t block_samples,
                         int64_t threads, ffi::AnyBuffer weights, Floats biases, Floats gates,
                         Floats head, Floats noise, Floats rows_in, Floats inputs_in,
                         ffi::Buffer<ffi::S32> clock, ffi::Result<ffi::Buffer<ffi::U8>> codes,
                         ffi::Result<Floats> rows, ffi::Result<Floats> inputs) {
  const auto shape = rows_in.dimensions();
  const auto times = noise.dimensions();
  const Sizes sizes{(int)shape[0], (int)shape[2],  (int)times[0], (int)shape[1], (int)blocks,
                    (int)layers,   (int)shape[3], (int)skips,    (int)block_samples};
  // XLA lets inputs and outputs share memory; where it does not, the state is copied.
  if (rows->typed_data() != rows_in.typed_data()) {
    std::memcpy(rows->typed_data(), rows_in.typed_data(), rows_in.size_bytes());
  }
  if (inputs->typed_data() != inputs_in.typed_data()) {
    std::memcpy(inputs->typed_data(), inputs_in.typed_data(), inputs_in.size_bytes());
  }
  const int64_t num_weights = weights.dimensions()[1], num_biases = biases.dimensions()[1];
  auto generate = [&](const auto* data) {
    Generate(sizes, (int)threads, data, num_weights, biases.typed_data(), num_biases,
             gates.typed_data(), head.typed_data(), noise.typed_data(), rows->typed_data(),
             inputs->typed_data(), clock.typed_data(), codes->typed_data());
  };
  if (weights.element_type() == ffi::F32) {
    generate(reinterpret_cast<const float*>(weights.untyped_data()));
  } else if (weights.element_type() == ffi::BF16) {
    generate(reinterpret_cast<const uint16_t*>(weights.untyped_data()));
  } else {
    return ffi::Error::InvalidArgument("weights must be float32 or bfloat16");
  }
  return ffi::Error::Success();
}

}  // namespace

extern "C" int umt_register_columns() { return kWidth; }
extern "C" int umt_panel_columns() { return kPanel; }

XLA_FFI_DEFINE_HANDLER_SYMBOL(umt_generate_frame, GenerateFrame,
                              ffi::Ffi::Bind()
                                  .Attr<int64_t>("blocks")
                                  .Attr<int64_t>("layers")
                                  .Attr<int64_t>("skips")
                                  .Attr<int64_t>("block_samples")
                                  .Attr<int64_t>("threads")
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Ret<ffi::Buffer<ffi::U8>>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
