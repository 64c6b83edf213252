// Binding of the gather insertion; contract: python/tiltwise/kernels/gather.py.
#include "kernels.hpp"

#include "arrays.hpp"

#include "host/gather.hpp"  // for gather_slices

namespace py = pybind11;
using namespace py::literals;

namespace tiltwise::bind {

namespace {

void gather(const py::object& slices, const py::object& weights, const py::object& matrices, const py::object& limits,
            const py::object& data, const py::object& weight, std::int32_t threads) {
  const auto s = input<ComplexF>(slices, {"gather", "slices", "(n, M, M // 2 + 1)"}, {-1, -1, -1});
  const std::int64_t n = s.extent(0), size = s.extent(1), half = size / 2 + 1;
  const auto w = input<float>(weights, {"gather", "weights", "(n, M, M // 2 + 1)"}, {n, size, half});
  const auto m = input<double>(matrices, {"gather", "matrices", "(n, 3, 3)"}, {n, 3, 3});
  const auto l = input<double>(limits, {"gather", "limits", "(n,)"}, {n});
  const auto d = in_place<ComplexD>(data, {"gather", "data", "(M, M, M // 2 + 1)"}, {size, size, half});
  const auto a = in_place<double>(weight, {"gather", "weight", "(M, M, M // 2 + 1)"}, {size, size, half});
  input<ComplexF>(slices, {"gather", "slices", "(n, M, M // 2 + 1)"}, {n, size, half});
  const GatherArgs args = {s.data, w.data, m.data, l.data, d.data, a.data, size, n, threads};
  const py::gil_scoped_release release;
  gather_slices(args);
}

}  // namespace

void register_gather(py::module_& module) {
  module.def("gather", &gather, "slices"_a, "weights"_a, "matrices"_a, "limits"_a, "data"_a, "weight"_a, "threads"_a);
}

}  // namespace tiltwise::bind
