// Cross and quadratic terms of the expanded likelihood (Eq. 4) as a blocked real product.
//
// Re(conj(V) S) summed over components is a dot product of interleaved (re, im) arrays.  Rows are
// rotations, columns shifts.  A tile of shifted images stays in the second-level cache while all rotations
// of a chunk pass by; a block of rotations x shifts is summed in registers.
#include "simd/levels.hpp"

#include "simd/scratch.hpp"            // for Scratch
#include "simd/shifted.hpp"            // for pack_shifted
#include "tiltwise/base/parallel.hpp"  // for parallel_for
#include "tiltwise/base/simd.hpp"      // for VecF, load, mul_add
#include "tiltwise/body/choice.hpp"    // for chosen

namespace tiltwise::TW_ISA {

namespace {

using simd::VecF;

// Accumulators per block: as many as the registers hold beside one row and `block_shifts` columns.
#if defined(__AVX512F__) || defined(__ARM_NEON)
constexpr int block_rotations = 6, block_shifts = 4;
#elif defined(__FMA__)
constexpr int block_rotations = 4, block_shifts = 3;
#else
constexpr int block_rotations = 3, block_shifts = 3;  // an unfused product needs a register of its own
#endif
constexpr std::int64_t tile_components = 384;  // a block's rows and columns fit the first-level cache
constexpr std::int64_t panel_shifts = 120;     // a tile fits the second-level cache
constexpr std::int64_t chunk_limit = 480;      // rotations that share one packed tile

struct Tile {
  const ComplexF* slices;     // all of them, at this tile
  const std::int32_t* index;  // row of the slices for every row of the chunk, or null for the next ones
  std::int64_t first, k;      // first row of the chunk, components of a slice
  const float* columns;       // packed, zero-padded: [shift][padded]
  std::int64_t length;        // floats of this tile
  std::int64_t padded;        // floats between columns
  const float* power;         // packed like a column, every number twice

