// Shares the streams of several decoders, and the products of each, out among threads.

#ifndef UMT_JAX_CORE_GENERATE_H_
#define UMT_JAX_CORE_GENERATE_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <thread>
#include <vector>

#include "umt_jax/core/decoder.h"
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

}  // namespace umt

#endif  // UMT_JAX_CORE_GENERATE_H_
