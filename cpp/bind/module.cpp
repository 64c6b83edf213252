// The extension module tiltwise._native.
#include "errors.hpp"
#include "kernels.hpp"

namespace py = pybind11;

namespace {

py::dict build_info() {
  py::dict info;
  info["version"] = TW_VERSION;
  info["compiler"] = TW_COMPILER;
#if defined(_OPENMP)
  info["openmp"] = true;
#else
  info["openmp"] = false;
#endif
  return info;
}

}  // namespace

PYBIND11_MODULE(_native, module, py::mod_gil_not_used()) {
  module.doc() = "Compiled kernels of tiltwise; use tiltwise.kernels.select.";
  tiltwise::bind::register_errors(module);
  tiltwise::bind::register_kernels(module);
  tiltwise::bind::register_gather(module);
  module.def("build_info", &build_info, "How the module was built.");
}
