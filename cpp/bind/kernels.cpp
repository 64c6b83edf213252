// One method per kernel: check the arguments, let go of the interpreter, make one call.
// Contracts: python/tiltwise/kernels/api.py.
#include "kernels.hpp"

#include "arrays.hpp"
#include "errors.hpp"

#include "registry/registry.hpp"  // for builtin_tables, open_plugin

#include <cmath>   // for isfinite
#include <vector>  // for vector

namespace py = pybind11;
using namespace py::literals;

namespace tiltwise::bind {

namespace {

/// A backend: a kernel table that stays loaded.
struct Kernels {
  const KernelTable* table;
};

/// Calls a kernel without the interpreter lock; nothing in `args` may be a Python object.
template <class Args>
void call(const KernelTable* table, int (*kernel)(const Args*, ErrorText*), const Args& args, const char* name) {
  ErrorText text = {};
  int status = status_ok;
  {
    const py::gil_scoped_release release;
    status = kernel(&args, &text);
  }
  check_status(status, text, std::string("kernel ") + name + " of backend " + table->name);
}

std::int64_t cube_size(const py::object& volume) {
  return py::isinstance<py::array>(volume) && py::reinterpret_borrow<py::array>(volume).ndim() > 0
             ? py::reinterpret_borrow<py::array>(volume).shape(0)
             : -1;
}

/// -1 for what is no array, or has no axes.
std::int64_t last_extent(const py::object& object) {
  if (!py::isinstance<py::array>(object)) {
    return -1;
  }
  const auto array = py::reinterpret_borrow<py::array>(object);
  return array.ndim() > 0 ? array.shape(array.ndim() - 1) : -1;
}

Extents half_complex(std::int64_t size) {
  return {size, size, size < 0 ? -1 : size / 2 + 1};
}

void check_radius(double radius, std::int64_t size, const char* kernel) {
  const auto limit = static_cast<double>(size / 2);
  if (!(radius >= 0.0 && radius <= limit)) {
    Error error(ErrorKind::shape, "radius reaches beyond the volume");
    error.where = std::string("kernel ") + kernel;
    error.expected = "0 <= radius <= " + std::to_string(size / 2);
    error.found = py::str(py::float_(radius)).cast<std::string>();
    throw error;
  }
}

constexpr const char* volume_shape = "(M, M, M // 2 + 1)";

py::array project(const Kernels& self, const py::object& volume, const py::object& matrices,
                  const py::object& frequencies, double radius, const py::object& out, std::int32_t threads) {
  const std::int64_t size = cube_size(volume);
  const auto v = input<ComplexF>(volume, {"project", "volume", volume_shape}, half_complex(size));
  const auto m = input<float>(matrices, {"project", "matrices", "(n, 3, 3)"}, {-1, 3, 3});
  const auto f = input<float>(frequencies, {"project", "frequencies", "(K, 3)"}, {-1, 3});
  check_radius(radius, size, "project");
  const std::int64_t n = m.extent(0), k = f.extent(0);
  const auto o = output_or_new<ComplexF>(out, {"project", "out", "(n, K)"}, {n, k});
  const ProjectArgs args = {v.data, m.data, f.data, o.data, size, n, k, radius, threads};
  call(self.table, self.table->project, args, "project");
  return o.array;
}

void insert(const Kernels& self, const py::object& slices, const py::object& weights, const py::object& matrices,
            const py::object& frequencies, double radius, const py::object& data, const py::object& weight,
            std::int32_t threads) {
  const std::int64_t size = cube_size(data);
  const auto m = input<float>(matrices, {"insert", "matrices", "(n, 3, 3)"}, {-1, 3, 3});
  const auto f = input<float>(frequencies, {"insert", "frequencies", "(K, 3)"}, {-1, 3});
  const std::int64_t n = m.extent(0), k = f.extent(0);
  const auto s = input<ComplexF>(slices, {"insert", "slices", "(n, K)"}, {n, k});
  const auto w = input<float>(weights, {"insert", "weights", "(n, K)"}, {n, k});
  const auto d = in_place<ComplexD>(data, {"insert", "data", volume_shape}, half_complex(size));
  const auto a = in_place<double>(weight, {"insert", "weight", volume_shape}, half_complex(size));
  check_radius(radius, size, "insert");
  const InsertArgs args = {s.data, w.data, m.data, f.data, d.data, a.data, size, n, k, radius, threads};
  call(self.table, self.table->insert, args, "insert");
}

/// A list of indices below `limit`, or none.
struct IndexList {
  const std::int32_t* data = nullptr;
  std::int64_t count = 0;
};

IndexList indices(const py::object& list, const Argument& argument, std::int64_t limit, std::int64_t count = -1) {
  if (list.is_none()) {
    return {nullptr, limit};
  }
  const auto found = input<std::int32_t>(list, argument, {count});
  for (std::int64_t i = 0; i < found.extent(0); ++i) {
    if (found.data[i] < 0 || found.data[i] >= limit) {
      Error error(ErrorKind::shape, std::string("argument '") + argument.name + "' names an element that is not there");
      error.where = std::string("kernel ") + argument.kernel;
      error.expected = "0 to " + std::to_string(limit - 1);
      error.found = std::to_string(found.data[i]);
      throw error;
    }
  }
  return {found.data, found.extent(0)};
}

/// The same where a list of `count` must be given.
IndexList every_index(const py::object& list, const Argument& argument, std::int64_t limit, std::int64_t count) {
  static_cast<void>(input<std::int32_t>(list, argument, {count}));
  return indices(list, argument, limit, count);
}

py::tuple score(const Kernels& self, const py::object& slices, const py::object& image, const py::object& power,
                const py::object& phases, const py::object& rows, const py::object& columns, const py::object& wanted,
                bool rough, std::int32_t threads) {
  const auto s = input<ComplexF>(slices, {"score", "slices", "(R, K)"}, {-1, -1});
  const std::int64_t n_slices = s.extent(0), k = s.extent(1);
  const auto i = input<ComplexF>(image, {"score", "image", "(K,)"}, {k});
  const auto b = input<float>(power, {"score", "power", "(K,)"}, {k});
  const auto p = input<ComplexF>(phases, {"score", "phases", "(T, K)"}, {-1, k});
  const std::int64_t n_phases = p.extent(0);
  const IndexList r = indices(rows, {"score", "rows", "(r,)"}, n_slices);
  const IndexList t = indices(columns, {"score", "columns", "(t,)"}, n_phases);
  const bool* where = nullptr;
  if (!wanted.is_none()) {
    where = input<bool>(wanted, {"score", "wanted", "(r, t)"}, {r.count, t.count}).data;
  }
  const auto cross = output<float>({r.count, t.count});
  const auto quadratic = output<float>({r.count});
  const ScoreArgs args = {s.data,         i.data,  b.data,  p.data, r.data,   t.data,   where,   cross.data,
                          quadratic.data, r.count, t.count, k,      n_slices, n_phases, threads, rough ? 1 : 0};
  call(self.table, self.table->score, args, "score");
  return py::make_tuple(cross.array, quadratic.array);
}

py::tuple posterior(const Kernels& self, const py::object& log_likelihood, const py::object& log_prior_rotation,
                    const py::object& log_prior_shift, double fraction, std::int32_t threads) {
  const auto l = input<float>(log_likelihood, {"posterior", "log_likelihood", "(R, T)"}, {-1, -1});
  const std::int64_t r = l.extent(0), t = l.extent(1);
  const auto pr = input<float>(log_prior_rotation, {"posterior", "log_prior_rotation", "(R,)"}, {r});
  const auto pt = input<float>(log_prior_shift, {"posterior", "log_prior_shift", "(T,)"}, {t});
  const auto weights = output<float>({r, t});
  PosteriorSummary summary = {};
  const PosteriorArgs args = {l.data, pr.data, pt.data, weights.data, &summary, r, t, fraction, threads};
  call(self.table, self.table->posterior, args, "posterior");
  return py::make_tuple(weights.array, py::make_tuple(summary.log_evidence, summary.best, summary.max_probability,
                                                      summary.n_significant, summary.entropy));
}

py::tuple backproject(const Kernels& self, const py::object& weights, const py::object& image, const py::object& power,
                      const py::object& phases, std::int32_t threads) {
  const auto w = input<float>(weights, {"backproject", "weights", "(R, T)"}, {-1, -1});
  const std::int64_t r = w.extent(0), t = w.extent(1);
  const auto i = input<ComplexF>(image, {"backproject", "image", "(K,)"}, {-1});
  const std::int64_t k = i.extent(0);
  const auto b = input<float>(power, {"backproject", "power", "(K,)"}, {k});
  const auto p = input<ComplexF>(phases, {"backproject", "phases", "(T, K)"}, {t, k});
  const auto sums = output<ComplexF>({r, k});
  const auto totals = output<float>({r, k});
  const BackprojectArgs args = {w.data, i.data, b.data, p.data, sums.data, totals.data, r, t, k, threads};
  call(self.table, self.table->backproject, args, "backproject");
  return py::make_tuple(sums.array, totals.array);
}

py::array shell_sums(const Kernels& self, const py::object& a, const py::object& b, const py::object& weights,
                     const py::object& shells, std::int64_t n_shells, std::int32_t threads) {
  const auto va = input<ComplexF>(a, {"shell_sums", "a", "(n, K)"}, {-1, -1});
  const std::int64_t n = va.extent(0), k = va.extent(1);
  const auto vb = input<ComplexF>(b, {"shell_sums", "b", "(n, K)"}, {n, k});
  const auto s = input<std::int32_t>(shells, {"shell_sums", "shells", "(K,)"}, {k});
  const float* w = nullptr;
  if (!weights.is_none()) {
    w = input<float>(weights, {"shell_sums", "weights", "(K,)"}, {k}).data;
  }
  if (n_shells < 0) {
    Error error(ErrorKind::shape, "argument 'n_shells' is negative");
    error.where = "kernel shell_sums";
    error.found = std::to_string(n_shells);
    throw error;
  }
  const auto out = output<double>({n, n_shells});
  const ShellSumsArgs args = {va.data, vb.data, w, s.data, out.data, n, k, n_shells, threads};
  call(self.table, self.table->shell_sums, args, "shell_sums");
  return out.array;
}

py::array curvature(const Kernels& self, const py::object& volume, const py::object& matrices,
                    const py::object& frequencies, double radius, const py::object& images, const py::object& powers,
                    const py::object& rows, const py::object& slopes, std::int32_t threads) {
  const std::int64_t size = cube_size(volume);
  const auto v = input<ComplexF>(volume, {"curvature", "volume", volume_shape}, half_complex(size));
  const auto m = input<float>(matrices, {"curvature", "matrices", "(n, 3, 3)"}, {-1, 3, 3});
  const auto f = input<float>(frequencies, {"curvature", "frequencies", "(K, 3)"}, {-1, 3});
  check_radius(radius, size, "curvature");
  const std::int64_t n = m.extent(0), k = f.extent(0);
  const auto y = input<ComplexF>(images, {"curvature", "images", "(m, S)"}, {-1, -1});
  const std::int64_t n_images = y.extent(0), stride = y.extent(1);
  const auto b = input<float>(powers, {"curvature", "powers", "(m, S)"}, {n_images, stride});
  const IndexList r = every_index(rows, {"curvature", "rows", "(n,)"}, n_images, n);
  const std::int64_t axes = last_extent(slopes) == 3 ? 3 : 2;
  const auto t = input<float>(slopes, {"curvature", "slopes", "(n, 2) or (n, 3)"}, {n, axes});
  if (stride < k) {
    Error error(ErrorKind::shape, "argument 'images' has fewer components than there are frequencies");
    error.where = "kernel curvature";
    error.expected = "at least " + std::to_string(k);
    error.found = std::to_string(stride);
    throw error;
  }
  const auto out = output<double>({n, axes == 3 ? curvature_terms<3> : curvature_terms<2>});
  const CurvatureArgs args = {v.data, m.data, f.data, y.data,   b.data, r.data, t.data, out.data,
                              size,   n,      k,      n_images, stride, axes,   radius, threads};
  call(self.table, self.table->curvature, args, "curvature");
  return out.array;
}

/// Refuses lists of starts that do not cut [0, n) into consecutive ranges.
void check_starts(const std::int32_t* starts, std::int64_t groups, std::int64_t n, const char* kernel) {
  bool good = starts[0] == 0 && starts[groups] == n;
  for (std::int64_t g = 0; g < groups; ++g) {
    good = good && starts[g] <= starts[g + 1];
  }
  if (!good) {
    Error error(ErrorKind::shape, "argument 'starts' does not cut the images into groups");
    error.where = std::string("kernel ") + kernel;
    error.expected = "not decreasing, from 0 to " + std::to_string(n);
    error.found = std::to_string(starts[0]) + " to " + std::to_string(starts[groups]);
    throw error;
  }
}

void condense(const Kernels& self, const py::object& volume, const py::object& matrices, const py::object& frequencies,
              double radius, const py::object& images, const py::object& depths, const py::object& starts,
              const py::object& turns, const py::object& slopes, const py::object& out, std::int32_t threads) {
  const std::int64_t size = cube_size(volume);
  const auto v = input<ComplexF>(volume, {"condense", "volume", volume_shape}, half_complex(size));
  const auto m = input<float>(matrices, {"condense", "matrices", "(n, 3, 3)"}, {-1, 3, 3});
  const auto f = input<float>(frequencies, {"condense", "frequencies", "(K, 3)"}, {-1, 3});
  check_radius(radius, size, "condense");
  const std::int64_t n = m.extent(0), k = f.extent(0);
  const auto x = input<ComplexF>(images, {"condense", "images", "(n, K)"}, {n, k});
  const auto z = input<float>(depths, {"condense", "depths", "(n,)"}, {n});
  const auto t = input<float>(turns, {"condense", "turns", "(G, K)"}, {-1, k});
  const std::int64_t groups = t.extent(0);
  const auto s = input<std::int32_t>(starts, {"condense", "starts", "(G + 1,)"}, {groups + 1});
  check_starts(s.data, groups, n, "condense");
  const auto d = input<float>(slopes, {"condense", "slopes", "(K,)"}, {k});
  const auto o = in_place<double>(out, {"condense", "out", "(G, 8, K)"}, {groups, condensed_terms, k});
  const CondenseArgs args = {v.data, m.data, f.data, x.data, z.data, s.data, t.data, d.data,
                             o.data, size,   n,      k,      groups, radius, threads};
  call(self.table, self.table->condense, args, "condense");
}

py::array phase_cost(const Kernels& self, const py::object& matrices, const py::object& vectors,
                     const py::object& basis, const py::object& parameters, const py::object& rows,
                     std::int32_t threads) {
  const auto m = input<double>(matrices, {"phase_cost", "matrices", "(m, 3, K)"}, {-1, 3, -1});
  const std::int64_t count = m.extent(0), k = m.extent(2);
  const auto v = input<double>(vectors, {"phase_cost", "vectors", "(m, 2, K)"}, {count, 2, k});
  const auto b = input<double>(basis, {"phase_cost", "basis", "(P, K)"}, {-1, k});
  const std::int64_t p = b.extent(0);
  const auto x = input<double>(parameters, {"phase_cost", "parameters", "(n, P)"}, {-1, p});
  const std::int64_t n = x.extent(0);
  const IndexList r = every_index(rows, {"phase_cost", "rows", "(n,)"}, count, n);
  if (p > max_phase_parameters) {
    Error error(ErrorKind::shape, "argument 'basis' has too many parameters");
    error.where = "kernel phase_cost";
    error.expected = "at most " + std::to_string(max_phase_parameters);
    error.found = std::to_string(p);
    throw error;
  }
  const auto out = output<double>({n, 2, 1 + p + p * (p + 1) / 2});
  const PhaseCostArgs args = {m.data, v.data, b.data, x.data, r.data, out.data, n, k, count, p, threads};
  call(self.table, self.table->phase_cost, args, "phase_cost");
  return out.array;
}

/// Refuses frequencies outside the functions of shifts, or listed twice.
void check_places(const std::int32_t* frequencies, std::int64_t k, std::int64_t limit) {
  const std::int64_t lines = 2 * limit + 1;
  std::vector<bool> taken(static_cast<std::size_t>((limit + 1) * lines));
  for (std::int64_t j = 0; j < k; ++j) {
    const std::int64_t kx = frequencies[2 * j], ky = frequencies[2 * j + 1];
    const bool inside = kx >= 0 && kx <= limit && ky >= -limit && ky <= limit;
    const std::int64_t place = inside ? kx * lines + ky + limit : 0;
    if (!inside || taken[static_cast<std::size_t>(place)]) {
      Error error(ErrorKind::shape, inside ? "argument 'frequencies' lists a component twice"
                                           : "argument 'frequencies' holds a component that 'cosines' does not cover");
      error.where = "kernel cc_table";
      error.expected =
          "different ones, kx from 0 and ky from " + std::to_string(-limit) + " to " + std::to_string(limit);
      error.found = std::to_string(kx) + ", " + std::to_string(ky);
      throw error;
    }
    taken[static_cast<std::size_t>(place)] = true;
  }
}

py::tuple cc_table(const Kernels& self, const py::object& slices, const py::object& images, const py::object& powers,
                   const py::object& weights, const py::object& rows, const py::object& frequencies,
                   const py::object& cosines, const py::object& sines, const py::object& out, std::int32_t threads) {
  const auto v = input<ComplexF>(slices, {"cc_table", "slices", "(n, K)"}, {-1, -1});
  const std::int64_t n = v.extent(0), k = v.extent(1);
  const auto x = input<ComplexF>(images, {"cc_table", "images", "(n, S)"}, {n, -1});
  const std::int64_t stride = x.extent(1);
  const auto b = input<float>(powers, {"cc_table", "powers", "(n, S)"}, {n, stride});
  const auto w = input<float>(weights, {"cc_table", "weights", "(m, K)"}, {-1, k});
  const std::int64_t m = w.extent(0);
  const IndexList r = every_index(rows, {"cc_table", "rows", "(n,)"}, m, n);
  const auto f = input<std::int32_t>(frequencies, {"cc_table", "frequencies", "(K, 2)"}, {k, 2});
  const auto c = input<float>(cosines, {"cc_table", "cosines", "(L + 1, H + 1)"}, {-1, -1});
  const std::int64_t lines = c.extent(0), shifts = c.extent(1);
  const auto s = input<float>(sines, {"cc_table", "sines", "(L + 1, H + 1)"}, {lines, shifts});
  if (stride < k || lines < 1 || shifts < 1) {
    Error error(ErrorKind::shape, stride < k ? "argument 'images' has fewer components than there are slices"
                                             : "argument 'cosines' is empty");
    error.where = "kernel cc_table";
    error.expected = "at least " + std::to_string(stride < k ? k : 1);
    error.found = std::to_string(stride < k ? stride : 0);
    throw error;
  }
  check_places(f.data, k, lines - 1);
  const std::int64_t side = 2 * shifts - 1;
  const auto o = output_or_new<float>(out, {"cc_table", "out", "(n, 2 H + 1, 2 H + 1)"}, {n, side, side});
  const auto moments = output<double>({n, cc_moments});
  const CcTableArgs args = {v.data,       x.data, b.data, w.data, r.data, f.data,    c.data,     s.data, o.data,
                            moments.data, n,      k,      m,      stride, lines - 1, shifts - 1, threads};
  call(self.table, self.table->cc_table, args, "cc_table");
  return py::make_tuple(o.array, moments.array);
}

py::array cc_cost(const Kernels& self, const py::object& tables, const py::object& rows, const py::object& shifts,
                  std::int32_t threads) {
  const std::int64_t size = last_extent(tables);
  const auto t = input<float>(tables, {"cc_cost", "tables", "(m, S, S)"}, {-1, size, size});
  const std::int64_t m = t.extent(0);
  const auto d = input<double>(shifts, {"cc_cost", "shifts", "(n, 2)"}, {-1, 2});
  const std::int64_t n = d.extent(0);
  const IndexList r = every_index(rows, {"cc_cost", "rows", "(n,)"}, m, n);
  const auto out = output<double>({n, cc_cost_terms});
  const CcCostArgs args = {t.data, r.data, d.data, out.data, n, m, size, threads};
  call(self.table, self.table->cc_cost, args, "cc_cost");
  return out.array;
}

std::string unavailable_reason(const Kernels& self) {
  ErrorText text = {};
  return self.table->available(&text) == status_ok ? "" : text.text;
}

Kernels open_plugin(const std::string& path) {
  std::string reason;
  const KernelTable* table = registry::open_plugin(path, reason);
  if (table == nullptr) {
    Error error(ErrorKind::unavailable, "a kernel plugin cannot be loaded: " + reason);
    error.where = path;
    throw error;
  }
  return {table};
}

py::list builtin() {
  py::list list;
  for (const KernelTable* table : registry::builtin_tables()) {
    list.append(Kernels{table});
  }
  return list;
}

}  // namespace

void register_kernels(py::module_& module) {
  py::class_<Kernels>(module, "Kernels")
      .def_property_readonly("name", [](const Kernels& self) { return self.table->name; })
      .def_property_readonly("rough_score", [](const Kernels& self) { return self.table->rough_score != 0; })
      .def("unavailable_reason", &unavailable_reason)
      .def("project", &project, "volume"_a, "matrices"_a, "frequencies"_a, "radius"_a, "out"_a, "threads"_a)
      .def("insert", &insert, "slices"_a, "weights"_a, "matrices"_a, "frequencies"_a, "radius"_a, "data"_a, "weight"_a,
           "threads"_a)
      .def("score", &score, "slices"_a, "image"_a, "power"_a, "phases"_a, "rows"_a, "columns"_a, "wanted"_a, "rough"_a,
           "threads"_a)
      .def("posterior", &posterior, "log_likelihood"_a, "log_prior_rotation"_a, "log_prior_shift"_a, "fraction"_a,
           "threads"_a)
      .def("backproject", &backproject, "weights"_a, "image"_a, "power"_a, "phases"_a, "threads"_a)
      .def("curvature", &curvature, "volume"_a, "matrices"_a, "frequencies"_a, "radius"_a, "images"_a, "powers"_a,
           "rows"_a, "slopes"_a, "threads"_a)
      .def("condense", &condense, "volume"_a, "matrices"_a, "frequencies"_a, "radius"_a, "images"_a, "depths"_a,
           "starts"_a, "turns"_a, "slopes"_a, "out"_a, "threads"_a)
      .def("phase_cost", &phase_cost, "matrices"_a, "vectors"_a, "basis"_a, "parameters"_a, "rows"_a, "threads"_a)
      .def("cc_table", &cc_table, "slices"_a, "images"_a, "powers"_a, "weights"_a, "rows"_a, "frequencies"_a,
           "cosines"_a, "sines"_a, "out"_a, "threads"_a)
      .def("cc_cost", &cc_cost, "tables"_a, "rows"_a, "shifts"_a, "threads"_a)
      .def("shell_sums", &shell_sums, "a"_a, "b"_a, "weights"_a, "shells"_a, "n_shells"_a, "threads"_a);
  module.def("builtin", &builtin, "Every backend compiled into the module, slowest first.");
  module.def("open_plugin", &open_plugin, "path"_a, "Loads the backend of a plugin; BackendUnavailable if it cannot.");
}

}  // namespace tiltwise::bind
