// Generates one latent frame of K decoders on a CPU: `native.py` packs the weights, builds
// this file and calls it through XLA's foreign function interface.
//
// Every matrix is cut into panels of kPanel columns, each stored row by row, so that weights are
// read once, in order. `native.py` lays them out; the order is that of `Decoder` below.

#include <algorithm>
#include <cfloat>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// Floats of one register, registers of one row of a panel, and what a block of many rows takes of
// these at once: rows and registers. Their sums, one row of the panel and one input must all fit
// into the processor's registers: 32 with AVX-512 (24 + 4 + 1 used), 16 with AVX2 (12 + 2 + 1),
// 32 with NEON (16 + 4 + 1; SSE has 16 and keeps some of them in memory).
#if defined(__AVX512F__)
constexpr int kWidth = 16, kRegisters = 4, kBlockRows = 6, kBlockRegisters = 4;
#elif defined(__AVX2__)
constexpr int kWidth = 8, kRegisters = 4, kBlockRows = 6, kBlockRegisters = 2;
#else
constexpr int kWidth = 4, kRegisters = 8, kBlockRows = 4, kBlockRegisters = 4;
#endif
constexpr int kPanel = kWidth * kRegisters;
constexpr int kLevels = 256;    // Mu-law codes: Q of `sampling.py`, MU + 1 of `mu_law.py`.
constexpr int kCacheLine = 64;  // Bytes, of x86-64 and of most ARM processors.

typedef float Vector __attribute__((vector_size(4 * kWidth)));
typedef int32_t Words __attribute__((vector_size(4 * kWidth)));

inline Vector Load(const float* source) {
  Vector vector;
  std::memcpy(&vector, source, sizeof vector);
  return vector;
}

inline void Store(float* target, Vector vector) { std::memcpy(target, &vector, sizeof vector); }

inline Vector Fill(float value) { return value - Vector{}; }

// How a matrix is kept: each step of a product takes one `Input` of every row, and as many weights
// of a panel as it has columns.

struct Float {
  using Input = float;
  static constexpr int kDepth = 1;  // Rows of the matrix that one step takes.
  float weight;
};

#if defined(__AVX512BF16__)

// Weights of two rows and one column. What they are multiplied with is rounded as well: the
// processor adds both products in one instruction, which is twice the rate of float32.
struct Bfloat16 {
  using Input = int32_t;
  static constexpr int kDepth = 2;
  uint16_t weights[2];
};

#else

struct Bfloat16 {
  using Input = float;
  static constexpr int kDepth = 1;
  uint16_t weight;
};

#endif

// Part of one row of a panel, in registers.
template <int kCount, typename Weight>
inline void LoadRow(const Weight* source, Vector* row) {
  if constexpr (sizeof(Weight) == 4) {
    for (int r = 0; r < kCount; ++r) row[r] = Load((const float*)(source + r * kWidth));
  } else {
    // Each 32-bit word holds one bfloat16 of two registers.
    for (int r = 0; r < kCount; r += 2) {
      Words words;
      std::memcpy(&words, source + r * kWidth, sizeof words);
      row[r] = (Vector)(words << 16);
      row[r + 1] = (Vector)(words & (int32_t)0xffff0000);
    }
  }
}

// Adds an input times part of a row.
template <int kCount>
inline void AddProducts(float input, const Vector* row, Vector* sums) {
  const Vector value = Fill(input);
  for (int r = 0; r < kCount; ++r) sums[r] += value * row[r];
}

// Returns the inputs of a product, and their stride; rounds them into `rounded` where it needs to.
inline const float* Inputs(const float* in, int64_t& /*stride*/, int64_t /*rows*/, int /*depth*/,
                           std::vector<float>& /*rounded*/) {
  return in;
}

#if defined(__AVX512BF16__)

template <int kCount>
inline void AddProducts(int32_t inputs, const Vector* row, Vector* sums) {
  const __m512bh values = (__m512bh)_mm512_set1_epi32(inputs);
  for (int r = 0; r < kCount; ++r) sums[r] = _mm512_dpbf16_ps(sums[r], (__m512bh)row[r], values);
}

