// One decoder's streams on a CPU: the next samples of one latent frame.
//
// Weights are packed in the order of `Decoder` below.

#ifndef UMT_JAX_CORE_DECODER_H_
#define UMT_JAX_CORE_DECODER_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

#include "umt_jax/core/matrix.h"
#include "umt_jax/core/sampling.h"
#include "umt_jax/core/vectors.h"

namespace umt {

// Memory that starts with a cache line: threads that write panels beside each other would
// otherwise wait for the line that both share.
template <typename T>
struct LineAligned {
  using value_type = T;
  static constexpr std::align_val_t kLine{kCacheLine};

  LineAligned() = default;
  template <typename Other>
  LineAligned(const LineAligned<Other>&) {}

  T* allocate(size_t count) { return (T*)::operator new(count * sizeof(T), kLine); }
  void deallocate(T* memory, size_t) { ::operator delete(memory, kLine); }
  bool operator==(const LineAligned&) const { return true; }
  bool operator!=(const LineAligned&) const { return false; }
};
using AlignedFloats = std::vector<float, LineAligned<float>>;

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

// Who works on a decoder's streams: one of several threads, which share out the panels of every
// product and wait for each other (`threads.h`), or this one, which has all to do and never waits.
struct Alone {
  static constexpr int index = 0;
  Range Share(int count) const { return {0, count}; }
  void Wait() const {}
};

// What one team of threads works on: streams [begin, end) of one decoder.
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
    std::vector<AlignedFloats> gates;  // By layer, [period, streams, gate width].
    AlignedFloats sums;                // Residual and skip sum, beside each other.
    AlignedFloats gated;               // sigmoid * tanh, in panels of half the width.
    AlignedFloats hidden, logits;
    // What each thread has for itself: the first convolution's output, and rounded inputs.
    struct Own {
      AlignedFloats first;
      Rounded<Weight> rounded;
    };
    std::vector<Own> own;

