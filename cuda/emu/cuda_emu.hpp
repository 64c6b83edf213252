// Executes CUDA kernels on the CPU, for tests: what <cuda_runtime.h> is under nvcc.
//
// One fiber per CUDA thread, blocks in turn.  The portable subset: threadIdx and its kin, TW_SHARED and
// TW_DYN_SHARED, __syncthreads, __syncwarp, shuffles and votes with the full mask, atomics, __ldg.
// Reported as errors of the launch, with kernel, block and thread: divergent barriers, shuffles from
// lanes that are not there, writes beside device or shared memory, and, with the hooks of races.hpp,
// every race and every access outside device memory.  Reads before writes see NaN.
#pragma once

#include "atomics.hpp"  // for atomicAdd and its kin
#include "block.hpp"    // for thread_index and its kin
#include "runtime.hpp"  // for the API and launch
#include "types.hpp"    // for keywords
#include "warp.hpp"     // for barriers, shuffles, votes

#define threadIdx (::cuda_emu::thread_index())
#define blockIdx (::cuda_emu::block_index())
#define blockDim (::cuda_emu::block_extent())
#define gridDim (::cuda_emu::grid_extent())

template <class T>
T __ldg(const T* address) {
  return *address;
}

namespace cuda_emu {

/// The shared array that belongs to a TW_SHARED declaration, which the type of `Tag` identifies.
template <class T, class Tag>
T& shared_array(Tag) {
  static char tag = 0;  // its address is the name
  return *static_cast<T*>(static_shared(&tag, sizeof(T)));
}

}  // namespace cuda_emu