inline const int32_t* Inputs(const float* in, int64_t& stride, int64_t rows, int depth,
                             std::vector<int32_t>& rounded) {
  const int64_t steps = (depth + kWidth - 1) / kWidth * kWidth / 2;
  rounded.resize(rows * steps);
  for (int64_t m = 0; m < rows; ++m) {
    for (int i = 0; i < depth; i += kWidth) {
      const __mmask16 inside = 0xffff >> std::max(0, i + kWidth - depth);
      const __m256bh pairs = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(inside, in + m * stride + i));
      std::memcpy(rounded.data() + m * steps + i / 2, &pairs, sizeof pairs);
    }
  }
  stride = steps;
  return rounded.data();
}

#endif

// Asks for numbers some time before they are needed, as many at each step.
struct Prefetch {
  const char* next;
  int bytes_per_step;

  template <int kLines>
  void Step() {
    // To be read (0), into the second level of the cache (2): the first holds what is multiplied.
    for (int line = 0; line < kLines; ++line) __builtin_prefetch(next + kCacheLine * line, 0, 2);
    next += bytes_per_step;
  }
};

// out[kRows][kCount registers] += in[kRows][steps] * panel[steps][kCount registers].
template <int kRows, int kCount, typename Weight>
void AddBlock(const typename Weight::Input* in, int64_t in_stride, int steps, const Weight* panel,
              float* out, int64_t out_stride, Prefetch prefetch) {
  // A single row would wait for its own sums: even and odd steps are summed apart.
  constexpr int kChains = kRows == 1 ? 2 : 1;
  constexpr int kLines = std::max<int>(1, kCount * kWidth * sizeof(Weight) / kCacheLine);
  Vector sums[kChains][kRows][kCount] = {};
  for (int m = 0; m < kRows; ++m) {
    for (int r = 0; r < kCount; ++r) sums[0][m][r] = Load(out + m * out_stride + r * kWidth);
  }
  auto add = [&](int step, int chain) {
    Vector row[kCount];
    LoadRow<kCount>(panel + (int64_t)step * kPanel, row);
    // What a single row reads once, from end to end, the processor itself fetches faster.
    if (kRows > 1) prefetch.Step<kLines>();
    for (int m = 0; m < kRows; ++m) {
      AddProducts<kCount>(in[m * in_stride + step], row, sums[chain][m]);
    }
  };
  int step = 0;
  for (; step + kChains <= steps; step += kChains) {
    for (int chain = 0; chain < kChains; ++chain) add(step + chain, chain);
  }
  for (; step < steps; ++step) add(step, 0);
  for (int m = 0; m < kRows; ++m) {
    for (int r = 0; r < kCount; ++r) {
      Vector sum = sums[0][m][r];
      for (int chain = 1; chain < kChains; ++chain) sum += sums[chain][m][r];
      Store(out + m * out_stride + r * kWidth, sum);
    }
  }
}

// Is AddBlock for `rows` rows, 1 to kRows.
template <int kRows, typename Weight>
void AddRows(int64_t rows, const typename Weight::Input* in, int64_t in_stride, int steps,
             const Weight* panel, float* out, int64_t out_stride, Prefetch prefetch) {
  if constexpr (kRows > 1) {
    if (rows < kRows) {
      return AddRows<kRows - 1>(rows, in, in_stride, steps, panel, out, out_stride, prefetch);
    }
  }
  AddBlock<kRows, kBlockRegisters>(in, in_stride, steps, panel, out, out_stride, prefetch);
}

// A matrix [depth, panels * kPanel] in panels.
template <typename Weight>
struct Matrix {
  const Weight* data;
  int depth, panels;

  int Steps() const { return (depth + Weight::kDepth - 1) / Weight::kDepth; }

  // out[rows] += in[rows] * this.
  void Add(const float* in, int64_t in_stride, int64_t rows, float* out, int64_t out_stride) const {
    thread_local std::vector<typename Weight::Input> rounded;
    const auto* inputs = Inputs(in, in_stride, rows, depth, rounded);
    const int steps = Steps();
    const int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
    const int passes = blocks * (kRegisters / kBlockRegisters);
    for (int p = 0; p < panels; ++p, out += kPanel) {
      const Weight* panel = data + (int64_t)p * steps * kPanel;
      // While one panel is multiplied the next is fetched, be it the next matrix's first.
      Prefetch prefetch{(const char*)(panel + (int64_t)steps * kPanel),
                        kPanel * (int)sizeof(Weight)};
      if (rows == 1) {
        AddBlock<1, kRegisters>(inputs, in_stride, steps, panel, out, out_stride, prefetch);
        continue;
      }
      prefetch.bytes_per_step /= passes;
      for (int r = 0; r < kPanel; r += kBlockRegisters * kWidth) {
        for (int64_t block = 0; block < blocks; ++block) {
          const int64_t begin = rows * block / blocks, end = rows * (block + 1) / blocks;
          AddRows<kBlockRows>(end - begin, inputs + begin * in_stride, in_stride, steps, panel + r,
                              out + begin * out_stride + r, out_stride, prefetch);
          prefetch.next += steps * prefetch.bytes_per_step;
        }
      }
    }
  }
};

