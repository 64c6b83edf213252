// Barriers, shuffles and votes.
#pragma once

#include "block.hpp"  // for shuffle_bits, ballot, barriers

#include <cstdint>      // for uint64_t
#include <cstring>      // for memcpy
#include <type_traits>  // for is_arithmetic

namespace cuda_emu {

template <class T>
T shuffle(unsigned mask, T value, unsigned source) {
  static_assert(std::is_arithmetic<T>::value && sizeof(T) >= 4, "CUDA shuffles numbers of 4 or 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = shuffle_bits(mask, bits, source);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace cuda_emu

inline void __syncthreads() {
  cuda_emu::block_barrier();
}

inline void __syncwarp(unsigned mask = cuda_emu::full_mask) {
  cuda_emu::warp_barrier(mask);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source) {
  return cuda_emu::shuffle(mask, value, static_cast<unsigned>(source) % cuda_emu::warp_size);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta) {
  const unsigned source = cuda_emu::lane() + delta;
  return cuda_emu::shuffle(mask, value, source < cuda_emu::warp_size ? source : cuda_emu::lane());
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta) {
  const unsigned me = cuda_emu::lane();
  return cuda_emu::shuffle(mask, value, me >= delta ? me - delta : me);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
  return cuda_emu::shuffle(mask, value, (cuda_emu::lane() ^ static_cast<unsigned>(bits)) % cuda_emu::warp_size);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return cuda_emu::ballot(mask, predicate != 0);
}

inline int __any_sync(unsigned mask, int predicate) {
  return cuda_emu::ballot(mask, predicate != 0) != 0;
}

inline int __all_sync(unsigned mask, int predicate) {
  const unsigned votes = cuda_emu::ballot(mask, predicate != 0);
  return votes == cuda_emu::live_lanes();
}
