// The kernel table of the portable backend.
#include "host/kernels.hpp"

namespace tiltwise::host {

namespace {

int available(ErrorText*) {
  return status_ok;
}

}  // namespace

const KernelTable table = {abi_number, "host",    available, project,    insert,   score,   posterior, backproject,
                           shell_sums, curvature, condense,  phase_cost, cc_table, cc_cost, 0};

}  // namespace tiltwise::host
