// What plug-ins of every kind share: the host's audio thread moves samples through rings, and a
// thread of the plug-in translates them.

#ifndef UMT_JAX_CORE_PLUGINS_ENGINE_H_
#define UMT_JAX_CORE_PLUGINS_ENGINE_H_

#include <semaphore.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "umt_jax/core/plugins/ring.h"
#include "umt_jax/core/umt.h"
#include "umt_jax/core/umt_rate.h"

namespace umt {

// A model's file as it is played; made and freed outside the audio thread.
struct Player {
  umt_model* model = nullptr;
  umt_stream* stream = nullptr;
  std::string path, error;

  explicit Player(const std::string& path, size_t most_bytes) : path(path) {
    std::vector<char> file;
    if (FILE* input = std::fopen(path.c_str(), "rb")) {
      char block[1 << 16];
      for (size_t count; (count = std::fread(block, 1, sizeof block, input)) > 0;) {
        file.insert(file.end(), block, block + count);
        if (file.size() > most_bytes) break;
      }
      std::fclose(input);
    } else {
      error = "There is no file " + path + ".";
      return;
    }
    char message[500] = "";
    model = umt_model_load(file.data(), file.size(), most_bytes, message, sizeof message);
    if (model) stream = umt_stream_new(model);
    if (!stream) error = path + ": " + (model ? "There is not enough memory for it." : message);
  }
  ~Player() {
    if (stream) umt_stream_free(stream);
    if (model) umt_model_free(model);
  }
  Player(const Player&) = delete;
  Player& operator=(const Player&) = delete;
};

// What a host's knobs say; what is out of range or no number does no harm.
struct Controls {
  double domain, temperature, wet, level_db;
};

// One instance of a plug-in, mono.
class Engine {
 public:
  static constexpr size_t kMostBytes = (size_t)1 << 32;
  static constexpr double kSlackSeconds = 0.05;  // So much the worker may be late.

  // Loads a model; nothing is played where `error()` says why not.
  Engine(const std::string& path, double rate_hz, int most_block)
      : Engine(std::make_shared<Player>(path, kMostBytes), rate_hz, most_block) {}
  // Plays one that is loaded, and that no other engine plays at the same time.
  Engine(std::shared_ptr<Player> player, double rate_hz, int most_block)
      : rate_hz_((int)std::lround(std::clamp(rate_hz, 1., 1e6))),
        player_(std::move(player)),
        heard_(kRingSeconds * rate_hz_ + 4 * (int64_t)most_block),
        played_(kRingSeconds * rate_hz_ + 4 * (int64_t)most_block) {
    sem_init(&has_come_, 0, 0);
    if (!player_->stream) return;
    umt_stream_reset(player_->stream);
    rated_.reset(umt_rated_new(player_->model, player_->stream, rate_hz_));
    if (!rated_) {
      player_->error = "The rate of the host cannot be converted to that of the model.";
      return;
    }
    silence_ =
        umt_rated_latency(rated_.get()) + (int64_t)std::ceil(kSlackSeconds * rate_hz_) + most_block;
    latency_ = silence_ + std::llround(umt_rated_delay_s(rated_.get()) * rate_hz_);
    dry_.resize((size_t)latency_);
    worker_ = std::thread([this] { Work(); });
  }
  ~Engine() {
    is_ending_ = true;
    sem_post(&has_come_);
    if (worker_.joinable()) worker_.join();
    sem_destroy(&has_come_);
  }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const std::string& error() const { return player_->error; }
  const std::string& path() const { return player_->path; }
  int64_t latency() const { return latency_; }
  int64_t num_dropouts() const { return num_dropouts_; }

  // Of the audio thread, all that follow; each is heard from the next block on.

  // Forgets all sound: what was heard before is not played any more.
  void Reset() {
    std::fill(dry_.begin(), dry_.end(), 0.f);
    muted_ = latency_;
    reset_at_.store(num_heard_, std::memory_order_release);
  }
  // Plays a block as a host's controls say.
  void Process(const float* in, float* out, int64_t count, const Controls& controls, bool waits) {
    const double domain = controls.domain, level_db = controls.level_db;
    SetDomain(domain >= 0 && domain < 1e6 ? (int)std::lround(domain) : 0);
    if (std::isfinite(controls.temperature)) {
      SetTemperature((float)std::clamp(controls.temperature, 0., 1e6));
    }
    Process(
        in, out, count, std::isfinite(controls.wet) ? (float)std::clamp(controls.wet, 0., 1.) : 1.f,
        std::isfinite(level_db) ? (float)std::pow(10., std::min(level_db, 12.) / 20) : 1.f, waits);
  }
  void SetDomain(int domain) { domain_.store(domain, std::memory_order_relaxed); }
  void SetTemperature(float temperature) {
    temperature_.store(temperature, std::memory_order_relaxed);
  }

  // Fills `out` with the translation, `wet` of it, and the input, the rest, both as late as
  // `latency` says, times `level`. `waits`: the host renders a file and may be kept waiting.
  void Process(const float* in, float* out, int64_t count, float wet, float level, bool waits) {
    for (int64_t done = 0; done < count;) {
      const int64_t block = std::min<int64_t>(count - done, kBlock);
      Process(in + done, out + done, block, waits);
      for (int64_t i = 0; i < block; ++i) {
        float& sample = out[done + i];
        sample = level * (wet * sample + (1 - wet) * clean_[i]);
      }
      done += block;
    }
  }

