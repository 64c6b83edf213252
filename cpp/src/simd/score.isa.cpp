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

#include <cstdint>  // for int64_t, uint16_t

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
constexpr std::int64_t tile_bytes = 3072;   // of a column: a block's rows and columns fit the first-level cache
constexpr std::int64_t panel_shifts = 120;  // a tile fits the second-level cache
constexpr std::int64_t chunk_limit = 480;   // rotations that share one packed tile

/// Factors of the products as they come.
struct Exact {
  using Element = float;
  using Vector = VecF;
  static constexpr int lanes = simd::float_lanes;
  static constexpr bool converts = false;  // rows are read where they lie

  TW_HD static VecF multiply(Vector a, Vector b, VecF sum) { return simd::mul_add(a, b, sum); }
};

#if defined(__AVX512BF16__)
/// Factors rounded to bfloat16, sums in single precision: twice the products per instruction.
struct Rounded {
  using Element = std::uint16_t;
  using Vector = simd::VecB;
  static constexpr int lanes = simd::bfloat_lanes;
  static constexpr bool converts = true;  // a block of rows is rounded before it meets the columns

  TW_HD static VecF multiply(Vector a, Vector b, VecF sum) { return simd::dot_add(a, b, sum); }
  /// Whole vectors are written: zeros beyond `count`.
  TW_HD static void put(const float* from, std::int64_t count, Element* out) {
    std::int64_t i = 0;
    for (; i + lanes <= count; i += lanes) {
      simd::store_as(out + i, simd::to_bfloat(simd::load(from + i), simd::load(from + i + simd::float_lanes)));
    }
    if (i < count) {
      const std::int64_t left = count - i, more = left > simd::float_lanes ? left - simd::float_lanes : 0;
      const VecF low = simd::load_part(from + i, left), high = simd::load_part(from + i + left - more, more);
      simd::store_as(out + i, simd::to_bfloat(low, high));
    }
  }
};
#endif

template <class Factor>
constexpr std::int64_t tile_floats = tile_bytes / static_cast<std::int64_t>(sizeof(typename Factor::Element));

/// Some rows of a chunk, and the columns of a panel that any of them is wanted with.
struct Block {
  std::int64_t first;
  int rows;
  std::int32_t count;
  const std::int32_t* columns;
};

template <class Factor>
struct Tile {
  using Element = typename Factor::Element;
  const ComplexF* slices;     // all of them, at this tile
  const std::int32_t* index;  // row of the slices for every row of the chunk, or null for the next ones
  std::int64_t first, k;      // first row of the chunk, components of a slice
  const Element* columns;     // packed, zero-padded: [shift][padded]
  Element* rows;              // space for a block of rows, if they are not read where they lie
  std::int64_t length;        // floats of this tile
  std::int64_t padded;        // floats between columns
  const float* power;         // packed like a column, every number twice

  TW_HD const float* row(std::int64_t r) const {
    return reinterpret_cast<const float*>(slices + body::chosen(index, first + r) * k);
  }
};

