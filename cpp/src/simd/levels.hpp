// The instruction-set levels this library was compiled for, each a full table of kernels.
#pragma once

#include "tiltwise/kernel/abi.hpp"  // for KernelTable, argument structs

// Each level lives in its own namespace: tiltwise::v1, ::v3, ::v4, ::bf16, ::neon.
#define TW_DECLARE_LEVEL(level)                                   \
  namespace tiltwise::level {                                     \
  int project(const ProjectArgs* args, ErrorText* error);         \
  int insert(const InsertArgs* args, ErrorText* error);           \
  int score(const ScoreArgs* args, ErrorText* error);             \
  int backproject(const BackprojectArgs* args, ErrorText* error); \
  int shell_sums(const ShellSumsArgs* args, ErrorText* error);    \
  int curvature(const CurvatureArgs* args, ErrorText* error);     \
  int condense(const CondenseArgs* args, ErrorText* error);       \
  int cc_table(const CcTableArgs* args, ErrorText* error);        \
  }

#if defined(TW_LEVEL_V1)
TW_DECLARE_LEVEL(v1)
#endif
#if defined(TW_LEVEL_V3)
TW_DECLARE_LEVEL(v3)
#endif
#if defined(TW_LEVEL_V4)
TW_DECLARE_LEVEL(v4)
#endif
// Only products differ from those of v4.
#if defined(TW_LEVEL_BF16)
namespace tiltwise::bf16 {
int score(const ScoreArgs* args, ErrorText* error);
}
#endif
#if defined(TW_LEVEL_NEON)
TW_DECLARE_LEVEL(neon)
#endif
