// A domain's guide, as its latent frames come: predicts a spectrogram, and makes a waveform of it.
// `umt_jax/model/guide.py` says how; `umt_jax/generation/guiding.py` does the same window by
// window.

#ifndef UMT_JAX_CORE_GUIDE_H_
#define UMT_JAX_CORE_GUIDE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <vector>

#include "umt_jax/core/griffin_lim.h"
#include "umt_jax/core/matrix.h"

namespace umt {

// A guide of this strength is heard alone: `config.MOST_GUIDE_STRENGTH`.
constexpr float kMostGuideStrength = 10;

struct GuideSizes {
  int latents, channels;  // Channels: 0 where there is no guide.
  int pool, hop, fft;     // Samples.

  // From one frame of the spectrogram to the next as many samples, and under its window.
  static int Hop(int sample_rate_hz, int pool) {
    int hop = std::max(1, sample_rate_hz / 80);
    while (pool % hop) --hop;
    return hop;
  }
  static int Fft(int sample_rate_hz) {
    return std::max(2, 1 << std::lrint(std::log2(0.064 * sample_rate_hz)));
  }

  int Bins() const { return fft / 2 + 1; }
  int Frames() const { return pool / hop; }  // Of the spectrogram, in a latent frame.
  int Magnitudes() const { return Frames() * Bins(); }
  // Whether numbers of magnitudes, and of samples under windows, fit an `int`.
  bool AreSmall() const { return (double)pool / hop * (fft + 2) * (fft / hop + 2) < 1 << 28; }
};

// A convolution along latent frames.
struct GuideConvolution {
  std::vector<Affine> taps;  // The bias is the first one's.
  int dilation, ahead;       // Latent frames from tap to tap, and of the last one.
};

struct Guide {
  // As in `umt_jax/model/array_shapes.py`.
  static constexpr int kFirstTaps = 5, kDilatedTaps = 3, kLastTaps = 3;
  static constexpr int kDilations[] = {1, 2, 4, 8, 16, 32};
  static constexpr int kLooksBackFrom = 8;  // From this dilation on nothing ahead is seen.
  static constexpr int Ahead(int taps, int dilation) {
    return dilation < kLooksBackFrom ? (taps - 1) * dilation / 2 : 0;
  }

  GuideConvolution first, last;
  std::vector<GuideConvolution> dilated;
  std::vector<Affine> mixes;
};

// One recording on its way through a guide. It allocates nothing once it is made.
class GuidePlayer {
 public:
  explicit GuidePlayer(const GuideSizes& sizes)
      : sizes_(sizes),
        waiting_(AheadOfPhases(sizes) + 1),
        latents_(Guide::kFirstTaps, sizes.latents),
        last_(Guide::kLastTaps, sizes.channels),
        features_((size_t)Panels(sizes.channels) * kPanel),
        hidden_(features_.size()),
        predicted_((size_t)Panels(sizes.Magnitudes()) * kPanel),
        magnitudes_((size_t)waiting_ * sizes.Magnitudes()),
        waveform_(sizes.fft, sizes.hop, sizes.Frames()) {
    for (const int dilation : Guide::kDilations) {
      inputs_.emplace_back((Guide::kDilatedTaps - 1) * dilation + 1, sizes.channels);
      residuals_.emplace_back(Guide::Ahead(Guide::kDilatedTaps, dilation) + 1, sizes.channels);
    }
  }

  // Latent frames that must be pushed behind one before `Next` can give its waveform.
  static int AheadFrames(const GuideSizes& sizes) {
    int ahead = Guide::Ahead(Guide::kFirstTaps, 1) + Guide::Ahead(Guide::kLastTaps, 1);
    for (const int dilation : Guide::kDilations) {
      ahead += Guide::Ahead(Guide::kDilatedTaps, dilation);
    }
    return ahead + AheadOfPhases(sizes);
  }

  // Numbers that it keeps.
  static double NeededFloats(const GuideSizes& sizes) {
    const double pasts = 4 * Guide::kDilations[std::size(Guide::kDilations) - 1] + 64;
    return pasts * (sizes.channels + kPanel) +
           (AheadOfPhases(sizes) + 2.) * (sizes.Magnitudes() + kPanel) +
           GriffinLim::NeededFloats(sizes.fft, sizes.hop, sizes.Frames());
  }

  // Begins a recording, by a guide that must live as long as it is played.
  void Begin(const Guide& guide) {
    guide_ = &guide;
    for (Past* past : {&latents_, &last_}) past->Reset();
    for (Past& past : inputs_) past.Reset();
    for (Past& past : residuals_) past.Reset();
    waveform_.Reset();
    time_ = 0;
    end_ = std::numeric_limits<int64_t>::max();
    num_waiting_ = 0;
  }

