#include "simd/scratch.hpp"

#include <cstdio>   // for snprintf
#include <cstdlib>  // for aligned_alloc, free

namespace tiltwise::simd {

Scratch::Scratch(std::int64_t bytes_per_thread, std::int32_t threads)
    // One cache line more than needed keeps the threads' parts apart, and off the same cache sets.
    : stride_((bytes_per_thread + 63) / 64 * 64 + 64),
      bytes_(stride_ * (threads > 1 ? threads : 1)),
      memory_(static_cast<unsigned char*>(std::aligned_alloc(64, static_cast<std::size_t>(bytes_)))) {}

Scratch::~Scratch() {
  std::free(memory_);
}

void* Scratch::of_thread(int thread) const {
  return memory_ + stride_ * thread;
}

bool Scratch::usable(const char* kernel, ErrorText* error) const {
  if (memory_ == nullptr) {
    std::snprintf(error->text, sizeof error->text, "%s: no memory for %lld bytes of scratch", kernel,
                  static_cast<long long>(bytes_));
  }
  return memory_ != nullptr;
}

}  // namespace tiltwise::simd
