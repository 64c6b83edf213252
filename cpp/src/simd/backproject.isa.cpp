// Posterior-weighted sums of one particle per rotation (Eq. 11) as a blocked real product.
//
// The sum over shifts of weight * (image * phase), for a block of rotations and of components at a time.
// Most weights are zero: a block visits the shifts that any of its rotations uses.
#include "simd/levels.hpp"

#include "simd/scratch.hpp"            // for Scratch
#include "simd/shifted.hpp"            // for pack_shifted
#include "tiltwise/base/parallel.hpp"  // for parallel_for
#include "tiltwise/base/simd.hpp"      // for VecF, load, mul_add

namespace tiltwise::TW_ISA {

namespace {

using simd::VecF;

constexpr int block_rotations = 4;
#if defined(__AVX512F__) || defined(__ARM_NEON)
constexpr int block_vectors = 4;
#else
constexpr int block_vectors = 2;
#endif
constexpr std::int64_t chunk_limit = 64;         // rotations that share one packed tile
constexpr std::int64_t tile_bytes = 384 * 1024;  // of packed shifted images, within the second-level cache
constexpr std::int64_t tile_limit = 1024;        // components
constexpr std::int64_t tile_floor = 64;

/// Shifts a block of rotations uses: positions among the shifts packed for its chunk.
struct Block {
  std::int64_t first;  // rotation
  int rotations;
  std::int32_t count;
  const std::int32_t* packed;  // row of the tile
  const std::int32_t* shifts;  // column of the weights
};

/// All rows are written: rotations beyond the block repeat the first with weight zero.
TW_HD void sum_vectors(const BackprojectArgs& a, const Block& block, const float* tile, std::int64_t padded,
                       std::int64_t offset, float* const* out, std::int64_t length) {
  VecF sums[block_rotations][block_vectors] = {};
  for (std::int32_t s = 0; s < block.count; ++s) {
    const float* column = tile + block.packed[s] * padded + offset;
    VecF values[block_vectors];
#pragma GCC unroll 8
    for (int v = 0; v < block_vectors; ++v) {
      values[v] = simd::load(column + v * simd::float_lanes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < block_rotations; ++r) {
      const std::int64_t row = r < block.rotations ? block.first + r : block.first;
      const VecF weight = simd::broadcast(a.weights[row * a.n_shifts + block.shifts[s]]);
#pragma GCC unroll 8
      for (int v = 0; v < block_vectors; ++v) {
        sums[r][v] = simd::mul_add(weight, values[v], sums[r][v]);
      }
    }
  }
  for (int r = 0; r < block.rotations; ++r) {
    for (int v = 0; v < block_vectors; ++v) {
      const std::int64_t start = offset + v * simd::float_lanes;
      if (start + simd::float_lanes <= length) {
        simd::store(out[r] + start, sums[r][v]);
      } else {
        simd::store_part(out[r] + start, sums[r][v], length - start);
      }
    }
  }
}

void sum_block(const BackprojectArgs& a, const Block& block, const float* tile, std::int64_t padded, std::int64_t k,
               std::int64_t count) {
  float* out[block_rotations];
  for (int r = 0; r < block_rotations; ++r) {
    const std::int64_t row = r < block.rotations ? block.first + r : block.first;
    out[r] = reinterpret_cast<float*>(a.sums + row * a.k + k);
  }
  for (std::int64_t offset = 0; offset < 2 * count; offset += block_vectors * simd::float_lanes) {
    sum_vectors(a, block, tile, padded, offset, out, 2 * count);
  }
}

bool uses(const BackprojectArgs& a, std::int64_t first, std::int64_t last, std::int64_t shift) {
  for (std::int64_t r = first; r < last; ++r) {
    if (a.weights[r * a.n_shifts + shift] != 0.0f) {
      return true;  // NaN as well
    }
  }
  return false;
}

/// Lists of shifts: of the chunk (`used`), and per block their positions in it.
struct Lists {
  std::int32_t* used;
  std::int32_t* packed;
  std::int32_t* shifts;
};

void write_totals(const BackprojectArgs& a, std::int64_t r) {
  double total = 0.0;
  for (std::int64_t t = 0; t < a.n_shifts; ++t) {
    total += static_cast<double>(a.weights[r * a.n_shifts + t]);
  }
  for (std::int64_t k = 0; k < a.k; ++k) {
    a.totals[r * a.k + k] = static_cast<float>(total * static_cast<double>(a.power[k]));
  }
}

void sum_chunk(const BackprojectArgs& a, std::int64_t first, std::int64_t last, const Lists& lists, float* tile,
               std::int64_t tile_components) {
  std::int32_t n_used = 0;
  for (std::int64_t t = 0; t < a.n_shifts; ++t) {
    if (uses(a, first, last, t)) {
      lists.used[n_used++] = static_cast<std::int32_t>(t);
    }
  }
  Block blocks[chunk_limit / block_rotations];
  int n_blocks = 0;
  std::int32_t filled = 0;
  for (std::int64_t r = first; r < last; r += block_rotations) {
    const std::int64_t end = r + block_rotations < last ? r + block_rotations : last;
    Block block = {r, static_cast<int>(end - r), 0, lists.packed + filled, lists.shifts + filled};
    for (std::int32_t u = 0; u < n_used; ++u) {
      if (uses(a, r, end, lists.used[u])) {
        lists.packed[filled] = u;
        lists.shifts[filled] = lists.used[u];
        ++filled;
        ++block.count;
      }
    }
    blocks[n_blocks++] = block;
  }
  const std::int64_t padded = 2 * tile_components;
  for (std::int64_t k = 0; k < a.k; k += tile_components) {
    const std::int64_t count = a.k - k < tile_components ? a.k - k : tile_components;
    for (std::int32_t u = 0; u < n_used; ++u) {
      simd::pack_shifted(a.image + k, a.phases + lists.used[u] * a.k + k, count, padded, tile + u * padded);
    }
    for (int b = 0; b < n_blocks; ++b) {
      sum_block(a, blocks[b], tile, padded, k, count);
    }
  }
  for (std::int64_t r = first; r < last; ++r) {
    write_totals(a, r);
  }
}

}  // namespace

int backproject(const BackprojectArgs* args, ErrorText* error) {
  const BackprojectArgs& a = *args;
  const std::int64_t threads = a.threads > 1 ? a.threads : 1;
  // Chunks are whole blocks, so a rotation has the same neighbours for any number of threads.
  const std::int64_t share = (a.n_rotations + threads - 1) / threads;
  const std::int64_t rows = (share + block_rotations - 1) / block_rotations * block_rotations;
  const std::int64_t chunk_rows = rows < block_rotations ? block_rotations : (rows < chunk_limit ? rows : chunk_limit);
  const std::int64_t shifts = a.n_shifts > 0 ? a.n_shifts : 1;
  // Multiples of tile_floor components: whole blocks of vectors at every level.
  std::int64_t tile_components = tile_bytes / (shifts * static_cast<std::int64_t>(sizeof(ComplexF)));
  tile_components = tile_components / tile_floor * tile_floor;
  tile_components = tile_components < tile_floor ? tile_floor : tile_components;
  tile_components = tile_components > tile_limit ? tile_limit : tile_components;
  const std::int64_t tile_size = shifts * tile_components * static_cast<std::int64_t>(sizeof(ComplexF));
  const std::int64_t per_block = chunk_rows / block_rotations * shifts;
  const std::int64_t list_size = (shifts + 2 * per_block) * static_cast<std::int64_t>(sizeof(std::int32_t));
  const simd::Scratch scratch(tile_size + list_size, a.threads);
  if (!scratch.usable("backproject", error)) {
    return status_out_of_memory;
  }
  const std::int64_t n_chunks = (a.n_rotations + chunk_rows - 1) / chunk_rows;
  parallel_for(n_chunks, a.threads, [&](std::int64_t index, int thread) {
    auto* bytes = static_cast<unsigned char*>(scratch.of_thread(thread));
    auto* used = reinterpret_cast<std::int32_t*>(bytes + tile_size);
    const Lists lists = {used, used + shifts, used + shifts + per_block};
    const std::int64_t first = index * chunk_rows;
    const std::int64_t last = first + chunk_rows < a.n_rotations ? first + chunk_rows : a.n_rotations;
    sum_chunk(a, first, last, lists, reinterpret_cast<float*>(bytes), tile_components);
  });
  return status_ok;
}

}  // namespace tiltwise::TW_ISA
