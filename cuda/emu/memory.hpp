// Device memory of the emulator: host memory between red zones, filled with NaN.
#pragma once

#include "races.hpp"  // for Shadow

#include <cstddef>  // for size_t
#include <cstdint>  // for int64_t
#include <map>      // for map
#include <memory>   // for unique_ptr
#include <string>   // for string

namespace cuda_emu {

struct Allocation {
  std::unique_ptr<unsigned char[]> storage;  ///< red zone, payload, red zone
  unsigned char* data = nullptr;
  std::size_t bytes = 0;
  unsigned number = 0;  ///< in the order of cudaMalloc, for messages
  Shadow shadow;        ///< who touched what, in the running launch
};

/// All live allocations, by address.
class DeviceMemory {
 public:
  /// Null when the limit is reached.
  void* allocate(std::size_t bytes);
  /// False when `data` is no allocation.  Throws when its red zones were written.
  bool release(void* data);
  /// The allocation that holds the bytes; null when none does.
  Allocation* find(const void* address, std::size_t bytes);
  /// The allocation whose payload or red zones hold the address.
  Allocation* near(const void* address);
  void check_red_zones();

  std::size_t allocated_bytes() const { return allocated_; }
  /// Later allocations fail when the sum would exceed the limit; negative: no limit.
  void set_limit(std::int64_t bytes) { limit_ = bytes; }

 private:
  std::map<const unsigned char*, Allocation> allocations_;  ///< key: start of the payload
  std::size_t allocated_ = 0;
  std::int64_t limit_ = -1;
  unsigned count_ = 0;
};

}  // namespace cuda_emu
