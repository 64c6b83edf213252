// Entries of the CUDA backend's kernel table.
#pragma once

#include "tiltwise/kernel/abi.hpp"  // for KernelTable, argument structs

namespace tiltwise::cuda {

int available(ErrorText* error);
int project(const ProjectArgs* args, ErrorText* error);
int insert(const InsertArgs* args, ErrorText* error);
int score(const ScoreArgs* args, ErrorText* error);
int posterior(const PosteriorArgs* args, ErrorText* error);
int backproject(const BackprojectArgs* args, ErrorText* error);
int shell_sums(const ShellSumsArgs* args, ErrorText* error);
int curvature(const CurvatureArgs* args, ErrorText* error);
int condense(const CondenseArgs* args, ErrorText* error);
int phase_cost(const PhaseCostArgs* args, ErrorText* error);
int cc_table(const CcTableArgs* args, ErrorText* error);
int cc_cost(const CcCostArgs* args, ErrorText* error);

}  // namespace tiltwise::cuda
