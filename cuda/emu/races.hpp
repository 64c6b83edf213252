// Who touched which word of memory during a launch: finds data races and stray addresses exactly, also
// those that no schedule of the emulator makes visible.
//
// The kernels are compiled with -fsanitize=thread, which calls a hook before every memory access; the
// hooks are ours (races.cpp), the library of the sanitizer is not linked.  Without that option only the
// accesses of atomics are seen and races are left to the shuffled schedules.
#pragma once

#include <cstddef>  // for size_t
#include <cstdint>  // for uint32_t, uint64_t
#include <vector>   // for vector

namespace cuda_emu {

/// One access of a CUDA thread to a word.
struct Access {
  std::uint64_t block = 0;
  std::uint32_t launch = 0;  ///< 0: none
  std::uint32_t thread = 0;
  std::uint32_t epoch = 0;       ///< block barriers passed
  std::uint32_t warp_syncs = 0;  ///< __syncwarp passed
  bool atomic = false;
};

/// The last accesses to one word.  Two readers are enough: a writer differs from at least one of them.
struct Word {
  Access write, read[2];
};

/// One entry per four bytes, made when the first access comes.
class Shadow {
 public:
  /// False when the access races with an earlier one, which is stored in `other`.
  bool record(std::size_t offset, std::size_t bytes, std::size_t extent, const Access& access, bool is_write,
              bool shared, Access* other);

 private:
  std::vector<Word> words_;
};

/// Records an access of the running CUDA thread; on the host it does nothing.
void record_access(const void* address, std::size_t bytes, bool is_write, bool is_atomic);

}  // namespace cuda_emu
