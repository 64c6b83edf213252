#include "arrays.hpp"

namespace py = pybind11;

namespace tiltwise::bind {

namespace {

std::string shape_text(const py::array& array) {
  std::string text = "(";
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
    text += (axis > 0 ? ", " : "") + std::to_string(array.shape(axis));
  }
  return text + (array.ndim() == 1 ? ",)" : ")");
}

std::string expected_shape(const Argument& argument, const Extents& extents) {
  std::string text = std::string(argument.shape) + " = (";
  for (std::size_t axis = 0; axis < extents.size(); ++axis) {
    text += (axis > 0 ? ", " : "") + (extents[axis] < 0 ? std::string("any") : std::to_string(extents[axis]));
  }
  return text + ")";
}

[[noreturn]] void refuse(ErrorKind kind, const Argument& argument, const std::string& problem,
                         const std::string& expected, const std::string& found, const std::string& fix = "") {
  Error error(kind, "argument '" + std::string(argument.name) + "' " + problem);
  error.where = "kernel " + std::string(argument.kernel);
  error.expected = expected;
  error.found = found;
  error.fix = fix;
  throw error;
}

bool has_shape(const py::array& array, const Extents& extents) {
  if (array.ndim() != static_cast<py::ssize_t>(extents.size())) {
    return false;
  }
  for (std::size_t axis = 0; axis < extents.size(); ++axis) {
    if (extents[axis] >= 0 && array.shape(static_cast<py::ssize_t>(axis)) != extents[axis]) {
      return false;
    }
  }
  return true;
}

}  // namespace

py::array check_array(const py::object& value, const py::dtype& dtype, const Argument& argument, const Extents& extents,
                      bool writeable) {
  const std::string wanted = "NumPy array of " + py::str(dtype).cast<std::string>();
  if (!py::isinstance<py::array>(value)) {
    refuse(ErrorKind::type, argument, "is not an array", wanted, py::str(py::type::of(value)).cast<std::string>());
  }
  const auto array = py::reinterpret_borrow<py::array>(value);
  if (!array.dtype().equal(dtype)) {
    refuse(ErrorKind::type, argument, "has the wrong dtype", wanted, py::str(array.dtype()).cast<std::string>());
  }
  if (!has_shape(array, extents)) {
    refuse(ErrorKind::shape, argument, "has the wrong shape", expected_shape(argument, extents), shape_text(array));
  }
  const int needed = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if ((array.flags() & needed) != needed) {
    refuse(ErrorKind::shape, argument, "is not laid out as kernels read it", "C-contiguous and aligned memory",
           "strides or offsets of a view", "pass numpy.ascontiguousarray(...) of it");
  }
  if (writeable && !array.writeable()) {
    refuse(ErrorKind::shape, argument, "cannot be written to", "a writeable array", "a read-only one");
  }
  return array;
}

}  // namespace tiltwise::bind
