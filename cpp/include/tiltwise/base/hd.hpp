// Marks functions that run on host and device.
#pragma once

// Always inlined: a body is compiled once per instruction-set level, and an out-of-line copy built for
// one level must never be picked by the linker for another.
#if defined(__CUDACC__)
#define TW_HD __host__ __device__ __forceinline__
#else
#define TW_HD __attribute__((always_inline)) inline
#endif