 private:
  static constexpr int64_t kRingSeconds = 4, kBlock = 256;
  static constexpr int kMostWaited = 10;  // Seconds.

  // Leaves the translation in `out`, and the late input in `clean_`.
  void Process(const float* in, float* out, int64_t count, bool waits) {
    for (int64_t i = 0; i < count; ++i) clean_[i] = std::isfinite(in[i]) ? in[i] : 0.f;
    if (latency_ == 0) {  // No model: silence, and the input as it is.
      std::fill(out, out + count, 0.f);
      return;
    }
    const int64_t taken = heard_.Write(clean_, count), lost = count - taken;
    num_heard_ += taken;
    lost_ += lost;
    sem_post(&has_come_);
    for (int64_t i = 0; i < count; ++i) {
      std::swap(clean_[i], dry_[(size_t)dry_position_]);
      dry_position_ = (dry_position_ + 1) % latency_;
    }
    int64_t there = Fill(out, count);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(kMostWaited);
    while (waits && there < count && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      there += Fill(out + there, count - there);
    }
    std::fill(out + there, out + count, 0.f);
    const int64_t muted = std::min(muted_, count);
    std::fill(out, out + muted, 0.f);
    muted_ -= muted;
    late_ += count - there;
    if (lost || there < count) num_dropouts_.fetch_add(1, std::memory_order_relaxed);
  }

  // Takes what is there of the next `count` samples; returns how many.
  int64_t Fill(float* out, int64_t count) {
    // Silence for what nothing comes of, unless it has been played already.
    const int64_t missing = lost_ + left_out_.load(std::memory_order_relaxed) - made_up_;
    const int64_t already = std::min(missing, late_);
    made_up_ += missing;
    late_ -= already;
    silence_ += missing - already;
    const int64_t silence = std::min(silence_, count);
    silence_ -= silence;
    std::fill(out, out + silence, 0.f);
    late_ -= played_.Read(nullptr, late_);
    return silence + played_.Read(out + silence, late_ ? 0 : count - silence);
  }

  void Work() {
    float block[kBlock];
    int domain = -1;
    float temperature = -1;
    int64_t num_taken = 0, last_reset = 0;
    while (!is_ending_) {
      if (heard_.Available() > rate_hz_) {  // A second behind: the oldest is left out.
        const int64_t count = heard_.Read(nullptr, heard_.Available() - kBlock);
        num_taken += count;
        left_out_.fetch_add(count);
      }
      const int64_t reset_at = reset_at_.load(std::memory_order_acquire);
      if (reset_at > last_reset && num_taken >= reset_at) {
        // As many samples come as were pushed: what follows is as late as before.
        umt_rated_restart(rated_.get());
        Pull();
        last_reset = reset_at;
      }
      const int64_t most = num_taken < reset_at ? std::min(reset_at - num_taken, kBlock) : kBlock;
      const int64_t count = heard_.Read(block, most);
      num_taken += count;
      if (count == 0) {
        sem_wait(&has_come_);
        continue;
      }
      // What is not allowed changes nothing.
      const int wanted_domain = domain_.load(std::memory_order_relaxed);
      if (wanted_domain != domain) umt_stream_set_domain(player_->stream, wanted_domain);
      const float wanted_temperature = temperature_.load(std::memory_order_relaxed);
      if (wanted_temperature != temperature && wanted_temperature >= 0) {
        umt_stream_set_temperature(player_->stream, wanted_temperature);
      }
      domain = wanted_domain;
      temperature = wanted_temperature;
      for (int64_t pushed = 0; pushed < count;) {
        pushed += umt_rated_push(rated_.get(), block + pushed, count - pushed);
        Pull();
      }
    }
  }

  // Hands on all that the stream can generate.
  void Pull() {
    float generated[kBlock];
    for (int64_t made; (made = umt_rated_pull(rated_.get(), generated, kBlock)) > 0;) {
      played_.Write(generated, made);
    }
  }

  struct Free {
    void operator()(umt_rated* rated) const { umt_rated_free(rated); }
  };

  const int rate_hz_;
  std::shared_ptr<Player> player_;
  std::unique_ptr<umt_rated, Free> rated_;
  Ring heard_, played_;
  sem_t has_come_;
  std::atomic<bool> is_ending_{false};
  std::atomic<int> domain_{0};
  std::atomic<float> temperature_{-1};  // Below 0: the model's own.
  std::atomic<int64_t> num_dropouts_{0}, left_out_{0};
  std::atomic<int64_t> reset_at_{0};  // After so many samples of the input.
  // Of the audio thread.
  int64_t latency_ = 0, silence_ = 0, late_ = 0, lost_ = 0, made_up_ = 0, dry_position_ = 0;
  int64_t num_heard_ = 0, muted_ = 0;
  std::vector<float> dry_;
  float clean_[kBlock];
  std::thread worker_;
};

}  // namespace umt

#endif  // UMT_JAX_CORE_PLUGINS_ENGINE_H_
