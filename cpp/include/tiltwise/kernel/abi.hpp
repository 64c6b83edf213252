// The table of kernels that every backend fills, built in or loaded from a plugin.
#pragma once

#include "tiltwise/kernel/args.hpp"  // for the argument structs

#include <cstdint>  // for int32_t, uint32_t

namespace tiltwise {

/// Raised whenever a struct of args.hpp or KernelTable changes.
constexpr std::uint32_t abi_number = 7;

/// What a kernel returns; anything but `ok` comes with a text.
enum Status : int {
  status_ok = 0,
  status_invalid = 1,        ///< the arguments cannot be computed with
  status_out_of_memory = 2,  ///< host or device memory
  status_unavailable = 3,    ///< no device, or a driver that is too old
  status_failed = 4,         ///< anything else that went wrong
};

/// Message of a failed call, null-terminated.
struct ErrorText {
  char text[512];
};

struct KernelTable {
  std::uint32_t abi;
  const char* name;
  /// ok if this machine can run the backend; else why not.
  int (*available)(ErrorText*);
  int (*project)(const ProjectArgs*, ErrorText*);
  int (*insert)(const InsertArgs*, ErrorText*);
  int (*score)(const ScoreArgs*, ErrorText*);
  int (*posterior)(const PosteriorArgs*, ErrorText*);
  int (*backproject)(const BackprojectArgs*, ErrorText*);
  int (*shell_sums)(const ShellSumsArgs*, ErrorText*);
  int (*curvature)(const CurvatureArgs*, ErrorText*);
  int (*condense)(const CondenseArgs*, ErrorText*);
  int (*phase_cost)(const PhaseCostArgs*, ErrorText*);
  int (*cc_table)(const CcTableArgs*, ErrorText*);
  int (*cc_cost)(const CcCostArgs*, ErrorText*);
  /// Not 0: `score` rounds factors where it may, and is faster for it.
  std::int32_t rough_score;
};

}  // namespace tiltwise

/// The only symbol a plugin exports: its table, or null when it was built for another abi number.
extern "C" __attribute__((visibility("default"))) const tiltwise::KernelTable* tw_backend(std::uint32_t abi);
