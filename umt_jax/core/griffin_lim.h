// A waveform on its way out of its spectrogram, whose phases are estimated: one waveform of
// `umt_jax/audio/spectrogram.py`, which says how, and whose names these are.

#ifndef UMT_JAX_CORE_GRIFFIN_LIM_H_
#define UMT_JAX_CORE_GRIFFIN_LIM_H_

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>

#include "umt_jax/core/fourier.h"

namespace umt {

// It allocates nothing once it is made.
class GriffinLim {
 public:
  static constexpr float kQuietest = 1e-3f;

  // Frames that must be known behind those whose sound is asked for.
  static int AheadFrames(int size, int hop) { return Reach(size, hop) + kSettling; }

  // Numbers that it keeps.
  static double NeededFloats(int size, int hop, int count) {
    const double frames = 3. * Reach(size, hop) + count + kSettling;
    return frames * (size + 3. * hop + 5. * (size / 2 + 1)) + 12. * size;
  }

  // Gives the sound of `count` frames at a time, `hop` samples each, under windows of `size`.
  GriffinLim(int size, int hop, int count)
      : size_(size),
        hop_(hop),
        count_(count),
        bins_(size / 2 + 1),
        reach_(Reach(size, hop)),
        most_(2 * reach_ + count + AheadFrames(size, hop)),
        fourier_(size),
        window_(size),
        frames_((size_t)most_ * size),
        sum_((size_t)(most_ - 1) * hop + size),
        weights_(sum_.size()),
        windowed_(size),
        magnitudes_((size_t)(count + AheadFrames(size, hop)) * bins_),
        real_(magnitudes_.size()),
        imag_(magnitudes_.size()),
        real_before_(magnitudes_.size()),
        imag_before_(magnitudes_.size()),
        logs_(bins_),
        offsets_(bins_),
        below_(bins_),
        above_(bins_),
        phases_(bins_),
        own_(bins_) {
    for (int t = 0; t < size; ++t) {
      window_[t] = (float)(0.5 - 0.5 * std::cos(2 * M_PI * t / size));
    }
    Reset();
  }

  // Starts before the first frame.
  void Reset() {
    num_settled_ = 0;
    for (int64_t k = 0; k < bins_; ++k) {
      // Quadratic in the frequency: no two bins agree on a moment at which all is loud.
      phases_[k] = 2 * M_PI * std::fmod((double)(k * k) * kGoldenRatio, 1);
    }
  }

  // Takes log-magnitudes of `count` frames and of those ahead of them, with which the next call
  // begins; sets the next count * hop samples.
  void Extend(const float* log_magnitudes, float* waveform) {
    const int again = std::min(reach_, num_settled_), before = num_settled_ - again;
    const int num_new = count_ + reach_ + kSettling - again;
    for (int i = 0; i < num_new * bins_; ++i) {
      magnitudes_[i] = std::max(std::exp(log_magnitudes[again * bins_ + i]) - kQuietest, 0.f);
    }
    Improve(num_new);
    for (int frame = 0; frame < num_new - kSettling; ++frame) Place(frame, num_settled_ + frame);
    num_settled_ += num_new - kSettling;
    Weigh(num_settled_);
    Overlap(num_settled_);
    const float* sound = sum_.data() + size_ / 2 + before * hop_;
    std::copy(sound, sound + count_ * hop_, waveform);
    const int passed = std::max(0, num_settled_ - 2 * reach_);
    std::copy(frames_.begin() + (size_t)passed * size_,
              frames_.begin() + (size_t)num_settled_ * size_, frames_.begin());
    num_settled_ -= passed;
    const size_t last = (size_t)(num_new - kSettling - 1) * bins_;
    for (int k = 0; k < bins_; ++k) phases_[k] = std::atan2(imag_[last + k], real_[last + k]);
  }

 private:
  static constexpr int kSettling = 3;  // Improved with a stretch, and then again with the next.
  static constexpr int kIterations = 8;
  static constexpr float kMomentum = 0.99f;
  static constexpr double kGoldenRatio = 0.6180339887498949;

  static int Reach(int size, int hop) { return (size + 2 * hop - 1) / (2 * hop); }

  Spectrum Bins(int frame) {
    return {real_.data() + (size_t)frame * bins_, imag_.data() + (size_t)frame * bins_};
  }

