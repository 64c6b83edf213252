// The parallel loop visits every index once, whatever the number of threads.
#include "harness.hpp"

#include "tiltwise/base/parallel.hpp"  // for parallel_for
#include "tiltwise/base/slabs.hpp"     // for Slabs

#include <cstdint>  // for int64_t
#include <vector>   // for vector

namespace {

void visits_every_index_once() {
  for (const std::int32_t threads : {-1, 0, 1, 2, 3, 8}) {
    for (const std::int64_t n : {0, 1, 2, 7, 100}) {
      std::vector<int> visits(static_cast<std::size_t>(n));
      std::vector<int> threads_seen(static_cast<std::size_t>(n), -1);
      tiltwise::parallel_for(n, threads, [&](std::int64_t index, int thread) {
        ++visits[static_cast<std::size_t>(index)];
        threads_seen[static_cast<std::size_t>(index)] = thread;
      });
      for (std::size_t i = 0; i < visits.size(); ++i) {
        EXPECT(visits[i] == 1);
        EXPECT(threads_seen[i] >= 0 && threads_seen[i] < (threads > 1 ? threads : 1));
      }
    }
  }
}

void every_plane_has_one_owner() {
  for (const std::int32_t parts : {1, 2, 3, 5}) {
    const tiltwise::Slabs slabs = {parts};
    std::vector<int> planes(static_cast<std::size_t>(parts));
    for (std::int32_t plane = 0; plane < 64; ++plane) {
      const std::int32_t owner = slabs.owner(plane);
      EXPECT(owner >= 0 && owner < parts);
      ++planes[static_cast<std::size_t>(owner)];
    }
    for (const int count : planes) {
      EXPECT(count >= 64 / parts - tiltwise::Slabs::planes_per_block);
    }
  }
}

}  // namespace

int main() {
  return harness::run_all(
      {{"visits every index once", visits_every_index_once}, {"every plane has one owner", every_plane_has_one_owner}});
}
