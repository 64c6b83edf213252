// Gather ("backward") insertion of slices, as relion_tomo_reconstruct_particle does it: parity mode only.
#pragma once

#include "tiltwise/math/complex.hpp"  // for ComplexF, ComplexD

#include <cstdint>  // for int64_t

namespace tiltwise {

/// Adds `n` slices to a half-complex volume: every voxel k with |k| <= limit[i] whose image p = M_i k lies less than
/// one pixel off the slice, |p_z| < 1, receives (1 - |p_z|) times the bilinear value of slice i at (p_x, p_y).
struct GatherArgs {
  const ComplexF* slices;  // (n, size, size / 2 + 1)
  const float* weights;    // same shape
  const double* matrices;  // (n, 3, 3): volume to slice
  const double* limits;    // (n)
  ComplexD* data;          // (size, size, size / 2 + 1), in and out
  double* weight;          // same shape, in and out
  std::int64_t size, n;
  std::int32_t threads;
};

/// Sums run over slices in order for every voxel: the result does not depend on the number of threads.
void gather_slices(const GatherArgs& args);

}  // namespace tiltwise
