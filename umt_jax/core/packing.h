// What Python must know to pack weights for this processor, and where it keeps them. To be included
// by one source of each library.

#ifndef UMT_JAX_CORE_PACKING_H_
#define UMT_JAX_CORE_PACKING_H_

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "umt_jax/core/int8.h"
#include "umt_jax/core/matrix.h"

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
// Products of 8-bit numbers that one instruction adds.
extern "C" int umt_int8_products() { return umt::kAddsFour ? 4 : 1; }

#endif  // UMT_JAX_CORE_PACKING_H_