  // Takes the next latent frame; nullptr behind the recording's last.
  void Push(const float* latent) {
    if (!latent) end_ = std::min(end_, time_);
    latents_.Set(time_, latent);
    int64_t time = time_++ - guide_->first.ahead;
    const bool is_inside = Convolve(guide_->first, latents_, time, features_.data());
    const float* x = is_inside ? features_.data() : nullptr;
    for (size_t layer = 0; layer < guide_->dilated.size(); ++layer) {
      residuals_[layer].Set(time, x);
      inputs_[layer].Set(time, x);
      inputs_[layer].Activate(time);
      time -= guide_->dilated[layer].ahead;
      x = Mix(layer, time) ? features_.data() : nullptr;
    }
    last_.Set(time, x);
    last_.Activate(time);
    time -= guide_->last.ahead;
    if (time < 0) return;
    float* magnitudes = magnitudes_.data() + (size_t)num_waiting_++ * sizes_.Magnitudes();
    if (Convolve(guide_->last, last_, time, predicted_.data())) {
      std::copy(predicted_.begin(), predicted_.begin() + sizes_.Magnitudes(), magnitudes);
    } else {
      std::fill(magnitudes, magnitudes + sizes_.Magnitudes(), std::log(GriffinLim::kQuietest));
    }
  }

  // Sets the samples of the next latent frame, clipped to [-1, 1].
  void Next(float* waveform) {
    waveform_.Extend(magnitudes_.data(), waveform);
    for (int t = 0; t < sizes_.pool; ++t) waveform[t] = std::clamp(waveform[t], -1.f, 1.f);
    std::copy(magnitudes_.begin() + sizes_.Magnitudes(), magnitudes_.end(), magnitudes_.begin());
    --num_waiting_;
  }

 private:
  // Features of the last latent frames; zero before the first.
  struct Past {
    Past(int length, int channels)
        : length(length), channels(channels), rows((size_t)length * channels) {}

    void Reset() { std::fill(rows.begin(), rows.end(), 0.f); }
    float* Row(int64_t time) {
      return rows.data() + (size_t)((time % length + length) % length) * channels;
    }
    // `row`: nullptr for zeros.
    void Set(int64_t time, const float* row) {
      if (row) {
        std::copy(row, row + channels, Row(time));
      } else {
        std::fill(Row(time), Row(time) + channels, 0.f);
      }
    }
    // Brings a row to mean 0 and variance 1, and applies ReLU.
    void Activate(int64_t time) {
      float* row = Row(time);
      float mean = 0, square = 0;
      for (int j = 0; j < channels; ++j) {
        mean += row[j] / (float)channels;
        square += row[j] * row[j] / (float)channels;
      }
      const float scale = 1 / std::sqrt(std::max(square - mean * mean, 0.f) + 1e-6f);
      for (int j = 0; j < channels; ++j) row[j] = std::max((row[j] - mean) * scale, 0.f);
    }

    int length, channels;
    std::vector<float> rows;
  };

  // Latent frames whose magnitudes must be known behind those whose sound is asked for.
  static int AheadOfPhases(const GuideSizes& sizes) {
    const int frames = sizes.Frames();
    return (GriffinLim::AheadFrames(sizes.fft, sizes.hop) + frames - 1) / frames;
  }

  // Sets a convolution's output at a time; false where that lies outside the recording.
  bool Convolve(const GuideConvolution& convolution, Past& past, int64_t time, float* out) {
    if (time < 0 || time >= end_) return false;
    const int num_taps = (int)convolution.taps.size();
    const std::vector<float>& bias = convolution.taps[0].bias;
    std::copy(bias.begin(), bias.end(), out);
    for (int tap = 0; tap < num_taps; ++tap) {
      const int64_t from =
          time + convolution.ahead - (int64_t)(num_taps - 1 - tap) * convolution.dilation;
      convolution.taps[tap].Weights().Add(past.Row(from), past.channels, 1, out, 0, rounded_);
    }
    return true;
  }

  // Sets the features behind a residual layer at a time; false outside the recording.
  bool Mix(size_t layer, int64_t time) {
    if (!Convolve(guide_->dilated[layer], inputs_[layer], time, hidden_.data())) return false;
    for (float& value : hidden_) value = std::max(value, 0.f);
    const Affine& mix = guide_->mixes[layer];
    std::copy(mix.bias.begin(), mix.bias.end(), features_.begin());
    mix.Weights().Add(hidden_.data(), 0, 1, features_.data(), 0, rounded_);
    const float* residual = residuals_[layer].Row(time);
    for (int j = 0; j < sizes_.channels; ++j) features_[j] += residual[j];
    return true;
  }

  const GuideSizes sizes_;
  const int waiting_;  // Latent frames whose magnitudes are kept, at most.
  const Guide* guide_ = nullptr;
  Past latents_, last_;
  std::vector<Past> inputs_, residuals_;
  std::vector<float> features_, hidden_, predicted_;
  std::vector<float> magnitudes_;
  GriffinLim waveform_;
  Rounded<Float> rounded_;
  int num_waiting_ = 0;
  int64_t time_ = 0;  // Of the next latent frame.
  int64_t end_ = 0;
};

}  // namespace umt

#endif  // UMT_JAX_CORE_GUIDE_H_
