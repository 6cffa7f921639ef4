// Pushes and pulls sound where the kernel kills the process at any system call but read, write and
// exit, and counts allocations. A second argument, `open` or `allocate`, does what is forbidden.
// Compiled with RATE_HZ, sound comes at that rate.

#include <fcntl.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "umt_jax/core/umt.h"
#ifdef RATE_HZ
#include "umt_jax/core/umt_rate.h"
#endif

static bool is_counting = false;
static long num_allocations = 0;

extern "C" void* __libc_malloc(size_t bytes);
extern "C" void* malloc(size_t bytes) {
  num_allocations += is_counting;
  return __libc_malloc(bytes);
}

int main(int argc, char** argv) {
  std::vector<char> file;
  FILE* input = std::fopen(argv[1], "rb");
  for (int byte; (byte = std::fgetc(input)) != EOF;) file.push_back((char)byte);
  std::fclose(input);
  char error[200], line[100];
  umt_model* model = umt_model_load(file.data(), file.size(), 1 << 30, error, sizeof error);
  if (!model) return 2;
  umt_stream* stream = umt_stream_new(model);
#ifdef RATE_HZ
  umt_rated* rated = umt_rated_new(model, stream, RATE_HZ);
  const auto push = [=](const float* from, int64_t count) {
    return umt_rated_push(rated, from, count);
  };
  const auto pull = [=](float* to, int64_t count) { return umt_rated_pull(rated, to, count); };
  const auto end = [=] { umt_rated_restart(rated); };
#else
  const auto push = [=](const float* from, int64_t count) {
    return umt_stream_push(stream, from, count);
  };
  const auto pull = [=](float* to, int64_t count) { return umt_stream_pull(stream, to, count); };
  const auto end = [=] { umt_stream_finish(stream); };
#endif
  float samples[64];
  long num_pulled = 0;
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) return 3;
  is_counting = true;
  for (int block = 0; block < 250; ++block) {
    for (int i = 0; i < 64; ++i) samples[i] = std::sin(0.1f * (float)(block * 64 + i));
    if (block == 100) umt_stream_set_domain(stream, 1);
    if (block == 150) umt_stream_set_seed(stream, 5), umt_stream_set_top_p(stream, 0.9f);
    push(samples, 64);
    num_pulled += pull(samples, 64);
  }
  if (argc > 2 && !std::strcmp(argv[2], "open")) open("/dev/null", O_RDONLY);
  if (argc > 2 && !std::strcmp(argv[2], "allocate")) {
    void* volatile memory = malloc(1);
    (void)memory;
  }
  end();
  for (long count; (count = (long)pull(samples, 64)) > 0;) num_pulled += count;
  umt_stream_reset(stream);
  is_counting = false;
  const int length = std::snprintf(line, sizeof line, "%ld samples, %ld allocations\n", num_pulled,
                                   num_allocations);
  if (write(1, line, length) != length) syscall(SYS_exit, 4);
  syscall(SYS_exit, 0);  // Not exit_group, which is forbidden too.
}