    explicit Buffers(const Work& work, int threads = 1)
        : sums((size_t)work.Streams() * work.SumWidth()),
          gated((size_t)work.Streams() * work.GateWidth() / 2),
          hidden((size_t)work.Streams() * work.HeadWidth()),
          logits((size_t)work.Streams() * kLevels),
          own(threads) {
      int period = 1;
      for (int layer = 0; layer < work.sizes.NumLayers(); ++layer) {
        period = std::max(period, work.sizes.Period(layer));
        gates.emplace_back((size_t)work.sizes.Period(layer) * work.Streams() * work.GateWidth());
      }
      for (Own& of_thread : own) {
        of_thread.first.resize((size_t)work.Streams() * work.sizes.channels);
        Reserve<Weight>((int64_t)period * work.Streams(),
                        std::max(work.GateWidth(), work.SumWidth()), of_thread.rounded);
      }
    }
  };

  // More threads than this find no panel to work on in any layer.
  int MostThreads() const { return std::min(decoder.layers[0].past.panels, decoder.skip.panels); }

  // Generates samples [first, last): for each the first convolution, every layer, the head and a
  // draw. Those before them have been generated, with the same buffers. Allocates nothing. Every
  // member of a team calls it, and each writes in its own columns what it would write alone.
  template <typename Member>
  void Run(Buffers& buffers, int first, int last, const Member& member) const {
    for (int t = first; t < last; ++t) {
      First(buffers, member);
      for (int layer = 0; layer < sizes.NumLayers(); ++layer) Layer(layer, t, buffers, member);
      Head(buffers, member);
      Choose(buffers.logits.data(), t, member.Share(Streams()));
      member.Wait();
    }
  }

 private:
  int Streams() const { return end - begin; }
  // Widths of rows, in whole panels: sigmoid and tanh of a layer; residual and skip; the head.
  int GateWidth() const { return decoder.layers[0].past.panels * kPanel; }
  int SumWidth() const { return decoder.skip.panels * kPanel; }
  int HeadWidth() const { return decoder.head.panels * kPanel; }

  // The first convolution of two samples, and what it adds to the skip sum.
  template <typename Member>
  void First(Buffers& buffers, const Member& member) const {
    const int c = sizes.channels, width = SumWidth();
    auto& own = buffers.own[member.index];
    const Range panels = member.Share(decoder.skip.panels);
    const Range residual = panels.Columns(c), all = panels.Columns(width);
    const int skip = std::max(c, all.begin);
    for (int b = 0; b < Streams(); ++b) {
      const float* input = inputs + (begin + b) * 2;
      float* x = own.first.data() + b * c;
      for (int i = 0; i < c; ++i) {
        const float* first = decoder.first;
        x[i] = input[0] * first[i] + input[1] * first[c + i] + first[2 * c + i];
      }
      float* sums = buffers.sums.data() + b * width;
      std::copy(x + residual.begin, x + residual.end, sums + residual.begin);
      if (skip < all.end) {
        std::copy(decoder.sums_bias + skip, decoder.sums_bias + all.end, sums + skip);
      }
    }
    // Its columns of the residual are zero.
    decoder.skip.Add(own.first.data(), c, Streams(), buffers.sums.data(), width, own.rounded,
                     panels);
    member.Wait();
  }

  // One residual layer: both taps and conditioning, the gate; then residual and skip.
  template <typename Member>
  void Layer(int layer, int t, Buffers& buffers, const Member& member) const {
    const auto& weights = decoder.layers[layer];
    const int c = sizes.channels, gate = GateWidth(), width = SumWidth();
    const int period = sizes.Period(layer);
    float *sums = buffers.sums.data(), *gated = buffers.gated.data();
    auto& rounded = buffers.own[member.index].rounded;
    const Range gates = member.Share(weights.present.panels);
    if (t % period == 0) {
      AddPast(layer, t, std::min(period, sizes.samples - t), gates, buffers, rounded);
    }
    float* h = buffers.gates[layer].data() + (size_t)(t % period) * Streams() * gate;
    weights.present.Add(sums, width, Streams(), h, gate, rounded, gates);
    for (int b = 0; b < Streams(); ++b) GateRow(h + b * gate, gates, gated + b * gate / 2);
    member.Wait();
    const Range panels = member.Share(weights.out.panels), residual = panels.Columns(c);
    float* row = Row(layer, clock + t);  // All have read what it held.
    for (int b = 0; b < Streams(); ++b, row += c) {
      float* x = sums + b * width;
      std::copy(x + residual.begin, x + residual.end, row + residual.begin);
      for (int i = residual.begin; i < residual.end; ++i) x[i] += weights.bias[i];
    }
    weights.out.Add(gated, gate / 2, Streams(), sums, width, rounded, panels);
    member.Wait();
  }

  // sigmoid * tanh of panels of one row: each holds both of the same channels, half and half.
  static void GateRow(const float* from, Range panels, float* to) {
    for (int p = panels.begin * kPanel; p < panels.end * kPanel; p += kPanel) {
      for (int r = 0; r < kPanel / 2; r += kWidth) {
        const Vector sigmoid = Load(from + p + r), tanh = Load(from + p + r + kPanel / 2);
        Store(to + p / 2 + r, Gate(sigmoid, tanh));
      }
    }
  }

  // ReLU of the skip sum, a layer with conditioning, ReLU, and the logits.
  template <typename Member>
  void Head(Buffers& buffers, const Member& member) const {
    const int c = sizes.channels, width = SumWidth(), hidden = HeadWidth();
    float *sums = buffers.sums.data(), *z = buffers.hidden.data(), *y = buffers.logits.data();
    auto& rounded = buffers.own[member.index].rounded;
    const Range skips = member.Share(decoder.skip.panels).Columns(c + sizes.skips);
    for (int b = 0; b < Streams(); ++b) {
      float* x = sums + b * width;
      for (int i = std::max(c, skips.begin); i < skips.end; ++i) x[i] = std::max(x[i], 0.f);
    }
    member.Wait();
    Range panels = member.Share(decoder.head.panels), columns = panels.Columns(hidden);
    for (int b = 0; b < Streams(); ++b) {
      const float* condition = head + (int64_t)(begin + b) * hidden;
      std::copy(condition + columns.begin, condition + columns.end, z + b * hidden + columns.begin);
    }
    decoder.head.Add(sums + c, width, Streams(), z, hidden, rounded, panels);
    for (int b = 0; b < Streams(); ++b) {
      float* row = z + b * hidden;
      for (int i = columns.begin; i < columns.end; ++i) row[i] = std::max(row[i], 0.f);
    }
    member.Wait();
    panels = member.Share(decoder.logits.panels), columns = panels.Columns(kLevels);
    for (int b = 0; b < Streams(); ++b) {
      std::copy(decoder.logits_bias + columns.begin, decoder.logits_bias + columns.end,
                y + b * kLevels + columns.begin);
    }
    decoder.logits.Add(z, hidden, Streams(), y, kLevels, rounded, panels);
    member.Wait();
  }

  // Where a layer's input of `time` is kept, and until then that of `dilation` samples before.
  float* Row(int layer, int time) const {
    const int64_t position = sizes.FirstRow(layer) + time % sizes.Dilation(layer);
    return rows + (position * sizes.streams + begin) * sizes.channels;
  }

  // Conditioning, and the products of a layer's past tap, for `count` samples from t on. All their
  // past lies before t, and they share one reading of the matrix.
  void AddPast(int layer, int t, int count, Range panels, Buffers& buffers,
               Rounded<Weight>& rounded) const {
    float* past = buffers.gates[layer].data();
    const int streams = Streams(), gate = GateWidth();
    const Range columns = panels.Columns(gate);
    for (int row = 0; row < count * streams; ++row) {
      const int64_t index = (int64_t)(begin + row % streams) * sizes.NumLayers() + layer;
      const float* condition = gates + index * gate;
      std::copy(condition + columns.begin, condition + columns.end,
                past + (size_t)row * gate + columns.begin);
    }
    for (int done = 0; done < count;) {
      const int time = clock + t + done, dilation = sizes.Dilation(layer);
      // Rows that follow one another, of all streams, are one matrix.
      const int together =
          streams < sizes.streams ? 1 : std::min(count - done, dilation - time % dilation);
      decoder.layers[layer].past.Add(Row(layer, time), sizes.channels, (int64_t)together * streams,
                                     past + (size_t)done * streams * gate, gate, rounded, panels);
      done += together;
    }
  }

  // Draws the code of some streams and makes it their newest input.
  void Choose(const float* logits, int t, Range which) const {
    for (int b = which.begin; b < which.end; ++b) {
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