// exp(x) = 2^n exp(r): n whole, |r| at most half of ln 2. Constants are those of `expf` in the
// Cephes library (S. L. Moshier, single/expf.c): log2(e); ln 2 as a number of few bits, which n
// times is exact, less the rest; and the polynomial, within 2 ulp of exp(r). For |x| up to 87.
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
  // Adds n to the exponent, which lies above the 23 bits of the fraction.
  return (Vector)((Words)y + (((Words)shifted - (Words)magic) << 23));
}

inline Vector Clamp(Vector x, float limit) {
  x = x > Fill(limit) ? Fill(limit) : x;
  return x < Fill(-limit) ? Fill(-limit) : x;
}

// sigmoid(a) * tanh(b). Beyond the limits they are constant within float32's rounding of a sum of
// order 1: sigmoid(-30) is 1e-13, sigmoid(30) and tanh(10) round to 1.
inline Vector Gate(Vector a, Vector b) {
  const Vector ea = Exp(-Clamp(a, 30.f)), eb = Exp(2.f * Clamp(b, 10.f));
  return (eb - 1.f) / ((eb + 1.f) * (1.f + ea));
}

// Codes are drawn from the likeliest ones, which have `top_p` of the probability; see sampling.py.
struct Nucleus {
  float temperature, top_p;
};

inline float Sum(Vector vector) {
  float sum = 0;
  for (int i = 0; i < kWidth; ++i) sum += vector[i];
  return sum;
}

// Sets the first kLevels of `likelihoods` to what the codes' probabilities are proportional to,
// and returns their sum.
inline float Likelihoods(const float* logits, float temperature, float* likelihoods) {
  Vector maxima = Load(logits), sums = {};
  for (int code = kWidth; code < kLevels; code += kWidth) {
    const Vector x = Load(logits + code);
    maxima = x > maxima ? x : maxima;
  }
  float highest = maxima[0];
  for (int i = 1; i < kWidth; ++i) highest = std::max(highest, maxima[i]);
  const float rate = 1.f / std::max(temperature, FLT_MIN);
  for (int code = 0; code < kLevels; code += kWidth) {
    const Vector x = (Load(logits + code) - highest) * rate;
    // exp(-80) is 2e-35: nothing beside the highest's 1, and not yet too small for float32.
    const Vector y = Exp(x < Fill(-80.f) ? Fill(-80.f) : x);
    Store(likelihoods + code, y);
    sums += y;
  }
  return Sum(sums);
}

// Whether one code is likelier than another; of two that are alike the lower comes first.
inline bool IsLikelier(const float* logits, int one, int other) {
  return logits[one] > logits[other] || (logits[one] == logits[other] && one < other);
}

// Returns the sum of the likelihoods of all codes that are likelier than one.
inline float SumOfLikelier(const float* logits, const float* likelihoods, int than) {
  const Vector logit = Fill(logits[than]);
  Vector sums = {};
  Words codes;
  for (int i = 0; i < kWidth; ++i) codes[i] = i;
  for (int code = 0; code < kLevels; code += kWidth, codes += kWidth) {
    const Vector x = Load(logits + code), y = Load(likelihoods + code);
    const Words is_likelier = (x > logit) | ((x == logit) & (codes < than));
    sums += (Vector)((Words)y & is_likelier);
  }
  return Sum(sums);
}

