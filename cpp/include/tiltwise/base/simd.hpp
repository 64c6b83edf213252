// Vectors as wide as the instruction-set level the including file is compiled for.
#pragma once

#include "tiltwise/base/hd.hpp"  // for TW_HD

#include <cstdint>  // for int64_t

#if defined(__x86_64__)
#include <immintrin.h>  // for fused multiply-add
#elif defined(__ARM_NEON)
#include <arm_neon.h>  // for vfmaq_f32
#endif

namespace tiltwise::simd {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

constexpr int float_lanes = vector_bytes / 4;
constexpr int double_lanes = vector_bytes / 8;

typedef float VecF __attribute__((vector_size(vector_bytes)));
typedef double VecD __attribute__((vector_size(vector_bytes)));
typedef float HalfF __attribute__((vector_size(vector_bytes / 2)));  ///< as many lanes as VecD
typedef float Vec4F __attribute__((vector_size(16)));
typedef double Vec4D __attribute__((vector_size(32)));
typedef double Vec2D __attribute__((vector_size(16)));

/// Any vector type from and to memory of any alignment, as NumPy arrays have it.
template <class Vector>
TW_HD Vector load_as(const void* from) {
  Vector value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

template <class Vector>
TW_HD void store_as(void* to, Vector value) {
  __builtin_memcpy(to, &value, sizeof value);
}

TW_HD VecF load(const float* from) {
  return load_as<VecF>(from);
}

TW_HD void store(float* to, VecF value) {
  store_as(to, value);
}

TW_HD VecF broadcast(float value) {
  return value - VecF{};
}

/// The first `count` floats, then zeros.
TW_HD VecF load_part(const float* from, std::int64_t count) {
  VecF value = {};
  for (int lane = 0; lane < float_lanes; ++lane) {
    value[lane] = lane < count ? from[lane] : 0.0f;
  }
  return value;
}

TW_HD void store_part(float* to, VecF value, std::int64_t count) {
  for (int lane = 0; lane < float_lanes; ++lane) {
    if (lane < count) {
      to[lane] = value[lane];
    }
  }
}

/// a * b + c, fused where the level has it.
TW_HD VecF mul_add(VecF a, VecF b, VecF c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__ARM_NEON)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}

TW_HD VecD mul_add(VecD a, VecD b, VecD c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_pd(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_pd(a, b, c);
#elif defined(__ARM_NEON)
  return vfmaq_f64(c, a, b);
#else
  return a * b + c;
#endif
}

TW_HD VecD load_as_double(const float* from) {
  return __builtin_convertvector(load_as<HalfF>(from), VecD);
}

#if defined(__AVX512BF16__)
constexpr int bfloat_lanes = vector_bytes / 2;

typedef std::uint16_t VecB __attribute__((vector_size(vector_bytes)));  ///< numbers of type bfloat16

/// Rounds two vectors to bfloat16, 8 significant bits; the lanes of `low` come first.  Subnormal numbers become zero.
TW_HD VecB to_bfloat(VecF low, VecF high) {
  const auto rounded = _mm512_cvtne2ps_pbh(high, low);
  return load_as<VecB>(&rounded);
}

/// c + a * b, the products of neighbouring lanes 2 i and 2 i + 1 added to lane i.
TW_HD VecF dot_add(VecB a, VecB b, VecF c) {
  return _mm512_dpbf16_ps(c, load_as<__m512bh>(&a), load_as<__m512bh>(&b));
}
#endif

/// Sum of all lanes, in a fixed order (pairwise).
TW_HD float sum(VecF value) {
#if defined(__AVX512F__)
  const __m256 half = __builtin_shufflevector(value, value, 0, 1, 2, 3, 4, 5, 6, 7) +
                      __builtin_shufflevector(value, value, 8, 9, 10, 11, 12, 13, 14, 15);
#elif defined(__AVX__)
  const VecF half = value;
#endif
#if defined(__AVX__)
  const Vec4F quarter =
      __builtin_shufflevector(half, half, 0, 1, 2, 3) + __builtin_shufflevector(half, half, 4, 5, 6, 7);
#else
  const Vec4F quarter = value;
#endif
  return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

TW_HD double sum(VecD value) {
  double total = 0.0;
  for (int lane = 0; lane < double_lanes; ++lane) {
    total += value[lane];
  }
  return total;
}

}  // namespace tiltwise::simd
