// Shares the streams of several decoders, and the products of each, out among threads.

#ifndef UMT_JAX_CORE_GENERATE_H_
#define UMT_JAX_CORE_GENERATE_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "umt_jax/core/decoder.h"
#include "umt_jax/core/int8.h"
#include "umt_jax/core/threads.h"

namespace umt {

// Generates a piece as one member of a team; the first member does the rest where it is slow.
template <typename Weight>
void RunInTeam(const Work<Weight>& work, const Member& member, double start, double alone_s,
               typename Work<Weight>::Buffers& buffers) {
  constexpr int kPatience = 16;  // So many samples may be late at first.
  const int samples = work.sizes.samples;
  for (int t = 0; t < samples && !member.team->is_slow; ++t) {
    work.Run(buffers, t, t + 1, member);
    if (member.index == 0) {
      member.team->is_slow = Seconds() - start > 2 * alone_s * (t + kPatience) / samples;
    }
    member.Wait();
    if (member.team->is_slow && member.index == 0) work.Run(buffers, t + 1, samples, Alone());
  }
}

// Whatever `threads` is, the codes are the same, bit for bit. A team that takes more than twice as
// long as one thread alone, which takes `alone_s`, has lost a core to another process: one of its
// threads does the rest. Returns whether no team had to.
template <typename Weight>
bool Generate(Sizes sizes, int threads, double alone_s, const Weight* weights, int64_t num_weights,
              const float* biases, int64_t num_biases, const float* gates, const float* head,
              const float* noise, float* rows, float* inputs, const int32_t* clock, Nucleus nucleus,
              uint8_t* codes) {
  // Each decoder's streams are shared out where there are more threads than decoders. Not one by
  // one: products sum a single row in another order, and it would read all weights for itself.
  const int groups = std::clamp(threads / sizes.domains, 1, std::max(1, sizes.streams / 2));
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
  const int num_works = (int)works.size();
  // Where there are more threads than that, several share out every product of the same streams.
  const int members = std::clamp(threads / num_works, 1, works[0].MostThreads());
  std::deque<typename Work<Weight>::Buffers> buffers;
  std::deque<Team> teams;
  for (int i = 0; i < num_works && members > 1; ++i) {
    buffers.emplace_back(works[i], members);
    teams.emplace_back(members);
  }
  const int count = std::min(threads, num_works * members);
  const double start = Seconds();
  auto run = [&](int worker) {
    if (members > 1) {
      const int i = worker / members;
      const Member member{worker % members, &teams[i]};
      RunInTeam(works[i], member, start, alone_s, buffers[i]);
      return;
    }
    for (int i = worker; i < num_works; i += count) {
      typename Work<Weight>::Buffers own(works[i]);
      works[i].Run(own, 0, sizes.samples, Alone());
    }
  };
  std::vector<std::thread> workers;
  for (int worker = 1; worker < count; ++worker) workers.emplace_back(run, worker);
  run(0);
  for (std::thread& worker : workers) worker.join();
  return std::none_of(teams.begin(), teams.end(), [](const Team& team) { return team.is_slow; });
}

// Types in which weights are kept, in the order of `packing.TYPES`.
enum WeightType { kFloat32, kBfloat16, kInt8 };

// A latent frame of K decoders of B streams each. Sizes of arrays are those of `Work`, after K.
struct Frame {
  Sizes sizes;
  WeightType type;
  const void* weights;
  int64_t weight_bytes;  // Of one decoder.
  const float* biases;
  int64_t num_biases;  // Of one decoder.
  const float *gates, *head, *noise;
  float *rows, *inputs;
  const int32_t* clock;  // [K].
  Nucleus nucleus;
  uint8_t* codes;
};

// What was measured of frames of these sizes, until the process ends.
inline FastestThreads& Fastest(const Sizes& s, int type, int most) {
  static std::mutex mutex;
  static std::map<std::vector<int>, FastestThreads> fastest;
  const std::lock_guard<std::mutex> lock(mutex);
  const std::vector<int> kind{s.domains,  s.streams, s.samples, s.blocks, s.layers,
                              s.channels, s.skips,   type,      most};
  return fastest.try_emplace(kind, most).first->second;
}

template <typename Weight>
void GenerateFrame(const Frame& f, int threads, int most_threads) {
  FastestThreads& fastest = Fastest(f.sizes, f.type, most_threads);
  const double never = std::numeric_limits<double>::infinity();
  const auto plan = threads > 0 ? FastestThreads::Plan{threads, never} : fastest.Next();
  const double start = Seconds();
  const bool is_whole =
      Generate(f.sizes, plan.threads, plan.alone_s, (const Weight*)f.weights,
               f.weight_bytes / (int64_t)sizeof(Weight), f.biases, f.num_biases, f.gates, f.head,
               f.noise, f.rows, f.inputs, f.clock, f.nucleus, f.codes);
  fastest.Record(plan.threads, Seconds() - start, !is_whole);
}

// Generates it by so many threads; by as many as are measured to be the fastest, up to
// `most_threads`, where that is 0.
inline void GenerateFrame(const Frame& frame, int threads, int most_threads) {
  switch (frame.type) {
    case kFloat32:
      return GenerateFrame<Float>(frame, threads, most_threads);
    case kBfloat16:
      return GenerateFrame<Bfloat16>(frame, threads, most_threads);
    case kInt8:
      return GenerateFrame<MostlyInt8>(frame, threads, most_threads);
  }
}

}  // namespace umt

#endif  // UMT_JAX_CORE_GENERATE_H_
