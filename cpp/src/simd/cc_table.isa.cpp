// Correlations of images with their predictions on a grid of shifts (Eqs. 31-33): shifts of one sign in vectors, those
// of the other from the same sums.
#include "simd/levels.hpp"

#include "simd/scratch.hpp"               // for Scratch
#include "tiltwise/base/parallel.hpp"     // for parallel_for
#include "tiltwise/base/simd.hpp"         // for VecF, VecD
#include "tiltwise/body/correlation.hpp"  // for cc_term, add_folded, cc_row, cc_pair

namespace tiltwise::TW_ISA {

namespace {

using simd::VecD;
using simd::VecF;

constexpr std::int64_t round_up(std::int64_t count, std::int64_t to) {
  return (count + to - 1) / to * to;
}

constexpr auto float_bytes = static_cast<std::int64_t>(sizeof(float));

/// What all images share: places of components, and the functions of shifts padded with zeros to whole vectors.
struct Plan {
  std::int64_t lines, shifts, padded, k_padded;
  float *cosines, *sines;         // (lines, padded)
  float *side, *kxx, *kxy, *kyy;  // (k_padded)
  std::int32_t* places;           // (k_padded)
  std::int32_t* ends;             // (lines) one beyond the largest kx of every |ky|

  TW_HD explicit Plan(const CcTableArgs& a)
      : lines(a.limit + 1),
        shifts(a.half + 1),
        padded(round_up(a.half + 1, simd::float_lanes)),
        k_padded(round_up(a.k, simd::double_lanes)) {}

  TW_HD std::int64_t bytes() const { return (2 * lines * padded + 5 * k_padded + lines) * float_bytes; }

  TW_HD void fill(const CcTableArgs& a, void* memory) {
    cosines = static_cast<float*>(memory);
    sines = cosines + lines * padded;
    side = sines + lines * padded;
    kxx = side + k_padded;
    kxy = kxx + k_padded;
    kyy = kxy + k_padded;
    places = reinterpret_cast<std::int32_t*>(kyy + k_padded);
    ends = places + k_padded;
    for (std::int64_t line = 0; line < lines; ++line) {
      ends[line] = 0;
      for (std::int64_t d = 0; d < padded; ++d) {
        cosines[line * padded + d] = d < shifts ? a.cosines[line * shifts + d] : 0.0f;
        sines[line * padded + d] = d < shifts ? a.sines[line * shifts + d] : 0.0f;
      }
    }
    for (std::int64_t j = 0; j < a.k; ++j) {
      const std::int32_t kx = a.frequencies[2 * j], ky = a.frequencies[2 * j + 1], line = ky < 0 ? -ky : ky;
      side[j] = ky < 0 ? -1.0f : ky > 0 ? 1.0f : 0.0f;
      kxx[j] = static_cast<float>(kx) * static_cast<float>(kx);
      kxy[j] = static_cast<float>(kx) * static_cast<float>(ky);
      kyy[j] = static_cast<float>(ky) * static_cast<float>(ky);
      places[j] = line * static_cast<std::int32_t>(lines) + kx;
      ends[line] = kx < ends[line] ? ends[line] : kx + 1;
    }
    for (std::int64_t j = a.k; j < k_padded; ++j) {
      kxx[j] = kxy[j] = kyy[j] = 0.0f;
    }
  }
};

/// What a thread works in.
struct Work {
  body::CcFolded* folded;  // (lines, lines) ky, kx
  float *even, *odd;       // (lines, 2 padded) ky, then x = 0, 1, ... and x = 0, -1, ...
  float* energy;           // (k_padded)

  TW_HD static std::int64_t bytes(const Plan& p) {
    return (4 * p.lines * p.lines + 4 * p.lines * p.padded + p.k_padded) * float_bytes;
  }

