// One decoder's streams on a CPU: the next samples of one latent frame.
//
// Weights are packed in the order of `Decoder` below.

#ifndef UMT_JAX_CORE_DECODER_H_
#define UMT_JAX_CORE_DECODER_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "umt_jax/core/matrix.h"
#include "umt_jax/core/sampling.h"
#include "umt_jax/core/vectors.h"

namespace umt {

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

  // What layers hand on, a row for each stream. `gates` holds several samples', between calls.
  struct Buffers {
    std::vector<std::vector<float>> gates;  // By layer, [period, streams, gate width].
    std::vector<float> sums;                // Residual and skip sum, beside each other.
    std::vector<float> gated;               // sigmoid * tanh, in panels of half the width.
    std::vector<float> hidden, logits;
    Rounded<Weight> rounded;

    explicit Buffers(const Work& work)
        : sums((size_t)work.Streams() * work.SumWidth()),
          gated((size_t)work.Streams() * work.GateWidth() / 2),
          hidden((size_t)work.Streams() * work.HeadWidth()),
          logits((size_t)work.Streams() * kLevels) {
      int period = 1;
      for (int layer = 0; layer < work.sizes.NumLayers(); ++layer) {
        period = std::max(period, work.sizes.Period(layer));
        gates.emplace_back((size_t)work.sizes.Period(layer) * work.Streams() * work.GateWidth());
      }
      Reserve<Weight>((int64_t)period * work.Streams(), std::max(work.GateWidth(), work.SumWidth()),
                      rounded);
    }
  };

  // Generates samples [first, last): for each the first convolution, every layer, the head and a
  // draw. Those before them have been generated, with the same buffers. Allocates nothing.
  void Run(Buffers& buffers, int first, int last) const {
    for (int t = first; t < last; ++t) {
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
    decoder.skip.Add(buffers.gated.data(), c, Streams(), sums, width, buffers.rounded);
  }

  // One residual layer: both taps and conditioning, the gate, residual and skip.
  void Layer(int layer, int t, Buffers& buffers) const {
    const auto& weights = decoder.layers[layer];
    const int c = sizes.channels, gate = GateWidth(), width = SumWidth();
    const int period = sizes.Period(layer);
    std::vector<float>& gates = buffers.gates[layer];
    float* sums = buffers.sums.data();
    if (t % period == 0) AddPast(layer, t, std::min(period, sizes.samples - t), buffers);
    float* h = gates.data() + (size_t)(t % period) * Streams() * gate;
    weights.present.Add(sums, width, Streams(), h, gate, buffers.rounded);
    CopyInputs(sums, width, Row(layer, clock + t), c, Streams());
    for (int b = 0; b < Streams(); ++b) {
      GateRow(h + b * gate, gate, buffers.gated.data() + b * gate / 2);
      float* x = sums + b * width;
      for (int i = 0; i < c; ++i) x[i] += weights.bias[i];
    }
    weights.out.Add(buffers.gated.data(), gate / 2, Streams(), sums, width, buffers.rounded);
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
    decoder.head.Add(sums + c, width, Streams(), z, hidden, buffers.rounded);
    for (float& value : buffers.hidden) value = std::max(value, 0.f);
    for (int b = 0; b < Streams(); ++b) {
      std::memcpy(y + b * kLevels, decoder.logits_bias, kLevels * sizeof(float));
    }
    decoder.logits.Add(z, hidden, Streams(), y, kLevels, buffers.rounded);
  }

  // Where a layer's input of `time` is kept, and until then that of `dilation` samples before.
  float* Row(int layer, int time) const {
    const int64_t position = sizes.FirstRow(layer) + time % sizes.Dilation(layer);
    return rows + (position * sizes.streams + begin) * sizes.channels;
  }

  // Conditioning, and the products of a layer's past tap, for `count` samples from t on. All their
  // past lies before t, and they share one reading of the matrix.
  void AddPast(int layer, int t, int count, Buffers& buffers) const {
    std::vector<float>& past = buffers.gates[layer];
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
                                     past.data() + (size_t)done * streams * gate, gate,
                                     buffers.rounded);
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

}  // namespace umt

#endif  // UMT_JAX_CORE_DECODER_H_
