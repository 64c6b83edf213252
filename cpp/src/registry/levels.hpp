// Kernel tables of the instruction-set levels this library was compiled for.
#pragma once

#include "tiltwise/kernel/abi.hpp"  // for KernelTable

namespace tiltwise::registry {

/// Lowest level first, ends with null.
extern const KernelTable* const level_tables[];

}  // namespace tiltwise::registry
