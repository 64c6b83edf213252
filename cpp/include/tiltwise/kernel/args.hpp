// One plain argument struct per kernel.  They cross a dlopen boundary: C types only.
//
// Contracts (shapes, units, equations, order of sums) are those of python/tiltwise/kernels/api.py.  All
// arrays are C-contiguous, on the host, and were checked by the caller; `size` is M.  Empty extents are
// allowed and leave outputs as the contract says (zero sums, or untouched accumulators).
#pragma once

#include "tiltwise/math/complex.hpp"  // for ComplexF, ComplexD

#include <cstdint>  // for int32_t, int64_t

namespace tiltwise {

/// Slices of a volume (Eqs. 3, 6).
struct ProjectArgs {
  const ComplexF* volume;    // (size, size, size / 2 + 1)
  const float* matrices;     // (n, 3, 3)
  const float* frequencies;  // (k, 3)
  ComplexF* out;             // (n, k), every entry is written
  std::int64_t size, n, k;
  double radius;  // <= size / 2
  std::int32_t threads;
};

/// Transpose of project (Eqs. 8-11): adds to `data` and `weight`.
struct InsertArgs {
  const ComplexF* slices;    // (n, k)
  const float* weights;      // (n, k)
  const float* matrices;     // (n, 3, 3)
  const float* frequencies;  // (k, 3)
  ComplexD* data;            // (size, size, size / 2 + 1), in and out
  double* weight;            // same shape, in and out
  std::int64_t size, n, k;
  double radius;
  std::int32_t threads;
};

/// Cross and quadratic terms of the expanded likelihood (Eq. 4).
struct ScoreArgs {
  const ComplexF* slices;       // (n_slices, k)
  const ComplexF* image;        // (k)
  const float* power;           // (k)
  const ComplexF* phases;       // (n_phases, k)
  const std::int32_t* rows;     // (n_rotations), each in [0, n_slices); or null for all in order
  const std::int32_t* columns;  // (n_shifts), each in [0, n_phases); or null for all in order
  const bool* wanted;           // (n_rotations, n_shifts), where cross terms are wanted; or null for all
  float* cross;                 // (n_rotations, n_shifts), minus infinity where not wanted
  float* quadratic;             // (n_rotations)
  std::int64_t n_rotations, n_shifts, k, n_slices, n_phases;
  std::int32_t threads;
  std::int32_t rough;  // not 0: factors of the cross terms may be rounded to 8 significant bits
};

struct PosteriorSummary {
  double log_evidence;
  std::int64_t best;
  double max_probability;
  std::int64_t n_significant;
  double entropy;
};

/// Normalised posterior over rotations x shifts (Eq. 1).
struct PosteriorArgs {
  const float* log_likelihood;      // (n_rotations, n_shifts)
  const float* log_prior_rotation;  // (n_rotations)
  const float* log_prior_shift;     // (n_shifts)
  float* weights;                   // (n_rotations, n_shifts)
  PosteriorSummary* summary;
  std::int64_t n_rotations, n_shifts;
  double fraction;
  std::int32_t threads;
};

/// Posterior-weighted sums of one particle per rotation (Eq. 11).
struct BackprojectArgs {
  const float* weights;    // (n_rotations, n_shifts)
  const ComplexF* image;   // (k)
  const float* power;      // (k)
  const ComplexF* phases;  // (n_shifts, k)
  ComplexF* sums;          // (n_rotations, k)
  float* totals;           // (n_rotations, k)
  std::int64_t n_rotations, n_shifts, k;
  std::int32_t threads;
};

/// Sums of products over Fourier shells (Eqs. 12, 13, FSC).
struct ShellSumsArgs {
  const ComplexF* a;           // (n, k)
  const ComplexF* b;           // (n, k)
  const float* weights;        // (k) or null for ones
  const std::int32_t* shells;  // (k); entries outside [0, n_shells) are left out
  double* out;                 // (n, n_shells)
  std::int64_t n, k, n_shells;
  std::int32_t threads;
};

/// Numbers per image with `axes` axes of shifts and p = 3 + axes parameters: cross, quadratic, p of the gradient,
/// p (p + 1) / 2 of the curvature's upper triangle, row by row.
template <int axes>
constexpr int curvature_terms = 2 + (3 + axes) + (3 + axes) * (4 + axes) / 2;

/// Value, gradient and curvature of the likelihood of single images (Eq. 4), or of single 3D arrays (Eq. 7').
struct CurvatureArgs {
  const ComplexF* volume;              // (size, size, size / 2 + 1)
  const float* matrices;               // (n, 3, 3)
  const float* frequencies;            // (k, 3)
  const ComplexF* images;              // (m, stride)
  const float* powers;                 // (m, stride)
  const std::int32_t* rows;            // (n), each in [0, m)
  const float* slopes;                 // (n, axes)
  double* out;                         // (n, curvature_terms<axes>)
  std::int64_t size, n, k, m, stride;  // k <= stride
  std::int64_t axes;                   // of shifts: 2 for images, 3 for 3D arrays
  double radius;
  std::int32_t threads;
};

/// Numbers per pixel that `condense` sums: three of the matrix, two of either part of the vector, the power.
constexpr int condensed_terms = 8;

/// Condensed evidence about the CTF phase of every pixel (Eqs. 23-26): adds to `out`.
struct CondenseArgs {
  const ComplexF* volume;    // (size, size, size / 2 + 1)
  const float* matrices;     // (n, 3, 3)
  const float* frequencies;  // (k, 3)
  const ComplexF* images;    // (n, k)
  const float* depths;       // (n)
  const std::int32_t*
      starts;           // (groups + 1), not decreasing, from 0 to n: images of group g are [starts[g], starts[g + 1])
  const float* turns;   // (groups, k)
  const float* slopes;  // (k)
  double* out;          // (groups, condensed_terms, k), in and out
  std::int64_t size, n, k, groups;
  double radius;
  std::int32_t threads;
};

/// Parameters a fit of phases may have.
constexpr std::int64_t max_phase_parameters = 64;

/// Cost of phase errors with gradient and second derivatives (Eqs. 27, 28).
struct PhaseCostArgs {
  const double* matrices;    // (m, 3, k)
  const double* vectors;     // (m, 2, k)
  const double* basis;       // (p, k)
  const double* parameters;  // (n, p)
  const std::int32_t* rows;  // (n), each in [0, m)
  double* out;               // (n, 2, 1 + p + p (p + 1) / 2)
  std::int64_t n, k, m, p;
  std::int32_t threads;
};

/// Numbers per image besides its table: power, and three of the information in shifts.
constexpr int cc_moments = 4;

/// Correlations of images with their predictions on a grid of shifts (Eqs. 31-33).
struct CcTableArgs {
  const ComplexF* slices;                     // (n, k)
  const ComplexF* images;                     // (n, stride)
  const float* powers;                        // (n, stride)
  const float* weights;                       // (m, k)
  const std::int32_t* rows;                   // (n), each in [0, m)
  const std::int32_t* frequencies;            // (k, 2), kx in [0, limit], ky in [-limit, limit], no two alike
  const float* cosines;                       // (limit + 1, half + 1)
  const float* sines;                         // (limit + 1, half + 1), zero in the first row and column
  float* tables;                              // (n, 2 half + 1, 2 half + 1)
  double* moments;                            // (n, cc_moments)
  std::int64_t n, k, m, stride, limit, half;  // k <= stride
  std::int32_t threads;
};

/// Numbers per item of `cc_cost`: value, gradient in x and y, second derivatives xx, xy, yy.
constexpr int cc_cost_terms = 6;

/// Tables of cubic B-splines at given shifts, with derivatives.
struct CcCostArgs {
  const float* tables;       // (m, size, size)
  const std::int32_t* rows;  // (n), each in [0, m)
  const double* shifts;      // (n, 2) x and y from the middle, in points
  double* out;               // (n, cc_cost_terms)
  std::int64_t n, m, size;
  std::int32_t threads;
};

}  // namespace tiltwise
