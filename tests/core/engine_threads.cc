// Several instances, each in a host's thread of its own that does not wait, for runs under the
// thread and the address sanitizer and valgrind: MODEL SECONDS. Prints dropouts, which may be any.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "umt_jax/core/plugins/engine.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const double seconds = std::atof(argv[2]);
  std::vector<std::thread> hosts;
  for (int rate_hz : {44100, 48000, 96000}) {
    hosts.emplace_back([=] {
      umt::Engine engine(argv[1], rate_hz, 4096);
      std::vector<float> in(4096), out(4096);
      double energy = 0;
      int64_t time = 0;
      for (int block = 0; time < seconds * rate_hz; ++block) {
        const int64_t count = 32 << block % 8;
        for (int64_t i = 0; i < count; ++i) in[i] = (float)(0.5 * std::sin(0.05 * (double)time++));
        if (block % 50 == 7) in[0] = NAN;
        engine.SetDomain(block / 20 % 3);
        engine.SetTemperature((float)(block % 3));
        engine.Process(in.data(), out.data(), count, 0.9f, 1, block % 100 < 50);
        for (int64_t i = 0; i < count; ++i) energy += out[i] * out[i];
      }
      std::printf("%d Hz: %s, latency %.3f s, %lld dropouts\n", rate_hz,
                  energy > 0 && std::isfinite(energy) ? "sound" : "no sound",
                  (double)engine.latency() / rate_hz, (long long)engine.num_dropouts());
    });
  }
  for (std::thread& host : hosts) host.join();
  umt::Engine missing("no such file", 48000, 64);
  float sample = 1;
  missing.Process(&sample, &sample, 1, 1, 1, true);
  std::printf("%s %g\n", missing.error().c_str(), sample);
}
