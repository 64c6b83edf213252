// Which part of the work owns which planes of an accumulator.
#pragma once

#include "tiltwise/base/hd.hpp"  // for TW_HD

#include <cstdint>  // for int32_t

namespace tiltwise {

/// Planes are dealt to the parts in blocks, in turn: slices crowd around frequency zero, and contiguous
/// slabs would leave most of the work to two of them.  Every voxel has one owner, which adds its samples
/// in one order, so sums do not depend on the number of parts.
struct Slabs {
  static constexpr std::int32_t planes_per_block = 4;
  std::int32_t parts;

  TW_HD std::int32_t owner(std::int32_t plane) const { return (plane / planes_per_block) % parts; }
};

}  // namespace tiltwise
