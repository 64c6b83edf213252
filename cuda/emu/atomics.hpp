// Atomic operations.  Threads run one after the other between barriers, so plain updates are atomic; what
// is checked here is the address, and that no other thread updates it without an atomic.
#pragma once

#include "block.hpp"  // for check_alignment
#include "races.hpp"  // for record_access

namespace cuda_emu {

template <class T, class Update>
__attribute__((no_sanitize("thread"))) T atomic_update(T* address, Update update) {
  check_alignment(address, sizeof(T));
  record_access(address, sizeof(T), true, true);
  const T old = *address;
  *address = update(old);
  return old;
}

}  // namespace cuda_emu

// Overloads, not templates: only the types that a device has.
#define TW_EMU_ATOMIC(name, T, expression)                                            \
  inline T name(T* address, T value) {                                                \
    return ::cuda_emu::atomic_update(address, [value](T old) { return expression; }); \
  }
TW_EMU_ATOMIC(atomicAdd, int, old + value)
TW_EMU_ATOMIC(atomicAdd, unsigned, old + value)
TW_EMU_ATOMIC(atomicAdd, unsigned long long, old + value)
TW_EMU_ATOMIC(atomicAdd, float, old + value)
TW_EMU_ATOMIC(atomicAdd, double, old + value)
TW_EMU_ATOMIC(atomicMin, int, old < value ? old : value)
TW_EMU_ATOMIC(atomicMin, unsigned, old < value ? old : value)
TW_EMU_ATOMIC(atomicMin, unsigned long long, old < value ? old : value)
TW_EMU_ATOMIC(atomicMax, int, old > value ? old : value)
TW_EMU_ATOMIC(atomicMax, unsigned, old > value ? old : value)
TW_EMU_ATOMIC(atomicMax, unsigned long long, old > value ? old : value)
#undef TW_EMU_ATOMIC