/// Adds the products of Rows x Columns over the tile to `sums`.  Float sums are short (one tile), the sums
/// over tiles are double.
template <class Factor, int Rows, int Columns>
TW_HD void add_block(const Tile<Factor>& tile, const typename Factor::Element* const* rows, const Block& block,
                     std::int32_t position, double* sums, std::int64_t n_rows, std::int64_t n_columns) {
  using Vector = typename Factor::Vector;
  VecF partial[Rows][Columns] = {};
  const std::int32_t* list = block.columns + position;
  const typename Factor::Element* columns[Columns];
#pragma GCC unroll 8
  for (int c = 0; c < Columns; ++c) {
    columns[c] = tile.columns + list[c] * tile.padded;
  }
  // Rows come from memory, one tile's length at a time: too short for the processor to foresee.  Every
  // column block fetches one row of the next block.
  const std::int64_t row = block.first;
  const std::int64_t ahead = row + Rows + position / block_shifts % Rows;
  const float* next = tile.row(ahead < n_rows ? ahead : row);
  const std::int64_t whole = Factor::converts ? tile.padded : tile.length;
  std::int64_t i = 0;
  for (; i + Factor::lanes <= whole && i < tile.length; i += Factor::lanes) {
#pragma GCC unroll 2
    for (int line = 0; line < Factor::lanes; line += simd::float_lanes) {
      __builtin_prefetch(next + i + line);
    }
    Vector right[Columns];
#pragma GCC unroll 8
    for (int c = 0; c < Columns; ++c) {
      right[c] = simd::load_as<Vector>(columns[c] + i);
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const auto left = simd::load_as<Vector>(rows[r] + i);
#pragma GCC unroll 8
      for (int c = 0; c < Columns; ++c) {
        partial[r][c] = Factor::multiply(left, right[c], partial[r][c]);
      }
    }
  }
  if constexpr (!Factor::converts) {
    if (i < tile.length) {
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        const VecF left = simd::load_part(rows[r] + i, tile.length - i);
#pragma GCC unroll 8
        for (int c = 0; c < Columns; ++c) {
          partial[r][c] = simd::mul_add(left, simd::load(columns[c] + i), partial[r][c]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < Columns; ++c) {
      sums[(row + r) * n_columns + list[c]] += static_cast<double>(simd::sum(partial[r][c]));
    }
  }
}

template <class Factor, int Rows>
void add_rows(const Tile<Factor>& tile, const Block& block, double* sums, std::int64_t n_rows, std::int64_t n_columns) {
  if (block.count == 0) {
    return;
  }
  const typename Factor::Element* rows[Rows];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
    if constexpr (Factor::converts) {
      Factor::put(tile.row(block.first + r), tile.length, tile.rows + r * tile.padded);
      rows[r] = tile.rows + r * tile.padded;
    } else {
      rows[r] = tile.row(block.first + r);
    }
  }
  std::int32_t position = 0;
  for (; position + block_shifts <= block.count; position += block_shifts) {
    add_block<Factor, Rows, block_shifts>(tile, rows, block, position, sums, n_rows, n_columns);
  }
  if constexpr (block_shifts > 3) {
    if (block.count - position == 3) {
      add_block<Factor, Rows, 3>(tile, rows, block, position, sums, n_rows, n_columns);
    }
  }
  if (block.count - position == 2) {
    add_block<Factor, Rows, 2>(tile, rows, block, position, sums, n_rows, n_columns);
  } else if (block.count - position == 1) {
    add_block<Factor, Rows, 1>(tile, rows, block, position, sums, n_rows, n_columns);
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
template <class Factor>
void add_tile(const Tile<Factor>& tile, const Block* blocks, int n_blocks, std::int64_t n_rows, double* cross,
              std::int64_t n_columns, double* quadratic) {
  for (int b = 0; b < n_blocks; ++b) {
    const Block& block = blocks[b];
    if (block.rows == block_rotations) {
      add_rows<Factor, block_rotations>(tile, block, cross, n_rows, n_columns);
    } else {
      add_rows<Factor, 1>(tile, block, cross, n_rows, n_columns);
    }
    for (std::int64_t r = block.first; quadratic != nullptr && r < block.first + block.rows; ++r) {
      quadratic[r] += static_cast<double>(quadratic_sum(tile.row(r), tile.power, tile.length));
    }
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

/// Blocks of a chunk, and at most one row each of what is left.
constexpr int block_limit = static_cast<int>(chunk_limit) / block_rotations + block_rotations;

/// Lists of columns: those that any row of the chunk is wanted with, and per block positions in a panel of these.
struct Lists {
  std::int32_t* used;
  std::int32_t* of_blocks;
};

template <class Factor>
struct Workspace {
  typename Factor::Element* columns;
  typename Factor::Element* rows;
  float* power;
  float* shifted;  // one column before it is packed
  double* cross;
  double* quadratic;
  Lists lists;
};

bool is_wanted(const ScoreArgs& a, std::int64_t first, std::int64_t last, std::int64_t shift) {
  for (std::int64_t r = first; r < last; ++r) {
    if (a.wanted[r * a.n_shifts + shift]) {
      return true;
    }
  }
  return false;
}

std::int64_t find_used(const ScoreArgs& a, Chunk chunk, std::int32_t* used) {
  std::int64_t count = 0;
  for (std::int64_t t = 0; t < a.n_shifts; ++t) {
    if (a.wanted == nullptr || is_wanted(a, chunk.first, chunk.last, t)) {
      used[count++] = static_cast<std::int32_t>(t);
    }
  }
  return count;
}

/// Blocks of a chunk with their columns of the panel `used`.
int find_blocks(const ScoreArgs& a, Chunk chunk, const std::int32_t* used, std::int64_t n_columns, std::int32_t* lists,
                Block* blocks) {
  const std::int64_t n_rows = chunk.last - chunk.first;
  int n_blocks = 0;
  std::int32_t filled = 0;
  for (std::int64_t row = 0; row < n_rows;) {
    const int rows = row + block_rotations <= n_rows ? block_rotations : 1;
    Block block = {row, rows, 0, lists + filled};
    if (a.wanted == nullptr && n_blocks > 0) {
      block = {row, rows, blocks[0].count, blocks[0].columns};  // all have the same
    } else {
      for (std::int32_t c = 0; c < n_columns; ++c) {
        if (a.wanted == nullptr || is_wanted(a, chunk.first + row, chunk.first + row + rows, used[c])) {
          lists[filled++] = c;
          ++block.count;
        }
      }
    }
    blocks[n_blocks++] = block;
    row += rows;
  }
  return n_blocks;
}

/// Sums of a panel to where they belong.
void write_cross(const ScoreArgs& a, Chunk chunk, const double* sums, const std::int32_t* used,
                 std::int64_t n_columns) {
  for (std::int64_t r = chunk.first; r < chunk.last; ++r) {
    const double* row = sums + (r - chunk.first) * n_columns;
    for (std::int64_t c = 0; c < n_columns; ++c) {
      const std::int64_t at = r * a.n_shifts + used[c];
      if (a.wanted == nullptr || a.wanted[at]) {
        a.cross[at] = static_cast<float>(row[c]);
      }
    }
  }
}

template <class Factor>
void score_chunk(const ScoreArgs& a, Chunk chunk, const Workspace<Factor>& work) {
  const std::int64_t n_rows = chunk.last - chunk.first;
  for (std::int64_t r = 0; r < n_rows; ++r) {
    work.quadratic[r] = 0.0;
  }
  if (a.wanted != nullptr) {
    for (std::int64_t i = chunk.first * a.n_shifts; i < chunk.last * a.n_shifts; ++i) {
      a.cross[i] = -__builtin_huge_valf();
    }
  }
  const std::int64_t n_used = find_used(a, chunk, work.lists.used);
  for (std::int64_t start = 0; start == 0 || start < n_used; start += panel_shifts) {
    const std::int32_t* used = work.lists.used + start;
    const std::int64_t n_columns = n_used - start < panel_shifts ? n_used - start : panel_shifts;
    Block blocks[block_limit];
    const int n_blocks = find_blocks(a, chunk, used, n_columns, work.lists.of_blocks, blocks);
    for (std::int64_t i = 0; i < n_rows * n_columns; ++i) {
      work.cross[i] = 0.0;
    }
    for (std::int64_t k = 0; k < a.k; k += tile_floats<Factor> / 2) {
      const std::int64_t count = a.k - k < tile_floats<Factor> / 2 ? a.k - k : tile_floats<Factor> / 2;
      for (std::int64_t t = 0; t < n_columns; ++t) {
        const ComplexF* phase = a.phases + body::chosen(a.columns, used[t]) * a.k + k;
        if constexpr (Factor::converts) {
          simd::pack_shifted(a.image + k, phase, count, tile_floats<Factor>, work.shifted);
          Factor::put(work.shifted, tile_floats<Factor>, work.columns + t * tile_floats<Factor>);
        } else {
          simd::pack_shifted(a.image + k, phase, count, tile_floats<Factor>, work.columns + t * tile_floats<Factor>);
        }
      }
      pack_power(a.power + k, count, tile_floats<Factor>, work.power);
      const Tile<Factor> tile = {a.slices + k, a.rows,    chunk.first,         a.k,       work.columns,
                                 work.rows,    2 * count, tile_floats<Factor>, work.power};
      add_tile(tile, blocks, n_blocks, n_rows, work.cross, n_columns, start == 0 ? work.quadratic : nullptr);
    }
    write_cross(a, chunk, work.cross, used, n_columns);
  }
  for (std::int64_t r = 0; r < n_rows; ++r) {
    a.quadratic[chunk.first + r] = static_cast<float>(work.quadratic[r]);
  }
}

template <class Factor>
int score_with(const ScoreArgs& a, ErrorText* error) {
  using Element = typename Factor::Element;
  const std::int64_t threads = a.threads > 1 ? a.threads : 1;
  // Chunks share out the rotations evenly; sums do not depend on them.
  const std::int64_t share = (a.n_rotations + threads - 1) / threads;
  const std::int64_t rows = (share + block_rotations - 1) / block_rotations * block_rotations;
  const std::int64_t chunk_rows = rows < 1 ? 1 : (rows < chunk_limit ? rows : chunk_limit);
  const std::int64_t columns = a.n_shifts < panel_shifts ? a.n_shifts : panel_shifts;
  // Columns of shifted images and a block of rows; powers and one column in single precision; sums; lists.
  const std::int64_t packed_size = (columns + (Factor::converts ? block_rotations : 0)) * tile_floats<Factor>;
  const std::int64_t packed_bytes = packed_size * static_cast<std::int64_t>(sizeof(Element));
  const std::int64_t single_bytes = 2 * tile_floats<Factor> * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t sum_bytes = chunk_rows * (columns + 1) * static_cast<std::int64_t>(sizeof(double));
  const std::int64_t n_lists = a.wanted != nullptr ? block_limit : 1;
  const std::int64_t list_bytes = (a.n_shifts + n_lists * columns) * static_cast<std::int64_t>(sizeof(std::int32_t));
  const simd::Scratch scratch(packed_bytes + single_bytes + sum_bytes + list_bytes, a.threads);
  if (!scratch.usable("score", error)) {
    return status_out_of_memory;
  }
  const std::int64_t n_chunks = (a.n_rotations + chunk_rows - 1) / chunk_rows;
  parallel_for(n_chunks, a.threads, [&](std::int64_t index, int thread) {
    auto* bytes = static_cast<unsigned char*>(scratch.of_thread(thread));
    auto* packed = reinterpret_cast<Element*>(bytes);
    auto* single = reinterpret_cast<float*>(bytes + packed_bytes);
    auto* sums = reinterpret_cast<double*>(bytes + packed_bytes + single_bytes);
    auto* lists = reinterpret_cast<std::int32_t*>(bytes + packed_bytes + single_bytes + sum_bytes);
    const std::int64_t first = index * chunk_rows;
    const std::int64_t last = first + chunk_rows < a.n_rotations ? first + chunk_rows : a.n_rotations;
    const Workspace<Factor> work = {packed,
                                    packed + columns * tile_floats<Factor>,
                                    single,
                                    single + tile_floats<Factor>,
                                    sums,
                                    sums + chunk_rows * columns,
                                    {lists, lists + a.n_shifts}};
    score_chunk(a, {first, last}, work);
  });
  return status_ok;
}

}  // namespace

int score(const ScoreArgs* args, ErrorText* error) {
#if defined(__AVX512BF16__)
  if (args->rough != 0) {
    return score_with<Rounded>(*args, error);
  }
#endif
  return score_with<Exact>(*args, error);
}

}  // namespace tiltwise::TW_ISA
