// Samples on their way from one thread to another, without locks.

#ifndef UMT_JAX_CORE_PLUGINS_RING_H_
#define UMT_JAX_CORE_PLUGINS_RING_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <vector>

namespace umt {

// For one thread that writes and one that reads. Counts only grow: 2^63 samples are enough.
class Ring {
 public:
  explicit Ring(int64_t capacity) : samples_((size_t)capacity) {}

  int64_t Available() const {
    return written_.load(std::memory_order_acquire) - read_.load(std::memory_order_acquire);
  }

  // Takes samples; returns how many: fewer where it is full.
  int64_t Write(const float* samples, int64_t count) {
    const int64_t written = written_.load(std::memory_order_relaxed);
    count = std::min(count, Capacity() - (written - read_.load(std::memory_order_acquire)));
    const int64_t start = written % Capacity(), first = std::min(count, Capacity() - start);
    std::memcpy(samples_.data() + start, samples, (size_t)first * sizeof(float));
    std::memcpy(samples_.data(), samples + first, (size_t)(count - first) * sizeof(float));
    written_.store(written + count, std::memory_order_release);
    return count;
  }

  // Removes up to `count` samples, into `samples` unless it is null; returns how many.
  int64_t Read(float* samples, int64_t count) {
    const int64_t read = read_.load(std::memory_order_relaxed);
    count = std::min(count, written_.load(std::memory_order_acquire) - read);
    const int64_t start = read % Capacity(), first = std::min(count, Capacity() - start);
    if (samples) {
      std::memcpy(samples, samples_.data() + start, (size_t)first * sizeof(float));
      std::memcpy(samples + first, samples_.data(), (size_t)(count - first) * sizeof(float));
    }
    read_.store(read + count, std::memory_order_release);
    return count;
  }

 private:
  int64_t Capacity() const { return (int64_t)samples_.size(); }

  std::vector<float> samples_;
  std::atomic<int64_t> written_{0}, read_{0};
};

}  // namespace umt

#endif  // UMT_JAX_CORE_PLUGINS_RING_H_
