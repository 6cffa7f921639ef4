// Threads that work on one sample together, and how many of them are worth it.

#ifndef UMT_JAX_CORE_THREADS_H_
#define UMT_JAX_CORE_THREADS_H_

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#include "umt_jax/core/matrix.h"

namespace umt {

// Where all threads of a team wait for the last. They do so actively, since what they wait for
// comes within microseconds; one whose core was given to another process is waited for by leaving
// the core to others as well.
//
// Each counts its arrivals in a cache line of its own, which the others read: a line has to travel
// between cores once, where a shared count travels to each that arrives, and its result back.
class Barrier {
 public:
  explicit Barrier(int members) : arrivals_(members) {}

  void Wait(int member) {
    const unsigned mine = arrivals_[member].count.load(std::memory_order_relaxed) + 1;
    arrivals_[member].count.store(mine, std::memory_order_release);
    for (const Arrivals& others : arrivals_) {
      // Another may have arrived at the next wait already, but not at the one after.
      auto is_missing = [&] {
        return (int)(others.count.load(std::memory_order_acquire) - mine) < 0;
      };
      for (int pauses = 0; is_missing(); ++pauses) {
        if (pauses < kMostPauses) {
          Pause();
        } else {
          std::this_thread::yield();
        }
      }
    }
  }

 private:
  static constexpr int kMostPauses = 500;  // Some 2 to 40 us, by the processor.

  static void Pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  struct alignas(kCacheLine) Arrivals {
    std::atomic<unsigned> count{0};
  };

  std::vector<Arrivals> arrivals_;
};

// What the threads of a team share.
struct Team {
  explicit Team(int members) : members(members), barrier(members) {}

  const int members;
  Barrier barrier;
  bool is_slow = false;  // Set by one while the others wait.
};

// One thread of a team; see `Alone` in `decoder.h`.
struct Member {
  int index;
  Team* team;
  bool is_one_of_two = team->members == 2;

  Range Share(int count) const {
    return {count * index / team->members, count * (index + 1) / team->members};
  }
  void Wait() const { team->barrier.Wait(index); }
};

inline double Seconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

// The fastest number of threads for pieces of one kind, as measured: the first pieces are done by
// each number in turn, and again from time to time, since other processes come and go.
class FastestThreads {
 public:
  explicit FastestThreads(int most) {
    for (int threads = 1; threads < most; threads *= 2) trials_.push_back({threads});
    trials_.push_back({most});
  }

  struct Plan {
    int threads;
    double alone_s;  // What a piece takes one thread, infinity while that is not known.
  };

  // Returns by how many threads the next piece is to be done.
  Plan Next() {
    const std::lock_guard<std::mutex> lock(mutex_);
    const int measured = kRounds * (int)trials_.size(), piece = piece_++ % kPieces;
    if (piece == 0) {
      for (Trial& trial : trials_) trial = {trial.threads};
    }
    const auto best = std::min_element(trials_.begin(), trials_.end());
    const auto next = piece < measured ? trials_.begin() + piece % trials_.size() : best;
    return {(next->is_slow ? best : next)->threads, trials_[0].seconds};
  }

  // Notes what a piece took by so many threads; `is_slow` if they did not do it to the end.
  void Record(int threads, double seconds, bool is_slow) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (Trial& trial : trials_) {
      if (trial.threads != threads) continue;
      if (!is_slow) trial.seconds = std::min(trial.seconds, seconds);
      trial.is_slow |= is_slow;
    }
  }

 private:
  static constexpr int kRounds = 3, kPieces = 1000;

  struct Trial {
    int threads;
    double seconds = std::numeric_limits<double>::infinity();  // The least that a piece took.
    bool is_slow = false;

    bool operator<(const Trial& other) const {
      return is_slow == other.is_slow ? seconds < other.seconds : other.is_slow;
    }
  };

  std::mutex mutex_;
  std::vector<Trial> trials_;
  int piece_ = 0;
};

}  // namespace umt

#endif  // UMT_JAX_CORE_THREADS_H_
