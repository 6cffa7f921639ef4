// Generates one latent frame of K decoders on a CPU: `native.py` packs the weights, builds this
// file and calls it through XLA's foreign function interface. The decoder is that of `core`.

#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "umt_jax/core/generate.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

using Floats = ffi::Buffer<ffi::F32>;

// What was measured of frames of these sizes, until the process ends.
umt::FastestThreads& Fastest(const umt::Sizes& s, int bytes_per_weight, int most) {
  static std::mutex mutex;
  static std::map<std::vector<int>, umt::FastestThreads> fastest;
  const std::lock_guard<std::mutex> lock(mutex);
  const std::vector<int> kind{s.domains,  s.streams, s.samples,        s.blocks, s.layers,
                              s.channels, s.skips,   bytes_per_weight, most};
  return fastest.try_emplace(kind, most).first->second;
}

ffi::Error GenerateFrame(int64_t blocks, int64_t layers, int64_t skips, int64_t block_samples,
                         int64_t threads, int64_t most_threads, ffi::AnyBuffer weights,
                         Floats biases, Floats gates, Floats head, Floats noise, Floats rows_in,
                         Floats inputs_in, ffi::Buffer<ffi::S32> clock,
                         Floats temperature_and_top_p, ffi::Result<ffi::Buffer<ffi::U8>> codes,
                         ffi::Result<Floats> rows, ffi::Result<Floats> inputs) {
  const auto shape = rows_in.dimensions();
  const auto times = noise.dimensions();
  const umt::Sizes sizes{(int)shape[0], (int)shape[2], (int)times[0],
                         (int)shape[1], (int)blocks,   (int)layers,
                         (int)shape[3], (int)skips,    (int)block_samples};
  // XLA lets inputs and outputs share memory; where it does not, the state is copied.
  if (rows->typed_data() != rows_in.typed_data()) {
    std::memcpy(rows->typed_data(), rows_in.typed_data(), rows_in.size_bytes());
  }
  if (inputs->typed_data() != inputs_in.typed_data()) {
    std::memcpy(inputs->typed_data(), inputs_in.typed_data(), inputs_in.size_bytes());
  }
  const int64_t num_biases = biases.dimensions()[1];
  const float* numbers = temperature_and_top_p.typed_data();
  const umt::Nucleus nucleus{numbers[0], numbers[1]};
  auto generate = [&](const auto* data) {
    const int64_t num_weights = weights.size_bytes() / sizes.domains / sizeof *data;
    auto& fastest = Fastest(sizes, sizeof *data, (int)most_threads);
    const double never = std::numeric_limits<double>::infinity();
    const auto plan = threads > 0 ? umt::FastestThreads::Plan{(int)threads, never} : fastest.Next();
    const double start = umt::Seconds();
    const bool is_whole = umt::Generate(
        sizes, plan.threads, plan.alone_s, data, num_weights, biases.typed_data(), num_biases,
        gates.typed_data(), head.typed_data(), noise.typed_data(), rows->typed_data(),
        inputs->typed_data(), clock.typed_data(), nucleus, codes->typed_data());
    fastest.Record(plan.threads, umt::Seconds() - start, !is_whole);
  };
  if (weights.element_type() == ffi::F32) {
    generate(reinterpret_cast<const umt::Float*>(weights.untyped_data()));
  } else if (weights.element_type() == ffi::BF16) {
    generate(reinterpret_cast<const umt::Bfloat16*>(weights.untyped_data()));
  } else {
    return ffi::Error::InvalidArgument("weights must be float32 or bfloat16");
  }
  return ffi::Error::Success();
}

}  // namespace

// Asks the system to keep memory in huge pages: the weights are read from end to end for every
// sample, and processors fetch ahead within a page alone. Where that cannot be, nothing changes.
extern "C" void umt_prefer_huge_pages(void* memory, uint64_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t kHugePage = 2 << 20;  // Of x86-64, and of ARM with pages of 4 KiB.
  // By number, since older headers lack the second: MADV_HUGEPAGE and MADV_COLLAPSE (from Linux
  // 6.1 on) of Linux's include/uapi/asm-generic/mman-common.h.
  constexpr int kHuge = 14, kCollapse = 25;
  const uintptr_t begin = ((uintptr_t)memory + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = ((uintptr_t)memory + bytes) / kHugePage * kHugePage;
  if (begin >= end) return;
  madvise((void*)begin, end - begin, kHuge);
  madvise((void*)begin, end - begin, kCollapse);
#else
  (void)memory, (void)bytes;
#endif
}

extern "C" int umt_register_columns() { return umt::kWidth; }
extern "C" int umt_panel_columns() { return umt::kPanel; }
extern "C" int umt_bfloat16_depth() { return umt::Bfloat16::kDepth; }

XLA_FFI_DEFINE_HANDLER_SYMBOL(umt_generate_frame, GenerateFrame,
                              ffi::Ffi::Bind()
                                  .Attr<int64_t>("blocks")
                                  .Attr<int64_t>("layers")
                                  .Attr<int64_t>("skips")
                                  .Attr<int64_t>("block_samples")
                                  .Attr<int64_t>("threads")
                                  .Attr<int64_t>("most_threads")
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<Floats>()
                                  .Ret<ffi::Buffer<ffi::U8>>()
                                  .Ret<Floats>()
                                  .Ret<Floats>());
