// Tables of correlations at given shifts, with derivatives.  Double precision: bound by loads.
#include "host/kernels.hpp"

#include "tiltwise/base/parallel.hpp"     // for parallel_for
#include "tiltwise/body/correlation.hpp"  // for cc_cost

namespace tiltwise::host {

namespace {

constexpr std::int64_t items_per_task = 512;

}  // namespace

int cc_cost(const CcCostArgs* args, ErrorText*) {
  const CcCostArgs& a = *args;
  parallel_for((a.n + items_per_task - 1) / items_per_task, a.threads, [&](std::int64_t task, int) {
    const std::int64_t first = task * items_per_task;
    const std::int64_t last = first + items_per_task < a.n ? first + items_per_task : a.n;
    for (std::int64_t i = first; i < last; ++i) {
      body::cc_cost(a.tables + a.rows[i] * a.size * a.size, a.size, a.shifts[2 * i], a.shifts[2 * i + 1],
                    a.out + cc_cost_terms * i);
    }
  });
  return status_ok;
}

}  // namespace tiltwise::host