  TW_HD const float* row(std::int64_t r) const {
    return reinterpret_cast<const float*>(slices + body::chosen(index, first + r) * k);
  }
};

/// Adds the products of Rows x Columns over the tile to `sums`.  Float sums are short (one tile), the sums
/// over tiles are double.
template <int Rows, int Columns>
TW_HD void add_block(const Tile& tile, std::int64_t row, std::int64_t column, double* sums, std::int64_t n_rows,
                     std::int64_t n_columns) {
  VecF partial[Rows][Columns] = {};
  const float* rows[Rows];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
    rows[r] = tile.row(row + r);
  }
  const float* columns = tile.columns + column * tile.padded;
  // Rows come from memory, one tile's length at a time: too short for the processor to foresee.  Every
  // column block fetches one row of the next block.
  const std::int64_t ahead = row + Rows + column / block_shifts % Rows;
  const float* next = tile.row(ahead < n_rows ? ahead : row);
  std::int64_t i = 0;
  for (; i + simd::float_lanes <= tile.length; i += simd::float_lanes) {
    __builtin_prefetch(next + i);
    VecF right[Columns];
#pragma GCC unroll 8
    for (int c = 0; c < Columns; ++c) {
      right[c] = simd::load(columns + c * tile.padded + i);
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const VecF left = simd::load(rows[r] + i);
#pragma GCC unroll 8
      for (int c = 0; c < Columns; ++c) {
        partial[r][c] = simd::mul_add(left, right[c], partial[r][c]);
      }
    }
  }
  if (i < tile.length) {
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const VecF left = simd::load_part(rows[r] + i, tile.length - i);
#pragma GCC unroll 8
      for (int c = 0; c < Columns; ++c) {
        partial[r][c] = simd::mul_add(left, simd::load(columns + c * tile.padded + i), partial[r][c]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < Columns; ++c) {
      sums[(row + r) * n_columns + column + c] += static_cast<double>(simd::sum(partial[r][c]));
    }
  }
}

template <int Rows>
void add_rows(const Tile& tile, std::int64_t row, double* sums, std::int64_t n_rows, std::int64_t n_columns) {
  std::int64_t column = 0;
  for (; column + block_shifts <= n_columns; column += block_shifts) {
    add_block<Rows, block_shifts>(tile, row, column, sums, n_rows, n_columns);
  }
  if constexpr (block_shifts > 3) {
    if (n_columns - column == 3) {
      add_block<Rows, 3>(tile, row, column, sums, n_rows, n_columns);
    }
  }
  if (n_columns - column == 2) {
    add_block<Rows, 2>(tile, row, column, sums, n_rows, n_columns);
  } else if (n_columns - column == 1) {
    add_block<Rows, 1>(tile, row, column, sums, n_rows, n_columns);
  }
}

/// sum of power * |V|^2 over a tile of one row; `power` stands twice, like the parts of a complex number.
float quadratic_sum(const float* row, const float* power, std::int64_t length) {
  VecF sums = {};
  std::int64_t i = 0;
  for (; i + simd::float_lanes <= length; i += simd::float_lanes) {
    const VecF value = simd::load(row + i);
    sums = simd::mul_add(simd::load(power + i) * value, value, sums);
  }
  if (i < length) {
    const VecF value = simd::load_part(row + i, length - i);
    sums = simd::mul_add(simd::load(power + i) * value, value, sums);
  }
  return simd::sum(sums);
}

/// Adds a tile to the sums of all rows; `quadratic` may be null.
void add_tile(const Tile& tile, std::int64_t n_rows, double* cross, std::int64_t n_columns, double* quadratic) {
  for (std::int64_t row = 0; row < n_rows;) {
    const std::int64_t count = row + block_rotations <= n_rows ? block_rotations : 1;
    if (count == block_rotations) {
      add_rows<block_rotations>(tile, row, cross, n_rows, n_columns);
    } else {
      add_rows<1>(tile, row, cross, n_rows, n_columns);
    }
    for (std::int64_t r = row; quadratic != nullptr && r < row + count; ++r) {
      quadratic[r] += static_cast<double>(quadratic_sum(tile.row(r), tile.power, tile.length));
    }
    row += count;
  }
}

void pack_power(const float* power, std::int64_t count, std::int64_t padded, float* out) {
  for (std::int64_t k = 0; k < count; ++k) {
    out[2 * k] = out[2 * k + 1] = power[k];
  }
  for (std::int64_t i = 2 * count; i < padded; ++i) {
    out[i] = 0.0f;
  }
}

struct Chunk {
  std::int64_t first, last;  // rotations
};

struct Workspace {
  float* columns;
  float* power;
  double* cross;
  double* quadratic;
};

void score_chunk(const ScoreArgs& a, Chunk chunk, const Workspace& work) {
  const std::int64_t n_rows = chunk.last - chunk.first;
  for (std::int64_t r = 0; r < n_rows; ++r) {
    work.quadratic[r] = 0.0;
  }
  for (std::int64_t shift = 0; shift == 0 || shift < a.n_shifts; shift += panel_shifts) {
    const std::int64_t n_columns = a.n_shifts - shift < panel_shifts ? a.n_shifts - shift : panel_shifts;
    for (std::int64_t i = 0; i < n_rows * n_columns; ++i) {
      work.cross[i] = 0.0;
    }
    for (std::int64_t k = 0; k < a.k; k += tile_components) {
      const std::int64_t count = a.k - k < tile_components ? a.k - k : tile_components;
      const std::int64_t padded = 2 * tile_components;
      for (std::int64_t t = 0; t < n_columns; ++t) {
        simd::pack_shifted(a.image + k, a.phases + body::chosen(a.columns, shift + t) * a.k + k, count, padded,
                           work.columns + t * padded);
      }
      pack_power(a.power + k, count, padded, work.power);
      const Tile tile = {a.slices + k, a.rows, chunk.first, a.k, work.columns, 2 * count, padded, work.power};
      add_tile(tile, n_rows, work.cross, n_columns, shift == 0 ? work.quadratic : nullptr);
    }
    for (std::int64_t r = 0; r < n_rows; ++r) {
      for (std::int64_t t = 0; t < n_columns; ++t) {
        a.cross[(chunk.first + r) * a.n_shifts + shift + t] = static_cast<float>(work.cross[r * n_columns + t]);
      }
    }
  }
  for (std::int64_t r = 0; r < n_rows; ++r) {
    a.quadratic[chunk.first + r] = static_cast<float>(work.quadratic[r]);
  }
}

}  // namespace

int score(const ScoreArgs* args, ErrorText* error) {
  const ScoreArgs& a = *args;
  const std::int64_t threads = a.threads > 1 ? a.threads : 1;
  // Chunks share out the rotations evenly; sums do not depend on them.
  const std::int64_t share = (a.n_rotations + threads - 1) / threads;
  const std::int64_t rows = (share + block_rotations - 1) / block_rotations * block_rotations;
  const std::int64_t chunk_rows = rows < 1 ? 1 : (rows < chunk_limit ? rows : chunk_limit);
  const std::int64_t columns = a.n_shifts < panel_shifts ? a.n_shifts : panel_shifts;
  // columns of shifted images, and one of powers
  const std::int64_t column_bytes = (columns + 1) * 2 * tile_components * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t sum_bytes = chunk_rows * (columns + 1) * static_cast<std::int64_t>(sizeof(double));
  const simd::Scratch scratch(column_bytes + sum_bytes, a.threads);
  if (!scratch.usable("score", error)) {
    return status_out_of_memory;
  }
  const std::int64_t n_chunks = (a.n_rotations + chunk_rows - 1) / chunk_rows;
  parallel_for(n_chunks, a.threads, [&](std::int64_t index, int thread) {
    auto* bytes = static_cast<unsigned char*>(scratch.of_thread(thread));
    auto* sums = reinterpret_cast<double*>(bytes + column_bytes);
    const std::int64_t first = index * chunk_rows;
    const std::int64_t last = first + chunk_rows < a.n_rotations ? first + chunk_rows : a.n_rotations;
    auto* packed = reinterpret_cast<float*>(bytes);
    score_chunk(a, {first, last}, {packed, packed + columns * 2 * tile_components, sums, sums + chunk_rows * columns});
  });
  return status_ok;
}

}  // namespace tiltwise::TW_ISA
