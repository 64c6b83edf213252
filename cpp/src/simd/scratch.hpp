// Working memory of a kernel call.
#pragma once

#include "tiltwise/kernel/abi.hpp"  // for ErrorText

#include <cstdint>  // for int64_t

namespace tiltwise::simd {

/// Aligned memory for every thread of a call, taken before the parallel loop and freed with the object.
/// Defined outside the per-level files, which must not instantiate library containers.
class Scratch {
 public:
  Scratch(std::int64_t bytes_per_thread, std::int32_t threads);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  /// Start of a thread's part; a multiple of 64 bytes.
  void* of_thread(int thread) const;

  /// False, with a message, when there was no memory.
  bool usable(const char* kernel, ErrorText* error) const;

 private:
  std::int64_t stride_;
  std::int64_t bytes_;
  unsigned char* memory_;
};

}  // namespace tiltwise::simd