  TW_HD Work(const Plan& p, void* memory)
      : folded(static_cast<body::CcFolded*>(memory)),
        even(reinterpret_cast<float*>(folded + p.lines * p.lines)),
        odd(even + 2 * p.lines * p.padded),
        energy(odd + 2 * p.lines * p.padded) {}
};

TW_HD void fold(const CcTableArgs& a, const Plan& p, std::int64_t i, const Work& work) {
  for (std::int64_t cell = 0; cell < p.lines * p.lines; ++cell) {
    work.folded[cell] = {{0.0f, 0.0f}, {0.0f, 0.0f}};
  }
  const ComplexF *slice = a.slices + i * a.k, *image = a.images + i * a.stride;
  const float *power = a.powers + i * a.stride, *weight = a.weights + a.rows[i] * a.k;
  for (std::int64_t j = 0; j < a.k; ++j) {
    const body::CcTerm term = body::cc_term(slice[j], image[j], power[j], weight[j]);
    body::add_folded(work.folded[p.places[j]], term.cross, p.side[j]);
    work.energy[j] = term.energy;
  }
  for (std::int64_t j = a.k; j < p.k_padded; ++j) {
    work.energy[j] = 0.0f;
  }
  VecD sums[cc_moments] = {};
  for (std::int64_t j = 0; j < p.k_padded; j += simd::double_lanes) {
    const VecD energy = simd::load_as_double(work.energy + j);
    sums[0] += energy;
    sums[1] = simd::mul_add(energy, simd::load_as_double(p.kxx + j), sums[1]);
    sums[2] = simd::mul_add(energy, simd::load_as_double(p.kxy + j), sums[2]);
    sums[3] = simd::mul_add(energy, simd::load_as_double(p.kyy + j), sums[3]);
  }
  for (int t = 0; t < cc_moments; ++t) {
    a.moments[cc_moments * i + t] = simd::sum(sums[t]);
  }
}

TW_HD void sum_rows(const Plan& p, const Work& work) {
  for (std::int64_t ky = 0; ky < p.lines; ++ky) {
    const body::CcFolded* row = work.folded + ky * p.lines;
    float *even = work.even + 2 * ky * p.padded, *odd = work.odd + 2 * ky * p.padded;
    for (std::int64_t d = 0; d < p.padded; d += simd::float_lanes) {
      VecF sums[4] = {};
      for (std::int64_t kx = 0; kx < p.ends[ky]; ++kx) {
        const VecF c = simd::load(p.cosines + kx * p.padded + d), s = simd::load(p.sines + kx * p.padded + d);
        sums[0] = simd::mul_add(simd::broadcast(row[kx].even.re), c, sums[0]);
        sums[1] = simd::mul_add(simd::broadcast(row[kx].even.im), s, sums[1]);
        sums[2] = simd::mul_add(simd::broadcast(row[kx].odd.re), s, sums[2]);
        sums[3] = simd::mul_add(simd::broadcast(row[kx].odd.im), c, sums[3]);
      }
      const auto found = body::cc_row(sums[0], sums[1], sums[2], sums[3]);
      simd::store(even + d, found.even_plus);
      simd::store(even + p.padded + d, found.even_minus);
      simd::store(odd + d, found.odd_plus);
      simd::store(odd + p.padded + d, found.odd_minus);
    }
  }
}

/// Writes `lanes` values to the right of the middle of a row, or to its left.
TW_HD void write(float* middle, std::int64_t first, std::int64_t shifts, bool left, VecF values) {
  for (int lane = 0; lane < simd::float_lanes && first + lane < shifts; ++lane) {
    middle[left ? -(first + lane) : first + lane] = values[lane];
  }
}

TW_HD void sum_columns(const CcTableArgs& a, const Plan& p, const Work& work, float* table) {
  const std::int64_t row = 2 * a.half + 1;
  float* const middle = table + a.half * row + a.half;
  for (std::int64_t y = 0; y < p.shifts; ++y) {
    for (std::int64_t x = 0; x < p.padded; x += simd::float_lanes) {
      VecF even[2] = {}, odd[2] = {};  // of either sign of x
      for (std::int64_t ky = 0; ky < p.lines; ++ky) {
        const VecF c = simd::broadcast(p.cosines[ky * p.padded + y]), s = simd::broadcast(p.sines[ky * p.padded + y]);
        const float *from_even = work.even + 2 * ky * p.padded + x, *from_odd = work.odd + 2 * ky * p.padded + x;
        even[0] = simd::mul_add(c, simd::load(from_even), even[0]);
        even[1] = simd::mul_add(c, simd::load(from_even + p.padded), even[1]);
        odd[0] = simd::mul_add(s, simd::load(from_odd), odd[0]);
        odd[1] = simd::mul_add(s, simd::load(from_odd + p.padded), odd[1]);
      }
      for (int side = 0; side < 2; ++side) {
        const auto pair = body::cc_pair(even[side], odd[side]);
        write(middle + y * row, x, p.shifts, side == 1, pair.plus);
        write(middle - y * row, x, p.shifts, side == 1, pair.minus);
      }
    }
  }
}

}  // namespace

int cc_table(const CcTableArgs* args, ErrorText* error) {
  const CcTableArgs& a = *args;
  Plan plan(a);
  const simd::Scratch shared(plan.bytes(), 1);
  const simd::Scratch own(Work::bytes(plan), a.threads > 1 ? a.threads : 1);
  if (!shared.usable("cc_table", error) || !own.usable("cc_table", error)) {
    return status_out_of_memory;
  }
  plan.fill(a, shared.of_thread(0));
  const std::int64_t area = (2 * a.half + 1) * (2 * a.half + 1);
  parallel_for(a.n, a.threads, [&](std::int64_t i, int thread) {
    const Work work(plan, own.of_thread(thread));
    fold(a, plan, i, work);
    sum_rows(plan, work);
    sum_columns(a, plan, work, a.tables + i * area);
  });
  return status_ok;
}

}  // namespace tiltwise::TW_ISA
