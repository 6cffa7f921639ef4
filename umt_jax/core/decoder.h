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
  // Gated channels are multiplied in two parts, so that two threads can have one each. The first
  // has a whole number of panels on every processor; narrow layers are not cut.
  int FirstPart() const { return channels < 64 ? channels : channels / 64 * 32; }
  // For so many samples the past tap is computed at once.
  int Period(int layer) const { return std::min(Dilation(layer), block_samples); }
};

constexpr int kParts = 2;

// One decoder's matrices and biases, in the order in which they are packed.
template <typename Weight>
struct Decoder {
  struct Layer {
    Matrix<Weight> past, present;
    Matrix<Weight> out[kParts];  // Residual and skip beside each other, of some of the channels.
    const float* bias;           // Of the residual.
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
      layer.out[0] = take(sizes.FirstPart(), sum_panels);
      const int rest = c - sizes.FirstPart();
      layer.out[1] = rest ? take(rest, sum_panels) : Matrix<Weight>{weights, 0, 0};
      layer.bias = take_bias(sum_panels * kPanel);
    }
    head = take(sizes.skips, Panels(sizes.skips));
    logits = take(sizes.skips, Panels(kLevels));
    logits_bias = take_bias(kLevels);
  }
};

// Who works on a decoder's streams: one of several threads, which share out every product and wait
// for each other (`threads.h`), or this one, which has all to do and never waits.
struct Alone {
  static constexpr int index = 0;
  static constexpr bool is_one_of_two = false;
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
    AlignedFloats gated;               // sigmoid * tanh, in panels of half the width.
    // Of each part of the channels: what it adds to the residual, and its skip sum beside that.
    AlignedFloats sums[kParts];
    // What parts add to the residuals of even and of odd layers, where all threads find it.
    AlignedFloats added[2][kParts];
    AlignedFloats skips, hidden, logits;
    // What each thread has for itself: the residual, and rounded inputs.
    struct Own {
      AlignedFloats x;
      Rounded<Weight> rounded;
    };
    std::vector<Own> own;