// Returns the code of the highest score, logit plus perturbation, within the nucleus.
inline int Draw(const float* logits, const float* perturbation, const Nucleus& nucleus) {
  int best = 0;
  float highest = logits[0] + perturbation[0];
  for (int code = 1; code < kLevels; ++code) {
    const float score = logits[code] + perturbation[code];
    if (score > highest) highest = score, best = code;
  }
  if (nucleus.top_p >= 1) return best;
  float likelihoods[kLevels];
  const float bound = nucleus.top_p * Likelihoods(logits, nucleus.temperature, likelihoods);
  for (;;) {
    const float likelier = SumOfLikelier(logits, likelihoods, best);
    // The likeliest of all is inside, however small `top_p` is.
    if (!(likelier > 0 && likelier >= bound)) return best;
    int next = -1;
    for (int code = 0; code < kLevels; ++code) {
      if (!IsLikelier(logits, code, best)) continue;
      const float score = logits[code] + perturbation[code];
      if (next < 0 || score > highest) highest = score, next = code;
    }
    best = next;
  }
}

struct Sizes {
  int domains, streams, samples, rows;  // K, B, T and the rows of the ring buffers.
  int blocks, layers, channels, skips, block_samples;

  int NumLayers() const { return blocks * layers; }
  int Dilation(int layer) const { return 1 << (layer % layers); }
  // Rows of the layers before it.
  int64_t FirstRow(int layer) const {
    return (int64_t)(layer / layers) * ((1 << layers) - 1) + Dilation(layer) - 1;
  }
  // For so many samples the past tap is computed at once.
  int Period(int layer) const { return std::min(Dilation(layer), block_samples); }
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
      weights += (int64_t)matrix.Steps() * panels * kPanel;
      return matrix;
    };
    auto take_bias = [&](int count) {
      const float* bias = biases;
      biases += count;
      return bias;
    };
    first = take_bias(3 * c);  // Two taps and the bias.
    sums_bias = take_bias(sum_panels * kPanel);
    layers.resize(sizes.NumLayers());
    // Apart from the rest, which is read from end to end for every sample.
    for (Layer& layer : layers) layer.past = take(c, gate_panels);
    skip = take(c, sum_panels);
    for (Layer& layer : layers) {
      layer.present = take(c, gate_panels);
      layer.out = take(c, sum_panels);
      layer.bias = take_bias(sum_panels * kPanel);
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
  Nucleus nucleus;
  uint8_t* codes;  // [T, K, B].

  // Generates all samples: per sample the first convolution, every layer, the head and a draw.
  void Run() {
    Buffers buffers(*this);
    for (int t = 0; t < sizes.samples; ++t) {
      First(buffers);
      for (int layer = 0; layer < sizes.NumLayers(); ++layer) Layer(layer, t, buffers);
      Head(buffers);
      Choose(buffers.logits.data(), t);
    }
  }

 private:
  int Streams() const { return end - begin; }
  // Widths of rows, in whole panels: sigmoid and tanh of a layer; residual and skip; the head.
  int GateWidth() const { return decoder.layers[0].past.panels * kPanel; }
  int SumWidth() const { return decoder.skip.panels * kPanel; }
  int HeadWidth() const { return decoder.head.panels * kPanel; }

  // What one sample's layers hand on, a row for each stream.
  struct Buffers {
    std::vector<std::vector<float>> gates;  // By layer, [period, streams, gate width].
    std::vector<float> sums;                // Residual and skip sum, beside each other.
    std::vector<float> gated;               // sigmoid * tanh, in panels of half the width.
    std::vector<float> hidden, logits;

    explicit Buffers(const Work& work)
        : sums((size_t)work.Streams() * work.SumWidth()),
          gated((size_t)work.Streams() * work.GateWidth() / 2),
          hidden((size_t)work.Streams() * work.HeadWidth()),
          logits((size_t)work.Streams() * kLevels) {
      for (int layer = 0; layer < work.sizes.NumLayers(); ++layer) {
        gates.emplace_back((size_t)work.sizes.Period(layer) * work.Streams() * work.GateWidth());
      }
    }
  };

  // The first convolution of two samples, and what it adds to the skip sum.
  void First(Buffers& buffers) const {
    const int c = sizes.channels, width = SumWidth();
    float* sums = buffers.sums.data();
    for (int b = 0; b < Streams(); ++b) {
      const float* input = inputs + (begin + b) * 2;
      float* x = sums + b * width;
      for (int i = 0; i < c; ++i) {
        const float* first = decoder.first;
        x[i] = input[0] * first[i] + input[1] * first[c + i] + first[2 * c + i];
      }
      std::memcpy(x + c, decoder.sums_bias + c, (width - c) * sizeof(float));
    }
    // Its columns of the residual are zero.
    CopyInputs(sums, width, buffers.gated.data(), c, Streams());
    decoder.skip.Add(buffers.gated.data(), c, Streams(), sums, width);
  }

  // One residual layer: both taps and conditioning, the gate, residual and skip.
  void Layer(int layer, int t, Buffers& buffers) const {
    const auto& weights = decoder.layers[layer];
    const int c = sizes.channels, gate = GateWidth(), width = SumWidth();
    const int period = sizes.Period(layer);
    std::vector<float>& gates = buffers.gates[layer];
    float* sums = buffers.sums.data();
    if (t % period == 0) AddPast(layer, t, std::min(period, sizes.samples - t), gates);
    float* h = gates.data() + (size_t)(t % period) * Streams() * gate;
    weights.present.Add(sums, width, Streams(), h, gate);
    CopyInputs(sums, width, Row(layer, clock + t), c, Streams());
    for (int b = 0; b < Streams(); ++b) {
      GateRow(h + b * gate, gate, buffers.gated.data() + b * gate / 2);
      float* x = sums + b * width;
      for (int i = 0; i < c; ++i) x[i] += weights.bias[i];
    }
    weights.out.Add(buffers.gated.data(), gate / 2, Streams(), sums, width);
  }

  // sigmoid * tanh of one row: each panel holds both of the same channels, half and half.
  static void GateRow(const float* from, int width, float* to) {
    for (int p = 0; p < width; p += kPanel) {
      for (int r = 0; r < kPanel / 2; r += kWidth) {
        const Vector sigmoid = Load(from + p + r), tanh = Load(from + p + r + kPanel / 2);
        Store(to + p / 2 + r, Gate(sigmoid, tanh));
      }
    }
  }

  // ReLU of the skip sum, a layer with conditioning, ReLU, and the logits.
  void Head(Buffers& buffers) const {
    const int c = sizes.channels, width = SumWidth(), hidden = HeadWidth();
    float *sums = buffers.sums.data(), *z = buffers.hidden.data(), *y = buffers.logits.data();
    for (int b = 0; b < Streams(); ++b) {
      std::memcpy(z + b * hidden, head + (int64_t)(begin + b) * hidden, hidden * sizeof(float));
      float* x = sums + b * width + c;
      for (int i = 0; i < sizes.skips; ++i) x[i] = std::max(x[i], 0.f);
    }
    decoder.head.Add(sums + c, width, Streams(), z, hidden);
    for (float& value : buffers.hidden) value = std::max(value, 0.f);
    for (int b = 0; b < Streams(); ++b) {
      std::memcpy(y + b * kLevels, decoder.logits_bias, kLevels * sizeof(float));
    }
    decoder.logits.Add(z, hidden, Streams(), y, kLevels);
  }

  // Where a layer's input of `time` is kept, and until then that of `dilation` samples before.
  float* Row(int layer, int time) const {
    const int64_t position = sizes.FirstRow(layer) + time % sizes.Dilation(layer);
    return rows + (position * sizes.streams + begin) * sizes.channels;
  }

  // Conditioning, and the products of a layer's past tap, for `count` samples from t on. All their
  // past lies before t, and they share one reading of the matrix.
  void AddPast(int layer, int t, int count, std::vector<float>& past) const {
    const int streams = Streams(), gate = GateWidth();
    for (int row = 0; row < count * streams; ++row) {
      CopyGates(layer, row % streams, past.data() + (size_t)row * gate);
    }
    for (int done = 0; done < count;) {
      const int time = clock + t + done, dilation = sizes.Dilation(layer);
      // Rows that follow one another, of all streams, are one matrix.
      const int together =
          streams < sizes.streams ? 1 : std::min(count - done, dilation - time % dilation);
      decoder.layers[layer].past.Add(Row(layer, time), sizes.channels, (int64_t)together * streams,
                                     past.data() + (size_t)done * streams * gate, gate);
      done += together;
    }
  }

  void CopyGates(int layer, int b, float* out) const {
    const int gate = GateWidth();
    const int64_t index = (int64_t)(begin + b) * sizes.NumLayers() + layer;
    std::memcpy(out, gates + index * gate, gate * sizeof(float));
  }

  static void CopyInputs(const float* from, int stride, float* to, int channels, int streams) {
    for (int b = 0; b < streams; ++b) {
      std::memcpy(to + (int64_t)b * channels, from + (int64_t)b * stride, channels * sizeof(float));
    }
  }

  // Draws each stream's code and makes it the newest input.
  void Choose(const float* logits, int t) const {
    for (int b = 0; b < Streams(); ++b) {
      const int64_t stream = ((int64_t)t * sizes.domains + domain) * sizes.streams + begin + b;
      const int code = Draw(logits + b * kLevels, noise + stream * kLevels, nucleus);
      codes[stream] = code;
      float* input = inputs + (begin + b) * 2;
      input[0] = input[1];
      input[1] = code / 255.f - 0.5f;  // As `layers.scale` does.
    }
  }
};

