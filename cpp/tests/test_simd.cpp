// Vector operations against plain loops.  Built once per instruction-set level.
#include "harness.hpp"

#include "tiltwise/base/simd.hpp"  // for VecF, load, store, sum

#include <cmath>  // for fabs

namespace {

using namespace tiltwise::simd;

constexpr int lanes = float_lanes;

struct Numbers {
  float values[3 * lanes + 1];
  Numbers() {
    for (int i = 0; i < 3 * lanes + 1; ++i) {
      values[i] = static_cast<float>((i * 37) % 19) - 7.5f;
    }
  }
};

bool runs_here() {
#if defined(__AVX512BF16__)
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vl");
#elif defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

void loads_and_stores_anywhere() {
  const Numbers n;
  float out[lanes + 3] = {};
  for (int offset = 0; offset < 3; ++offset) {
    store(out + offset, load(n.values + offset + 1));
    for (int lane = 0; lane < lanes; ++lane) {
      EXPECT(out[offset + lane] == n.values[offset + 1 + lane]);
    }
  }
}

void parts_touch_no_more_than_asked() {
  const Numbers n;
  for (int count = 0; count <= lanes; ++count) {
    const VecF value = load_part(n.values, count);
    float out[lanes];
    for (float& x : out) {
      x = -99.0f;
    }
    store_part(out, value, count);
    for (int lane = 0; lane < lanes; ++lane) {
      EXPECT(value[lane] == (lane < count ? n.values[lane] : 0.0f));
      EXPECT(out[lane] == (lane < count ? n.values[lane] : -99.0f));
    }
  }
}

void multiplies_adds_and_sums() {
  const Numbers n;
  const VecF a = load(n.values), b = load(n.values + 1), c = broadcast(0.25f);
  const VecF result = mul_add(a, b, c);
  float expected = 0.0f;
  for (int lane = 0; lane < lanes; ++lane) {
    // halves and quarters: exact in either rounding
    EXPECT(result[lane] == n.values[lane] * n.values[lane + 1] + 0.25f);
    expected += result[lane];
  }
  EXPECT(sum(result) == expected);
  const VecD wide = load_as_double(n.values);
  double total = 0.0;
  for (int lane = 0; lane < double_lanes; ++lane) {
    EXPECT(wide[lane] == static_cast<double>(n.values[lane]));
    total += wide[lane];
  }
  EXPECT(sum(wide) == total);
  EXPECT(mul_add(wide, wide, wide)[1] == wide[1] * wide[1] + wide[1]);
}

void rounds_and_adds_pairs() {
#if defined(__AVX512BF16__)
  const Numbers n;  // halves below 16: exact
  const VecF low = load(n.values), high = load(n.values + lanes);
  const VecF result = dot_add(to_bfloat(low, high), to_bfloat(high, low), broadcast(0.25f));
  for (int lane = 0; lane < lanes; ++lane) {
    float expected = 0.25f;
    for (int i = 2 * lane; i < 2 * lane + 2; ++i) {
      expected += n.values[i] * n.values[(i + lanes) % (2 * lanes)];
    }
    EXPECT(result[lane] == expected);
  }
  // 8 significant bits, ties to even
  const VecB rounded = to_bfloat(broadcast(1.0f + 0x1p-8f), broadcast(1.0f + 0x1.8p-7f));
  EXPECT(rounded[0] == 0x3f80 && rounded[lanes] == 0x3f82);
#endif
}

}  // namespace

int main() {
  if (!runs_here()) {
    return 77;
  }
  return harness::run_all({{"loads and stores anywhere", loads_and_stores_anywhere},
                           {"parts touch no more than asked", parts_touch_no_more_than_asked},
                           {"multiplies, adds and sums", multiplies_adds_and_sums},
                           {"rounds and adds pairs", rounds_and_adds_pairs}});
}