  // Finds spectra of these magnitudes whose phases agree with each other and those that are
  // settled.
  void Improve(int num_new) {
    for (int frame = 0; frame < num_new; ++frame) Lead(frame);
    const int values = num_new * bins_;
    std::fill(real_before_.begin(), real_before_.end(), 0.f);
    std::fill(imag_before_.begin(), imag_before_.end(), 0.f);
    Weigh(num_settled_ + num_new);
    for (int iteration = 0; iteration < kIterations; ++iteration) {
      for (int frame = 0; frame < num_new; ++frame) Place(frame, num_settled_ + frame);
      Overlap(num_settled_ + num_new);
      // Before the first frame's centre there is silence.
      std::fill(sum_.begin(), sum_.begin() + size_ / 2, 0.f);
      for (int frame = 0; frame < num_new; ++frame) {
        const float* begin = sum_.data() + (size_t)(num_settled_ + frame) * hop_;
        for (int t = 0; t < size_; ++t) windowed_[t] = begin[t] * window_[t];
        fourier_.Forward(windowed_.data(), Bins(frame));
      }
      constexpr float kShare = kMomentum / (1 + kMomentum);
      for (int i = 0; i < values; ++i) {
        const float real = real_[i] - kShare * real_before_[i];
        const float imag = imag_[i] - kShare * imag_before_[i];
        real_before_[i] = real_[i];
        imag_before_[i] = imag_[i];
        const float scale = magnitudes_[i] / (std::sqrt(real * real + imag * imag) + 1e-16f);
        real_[i] = scale * real;
        imag_[i] = scale * imag;
      }
    }
  }

  // Sets a frame's spectrum with the phases to which those of the frame before lead.
  void Lead(int frame) {
    const float* magnitudes = magnitudes_.data() + (size_t)frame * bins_;
    for (int k = 0; k < bins_; ++k) logs_[k] = std::log(magnitudes[k] + kQuietest);
    FindPeaks();
    for (int k = 0; k < bins_; ++k) {
      const int below = below_[k], above = above_[k];
      int nearest = k - below <= above - k ? below : above;
      if (nearest < 0 || nearest >= bins_) nearest = k;
      // The window of a frame begins half its length before the frame's centre.
      const double sign = (k - nearest) % 2 ? M_PI : 0;
      const double advance = 2 * M_PI * hop_ / size_ * (nearest + (double)offsets_[nearest]);
      own_[k] = std::fmod(phases_[nearest] + advance + sign, 2 * M_PI);
    }
    phases_.swap(own_);
    const Spectrum bins = Bins(frame);
    for (int k = 0; k < bins_; ++k) {
      bins.real[k] = magnitudes[k] * (float)std::cos(phases_[k]);
      bins.imag[k] = magnitudes[k] * (float)std::sin(phases_[k]);
    }
  }

  // Finds for each bin the peaks at or next below and above it, far away where there are none, and
  // how far the top of each peak lies from its bin.
  void FindPeaks() {
    std::fill(offsets_.begin(), offsets_.end(), 0.f);
    below_[0] = -bins_;
    above_[bins_ - 1] = 2 * bins_;
    for (int k = 1; k < bins_; ++k) {
      below_[k] = below_[k - 1];
      if (k == bins_ - 1) break;
      const float left = logs_[k - 1], middle = logs_[k], right = logs_[k + 1];
      if (!(middle > left && middle >= right)) continue;
      below_[k] = k;
      offsets_[k] = 0.5f * (left - right) / std::min(left - 2 * middle + right, -1e-6f);
    }
    for (int k = bins_ - 2; k >= 0; --k) above_[k] = below_[k] == k ? k : above_[k + 1];
  }

  // Makes the samples under a window of a frame's spectrum.
  void Place(int frame, int place) {
    float* samples = frames_.data() + (size_t)place * size_;
    fourier_.Inverse(Bins(frame), samples);
    for (int t = 0; t < size_; ++t) samples[t] *= window_[t];
  }

  size_t Length(int num_frames) const { return (size_t)(num_frames - 1) * hop_ + size_; }

  // Sets `weights_` to the sum of the windows of so many frames, squared.
  void Weigh(int num_frames) {
    std::fill(weights_.begin(), weights_.begin() + Length(num_frames), FLT_MIN);
    for (int frame = 0; frame < num_frames; ++frame) {
      float* weights = weights_.data() + (size_t)frame * hop_;
      for (int t = 0; t < size_; ++t) weights[t] += window_[t] * window_[t];
    }
  }

  // Sets `sum_` to that of the first so many frames, divided by `weights_`, which are those of as
  // many; the first one's centre is at size / 2.
  void Overlap(int num_frames) {
    const size_t length = Length(num_frames);
    std::fill(sum_.begin(), sum_.begin() + length, 0.f);
    for (int frame = 0; frame < num_frames; ++frame) {
      const float* samples = frames_.data() + (size_t)frame * size_;
      float* sum = sum_.data() + (size_t)frame * hop_;
      for (int t = 0; t < size_; ++t) sum[t] += samples[t];
    }
    for (size_t t = 0; t < length; ++t) sum_[t] /= weights_[t];
  }

  const int size_, hop_, count_, bins_, reach_, most_;
  Fourier fourier_;
  std::vector<float> window_;
  std::vector<float> frames_;  // What is under the windows: first of frames whose phases stay.
  std::vector<float> sum_, weights_, windowed_;
  // Of the new frames.
  std::vector<float> magnitudes_, real_, imag_, real_before_, imag_before_;
  std::vector<float> logs_, offsets_;
  std::vector<int> below_, above_;
  std::vector<double> phases_, own_;
  int num_settled_;
};

}  // namespace umt

#endif  // UMT_JAX_CORE_GRIFFIN_LIM_H_
