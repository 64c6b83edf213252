// The one place that knows OpenMP.  Without OpenMP the loops are serial.
#pragma once

#include "tiltwise/base/hd.hpp"  // for TW_HD

#include <cstdint>  // for int64_t

#if defined(__SANITIZE_THREAD__)
#include <atomic>  // for atomic
#include <thread>  // for thread
#include <vector>  // for vector
#elif defined(_OPENMP)
#include <omp.h>  // for omp_get_thread_num
#endif

namespace tiltwise {

/// Calls body(index, thread) for every index in [0, n), thread < max(threads, 1).
///
/// Chunks are handed out in any order: a body must write only what belongs to its index, so that results
/// do not depend on the number of threads.  Bodies must not throw.  Always inlined, because it is
/// compiled at several instruction-set levels.
template <class Body>
TW_HD void parallel_for(std::int64_t n, std::int32_t threads, const Body& body) {
#if defined(__SANITIZE_THREAD__)
  // The sanitizer does not see the barriers of the OpenMP library, and would report every loop.
  std::atomic<std::int64_t> next{0};
  const auto work = [&](int thread) {
    for (std::int64_t index = next++; index < n; index = next++) {
      body(index, thread);
    }
  };
  std::vector<std::thread> team;
  for (std::int32_t thread = 1; thread < threads; ++thread) {
    team.emplace_back(work, thread);
  }
  work(0);
  for (std::thread& member : team) {
    member.join();
  }
#else
#if defined(_OPENMP)
  if (threads > 1 && n > 1) {
    const int team = n < threads ? static_cast<int>(n) : threads;
#pragma omp parallel for num_threads(team) schedule(dynamic, 1)
    for (std::int64_t index = 0; index < n; ++index) {
      body(index, omp_get_thread_num());
    }
    return;
  }
#endif
  static_cast<void>(threads);
  for (std::int64_t index = 0; index < n; ++index) {
    body(index, 0);
  }
#endif
}

}  // namespace tiltwise