template <typename Weight>
void Generate(Sizes sizes, int threads, const Weight* weights, int64_t num_weights,
              const float* biases, int64_t num_biases, const float* gates, const float* head,
              const float* noise, float* rows, float* inputs, const int32_t* clock, Nucleus nucleus,
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
                       inputs + (int64_t)k * sizes.streams * 2, clock[k], nucleus, codes});
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
                         ffi::Buffer<ffi::S32> clock, Floats temperature_and_top_p,
                         ffi::Result<ffi::Buffer<ffi::U8>> codes, ffi::Result<Floats> rows,
                         ffi::Result<Floats> inputs) {
  const auto shape = rows_in.dimensions();
  const auto times = noise.dimensions();
  const Sizes sizes{(int)shape[0], (int)shape[2], (int)times[0], (int)shape[1],     (int)blocks,
                    (int)layers,   (int)shape[3], (int)skips,    (int)block_samples};
  // XLA lets inputs and outputs share memory; where it does not, the state is copied.
  if (rows->typed_data() != rows_in.typed_data()) {
    std::memcpy(rows->typed_data(), rows_in.typed_data(), rows_in.size_bytes());
  }
  if (inputs->typed_data() != inputs_in.typed_data()) {
    std::memcpy(inputs->typed_data(), inputs_in.typed_data(), inputs_in.size_bytes());
  }
  const int64_t num_biases = biases.dimensions()[1];
  const float* numbers = temperature_and_top_p.typed_data();
  const Nucleus nucleus{numbers[0], numbers[1]};
  auto generate = [&](const auto* data) {
    const int64_t num_weights = weights.size_bytes() / sizes.domains / sizeof *data;
    Generate(sizes, (int)threads, data, num_weights, biases.typed_data(), num_biases,
             gates.typed_data(), head.typed_data(), noise.typed_data(), rows->typed_data(),
             inputs->typed_data(), clock.typed_data(), nucleus, codes->typed_data());
  };
  if (weights.element_type() == ffi::F32) {
    generate(reinterpret_cast<const Float*>(weights.untyped_data()));
  } else if (weights.element_type() == ffi::BF16) {
    generate(reinterpret_cast<const Bfloat16*>(weights.untyped_data()));
  } else {
    return ffi::Error::InvalidArgument("weights must be float32 or bfloat16");
  }
  return ffi::Error::Success();
}

}  // namespace

// Asks the system to keep memory in huge pages: the weights are read from end to end for every
// sample, and processors fetch ahead within a page alone. Where that cannot be, nothing changes.
extern "C" void umt_prefer_huge_pages(void* memory, uint64_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t kHugePage = 2 << 20;  // Of x86-64, and of ARM with pages of 4 KiB.
  // By number, since older headers lack the second: MADV_HUGEPAGE and MADV_COLLAPSE (from Linux
  // 6.1 on) of Linux's include/uapi/asm-generic/mman-common.h.
  constexpr int kHuge = 14, kCollapse = 25;
  const uintptr_t begin = ((uintptr_t)memory + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = ((uintptr_t)memory + bytes) / kHugePage * kHugePage;
  if (begin >= end) return;
  madvise((void*)begin, end - begin, kHuge);
  madvise((void*)begin, end - begin, kCollapse);
#else
  (void)memory, (void)bytes;
#endif
}

extern "C" int umt_register_columns() { return kWidth; }
extern "C" int umt_panel_columns() { return kPanel; }
extern "C" int umt_bfloat16_depth() { return Bfloat16::kDepth; }

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
                                  .Arg<Floats>()
                                  .Ret<ffi::Buffer<ffi::U8>>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