    explicit Buffers(const Work& work, int threads = 1)
        : gated((size_t)work.Streams() * work.GateWidth() / 2),
          skips((size_t)work.Streams() * work.sizes.skips),
          hidden((size_t)work.Streams() * work.HeadWidth()),
          logits((size_t)work.Streams() * kLevels),
          own(threads) {
      const size_t residuals = (size_t)work.Streams() * work.sizes.channels;
      for (int part = 0; part < kParts; ++part) {
        sums[part].resize((size_t)work.Streams() * work.SumWidth());
        for (auto& of_layers : added) of_layers[part].resize(residuals);
      }
      int period = 1;
      for (int layer = 0; layer < work.sizes.NumLayers(); ++layer) {
        period = std::max(period, work.sizes.Period(layer));
        gates.emplace_back((size_t)work.sizes.Period(layer) * work.Streams() * work.GateWidth());
      }
      for (Own& of_thread : own) {
        of_thread.x.resize(residuals);
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
      member.Wait();
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

  bool IsCut() const { return sizes.FirstPart() < sizes.channels; }

  // The first convolution of two samples, and what it adds to the skip sum.
  template <typename Member>
  void First(Buffers& buffers, const Member& member) const {
    const int c = sizes.channels, width = SumWidth();
    auto& own = buffers.own[member.index];
    for (int b = 0; b < Streams(); ++b) {
      const float *input = inputs + (begin + b) * 2, *first = decoder.first;
      float* x = own.x.data() + b * c;
      for (int i = 0; i < c; ++i) {
        x[i] = input[0] * first[i] + input[1] * first[c + i] + first[2 * c + i];
      }
    }
    const Range panels = member.Share(decoder.skip.panels), columns = panels.Columns(width);
    for (int b = 0; b < Streams(); ++b) {
      for (int part = 0; part < kParts; ++part) {
        float* sums = buffers.sums[part].data() + b * width;
        std::fill(sums + columns.begin, sums + columns.end, 0.f);
      }
      const int skip = std::max(c, columns.begin);
      if (skip < columns.end) {
        std::copy(decoder.sums_bias + skip, decoder.sums_bias + columns.end,
                  buffers.sums[0].data() + b * width + skip);
      }
    }
    // Its columns of the residual are zero.
    decoder.skip.Add(own.x.data(), c, Streams(), buffers.sums[0].data(), width, own.rounded,
                     panels);
  }

  // One residual layer: both taps and conditioning, the gate; then residual and skip. Two threads
  // have one part of the channels each, and wait for each other once; more of them share out panels
  // of each product, and wait twice.
  template <typename Member>
  void Layer(int layer, int t, Buffers& buffers, const Member& member) const {
    const auto& weights = decoder.layers[layer];
    const int c = sizes.channels, gate = GateWidth(), period = sizes.Period(layer);
    auto& own = buffers.own[member.index];
    const bool has_part = member.is_one_of_two && IsCut();
    const Range gates = has_part ? GatePanels(member.index) : member.Share(weights.present.panels);
    if (t % period == 0) {
      AddPast(layer, t, std::min(period, sizes.samples - t), gates, buffers, own.rounded);
    }
    float* h = buffers.gates[layer].data() + (size_t)(t % period) * Streams() * gate;
    weights.present.Add(own.x.data(), c, Streams(), h, gate, own.rounded, gates);
    for (int b = 0; b < Streams(); ++b) {
      GateRow(h + b * gate, gates, buffers.gated.data() + b * gate / 2);
    }
    if (!has_part) member.Wait();
    const Range panels =
        has_part ? Range{0, SumWidth() / kPanel} : member.Share(SumWidth() / kPanel);
    for (int part = 0; part < kParts; ++part) {
      if (!has_part || part == member.index) AddPart(layer, part, panels, buffers, own.rounded);
    }
    member.Wait();
    Join(layer, t, member.Share(c), buffers, own.x.data());
  }

  // Panels of gates of a part's channels.
  Range GatePanels(int part) const {
    const int first = sizes.FirstPart() / (kPanel / 2);
    return part == 0 ? Range{0, first} : Range{first, GateWidth() / kPanel};
  }

  // Adds a part's products to its skip sum, and sets what it adds to the residual.
  void AddPart(int layer, int part, Range panels, Buffers& buffers,
               Rounded<Weight>& rounded) const {
    const auto& out = decoder.layers[layer].out[part];
    if (out.depth == 0) return;
    const int c = sizes.channels, width = SumWidth();
    const float* gated = buffers.gated.data() + (part ? sizes.FirstPart() : 0);
    out.Add(gated, GateWidth() / 2, Streams(), buffers.sums[part].data(), width, rounded, panels);
    const Range columns = panels.Columns(c);
    for (int b = 0; b < Streams(); ++b) {
      float* sums = buffers.sums[part].data() + b * width;
      std::copy(sums + columns.begin, sums + columns.end,
                buffers.added[layer % 2][part].data() + b * c + columns.begin);
      std::fill(sums + columns.begin, sums + columns.end, 0.f);
    }
  }

  // Keeps some columns of a layer's input, for it to be its past, and makes of it the next one's.
  void Join(int layer, int t, Range kept, const Buffers& buffers, float* x) const {
    const int c = sizes.channels;
    const float* bias = decoder.layers[layer].bias;
    const auto& added = buffers.added[layer % 2];
    float* row = Row(layer, clock + t);  // All have read what it held.
    for (int b = 0; b < Streams(); ++b, row += c, x += c) {
      std::copy(x + kept.begin, x + kept.end, row + kept.begin);
      const float *one = added[0].data() + b * c, *other = added[1].data() + b * c;
      for (int i = 0; i < c; ++i) x[i] += bias[i] + (one[i] + other[i]);
    }
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
    float *skips = buffers.skips.data(), *z = buffers.hidden.data(), *y = buffers.logits.data();
    auto& rounded = buffers.own[member.index].rounded;
    const Range share = member.Share(sizes.skips);
    for (int b = 0; b < Streams(); ++b) {
      const float* one = buffers.sums[0].data() + b * width + c;
      const float* other = buffers.sums[1].data() + b * width + c;
      for (int i = share.begin; i < share.end; ++i) {
        skips[b * sizes.skips + i] = std::max(one[i] + other[i], 0.f);
      }
    }
    member.Wait();
    Range panels = member.Share(decoder.head.panels), columns = panels.Columns(hidden);
    for (int b = 0; b < Streams(); ++b) {
      const float* condition = head + (int64_t)(begin + b) * hidden;
      std::copy(condition + columns.begin, condition + columns.end, z + b * hidden + columns.begin);
    }
    decoder.head.Add(skips, sizes.skips, Streams(), z, hidden, rounded, panels);
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
