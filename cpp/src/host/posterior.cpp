// Normalised posterior of one particle over rotations and shifts (Eq. 1), by log-sum-exp.
#include "host/kernels.hpp"

#include "tiltwise/base/parallel.hpp"  // for parallel_for
#include "tiltwise/body/maximise.hpp"  // for log_joint, relative_weight

#include <algorithm>  // for sort, fill_n
#include <cmath>      // for log, isnan
#include <cstdio>     // for snprintf
#include <limits>     // for infinity, quiet_NaN
#include <new>        // for bad_alloc
#include <vector>     // for vector

namespace tiltwise::host {

namespace {

/// Exponents below which weights are zero or denormal numbers, whose exponential takes a hundred times longer.
constexpr double vanishing = -708.0;

struct Candidate {
  double probability;
  std::int64_t pose;
};

/// Sums of one rotation, so that totals can be formed in the order of rotations.
struct RowSums {
  double top = -std::numeric_limits<double>::infinity();
  std::int64_t best = 0;
  bool has_nan = false;
  double total = 0.0;
  double weighted_exponent = 0.0;  // sum of w * (joint - top of all)
};

double joint_at(const PosteriorArgs& a, std::int64_t r, std::int64_t t) {
  return body::log_joint(a.log_likelihood[r * a.n_shifts + t], a.log_prior_rotation[r], a.log_prior_shift[t]);
}

void find_tops(const PosteriorArgs& a, std::vector<RowSums>& rows) {
  parallel_for(a.n_rotations, a.threads, [&](std::int64_t r, int) {
    RowSums row;
    for (std::int64_t t = 0; t < a.n_shifts; ++t) {
      const double joint = joint_at(a, r, t);
      row.has_nan = row.has_nan || std::isnan(joint);
      if (joint > row.top) {
        row.top = joint;
        row.best = r * a.n_shifts + t;
      }
    }
    rows[static_cast<std::size_t>(r)] = row;
  });
}

void sum_weights(const PosteriorArgs& a, double top, std::vector<RowSums>& rows) {
  parallel_for(a.n_rotations, a.threads, [&](std::int64_t r, int) {
    RowSums& row = rows[static_cast<std::size_t>(r)];
    if (row.top - top < vanishing) {
      return;
    }
    for (std::int64_t t = 0; t < a.n_shifts; ++t) {
      const double joint = joint_at(a, r, t);
      if (joint - top < vanishing) {
        continue;
      }
      const double weight = body::relative_weight(joint, top);
      if (weight > 0.0) {
        row.total += weight;
        row.weighted_exponent += weight * (joint - top);
      }
    }
  });
}

/// Poses that may belong to the significant set, in the order of poses.
std::vector<Candidate> candidates(const PosteriorArgs& a, double top, double total, const std::vector<RowSums>& rows) {
  // All poses below (1 - fraction) / n together hold less than 1 - fraction, so none of them is needed.
  // The factor 1/2 leaves room for rounding of the sums.
  const double n = static_cast<double>(a.n_rotations) * static_cast<double>(a.n_shifts);
  const double floor = 0.5 * std::max(0.0, 1.0 - a.fraction) / n;
  std::vector<Candidate> found;
  for (std::int64_t r = 0; r < a.n_rotations; ++r) {
    const RowSums& row = rows[static_cast<std::size_t>(r)];
    if (!(row.total > 0.0) || body::relative_weight(row.top, top) / total < floor) {
      continue;  // not even its best pose
    }
    for (std::int64_t t = 0; t < a.n_shifts; ++t) {
      if (joint_at(a, r, t) - top < vanishing) {
        continue;
      }
      const double probability = body::relative_weight(joint_at(a, r, t), top) / total;
      if (probability > 0.0 && probability >= floor) {
        found.push_back({probability, r * a.n_shifts + t});
      }
    }
  }
  return found;
}

void keep_significant(const PosteriorArgs& a, double top, double total, const std::vector<RowSums>& rows) {
  std::vector<Candidate> found = candidates(a, top, total, rows);
  std::sort(found.begin(), found.end(), [](const Candidate& x, const Candidate& y) {
    return x.probability > y.probability || (x.probability == y.probability && x.pose < y.pose);
  });
  double mass = 0.0;
  for (const Candidate& c : found) {
    mass += c.probability;
  }
  const double target = a.fraction * std::max(mass, 1.0);
  double kept = 0.0;
  std::int64_t count = 0;
  for (const Candidate& c : found) {
    a.weights[c.pose] = static_cast<float>(c.probability);
    kept += c.probability;
    ++count;
    if (kept >= target) {
      break;
    }
  }
  a.summary->n_significant = count;
}

void summarise(const PosteriorArgs& a) {
  const double infinity = std::numeric_limits<double>::infinity();
  *a.summary = {-infinity, 0, 0.0, 0, 0.0};
  std::fill_n(a.weights, a.n_rotations * a.n_shifts, 0.0f);
  std::vector<RowSums> rows(static_cast<std::size_t>(a.n_rotations));
  find_tops(a, rows);
  RowSums all;
  for (const RowSums& row : rows) {
    all.has_nan = all.has_nan || row.has_nan;
    if (row.top > all.top) {
      all.top = row.top;
      all.best = row.best;
    }
  }
  if (all.has_nan || all.top == infinity) {
    a.summary->log_evidence = std::numeric_limits<double>::quiet_NaN();
    return;
  }
  if (all.top == -infinity) {
    return;
  }
  sum_weights(a, all.top, rows);
  for (const RowSums& row : rows) {
    all.total += row.total;
    all.weighted_exponent += row.weighted_exponent;
  }
  a.summary->log_evidence = all.top + std::log(all.total);
  a.summary->best = all.best;
  a.summary->max_probability = 1.0 / all.total;
  a.summary->entropy = std::log(all.total) - all.weighted_exponent / all.total;
  keep_significant(a, all.top, all.total, rows);
}

}  // namespace

int posterior(const PosteriorArgs* args, ErrorText* error) {
  try {
    summarise(*args);
  } catch (const std::bad_alloc&) {
    std::snprintf(error->text, sizeof error->text, "posterior: not enough memory for %lld poses",
                  static_cast<long long>(args->n_rotations * args->n_shifts));
    return status_out_of_memory;
  }
  return status_ok;
}

}  // namespace tiltwise::host
